//! Golden vectors: the files under `testdata`, and an independent checker that has never seen our code.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[path = "golden/make.rs"]
mod make;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use keyturn_audit::{
    note::{Checkpoint, SignedCheckpoint, Vkey},
    proof::Receipt,
    publish::{Dir, Disk, Os},
    tile::TileNodes,
    tree::Edge,
    verify::{Anchors, entries, objects},
};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// All files below a directory, by their relative names.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(&folder).expect("a directory") {
            let path = file.expect("a name").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below").to_owned();
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

fn text(name: &str) -> String {
    fs::read_to_string(testdata().join(name)).expect("a golden file")
}

fn vkey(name: &str) -> Vkey {
    text(name).trim_end().parse().expect("a golden key")
}

#[test]
fn the_golden_log_is_made_again_byte_for_byte() {
    let made = tempfile::tempdir().expect("a directory");
    make::make(made.path());
    let (made, mut kept) = (files(made.path()), files(&testdata()));
    kept.remove(Path::new("check_log.py"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&made),
        names(&kept),
        "to write it: cargo run --example golden_log -p keyturn-audit"
    );
    for (name, bytes) in made {
        assert!(
            kept.get(&name) == Some(&bytes),
            "{} differs",
            name.display()
        );
    }
}

#[test]
fn the_golden_log_verifies() {
    let (log, witness) = (vkey("log.vkey"), vkey("witness.vkey"));
    let dir = Dir::new(testdata().join("log"));
    let saved = SignedCheckpoint::open(&text("saved-checkpoint"), &log).expect("a checkpoint");
    let saved: Checkpoint = saved.checkpoint().clone();
    assert_eq!(saved.size, make::SIZES[0]);
    let anchors = Anchors {
        log: &log,
        saved: &[saved],
        threads: 2,
    };
    let mut count = 0;
    let verified = entries(&dir, &anchors, |entry| {
        assert_eq!(entry.n, count);
        count += 1;
        Ok::<_, ()>(())
    });
    let verified = verified.expect("an honest log");
    assert_eq!(
        (count, objects(&dir).expect("objects")),
        (make::SIZES[1], 2)
    );
    let cosignature = verified
        .checkpoint
        .cosignature(&witness)
        .expect("an honest witness");
    assert_eq!(
        cosignature.map(|c| c.time_secs),
        Some(1_795_227_420 + make::SIZES[1])
    );
    let edge = Edge::from_bytes(&fs::read(testdata().join("edge")).expect("an edge"));
    assert_eq!(edge.as_ref(), Ok(&verified.edge));
    assert_eq!(
        TileNodes::new(&dir, make::SIZES[1]).edge().ok().as_ref(),
        edge.as_ref().ok()
    );
    let receipt: Receipt = text("receipt.tlog-proof").parse().expect("a receipt");
    let entry = fs::read(testdata().join("entry.json")).expect("an entry");
    assert_eq!(receipt.verify(&entry, &log), Ok(verified.checkpoint));
    assert_eq!(receipt.index(), make::RECEIPT);
}

/// Runs the independent checker over a directory like `testdata`.
fn check_log(root: &Path) -> (bool, String) {
    let output = Command::new("python3")
        .arg(testdata().join("check_log.py"))
        .args([
            "log",
            "log.vkey",
            "--saved",
            "saved-checkpoint",
            "--witness",
            "witness.vkey",
        ])
        .args(["--receipt", "receipt.tlog-proof", "--entry", "entry.json"])
        .current_dir(root)
        .output()
        .expect("python3 and openssl are installed");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn an_independent_checker_agrees() {
    let (passed, said) = check_log(&testdata());
    assert!(passed, "{said}");
    assert!(said.contains("260 entries"), "{said}");
}

#[test]
fn an_independent_checker_sees_every_kind_of_tampering() {
    let put = |path: &Path, bytes: &[u8]| {
        fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        Os.write(path, bytes).expect("room");
    };
    for (name, at) in [
        ("log/checkpoint", 30),
        ("log/tile/entries/000", 40),
        ("log/tile/entries/001.p/4", 2),
        ("log/tile/0/000", 0),
        ("log/tile/0/001.p/4", 0),
        ("log/tile/1/000.p/1", 31),
        ("saved-checkpoint", 24),
        ("receipt.tlog-proof", 32),
        ("entry.json", 12),
        ("log.vkey", 60),
        ("witness.vkey", 60),
        (
            "log/objects/1fe5a159589cde2979ef723ac11ab8e9a5ef4a76cee889b11dbde498e535aa15",
            0,
        ),
    ] {
        let copy = tempfile::tempdir().expect("a directory");
        for (path, mut bytes) in files(&testdata()) {
            if path == Path::new(name) {
                bytes[at] ^= 1;
            }
            put(&copy.path().join(path), &bytes);
        }
        let (passed, said) = check_log(copy.path());
        assert!(!passed, "{name} at {at}: {said}");
    }
}
