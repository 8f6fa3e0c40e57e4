//! Turns a growing tree into tiles.
//!
//! Holds the tiles and the bundle at the right edge, which are still partial, and hands out each one when it
//! is full. Hashes nothing: it is told of each node when the tree makes it.

use super::{
    Content, EntryTooLong, MAX_LEVEL, TileError, TilePath, Tiles, WIDTH, bundle, hashes, push_entry,
};
use crate::tree::{Batch, Hash};

/// A file of the log: where, and what.
pub(crate) type File = (TilePath, Vec<u8>);

/// The partial tiles of a tree of `size` leaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    size: u64,
    /// By level; the hashes of the partial tile, none where the level ends with a full one.
    levels: Vec<Vec<Hash>>,
    bundle: Vec<u8>,
}

impl Writer {
    /// Reads the partial tiles of a published tree.
    pub(crate) fn load<T: Tiles>(tiles: &T, size: u64) -> Result<Self, TileError> {
        let mut writer = Self {
            size,
            ..Self::default()
        };
        for level in 0..=MAX_LEVEL {
            let partial = last(Content::Hashes(level), size);
            writer.levels.push(match partial {
                Some(path) => hashes(tiles, path)?,
                None => Vec::new(),
            });
        }
        if let Some(path) = last(Content::Entries, size) {
            writer.bundle = bundle(tiles, path)?;
        }
        Ok(writer)
    }

    /// Adds the nodes and entries of a batch; appends to `full` what is full now.
    pub(crate) fn extend<E: AsRef<[u8]>>(
        &mut self,
        batch: &Batch,
        entries: impl IntoIterator<Item = E>,
        full: &mut Vec<File>,
    ) -> Result<(), EntryTooLong> {
        for entry in entries {
            push_entry(&mut self.bundle, entry.as_ref())?;
            let index = self.size;
            self.size = self.size.saturating_add(1);
            if self.size.is_multiple_of(u64::from(WIDTH)) {
                full.extend(
                    TilePath::new(Content::Entries, index >> 8, self.size)
                        .map(|path| (path, std::mem::take(&mut self.bundle))),
                );
            }
        }
        for height in (0..=u32::from(MAX_LEVEL)).filter_map(|level| level.checked_mul(8)) {
            let Some((first, row)) = batch.made(height) else {
                break;
            };
            for (index, hash) in (first..).zip(row) {
                full.extend(self.node(height, index, hash));
            }
        }
        Ok(())
    }

    /// Takes note of a perfect node, the next one at its height; gives the tile that it fills.
    pub(crate) fn node(&mut self, height: u32, index: u64, hash: &Hash) -> Option<File> {
        let level = height.checked_div(8).filter(|_| height.is_multiple_of(8))?;
        let at = usize::try_from(level).ok()?;
        if self.levels.len() <= at {
            self.levels.resize(at.checked_add(1)?, Vec::new());
        }
        let row = self.levels.get_mut(at)?;
        row.push(*hash);
        if row.len() < usize::from(WIDTH) {
            return None;
        }
        let bytes = std::mem::take(row).as_flattened().to_vec();
        let content = Content::Hashes(u8::try_from(level).ok()?);
        let size = index.checked_add(1)?.checked_shl(height)?;
        Some((TilePath::new(content, index >> 8, size)?, bytes))
    }

    /// The partial tiles and the partial bundle as they are now.
    pub(crate) fn partial(&self, size: u64) -> impl Iterator<Item = File> {
        let bundle = last(Content::Entries, size)
            .filter(|_| !self.bundle.is_empty())
            .map(|path| (path, self.bundle.clone()));
        (0..)
            .zip(&self.levels)
            .filter(|(_, row)| !row.is_empty())
            .filter_map(move |(level, row)| {
                Some((
                    last(Content::Hashes(level), size)?,
                    row.as_flattened().to_vec(),
                ))
            })
            .chain(bundle)
    }
}

/// The partial tile at the end of a row, if there is one.
fn last(content: Content, size: u64) -> Option<TilePath> {
    let level = match content {
        Content::Hashes(level) => level,
        Content::Entries => 0,
    };
    let nodes = size.checked_shr(u32::from(level).checked_mul(8)?)?;
    TilePath::new(content, nodes >> 8, size)
}
