//! The embedded store on a disk that loses power, fills up, turns read-only and fails.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking and says what it did"
)]

mod crash_images;
mod disk;
mod failures;

use std::collections::BTreeMap;

use keyturnd::store::{
    Key, KeyRange, Name, Op, OpenError, Outcome, RedbStore, Rev, Store, StoreError, Txn,
};

use redb::StorageBackend;

use crate::disk::{Disk, File, OnDisk};

/// What a store should hold: what the transactions so far have put, by key.
type Rows = BTreeMap<Key, Vec<u8>>;

fn open(disk: &Disk) -> Result<RedbStore, OpenError> {
    let file = |file| {
        let disk = disk.clone();
        move || -> std::io::Result<Box<dyn StorageBackend>> {
            Ok(Box::new(OnDisk(disk.clone(), file)))
        }
    };
    RedbStore::with_backend(file(File::Rows), file(File::Journal))
}

/// Everything that the store holds but its format row.
async fn rows(store: &dyn Store) -> Rows {
    let mut snapshot = store.snapshot().await.unwrap();
    let mut rows = Rows::new();
    loop {
        let page = snapshot.next().await.unwrap();
        if page.is_empty() {
            assert!(rows.remove(&Name::Format.key()).is_some());
            return rows;
        }
        for row in page {
            assert!(row.rev > Rev::ABSENT && row.rev <= snapshot.rev());
            assert_eq!(rows.insert(row.key, row.value), None);
        }
    }
}

/// A log-like history: each transaction appends entries under the head, changes rows that are there, and
/// sometimes brings or removes a large object.
struct History {
    rows: Rows,
    step: u64,
}

impl History {
    fn new() -> Self {
        Self {
            rows: Rows::new(),
            step: 0,
        }
    }

    /// The next transaction. Call [`Self::done`] once it is known to be in the store.
    fn next(&self) -> Txn {
        let size = size(&self.rows);
        let entries = 1 + self.step % 3;
        let mut txn = Txn::new().put(Name::Head.key(), head(size + entries));
        for n in size..size + entries {
            let entry = vec![1; 200 + usize::try_from(self.step * 37 % 1_500).unwrap()];
            txn = txn.put(Name::Entry(n).key(), entry);
        }
        let object = |step: u64| {
            let digest = keyturn_vault::digest::Digest::of(&step.to_be_bytes());
            Name::Object(digest).key()
        };
        match self.step % 10 {
            4 => txn = txn.put(object(self.step), vec![7; 300_000]),
            9 => txn = txn.delete(object(self.step - 5)),
            _ => {
                let row = Name::Outbox(self.step % 4).key();
                txn = txn.put(row, self.step.to_be_bytes());
            }
        }
        txn
    }

    fn done(&mut self, txn: Txn) {
        apply(&mut self.rows, txn);
        self.step += 1;
    }
}

fn apply(rows: &mut Rows, txn: Txn) {
    for op in txn.then {
        match op {
            Op::Put(key, value) => rows.insert(key, value),
            Op::Delete(key) => rows.remove(&key),
        };
    }
}

fn head(size: u64) -> Vec<u8> {
    [[1].as_slice(), &size.to_be_bytes()].concat()
}

/// The size that the head record tells.
fn size(rows: &Rows) -> u64 {
    let head = rows.get(&Name::Head.key());
    head.map_or(0, |head| u64::from_be_bytes(head[1..].try_into().unwrap()))
}

/// The head record and the entries that are there say the same.
fn assert_head_equals_entries(rows: &Rows) {
    let entries = KeyRange::entries(0, u64::MAX);
    let entries = rows.keys().filter(|key| entries.contains(key));
    let numbers = entries.map(|key| match key.name() {
        Some(Name::Entry(n)) => n,
        other => panic!("not an entry: {other:?}"),
    });
    assert!(numbers.eq(0..size(rows)));
}

fn assert_committed(outcome: &Result<Outcome, StoreError>) {
    assert!(matches!(outcome, Ok(Outcome::Committed(_))), "{outcome:?}");
}
