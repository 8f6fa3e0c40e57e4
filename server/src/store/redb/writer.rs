//! The writer: one transaction, one record of the journal, one `fsync`; and what a failure of it means.

use std::sync::Arc;

use ::redb::{Error, ReadableTable as _, Table};

use super::engine::{self, Engine, ROWS, decode_row, open_error, row_in};
use super::journal::AppendError;
use super::watch::{Verdict, refusal};
use super::{OpenError, Shared, State};
use crate::store::{Outcome, Refused, Rev, StoreError, Txn};

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
        let (failed, verdict) = match &*self.shared.read() {
            State::Open(engine) => {
                engine.watch.begin();
                match apply(engine, txn, self.last) {
                    Ok((outcome, rev)) => {
                        self.last = rev;
                        return Ok(outcome);
                    }
                    Err(failed) => (failed, engine.watch.verdict()),
                }
            }
            State::Closed(refused) => return Err(StoreError::NotApplied(refused.clone())),
            State::Unknown(why) => return Err(StoreError::Indeterminate(why.clone())),
        };
        match (failed, verdict) {
            (Failed::Engine(error), Verdict::SyncFailed) => Err(self.give_up(error.to_string())),
            (Failed::Engine(_), Verdict::Refused(refused)) => Err(self.close(refused)),
            (Failed::Engine(error), Verdict::Other) => {
                Err(self.close(Refused::Unavailable(error.to_string())))
            }
            // The engine may have failed, too, when it took back what it had.
            (Failed::Journal(AppendError::Write(error)), _) => Err(match refusal(error.kind()) {
                Some(refused) => self.close(refused),
                None => self.give_up(error.to_string()),
            }),
            (Failed::Journal(AppendError::Sync(error)), _) => Err(self.give_up(error.to_string())),
            (Failed::Following(rev, error), verdict) => self.follow(rev, verdict, &error),
        }
    }

    /// A transaction is durable and the engine could not follow: the journal tells it again.
    fn follow(&mut self, rev: Rev, verdict: Verdict, error: &Error) -> Result<Outcome, StoreError> {
        self.last = rev;
        let refused = match verdict {
            Verdict::SyncFailed => return Err(self.give_up(error.to_string())),
            Verdict::Refused(refused) => refused,
            Verdict::Other => Refused::Unavailable(error.to_string()),
        };
        match self.close(refused) {
            unknown @ StoreError::Indeterminate(_) => Err(unknown),
            StoreError::NotApplied(_) | StoreError::Invalid(_) => Ok(Outcome::Committed(rev)),
        }
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

/// What failed.
enum Failed {
    /// The engine, before the transaction was in the journal.
    Engine(Error),
    /// The journal.
    Journal(AppendError),
    /// The engine, when the transaction at this revision was durable.
    Following(Rev, Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

/// Steps a transaction and makes it durable. Gives its outcome and the revision that the store has then.
fn apply(engine: &Engine, txn: &Txn, last: Rev) -> Result<(Outcome, Rev), Failed> {
    let mut journal = engine.journal()?;
    let write = engine::begin(&engine.db)?;
    let mut rows = write.open_table(ROWS)?;
    if let Some(conflict) = conflict(&rows, txn)? {
        return Ok((conflict, last));
    }
    if txn.then.is_empty() {
        return Ok((Outcome::Committed(last), last));
    }
    let next =
        engine::after(last).ok_or_else(|| Error::Corrupted("revisions are used up".into()))?;
    engine::change(&mut rows, next, &txn.then)?;
    drop(rows);
    engine::mark(&write, next)?;
    journal.append(next, &txn.then).map_err(Failed::Journal)?;
    write
        .commit()
        .map_err(|error| Failed::Following(next, error.into()))?;
    Ok((Outcome::Committed(next), next))
}

/// What the compared rows hold, when not all of them are as they should be.
fn conflict(rows: &Table<'_, &[u8], &[u8]>, txn: &Txn) -> Result<Option<Outcome>, Error> {
    let mut holds = true;
    for compare in &txn.when {
        let held = rows.get(compare.key.as_bytes())?;
        let held = held.map(|held| decode_row(held.value()).map(|(rev, _)| rev));
        holds &= held.transpose()?.unwrap_or(Rev::ABSENT) == compare.rev;
    }
    if holds {
        return Ok(None);
    }
    let held = txn.when.iter().map(|compare| row_in(rows, &compare.key));
    Ok(Some(Outcome::Conflict(held.collect::<Result<_, _>>()?)))
}
