//! A disk that is full, read-only or broken, at each single call of a commit.
//!
//! Cites the invariants of `keyturnd::store`.

use keyturnd::store::{CACHE_BYTES, JOURNAL_BYTES, Refused};
use rustix::io::Errno;

use crate::disk::{Call, Dice, Disk, Loss, PowerCut};
use crate::*;

/// A value so large that its pages are written before the commit, and one whose pages can wait for it.
const OVER_BUFFER: usize = CACHE_BYTES / 4;
const WITHIN_BUFFER: usize = CACHE_BYTES / 8;

/// A store with some history on its disk. When its journal is full, the next transaction makes the rows durable
/// first.
async fn started(full: bool) -> (Disk, RedbStore, History) {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    let mut history = History::new();
    for _ in 0..12 {
        let txn = history.next();
        assert_committed(&store.txn(txn.clone()).await);
        history.done(txn);
    }
    if full {
        let rest = vec![5; JOURNAL_BYTES.try_into().unwrap()];
        let txn = Txn::new().put(Name::Outbox(9).key(), rest);
        assert_committed(&store.txn(txn.clone()).await);
        apply(&mut history.rows, txn);
    }
    disk.take_record();
    (disk, store, history)
}

/// The next transaction, and one for which the file has to grow.
fn small_and_large(history: &History, bytes: usize) -> [Txn; 2] {
    let large = Name::Object(keyturn_vault::digest::Digest([3; 32])).key();
    let grow = history.next().put(large, vec![3; bytes]);
    [history.next(), grow]
}

/// Invariant 5: nothing changes, reads go on, no crash brings it to life, and it can be sent again.
#[tokio::test]
async fn a_full_or_read_only_disk_refuses_and_recovers() {
    let mut refusals = 0;
    for (call, errno, want, sizes) in [
        (Call::Write, Errno::NOSPC, Refused::NoSpace, 0..2),
        (Call::Write, Errno::DQUOT, Refused::NoSpace, 0..1),
        (Call::Write, Errno::FBIG, Refused::NoSpace, 0..1),
        (Call::Write, Errno::ROFS, Refused::ReadOnly, 0..2),
        (Call::SetLen, Errno::NOSPC, Refused::NoSpace, 1..2),
        (Call::SetLen, Errno::ROFS, Refused::ReadOnly, 1..2),
    ] {
        for (which, full) in sizes.flat_map(|which| [(which, false), (which, true)]) {
            let mut refused_here = 0;
            for spare in 0.. {
                let (disk, store, mut history) = started(full).await;
                let txn = small_and_large(&history, OVER_BUFFER)
                    .into_iter()
                    .nth(which)
                    .unwrap();
                let before = disk.bytes();
                disk.fail(call, spare, errno);
                let outcome = store.txn(txn.clone()).await;
                if outcome.is_ok() {
                    break;
                }
                let why = format!("{call:?} {spare} {errno} {which} {full}");
                let refused = StoreError::NotApplied(want.clone());
                assert_eq!(outcome, Err(refused.clone()), "{why}");
                // A probe needs no more room in the file, but it does write.
                if call == Call::Write {
                    assert_eq!(store.probe().await, Err(refused), "{why}: still refused");
                }

                let mut cut = PowerCut::new(before);
                disk.take_record()
                    .iter()
                    .for_each(|event| cut.follow(event));
                for loss in [Loss::All, Loss::Torn, Loss::None] {
                    let image = open(&cut.image(loss, &mut Dice(7 + spare))).unwrap();
                    assert_eq!(rows(&image).await, history.rows, "{why} {loss:?}");
                }
                disk.heal();
                store.probe().await.unwrap();
                assert_committed(&store.txn(Txn::new().delete(Name::Probe.key())).await);
                assert_eq!(rows(&store).await, history.rows, "{why}: nothing changed");
                assert_committed(&store.txn(txn.clone()).await);
                history.done(txn);
                assert_eq!(rows(&store).await, history.rows, "{why}: sent again");
                refused_here += 1;
            }
            assert!(refused_here > 0, "{call:?} {errno} {which} {full}");
            refusals += refused_here;
        }
    }
    println!("{refusals} refusals");
}

/// Reads go on while changes are refused, once the engine could be opened again.
#[tokio::test]
async fn reads_go_on_when_the_disk_is_full() {
    let (disk, store, history) = started(false).await;
    let [_, grow] = small_and_large(&history, OVER_BUFFER);
    disk.fail(Call::SetLen, 0, Errno::NOSPC);
    let refused = StoreError::NotApplied(Refused::NoSpace);
    assert_eq!(store.txn(grow).await, Err(refused));
    assert_eq!(rows(&store).await, history.rows);
}

/// Invariant 6: nothing more is said, and nothing more is written.
#[tokio::test]
async fn a_failed_sync_or_journal_ends_the_store() {
    let mut ends = 0;
    for (call, errno) in [
        (Call::Sync, Errno::IO),
        (Call::Sync, Errno::NOSPC),
        (Call::Sync, Errno::ROFS),
        (Call::Write, Errno::IO),
    ] {
        // With a full journal the rows are written first, and what fails there is told as what it is.
        let full = call == Call::Sync;
        for (which, full) in [(0, false), (1, false), (0, full), (1, full)] {
            for spare in 0.. {
                let (disk, store, mut history) = started(full).await;
                let txn = small_and_large(&history, WITHIN_BUFFER)
                    .into_iter()
                    .nth(which)
                    .unwrap();
                let before = disk.bytes();
                disk.fail(call, spare, errno);
                let outcome = store.txn(txn.clone()).await;
                if outcome.is_ok() {
                    break;
                }
                let why = format!("{call:?} {spare} {errno} {which} {full}");
                let indeterminate = matches!(outcome, Err(StoreError::Indeterminate(_)));
                assert!(indeterminate, "{why}: {outcome:?}");
                disk.heal();
                let mut cut = PowerCut::new(before);
                disk.take_record()
                    .iter()
                    .for_each(|event| cut.follow(event));
                for _ in 0..2 {
                    let after = store.probe().await;
                    assert!(matches!(after, Err(StoreError::Indeterminate(_))), "{why}");
                    let after = store.get(&Name::Head.key()).await;
                    assert!(matches!(after, Err(StoreError::Indeterminate(_))), "{why}");
                }
                store.close().await;
                let record = disk.take_record();
                assert!(record.is_empty(), "{why}: written after: {record:?}");

                let without = history.rows.clone();
                history.done(txn);
                for loss in [Loss::All, Loss::Torn, Loss::None] {
                    let image = open(&cut.image(loss, &mut Dice(3 + spare))).unwrap();
                    let held = rows(&image).await;
                    assert!(held == without || held == history.rows, "{why} {loss:?}");
                }
                ends += 1;
            }
        }
    }
    assert!(ends >= 20, "only {ends}");
}

/// When the rows cannot be written, or give no room back, nothing acknowledged is lost: the journal has it. The
/// store goes on when the disk does.
#[tokio::test]
async fn a_failure_of_the_rows_loses_nothing() {
    let object = |n| Name::Object(keyturn_vault::digest::Digest([n; 32])).key();
    let mut failures = 0;
    for (call, errno) in [(Call::Write, Errno::IO), (Call::SetLen, Errno::ROFS)] {
        for spare in 0.. {
            let (disk, store, mut history) = started(false).await;
            // What is deleted makes the file shorter when it is made durable.
            for large in (0..8).map(|n| Txn::new().put(object(n), vec![n; WITHIN_BUFFER])) {
                assert_committed(&store.txn(large.clone()).await);
                apply(&mut history.rows, large);
            }
            let before = disk.bytes();
            disk.take_record();
            disk.fail(call, spare, errno);
            let mut failed = false;
            let mut unknown = false;
            for n in 0..8 {
                let txn = Txn::new()
                    .delete(object(n))
                    .put(object(n + 100), vec![n; WITHIN_BUFFER / 4]);
                match store.txn(txn.clone()).await {
                    Ok(_) => apply(&mut history.rows, txn),
                    Err(StoreError::NotApplied(_)) => failed = true,
                    // The journal itself could not be written.
                    Err(StoreError::Indeterminate(_)) if call == Call::Write => unknown = true,
                    other @ Err(_) => panic!("{call:?} {spare}: {other:?}"),
                }
                if unknown {
                    break;
                }
            }
            disk.heal();
            if !unknown {
                assert_committed(&store.txn(Txn::new().delete(Name::Probe.key())).await);
                assert_eq!(rows(&store).await, history.rows, "{call:?} {spare}");
            }
            let mut cut = PowerCut::new(before);
            for event in disk.take_record() {
                cut.follow(&event);
            }
            for loss in [Loss::All, Loss::Torn, Loss::None] {
                let image = open(&cut.image(loss, &mut Dice(5 + spare))).unwrap();
                let held = rows(&image).await;
                assert!(unknown || held == history.rows, "{call:?} {spare} {loss:?}");
            }
            if !failed && !unknown {
                break;
            }
            failures += u64::from(failed);
        }
    }
    assert!(failures > 2, "only {failures}");
}

/// A read that fails says so; when the disk is well again, so is the store.
#[tokio::test]
async fn a_failed_read_is_not_for_ever() {
    let (disk, store, mut history) = started(false).await;
    // More than the cache holds, so that reading all of it must read the disk.
    for n in 0..20 {
        let large = Txn::new().put(Name::Outbox(1_000 + n).key(), vec![1; CACHE_BYTES / 10]);
        assert_committed(&store.txn(large.clone()).await);
        apply(&mut history.rows, large);
    }
    disk.fail(Call::Read, 0, Errno::IO);
    let mut failed = Ok(());
    for key in history.rows.keys() {
        failed = failed.and(store.get(key).await.map(drop));
    }
    for failed in [failed, store.probe().await] {
        let unavailable = matches!(failed, Err(StoreError::NotApplied(Refused::Unavailable(_))));
        assert!(unavailable, "{failed:?}");
    }
    disk.heal();
    store.probe().await.unwrap();
    assert_committed(&store.txn(Txn::new().delete(Name::Probe.key())).await);
    assert_eq!(rows(&store).await, history.rows);
}

/// A store whose daemon was killed needs mending when it is opened.
#[tokio::test]
async fn opening_on_a_failing_disk_says_why() {
    let (disk, store, history) = started(false).await;
    let killed = disk.bytes();
    store.close().await;
    for (why, call, errno, want) in [
        ("full", Call::Write, Errno::NOSPC, "no space"),
        ("read-only", Call::Write, Errno::ROFS, "read-only"),
        (
            "cannot sync",
            Call::Sync,
            Errno::IO,
            "failed to make changes durable",
        ),
        ("cannot read", Call::Read, Errno::IO, "cannot be opened"),
    ] {
        let disk = Disk::with(killed.clone());
        disk.fail(call, 0, errno);
        let error = open(&disk)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains(want), "{why}: {error}");
        disk.heal();
        assert_eq!(rows(&open(&disk).unwrap()).await, history.rows, "{why}");
    }
}
