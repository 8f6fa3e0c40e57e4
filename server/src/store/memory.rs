//! A store in memory: the simplest thing that keeps the contract, for tests and as the model of the others.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use super::{
    Key, KeyRange, Limits, Name, Op, Outcome, Page, PageBuilder, Rev, Row, Snapshot, Store,
    StoreError, Txn, format_row,
};

type Rows = BTreeMap<Key, (Vec<u8>, Rev)>;

pub(crate) struct MemoryStore(Mutex<(Rows, Rev)>);

impl MemoryStore {
    pub(crate) fn new() -> Self {
        let format = (Name::Format.key(), (format_row(), Rev(1)));
        Self(Mutex::new((Rows::from([format]), Rev(1))))
    }
}

fn row(rows: &Rows, key: &Key) -> Option<Row> {
    let (value, rev) = rows.get(key)?;
    Some(Row {
        key: key.clone(),
        value: value.clone(),
        rev: *rev,
    })
}

fn page_back(rows: &Rows, rev: Rev, range: &KeyRange, limit: usize) -> Page {
    let mut page = PageBuilder::new(limit);
    let keys = rows.keys().rev();
    let mut within = keys.filter(|key| range.contains(key)).peekable();
    while let Some(key) = within.next_if(|_| !page.is_full()) {
        page.push(row(rows, key).unwrap());
    }
    let more = within.peek().is_some();
    let last = page.rows.last().filter(|_| more);
    Page {
        rest: last.map(|last| range.before(&last.key)),
        rows: page.rows,
        rev,
    }
}

fn page(rows: &Rows, rev: Rev, range: &KeyRange, limit: usize) -> Page {
    let mut page = PageBuilder::new(limit);
    let mut within = rows.keys().filter(|key| range.contains(key)).peekable();
    while let Some(key) = within.next_if(|_| !page.is_full()) {
        page.push(row(rows, key).unwrap());
    }
    let more = within.peek().is_some();
    let last = page.rows.last().filter(|_| more);
    Page {
        rest: last.map(|last| range.after(&last.key)),
        rows: page.rows,
        rev,
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn limits(&self) -> Limits {
        Limits::PORTABLE
    }

    async fn get(&self, key: &Key) -> Result<Option<(Vec<u8>, Rev)>, StoreError> {
        Ok(self.0.lock().unwrap().0.get(key).cloned())
    }

    async fn range(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError> {
        let (rows, rev) = &*self.0.lock().unwrap();
        Ok(page(rows, *rev, range, limit))
    }

    async fn range_back(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError> {
        let (rows, rev) = &*self.0.lock().unwrap();
        Ok(page_back(rows, *rev, range, limit))
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check(self.limits()).map_err(StoreError::Invalid)?;
        let (rows, newest) = &mut *self.0.lock().unwrap();
        let held: Vec<_> = txn.when.iter().map(|when| row(rows, &when.key)).collect();
        let rev_of = |row: &Option<Row>| row.as_ref().map_or(Rev::ABSENT, |row| row.rev);
        if held
            .iter()
            .zip(&txn.when)
            .any(|(row, when)| rev_of(row) != when.rev)
        {
            return Ok(Outcome::Conflict(held));
        }
        if !txn.then.is_empty() {
            newest.0 += 1;
        }
        for op in txn.then {
            match op {
                Op::Put(key, value) => rows.insert(key, (value, *newest)),
                Op::Delete(key) => rows.remove(&key),
            };
        }
        Ok(Outcome::Committed(*newest))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let (rows, rev) = self.0.lock().unwrap().clone();
        let rest = Some(KeyRange::all());
        Ok(Box::new(MemorySnapshot { rows, rev, rest }))
    }
}

struct MemorySnapshot {
    rows: Rows,
    rev: Rev,
    rest: Option<KeyRange>,
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn rev(&self) -> Rev {
        self.rev
    }

    async fn next(&mut self) -> Result<Vec<Row>, StoreError> {
        let Some(range) = self.rest.take() else {
            return Ok(Vec::new());
        };
        let page = page(&self.rows, self.rev, &range, usize::MAX);
        self.rest = page.rest;
        Ok(page.rows)
    }
}
