//! The writer: one transaction, one commit, one `fsync`; and what a failure of it means.

use std::sync::Arc;

use ::redb::{Database, Durability, Error, ReadableTable, Table};

use super::engine::{Engine, META, REVISION, ROWS, decode_row, encode_row, open_error, row_in};
use super::watch::Verdict;
use super::{OpenError, Shared, State};
use crate::store::{Op, Outcome, Refused, Rev, StoreError, Txn};

/// Room that must be left before a commit is tried, so that a full disk is noticed while the engine is whole.
const RESERVE_BYTES: u64 = 1 << 20;

/// What a change may cost beside its bytes: the pages above it are written anew.
const RESERVE_BYTES_PER_OPERATION: u64 = 8 << 10;

/// Commits, one after the other.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The newest revision that was answered.
    last: Rev,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, last: Rev) -> Self {
        Self { shared, last }
    }

    /// Commits; durable when it returns.
    pub(super) fn commit(&mut self, txn: &Txn) -> Result<Outcome, StoreError> {
        self.revive(txn)?;
        let failed = match &*self.shared.read() {
            State::Open(engine) => {
                engine.watch.begin();
                match apply(&engine.db, txn) {
                    Ok((outcome, rev)) => {
                        self.last = rev;
                        return Ok(outcome);
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
    fn revive(&mut self, txn: &Txn) -> Result<(), StoreError> {
        let not_applied = |refused| Err(StoreError::NotApplied(refused));
        match (self.shared.source.room)() {
            Ok(room) if room.read_only => return not_applied(Refused::ReadOnly),
            Ok(room) if room.free_bytes < room_for(txn) => return not_applied(Refused::NoSpace),
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

/// Room that a commit may take, reckoned generously.
fn room_for(txn: &Txn) -> u64 {
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let pages = wide(txn.operations()).saturating_mul(RESERVE_BYTES_PER_OPERATION);
    let bytes = wide(txn.bytes()).saturating_mul(2);
    RESERVE_BYTES.saturating_add(pages).saturating_add(bytes)
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

/// Steps a transaction and makes it durable. Gives its outcome and the revision that the store has then.
fn apply(db: &Database, txn: &Txn) -> Result<(Outcome, Rev), Failed> {
    let mut write = db.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    let (outcome, before, after) = {
        let mut rows = write.open_table(ROWS)?;
        let mut meta = write.open_table(META)?;
        let before = Rev(meta.get(REVISION)?.map_or(0, |rev| rev.value()));
        let mut after = before;
        let outcome = step(&mut rows, txn, &mut after)?;
        if after != before {
            meta.insert(REVISION, after.0)?;
        }
        (outcome, before, after)
    };
    if after == before {
        write.abort()?;
    } else {
        write
            .commit()
            .map_err(|error| Failed::During(error.into()))?;
    }
    Ok((outcome, after))
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
