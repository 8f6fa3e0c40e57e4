//! The join: the holder of a token joins a vault, having compared its charter by voice.
//!
//! One text per token, signed by the token's approval key. The nonce was encrypted to the token's
//! share key, so that the text proves both keys. It binds the vault by origin and genesis digest,
//! the charter that the person saw and agreed to, and the token's keys by the enrolment's digest.
//! A founder's join is the founder's signature under charter 1.

use crate::digest::{Digest, Salt};
use crate::name::Origin;
use crate::reference::{CharterRef, PersonRef, TokenRef};
use crate::text::{Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// A token joins a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The vault.
    pub vault: Origin,
    /// The digest of its first charter.
    pub genesis: Digest,
    /// The charter that the person saw: the first for a founder, else the one in force.
    pub charter: CharterRef,
    /// The digest of the enrolment text.
    pub enrolment: Digest,
    /// Who joins.
    pub person: PersonRef,
    /// With which token.
    pub token: TokenRef,
    /// What the token's share key decrypted.
    pub nonce: Salt,
    /// When, by the person's clock.
    pub signed: Stamp,
}

impl Text for Join {
    const TYPE: &'static str = "join";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("genesis", &self.genesis);
        lines.line("charter", &self.charter);
        lines.line("enrolment", &self.enrolment);
        lines.line("person", &self.person);
        lines.line("token", &self.token);
        lines.line("nonce", &self.nonce);
        lines.line("signed", &self.signed);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            genesis: lines.line("genesis")?,
            charter: lines.line("charter")?,
            enrolment: lines.line("enrolment")?,
            person: lines.line("person")?,
            token: lines.line("token")?,
            nonce: lines.line("nonce")?,
            signed: lines.line("signed")?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        if (self.charter.index == 1) == (self.charter.digest == self.genesis) {
            Ok(())
        } else {
            Err(TextError::Rule(
                "the first charter, and no other, is the genesis",
            ))
        }
    }
}
