//! Tokens behind one trait, and verification of what they sign and attest.
//!
//! A token holds two keys of a person: the approval key, which signs texts, and the share key, to which shares are
//! encrypted. [`software::SoftwareToken`] keeps them in a key file; the crate `keyturn-yubikey` keeps them on a
//! YubiKey. The daemon needs only [`approval`] and [`attestation`]; nothing here links PC/SC.
//!
//! # Invariants
//! 1. One command opens all its shares with one call and signs afterwards, so that the person enters one PIN and
//!    touches the token at most twice, for 1 to 8 credentials ([`BUDGET`]).
//! 2. What the command will ask for is told before the first touch ([`prompt::Notice::Ahead`]).
//! 3. A token that signs has signed exactly the bytes it was given; [`Token::sign`] checks its own signature.
//! 4. A refused or failed call changes nothing: the next call starts anew.
//!
//! [`conformance`] holds every implementation to this.

#![forbid(unsafe_code)]

pub mod approval;
pub mod attestation;
pub mod conformance;
pub mod device;
pub mod error;
pub mod fuzz;
mod pem;
pub mod private;
pub mod prompt;
pub mod software;

use std::fmt;

use keyturn_seal::{SecretBytes, ShareKey};

pub use approval::{ApprovalKey, BadSignature, verify};
pub use error::TokenError;
pub use prompt::{Budget, Notice, Prompt, Purpose, Question};

/// Most that a command may ask of the person: to enter one secret and to touch twice.
pub const BUDGET: Budget = Budget {
    secrets: 1,
    touches: 2,
};

/// Most shares in one call: 8 credentials with 4 live versions each.
pub const SHARES_MAX: usize = 32;

/// Longest share after decryption, in bytes; an envelope's plaintext is well below.
pub const SHARE_MAX: usize = 16 * 1024;

/// Longest text to sign, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// Keys in a file under a passphrase.
    Software,
    /// Keys in a YubiKey's PIV application.
    YubiKey,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::YubiKey => "yubikey",
        })
    }
}

/// What a token says of itself without being asked for a PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// What it is.
    pub kind: TokenKind,
    /// Its serial number, where it has one.
    pub serial: Option<u32>,
    /// Its firmware, where it has one.
    pub firmware: Option<attestation::Firmware>,
}

/// `software -` or `yubikey 12345678`, as in signed texts.
impl fmt::Display for TokenInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serial {
            Some(serial) => write!(f, "{} {serial}", self.kind),
            None => write!(f, "{} -", self.kind),
        }
    }
}

/// Two keys of a person, wherever they are kept.
pub trait Token: Send {
    /// What the token is.
    fn describe(&self) -> TokenInfo;

    /// The key to which shares are encrypted.
    fn share_key(&self) -> &ShareKey;

    /// The key that signs.
    fn approval_key(&self) -> &ApprovalKey;

    /// Decrypts age files, each by itself: one result for each, in the same order.
    fn open_shares(
        &mut self,
        files: &[&[u8]],
        ui: &mut dyn Prompt,
    ) -> Vec<Result<SecretBytes, TokenError>>;

    /// Signs a text with the approval key: ECDSA P-256 over SHA-256, DER.
    fn sign(&mut self, text: &[u8], ui: &mut dyn Prompt) -> Result<Vec<u8>, TokenError>;

    /// What [`Token::set_profile`] left, if anything: a pin to be checked, never a secret.
    fn profile(&mut self) -> Result<Option<Vec<u8>>, TokenError> {
        Ok(None)
    }

    /// Leaves a profile on the token, for machines that know nothing of the vault; false where there is no room for one.
    fn set_profile(&mut self, _: &[u8], _: &mut dyn Prompt) -> Result<bool, TokenError> {
        Ok(false)
    }

    /// The attestation of both keys, where the token can attest.
    fn attest(&mut self) -> Result<Option<attestation::Bundle>, TokenError> {
        Ok(None)
    }
}
