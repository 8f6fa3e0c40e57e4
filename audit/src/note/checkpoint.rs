//! Checkpoints (C2SP `tlog-checkpoint`) and cosignatures of witnesses (`tlog-cosignature`, Ed25519).

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use super::{Note, NoteError, Signature, Use, Vkey, is_key_name};
use crate::tree::{Hash, MAX_SIZE};

/// What a log says of itself: so many entries, with this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// The text is not a checkpoint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a checkpoint: three lines, origin, size and root")]
pub struct CheckpointError;

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            BASE64.encode(self.root)
        )
    }
}

/// Extension lines are refused: this log writes none, and nobody could audit them.
impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(CheckpointError);
        let (origin, size, root) = (line()?, line()?, line()?);
        let root = BASE64.decode(root).map_err(|_| CheckpointError)?;
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| CheckpointError)?,
            root: root.try_into().map_err(|_| CheckpointError)?,
        };
        let fits = is_key_name(origin) && checkpoint.size <= MAX_SIZE;
        if fits && checkpoint.to_string() == text {
            Ok(checkpoint)
        } else {
            Err(CheckpointError)
        }
    }
}

/// Why a signed checkpoint, or a cosignature on one, is not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a note.
    #[error("the checkpoint is not a signed note")]
    Note(#[source] NoteError),
    /// The signed text is not a checkpoint.
    #[error("the signed text is not a checkpoint")]
    Checkpoint(#[source] CheckpointError),
    /// The checkpoint belongs to another log.
    #[error("the checkpoint is of another log than the key")]
    Origin,
    /// No signature by the key that was asked for.
    #[error("the checkpoint is not signed by this key")]
    Unsigned,
    /// A signature by the key does not verify.
    #[error("the signature on the checkpoint is wrong")]
    Signature,
    /// The key cannot be used for this: a witness's instead of a log's, or the reverse.
    #[error("the key is of the other kind: log and witness keys are not interchangeable")]
    Use,
}

/// A checkpoint whose log's signature was verified or just made (invariant 1 of the module above).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

/// A witness's word that, at this time, it had seen this log grow only by appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Seconds since 1970 UTC by the witness's clock.
    pub time_secs: u64,
}

impl SignedCheckpoint {
    pub(super) fn signed(checkpoint: Checkpoint, note: Note) -> Self {
        Self { checkpoint, note }
    }

    /// Reads a note and verifies the log's signature on it.
    pub fn open(note: &str, log: &Vkey) -> Result<Self, OpenError> {
        Self::verify(note.parse().map_err(OpenError::Note)?, log)
    }

    /// Verifies the log's signature on a note.
    pub fn verify(note: Note, log: &Vkey) -> Result<Self, OpenError> {
        if log.signs() != Use::Log {
            return Err(OpenError::Use);
        }
        let mut signed = false;
        for line in note.by(log) {
            if !log.verify(note.text().as_bytes(), line.bytes()) {
                return Err(OpenError::Signature);
            }
            signed = true;
        }
        if !signed {
            return Err(OpenError::Unsigned);
        }
        let checkpoint: Checkpoint = note.text().parse().map_err(OpenError::Checkpoint)?;
        if checkpoint.origin != log.name() {
            return Err(OpenError::Origin);
        }
        Ok(Self { checkpoint, note })
    }

    /// What was signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many entries the log has.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root of their tree.
    pub fn root(&self) -> &Hash {
        &self.checkpoint.root
    }

    /// The note with all its signature lines; printed, it is the file `checkpoint`.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// The witness's cosignature, if it is there. One that is there but wrong is an error.
    pub fn cosignature(&self, witness: &Vkey) -> Result<Option<Cosignature>, OpenError> {
        let mut latest = None;
        for line in self.note.by(witness) {
            latest = latest.max(Some(self.check(line, witness)?.time_secs));
        }
        Ok(latest.map(|time_secs| Cosignature { time_secs }))
    }

    /// Verifies the line that a witness answered, and adds it to the note.
    pub fn cosign(&mut self, line: &str, witness: &Vkey) -> Result<Cosignature, OpenError> {
        let line: Signature = line.parse().map_err(OpenError::Note)?;
        if line.name() != witness.name() || line.id() != witness.id() {
            return Err(OpenError::Unsigned);
        }
        let cosignature = self.check(&line, witness)?;
        self.note.add(line).map_err(OpenError::Note)?;
        Ok(cosignature)
    }

    /// `cosignature/v1`: eight bytes of time, then Ed25519 over a header, the time and the checkpoint.
    fn check(&self, line: &Signature, witness: &Vkey) -> Result<Cosignature, OpenError> {
        if witness.signs() != Use::Witness {
            return Err(OpenError::Use);
        }
        let (time, signature) = line
            .bytes()
            .split_first_chunk()
            .ok_or(OpenError::Signature)?;
        let time_secs = u64::from_be_bytes(*time);
        let message = format!("cosignature/v1\ntime {time_secs}\n{}", self.note.text());
        // C2SP: a time is at most 2^63 - 1.
        if i64::try_from(time_secs).is_ok() && witness.verify(message.as_bytes(), signature) {
            Ok(Cosignature { time_secs })
        } else {
            Err(OpenError::Signature)
        }
    }
}
