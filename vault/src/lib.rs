//! The pure core of keyturn: documents, signed texts, machines, events, replay.
//!
//! Everything that keyturn decides is decided here, and nothing is done here: no clock, no
//! randomness, no file, no socket. Time, ids and keys come in as values; what must be checked or
//! carried out outside goes out as values. So the daemon, a custodian's client and an auditor judge
//! by the same code.
//!
//! The formats are written down in `docs/FORMATS.md`; `testdata/` has golden vectors for each.

#![forbid(unsafe_code)]

pub mod ceremony;
pub mod change;
pub mod charter;
pub mod check;
pub mod checkout;
pub mod definition;
pub mod digest;
pub mod event;
pub mod file;
pub mod fuzz;
pub mod id;
pub mod jcs;
pub mod key;
pub mod layout;
pub mod machine;
pub mod manifest;
pub mod name;
pub mod quorum;
pub mod reference;
pub mod refusal;
pub mod replay;
pub mod restore;
pub mod rotation;
pub mod said;
pub mod text;
pub mod time;
pub mod words;
pub mod world;
