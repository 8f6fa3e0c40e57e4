//! The harness: a real `keyturnd` on loopback, people with software tokens, and the real `keyturn`.
//!
//! Nothing here knows the inside of either program. A [`World`] is a folder with a vault and its
//! people; [`World::keyturn`] runs the command line as one of them. The demo and the end-to-end tests
//! are stories told with it. [`raw`] and [`story`] speak to the daemon without the command line, for
//! what no honest client sends.

#![forbid(unsafe_code)]

pub mod aws;
mod certificates;
pub mod clocked;
pub mod direct;
pub mod directory;
pub mod harness;
pub mod hold;
pub mod inside;
pub mod keep;
pub mod lanes;
pub mod listener;
pub mod memory;
pub mod page;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod rotated;
pub mod slow;
pub mod stage;
pub mod story;
pub mod target;
pub mod terminal;
pub mod tokens;

pub use harness::{Outcome, World};
pub use program::{Program, Reply};
