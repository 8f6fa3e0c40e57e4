use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use sha2::{Digest, Sha256};

use super::*;
use crate::{
    note::LogKey,
    publish::{Dir, Disk, MAX_OBJECT_BYTES, OBJECTS, Os},
    tile::tests::Memory,
    tree::Batch,
};

fn key() -> LogKey {
    LogKey::from_seed("vault.example.org/prod", &[7; 32]).unwrap()
}

fn entry(n: u64) -> Entry {
    Entry {
        n,
        time: "2026-11-21T02:17:00.123Z".into(),
        charter: 1,
        actor: "alice".into(),
        kind: "alive".into(),
        body: json!({"text": format!("of entry {n}")}),
    }
}

fn honest(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(|n| entry(n).encode().unwrap()).collect()
}

fn grow(entries: &[Vec<u8>]) -> Batch {
    Edge::new().append(entries).unwrap()
}

/// The log of these entries as files, with an honest signature over them.
fn log_of(entries: &[Vec<u8>]) -> Memory {
    let (batch, mut writer, mut files) = (grow(entries), Writer::default(), Vec::new());
    writer.extend(&batch, entries, &mut files).unwrap();
    files.extend(writer.partial(batch.edge().size()));
    let mut memory: Memory = files
        .into_iter()
        .map(|(path, bytes)| (path.to_string(), bytes))
        .collect();
    let signed = key()
        .sign(batch.edge().size(), batch.edge().root())
        .unwrap();
    memory.insert(CHECKPOINT.into(), signed.note().to_string().into_bytes());
    memory
}

fn check<T: Tiles + Sync>(
    tiles: &T,
    saved: &[Checkpoint],
    threads: usize,
) -> Result<Vec<Entry>, VerifyError<Infallible>> {
    let log = key();
    let mut all = Vec::new();
    entries(
        tiles,
        &Anchors {
            log: log.vkey(),
            saved,
            threads,
        },
        |entry| {
            all.push(entry);
            Ok(())
        },
    )
    .map(|_| all)
}

#[test]
fn honest_logs_pass_and_hand_on_every_entry_in_order() {
    // Invariant 1.
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 513, 1_300] {
        let files = log_of(&honest(size));
        let want: Vec<_> = (0..size).map(entry).collect();
        for threads in [0, 1, 2, 3, 7] {
            assert_eq!(
                check(&files, &[], threads).unwrap(),
                want,
                "{size} with {threads} threads"
            );
        }
    }
}

#[test]
fn a_log_with_tiles_on_three_levels_passes_and_every_tile_counts() {
    // Invariant 3. Entries that are not ours: only the tree is verified.
    let entries: Vec<_> = (0_u32..66_000).map(|n| n.to_be_bytes().to_vec()).collect();
    let mut files = log_of(&entries);
    let log = key();
    let anchors = Anchors {
        log: log.vkey(),
        saved: &[],
        threads: 2,
    };
    let verified = tree(&files, &anchors).unwrap();
    assert_eq!(verified.edge, grow(&entries).into_edge());
    assert!(files.contains_key("tile/2/000.p/1"));
    let some = [
        "tile/0/000",
        "tile/0/257.p/208",
        "tile/1/000",
        "tile/1/001.p/1",
        "tile/2/000.p/1",
    ];
    for path in some {
        let good = files.get(path).unwrap().clone();
        files.get_mut(path).unwrap()[31] ^= 1;
        let error = tree(&files, &anchors).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{path} does not belong to the entries")
        );
        files.remove(path);
        let error = tree(&files, &anchors).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {path}"));
        files.insert(path.into(), good);
    }
    assert!(tree(&files, &anchors).is_ok());
}

#[test]
fn every_saved_checkpoint_must_be_a_beginning() {
    // Invariant 2.
    let honest = honest(600);
    let files = log_of(&honest);
    let at = |size: u64| {
        let edge = grow(&honest[..usize::try_from(size).unwrap()]).into_edge();
        Checkpoint {
            origin: key().vkey().name().into(),
            size,
            root: edge.root(),
        }
    };
    let sizes = [0, 1, 2, 3, 100, 255, 256, 257, 300, 511, 512, 513, 599, 600];
    let saved: Vec<_> = sizes.map(at).into();
    assert!(check(&files, &saved, 2).is_ok());
    for size in sizes {
        let mut forked = saved.clone();
        let one = forked
            .iter_mut()
            .find(|checkpoint| checkpoint.size == size)
            .unwrap();
        one.root[0] ^= 1;
        let error = check(&files, &forked, 2).unwrap_err();
        assert!(
            matches!(error, VerifyError::Forked { size: at } if at == size),
            "{size}: {error}"
        );
    }
    let longer = Checkpoint {
        size: 601,
        ..at(600)
    };
    let error = check(&files, &[longer], 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the log shrank: it has 600 entries, and had 601"
    );
    let other = Checkpoint {
        origin: "vault.example.org/test".into(),
        ..at(1)
    };
    let error = check(&files, &[other], 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the saved checkpoint of size 1 is of another log"
    );
}

type Tamper = fn(&mut Vec<Vec<u8>>, &mut Memory);

/// Verifies an honest log of 600 entries after somebody was there.
fn tampered(table: &[(&str, Tamper, &str)]) {
    for (name, tamper, want) in table {
        let mut entries = honest(600);
        let mut files = log_of(&entries);
        tamper(&mut entries, &mut files);
        for threads in [1, 2, 5] {
            let error = check(&files, &[], threads).unwrap_err();
            assert_eq!(error.to_string(), *want, "{name} with {threads} threads");
        }
    }
}

/// Puts these files of the log of these entries in place of what is there.
fn replace(entries: &[Vec<u8>], files: &mut Memory, names: &[&str]) {
    let other = log_of(entries);
    files.extend(
        names
            .iter()
            .map(|name| ((*name).to_owned(), other[*name].clone())),
    );
}

fn mallory(n: u64) -> Vec<u8> {
    Entry {
        actor: "mallory".into(),
        ..entry(n)
    }
    .encode()
    .unwrap()
}

fn sign(files: &mut Memory, key: &LogKey, size: u64, root: Hash) {
    let note = key.sign(size, root).unwrap().note().to_string();
    files.insert(CHECKPOINT.into(), note.into_bytes());
}

#[test]
fn damage_is_named() {
    tampered(&[
        (
            "a changed byte in an entry",
            |_, files| files.get_mut("tile/entries/001").unwrap()[2] ^= 1,
            "entry 256 is not valid",
        ),
        (
            "a tile that nobody needs for the root",
            |_, files| files.get_mut("tile/1/000.p/2").unwrap()[0] ^= 1,
            "tile/1/000.p/2 does not belong to the entries",
        ),
        (
            "a missing bundle",
            |_, files| drop(files.remove("tile/entries/000")),
            "cannot read tile/entries/000",
        ),
        (
            "a missing partial bundle",
            |_, files| drop(files.remove("tile/entries/002.p/88")),
            "cannot read tile/entries/002.p/88",
        ),
        (
            "an empty bundle",
            |_, files| drop(files.insert("tile/entries/002.p/88".into(), Vec::new())),
            "tile/entries/002.p/88 is damaged: it does not hold 88 entries",
        ),
        (
            "a missing tile",
            |_, files| drop(files.remove("tile/0/000")),
            "cannot read tile/0/000",
        ),
        (
            "no checkpoint",
            |_, files| drop(files.remove(CHECKPOINT)),
            "cannot read the checkpoint",
        ),
        (
            "a checkpoint that is not text",
            |_, files| drop(files.insert(CHECKPOINT.into(), vec![0xff])),
            "cannot read the checkpoint",
        ),
    ]);
}

#[test]
fn whoever_cannot_sign_cannot_change_anything() {
    tampered(&[
        (
            "another entry",
            |entries, files| {
                entries[300] = mallory(300);
                replace(entries, files, &["tile/entries/001"]);
            },
            "tile/0/001 does not belong to the entries",
        ),
        (
            "another entry with its tile",
            |entries, files| {
                entries[300] = mallory(300);
                replace(entries, files, &["tile/entries/001", "tile/0/001"]);
            },
            "the entries do not lead to the signed root",
        ),
        (
            "everything but the checkpoint",
            |entries, files| {
                entries[300] = mallory(300);
                let checkpoint = files.remove(CHECKPOINT).unwrap();
                *files = log_of(entries);
                files.insert(CHECKPOINT.into(), checkpoint);
            },
            "the entries do not lead to the signed root",
        ),
        (
            "everything, signed by a stranger",
            |entries, files| {
                entries[300] = mallory(300);
                *files = log_of(entries);
                let stranger = LogKey::from_seed("vault.example.org/prod", &[8; 32]).unwrap();
                sign(files, &stranger, 600, grow(entries).edge().root());
            },
            "the checkpoint is not accepted",
        ),
    ]);
}

#[test]
fn whoever_signs_cannot_sign_just_anything() {
    // Invariant 4 is the last one.
    tampered(&[
        (
            "more than is there",
            |_, files| sign(files, &key(), 601, [0; 32]),
            "cannot read tile/entries/002.p/89",
        ),
        (
            "another root",
            |_, files| sign(files, &key(), 600, [0; 32]),
            "the entries do not lead to the signed root",
        ),
        (
            "an entry with another number",
            |entries, files| {
                entries[300] = entry(301).encode().unwrap();
                *files = log_of(entries);
            },
            "entry 300 says that it is entry 301",
        ),
        (
            "an entry in another spelling",
            |entries, files| {
                entries[599].push(b'\n');
                *files = log_of(entries);
            },
            "entry 599 is not valid",
        ),
        (
            "two such entries",
            |entries, files| {
                entries[599].push(b'\n');
                entries[255].push(b'\n');
                *files = log_of(entries);
            },
            "entry 255 is not valid",
        ),
    ]);
}

#[test]
fn the_caller_can_refuse_an_entry() {
    let files = log_of(&honest(600));
    let log = key();
    let anchors = Anchors {
        log: log.vkey(),
        saved: &[],
        threads: 2,
    };
    let mut seen = 0;
    let refused = entries(&files, &anchors, |entry| {
        seen += 1;
        if entry.n == 300 { Err("no") } else { Ok(()) }
    });
    assert!(matches!(
        refused,
        Err(VerifyError::Refused {
            n: 300,
            source: "no"
        })
    ));
    assert_eq!(seen, 301, "nothing is handed on after a refusal");
}

#[test]
fn threads_wait_for_the_caller() {
    /// Counts the bundles that were read.
    struct Counting(Memory, AtomicU64);
    impl Tiles for Counting {
        fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
            if path.starts_with("tile/entries/") {
                self.1.fetch_add(1, Ordering::SeqCst);
            }
            self.0.read(path, limit)
        }
    }
    let counting = Counting(log_of(&honest(256 * 40)), AtomicU64::new(0));
    let log = key();
    let anchors = Anchors {
        log: log.vkey(),
        saved: &[],
        threads: 2,
    };
    let ahead = u64::try_from(AHEAD).unwrap() + 2;
    let verified = entries(&counting, &anchors, |entry| {
        let read = counting.1.load(Ordering::SeqCst);
        assert!(
            read <= entry.n / 256 + 1 + 2 * ahead,
            "{read} bundles at entry {}",
            entry.n
        );
        Ok::<_, Infallible>(())
    });
    assert!(verified.is_ok());
    assert_eq!(counting.1.load(Ordering::SeqCst), 40);
}

#[test]
fn objects_are_what_their_names_say() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::new(folder.path());
    assert_eq!(objects(&dir).unwrap(), 0, "no folder is no object");
    let put = |name: &str, bytes: &[u8]| {
        let disk = Os;
        disk.make_dir(&folder.path().join(OBJECTS)).unwrap();
        disk.write(&folder.path().join(OBJECTS).join(name), bytes)
            .unwrap();
    };
    let digest: Hash = Sha256::digest(b"charter").into();
    put(&hex::encode(digest), b"charter");
    assert_eq!(objects(&dir).unwrap(), 1);
    assert_eq!(object(&dir, &digest).unwrap(), b"charter");
    assert!(matches!(
        object(&dir, &[0; 32]),
        Err(ObjectError::Read { .. })
    ));
    let upper = hex::encode_upper(digest);
    let zeros = "0".repeat(64);
    for (name, bytes) in [
        (zeros.as_str(), b"other".as_slice()),
        (&upper, b"charter"),
        ("README", b"charter"),
        (&zeros, &vec![0; MAX_OBJECT_BYTES + 1]),
    ] {
        put(name, bytes);
        let error = objects(&dir).unwrap_err();
        assert!(
            error.to_string().contains(&format!("objects/{name}")),
            "{error}"
        );
        Os.remove(&folder.path().join(OBJECTS).join(name)).unwrap();
    }
}
