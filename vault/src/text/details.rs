//! The details: free text, kept beside signed texts and named there by its digest.
//!
//! The only disclosure that can be erased: without the salt nobody can confirm a guess of it.
//! A refusal's reason and a review's note are details too.

use crate::digest::Salt;
use crate::name::Line;
use crate::text::{Reader, Text, TextError, Writer};

/// Free text about a ceremony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What keeps the digest from telling anything.
    pub salt: Salt,
    /// Why.
    pub reason: Line,
    /// Where somebody can be asked.
    pub contact: Option<Line>,
    /// What is affected.
    pub systems: Option<Line>,
}

impl Text for Details {
    const TYPE: &'static str = "details";

    fn write(&self, lines: &mut Writer) {
        lines.line("salt", &self.salt);
        lines.line("reason", &self.reason);
        lines.optional("contact", self.contact.as_ref());
        lines.optional("systems", self.systems.as_ref());
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            salt: lines.line("salt")?,
            reason: lines.line("reason")?,
            contact: lines.optional("contact")?,
            systems: lines.optional("systems")?,
        })
    }
}
