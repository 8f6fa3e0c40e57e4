use std::collections::HashMap;

use super::*;
use crate::tree::{consistency, inclusion, leaf, root};

/// A published log in memory.
pub(crate) type Memory = HashMap<String, Vec<u8>>;

impl Tiles for Memory {
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.get(path).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() > limit {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes.clone())
        }
    }
}

fn entry(n: u64) -> Vec<u8> {
    format!("entry {n}").into_bytes()
}

/// The files of a tree that grew by these steps; partial tiles of every step are kept.
fn published(sizes: &[u64]) -> (Memory, Edge) {
    let (mut edge, mut writer, mut memory) = (Edge::new(), Writer::default(), Memory::new());
    for size in sizes {
        let entries: Vec<_> = (edge.size()..*size).map(entry).collect();
        let batch = edge.append(&entries).unwrap();
        let mut files = Vec::new();
        writer.extend(&batch, &entries, &mut files).unwrap();
        files.extend(writer.partial(*size));
        memory.extend(
            files
                .into_iter()
                .map(|(path, bytes)| (path.to_string(), bytes)),
        );
        edge = batch.into_edge();
    }
    (memory, edge)
}

#[test]
fn the_tiles_of_a_tree_are_those_of_the_specification() {
    // The example of C2SP tlog-tiles: 70,000 entries.
    let tile = |level, index| {
        TilePath::new(Content::Hashes(level), index, 70_000).map(|path| path.to_string())
    };
    for (name, have, want) in [
        (
            "last full tile of level 0",
            tile(0, 272),
            Some("tile/0/272"),
        ),
        (
            "partial tile of level 0",
            tile(0, 273),
            Some("tile/0/273.p/112"),
        ),
        ("nothing after it", tile(0, 274), None),
        ("full tile of level 1", tile(1, 0), Some("tile/1/000")),
        (
            "partial tile of level 1",
            tile(1, 1),
            Some("tile/1/001.p/17"),
        ),
        ("nothing after it", tile(1, 2), None),
        (
            "partial tile of level 2",
            tile(2, 0),
            Some("tile/2/000.p/1"),
        ),
        ("nothing above", tile(3, 0), None),
        ("far outside", tile(0, u64::MAX), None),
        ("no such level", tile(255, 0), None),
    ] {
        assert_eq!(have.as_deref(), want, "{name}");
    }
    let (files, _) = published(&[256]);
    let mut names: Vec<_> = files.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
}

#[test]
fn a_published_tree_gives_its_edge_and_every_proof() {
    let sizes = [
        1, 2, 255, 256, 257, 300, 512, 700, 65_535, 65_536, 65_537, 66_000,
    ];
    let (files, edge) = published(&sizes);
    for size in sizes {
        let nodes = TileNodes::new(&files, size);
        let top = root(&nodes, size).unwrap();
        assert_eq!(nodes.edge().unwrap().root(), top, "{size}");
        for index in [0, 1, size / 3, size / 2, size - 1]
            .into_iter()
            .filter(|i| *i < size)
        {
            let proof = inclusion(&nodes, index, size).unwrap();
            let checked =
                crate::tree::verify_inclusion(&leaf(&entry(index)), index, size, &proof, &top);
            assert_eq!(checked, Ok(()), "{index} in {size}");
        }
        let nodes = TileNodes::new(&files, edge.size());
        let proof = consistency(&nodes, size, edge.size()).unwrap();
        let checked =
            crate::tree::verify_consistency((size, &top), (edge.size(), &edge.root()), &proof);
        assert_eq!(checked, Ok(()), "{size}");
    }
}

#[test]
fn a_writer_goes_on_from_what_is_published() {
    let (whole, _) = published(&[300, 1_000]);
    let (files, edge) = published(&[300]);
    let mut writer = Writer::load(&files, 300).unwrap();
    let entries: Vec<_> = (300..1_000).map(entry).collect();
    let batch = edge.append(&entries).unwrap();
    let mut more = Vec::new();
    writer.extend(&batch, &entries, &mut more).unwrap();
    more.extend(writer.partial(1_000));
    assert_eq!(
        more.len(),
        7,
        "two full tiles and bundles, two partial tiles, one bundle"
    );
    for (path, bytes) in more {
        assert_eq!(whole.get(&path.to_string()), Some(&bytes), "{path}");
    }
}

#[test]
fn the_full_tile_stands_in_for_a_removed_partial_one() {
    // Invariant 2.
    let (mut files, _) = published(&[10, 256]);
    let partial = ["tile/0/000.p/10", "tile/entries/000.p/10"];
    let at = |content| TilePath::new(content, 0, 10).unwrap();
    let want = partial.map(|path| files.remove(path).unwrap());
    assert_eq!(
        hashes(&files, at(Content::Hashes(0)))
            .unwrap()
            .as_flattened(),
        want[0]
    );
    assert_eq!(bundle(&files, at(Content::Entries)).unwrap(), want[1]);
    // But not if it is damaged, and a missing one is told by the name that was asked for.
    files.get_mut("tile/0/000").unwrap().pop();
    let error = hashes(&files, at(Content::Hashes(0))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tile/0/000 is damaged: it does not hold 256 hashes"
    );
    files.clear();
    let error = bundle(&files, at(Content::Entries)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read tile/entries/000.p/10");
}

#[test]
fn damaged_files_are_named() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let table: [(_, _, Damage); 10] = [
        ("a hash too few", "tile/0/001.p/44", |b| b[32..].to_vec()),
        ("a hash too many", "tile/0/001.p/44", |b| {
            [b, &[0; 32]].concat()
        }),
        ("a byte too many", "tile/0/001.p/44", |b| [b, &[0]].concat()),
        ("empty", "tile/0/001.p/44", |_| Vec::new()),
        ("too long to read", "tile/0/001.p/44", |_| {
            vec![0; MAX_TILE_BYTES + 1]
        }),
        ("an entry too few", "tile/entries/001.p/44", |b| {
            b[11..].to_vec()
        }),
        ("an entry too many", "tile/entries/001.p/44", |b| {
            [b, &[0, 1, b'x']].concat()
        }),
        ("ends inside an entry", "tile/entries/001.p/44", |b| {
            b[..b.len() - 1].to_vec()
        }),
        ("ends inside a length", "tile/entries/001.p/44", |b| {
            [b, &[0]].concat()
        }),
        ("empty", "tile/entries/001.p/44", |_| Vec::new()),
    ];
    for (name, path, damage) in table {
        let (mut files, _) = published(&[300]);
        let file = files.get_mut(path).unwrap();
        *file = damage(file);
        let parsed: TilePath = path.parse().unwrap();
        let error = match parsed.content() {
            Content::Hashes(_) => hashes(&files, parsed).unwrap_err(),
            Content::Entries => bundle(&files, parsed).unwrap_err(),
        };
        assert!(error.to_string().contains(path), "{name}: {error}");
    }
}

#[test]
fn nodes_outside_the_tree_are_not_made_up() {
    let (files, _) = published(&[300]);
    let nodes = TileNodes::new(&files, 300);
    for (height, index) in [
        (0, 300),
        (2, 75),
        (8, 1),
        (9, 0),
        (16, 0),
        (63, 0),
        (600, 0),
    ] {
        let outside = matches!(nodes.node(height, index), Err(NodeError::Outside { .. }));
        assert!(outside, "node {index} at height {height}");
    }
    assert_eq!(nodes.node(0, 299).unwrap(), leaf(&entry(299)));
}

#[test]
fn bundles_read_what_was_written() {
    let mut bytes = Vec::new();
    let longest = vec![b'x'; MAX_ENTRY_BYTES];
    for entry in [b"".as_slice(), b"a", &longest] {
        push_entry(&mut bytes, entry).unwrap();
    }
    let read: Vec<_> = Entries::new(&bytes).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, [b"".as_slice(), b"a", &longest]);
    assert_eq!(
        push_entry(&mut bytes, &vec![0; MAX_ENTRY_BYTES + 1]),
        Err(EntryTooLong)
    );
    let cut: Vec<_> = Entries::new(&[0, 2, 1]).collect();
    assert_eq!(cut, [Err(CutShort)]);
}
