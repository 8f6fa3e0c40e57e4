//! What only the embedded engine promises; crash images, failing disks and kills are in the crate's `tests/`.

use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::backends::InMemoryBackend;
use ::redb::{Database, TableDefinition};

use super::engine::{ROWS, encode_row};
use super::*;
use crate::store::Name;
use crate::store::conformance::{committed, conformance};

fn in_memory() -> RedbStore {
    let file = || -> io::Result<Box<dyn StorageBackend>> { Ok(Box::new(InMemoryBackend::new())) };
    RedbStore::with_backend(file, file).unwrap()
}

fn put(name: &str) -> Txn {
    Txn::new().put(Key::from_bytes(name), *b"1")
}

#[tokio::test]
async fn redb_keeps_the_contract() {
    conformance(|| Box::new(in_memory())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_in_a_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let count = Mutex::new(0);
    conformance(|| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Box::new(RedbStore::create(&dir.path().join(count.to_string())).unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_store_is_what_it_was_after_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = RedbStore::create(&path).unwrap();
    committed(store.txn(put("t/a")).await);
    let last = committed(store.txn(Txn::new().delete(Key::from_bytes("t/a"))).await);
    store.close().await;
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.get(&Key::from_bytes("t/a")).await.unwrap(), None);
    let next = committed(store.txn(put("t/a")).await);
    assert!(next > last, "the revision of a removed row does not return");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
}

/// Invariants 1, 5 and 6.
#[test]
fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let foreign = |name: &str, bytes: &[u8]| {
        // Only its content matters here, not that it survives a crash.
        #[expect(clippy::disallowed_methods, reason = "a file that is not a store")]
        fs::write(at(name), bytes).unwrap();
    };
    foreign("empty", b"");
    foreign("text", b"not a store at all");
    foreign("torn", MAGIC);
    foreign("left.new", b"left over from a crash");
    let other: TableDefinition<'_, &str, u64> = TableDefinition::new("other");
    for (name, table) in [("other", Some(other)), ("bare", None)] {
        let db = Database::create(at(name)).unwrap();
        if let Some(table) = table {
            let write = db.begin_write().unwrap();
            write.open_table(table).unwrap().insert("a", 1).unwrap();
            write.commit().unwrap();
        }
    }
    drop(RedbStore::create(&at("newer")).unwrap());
    let db = Database::open(at("newer")).unwrap();
    let newer = [b"\x01keyturn store ".as_slice(), &7_u32.to_be_bytes()].concat();
    let write = db.begin_write().unwrap();
    let row = encode_row(Rev(9), &newer);
    let key = Name::Format.key();
    let mut rows = write.open_table(ROWS).unwrap();
    rows.insert(key.as_bytes(), row.as_slice()).unwrap();
    drop(rows);
    write.commit().unwrap();
    drop(db);
    let ours = RedbStore::create(&at("ours")).unwrap();
    let open = |name: &str| RedbStore::open(&at(name));
    let create = |name: &str| RedbStore::create(&at(name));
    for (why, result, want) in [
        ("missing", open("none"), "there is no store"),
        ("empty", open("empty"), "not a keyturn store"),
        ("a text", open("text"), "not a keyturn store"),
        ("only its beginning", open("torn"), "damaged"),
        ("other tables", open("other"), "not a keyturn store"),
        ("no tables", open("bare"), "not a keyturn store"),
        ("newer", open("newer"), "its format is 7"),
        (
            "somebody has it",
            open("ours"),
            "another process has the store open",
        ),
        ("already there", create("ours"), "there is a store already"),
        ("no directory", create("no/store"), "there is no store"),
    ] {
        let error = result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains(want), "{why}: {error}");
    }
    drop(ours);
    open("ours").unwrap();
    create("left").unwrap();
    assert!(!at("left.new").exists());
}

/// Invariant 5.
#[tokio::test]
async fn a_store_and_its_journal_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let copy = |from: &str, to: &str| {
        for suffix in ["", ".journal"] {
            fs::copy(at(&format!("{from}{suffix}")), at(&format!("{to}{suffix}"))).unwrap();
        }
    };
    let store = RedbStore::create(&at("a")).unwrap();
    committed(store.txn(put("t/a")).await);
    store.close().await;
    copy("a", "old");
    let store = RedbStore::open(&at("a")).unwrap();
    let mut last = Rev::ABSENT;
    // More than a round of the journal, so that it begins behind where the copy ends.
    for _ in 0..3 {
        let large = Txn::new().put(Key::from_bytes("t/b"), vec![3; 700_000]);
        last = committed(store.txn(large).await);
    }
    copy("a", "killed");
    store.close().await;
    RedbStore::create(&at("other")).unwrap().close().await;
    for name in ["rolled back", "foreign", "without"] {
        copy("a", name);
    }
    fs::copy(at("old"), at("rolled back")).unwrap();
    fs::copy(at("other.journal"), at("foreign.journal")).unwrap();
    fs::remove_file(at("without.journal")).unwrap();
    for (name, want) in [
        ("rolled back", "it is older than its journal"),
        ("foreign", "another store's"),
        ("without", "is missing"),
    ] {
        let error = RedbStore::open(&at(name))
            .err()
            .map(|error| error.to_string());
        assert!(
            error.as_ref().is_some_and(|error| error.contains(want)),
            "{name}: {error:?}"
        );
    }
    for name in ["a", "killed"] {
        let store = RedbStore::open(&at(name)).unwrap();
        let held = store.get(&Key::from_bytes("t/b")).await.unwrap();
        assert_eq!(held, Some((vec![3; 700_000], last)), "{name}");
    }
}

/// A full or read-only disk is noticed before the engine is touched, and passes.
#[tokio::test]
async fn without_room_nothing_is_tried() {
    let ample = Room {
        free_bytes: u64::MAX,
        read_only: false,
    };
    let room = Arc::new(Mutex::new(Ok(ample)));
    let asked = room.clone();
    let opened = Arc::new(AtomicBool::new(false));
    let first = opened.clone();
    let store = RedbStore::start(Source {
        rows: Box::new(move || {
            assert!(!first.swap(true, Ordering::SeqCst), "never opened again");
            Ok(Box::new(InMemoryBackend::new()))
        }),
        journal: Box::new(|_| Ok(Box::new(InMemoryBackend::new()))),
        room: Box::new(move || (*asked.lock().unwrap()).map_err(io::Error::other)),
    })
    .unwrap();
    let free = |free_bytes| Room {
        free_bytes,
        ..ample
    };
    let read_only = Room {
        read_only: true,
        ..ample
    };
    let unavailable = Refused::Unavailable("no such disk".into());
    for (why, now, want) in [
        ("full", Ok(free(0)), Some(Refused::NoSpace)),
        ("nearly full", Ok(free(1 << 20)), Some(Refused::NoSpace)),
        ("read-only", Ok(read_only), Some(Refused::ReadOnly)),
        ("gone", Err("no such disk"), Some(unavailable)),
        ("enough", Ok(free(2 << 20)), None),
    ] {
        *room.lock().unwrap() = now;
        let want = match want {
            Some(refused) => Err(StoreError::NotApplied(refused)),
            None => Ok(()),
        };
        assert_eq!(store.txn(put("t/a")).await.map(drop), want, "{why}");
        assert_eq!(store.probe().await, want, "{why}");
        let held = store.get(&Key::from_bytes("t/a")).await.unwrap();
        assert_eq!(held.is_some(), want.is_ok(), "{why}");
    }
}
