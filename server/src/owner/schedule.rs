//! When slots are stepped, what operators see of it, and pauses.
//!
//! # Invariants
//! 1. A slot that waits for a moment has a row that brings it; nothing is kept in memory alone.
//! 2. What is late, stuck, failing or to be done by hand is counted without looking at any slot.
//! 3. A rotation keeps its place in the queue from the moment it may begin until it does.

use keyturn_vault::{
    event::{Cause, Event as Entry},
    id::CredentialId,
    machine::{Millis, Now},
    reference::PersonRef,
    refusal::Refusal,
    rotation::{Event, Job, MAX_PAUSE, Slot, Terms},
    time::Span,
    world::Stage,
};

use super::{
    core::{Core, Held},
    time::{DueKind, NEVER},
    txn::{Row, Txn},
};
use crate::refusal::Refused;

/// A rotation that is due for longer is late.
const LATE: Span = Span::from_hours(1);

impl Core {
    /// Keeps the rows that say when the slot wants a tick, and whether its job runs (invariants 1 and 3).
    pub(super) fn schedule_slot(&mut self, txn: &mut Txn, id: CredentialId) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let running = matches!(
            held.slot.job,
            Job::Sealing { .. }
                | Job::Copying { .. }
                | Job::Applying { .. }
                | Job::Testing { .. }
                | Job::Listing { .. }
                | Job::Creating { .. }
        );
        let ending = matches!(held.slot.job, Job::Promoted { .. } | Job::Deleting);
        let (now, terms, bytes) = (self.now(), self.terms(held), id.to_bytes());
        let due = due_of(&held.slot, now, terms);
        let begin = begin_of(&held.slot, now, terms);
        let since = self.due.at(DueKind::Queued, bytes);
        let queued = match (since, begin) {
            (Some(since), Some(begin)) if begin <= now.lived => Some(since.min(begin)),
            _ => begin,
        };
        self.set_due(txn, DueKind::Rotation, bytes, due);
        self.set_due(txn, DueKind::Queued, bytes, queued);
        self.set_due(txn, DueKind::Running, bytes, running.then_some(NEVER));
        self.set_due(txn, DueKind::Ending, bytes, ending.then_some(NEVER));
        self.mark_slot(txn, id);
        self.mark_probe(txn, id);
    }

    /// Keeps the rows by which operators see what is due, late, failing or stuck.
    fn mark_slot(&mut self, txn: &mut Txn, id: CredentialId) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let (due, job) = (held.slot.is_due(), held.slot.job);
        let overdue = self.is_overdue(held);
        let bytes = id.to_bytes();
        let late = match self.due.at(DueKind::Late, bytes) {
            _ if !due => None,
            Some(known) => Some(known),
            None => Some(self.now().lived.after(LATE.ms())),
        };
        let never = |is: bool| is.then_some(NEVER);
        let failing = matches!(job, Job::BackingOff { .. } | Job::Revoking { .. });
        self.set_due(txn, DueKind::Late, bytes, late);
        self.set_due(txn, DueKind::Failing, bytes, never(failing));
        self.set_due(
            txn,
            DueKind::Stuck,
            bytes,
            never(overdue || matches!(job, Job::Stuck(_))),
        );
        self.mark_task(txn, id);
    }

    /// Since when a rotation is due that is in no queue: it runs, is stuck, or is people's. Of a late one only the
    /// moment is known from which it was owed.
    pub(crate) fn due_since(&self, id: CredentialId, held: &Held) -> u64 {
        let late = self.due.at(DueKind::Late, id.to_bytes());
        let due = late.filter(|late| *late < NEVER);
        let due = due.map(|late| self.wall(Millis(late.0.saturating_sub(LATE.ms()))));
        let owed = || held.row.owed.map(|since| since.wall.ms());
        due.or_else(owed).unwrap_or_else(|| self.now().wall.ms())
    }

    /// An operator wants no rotation begun for so long, of one credential or of all; 0 goes on. Gives
    /// until when, by the wall clock.
    pub fn pause_rotations(
        &mut self,
        txn: &mut Txn,
        credential: Option<CredentialId>,
        span: Span,
        by: &PersonRef,
    ) -> Result<u64, Refused> {
        if span > MAX_PAUSE {
            return Err(Refused::Malformed(
                "a pause lasts at most 24 hours".to_owned(),
            ));
        }
        let now = self.now();
        let (until, wall) = (now.lived.after(span.ms()), now.wall.after(span));
        let on = span > Span::ZERO;
        let actor = by.to_string();
        match credential {
            Some(id) if on => {
                self.step_slot(txn, id, Event::Pause((until, wall), by.id), &actor)?;
            }
            Some(id) => self.step_slot(txn, id, Event::Resume(by.id), &actor)?,
            None => {
                let entry = if on {
                    Entry::RotationPaused {
                        credential: None,
                        until: wall,
                        person: by.id,
                    }
                } else if self.vault.paused.is_none() {
                    return Err(Refusal::NotPaused.into());
                } else {
                    Entry::RotationResumed {
                        credential: None,
                        person: by.id,
                    }
                };
                self.log(txn, &actor, &entry)?;
                let before = self.vault.clone();
                self.vault.paused = on.then_some(until);
                txn.touch(Row::Vault, move |core| core.vault = before);
            }
        }
        Ok(if on { wall.ms() } else { 0 })
    }

    /// Until when no rotation is begun, by the wall clock; 0 when there is no pause.
    pub fn paused_until(&self, paused: Option<Millis>) -> u64 {
        paused
            .filter(|until| self.now().lived < *until)
            .map_or(0, |until| self.wall(until))
    }
}

/// When a slot's rotation may begin, as far as the slot alone goes; then it is in the queue.
fn begin_of(slot: &Slot, now: Now, terms: Terms) -> Option<Millis> {
    let at = match slot.job {
        Job::Idle if terms.connector && slot.is_due() => now.lived,
        Job::BackingOff { until } => until,
        Job::Idle
        | Job::Applying { .. }
        | Job::Testing { .. }
        | Job::Creating { .. }
        | Job::Revoking { .. }
        | Job::Sealing { .. }
        | Job::Listing { .. }
        | Job::Deleting
        | Job::Copying { .. }
        | Job::Promoted { .. }
        | Job::Stuck(_) => return None,
    };
    // Not before an earlier call can no longer take effect, nor while a ceremony holds it.
    let landed = slot.asked.map_or(at, |(_, until)| at.max(until));
    let landed = landed.max(slot.paused.unwrap_or_default());
    let held = slot.held_until.filter(|_| !slot.holds.is_empty());
    Some(held.map_or(landed, |until| landed.max(until)))
}

/// When a slot wants its next tick, besides the one that begins its rotation.
fn due_of(slot: &Slot, now: Now, terms: Terms) -> Option<Millis> {
    let free = slot.holds.is_empty();
    let job = match slot.job {
        Job::Applying { until, .. }
        | Job::Testing { until, .. }
        | Job::Creating { until, .. }
        | Job::Revoking { until, .. } => Some(until),
        Job::Idle
        | Job::BackingOff { .. }
        | Job::Sealing { .. }
        | Job::Listing { .. }
        | Job::Deleting
        | Job::Copying { .. }
        | Job::Promoted { .. }
        | Job::Stuck(_) => None,
    };
    let lost = slot.job == Job::Idle && free && slot.keys.ours.values().any(Option::is_none);
    let lost = lost.then_some(now.lived);
    let retiring = slot
        .retiring
        .as_ref()
        .filter(|retiring| !retiring.rotation || retiring.evidence.is_some())
        .map(|retiring| if free { now.lived } else { retiring.latest });
    let quarantine = terms.kept();
    // Where a key goes first, that waits for what goes on.
    let can = |version| slot.job == Job::Idle || slot.keys.of(version).is_none();
    let destroy = slot
        .versions
        .iter()
        .filter(|(version, kept)| free && kept.life.stage == Stage::Retired && can(**version))
        .filter_map(|(_, kept)| Some(kept.retired?.after(quarantine.ms())))
        .min();
    let aged = slot.owed.iter().any(|(cause, _)| *cause == Cause::Age);
    let age = slot
        .current_since
        .filter(|_| !aged && terms.max_age > Span::ZERO)
        .map(|since| since.after(terms.max_age.ms()));
    [job, lost, retiring, destroy, age]
        .into_iter()
        .flatten()
        .min()
}
