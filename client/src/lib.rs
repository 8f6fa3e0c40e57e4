//! The client library of keyturn.
//!
//! The command line is made of it; so is any other program that wants to talk to a vault.
//!
//! | module | job |
//! | --- | --- |
//! | [`cli`], [`command`] | the command line: one file for each command |
//! | [`home`] | the folder of a person: profile, keys, newest charter and checkpoint, receipts |
//! | [`connect`], [`session`] | the way to a vault, by pins; charter and log followed and verified |
//! | [`verify`] | what the daemon says is held against charter and log |
//! | [`token`] | the person's token |
//! | [`totp`] | one-time codes of a seed that was opened |
//! | [`refusal`], [`causes`] | stable codes, exit codes, hints; errors in one line |
//! | [`ui`] | standard output and error, the live view, prompts |

#![forbid(unsafe_code)]

pub mod causes;
pub mod cli;
pub mod clock;
pub mod command;
pub mod connect;
pub mod home;
pub mod refusal;
pub mod session;
pub mod token;
pub mod totp;
pub mod ui;
pub mod verify;
