//! The writer: gathers transactions that wait and commits them with one `fsync`.

use std::sync::Arc;

use ::redb::{Database, Durability, Error, ReadableTable, Table};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::engine::{Engine, META, REVISION, ROWS, decode_row, encode_row, open_error, row_in};
use super::watch::Verdict;
use super::{LIMITS, OpenError, Shared, State};
use crate::store::{Op, Outcome, Refused, Rev, StoreError, Txn};

/// Room that must be left before a commit is tried, so that a full disk is noticed while the engine is whole.
const RESERVE_BYTES: u64 = 1 << 20;

/// What a change may cost beside its bytes: the pages above it are written anew.
const RESERVE_BYTES_PER_OPERATION: u64 = 8 << 10;

/// A transaction and who waits for it.
pub(super) struct Job {
    pub(super) txn: Txn,
    pub(super) reply: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Transactions that are committed together, and how much they hold.
#[derive(Default)]
struct Group {
    txns: Vec<Txn>,
    replies: Vec<oneshot::Sender<Result<Outcome, StoreError>>>,
    operations: usize,
    bytes: usize,
}

impl Group {
    fn push(&mut self, job: Job) {
        self.operations = self.operations.saturating_add(job.txn.operations());
        self.bytes = self.bytes.saturating_add(job.txn.bytes());
        self.txns.push(job.txn);
        self.replies.push(job.reply);
    }

    fn is_full(&self) -> bool {
        self.operations >= LIMITS.operations || self.bytes >= LIMITS.bytes
    }

    /// Room that its commit may take, reckoned generously.
    fn room(&self) -> u64 {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let pages = wide(self.operations).saturating_mul(RESERVE_BYTES_PER_OPERATION);
        let bytes = wide(self.bytes).saturating_mul(2);
        RESERVE_BYTES.saturating_add(pages).saturating_add(bytes)
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    /// The newest revision that was answered.
    last: Rev,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, queue: Receiver<Job>, last: Rev) -> Self {
        Self {
            shared,
            queue,
            last,
        }
    }

    /// Runs until the store is dropped and nothing waits any more.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut group = Group::default();
            group.push(first);
            while !group.is_full()
                && let Ok(next) = self.queue.try_recv()
            {
                group.push(next);
            }
            let result = self.commit(&group);
            answer(group.replies, result);
        }
    }

    fn commit(&mut self, group: &Group) -> Result<Vec<Outcome>, StoreError> {
        self.revive(group)?;
        let failed = match &*self.shared.read() {
            State::Open(engine) => {
                engine.watch.begin();
                match apply(&engine.db, &group.txns) {
                    Ok((outcomes, rev)) => {
                        self.last = rev;
                        return Ok(outcomes);
                    }
                    Err(Failed::Before(error)) => (engine.watch.verdict(), false, error),
                    Err(Failed::During(error)) => (engine.watch.verdict(), true, error),
                }
            }
            State::Closed(refused) => return Err(StoreError::NotApplied(refused.clone())),
            State::Unknown(why) => return Err(StoreError::Indeterminate(why.clone())),
        };
        Err(match failed {
            (Verdict::Refused(refused), _, _) => self.close(refused),
            (Verdict::Other, false, error) => self.close(Refused::Unavailable(error.to_string())),
            (Verdict::SyncFailed, _, error) | (Verdict::Other, true, error) => {
                self.give_up(error.to_string())
            }
        })
    }

    /// Looks for room, and opens the engine again if it was closed.
    fn revive(&mut self, group: &Group) -> Result<(), StoreError> {
        let not_applied = |refused| Err(StoreError::NotApplied(refused));
        match (self.shared.source.room)() {
            Ok(room) if room.read_only => return not_applied(Refused::ReadOnly),
            Ok(room) if room.free_bytes < group.room() => return not_applied(Refused::NoSpace),
            Ok(_) => {}
            Err(error) => return not_applied(Refused::Unavailable(error.to_string())),
        }
        if matches!(*self.shared.read(), State::Closed(_)) {
            self.reopen()?;
        }
        Ok(())
    }

    /// The engine refuses everything after a failed write: opens it anew, so that reads go on.
    fn close(&mut self, refused: Refused) -> StoreError {
        let closed = State::Closed(refused.clone());
        let before = std::mem::replace(&mut *self.shared.write(), closed);
        drop(before);
        match self.reopen() {
            Err(unknown @ StoreError::Indeterminate(_)) => unknown,
            _ => StoreError::NotApplied(refused),
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let opened = Engine::open(&self.shared.source).and_then(|engine| {
            let view = engine.view().map_err(open_error)?;
            Ok((view.rev, engine))
        });
        match opened {
            Ok((rev, engine)) if rev == self.last => {
                *self.shared.write() = State::Open(engine);
                Ok(())
            }
            Ok((rev, engine)) => {
                let why = format!(
                    "it was opened anew at revision {}, but {} was the last one answered",
                    rev.0, self.last.0
                );
                drop(engine);
                Err(self.give_up(why))
            }
            Err(OpenError::SyncFailed) => Err(self.give_up(OpenError::SyncFailed.to_string())),
            Err(OpenError::Refused(refused)) => Err(StoreError::NotApplied(refused)),
            Err(error) => Err(StoreError::NotApplied(Refused::Unavailable(
                error.to_string(),
            ))),
        }
    }

    /// Nothing more is said but that nobody knows.
    fn give_up(&mut self, why: String) -> StoreError {
        // redb writes nothing more when it is dropped after a failure.
        *self.shared.write() = State::Unknown(why.clone());
        StoreError::Indeterminate(why)
    }
}

fn answer(
    replies: Vec<oneshot::Sender<Result<Outcome, StoreError>>>,
    result: Result<Vec<Outcome>, StoreError>,
) {
    // Who has stopped waiting is not told; the outcome stands.
    match result {
        Ok(outcomes) => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

/// Where the engine failed: before it could have changed anything, or during the commit.
enum Failed {
    Before(Error),
    During(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Before(error.into())
    }
}

/// Steps all transactions in order and makes them durable at once. Gives their outcomes and the revision
/// that the store has then.
fn apply(db: &Database, txns: &[Txn]) -> Result<(Vec<Outcome>, Rev), Failed> {
    let mut write = db.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    let mut outcomes = Vec::with_capacity(txns.len());
    let (before, after) = {
        let mut rows = write.open_table(ROWS)?;
        let mut meta = write.open_table(META)?;
        let before = meta.get(REVISION)?.map_or(0, |rev| rev.value());
        let mut rev = Rev(before);
        for txn in txns {
            outcomes.push(step(&mut rows, txn, &mut rev)?);
        }
        if rev != Rev(before) {
            meta.insert(REVISION, rev.0)?;
        }
        (Rev(before), rev)
    };
    if after == before {
        write.abort()?;
    } else {
        write
            .commit()
            .map_err(|error| Failed::During(error.into()))?;
    }
    Ok((outcomes, after))
}

fn step(
    rows: &mut Table<'_, &'static [u8], &'static [u8]>,
    txn: &Txn,
    rev: &mut Rev,
) -> Result<Outcome, Error> {
    let mut holds = true;
    for compare in &txn.when {
        let held = rows.get(compare.key.as_bytes())?;
        let held = held.map(|held| decode_row(held.value()).map(|(rev, _)| rev));
        holds &= held.transpose()?.unwrap_or(Rev::ABSENT) == compare.rev;
    }
    if !holds {
        let held = txn.when.iter().map(|compare| row_in(rows, &compare.key));
        return Ok(Outcome::Conflict(held.collect::<Result<_, _>>()?));
    }
    if txn.then.is_empty() {
        return Ok(Outcome::Committed(*rev));
    }
    let next = rev.0.checked_add(1);
    *rev = Rev(next.ok_or_else(|| Error::Corrupted("revisions are used up".into()))?);
    for op in &txn.then {
        match op {
            Op::Put(key, value) => {
                let row = encode_row(*rev, value);
                rows.insert(key.as_bytes(), row.as_slice())?;
            }
            Op::Delete(key) => {
                rows.remove(key.as_bytes())?;
            }
        }
    }
    Ok(Outcome::Committed(*rev))
}
