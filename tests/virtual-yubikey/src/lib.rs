//! A software YubiKey behind the real PC/SC stack, for tests and the demo.
//!
//! [`Card`] is the token: the PIV application with PIN, PUK and their counters, touches given, late or never,
//! attestation by a hierarchy of its own ([`TestPki`]), and the differences between firmware 4, 5.2–5.6 and 5.7.
//! [`Desk`] is a private `pcscd` with readers (vsmartcard's `vpcd`) into which cards are put. Programs under test see
//! nothing but libpcsclite.
//!
//! ```text
//! program under test ── libpcsclite ── pcscd ── vpcd ──TCP── Inserted ── Card
//!                                     └─ own network, mount and process namespace ─┘
//! ```
//!
//! Keys are in ordinary memory and nothing takes constant time: this is no token to keep secrets in.

#![forbid(unsafe_code)]

mod apdu;
mod applet;
mod card;
pub mod control;
mod desk;
mod management;
mod pki;
mod reader;
mod reference;
mod slots;
mod status;
#[cfg(test)]
mod tests;
mod tlv;

pub use card::{Card, Counts, Pull, Touch, Watcher};
pub use desk::{Desk, at_desk, with_desk};
pub use management::ManagementAlgorithm;
pub use pki::{Said, TestPki};
pub use reader::Inserted;
pub use status::Hold;

/// Major, minor, patch.
pub type Firmware = (u8, u8, u8);
