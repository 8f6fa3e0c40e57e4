//! The copy of the log's head: what a restored old disk cannot know.
//!
//! A folder on another mount or host keeps the newest checkpoint. A start compares it with the store:
//! a store that is behind it, or that another history leads to, was set back or forked.
//!
//! # Invariants
//! 1. A copy is only ever replaced by a checkpoint over a larger tree; one that a quorum gave up in a
//!    restore is moved aside first.
//! 2. Only a checkpoint that a key of the log signed is a copy; anything else is said, never trusted.

use std::{
    cmp::Ordering,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use keyturn_audit::{
    note::{OpenError, SignedCheckpoint},
    publish::{Disk, Os},
    tile::CHECKPOINT,
    tree::{Edge, Hash},
};
use keyturn_vault::{digest::Digest, reference::Head, time::Time};
use thiserror::Error;
use tokio::sync::watch;

use super::LogKeys;
use crate::{
    clock::Clock,
    rows::{self, read as read_row},
    store::{KeyRange, MAX_PAGE_ROWS, Name, Store, StoreError},
    telemetry::whole,
};

/// The largest checkpoint that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// A place that does not answer in this time says nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// A copy that could not be written is tried again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// What a copy of the head says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum HeadCheck {
    /// There is no copy yet.
    Absent,
    /// It is of the store's very head.
    Same,
    /// It is older, of the same history; the next publication brings it up.
    Behind {
        /// Entries that it covers.
        size: u64,
    },
    /// It covers entries that the store does not have: the store was set back.
    Ahead {
        /// Entries that it covers.
        size: u64,
        /// Its root.
        root: Hash,
    },
    /// It covers no more, yet another history.
    Fork {
        /// Entries that it covers.
        size: u64,
        /// Its root.
        root: Hash,
    },
}

impl HeadCheck {
    /// The head that the store does not lead to.
    pub const fn lost(self) -> Option<(u64, Hash)> {
        match self {
            Self::Ahead { size, root } | Self::Fork { size, root } => Some((size, root)),
            Self::Absent | Self::Same | Self::Behind { .. } => None,
        }
    }

    /// Whether the store is not where the log has been: serve only what restoring needs.
    pub const fn needs_restore(self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Fork { .. })
    }
}

/// Why a copy could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadCopyError {
    /// The system says no.
    #[error("cannot {task} {}", path.display())]
    Io {
        /// What was tried.
        task: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What lies there is no checkpoint of this log.
    #[error("{} is not a checkpoint of this log", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// The store lacks an entry that its head covers.
    #[error("entry {0} is not in the store")]
    Missing(u64),
    /// The copy covers more than what is published now.
    #[error("{} covers {there} entries and the log has {here}; was the store set back? start the daemon again, and see restore mode", path.display())]
    Ahead {
        /// Which file.
        path: PathBuf,
        /// What it covers.
        there: u64,
        /// What is published.
        here: u64,
    },
    /// Reading it takes too long.
    #[error("{} does not answer", .0.display())]
    Silent(PathBuf),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Reads the copy in a folder; none when there is none.
pub fn read(folder: &Path, keys: &LogKeys) -> Result<Option<SignedCheckpoint>, HeadCopyError> {
    let path = folder.join(CHECKPOINT);
    let bytes = match Os.read(&path, MAX_BYTES) {
        // A missing folder is not a missing copy.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
            return Ok(None);
        }
        bytes => bytes.map_err(|source| failed("read", &path, source))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    keys.open(&text)
        .map(Some)
        .map_err(|source| HeadCopyError::Foreign { path, source })
}

/// As [`read`], on a thread where waiting harms nobody.
async fn fetch(folder: &Path, keys: &LogKeys) -> Result<Option<SignedCheckpoint>, HeadCopyError> {
    let (path, keys) = (folder.to_owned(), keys.clone());
    let read = tokio::task::spawn_blocking(move || read(&path, &keys));
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(read) => read.unwrap_or(Err(HeadCopyError::Stopping)),
        Err(_) => Err(HeadCopyError::Silent(folder.to_owned())),
    }
}

/// Compares the copy in a folder with the store's head by its size alone, where that is smaller: for
/// a copy of the log, which cannot be continued by another history without that being seen.
pub async fn glance(
    folder: &Path,
    keys: &LogKeys,
    edge: &Edge,
) -> Result<HeadCheck, HeadCopyError> {
    let Some(copy) = fetch(folder, keys).await? else {
        return Ok(HeadCheck::Absent);
    };
    let (size, root) = (copy.size(), *copy.root());
    Ok(match size.cmp(&edge.size()) {
        Ordering::Less => HeadCheck::Behind { size },
        Ordering::Greater => HeadCheck::Ahead { size, root },
        Ordering::Equal if edge.root() == root => HeadCheck::Same,
        Ordering::Equal => HeadCheck::Fork { size, root },
    })
}

/// Compares the copy in a folder with the store's head. Costs one read when they are the same, and
/// hashing as many entries as the copy covers when they are not.
pub async fn check(
    folder: &Path,
    keys: &LogKeys,
    edge: &Edge,
    store: &dyn Store,
) -> Result<HeadCheck, HeadCopyError> {
    let check = glance(folder, keys, edge).await?;
    let (HeadCheck::Behind { size }, Some(copy)) = (check, fetch(folder, keys).await?) else {
        return Ok(check);
    };
    let root = *copy.root();
    Ok(if root_at(store, size).await? == root {
        check
    } else {
        HeadCheck::Fork { size, root }
    })
}

/// The root over the store's first entries.
async fn root_at(store: &dyn Store, size: u64) -> Result<Hash, HeadCopyError> {
    let mut edge = Edge::new();
    while edge.size() < size {
        let from = edge.size();
        let page = store
            .range(&KeyRange::entries(from, size), MAX_PAGE_ROWS)
            .await?;
        let entries: Vec<_> = page
            .rows
            .iter()
            .filter_map(|row| row.value.split_first().map(|(_, entry)| entry))
            .collect();
        let batch = edge.append(&entries).ok();
        let grown = batch.filter(|batch| batch.edge().size() > from);
        edge = grown.ok_or(HeadCopyError::Missing(from))?.into_edge();
    }
    Ok(edge.root())
}

/// Writes the copy, whole or not at all; one that covers more is left, and reported (invariant 1).
pub fn write(
    folder: &Path,
    checkpoint: &SignedCheckpoint,
    keys: &LogKeys,
) -> Result<(), HeadCopyError> {
    let (path, temporary) = (folder.join(CHECKPOINT), folder.join("checkpoint.new"));
    let (there, here) = (
        read(folder, keys)?.map_or(0, |copy| copy.size()),
        checkpoint.size(),
    );
    match there.cmp(&here) {
        Ordering::Less => {}
        Ordering::Equal => return Ok(()),
        Ordering::Greater => return Err(HeadCopyError::Ahead { path, there, here }),
    }
    let note = checkpoint.note().to_string();
    let file = Os
        .write(&temporary, note.as_bytes())
        .map_err(|source| failed("write", &temporary, source))?;
    Os.sync(&file)
        .and_then(|()| Os.rename(&temporary, &path))
        .and_then(|()| Os.sync_dir(folder))
        .map_err(|source| failed("make durable", &path, source))
}

/// Moves a copy aside that shows what a quorum gave up in a restore: the next one begins anew.
pub fn begin_anew(
    folder: &Path,
    keys: &LogKeys,
    restores: &[rows::Restored],
) -> Result<(), HeadCopyError> {
    let Some(copy) = read(folder, keys)? else {
        return Ok(());
    };
    let (size, root) = (copy.size(), Digest(*copy.root()));
    let Some(restore) = restores.iter().find(|one| one.gave_up(Head { size, root })) else {
        return Ok(());
    };
    let aside = folder.join(format!("before-{}", restore.ceremony));
    let (from, to) = (folder.join(CHECKPOINT), aside.join(CHECKPOINT));
    Os.make_dir(&aside)
        .and_then(|_| Os.rename(&from, &to))
        .and_then(|()| Os.sync_dir(&aside))
        .and_then(|()| Os.sync_dir(folder))
        .map_err(|source| failed("move aside", &from, source))
}

/// The same by what the store knows, with every start; a copy that cannot be moved is said.
pub async fn resume(folder: &Path, keys: &LogKeys, store: &dyn Store) {
    let vault = read_row::<rows::Vault>(store, &Name::Vault.key()).await;
    let restores = vault.ok().flatten().map(|vault| vault.restores);
    let (folder, keys) = (folder.to_owned(), keys.clone());
    let moved = tokio::task::spawn_blocking(move || {
        begin_anew(&folder, &keys, &restores.unwrap_or_default())
    });
    if let Ok(Err(error)) = moved.await {
        tracing::warn!(error = %whole(&error), "the head's copy cannot be looked at");
    }
}

/// How the copy is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether there is to be one.
    pub wanted: bool,
    /// When it was last written or found up to date; none before that.
    pub copied: Option<Time>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Keeps the copy up to date with what is published, until the publisher ends. What cannot be written
/// now is tried again with the next checkpoint, at the latest after `AGAIN`, and said once.
pub async fn keep(
    folder: PathBuf,
    keys: LogKeys,
    mut newest: watch::Receiver<Option<SignedCheckpoint>>,
    status: watch::Sender<Status>,
    clock: Clock,
) {
    loop {
        let checkpoint = newest.borrow_and_update().clone();
        let mut failed = false;
        if let Some(checkpoint) = checkpoint {
            let (folder, keys) = (folder.clone(), keys.clone());
            let write = move || write(&folder, &checkpoint, &keys);
            let written = tokio::task::spawn_blocking(write).await;
            let written = written.unwrap_or(Err(HeadCopyError::Stopping));
            failed = written.is_err();
            report(&status, written, clock.now());
        }
        let changed = if failed {
            let changed = tokio::time::timeout(AGAIN, newest.changed()).await;
            changed.unwrap_or(Ok(()))
        } else {
            newest.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

fn report(status: &watch::Sender<Status>, written: Result<(), HeadCopyError>, now: Time) {
    let problem = written.err().map(|error: HeadCopyError| whole(&error));
    if status.borrow().problem != problem {
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the head's copy is not written");
        } else {
            tracing::info!("the head's copy is written");
        }
    }
    status.send_modify(|status| {
        if problem.is_none() {
            status.copied = Some(now);
        }
        status.problem = problem;
    });
}

fn failed(task: &'static str, path: &Path, source: io::Error) -> HeadCopyError {
    HeadCopyError::Io {
        task,
        path: path.to_owned(),
        source,
    }
}
