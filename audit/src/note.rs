//! Signed notes (C2SP `signed-note`), and the checkpoints and cosignatures made of them.
//!
//! A note is a text, an empty line, and signature lines `— <key name> <base64 of key id and signature>`. Whoever
//! reads one knows some keys; lines of other keys are kept and ignored, so that a log can change its key and
//! witnesses can add theirs.
//!
//! # Invariants
//! 1. A [`Checkpoint`] that comes out of [`SignedCheckpoint::open`] was signed by the key that was asked for,
//!    over exactly these bytes, and its origin is the name of that key.
//! 2. A line that bears the name and id of a known key must verify; one that does not makes the note invalid.
//! 3. Key names have no spaces, no `+` and no control characters, so that lines and keys cannot be misread.

mod checkpoint;
mod key;

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

pub use checkpoint::{Checkpoint, CheckpointError, Cosignature, OpenError, SignedCheckpoint};
pub use key::{KeyError, LogKey, Use, Vkey};

/// Longest note in bytes: room for [`MAX_SIGNATURES`] lines, of post-quantum keys too.
pub const MAX_NOTE_BYTES: usize = 131_072;
/// Most signature lines in a note; C2SP asks for at least 16.
pub const MAX_SIGNATURES: usize = 32;
/// Longest key name (and origin) in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A text and its signature lines, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// A signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// Why a text is not a note.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoteError {
    /// Longer than [`MAX_NOTE_BYTES`].
    #[error("a signed note has at most {MAX_NOTE_BYTES} bytes")]
    TooLong,
    /// A control character other than the line end.
    #[error("a signed note has no control characters")]
    Control,
    /// No text, no empty line after it, or no line end at the end.
    #[error("not a signed note: no text, empty line and signature lines")]
    Shape,
    /// A signature line does not have its form.
    #[error("a signature line does not have its form")]
    Signature,
    /// More than [`MAX_SIGNATURES`].
    #[error("a signed note has at most {MAX_SIGNATURES} signatures")]
    TooMany,
}

impl Note {
    /// A text with a first signature.
    fn new(text: String, signature: Signature) -> Self {
        Self {
            text,
            signatures: vec![signature],
        }
    }

    /// The signed text, with its last line end.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signature lines, known or not.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The signatures that bear the key's name and id; they are not verified.
    fn by<'a>(&'a self, key: &'a Vkey) -> impl Iterator<Item = &'a Signature> {
        let same = |line: &&Signature| line.name == key.name() && line.id == key.id();
        self.signatures.iter().filter(same)
    }

    /// Adds a signature line; the same line is not added twice.
    fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::TooMany);
        }
        self.signatures.push(signature);
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        if note.bytes().any(|b| b < b' ' && b != b'\n') {
            return Err(NoteError::Control);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Shape)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Shape)?;
        // A line too many is enough to see that there are too many.
        let lines = lines.split('\n').take(MAX_SIGNATURES.saturating_add(1));
        let signatures: Vec<Signature> = lines.map(str::parse).collect::<Result<_, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::TooMany);
        }
        Ok(Self {
            text: format!("{text}\n"),
            signatures,
        })
    }
}

impl Signature {
    /// The name of the key that signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id.
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The signature itself, in the form of the key's kind.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = BASE64.encode([self.id.as_slice(), &self.bytes].concat());
        write!(f, "\u{2014} {} {value}", self.name)
    }
}

impl FromStr for Signature {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let parse = || {
            let (name, value) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let value = BASE64.decode(value).ok()?;
            let (id, bytes) = value.split_first_chunk()?;
            let whole = is_key_name(name) && !bytes.is_empty();
            whole.then(|| Self {
                name: name.to_owned(),
                id: *id,
                bytes: bytes.to_vec(),
            })
        };
        parse().ok_or(NoteError::Signature)
    }
}

/// Whether this can name a key (invariant 3).
pub fn is_key_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

#[cfg(test)]
pub(crate) mod tests;
