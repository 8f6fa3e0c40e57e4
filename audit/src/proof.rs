//! Receipts: `.tlog-proof` files (C2SP `tlog-proof`), which show offline that an entry is in the log.
//!
//! A receipt is the index of the entry, an inclusion proof and the signed checkpoint that it leads to. The entry
//! itself travels beside it.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 73894
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//! …
//!
//! <signed checkpoint>
//! ```
//!
//! # Invariants
//! 1. [`Receipt::verify`] succeeds only for the bytes of the entry at this index in the tree that the log's key
//!    signed.
//! 2. Extra data, which anybody could have changed, is kept but never looked at.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use crate::{
    note::{MAX_NOTE_BYTES, Note, NoteError, OpenError, SignedCheckpoint, Vkey},
    tree::{Hash, MAX_PROOF, MAX_SIZE, ProofError, leaf, verify_inclusion},
};

/// First line of a receipt.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Most bytes of extra data in a receipt.
pub const MAX_EXTRA_BYTES: usize = 65_536;
/// Longest receipt in bytes.
pub const MAX_RECEIPT_BYTES: usize =
    MAX_NOTE_BYTES + MAX_EXTRA_BYTES * 4 / 3 + MAX_PROOF * 45 + 128;

/// Proof that an entry is in a log; not verified until [`Receipt::verify`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    index: u64,
    extra: Vec<u8>,
    inclusion: Vec<Hash>,
    note: Note,
}

/// Why a text is not a receipt.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Longer than [`MAX_RECEIPT_BYTES`].
    #[error("a receipt has at most {MAX_RECEIPT_BYTES} bytes")]
    TooLong,
    /// The first line is another one.
    #[error("not a receipt: the first line is not `{HEADER}`")]
    Header,
    /// The extra data is not base64, empty, or too long.
    #[error("the extra data of the receipt does not have its form")]
    Extra,
    /// No index, or in another form.
    #[error("the index of the receipt does not have its form")]
    Index,
    /// A line of the proof is not a hash, or there are too many, or no empty line ends them.
    #[error("the inclusion proof of the receipt does not have its form")]
    Proof,
    /// The checkpoint is not a signed note.
    #[error("the checkpoint of the receipt is not a signed note")]
    Note(#[source] NoteError),
}

/// Why a receipt does not show that the entry is in the log.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The checkpoint is not accepted.
    #[error("the receipt's checkpoint is not accepted")]
    Checkpoint(#[source] OpenError),
    /// The proof does not lead from the entry to the checkpoint.
    #[error("the receipt is not of this entry")]
    Inclusion(#[source] ProofError),
}

impl Receipt {
    /// The receipt for the entry at `index` of the tree that the checkpoint signs.
    pub fn new(index: u64, inclusion: Vec<Hash>, checkpoint: &SignedCheckpoint) -> Self {
        Self {
            index,
            extra: Vec::new(),
            inclusion,
            note: checkpoint.note().clone(),
        }
    }

    /// The place of the entry in the log, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The checkpoint that the proof leads to, not verified.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that this entry is in the log with this key; gives the checkpoint that covers it.
    pub fn verify(&self, entry: &[u8], log: &Vkey) -> Result<SignedCheckpoint, VerifyError> {
        let checkpoint =
            SignedCheckpoint::verify(self.note.clone(), log).map_err(VerifyError::Checkpoint)?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(&leaf(entry), self.index, size, &self.inclusion, root)
            .map_err(VerifyError::Inclusion)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", BASE64.encode(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.inclusion {
            writeln!(f, "{}", BASE64.encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(receipt: &str) -> Result<Self, ReceiptError> {
        if receipt.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLong);
        }
        let (head, note) = receipt.split_once("\n\n").ok_or(ReceiptError::Proof)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(ReceiptError::Header);
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            None => Vec::new(),
            Some(extra) => {
                let extra = BASE64.decode(extra).map_err(|_| ReceiptError::Extra)?;
                lines.next();
                if !(1..=MAX_EXTRA_BYTES).contains(&extra.len()) {
                    return Err(ReceiptError::Extra);
                }
                extra
            }
        };
        let digits = lines.next().and_then(|line| line.strip_prefix("index "));
        let digits = digits.ok_or(ReceiptError::Index)?;
        let index: u64 = digits.parse().map_err(|_| ReceiptError::Index)?;
        if index.to_string() != digits || index >= MAX_SIZE {
            return Err(ReceiptError::Index);
        }
        let inclusion: Vec<Hash> = lines
            .take(MAX_PROOF.saturating_add(1))
            .map(|line| BASE64.decode(line).ok()?.try_into().ok())
            .collect::<Option<_>>()
            .ok_or(ReceiptError::Proof)?;
        if inclusion.len() > MAX_PROOF {
            return Err(ReceiptError::Proof);
        }
        let note = note.parse().map_err(ReceiptError::Note)?;
        Ok(Self {
            index,
            extra,
            inclusion,
            note,
        })
    }
}

#[cfg(test)]
mod tests;
