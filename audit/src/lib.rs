//! The log: what happened, in an order that nobody can change afterwards.
//!
//! Entries are leaves of an RFC 6962 tree. The tree is published as a C2SP `tlog-tiles` directory with a
//! signed checkpoint, so that tools which know nothing of keyturn can verify it. Bodies of entries are
//! opaque here: what they mean is decided elsewhere, with the same bytes.
//!
//! | module | job |
//! | --- | --- |
//! | [`entry`] | the envelope of an entry, in canonical JSON |
//! | [`tree`] | hashing, the right edge kept in the store, proofs |
//! | [`tile`] | paths, entry bundles, reading a published tree |
//! | [`note`] | log key, signed checkpoints, cosignatures of witnesses |
//! | [`proof`] | receipts: `.tlog-proof` files that verify offline |
//! | [`publish`] | writes a log directory so that no crash leaves it wrong; the only file I/O |
//! | [`verify`] | recomputes a whole log from its entries |
//! | [`fuzz`] | what a fuzzer runs against every parser |
//!
//! # Invariants
//! 1. Whatever a parser accepts, it would write again byte for byte.
//! 2. Nothing read from outside is larger than a named bound, and no input makes a parser panic.
//! 3. A checkpoint in a log directory is covered by the tiles beside it, at every moment and after every crash.
#![forbid(unsafe_code)]

pub mod entry;
pub mod fuzz;
pub mod note;
pub mod proof;
pub mod publish;
pub mod tile;
pub mod tree;
pub mod verify;
