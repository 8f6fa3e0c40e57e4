//! `kill -9` of a process that writes to the embedded store: nothing it acknowledged is lost.
//!
//! The test runs itself as the writer. The writer appends to a log and counts in rows of its own, all at once,
//! and says on its standard output what the store has acknowledged. Each round kills it at another moment, looks
//! at a copy of the store, and starts the next writer on the store as the kill left it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keyturnd::store::{KeyRange, MAX_PAGE_ROWS, Name, Outcome, RedbStore, Rev, Store, Txn};

const ROUNDS: u64 = 16;
const COUNTERS: u64 = 4;

/// Name of the log among the counters in what the writer says.
const LOG: u64 = COUNTERS;

#[tokio::main]
async fn main() {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("writer"), Some(path)) => write(Path::new(&path)).await,
        _ => kill_writers().await,
    }
}

async fn write(path: &Path) {
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(path).unwrap());
    let mut writers = Vec::new();
    for counter in 0..COUNTERS {
        writers.push(tokio::spawn(count(store.clone(), counter)));
    }
    writers.push(tokio::spawn(append(store)));
    for writer in writers {
        writer.await.unwrap();
    }
}

fn acknowledged(what: u64, number: u64) {
    println!("{what} {number}");
}

async fn count(store: Arc<dyn Store>, counter: u64) {
    let key = Name::Outbox(counter).key();
    let held = store.get(&key).await.unwrap();
    let mut number = held.map_or(0, |(value, _)| value_of(&value));
    loop {
        number += 1;
        let txn = Txn::new().put(key.clone(), row(number));
        assert!(matches!(store.txn(txn).await, Ok(Outcome::Committed(_))));
        acknowledged(counter, number);
    }
}

async fn append(store: Arc<dyn Store>) {
    let head = store.get(&Name::Head.key()).await.unwrap();
    let (mut size, mut rev) = head.map_or((0, Rev::ABSENT), |(value, rev)| (value_of(&value), rev));
    loop {
        let txn = Txn::new()
            .when(Name::Head.key(), rev)
            .put(Name::Head.key(), row(size + 2))
            .put(Name::Entry(size).key(), vec![1; 700])
            .put(Name::Entry(size + 1).key(), vec![1; 90]);
        rev = match store.txn(txn).await.unwrap() {
            Outcome::Committed(rev) => rev,
            Outcome::Conflict(held) => panic!("nobody else appends: {held:?}"),
        };
        size += 2;
        acknowledged(LOG, size);
    }
}

fn row(number: u64) -> Vec<u8> {
    [[1].as_slice(), &number.to_be_bytes()].concat()
}

fn value_of(row: &[u8]) -> u64 {
    u64::from_be_bytes(row[1..].try_into().unwrap())
}

async fn kill_writers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    RedbStore::create(&path).unwrap().close().await;
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let before = acknowledged.clone();
        run_and_kill(&path, round, &mut acknowledged);
        assert_ne!(
            before, acknowledged,
            "round {round}: the writer did something"
        );
        let copy = dir.path().join("copy.redb");
        for suffix in ["", ".journal"] {
            let of = |path: &Path| format!("{}{suffix}", path.display());
            fs::copy(of(&path), of(&copy)).unwrap();
        }
        assert_nothing_lost(&copy, &acknowledged, round).await;
    }
    let total: u64 = acknowledged.values().sum();
    println!("{ROUNDS} kills, {total} acknowledged, nothing lost");
}

fn run_and_kill(path: &Path, round: u64, acknowledged: &mut BTreeMap<u64, u64>) {
    let mut writer = Command::new(env::current_exe().unwrap())
        .arg("writer")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut read = |line: String| {
        let (what, number) = line.split_once(' ').expect("a counter and its number");
        acknowledged.insert(what.parse().unwrap(), number.parse().unwrap());
    };
    read(lines.next().unwrap().unwrap());
    let reader = thread::scope(|scope| {
        // The pipe is emptied all the time, so that the writer is never held up by it.
        let reader = scope.spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(5 + round * 37 % 100));
        writer.kill().unwrap();
        writer.wait().unwrap();
        reader.join().unwrap()
    });
    reader.into_iter().for_each(&mut read);
}

async fn assert_nothing_lost(path: &Path, acknowledged: &BTreeMap<u64, u64>, round: u64) {
    let store = RedbStore::open(path).unwrap();
    for (what, told) in acknowledged {
        let (key, step) = match *what {
            LOG => (Name::Head.key(), 2),
            counter => (Name::Outbox(counter).key(), 1),
        };
        let (value, _) = store.get(&key).await.unwrap().unwrap();
        let held = value_of(&value);
        // One more may have become durable before it could be told.
        assert!(
            held == *told || held == told + step,
            "round {round}, {key}: {held} is held, {told} was acknowledged"
        );
    }
    let head = store.get(&Name::Head.key()).await.unwrap();
    let size = head.map_or(0, |(value, _)| value_of(&value));
    let mut entries = Vec::new();
    let mut rest = Some(KeyRange::entries(0, u64::MAX));
    while let Some(range) = rest {
        let page = store.range(&range, MAX_PAGE_ROWS).await.unwrap();
        entries.extend(page.rows.into_iter().map(|row| row.key));
        rest = page.rest;
    }
    let want = (0..size).map(|n| Name::Entry(n).key());
    assert!(
        entries.into_iter().eq(want),
        "round {round}: the head equals the entries"
    );
    store.close().await;
}
