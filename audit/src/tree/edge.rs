//! The right edge of the tree: all that is needed to go on.
//!
//! The edge is what the store keeps in its head record. It is at most 53 hashes, so a commit that appends
//! reads nothing but the head, and rewrites little. Appending gives a [`Batch`]: the next edge, and the nodes that the
//! new leaves made. With the old peaks these are enough to prove each new leaf in the new tree, and the new
//! tree to whoever knows the old one, before a single tile is written.
//!
//! # Invariants
//! 1. An edge has one peak for each bit set in its size, the highest first.
//! 2. [`Edge::append`] changes nothing: a batch that is not committed is dropped.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "invariant 2 of the tree: sizes and indices stay below 2^53, heights below 54"
)]

use thiserror::Error;

use super::{Hash, MAX_SIZE, Nodes, ProveError, consistency, empty, inclusion, leaf, node};

/// First byte of a serialised edge.
const FORMAT: u8 = 1;

/// Size and peaks of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    peaks: Vec<Hash>,
}

/// Why bytes are not an edge, or an edge cannot grow.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EdgeError {
    /// Written by another version.
    #[error("the edge of the tree is of an unknown format")]
    Format,
    /// Not as many hashes as the size asks for.
    #[error("the edge of the tree has the wrong length")]
    Length,
    /// Beyond [`MAX_SIZE`].
    #[error("the tree is full")]
    Full,
}

/// The batch does not hold this node.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("node {index} at height {height} is not in this batch")]
pub struct NotInBatch {
    /// Height of the node.
    pub height: u32,
    /// Its index at that height.
    pub index: u64,
}

impl Edge {
    /// The edge of an empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of the first `size` leaves of a tree whose nodes can be had.
    pub fn of<N: Nodes>(nodes: &N, size: u64) -> Result<Self, ProveError<N::Error>> {
        if size > MAX_SIZE {
            return Err(ProveError::OutOfRange);
        }
        let peaks = (0..u64::BITS)
            .rev()
            .filter(|height| size >> height & 1 == 1)
            .map(|height| {
                nodes
                    .node(height, (size >> height) - 1)
                    .map_err(ProveError::Node)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        match self.peaks.split_last() {
            None => empty(),
            Some((last, higher)) => fold(higher, *last),
        }
    }

    /// The root of a larger tree, whose further leaves are all below one node with the hash `tail`.
    pub(crate) fn root_with(&self, tail: Hash) -> Hash {
        fold(&self.peaks, tail)
    }

    /// Appends entries. Nothing changes until the caller keeps [`Batch::edge`].
    pub fn append<E: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = E>,
    ) -> Result<Batch, EdgeError> {
        let mut after = self.clone();
        let mut made: Vec<Vec<Hash>> = Vec::new();
        for entry in entries {
            after.push(0, leaf(entry.as_ref()), |height, _, hash| {
                match usize::try_from(height)
                    .ok()
                    .and_then(|height| made.get_mut(height))
                {
                    Some(row) => row.push(*hash),
                    // Heights are reached one after the other.
                    None => made.push(vec![*hash]),
                }
            })?;
        }
        Ok(Batch {
            before: self.clone(),
            after,
            made,
        })
    }

    /// Adds a perfect node right of everything else; `made` is told of it and of each node that it completes.
    ///
    /// The size must be a multiple of the node's leaves.
    pub(crate) fn push(
        &mut self,
        height: u32,
        hash: Hash,
        mut made: impl FnMut(u32, u64, &Hash),
    ) -> Result<(), EdgeError> {
        let size = 1_u64
            .checked_shl(height)
            .and_then(|leaves| self.size.checked_add(leaves))
            .filter(|size| *size <= MAX_SIZE)
            .ok_or(EdgeError::Full)?;
        let (mut height, mut index, mut hash) = (height, self.size >> height, hash);
        made(height, index, &hash);
        while index & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node(&left, &hash);
            (height, index) = (height + 1, index >> 1);
            made(height, index, &hash);
        }
        self.peaks.push(hash);
        self.size = size;
        Ok(())
    }

    /// The peak at this height, if the size has that bit.
    fn peak(&self, height: u32) -> Option<&Hash> {
        if self.size.checked_shr(height)? & 1 == 0 {
            return None;
        }
        let higher = self.size.checked_shr(height + 1).unwrap_or(0).count_ones();
        self.peaks.get(usize::try_from(higher).ok()?)
    }

    /// A format byte, the size as eight bytes big-endian, the peaks.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.peaks.as_flattened());
        bytes
    }

    /// Reads what [`Edge::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EdgeError> {
        let (format, rest) = bytes.split_first().ok_or(EdgeError::Length)?;
        if *format != FORMAT {
            return Err(EdgeError::Format);
        }
        let (size, rest) = rest.split_first_chunk().ok_or(EdgeError::Length)?;
        let size = u64::from_be_bytes(*size);
        if size > MAX_SIZE {
            return Err(EdgeError::Full);
        }
        let (peaks, odd) = rest.as_chunks();
        if !odd.is_empty() || u32::try_from(peaks.len()) != Ok(size.count_ones()) {
            return Err(EdgeError::Length);
        }
        Ok(Self {
            size,
            peaks: peaks.to_vec(),
        })
    }
}

/// Folds peaks (highest first) onto what stands right of them.
fn fold(peaks: &[Hash], last: Hash) -> Hash {
    peaks
        .iter()
        .rev()
        .fold(last, |right, left| node(left, &right))
}

/// What appending some entries does to the tree.
#[derive(Clone, Debug)]
pub struct Batch {
    before: Edge,
    after: Edge,
    /// The perfect nodes that the new leaves made, by height; each row goes on where the old tree ended.
    made: Vec<Vec<Hash>>,
}

impl Batch {
    /// The edge with the batch; its size and root are what a checkpoint signs.
    pub fn edge(&self) -> &Edge {
        &self.after
    }

    /// The edge with the batch, to keep.
    pub fn into_edge(self) -> Edge {
        self.after
    }

    /// The index of the first new leaf.
    pub fn start(&self) -> u64 {
        self.before.size
    }

    /// Proves a leaf of this batch in the tree with the batch.
    pub fn inclusion(&self, index: u64) -> Result<Vec<Hash>, ProveError<NotInBatch>> {
        inclusion(self, index, self.after.size)
    }

    /// Proves that the tree before the batch is the beginning of the tree with it.
    pub fn consistency(&self) -> Result<Vec<Hash>, ProveError<NotInBatch>> {
        consistency(self, self.before.size, self.after.size)
    }

    /// The new perfect nodes at this height, and the index of the first.
    pub(crate) fn made(&self, height: u32) -> Option<(u64, &[Hash])> {
        let row = self.made.get(usize::try_from(height).ok()?)?;
        Some((self.before.size >> height, row))
    }
}

impl Nodes for Batch {
    type Error = NotInBatch;

    fn node(&self, height: u32, index: u64) -> Result<Hash, NotInBatch> {
        let first = self.before.size.checked_shr(height).unwrap_or(0);
        let found = match index.checked_sub(first) {
            Some(new) => self
                .made(height)
                .and_then(|(_, row)| row.get(usize::try_from(new).ok()?)),
            // Left of the new leaves only a peak can be a sibling on their way to the root.
            None => self.before.peak(height).filter(|_| index + 1 == first),
        };
        found.copied().ok_or(NotInBatch { height, index })
    }
}
