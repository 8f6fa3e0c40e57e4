//! The store: what must survive, as rows with a revision each.
//!
//! One small contract stands before every engine: read a row, read a range page by page, and commit one
//! transaction `{ when: compares, then: puts and deletes }` that happens whole or not at all and is durable
//! when the answer comes. The embedded engine is [`RedbStore`].
//!
//! # One commit for many events
//!
//! Durability costs one `fsync` whatever is in it, so speed comes from putting more into one: the owner task steps
//! its waiting events over one overlay and commits what the overlay holds at the end. A row that several events
//! touch (the head) is compared once and written once. How wide it may be is the engine's [`Store::limits`]:
//! [`Limits::PORTABLE`] holds everywhere, the embedded engine takes far more. A list of transactions that see
//! each other was not chosen: a later one could not name the revision that an earlier one will get, and every
//! event would write the head again.
//!
//! # Invariants
//!
//! 1. A transaction is applied whole or not at all, also over a crash at any moment.
//! 2. After `Committed` it survives every crash; no answer is given before it is durable.
//! 3. Each row carries the revision of the transaction that wrote it. Revisions only grow, also over a restart,
//!    and 0 means absent; so an equal revision means an untouched row.
//! 4. `Conflict` changes nothing and carries what the compared rows hold, read in the same transaction.
//! 5. After `NotApplied` nothing has changed and nothing will: refuse, and the same transaction may be sent again.
//! 6. After `Indeterminate` nobody knows, and the engine answers nothing else any more: abort the process and
//!    start anew from what the disk holds. Never retry; a second `fsync` after a failed one proves nothing.
//! 7. An `Invalid` transaction was never tried: it is a mistake in the program.

#[cfg(test)]
mod conformance;
pub mod key;
#[cfg(test)]
pub(crate) mod memory;
mod redb;
pub mod space;

use std::collections::HashSet;

use async_trait::async_trait;
use thiserror::Error;

pub use self::key::{Key, KeyRange, Name};
pub use self::redb::{CACHE_BYTES, JOURNAL_BYTES, LIMITS as REDB_LIMITS, OpenError, RedbStore};

/// The format of the rows; a store with a higher one was written by a newer daemon.
pub const FORMAT: u32 = 1;

/// The most rows that one page of [`Store::range`] or [`Snapshot::next`] holds.
pub const MAX_PAGE_ROWS: usize = 1_000;

/// A page ends with the row that takes it over this many bytes of keys and values.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// The most bytes of a key.
pub const MAX_KEY_BYTES: usize = 1_024;

/// The revision of the transaction that wrote a row; see invariant 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub u64);

impl Rev {
    /// The revision of a row that is not there.
    pub const ABSENT: Self = Self(0);
}

/// One row as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it is.
    pub key: Key,
    /// Its value; the first byte is its format.
    pub value: Vec<u8>,
    /// The transaction that wrote it.
    pub rev: Rev,
}

impl Row {
    fn bytes(&self) -> usize {
        self.key.as_bytes().len().saturating_add(self.value.len())
    }
}

/// A part of a range, in the order of keys or against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most [`MAX_PAGE_ROWS`], about [`MAX_PAGE_BYTES`]; at least one where there is one.
    pub rows: Vec<Row>,
    /// What is left of the range beyond these rows, or `None` at its end.
    pub rest: Option<KeyRange>,
    /// The newest revision of the store when this page was read. Pages of one range may have different ones;
    /// for one view over all pages take a [`Store::snapshot`].
    pub rev: Rev,
}

/// Condition of a transaction: the row still has the revision that the caller saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The row.
    pub key: Key,
    /// Its revision, [`Rev::ABSENT`] where there was none.
    pub rev: Rev,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a row, whether it was there or not.
    Put(Key, Vec<u8>),
    /// Removes a row if it is there.
    Delete(Key),
}

impl Op {
    /// The row that is changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let value = match self {
            Self::Put(_, value) => value.len(),
            Self::Delete(_) => 0,
        };
        self.key().as_bytes().len().saturating_add(value)
    }
}

/// A transaction: `then` happens if everything in `when` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub when: Vec<Compare>,
    /// A key at most once. With none, the transaction only asks whether `when` holds.
    pub then: Vec<Op>,
}

impl Txn {
    /// A transaction without conditions and changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that `key` still has the revision `rev`.
    #[must_use]
    pub fn when(mut self, key: Key, rev: Rev) -> Self {
        self.when.push(Compare { key, rev });
        self
    }

    /// Adds a row to be written.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Vec<u8>>) -> Self {
        self.then.push(Op::Put(key, value.into()));
        self
    }

    /// Adds a row to be removed.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.then.push(Op::Delete(key));
        self
    }

    /// Compares and changes together, as [`Limits::operations`] counts them.
    pub fn operations(&self) -> usize {
        self.when.len().saturating_add(self.then.len())
    }

    /// Bytes of all keys and values, as [`Limits::bytes`] counts them.
    pub fn bytes(&self) -> usize {
        let compares = self.when.iter().map(|compare| compare.key.as_bytes().len());
        let changes = self.then.iter().map(Op::bytes);
        compares.chain(changes).fold(0, usize::saturating_add)
    }

    /// Checks the bounds that every engine relies on.
    pub fn check(&self, limits: Limits) -> Result<(), Invalid> {
        if self.operations() > limits.operations {
            return Err(Invalid::Operations {
                found: self.operations(),
                most: limits.operations,
            });
        }
        if self.bytes() > limits.bytes {
            return Err(Invalid::Bytes {
                found: self.bytes(),
                most: limits.bytes,
            });
        }
        let compared = self.when.iter().map(|compare| &compare.key);
        for key in compared.chain(self.then.iter().map(Op::key)) {
            if !(1..=MAX_KEY_BYTES).contains(&key.as_bytes().len()) {
                return Err(Invalid::KeyLength(key.clone()));
            }
        }
        let mut seen = HashSet::with_capacity(self.then.len());
        for op in &self.then {
            if !seen.insert(op.key()) {
                return Err(Invalid::KeyTwice(op.key().clone()));
            }
            if matches!(op, Op::Put(_, value) if value.is_empty()) {
                return Err(Invalid::NoFormatByte(op.key().clone()));
            }
        }
        Ok(())
    }
}

/// How much one transaction may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compares and changes together.
    pub operations: usize,
    /// Bytes of all keys and values together.
    pub bytes: usize,
}

impl Limits {
    /// What every engine takes, a cluster store included.
    pub const PORTABLE: Self = Self {
        operations: 100,
        bytes: 1 << 20,
    };
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable; the rows it put have this revision.
    Committed(Rev),
    /// Nothing changed; what the rows of `when` hold, in the order of `when`.
    Conflict(Vec<Option<Row>>),
}

/// Why a store did not do what it was asked; see invariants 5 to 7 for what the caller does.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing has changed. Refuse, say why, and probe until it is over.
    #[error("the store changed nothing: {0}")]
    NotApplied(Refused),
    /// It may have happened or not. Abort the process; never retry.
    #[error(
        "the store cannot say whether the change is durable ({0}); stop this daemon and check the disk"
    )]
    Indeterminate(String),
    /// The transaction breaks the contract; nothing was tried.
    #[error("the transaction is invalid: {0}")]
    Invalid(Invalid),
}

/// Why a store that is still in order refuses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// No room, or the quota is used up.
    #[error("no space is left on its disk; free some")]
    NoSpace,
    /// The file system is mounted read-only.
    #[error("its file system is read-only; look for disk errors, then mount it writable")]
    ReadOnly,
    /// It cannot be read or opened at the moment.
    #[error("it is not available ({0})")]
    Unavailable(String),
}

/// Which rule of the contract a transaction breaks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// Too many compares and changes.
    #[error("{found} operations, at most {most} are allowed; split it")]
    Operations {
        /// How many there are.
        found: usize,
        /// The engine's bound.
        most: usize,
    },
    /// Too many bytes.
    #[error("{found} bytes, at most {most} are allowed; split it")]
    Bytes {
        /// How many there are.
        found: usize,
        /// The engine's bound.
        most: usize,
    },
    /// A key is empty or longer than [`MAX_KEY_BYTES`].
    #[error("the key {0} is empty or longer than {MAX_KEY_BYTES} bytes")]
    KeyLength(Key),
    /// A key is changed twice.
    #[error("the key {0} is changed twice")]
    KeyTwice(Key),
    /// A value without its format byte.
    #[error("the value of {0} has no format byte")]
    NoFormatByte(Key),
}

/// Durable rows under compare-and-commit; the module's invariants are its contract.
#[async_trait]
pub trait Store: Send + Sync {
    /// How much one transaction may hold.
    fn limits(&self) -> Limits;

    /// The value and revision of a row, `None` where there is none. Sees every transaction that was answered.
    async fn get(&self, key: &Key) -> Result<Option<(Vec<u8>, Rev)>, StoreError>;

    /// The first rows of `range`: at most `limit` (1 to [`MAX_PAGE_ROWS`]), all read at one revision.
    async fn range(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError>;

    /// The last rows of `range`, in the reverse order of keys; otherwise like [`Store::range`]. The rest of the
    /// page is what comes before its rows.
    async fn range_back(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError>;

    /// Commits `txn` durably, or says what stands against it. Dropping the future does not take it back.
    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// All rows as they are at one revision, for a backup. The embedded engine cannot reuse the space of
    /// rows changed meanwhile, so read it swiftly and drop it.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Writes one row durably: succeeds as soon as the store takes changes again.
    async fn probe(&self) -> Result<(), StoreError> {
        let probe = Txn::new().put(Name::Probe.key(), [1]);
        self.txn(probe).await.map(drop)
    }
}

/// All rows at one revision, page by page.
#[async_trait]
pub trait Snapshot: Send {
    /// The revision at which all pages are.
    fn rev(&self) -> Rev;

    /// The next rows in the order of keys; an empty page is the end.
    async fn next(&mut self) -> Result<Vec<Row>, StoreError>;
}

/// Why the rows of a store are not for this daemon.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// There is no format row, or it is something else.
    #[error("it is not a keyturn store")]
    Foreign,
    /// A newer daemon wrote it.
    #[error(
        "its format is {0}, this daemon knows formats up to {FORMAT}; run the newer keyturnd that wrote it"
    )]
    Newer(u32),
}

const FORMAT_LABEL: &[u8] = b"\x01keyturn store ";

/// The value of `meta/format`: a format byte, a label, the number in four bytes.
pub fn format_row() -> Vec<u8> {
    [FORMAT_LABEL, &FORMAT.to_be_bytes()].concat()
}

/// Checks the value of `meta/format`, as every engine does when it opens.
pub fn check_format(value: Option<&[u8]>) -> Result<(), FormatError> {
    let number = value
        .and_then(|value| value.strip_prefix(FORMAT_LABEL))
        .and_then(|number| number.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or(FormatError::Foreign)?;
    match number {
        0 => Err(FormatError::Foreign),
        1..=FORMAT => Ok(()),
        newer => Err(FormatError::Newer(newer)),
    }
}

/// Collects rows until a page is full.
struct PageBuilder {
    rows: Vec<Row>,
    bytes: usize,
    limit: usize,
}

impl PageBuilder {
    fn new(limit: usize) -> Self {
        Self {
            rows: Vec::new(),
            bytes: 0,
            limit: limit.clamp(1, MAX_PAGE_ROWS),
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES
    }

    fn push(&mut self, row: Row) {
        self.bytes = self.bytes.saturating_add(row.bytes());
        self.rows.push(row);
    }
}
