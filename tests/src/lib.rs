//! The harness: a real `keyturnd` on loopback, people with software tokens, and the real `keyturn`.
//!
//! Nothing here knows the inside of either program. A [`World`] is a folder with a vault and its
//! people; [`World::keyturn`] runs the command line as one of them. The demo and the end-to-end tests
//! are stories told with it.

#![forbid(unsafe_code)]

pub mod harness;

pub use harness::{Outcome, Program, Reply, World};
