//! Signed texts: lines of `name: value` that people read before they sign them.
//!
//! Each type is a struct that implements [`Text`]: one function writes it, one reads it, and every
//! side uses both. A text is signed as the bytes that it is; its SHA-256 is its name, and six words
//! of that are compared by voice.
//!
//! # Invariants
//! 1. A value has one text: what [`Text::parse`] accepts, [`Text::to_text`] writes again byte for
//!    byte. Every line is there, in a fixed order, `-` where empty; other lines are refused.
//! 2. No text of one type is a text of another: the first line names the type.
//! 3. A line shows all that it holds (see [`crate::name::Line`]), and ends with one LF.
//! 4. A text has at most [`MAX_TEXT_BYTES`], a value at most 500 bytes, a repeated line at most
//!    [`MAX_CREDENTIAL_LINES`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::{Digest, DigestError, SaltError};
use crate::id::IdError;
use crate::key::KeyError;
use crate::name::NameError;
use crate::reference::ReferenceError;
pub use crate::reference::Signer;
use crate::time::TimeError;
use crate::words;

pub mod approval;
pub mod checkin;
pub mod details;
pub mod device;
pub mod enrol;
pub mod heartbeat;
pub mod join;
pub mod line;
pub mod purpose;
pub mod recover;
pub mod request;
pub mod review;
pub mod submit_key;

pub use approval::{Approval, Decision, ShareLine, ShareState};
pub use checkin::{Checkin, Returned};
pub use details::Details;
pub use device::NewDevice;
pub use enrol::{Enrol, EnrolledDevice};
pub use heartbeat::{Confirmation, Heartbeat};
pub use join::Join;
pub(crate) use line::ascending;
pub use line::{Reader, Writer};
pub use purpose::{Change, Purpose, Restore};
pub use recover::Recover;
pub use request::{CredentialLine, Request};
pub use review::{Outcome, Review};
pub use submit_key::SubmitKey;

/// The largest text, in bytes.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Room for most texts, so that they are written into one piece of memory.
const USUAL_BYTES: usize = 1024;
/// The most credentials of one request.
pub const MAX_CREDENTIALS: usize = 8;
/// The most live versions of one credential.
pub const MAX_LIVE_VERSIONS: usize = 4;
/// The most lines about versions in one text: all live ones of the most credentials.
pub const MAX_CREDENTIAL_LINES: usize = MAX_CREDENTIALS * MAX_LIVE_VERSIONS;
/// The longest signature (ECDSA P-256 in DER), in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 72;

/// Why something is not a text of the expected type.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// More bytes than a text may have.
    #[error("the text has {size} bytes; at most {MAX_TEXT_BYTES} are allowed")]
    Size {
        /// Bytes that it has.
        size: usize,
    },
    /// The last line does not end with a line feed.
    #[error("the text does not end with a line feed; is it cut off?")]
    End,
    /// Another type of text, or another version.
    #[error("the first line is not \"{expected}\"")]
    Type {
        /// The first line that was expected.
        expected: String,
    },
    /// A line is missing, misspelled or out of order.
    #[error("line {number} is not \"{name}: …\"")]
    Line {
        /// Which line, counted from 1.
        number: usize,
        /// The name that was expected there.
        name: &'static str,
    },
    /// The value of a line cannot be read.
    #[error("the value of line {number} (\"{name}\") is wrong")]
    Value {
        /// Which line, counted from 1.
        number: usize,
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        source: ValueError,
    },
    /// More lines of one name than allowed.
    #[error("there are more than {max} lines \"{name}\"")]
    Many {
        /// Their name.
        name: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// Something follows the last line.
    #[error("line {number} does not belong to this text")]
    Extra {
        /// Which line, counted from 1.
        number: usize,
    },
    /// Repeated lines are not in ascending order, or one is there twice.
    #[error("the lines \"{name}\" are not in ascending order, or one is there twice")]
    Order {
        /// Their name.
        name: &'static str,
    },
    /// Lines that do not go together.
    #[error("{0}")]
    Rule(&'static str),
}

impl TextError {
    /// A stable code for the kind of error; `docs/FORMATS.md` lists them.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "size",
            Self::End => "end",
            Self::Type { .. } => "type",
            Self::Line { .. } => "line",
            Self::Value { .. } => "value",
            Self::Many { .. } => "many",
            Self::Extra { .. } => "extra",
            Self::Order { .. } => "order",
            Self::Rule(_) => "rule",
        }
    }
}

/// What is wrong with the value of a line.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a name, or characters that no line has.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Not a salt.
    #[error(transparent)]
    Salt(#[from] SaltError),
    /// Not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a time or a span.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// Not what this line names.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// A type of signed text.
pub trait Text: Sized {
    /// The word in the first line.
    const TYPE: &'static str;

    /// Writes all lines but the first.
    fn write(&self, lines: &mut Writer);

    /// Reads all lines but the first.
    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError>;

    /// Do the lines go together? Whoever makes a text asks this before it is signed.
    fn check(&self) -> Result<(), TextError> {
        Ok(())
    }

    /// The text as it is shown, signed and logged.
    fn to_text(&self) -> String {
        let mut lines = Writer {
            text: String::with_capacity(USUAL_BYTES),
        };
        lines.text.push_str(&first_line::<Self>());
        lines.text.push('\n');
        self.write(&mut lines);
        lines.text
    }

    /// Reads a text.
    fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::Size { size: text.len() });
        }
        let body = text.strip_suffix('\n').ok_or(TextError::End)?;
        let mut lines = Reader {
            lines: body.split('\n').collect(),
            next: 1,
        };
        let expected = first_line::<Self>();
        if lines.lines.first().copied() != Some(expected.as_str()) {
            return Err(TextError::Type { expected });
        }
        let value = Self::read(&mut lines)?;
        if lines.next < lines.lines.len() {
            return Err(TextError::Extra {
                number: lines.next.saturating_add(1),
            });
        }
        value.check()?;
        Ok(value)
    }

    /// The SHA-256 of the text.
    fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }

    /// The six words of the text.
    fn six_words(&self) -> [&'static str; 6] {
        words::six_words(&self.digest())
    }
}

fn first_line<T: Text>() -> String {
    format!("keyturn {} v1", T::TYPE)
}

/// A text with its signature, as it travels and as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedText {
    /// The text, byte for byte.
    pub text: String,
    /// ECDSA P-256 over its SHA-256, in DER; in JSON base64.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
    /// Whose key verifies it.
    pub signer: Signer,
}

impl SignedText {
    /// Reads the text. Whether the signature is good is for the shell to check.
    pub fn parse<T: Text>(&self) -> Result<T, TextError> {
        T::parse(&self.text)
    }

    /// The SHA-256 of the text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// A signature in JSON: standard base64 with padding.
pub(crate) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        if bytes.len() > super::MAX_SIGNATURE_BYTES {
            return Err(D::Error::custom(
                "longer than an ECDSA P-256 signature in DER",
            ));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Salt;

    const GOOD: &str = "keyturn details v1\n\
        salt: 0101010101010101010101010101010101010101010101010101010101010101\n\
        reason: IdP down, nobody can sign in\n\
        contact: -\n\
        systems: mail\n";

    #[test]
    fn a_text_is_what_is_written() {
        let details = Details {
            salt: Salt([1; 32]),
            reason: "IdP down, nobody can sign in".parse().unwrap(),
            contact: None,
            systems: Some("mail".parse().unwrap()),
        };
        assert_eq!(details.to_text(), GOOD);
        assert_eq!(Details::parse(GOOD), Ok(details.clone()));
        assert_eq!(details.digest(), Digest::of(GOOD.as_bytes()));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let long = GOOD.replace("mail", &"x".repeat(501));
        let huge = GOOD.replace("mail", &"x".repeat(MAX_TEXT_BYTES));
        for (name, text, code) in [
            ("empty", String::new(), "end"),
            ("no last line feed", GOOD.trim_end().to_owned(), "end"),
            ("another version", GOOD.replace("v1", "v2"), "type"),
            ("another type", GOOD.replace("details", "request"), "type"),
            ("a byte order mark", format!("\u{feff}{GOOD}"), "type"),
            ("a line missing", GOOD.replace("contact: -\n", ""), "line"),
            (
                "lines swapped",
                GOOD.replace("contact: -\nsystems: mail", "systems: mail\ncontact: -"),
                "line",
            ),
            (
                "a name in upper case",
                GOOD.replace("reason", "Reason"),
                "line",
            ),
            (
                "no blank after the colon",
                GOOD.replace("reason: ", "reason:"),
                "line",
            ),
            (
                "two blanks after the colon",
                GOOD.replace("reason: ", "reason:  "),
                "value",
            ),
            (
                "nothing instead of a dash",
                GOOD.replace("contact: -", "contact: "),
                "value",
            ),
            (
                "a dash where a value must be",
                GOOD.replace("IdP down, nobody can sign in", "-"),
                "value",
            ),
            ("CR LF", GOOD.replace('\n', "\r\n"), "type"),
            (
                "CR at one line",
                GOOD.replace("mail\n", "mail\r\n"),
                "value",
            ),
            ("a line too long", long, "value"),
            ("a text too long", huge, "size"),
            ("an empty line at the end", format!("{GOOD}\n"), "extra"),
            ("a line more", format!("{GOOD}ticket: -\n"), "extra"),
            ("a line twice", format!("{GOOD}systems: mail\n"), "extra"),
        ] {
            assert_eq!(
                Details::parse(&text).map_err(|error| error.code()),
                Err(code),
                "{name}"
            );
        }
    }
}
