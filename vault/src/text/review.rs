//! The review: an auditor or governing person has looked at a ceremony afterwards.
//!
//! Signed by a token or device key of the reviewer. It binds the ceremony through its request, and
//! the log up to which the reviewer looked.

use crate::digest::Digest;
use crate::id::CeremonyId;
use crate::name::Origin;
use crate::reference::{Head, PersonRef, ReferenceError};
use crate::text::{Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// What somebody thinks of a ceremony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The vault.
    pub vault: Origin,
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// The digest of its request.
    pub request: Digest,
    /// Who looked.
    pub reviewer: PersonRef,
    /// What they think.
    pub outcome: Outcome,
    /// The digest of a details text with their words; a questioned ceremony has one.
    pub note: Option<Digest>,
    /// The log up to which they looked.
    pub log: Head,
    /// When, by their clock.
    pub signed: Stamp,
}

/// What a reviewer thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as it should be.
    InOrder,
    /// It needs an answer.
    Questioned,
}

impl Text for Review {
    const TYPE: &'static str = "review";

    fn write(&self, lines: &mut Writer) {
        let outcome = match self.outcome {
            Outcome::InOrder => "in-order",
            Outcome::Questioned => "questioned",
        };
        lines.line("vault", &self.vault);
        lines.line("ceremony", &self.ceremony);
        lines.line("request-sha256", &self.request);
        lines.line("reviewer", &self.reviewer);
        lines.line("outcome", &outcome);
        lines.optional("note", self.note.as_ref());
        lines.line("log", &self.log);
        lines.line("signed", &self.signed);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            ceremony: lines.line("ceremony")?,
            request: lines.line("request-sha256")?,
            reviewer: lines.line("reviewer")?,
            outcome: lines.with("outcome", |outcome| match outcome {
                "in-order" => Ok(Outcome::InOrder),
                "questioned" => Ok(Outcome::Questioned),
                _ => Err(ReferenceError("in-order or questioned")),
            })?,
            note: lines.optional("note")?,
            log: lines.line("log")?,
            signed: lines.line("signed")?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        if self.outcome == Outcome::Questioned && self.note.is_none() {
            return Err(TextError::Rule("a questioned ceremony has a note"));
        }
        Ok(())
    }
}
