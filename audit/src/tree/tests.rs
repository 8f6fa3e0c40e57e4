use std::cell::Cell;

use ct_merkle::{
    ConsistencyProof, InclusionProof, RootHash, digest::Output, mem_backed_tree::MemoryBackedTree,
};

use super::*;

/// Every size up to this is tried with every index and every older size.
const ALL: u64 = 70;

fn entry(n: u64) -> Vec<u8> {
    format!("entry {n}").into_bytes()
}

/// All perfect nodes of a tree, by height.
struct Whole(Vec<Vec<Hash>>);

impl Whole {
    fn new(size: u64) -> Self {
        let mut rows = vec![(0..size).map(|n| leaf(&entry(n))).collect::<Vec<_>>()];
        while let Some(below) = rows.last().filter(|row| row.len() > 1) {
            let (pairs, _) = below.as_chunks();
            rows.push(
                pairs
                    .iter()
                    .map(|[left, right]| node(left, right))
                    .collect(),
            );
        }
        Self(rows)
    }
}

impl Nodes for Whole {
    type Error = (u32, u64);

    fn node(&self, height: u32, index: u64) -> Result<Hash, (u32, u64)> {
        let row = self.0.get(usize::try_from(height).unwrap());
        let found = row.and_then(|row| row.get(usize::try_from(index).unwrap()));
        found.copied().ok_or((height, index))
    }
}

/// RFC 6962, section 2.1, word for word.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(split(more.len()));
            node(&mth(left), &mth(right))
        }
    }
}

/// Section 2.1.1, PATH.
fn rfc_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if m < k {
        (rfc_path(m, left), mth(right))
    } else {
        (rfc_path(m - k, right), mth(left))
    };
    path.push(sibling);
    path
}

/// Section 2.1.2, SUBPROOF.
fn rfc_subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, sibling) = if m <= k {
        (rfc_subproof(m, left, whole), mth(right))
    } else {
        (rfc_subproof(m - k, right, false), mth(left))
    };
    proof.push(sibling);
    proof
}

/// The largest power of two smaller than n.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|n| leaf(&entry(n))).collect()
}

fn len(size: u64) -> usize {
    usize::try_from(size).unwrap()
}

/// Small deterministic random numbers (xorshift).
struct Random(Cell<u64>);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % bound
    }
}

/// Makes and checks both proofs and compares them with the oracle's.
fn agree(whole: &Whole, oracle: &MemoryBackedTree<Sha256, Vec<u8>>, old: u64, index: u64) {
    let size = oracle.len();
    let (now, before) = (root(whole, size).unwrap(), root(whole, old).unwrap());
    let oracle_root = oracle.root();
    assert_eq!(
        now.as_slice(),
        oracle_root.as_bytes().as_slice(),
        "root of {size}"
    );

    let proof = inclusion(whole, index, size).unwrap();
    assert_eq!(
        proof.as_flattened(),
        oracle.prove_inclusion(len(index)).as_bytes(),
        "{index} in {size}"
    );
    assert_eq!(
        verify_inclusion(&leaf(&entry(index)), index, size, &proof, &now),
        Ok(())
    );
    let theirs = InclusionProof::try_from_bytes(proof.as_flattened().to_vec()).unwrap();
    assert!(
        oracle_root
            .verify_inclusion(&entry(index), index, &theirs)
            .is_ok()
    );

    let proof = consistency(whole, old, size).unwrap();
    assert_eq!(
        verify_consistency((old, &before), (size, &now), &proof),
        Ok(()),
        "{old} to {size}"
    );
    if old > 0 {
        let theirs = ConsistencyProof::try_from_bytes(proof.as_flattened().to_vec()).unwrap();
        let before = RootHash::new(Output::<Sha256>::from(before), old);
        assert!(
            oracle_root.verify_consistency(&before, &theirs).is_ok(),
            "{old} to {size}"
        );
        let made = oracle.prove_consistency(len(size - old));
        assert_eq!(proof.as_flattened(), made.as_bytes(), "{old} to {size}");
    }
}

#[test]
fn known_roots() {
    // The test vectors of the Certificate Transparency implementations.
    let inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut edge = Edge::new();
    assert_eq!(
        hex::encode(edge.root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    for (input, root) in inputs.iter().zip(roots) {
        edge = edge
            .append([hex::decode(input).unwrap()])
            .unwrap()
            .into_edge();
        assert_eq!(hex::encode(edge.root()), root, "{} leaves", edge.size());
    }
}

#[test]
fn proofs_are_those_of_rfc_6962_for_all_small_trees() {
    let whole = Whole::new(ALL);
    let mut checked = 0;
    for size in 0..=ALL {
        let leaves = leaves(size);
        assert_eq!(root(&whole, size), Ok(mth(&leaves)));
        for index in 0..size {
            assert_eq!(
                inclusion(&whole, index, size),
                Ok(rfc_path(len(index), &leaves))
            );
            let old = index + 1;
            let want = rfc_subproof(len(old), &leaves, true);
            assert_eq!(consistency(&whole, old, size), Ok(want));
            checked += 1;
        }
    }
    assert_eq!(checked, ALL * (ALL + 1) / 2);
}

#[test]
fn proofs_are_those_of_the_oracle() {
    let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let whole = Whole::new(5_000);
    for n in 0..ALL {
        oracle.push(entry(n));
        for index in 0..=n {
            agree(&whole, &oracle, index, index);
            agree(&whole, &oracle, n + 1, index);
        }
    }
    let random = Random(Cell::new(6962));
    while oracle.len() < 5_000 {
        oracle.push(entry(oracle.len()));
        if oracle.len().is_multiple_of(97)
            || [255, 256, 257, 511, 512, 4_096].contains(&oracle.len())
        {
            agree(
                &whole,
                &oracle,
                random.below(oracle.len() + 1),
                random.below(oracle.len()),
            );
        }
    }
}

#[test]
fn every_batch_proves_its_leaves_without_the_rest_of_the_tree() {
    let whole = Whole::new(ALL);
    for start in 0..=ALL {
        let before = Edge::of(&whole, start).unwrap();
        for size in start..=ALL {
            let batch = before.append((start..size).map(entry)).unwrap();
            assert_eq!(batch.start(), start);
            assert_eq!(
                *batch.edge(),
                Edge::of(&whole, size).unwrap(),
                "{start} to {size}"
            );
            assert_eq!(batch.edge().root(), root(&whole, size).unwrap());
            assert_eq!(
                batch.consistency().ok(),
                consistency(&whole, start, size).ok()
            );
            for index in start..size {
                assert_eq!(
                    batch.inclusion(index).ok(),
                    inclusion(&whole, index, size).ok()
                );
            }
            assert_eq!(batch.inclusion(size), Err(ProveError::OutOfRange));
        }
        // What it does not know it does not guess.
        let batch = before.append([entry(start)]).unwrap();
        if start > 2 {
            assert!(matches!(
                batch.inclusion(0),
                Err(ProveError::Node(NotInBatch { .. }))
            ));
        }
    }
}

#[test]
fn large_batches_agree_with_the_whole_tree() {
    let whole = Whole::new(3_000);
    let random = Random(Cell::new(9162));
    let mut edge = Edge::new();
    while edge.size() < 2_400 {
        let size = edge.size() + random.below(600);
        let batch = edge.append((edge.size()..size).map(entry)).unwrap();
        if size > edge.size() {
            let index = edge.size() + random.below(size - edge.size());
            assert_eq!(
                batch.inclusion(index).ok(),
                inclusion(&whole, index, size).ok()
            );
        }
        assert_eq!(
            batch.consistency().ok(),
            consistency(&whole, edge.size(), size).ok()
        );
        edge = batch.into_edge();
        assert_eq!(edge.root(), root(&whole, size).unwrap());
    }
}

#[test]
fn an_edge_survives_the_store() {
    let whole = Whole::new(ALL);
    for size in 0..=ALL {
        let edge = Edge::of(&whole, size).unwrap();
        let bytes = edge.to_bytes();
        assert_eq!(Edge::from_bytes(&bytes), Ok(edge), "{size}");
        assert_eq!(
            Edge::from_bytes(&[bytes.as_slice(), &[0]].concat()),
            Err(EdgeError::Length)
        );
        let more = [bytes.as_slice(), &[0; 32]].concat();
        assert_eq!(Edge::from_bytes(&more), Err(EdgeError::Length));
        for cut in 0..bytes.len() {
            assert_eq!(
                Edge::from_bytes(&bytes[..cut]),
                Err(EdgeError::Length),
                "{size}"
            );
        }
    }
    assert_eq!(Edge::from_bytes(&[2; 9]), Err(EdgeError::Format));
    let too_large = [&[1], (MAX_SIZE + 1).to_be_bytes().as_slice(), &[0; 32]].concat();
    assert_eq!(Edge::from_bytes(&too_large), Err(EdgeError::Full));
}

#[test]
fn the_largest_tree_takes_no_more_leaves() {
    // Invariant 2: the edge of 2^53 - 1 leaves has 53 peaks.
    let bytes = [&[1], MAX_SIZE.to_be_bytes().as_slice(), &[7; 53 * 32]].concat();
    let edge = Edge::from_bytes(&bytes).unwrap();
    assert_eq!(edge.append([entry(0)]).err(), Some(EdgeError::Full));
    let bytes = [&[1], (MAX_SIZE - 1).to_be_bytes().as_slice(), &[7; 52 * 32]].concat();
    let batch = Edge::from_bytes(&bytes)
        .unwrap()
        .append([entry(0)])
        .unwrap();
    let proof = batch.inclusion(MAX_SIZE - 1).unwrap();
    let root = batch.edge().root();
    assert_eq!(
        verify_inclusion(&leaf(&entry(0)), MAX_SIZE - 1, MAX_SIZE, &proof, &root),
        Ok(())
    );
    assert!(batch.consistency().unwrap().len() <= MAX_PROOF);
}

#[test]
fn an_inclusion_proof_with_anything_changed_is_refused() {
    let whole = Whole::new(ALL);
    for size in 1..=ALL {
        let top = root(&whole, size).unwrap();
        for index in 0..size {
            let hash = leaf(&entry(index));
            let proof = inclusion(&whole, index, size).unwrap();
            let refused = |leaf: &Hash, index, proof: &[Hash], root: &Hash| {
                verify_inclusion(leaf, index, size, proof, root).is_err()
            };
            assert!(refused(&leaf(b"other"), index, &proof, &top), "other leaf");
            assert!(refused(&hash, index, &proof, &empty()), "other root");
            assert!(refused(&hash, size, &proof, &top), "outside");
            for other in (0..size).filter(|other| *other != index) {
                assert!(
                    refused(&hash, other, &proof, &top),
                    "index {other} for {index}"
                );
            }
            assert!(
                refused(&hash, index, &[&proof[..], &[top]].concat(), &top),
                "longer"
            );
            for at in 0..proof.len() {
                assert!(refused(&hash, index, &proof[..at], &top), "cut to {at}");
                let mut changed = proof.clone();
                changed[at][31] ^= 1;
                assert!(refused(&hash, index, &changed, &top), "hash {at} changed");
            }
        }
    }
    let too_large = verify_inclusion(&leaf(b""), 0, MAX_SIZE + 1, &[], &empty());
    assert_eq!(too_large, Err(ProofError::OutOfRange));
}

#[test]
fn a_consistency_proof_with_anything_changed_is_refused() {
    let whole = Whole::new(ALL);
    for size in 1..=ALL {
        let top = root(&whole, size).unwrap();
        for old in 1..=size {
            let before = root(&whole, old).unwrap();
            let proof = consistency(&whole, old, size).unwrap();
            let refused = |before: &Hash, proof: &[Hash], root: &Hash| {
                verify_consistency((old, before), (size, root), proof).is_err()
            };
            assert!(refused(&empty(), &proof, &top), "other old root");
            assert!(refused(&before, &proof, &empty()), "other new root");
            assert!(
                refused(&before, &[&proof[..], &[top]].concat(), &top),
                "longer"
            );
            for at in 0..proof.len() {
                assert!(refused(&before, &proof[..at], &top), "cut to {at}");
                let mut changed = proof.clone();
                changed[at][0] ^= 128;
                assert!(refused(&before, &changed, &top), "hash {at} changed");
            }
            let reversed = verify_consistency((size + 1, &top), (old, &before), &proof);
            assert_eq!(reversed, Err(ProofError::OutOfRange));
        }
        let from_nothing = |root: &Hash| verify_consistency((0, root), (size, &top), &[]);
        assert_eq!(from_nothing(&empty()), Ok(()));
        assert_eq!(from_nothing(&top), Err(ProofError::Root));
        let proof_of_nothing = verify_consistency((0, &empty()), (size, &top), &[top]);
        assert_eq!(proof_of_nothing, Err(ProofError::Length));
    }
}

#[test]
fn nothing_outside_the_tree_is_proved() {
    let whole = Whole::new(3);
    for (name, made) in [
        ("leaf after the last", inclusion(&whole, 3, 3)),
        ("leaf of an empty tree", inclusion(&whole, 0, 0)),
        ("tree too large", inclusion(&whole, 0, MAX_SIZE + 1)),
        ("older tree larger", consistency(&whole, 4, 3)),
        ("newer tree too large", consistency(&whole, 1, MAX_SIZE + 1)),
    ] {
        assert_eq!(made, Err(ProveError::OutOfRange), "{name}");
    }
    assert_eq!(root(&whole, MAX_SIZE + 1), Err(ProveError::OutOfRange));
    assert_eq!(
        root(&whole, 4),
        Err(ProveError::Node((2, 0))),
        "a node that is not there"
    );
}
