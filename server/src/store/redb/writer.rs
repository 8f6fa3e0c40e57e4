//! The writer: one transaction, one record of the journal, one `fsync`; and what a failure of it means.

use std::sync::Arc;

use ::redb::Error;

use super::engine::{self, Engine, Failed, open_error};
use super::journal::AppendError;
use super::watch::{Verdict, refusal};
use super::{OpenError, Shared, State};
use crate::store::{Outcome, Refused, Rev, StoreError, Txn};

/// Room that must be left before a commit is tried, so that a full disk is noticed while the engine is whole.
const RESERVE_BYTES: u64 = 1 << 20;

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
    pub(super) fn commit(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        self.revive(&txn)?;
        let (failed, verdict) = match &*self.shared.read() {
            State::Open(engine) => match apply(engine, txn, self.last) {
                Ok((outcome, rev)) => {
                    self.last = rev;
                    return Ok(outcome);
                }
                Err(failed) => (failed, engine.watch.verdict()),
            },
            State::Closed(refused) => return Err(StoreError::NotApplied(refused.clone())),
            State::Shut => return Err(super::stopping()),
            State::Unknown(why) => return Err(StoreError::Indeterminate(why.clone())),
        };
        Err(match failed {
            Failed::Engine(error) => self.failed(error.to_string(), verdict),
            // The record is not whole, and the next one goes over it.
            Failed::Journal(AppendError::Write(error)) => match refusal(error.kind()) {
                Some(refused) => StoreError::NotApplied(refused),
                None => self.give_up(error.to_string()),
            },
            Failed::Journal(AppendError::Sync(error)) => self.give_up(error.to_string()),
        })
    }

    /// The engine failed before the transaction was in the journal.
    fn failed(&mut self, why: String, verdict: Verdict) -> StoreError {
        match verdict {
            Verdict::SyncFailed => self.give_up(why),
            Verdict::Refused(refused) => self.close(refused),
            Verdict::Other => self.close(Refused::Unavailable(why)),
        }
    }

    /// Looks for room, and opens the engine again if it was closed.
    fn revive(&mut self, txn: &Txn) -> Result<(), StoreError> {
        let not_applied = |refused| Err(StoreError::NotApplied(refused));
        match (self.shared.source.room)() {
            Ok(room) if room.read_only => return not_applied(Refused::ReadOnly),
            Ok(room) if room.free_bytes < self.needs(txn) => return not_applied(Refused::NoSpace),
            Ok(_) => {}
            Err(error) => return not_applied(Refused::Unavailable(error.to_string())),
        }
        let broken = match &*self.shared.read() {
            State::Open(engine) if engine.watch.failed() => Some(engine.watch.verdict()),
            State::Open(_) | State::Closed(_) | State::Shut | State::Unknown(_) => None,
        };
        if let Some(verdict) = broken {
            // Somebody who only read was refused; what became of the engine is seen below.
            self.failed("its file could not be read or written".into(), verdict);
        }
        if matches!(*self.shared.read(), State::Closed(_)) {
            self.reopen()?;
        }
        Ok(())
    }

    /// Room that this commit, and what the file lacks, may take; reckoned generously.
    fn needs(&self, txn: &Txn) -> u64 {
        let behind = match &*self.shared.read() {
            State::Open(engine) => engine.room_behind(),
            State::Closed(_) | State::Shut | State::Unknown(_) => 0,
        };
        RESERVE_BYTES
            .saturating_add(behind)
            .saturating_add(engine::room(&txn.then))
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

/// Steps a transaction and makes it durable. Gives its outcome and the revision that the store has then.
fn apply(engine: &Engine, txn: Txn, last: Rev) -> Result<(Outcome, Rev), Failed> {
    for compare in &txn.when {
        if engine.revision(&compare.key)? != compare.rev {
            let view = engine.view()?;
            let held = txn.when.iter().map(|compare| view.row(&compare.key));
            return Ok((Outcome::Conflict(held.collect::<Result<_, _>>()?), last));
        }
    }
    if txn.then.is_empty() {
        return Ok((Outcome::Committed(last), last));
    }
    let next =
        engine::after(last).ok_or_else(|| Error::Corrupted("revisions are used up".into()))?;
    engine.append(next, txn.then)?;
    Ok((Outcome::Committed(next), next))
}
