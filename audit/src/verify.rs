//! Verifying a whole log: everything is computed again from the entries.
//!
//! The bundles are shared out in turn among a few threads, which hash the entries, compare the level 0 tiles and decode. The
//! caller's thread takes their results in order, builds the upper levels, compares those tiles, and hands the
//! entries on. A thread works at most two bundles ahead, so memory does not grow with the log.
//!
//! # Invariants
//! 1. A log that passes has the signed root over exactly the entries that were handed on, in their order.
//! 2. Every saved checkpoint is a beginning of it.
//! 3. Every tile that the checkpoint needs holds the hashes that the entries give.
//! 4. The error is the first one in the order of the entries, whichever thread met it first.

mod object;

use std::{
    convert::Infallible,
    io,
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use thiserror::Error;

pub use object::{ObjectError, object, objects};

use crate::{
    entry::{Entry, EntryError},
    note::{Checkpoint, MAX_NOTE_BYTES, OpenError, SignedCheckpoint, Vkey},
    tile::{
        CHECKPOINT, Content, Entries, TileError, TilePath, Tiles, WIDTH, Writer, bundle, hashes,
        reduce,
    },
    tree::{Edge, EdgeError, Hash, leaf},
};

/// Bundles that a thread has ready before it waits.
const AHEAD: usize = 2;
/// Most threads.
pub const MAX_THREADS: usize = 64;

/// What a log is held against.
#[derive(Clone, Copy, Debug)]
pub struct Anchors<'a> {
    /// The key of the log.
    pub log: &'a Vkey,
    /// Checkpoints of this log that were accepted earlier or elsewhere.
    pub saved: &'a [Checkpoint],
    /// Threads that hash and decode, beside the caller's; 1 to [`MAX_THREADS`].
    pub threads: usize,
}

/// A log that passed.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its checkpoint, with cosignatures not looked at.
    pub checkpoint: SignedCheckpoint,
    /// The right edge of its tree.
    pub edge: Edge,
}

/// Why the published checkpoint cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It could not be read.
    #[error("cannot read the checkpoint")]
    Read(#[source] io::Error),
    /// It is not accepted.
    #[error("the checkpoint is not accepted")]
    Open(#[source] OpenError),
}

/// Why a log does not pass; `E` is what the caller's fold says of an entry.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError<E> {
    /// There is no checkpoint to go by.
    #[error(transparent)]
    Head(HeadError),
    /// A saved checkpoint names another log.
    #[error("the saved checkpoint of size {size} is of another log")]
    Origin {
        /// Size of the saved checkpoint.
        size: u64,
    },
    /// The log was longer once.
    #[error("the log shrank: it has {size} entries, and had {saved}")]
    Shrank {
        /// Entries now.
        size: u64,
        /// Size of the saved checkpoint.
        saved: u64,
    },
    /// A saved checkpoint is not a beginning of this log.
    #[error("the log forked: its first {size} entries are not those of the saved checkpoint")]
    Forked {
        /// Size of the saved checkpoint.
        size: u64,
    },
    /// A tile or bundle is missing or damaged.
    #[error(transparent)]
    Tile(TileError),
    /// A tile does not hold the hashes of the entries.
    #[error("{path} does not belong to the entries")]
    Differs {
        /// Which tile.
        path: TilePath,
    },
    /// The entries are not the signed ones.
    #[error("the entries do not lead to the signed root")]
    Root,
    /// An entry cannot be decoded.
    #[error("entry {n} is not valid")]
    Entry {
        /// Its place.
        n: u64,
        /// What is wrong.
        source: EntryError,
    },
    /// An entry claims another place than it has.
    #[error("entry {n} says that it is entry {says}")]
    Number {
        /// Its place.
        n: u64,
        /// What it says.
        says: u64,
    },
    /// The caller refuses an entry.
    #[error("entry {n} is refused")]
    Refused {
        /// Its place.
        n: u64,
        /// What the caller says.
        source: E,
    },
    /// The tree cannot be built.
    #[error(transparent)]
    Tree(EdgeError),
    /// A thread ended early.
    #[error("verification was interrupted")]
    Interrupted,
}

/// Verifies tree, tiles, checkpoint and envelopes, and hands every entry on in order.
pub fn entries<T: Tiles + Sync, E: Send>(
    tiles: &T,
    anchors: &Anchors<'_>,
    mut fold: impl FnMut(Entry) -> Result<(), E>,
) -> Result<Verified, VerifyError<E>> {
    let decode = |n, bytes: &[u8]| match Entry::decode(bytes) {
        Ok(entry) if entry.n == n => Ok(entry),
        Ok(entry) => Err(VerifyError::Number { n, says: entry.n }),
        Err(source) => Err(VerifyError::Entry { n, source }),
    };
    run(tiles, anchors, decode, |entry| {
        let n = entry.n;
        fold(entry).map_err(|source| VerifyError::Refused { n, source })
    })
}

/// Verifies tree, tiles and checkpoint of any `tlog-tiles` log; entries may be anything.
pub fn tree<T: Tiles + Sync>(
    tiles: &T,
    anchors: &Anchors<'_>,
) -> Result<Verified, VerifyError<Infallible>> {
    run(tiles, anchors, |_, _| Ok(()), |()| Ok(()))
}

/// Reads the published checkpoint and verifies its signature.
pub fn checkpoint<T: Tiles>(tiles: &T, log: &Vkey) -> Result<SignedCheckpoint, HeadError> {
    let note = tiles
        .read(CHECKPOINT, MAX_NOTE_BYTES)
        .map_err(HeadError::Read)?;
    let not_text = |_| HeadError::Read(io::ErrorKind::InvalidData.into());
    let note = String::from_utf8(note).map_err(not_text)?;
    SignedCheckpoint::open(&note, log).map_err(HeadError::Open)
}

/// What a thread found out about one bundle.
struct Checked<R> {
    /// The node over a full bundle, or the leaves of the partial one.
    nodes: Vec<Hash>,
    height: u32,
    /// For each saved checkpoint that ends in this bundle: its place among the saved, and the node over the leaves before its end.
    tails: Vec<(Checkpoint, Hash)>,
    entries: Vec<R>,
}

/// The whole verification; `each` runs on the threads, `fold` in order on the caller's.
fn run<T: Tiles + Sync, R: Send, E: Send>(
    tiles: &T,
    anchors: &Anchors<'_>,
    each: impl Fn(u64, &[u8]) -> Result<R, VerifyError<E>> + Sync,
    mut fold: impl FnMut(R) -> Result<(), VerifyError<E>>,
) -> Result<Verified, VerifyError<E>> {
    let checkpoint = checkpoint(tiles, anchors.log).map_err(VerifyError::Head)?;
    let size = checkpoint.size();
    check_saved(anchors, size)?;
    let bundles = size.div_ceil(u64::from(WIDTH));
    let threads = anchors.threads.clamp(1, MAX_THREADS);
    let mut top = Top {
        tiles,
        edge: Edge::new(),
        writer: Writer::default(),
    };
    thread::scope(|scope| {
        let lanes: Vec<Receiver<_>> = (0..)
            .take(threads)
            .map(|lane| {
                let (sender, receiver) = sync_channel(AHEAD);
                let each = &each;
                scope.spawn(move || {
                    for index in (lane..bundles).step_by(threads) {
                        let checked = check_bundle(tiles, anchors, index, size, each);
                        let stop = checked.is_err();
                        // Nobody listens any more after an earlier error.
                        if sender.send(checked).is_err() || stop {
                            break;
                        }
                    }
                });
                receiver
            })
            .collect();
        for (_, lane) in (0..bundles).zip(lanes.iter().cycle()) {
            let checked = lane.recv().map_err(|_| VerifyError::Interrupted)??;
            let entries = top.add(checked)?;
            entries.into_iter().try_for_each(&mut fold)?;
        }
        Ok(())
    })?;
    let edge = top.finish(&checkpoint)?;
    Ok(Verified { checkpoint, edge })
}

/// What can be said of the saved checkpoints before an entry was read.
fn check_saved<E>(anchors: &Anchors<'_>, size: u64) -> Result<(), VerifyError<E>> {
    for saved in anchors.saved {
        if saved.origin != anchors.log.name() {
            return Err(VerifyError::Origin { size: saved.size });
        }
        if saved.size > size {
            return Err(VerifyError::Shrank {
                size,
                saved: saved.size,
            });
        }
        if saved.size == 0 && saved.root != crate::tree::empty() {
            return Err(VerifyError::Forked { size: 0 });
        }
    }
    Ok(())
}

/// A thread's work on one bundle.
fn check_bundle<T: Tiles, R, E>(
    tiles: &T,
    anchors: &Anchors<'_>,
    index: u64,
    size: u64,
    each: impl Fn(u64, &[u8]) -> Result<R, VerifyError<E>>,
) -> Result<Checked<R>, VerifyError<E>> {
    let at = |content| TilePath::new(content, index, size).ok_or(VerifyError::Root);
    let (tile, path) = (at(Content::Hashes(0))?, at(Content::Entries)?);
    let bytes = bundle(tiles, path).map_err(VerifyError::Tile)?;
    let first = index.saturating_mul(u64::from(WIDTH));
    let mut leaves = Vec::with_capacity(usize::from(WIDTH));
    let mut entries = Vec::with_capacity(usize::from(WIDTH));
    for (n, entry) in (first..).zip(Entries::new(&bytes)) {
        let entry = entry.map_err(|_| VerifyError::Tile(TileError::Damaged { path }))?;
        leaves.push(leaf(entry));
        entries.push(each(n, entry)?);
    }
    if hashes(tiles, tile).map_err(VerifyError::Tile)? != leaves {
        return Err(VerifyError::Differs { path: tile });
    }
    let mut tails = Vec::new();
    for saved in anchors.saved {
        let before = saved
            .size
            .checked_sub(first)
            .and_then(|n| usize::try_from(n).ok());
        let before = before.filter(|n| *n > 0).and_then(|n| leaves.get(..n));
        if let Some(before) = before {
            let mut tail = Edge::new();
            for leaf in before {
                tail.push(0, *leaf, |_, _, _| {})
                    .map_err(VerifyError::Tree)?;
            }
            tails.push((saved.clone(), tail.root()));
        }
    }
    Ok(match reduce(&leaves).filter(|_| path.width() == WIDTH) {
        Some(node) => Checked {
            nodes: vec![node],
            height: 8,
            tails,
            entries,
        },
        None => Checked {
            nodes: leaves,
            height: 0,
            tails,
            entries,
        },
    })
}

/// The levels above the bundles, as the caller's thread builds them.
struct Top<'a, T> {
    tiles: &'a T,
    edge: Edge,
    writer: Writer,
}

impl<T: Tiles> Top<'_, T> {
    /// Adds a bundle, the next in order; gives its entries.
    fn add<R, E>(&mut self, checked: Checked<R>) -> Result<Vec<R>, VerifyError<E>> {
        for (saved, tail) in checked.tails {
            if self.edge.root_with(tail) != saved.root {
                return Err(VerifyError::Forked { size: saved.size });
            }
        }
        let mut full = Vec::new();
        for hash in checked.nodes {
            let made = |height, index, hash: &Hash| {
                full.extend(self.writer.node(height, index, hash));
            };
            self.edge
                .push(checked.height, hash, made)
                .map_err(VerifyError::Tree)?;
        }
        full.into_iter().try_for_each(|file| self.compare(file))?;
        Ok(checked.entries)
    }

    /// Compares the partial tiles and the root.
    fn finish<E>(self, checkpoint: &SignedCheckpoint) -> Result<Edge, VerifyError<E>> {
        if self.edge.root() != *checkpoint.root() {
            return Err(VerifyError::Root);
        }
        for file in self.writer.partial(checkpoint.size()) {
            self.compare(file)?;
        }
        Ok(self.edge)
    }

    fn compare<E>(&self, (path, want): (TilePath, Vec<u8>)) -> Result<(), VerifyError<E>> {
        let have = hashes(self.tiles, path).map_err(VerifyError::Tile)?;
        if have.as_flattened() == want {
            Ok(())
        } else {
            Err(VerifyError::Differs { path })
        }
    }
}

#[cfg(test)]
mod tests;
