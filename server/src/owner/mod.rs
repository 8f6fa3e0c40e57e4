//! The owner: the one task that changes what the vault knows.
//!
//! Handlers verify what is costly to verify (signatures, submissions) on their own task and then ask the
//! owner to step: [`Owner::ask`] takes a closure over the [`Core`] and a [`Txn`]. The owner steps all that
//! waits, commits it as one transaction with one fsync, and only then answers.
//!
//! ```text
//! handlers ──► queue ──► step, step, step ──► one commit ──► answers, watchers
//!                           ▲                     │
//!                           └── outcome ◄── release, on a task of its own
//! ```
//!
//! # Invariants
//! 1. Nothing is answered, shown or done outside before the transaction that says so is durable.
//! 2. A refused step leaves no trace in the transaction; a transaction that was not applied leaves none
//!    in memory.
//! 3. A transaction whose outcome nobody knows ends the process.
//! 4. Every transaction compares and writes the head: a second writer of the same store is found out.

mod afterwards;
pub mod ceremony;
pub mod change;
pub mod checkout;
pub mod core;
pub mod credential;
mod effects;
pub mod founding;
mod lineage;
mod load;
pub mod meter;
pub mod outbox;
pub mod places;
mod probe;
mod proposals;
pub mod restore;
mod schedule;
mod signed;
pub mod slot;
mod stock;
pub mod summary;
pub mod task;
mod tell;
pub(crate) mod time;
mod turn;
pub mod txn;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use keyturn_audit::{
    note::{LogKey, SignedCheckpoint},
    proof::Receipt,
    tree::Batch,
};
use keyturn_proto::v1;
use tokio::sync::{mpsc, oneshot};

pub use self::{
    core::{Core, Needs},
    txn::{Changed, Txn},
};
use crate::{
    health::{Reporter, State},
    refusal::Refused,
    store::{self, Outcome, Store, StoreError, space::Space},
};

/// Steps that wait at most; more are refused at once.
pub const QUEUE: usize = 4096;
/// A store that takes nothing is tried this often.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long a step of the daemon's own waits before it is tried again.
const INSIST_EVERY: Duration = Duration::from_secs(2);
/// Steps that one transaction takes at most.
pub const BATCH: usize = 256;

/// Where a step acts; or why what it needs could not be loaded.
type Stage<'a> = Result<(&'a mut Core, &'a mut Txn), Refused>;
type Step = Box<dyn FnOnce(Stage<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<Arc<Committed>, Refused>) + Send>;

/// One thing to step, and the rows it looks at.
pub struct Work {
    needs: Needs,
    step: Step,
}

/// What a commit appended to the log.
pub struct Committed {
    batch: Batch,
    entries: Vec<Vec<u8>>,
    key: Arc<LogKey>,
    checkpoint: OnceLock<Option<SignedCheckpoint>>,
}

impl Committed {
    pub(crate) fn new(batch: Batch, entries: Vec<Vec<u8>>, key: Arc<LogKey>) -> Self {
        Self {
            batch,
            entries,
            key,
            checkpoint: OnceLock::new(),
        }
    }

    /// The checkpoint over the committed head; signed when the first asks.
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        let sign = || {
            self.key
                .sign(self.batch.edge().size(), self.batch.edge().root())
                .ok()
        };
        self.checkpoint.get_or_init(sign).as_ref()
    }

    /// An entry of this commit.
    pub fn entry(&self, n: u64) -> Option<&[u8]> {
        let place = n.checked_sub(self.batch.start())?;
        self.entries
            .get(usize::try_from(place).ok()?)
            .map(Vec::as_slice)
    }

    /// The receipt of an entry of this commit, for the wire.
    pub fn wire_receipt(&self, n: u64) -> Option<v1::Receipt> {
        let entry = self.entry(n)?.to_vec();
        Some(v1::Receipt {
            n,
            entry,
            tlog_proof: self.receipt(n)?.to_string(),
        })
    }

    /// The receipt of an entry of this commit.
    pub fn receipt(&self, n: u64) -> Option<Receipt> {
        let inclusion = self.batch.inclusion(n).ok()?;
        Some(Receipt::new(n, inclusion, self.checkpoint()?))
    }
}

/// The way to the owner; clones lead to the same one.
#[derive(Clone)]
pub struct Owner {
    queue: mpsc::Sender<Work>,
}

impl Owner {
    /// Steps `step` in the next transaction and answers when that is durable.
    pub async fn ask<T: Send + 'static>(
        &self,
        needs: Needs,
        step: impl FnOnce(&mut Core, &mut Txn) -> Result<T, Refused> + Send + 'static,
    ) -> Result<(T, Arc<Committed>), Refused> {
        let (sender, receiver) = oneshot::channel();
        let step: Step = Box::new(move |stage| {
            let result = stage.and_then(|(core, txn)| core.whole(txn, step));
            Box::new(move |committed| {
                // The caller may have gone; what was stepped stands all the same.
                let _ = sender
                    .send(committed.and_then(|committed| result.map(|value| (value, committed))));
            })
        });
        self.queue
            .try_send(Work { needs, step })
            .map_err(|_| Refused::Busy)?;
        receiver.await.map_err(|_| Refused::Stopping)?
    }

    /// Looks at the state without changing it.
    pub async fn look<T: Send + 'static>(
        &self,
        needs: Needs,
        look: impl FnOnce(&Core) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        self.ask(needs, move |core, _| look(core))
            .await
            .map(|(value, _)| value)
    }

    /// The way to the owner that does not keep it running.
    pub fn downgrade(&self) -> WeakOwner {
        WeakOwner {
            queue: self.queue.downgrade(),
        }
    }
}

/// The way to the owner for what the daemon does by itself; it ends with the last [`Owner`].
#[derive(Clone)]
pub struct WeakOwner {
    queue: mpsc::WeakSender<Work>,
}

impl WeakOwner {
    /// The owner, unless the daemon stops.
    pub fn upgrade(&self) -> Option<Owner> {
        let queue = self.queue.upgrade()?;
        Some(Owner { queue })
    }

    /// Steps until it is durable or refused: a full queue or store is waited for.
    pub async fn insist<T: Send + 'static>(
        &self,
        needs: Needs,
        step: impl Fn(&mut Core, &mut Txn) -> Result<T, Refused> + Clone + Send + 'static,
    ) -> Result<T, Refused> {
        loop {
            let owner = self.upgrade().ok_or(Refused::Stopping)?;
            match owner.ask(needs.clone(), step.clone()).await {
                Ok((value, _)) => return Ok(value),
                Err(Refused::Busy | Refused::Store(StoreError::NotApplied(_))) => {
                    drop(owner);
                    tokio::time::sleep(INSIST_EVERY).await;
                }
                Err(refused) => return Err(refused),
            }
        }
    }
}

impl Work {
    /// A step whose result nobody waits for.
    pub(crate) fn detached(
        needs: Needs,
        step: impl FnOnce(&mut Core, &mut Txn) -> Result<(), Refused> + Send + 'static,
    ) -> Self {
        let step: Step = Box::new(move |stage| {
            if let Err(refused) = stage.and_then(|(core, txn)| core.whole(txn, step)) {
                tracing::warn!(%refused, "a step of the daemon's own was refused");
            }
            Box::new(|_| ())
        });
        Self { needs, step }
    }
}

/// Starts the owner over what the store holds.
pub fn start(
    mut core: Core,
    store: Arc<dyn Store>,
    health: Reporter,
) -> (Owner, tokio::task::JoinHandle<()>) {
    let (queue, mut waiting) = mpsc::channel(QUEUE);
    let owner = Owner { queue };
    core.attach(owner.downgrade());
    let task = tokio::spawn(async move {
        let mut works = Vec::with_capacity(BATCH);
        let mut unsettled = None;
        let mut resumed = false;
        // When versions of an accepted restore are taken back next; others that ask do not put it off.
        let mut take = Duration::ZERO;
        loop {
            let serves = core.mode.borrow().serves();
            if serves && !std::mem::replace(&mut resumed, true) {
                let first = Work::detached(core.interrupted(), Core::restart_slots);
                turn(&mut core, &store, &health, vec![first], &mut unsettled).await;
                core.check_rosters_again();
            }
            let alarm = core.alarm();
            let untaken = core.untaken();
            let pause = take.saturating_sub(core.clock.running());
            tokio::select! {
                taken = waiting.recv_many(&mut works, BATCH) => if taken == 0 { break },
                () = alarm, if serves => works.push(core.due()),
                () = tokio::time::sleep(pause), if untaken > 0 => {
                    take = core.clock.running().saturating_add(INSIST_EVERY);
                    works.push(Work::detached(Needs::nothing(), Core::take_back));
                }
            }
            let works = std::mem::take(&mut works);
            turn(&mut core, &store, &health, works, &mut unsettled).await;
            if core.untaken() < untaken {
                take = Duration::ZERO;
            }
        }
        if let Some(txn) = unsettled {
            core.settle(txn);
        }
    });
    (owner, task)
}

/// Loads, steps, commits, answers.
///
/// What is combined comes back within a millisecond, and somebody waits for that: what nobody waits for is then left
/// `unsettled` until the next turn is over.
async fn turn(
    core: &mut Core,
    store: &Arc<dyn Store>,
    health: &Reporter,
    works: Vec<Work>,
    unsettled: &mut Option<Txn>,
) {
    let mut works = works.into_iter();
    while works.len() > 0 {
        part(core, store, health, &mut works, unsettled).await;
    }
}

/// As much of a turn as one transaction takes.
async fn part(
    core: &mut Core,
    store: &Arc<dyn Store>,
    health: &Reporter,
    works: &mut std::vec::IntoIter<Work>,
    unsettled: &mut Option<Txn>,
) {
    let mut txn = Txn::default();
    let mut answers = Vec::with_capacity(works.len());
    while !core.is_full(&txn)
        && let Some(work) = works.next()
    {
        let loaded = core.load(store.as_ref(), &work.needs).await;
        answers.push((work.step)(loaded.map(|()| (&mut *core, &mut txn))));
    }
    let begun = core.clock.running();
    let outcome = commit(core, store.as_ref(), &mut txn).await;
    if outcome.as_ref().is_ok_and(Option::is_some) {
        let took = core.clock.running().saturating_sub(begun);
        core.meter.committed(answers.len(), took);
    }
    let outcome = outcome.map(|done| done.unwrap_or_else(|| core.nothing()));
    if let Err(Refused::Store(error @ StoreError::NotApplied(_))) = &outcome {
        stand_still(store, health, error, &core.space).await;
    }
    if outcome.is_ok() {
        core.know(&txn);
    }
    for answer in answers {
        answer(outcome.clone());
    }
    let Ok(committed) = outcome else { return };
    // Who waits for what is combined or shown goes before what nobody waits for.
    let combined = core.combine_first(&mut txn);
    if !combined.is_empty() {
        tokio::task::yield_now().await;
    }
    core.show_all(&mut txn, &committed, &combined);
    tokio::task::yield_now().await;
    if let Some(before) = unsettled.replace(txn) {
        core.settle(before);
    }
    if combined.is_empty()
        && let Some(txn) = unsettled.take()
    {
        core.settle(txn);
    }
}

/// The store takes nothing: says so, and tries until it does again.
async fn stand_still(store: &Arc<dyn Store>, health: &Reporter, error: &StoreError, space: &Space) {
    if matches!(error, StoreError::NotApplied(store::Refused::NoSpace)) {
        space.give_up().await;
    }
    let report = health.borrow().clone();
    if report.state() != State::Serving {
        return;
    }
    report.not_serving(&error.to_string()).await;
    let store = Arc::clone(store);
    tokio::spawn(async move {
        while store.probe().await.is_err() {
            tokio::time::sleep(PROBE_EVERY).await;
        }
        report.serving().await;
    });
}

/// Commits what was stepped, if anything; what was not applied is taken back in memory.
async fn commit(
    core: &mut Core,
    store: &dyn Store,
    txn: &mut Txn,
) -> Result<Option<Arc<Committed>>, Refused> {
    let (prepared, committed) = match core.prepare(txn) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(None),
        // Invariant 2: what cannot be written was not applied.
        Err(refused) => {
            tracing::error!(%refused, "a change cannot be written");
            core.roll_back(txn);
            return Err(refused);
        }
    };
    if let Err(error) = core.note_wait(txn) {
        tracing::error!(%error, "the pins cannot be written");
        core.roll_back(txn);
        let why = store::Refused::Unavailable("the pins cannot be written".to_owned());
        return Err(Refused::Store(StoreError::NotApplied(why)));
    }
    match store.txn(prepared).await {
        Ok(Outcome::Committed(rev)) => {
            core.advance(rev, &committed);
            Ok(Some(committed))
        }
        Ok(Outcome::Conflict(_)) => {
            tracing::error!(
                "another daemon writes to this store; stopping before anything is mixed up"
            );
            std::process::abort();
        }
        Err(StoreError::Indeterminate(why)) => {
            tracing::error!(%why, "the store cannot say whether a change is durable; stopping");
            std::process::abort();
        }
        Err(error @ (StoreError::NotApplied(_) | StoreError::Invalid(_))) => {
            tracing::error!(%error, "a change was not applied");
            core.roll_back(txn);
            Err(Refused::Store(error))
        }
    }
}
