//! The enrolment: a token's keys, before any vault knows them.
//!
//! Signed by the approval key that it names, which proves that somebody holds that key. Which vault
//! it is for, and that the share key is held too, the `join` text proves later, which names the
//! enrolment by its digest.

use std::fmt;
use std::str::FromStr;

use crate::charter::Token;
use crate::digest::Digest;
use crate::id::DeviceId;
use crate::key::{PublicKey, ShareKey};
use crate::name::Name;
use crate::reference::{PersonRef, ReferenceError, TokenKind, TokenRef, parts};
use crate::text::{Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// A token's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrol {
    /// Whose it is.
    pub person: PersonRef,
    /// Which token.
    pub token: TokenRef,
    /// The key that signs approvals, and this text.
    pub approval_key: PublicKey,
    /// The key to which shares are encrypted.
    pub share_key: ShareKey,
    /// The SHA-256 of the object with its attestation certificates.
    pub attestation: Option<Digest>,
    /// The computer on which it was enrolled, if that is to be the person's device.
    pub device: Option<EnrolledDevice>,
    /// When, by that computer's clock.
    pub made: Stamp,
}

/// A device's key; written `<id> <name> <key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledDevice {
    /// Which one it is, for ever.
    pub id: DeviceId,
    /// What its owner calls it.
    pub name: Name,
    /// Its key.
    pub key: PublicKey,
}

impl fmt::Display for EnrolledDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.name, self.key)
    }
}

impl FromStr for EnrolledDevice {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [id, name, key] = parts(text)?;
            Some(Self {
                id: id.parse().ok()?,
                name: name.parse().ok()?,
                key: key.parse().ok()?,
            })
        };
        read().ok_or(ReferenceError("a device: id, name and key"))
    }
}

impl Enrol {
    /// The token as a charter has it; what its maker says of it is for whoever has checked that to add.
    pub fn token(&self) -> Token {
        Token {
            id: self.token.id,
            kind: self.token.kind,
            serial: self.token.serial,
            approval_key: self.approval_key.clone(),
            share_key: self.share_key.clone(),
            attestation: None,
        }
    }
}

impl Text for Enrol {
    const TYPE: &'static str = "enrol";

    fn write(&self, lines: &mut Writer) {
        lines.line("person", &self.person);
        lines.line("token", &self.token);
        lines.line("approval-key", &self.approval_key);
        lines.line("share-key", &self.share_key);
        lines.optional("attestation", self.attestation.as_ref());
        lines.optional("device", self.device.as_ref());
        lines.line("made", &self.made);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            person: lines.line("person")?,
            token: lines.line("token")?,
            approval_key: lines.line("approval-key")?,
            share_key: lines.line("share-key")?,
            attestation: lines.optional("attestation")?,
            device: lines.optional("device")?,
            made: lines.line("made")?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        let hardware = match self.token.kind {
            TokenKind::Yubikey => self.token.serial.is_some(),
            TokenKind::Software => self.token.serial.is_none() && self.attestation.is_none(),
        };
        if !hardware {
            return Err(TextError::Rule(
                "a yubikey has a serial; a software token has none and no attestation",
            ));
        }
        if self
            .device
            .as_ref()
            .is_some_and(|device| device.key == self.approval_key)
        {
            return Err(TextError::Rule(
                "a device's key is not its owner's approval key",
            ));
        }
        Ok(())
    }
}
