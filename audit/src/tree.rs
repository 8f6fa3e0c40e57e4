//! The Merkle tree of RFC 6962 (section 2.1), and its proofs.
//!
//! A node is named by its height above the leaves and its index from the left: node (h, i) covers the
//! leaves `i << h .. (i + 1) << h`. Only *perfect* nodes, whose leaves all exist, are stored anywhere; the ragged right
//! side of a tree is folded from them. Both kinds of proof are one walk from a node to the root;
//! whoever makes a proof and whoever checks it take the same steps.
//!
//! # Invariants
//! 1. A proof that verifies shows the leaf, or the older tree, in the tree with this root: whoever signs a root
//!    signs the size with it. It has exactly as many hashes as index and size ask for.
//! 2. A tree holds at most [`MAX_SIZE`] leaves; sizes are checked where they enter, so no shift or sum overflows.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "invariant 2: sizes and indices stay below 2^53, heights below 54"
)]

mod edge;

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use edge::{Batch, Edge, EdgeError, NotInBatch};

/// A SHA-256 hash of a leaf or node.
pub type Hash = [u8; 32];

/// Most leaves in a tree: 2^53 - 1, because an entry carries its index as a JSON integer.
pub const MAX_SIZE: u64 = (1 << 53) - 1;
/// Most hashes in a proof: one for each height, and one to start from.
pub const MAX_PROOF: usize = 54;

/// The hash of an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    Sha256::new_with_prefix([0])
        .chain_update(entry)
        .finalize()
        .into()
}

/// The hash of a node with these children.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut input = [1; 65];
    let (_, children) = input.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    Sha256::digest(input).into()
}

/// The root of a tree without leaves.
pub fn empty() -> Hash {
    Sha256::digest([]).into()
}

/// Where perfect nodes can be looked up.
pub trait Nodes {
    /// Why a node could not be had.
    type Error;

    /// The hash of the perfect node over the leaves `index << height .. (index + 1) << height`.
    fn node(&self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Why a root or proof cannot be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProveError<E> {
    /// The leaf or the older tree lies outside the tree, or the tree beyond [`MAX_SIZE`].
    #[error("the log does not reach that far")]
    OutOfRange,
    /// A node could not be had.
    #[error("a node of the tree is missing")]
    Node(#[source] E),
}

/// Why a proof does not prove.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProofError {
    /// The leaf or the older tree lies outside the tree.
    #[error("the proof is about something outside the tree")]
    OutOfRange,
    /// Too few or too many hashes.
    #[error("the proof has not the right number of hashes")]
    Length,
    /// It leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// The root of the first `size` leaves.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, ProveError<N::Error>> {
    if size > MAX_SIZE {
        return Err(ProveError::OutOfRange);
    }
    if size == 0 {
        return Ok(empty());
    }
    ragged(nodes, size, u64::BITS - size.leading_zeros())
}

/// Proves that leaf `index` is in the tree of `size` leaves: the siblings from the leaf up.
pub fn inclusion<N: Nodes>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if index >= size || size > MAX_SIZE {
        return Err(ProveError::OutOfRange);
    }
    path(nodes, Climb::new(0, index, size), size)
}

/// Proves that the tree of `old` leaves is the beginning of the tree of `new` leaves.
///
/// The proof is empty where there is nothing to prove: from an empty tree, or to the same one.
pub fn consistency<N: Nodes>(
    nodes: &N,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if old > new || new > MAX_SIZE {
        return Err(ProveError::OutOfRange);
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let climb = Climb::from_last_peak(old, new);
    let mut proof = Vec::new();
    if !old.is_power_of_two() {
        proof.push(
            nodes
                .node(climb.height, climb.index)
                .map_err(ProveError::Node)?,
        );
    }
    proof.extend(path(nodes, climb, new)?);
    Ok(proof)
}

/// Checks an inclusion proof for a leaf's hash.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > MAX_SIZE {
        return Err(ProofError::OutOfRange);
    }
    let mut siblings = proof.iter();
    let mut hash = *leaf;
    for step in Climb::new(0, index, size) {
        let sibling = siblings.next().ok_or(ProofError::Length)?;
        hash = match step.side {
            Side::Left => node(sibling, &hash),
            Side::Right => node(&hash, sibling),
        };
    }
    if siblings.next().is_some() {
        return Err(ProofError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks a consistency proof between two roots.
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new || new > MAX_SIZE {
        return Err(ProofError::OutOfRange);
    }
    if old == 0 || old == new {
        let same = if old == new { new_root } else { &empty() };
        return match (proof.is_empty(), same == old_root) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let mut siblings = proof.iter();
    let start = if old.is_power_of_two() {
        Some(old_root)
    } else {
        siblings.next()
    };
    let start = *start.ok_or(ProofError::Length)?;
    let (mut old_hash, mut new_hash) = (start, start);
    for step in Climb::from_last_peak(old, new) {
        let sibling = siblings.next().ok_or(ProofError::Length)?;
        match step.side {
            Side::Left => {
                old_hash = node(sibling, &old_hash);
                new_hash = node(sibling, &new_hash);
            }
            Side::Right => new_hash = node(&new_hash, sibling),
        }
    }
    if siblings.next().is_some() {
        return Err(ProofError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// On which side of the path the sibling stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A step up: combine with the sibling (`height`, `sibling`).
struct Step {
    height: u32,
    sibling: u64,
    side: Side,
}

/// The way from a node up to the root, without the heights at which the node has no sibling.
struct Climb {
    height: u32,
    index: u64,
    /// Index of the last node at this height, perfect or not.
    last: u64,
}

impl Climb {
    /// From node (`height`, `index`) in a tree of `size` leaves; the node lies within the tree.
    fn new(height: u32, index: u64, size: u64) -> Self {
        Self {
            height,
            index,
            last: (size - 1) >> height,
        }
    }

    /// From the smallest peak of the tree of `old` leaves, which is a node of the tree of `new` leaves too.
    fn from_last_peak(old: u64, new: u64) -> Self {
        let height = old.trailing_zeros();
        Self::new(height, (old >> height) - 1, new)
    }
}

impl Iterator for Climb {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.last > 0 {
            let Self {
                height,
                index,
                last,
            } = *self;
            *self = Self {
                height: height + 1,
                index: index >> 1,
                last: last >> 1,
            };
            if index & 1 == 1 {
                return Some(Step {
                    height,
                    sibling: index - 1,
                    side: Side::Left,
                });
            }
            if index < last {
                return Some(Step {
                    height,
                    sibling: index + 1,
                    side: Side::Right,
                });
            }
        }
        None
    }
}

/// The siblings along a climb.
fn path<N: Nodes>(nodes: &N, climb: Climb, size: u64) -> Result<Vec<Hash>, ProveError<N::Error>> {
    climb
        .map(
            |Step {
                 height, sibling, ..
             }| {
                if (sibling + 1) << height <= size {
                    nodes.node(height, sibling).map_err(ProveError::Node)
                } else {
                    ragged(nodes, size, height)
                }
            },
        )
        .collect()
}

/// The hash of the last `size mod 2^below` leaves: the peaks lower than `below`, folded from the right.
fn ragged<N: Nodes>(nodes: &N, size: u64, below: u32) -> Result<Hash, ProveError<N::Error>> {
    let mut folded = None;
    for height in (0..below).filter(|height| size >> height & 1 == 1) {
        let peak = nodes
            .node(height, (size >> height) - 1)
            .map_err(ProveError::Node)?;
        folded = Some(match folded {
            None => peak,
            Some(right) => node(&peak, &right),
        });
    }
    // Asked only where a leaf is left over, so a bit is set.
    folded.ok_or(ProveError::OutOfRange)
}

#[cfg(test)]
mod tests;
