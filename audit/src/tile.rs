//! Tiles: how a tree and its entries lie in files (C2SP `tlog-tiles`).
//!
//! A tile is 256 hashes in a row, or fewer at the right edge; an entry bundle holds the 256 entries below a
//! level 0 tile, each after its length (16 bits, big-endian). Level L has the nodes of height 8 L.
//!
//! [`Tiles`] reads a published log wherever it is: a directory, a store, a server. Nothing that comes from there
//! is believed; a proof made from it must verify against a signed root like any other.
//!
//! # Invariants
//! 1. A path has one spelling, and a reader never asks for any other name.
//! 2. A partial tile may have been replaced by its full one; whoever needs the partial takes the beginning of
//!    the full one.

mod path;
mod writer;

use std::{cell::RefCell, io};

use thiserror::Error;

use crate::{
    entry::MAX_ENTRY_BYTES,
    tree::{Edge, Hash, Nodes, ProveError, node},
};

pub(crate) use writer::Writer;

pub use path::{Content, MAX_BUNDLE_BYTES, MAX_LEVEL, MAX_TILE_BYTES, PathError, TilePath, WIDTH};

/// Where the signed checkpoint lies.
pub const CHECKPOINT: &str = "checkpoint";

/// A published log, wherever it lies.
pub trait Tiles {
    /// Reads the file at this path below the log's root: a [`TilePath`], [`CHECKPOINT`] or `objects/<sha256>`.
    ///
    /// A file that does not exist is [`io::ErrorKind::NotFound`]; one longer than `limit` bytes is
    /// [`io::ErrorKind::FileTooLarge`].
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>>;
}

impl<T: Tiles + ?Sized> Tiles for &T {
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        (**self).read(path, limit)
    }
}

/// Why a tile cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TileError {
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: TilePath,
        /// What the reader says.
        source: io::Error,
    },
    /// It has not the bytes of so many hashes or entries.
    #[error("{path} is damaged: it does not hold {} {}", .path.width(), match .path.content() {
        Content::Hashes(_) => "hashes",
        Content::Entries => "entries",
    })]
    Damaged {
        /// Which file.
        path: TilePath,
    },
}

/// Reads the hashes of a tile.
pub fn hashes<T: Tiles>(tiles: &T, path: TilePath) -> Result<Vec<Hash>, TileError> {
    let (bytes, found) = fetch(tiles, path)?;
    let (hashes, _) = first(&bytes, found, path.width())?.as_chunks();
    Ok(hashes.to_vec())
}

/// Reads the bytes of an entry bundle, which holds exactly the entries that its path says.
pub fn bundle<T: Tiles>(tiles: &T, path: TilePath) -> Result<Vec<u8>, TileError> {
    let (mut bytes, found) = fetch(tiles, path)?;
    let length = first(&bytes, found, path.width())?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads the file itself, or the full tile in place of a partial one (invariant 2); says which it was.
pub fn fetch<T: Tiles>(tiles: &T, path: TilePath) -> Result<(Vec<u8>, TilePath), TileError> {
    let read = |path: TilePath| tiles.read(&path.to_string(), path.limit());
    match read(path) {
        Ok(bytes) => Ok((bytes, path)),
        Err(source) if source.kind() == io::ErrorKind::NotFound && path.width() < WIDTH => {
            match read(path.full()) {
                Ok(bytes) => Ok((bytes, path.full())),
                Err(_) => Err(TileError::Read { path, source }),
            }
        }
        Err(source) => Err(TileError::Read { path, source }),
    }
}

/// The beginning of a tile that was found, so many hashes or entries: its bytes when the log was shorter.
pub fn first(bytes: &[u8], found: TilePath, width: u16) -> Result<&[u8], TileError> {
    let end = match found.content() {
        Content::Hashes(_) => {
            let length = |width| usize::from(width).saturating_mul(size_of::<Hash>());
            (bytes.len() == length(found.width())).then(|| length(width))
        }
        Content::Entries => end_of(width, bytes, found.width()),
    };
    end.and_then(|end| bytes.get(..end))
        .ok_or(TileError::Damaged { path: found })
}

/// Where so many entries end in a bundle that holds exactly this count.
fn end_of(width: u16, bundle: &[u8], count: u16) -> Option<usize> {
    let mut entries = Entries::new(bundle);
    let mut end = None;
    for n in 1..=count {
        entries.next()?.ok()?;
        if n == width {
            end = bundle.len().checked_sub(entries.rest.len());
        }
    }
    end.filter(|_| entries.rest.is_empty())
}

/// The entries in the bytes of a bundle.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

/// A bundle ends inside an entry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the entry bundle ends inside an entry")]
pub struct CutShort;

impl<'a> Entries<'a> {
    /// Over the bytes of a bundle.
    pub fn new(bundle: &'a [u8]) -> Self {
        Self { rest: bundle }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], CutShort>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = self.rest.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        });
        let Some((entry, rest)) = split else {
            self.rest = &[];
            return Some(Err(CutShort));
        };
        self.rest = rest;
        Some(Ok(entry))
    }
}

/// Appends an entry to the bytes of a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong)?;
    bundle.extend(length.to_be_bytes());
    bundle.extend(entry);
    Ok(())
}

/// An entry does not fit into a bundle.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an entry has at most {MAX_ENTRY_BYTES} bytes")]
pub struct EntryTooLong;

/// The nodes of a published tree of known size; keeps the tile of each level that it read last.
pub struct TileNodes<T> {
    tiles: T,
    size: u64,
    read: RefCell<Vec<(TilePath, Vec<Hash>)>>,
}

impl<T: Tiles> TileNodes<T> {
    /// The tree of `size` leaves that lies there.
    pub fn new(tiles: T, size: u64) -> Self {
        Self {
            tiles,
            size,
            read: RefCell::default(),
        }
    }

    /// The right edge of the tree.
    pub fn edge(&self) -> Result<Edge, ProveError<NodeError>> {
        Edge::of(self, self.size)
    }
}

/// Why a node of a published tree cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The tree has no such perfect node.
    #[error("the published tree has no node {index} at height {height}")]
    Outside {
        /// Height of the node.
        height: u32,
        /// Its index at that height.
        index: u64,
    },
    /// Its tile cannot be used.
    #[error(transparent)]
    Tile(#[from] TileError),
}

impl<T: Tiles> Nodes for TileNodes<T> {
    type Error = NodeError;

    fn node(&self, height: u32, index: u64) -> Result<Hash, NodeError> {
        let outside = NodeError::Outside { height, index };
        let Some((path, hashes)) = self.place(height, index) else {
            return Err(outside);
        };
        let mut read = self.read.borrow_mut();
        let known = read
            .iter()
            .position(|(known, _)| known.content() == path.content());
        let tile = match known.and_then(|at| read.get_mut(at)) {
            Some(tile) => {
                if tile.0 != path {
                    *tile = (path, self::hashes(&self.tiles, path)?);
                }
                &tile.1
            }
            None => &read.push_mut((path, self::hashes(&self.tiles, path)?)).1,
        };
        tile.get(hashes).and_then(reduce).ok_or(outside)
    }
}

impl<T> TileNodes<T> {
    /// The tile that holds the node, and the hashes in it that the node is made of.
    fn place(&self, height: u32, index: u64) -> Option<(TilePath, std::ops::Range<usize>)> {
        let level = u8::try_from(height.checked_div(8)?).ok()?;
        let inner = height.checked_rem(8)?;
        let count = 1_u64.checked_shl(inner)?;
        let first = index.checked_mul(count)?;
        let width = u64::from(WIDTH);
        let path = TilePath::new(Content::Hashes(level), first.checked_div(width)?, self.size)?;
        let start = usize::try_from(first.checked_rem(width)?).ok()?;
        let end = start.checked_add(usize::try_from(count).ok()?)?;
        Some((path, start..end))
    }
}

/// The root over a power of two of hashes.
pub(crate) fn reduce(hashes: &[Hash]) -> Option<Hash> {
    let mut row = [[0; 32]; 256];
    let mut width = hashes.len();
    if !width.is_power_of_two() {
        return None;
    }
    row.get_mut(..width)?.copy_from_slice(hashes);
    while width > 1 {
        width /= 2;
        for at in 0..width {
            let pair = at.checked_mul(2)?;
            let parent = node(row.get(pair)?, row.get(pair.checked_add(1)?)?);
            *row.get_mut(at)? = parent;
        }
    }
    row.first().copied()
}

#[cfg(test)]
pub(crate) mod tests;
