//! The contract of [`super`] as one suite for every engine.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::memory::MemoryStore;
use super::*;

/// Runs every case over a fresh store that `make` gives.
pub(crate) async fn conformance(make: impl Fn() -> Box<dyn Store>) {
    rows_come_and_go(make().as_ref()).await;
    compares_hold_or_conflict(make().as_ref()).await;
    a_conflict_changes_nothing(make().as_ref()).await;
    revisions_never_return(make().as_ref()).await;
    pages_cover_a_range(make().as_ref()).await;
    pages_cover_a_range_backwards(make().as_ref()).await;
    pages_end_by_bytes(make().as_ref()).await;
    bounds_are_kept(make().as_ref()).await;
    a_snapshot_stands_still(make().as_ref()).await;
    no_append_is_lost(make().into()).await;
    the_probe_commits(make().as_ref()).await;
    for seed in 1..=8 {
        random_transactions_match_the_model(make().as_ref(), seed).await;
    }
}

fn key(text: &str) -> Key {
    Key::from_bytes(text)
}

pub(crate) fn committed(outcome: Result<Outcome, StoreError>) -> Rev {
    match outcome {
        Ok(Outcome::Committed(rev)) => rev,
        other => panic!("not committed: {other:?}"),
    }
}

fn conflict(outcome: Result<Outcome, StoreError>) -> Vec<Option<Row>> {
    match outcome {
        Ok(Outcome::Conflict(held)) => held,
        other => panic!("no conflict: {other:?}"),
    }
}

async fn rows_come_and_go(store: &dyn Store) {
    let format = store.get(&Name::Format.key()).await.unwrap();
    let format = format.map(|(value, _)| check_format(Some(&value)));
    assert_eq!(format, Some(Ok(())), "a fresh store says its format");
    assert_eq!(store.get(&key("t/a")).await.unwrap(), None);
    let both = Txn::new().put(key("t/a"), *b"1").put(key("t/b"), *b"2");
    let rev = committed(store.txn(both).await);
    assert!(rev > Rev::ABSENT);
    for (name, want) in [("t/a", b"1"), ("t/b", b"2")] {
        let held = store.get(&key(name)).await.unwrap();
        assert_eq!(held, Some((want.to_vec(), rev)), "one revision for both");
    }
    let change = Txn::new().put(key("t/a"), *b"3").delete(key("t/b"));
    let later = committed(store.txn(change).await);
    assert!(later > rev, "invariant 3");
    let held = store.get(&key("t/a")).await.unwrap();
    assert_eq!(held, Some((b"3".to_vec(), later)));
    assert_eq!(store.get(&key("t/b")).await.unwrap(), None);
    committed(store.txn(Txn::new().delete(key("t/never"))).await);
}

async fn compares_hold_or_conflict(store: &dyn Store) {
    let old = committed(store.txn(Txn::new().put(key("t/a"), *b"1")).await);
    let new = committed(store.txn(Txn::new().put(key("t/a"), *b"2")).await);
    let never = Rev(new.0 + 1_000);
    for (why, name, rev, holds) in [
        ("as seen", "t/a", new, true),
        ("changed since", "t/a", old, false),
        ("from nowhere", "t/a", never, false),
        ("there, not absent", "t/a", Rev::ABSENT, false),
        ("absent", "t/none", Rev::ABSENT, true),
        ("absent, not there", "t/none", new, false),
    ] {
        let asked = store.txn(Txn::new().when(key(name), rev)).await;
        if holds {
            assert!(committed(asked) >= new, "{why}");
        } else {
            let held = store.get(&key(name)).await.unwrap();
            let held = held.map(|(value, rev)| Row {
                key: key(name),
                value,
                rev,
            });
            assert_eq!(conflict(asked), [held], "{why}");
        }
    }
    let (_, rev) = store.get(&key("t/a")).await.unwrap().unwrap();
    assert_eq!(rev, new, "asking changes nothing");
}

/// Invariants 1 and 4.
async fn a_conflict_changes_nothing(store: &dyn Store) {
    let rev = committed(store.txn(Txn::new().put(key("t/a"), *b"1")).await);
    let txn = Txn::new()
        .when(key("t/none"), Rev::ABSENT)
        .when(key("t/a"), Rev(rev.0 + 1))
        .put(key("t/none"), *b"x")
        .delete(key("t/a"));
    let held = Row {
        key: key("t/a"),
        value: b"1".to_vec(),
        rev,
    };
    assert_eq!(conflict(store.txn(txn).await), [None, Some(held)]);
    assert_eq!(store.get(&key("t/none")).await.unwrap(), None);
    assert!(store.get(&key("t/a")).await.unwrap().is_some());
}

/// Invariant 3: a row that was removed and made again is not the one that was seen.
async fn revisions_never_return(store: &dyn Store) {
    let put = || Txn::new().put(key("t/a"), *b"1");
    let first = committed(store.txn(put()).await);
    committed(store.txn(Txn::new().delete(key("t/a"))).await);
    let second = committed(store.txn(put()).await);
    assert!(second > first);
    conflict(store.txn(Txn::new().when(key("t/a"), first)).await);
}

async fn pages_cover_a_range(store: &dyn Store) {
    let names = ["r/a", "r/aa", "r/b", "r/c", "s"];
    let txn = names
        .iter()
        .fold(Txn::new(), |txn, name| txn.put(key(name), name.as_bytes()));
    committed(store.txn(txn).await);
    let part = |start: &str, end: &str| KeyRange {
        start: key(start),
        end: Some(key(end)),
    };
    let prefix = KeyRange::prefix("r/");
    for (why, range, want) in [
        ("prefix", prefix, ["r/a", "r/aa", "r/b", "r/c"].as_slice()),
        (
            "one key and longer ones",
            KeyRange::prefix("r/a"),
            &["r/a", "r/aa"],
        ),
        ("without the end", part("r/aa", "r/c"), &["r/aa", "r/b"]),
        ("nothing there", part("r/d", "r/e"), &[]),
        ("empty", part("r/b", "r/b"), &[]),
        ("end before start", part("r/c", "r/a"), &[]),
    ] {
        for limit in [0, 1, 2, 3, usize::MAX] {
            let mut seen = Vec::new();
            let mut rest = Some(range.clone());
            while let Some(range) = rest {
                let page = store.range(&range, limit).await.unwrap();
                assert!(page.rows.len() <= limit.max(1), "{why}");
                assert!(page.rest.is_none() || !page.rows.is_empty(), "{why}");
                seen.extend(page.rows.into_iter().map(|row| row.value));
                rest = page.rest;
            }
            let want: Vec<_> = want.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(seen, want, "{why}, by {limit}");
        }
    }
}

async fn pages_cover_a_range_backwards(store: &dyn Store) {
    let names = ["r/a", "r/aa", "r/b", "r/c", "s", "q"];
    let txn = names
        .iter()
        .fold(Txn::new(), |txn, name| txn.put(key(name), name.as_bytes()));
    committed(store.txn(txn).await);
    let part = |start: &str, end: &str| KeyRange {
        start: key(start),
        end: Some(key(end)),
    };
    let endless = KeyRange {
        start: key("r/b"),
        end: None,
    };
    let prefix = KeyRange::prefix("r/");
    let before = prefix.before(&key("r/b"));
    for (why, range, want) in [
        ("prefix", prefix, ["r/c", "r/b", "r/aa", "r/a"].as_slice()),
        ("before a key", before, &["r/aa", "r/a"]),
        ("without the end", part("r/aa", "r/c"), &["r/b", "r/aa"]),
        ("to the last key", endless, &["s", "r/c", "r/b"]),
        ("nothing there", part("r/d", "r/e"), &[]),
        ("empty", part("r/b", "r/b"), &[]),
        ("end before start", part("r/c", "r/a"), &[]),
    ] {
        for limit in [0, 1, 2, 3, usize::MAX] {
            let mut seen = Vec::new();
            let mut rest = Some(range.clone());
            while let Some(range) = rest {
                let page = store.range_back(&range, limit).await.unwrap();
                assert!(page.rows.len() <= limit.max(1), "{why}");
                assert!(page.rest.is_none() || !page.rows.is_empty(), "{why}");
                seen.extend(page.rows.into_iter().map(|row| row.value));
                rest = page.rest;
            }
            let want: Vec<_> = want.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(seen, want, "{why}, by {limit}");
        }
    }
}

async fn pages_end_by_bytes(store: &dyn Store) {
    for n in 0..5 {
        let big = vec![n; MAX_PAGE_BYTES / 2 + 1];
        committed(store.txn(Txn::new().put(key(&format!("b/{n}")), big)).await);
    }
    let mut pages = Vec::new();
    let mut rest = Some(KeyRange::prefix("b/"));
    while let Some(range) = rest {
        let page = store.range(&range, 1_000).await.unwrap();
        pages.push(page.rows.len());
        rest = page.rest;
    }
    assert_eq!(pages, [2, 2, 1]);
}

/// Invariant 7.
async fn bounds_are_kept(store: &dyn Store) {
    let most = store.limits();
    assert!(most.operations >= Limits::PORTABLE.operations && most.bytes >= Limits::PORTABLE.bytes);
    let puts = |count: usize| {
        (0..count).fold(Txn::new(), |txn, n| {
            txn.put(key(&format!("m/{n:08}")), *b"1")
        })
    };
    let full = |bytes: usize| Txn::new().put(key("m"), vec![1; bytes - 1]);
    let long = Key::from_bytes(vec![b'k'; MAX_KEY_BYTES + 1]);
    let many = puts(most.operations).when(key("t"), Rev::ABSENT);
    let twice = Txn::new().put(key("t"), *b"1").delete(key("t"));
    for (why, txn, valid) in [
        ("as many as may be", puts(most.operations), true),
        ("one too many", many, false),
        ("as big as may be", full(most.bytes), true),
        ("a byte too big", full(most.bytes + 1), false),
        ("a key twice", twice, false),
        ("no key", Txn::new().delete(key("")), false),
        ("a long key", Txn::new().when(long, Rev::ABSENT), false),
        ("no format byte", Txn::new().put(key("t"), []), false),
    ] {
        match store.txn(txn).await {
            Ok(Outcome::Committed(_)) => assert!(valid, "{why}"),
            Err(StoreError::Invalid(_)) => assert!(!valid, "{why}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    assert_eq!(store.get(&key("t")).await.unwrap(), None);
}

async fn a_snapshot_stands_still(store: &dyn Store) {
    let many: Vec<_> = (0..=MAX_PAGE_ROWS * 2).collect();
    for some in many.chunks(Limits::PORTABLE.operations) {
        let txn = some.iter().fold(Txn::new(), |txn, n| {
            txn.put(key(&format!("s/{n:08}")), *b"before")
        });
        committed(store.txn(txn).await);
    }
    let mut snapshot = store.snapshot().await.unwrap();
    let mut rows = snapshot.next().await.unwrap();
    let change = Txn::new()
        .put(key("s/00000000"), *b"after")
        .put(key("s/99999999"), *b"after")
        .delete(key("s/00002000"));
    assert!(committed(store.txn(change).await) > snapshot.rev());
    loop {
        let page = snapshot.next().await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= MAX_PAGE_ROWS);
        rows.extend(page);
    }
    assert!(rows.is_sorted_by(|a, b| a.key < b.key), "each key once");
    assert!(rows.iter().all(|row| row.rev <= snapshot.rev()));
    rows.retain(|row| row.key.as_bytes().starts_with(b"s/"));
    assert_eq!(rows.len(), many.len());
    assert!(rows.iter().all(|row| row.value == b"before"));
    assert!(snapshot.next().await.unwrap().is_empty(), "the end stays");
}

/// Invariants 2 to 4, with several callers who append under one head as the log does.
async fn no_append_is_lost(store: Arc<dyn Store>) {
    const CALLERS: u64 = 8;
    const APPENDS: u64 = 40;
    let callers = (0..CALLERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..APPENDS {
                append(store.as_ref()).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let all = KeyRange::family(key::Family::Entry);
    let page = store.range(&all, MAX_PAGE_ROWS).await.unwrap();
    let seen: Vec<_> = page.rows.iter().map(|row| row.key.clone()).collect();
    let want: Vec<_> = (0..CALLERS * APPENDS)
        .map(|n| Name::Entry(n).key())
        .collect();
    assert_eq!(seen, want);
}

async fn append(store: &dyn Store) {
    let mut head = store.get(&Name::Head.key()).await.unwrap();
    loop {
        let (size, rev) = match &head {
            Some((value, rev)) => (u64::from_be_bytes(value[1..].try_into().unwrap()), *rev),
            None => (0, Rev::ABSENT),
        };
        let next = [[1].as_slice(), &(size + 1).to_be_bytes()].concat();
        let txn = Txn::new()
            .when(Name::Head.key(), rev)
            .put(Name::Head.key(), next)
            .put(Name::Entry(size).key(), *b"entry");
        match store.txn(txn).await.unwrap() {
            Outcome::Committed(_) => return,
            Outcome::Conflict(held) => {
                let held = held.into_iter().next().unwrap();
                head = held.map(|row| (row.value, row.rev));
            }
        }
    }
}

async fn the_probe_commits(store: &dyn Store) {
    for _ in 0..2 {
        store.probe().await.unwrap();
    }
    assert!(store.get(&Name::Probe.key()).await.unwrap().is_some());
}

/// A few bits that look random and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The same transactions on the store and on the model; only their revisions may have other numbers.
async fn random_transactions_match_the_model(store: &dyn Store, seed: u64) {
    let model = MemoryStore::new();
    let mut dice = Dice(seed);
    let mut revs = BTreeMap::from([(Rev::ABSENT, Rev::ABSENT)]);
    for step in 0..150 {
        let mut ours = Txn::new();
        let mut theirs = Txn::new();
        for _ in 0..dice.below(3) {
            let at = usize::try_from(dice.below(4)).unwrap();
            let (model_rev, store_rev) = revs.iter().rev().nth(at).unwrap_or((&Rev(0), &Rev(0)));
            let compared = key(&format!("x/{}", dice.below(5)));
            let current = model
                .get(&compared)
                .await
                .unwrap()
                .map_or(Rev(0), |held| held.1);
            let model_rev = if dice.below(4) > 0 {
                &current
            } else {
                model_rev
            };
            let store_rev = revs.get(model_rev).unwrap_or(store_rev);
            ours = ours.when(compared.clone(), *model_rev);
            theirs = theirs.when(compared, *store_rev);
        }
        let start = dice.below(5);
        for n in 0..dice.below(4) {
            let changed = key(&format!("x/{}", (start + n) % 5));
            let value = format!("{seed} {step} {n}");
            let op = match dice.below(3) {
                0 => Op::Delete(changed),
                _ => Op::Put(changed, value.into_bytes()),
            };
            ours.then.push(op.clone());
            theirs.then.push(op);
        }
        match (
            model.txn(ours).await.unwrap(),
            store.txn(theirs).await.unwrap(),
        ) {
            (Outcome::Committed(model), Outcome::Committed(store)) => {
                revs.entry(model).or_insert(store);
            }
            (Outcome::Conflict(model), Outcome::Conflict(store)) => same(&model, &store, &revs),
            other => panic!("seed {seed}, step {step}: {other:?}"),
        }
        let range = KeyRange::prefix("x/");
        let model = model.range(&range, 10).await.unwrap().rows;
        let store = store.range(&range, 10).await.unwrap().rows;
        let some = |rows: Vec<Row>| rows.into_iter().map(Some).collect::<Vec<_>>();
        same(&some(model), &some(store), &revs);
    }
    assert!(revs.len() > 50, "most transactions commit");
}

fn same(model: &[Option<Row>], store: &[Option<Row>], revs: &BTreeMap<Rev, Rev>) {
    let expected = model.iter().map(|row| {
        row.clone().map(|row| Row {
            rev: revs[&row.rev],
            ..row
        })
    });
    assert_eq!(expected.collect::<Vec<_>>(), store);
}

#[tokio::test]
async fn the_model_keeps_the_contract() {
    conformance(|| Box::new(MemoryStore::new())).await;
}

#[test]
fn formats() {
    let of = |number: u32| [b"\x01keyturn store ".as_slice(), &number.to_be_bytes()].concat();
    for (why, value, want) in [
        ("what we write", Some(format_row()), Ok(())),
        ("as documented", Some(of(1)), Ok(())),
        ("newer", Some(of(2)), Err(FormatError::Newer(2))),
        ("none", None, Err(FormatError::Foreign)),
        ("zero", Some(of(0)), Err(FormatError::Foreign)),
        (
            "longer",
            Some([of(1), vec![0]].concat()),
            Err(FormatError::Foreign),
        ),
        (
            "something else",
            Some(b"other".to_vec()),
            Err(FormatError::Foreign),
        ),
    ] {
        assert_eq!(check_format(value.as_deref()), want, "{why}");
    }
}
