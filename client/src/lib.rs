//! The client library of keyturn.
//!
//! The command line is made of it; so is any other program that wants to talk to a vault.

#![forbid(unsafe_code)]

pub mod connect;
pub mod refusal;
