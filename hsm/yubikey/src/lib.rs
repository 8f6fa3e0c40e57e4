//! YubiKeys behind [`keyturn_hsm::Token`].
//!
//! The approval key is in PIV slot 9c (PIN and touch each time), the share key in a retired slot (PIN once, a touch that
//! lasts 15 seconds). [`enrol()`] makes both on the token and writes a [`record`] of where they are; [`YubiKeyToken`] uses
//! them. Slots of other programs are left as they are.
//!
//! This is the only crate that names `yubikey` or `pcsc`. Programs with it link libpcsclite; the daemon does not.
//!
//! # Invariants
//! 1. One opened token asks for the PIN at most once and never tries a PIN twice; with its last try left it says so
//!    before asking.
//! 2. After a touch that was not given, or a token that was pulled out, the rest of a command fails at once: nobody
//!    waits for a second touch that will not come.
//! 3. A signature leaves this crate only if it holds for the enrolled approval key.
//! 4. An enrolment that was interrupted anywhere is finished by running it again; the record is written last.

#![forbid(unsafe_code)]

mod enrol;
mod find;
mod mishap;
mod object;
mod pin;
pub mod record;
mod slots;
mod token;

pub use enrol::{Enrolment, enrol};
pub use find::{Found, list};
pub use object::PROFILE_MAX;
pub use token::YubiKeyToken;
