//! Envelopes: a custodian's share in one age file that each of the custodian's active tokens opens.
//!
//! What an envelope decrypts to is a text, so that stock `age` shows everything a recovery needs:
//!
//! ```text
//! keyturn share v1
//! origin: vault.example.org/prod
//! credential: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA
//! version: 7
//! group: ops
//! k: 2
//! n: 3
//! x: 1
//! share: 64 hexadecimal digits
//! ```
//!
//! # Invariants
//! 1. A share leaves this module only if every field is what the manifest says, and the share matches its commitment. So a
//!    custodian's client is no oracle for other files encrypted to the same token.

use age::Identity;
use thiserror::Error;

use crate::{
    DecryptError, SecretBytes, ShareError, Sharing, TextError, ValidShare,
    binding::Field,
    decrypt_with,
    shamir::Share,
    text::{Reader, Writer, number, secret},
};

/// The most bytes an envelope decrypts to.
pub const MAX_PLAINTEXT_BYTES: usize = 2048;

const KIND: &str = "keyturn share v1";

/// Why an envelope gives no share.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It does not decrypt.
    #[error("the envelope does not open with this key")]
    Decrypt(#[source] DecryptError),
    /// It holds something else.
    #[error("the envelope does not hold a share")]
    Text(#[source] TextError),
    /// It holds a share for something else than was asked for.
    #[error(
        "the envelope is for another {0} than it is presented for; do not use it, and report this"
    )]
    Another(Field),
    /// Its share does not match the commitment.
    #[error("the envelope's share is not the one in the manifest; do not use it, and report this")]
    Share(#[source] ShareError),
}

impl Sharing {
    /// Opens custodian `x`'s envelope and checks all that it says.
    pub fn open_envelope(
        &self,
        x: u8,
        envelope: &[u8],
        identity: &dyn Identity,
    ) -> Result<ValidShare, EnvelopeError> {
        let text = decrypt_with(identity, envelope, MAX_PLAINTEXT_BYTES)
            .map_err(EnvelopeError::Decrypt)?;
        self.read_envelope(x, &text)
    }

    /// The same for what a token has decrypted.
    pub fn read_envelope(&self, x: u8, text: &SecretBytes) -> Result<ValidShare, EnvelopeError> {
        // Exposed to its parser.
        let mut text = Reader::new(KIND, text.expose()).map_err(EnvelopeError::Text)?;
        let (another, share) = self.fields(x, &mut text).map_err(EnvelopeError::Text)?;
        text.end().map_err(EnvelopeError::Text)?;
        match another {
            Some(field) => Err(EnvelopeError::Another(field)),
            None => self.verify(x, share).map_err(EnvelopeError::Share),
        }
    }

    /// The first field that differs, and the share.
    fn fields(
        &self,
        x: u8,
        text: &mut Reader<'_>,
    ) -> Result<(Option<Field>, crate::Secret<32>), TextError> {
        let another = self.binding().check(text)?;
        let group = text.name("group")?;
        let k: u8 = text.parse("k", number)?;
        let n: u8 = text.parse("n", number)?;
        let given: u8 = text.parse("x", number)?;
        let share = text.parse("share", secret)?;
        let another = another.or_else(|| {
            [
                (group == self.group(), Field::Group),
                (k == self.threshold().k(), Field::K),
                (n == self.threshold().n(), Field::N),
                (given == x, Field::X),
            ]
            .into_iter()
            .find_map(|(same, field)| (!same).then_some(field))
        });
        Ok((another, share))
    }

    /// The text of an envelope.
    pub(crate) fn envelope_text(&self, share: &Share) -> SecretBytes {
        self.binding()
            .write(Writer::new(KIND))
            .line("group", self.group())
            .number("k", self.threshold().k())
            .number("n", self.threshold().n())
            .number("x", share.x())
            // Exposed to be encrypted.
            .hex("share", "", share.secret().expose())
            .finish()
    }
}
