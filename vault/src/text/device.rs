//! The device: a person lets another computer speak to the daemon for them.
//!
//! Signed by an approval key of the person. The device gets transport only, and until the next
//! charter: it approves nothing. The text binds the vault, the charter under which the person signs
//! and the device's key.

use crate::digest::Digest;
use crate::name::Origin;
use crate::reference::{CharterRef, PersonRef, TokenRef};
use crate::text::{EnrolledDevice, Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// A device joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// The vault.
    pub vault: Origin,
    /// The digest of its first charter.
    pub genesis: Digest,
    /// The charter in force that the person saw.
    pub charter: CharterRef,
    /// Whose device it is.
    pub person: PersonRef,
    /// The token that signs.
    pub token: TokenRef,
    /// The device.
    pub device: EnrolledDevice,
    /// When, by the person's clock.
    pub signed: Stamp,
}

impl Text for NewDevice {
    const TYPE: &'static str = "device";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("genesis", &self.genesis);
        lines.line("charter", &self.charter);
        lines.line("person", &self.person);
        lines.line("token", &self.token);
        lines.line("device", &self.device);
        lines.line("signed", &self.signed);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            genesis: lines.line("genesis")?,
            charter: lines.line("charter")?,
            person: lines.line("person")?,
            token: lines.line("token")?,
            device: lines.line("device")?,
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
