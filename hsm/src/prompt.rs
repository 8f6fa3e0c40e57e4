//! What a token asks of the person in front of it.
//!
//! A token never reads a terminal or a file by itself: the program brings a [`Prompt`], which may be a terminal,
//! a file descriptor (`--pin-fd`), `pinentry`, or a script in a test.
//!
//! # Invariants
//! 1. A secret is asked for at most once per opened token; a wrong one is an error, not another question.
//! 2. [`Notice::Ahead`] comes before the first [`Notice::Touch`].
//! 3. Every [`Notice::Touch`] is followed by [`Notice::TouchOver`], whatever became of it.

use std::fmt;

use keyturn_seal::SecretBytes;

use crate::TokenError;

/// Seconds that a YubiKey waits for a touch before it gives up.
pub const TOUCH_WAIT_SECS: u8 = 15;

/// The person, or what stands in for the person.
pub trait Prompt {
    /// Asks for a secret; [`TokenError::NotAnswered`] when there is nobody or the person gives up.
    fn ask(&mut self, question: &Question) -> Result<SecretBytes, TokenError>;

    /// Tells what is about to happen, or has happened. Must not block.
    fn notice(&mut self, notice: &Notice);
}

/// A secret that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// The passphrase of a key file.
    Passphrase,
    /// The PIN of the PIV application.
    Pin {
        /// The serial number of the token.
        serial: u32,
        /// Tries left, where the token tells without counting this as one.
        tries_left: Option<u8>,
    },
    /// A new PIN, chosen at enrolment.
    NewPin {
        /// The serial number of the token.
        serial: u32,
    },
    /// A new PUK, chosen at enrolment.
    NewPuk {
        /// The serial number of the token.
        serial: u32,
    },
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase => f.write_str("passphrase of the key file"),
            Self::Pin {
                serial,
                tries_left: None | Some(3..),
            } => write!(f, "PIN of YubiKey {serial}"),
            Self::Pin {
                serial,
                tries_left: Some(1),
            } => {
                write!(f, "PIN of YubiKey {serial} (last try before it is blocked)")
            }
            Self::Pin {
                serial,
                tries_left: Some(n),
            } => write!(f, "PIN of YubiKey {serial} ({n} tries left)"),
            Self::NewPin { serial } => {
                write!(f, "new PIN for YubiKey {serial} (6 to 8 characters)")
            }
            Self::NewPuk { serial } => write!(f, "new PUK for YubiKey {serial} (8 characters)"),
        }
    }
}

/// What a touch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The shares are decrypted.
    Open,
    /// A text is signed.
    Sign,
}

/// What is about to happen, or has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// All that the rest of this command will ask for.
    Ahead(Budget),
    /// The token may wait for a touch from now on.
    Touch {
        /// The serial number of the token.
        serial: u32,
        /// What the touch is for.
        purpose: Purpose,
        /// For how long the token waits, for a countdown.
        seconds: u8,
    },
    /// The token no longer waits: it was touched, gave up, or did not need it.
    TouchOver,
}

/// How often the person is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Secrets that will be asked for.
    pub secrets: u8,
    /// Touches, at most.
    pub touches: u8,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = match self.secrets {
            0 => "no PIN",
            1 => "one PIN entry",
            _ => "several PIN entries",
        };
        match self.touches {
            0 => write!(f, "{secrets}, no touch"),
            1 => write!(f, "{secrets}, one touch"),
            2 => write!(f, "{secrets}, two touches"),
            n => write!(f, "{secrets}, {n} touches"),
        }
    }
}
