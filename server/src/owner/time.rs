//! Time: what is due, and the clocks that are stored.
//!
//! # Invariants
//! 1. What is due has a row in the store, so that a start finds it without looking at anything else.
//! 2. A step that fails for one ceremony or rotation stands in the way of no other.
//! 3. Rotations wait in one queue, first come, first served, and begin only while a place is free: however
//!    many are due, a turn steps a few, and what is being rolled fits into memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use keyturn_proto::v1;
use keyturn_vault::{
    event::Event,
    id::{CeremonyId, CredentialId},
    machine::{Millis, Now},
    time::Time,
};

use super::{
    Work,
    ceremony::DAEMON,
    core::{CLOCKS_EVERY, Core, Needs},
    txn::Txn,
};
use crate::{
    refusal::Refused,
    rows::{self, Clocks, ENTRY_FORMAT},
    store::Name,
};

/// What the clock will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DueKind {
    /// A ceremony waits or ends.
    Ceremony,
    /// A check-out is warned of or ends.
    CheckOut,
    /// A rotation begins, goes on, retires or destroys something.
    Rotation,
    /// A rotation waits for a place: since this moment.
    Queued,
    /// A rotation runs and has a place: at [`NEVER`], and looked at when the daemon starts.
    Running,
    /// A rotation is proven and ends old sessions, or deletes a key: the same, without a place.
    Ending,
    /// A rotation is due, and late from then on; at [`NEVER`] when it is.
    Late,
    /// A rotation needs an operator: at [`NEVER`], for those who count.
    Stuck,
    /// It failed and is tried again: the same.
    Failing,
    /// It is due and must be done by hand: when people are reminded, or the same.
    Manual,
    /// A charter took force and the rosters were not all looked at: at [`NEVER`], like a rotation that runs.
    Rosters,
    /// A target is looked at.
    Probe,
    /// A sealed secret is not the real one: at [`NEVER`], for those who count.
    Diverged,
}

/// The time of what is not waited for.
pub(crate) const NEVER: Millis = Millis(u64::MAX);
/// What one tick steps at most; the next one follows at once.
const MAX_DUE: usize = 16;
/// What was stepped and is still due comes again after this time, not at once.
const AGAIN_MS: u64 = 1000;
/// Where nothing else was logged for a day, an entry says that the vault was there.
const ALIVE_EVERY_MS: u64 = 24 * 3_600_000;
/// The minute of the clocks, which refusals are counted by.
const CLOCKS_EVERY_MS: u64 = 60_000;
/// What failed comes again after this time.
const FAILED_MS: u64 = 60_000;

impl DueKind {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Ceremony, "ceremony"),
        (Self::CheckOut, "checkout"),
        (Self::Rotation, "rotation"),
        (Self::Queued, "queued"),
        (Self::Running, "running"),
        (Self::Ending, "ending"),
        (Self::Late, "late"),
        (Self::Stuck, "stuck"),
        (Self::Failing, "failing"),
        (Self::Manual, "manual"),
        (Self::Rosters, "rosters"),
        (Self::Probe, "probe"),
        (Self::Diverged, "diverged"),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ceremony => "ceremony",
            Self::CheckOut => "checkout",
            Self::Rotation => "rotation",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ending => "ending",
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Failing => "failing",
            Self::Manual => "manual",
            Self::Rosters => "rosters",
            Self::Probe => "probe",
            Self::Diverged => "diverged",
        }
    }

    /// The row of something of this kind that is due.
    pub(crate) fn key(self, id: [u8; 16], at: Millis) -> crate::store::Key {
        let at = Time::from_ms(at.0);
        let kind = self.name();
        Name::Due { at, kind, id }.key()
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| kind)
    }
}

/// What is due, by time and by what it is.
#[derive(Default)]
pub(crate) struct Due {
    /// All but the queue.
    by_time: BTreeSet<(Millis, DueKind, [u8; 16])>,
    /// What waits for a place.
    queue: BTreeSet<(Millis, [u8; 16])>,
    by_what: BTreeMap<(DueKind, [u8; 16]), Millis>,
    /// How many there are of each, and how many of them at [`NEVER`].
    counts: BTreeMap<DueKind, (u64, u64)>,
}

impl Due {
    /// Sets or clears when something is due; gives what was set before.
    pub(super) fn place(
        &mut self,
        kind: DueKind,
        id: [u8; 16],
        at: Option<Millis>,
    ) -> Option<Millis> {
        let before = match at {
            Some(at) => self.by_what.insert((kind, id), at),
            None => self.by_what.remove(&(kind, id)),
        };
        let queue = kind == DueKind::Queued;
        let (all, never) = self.counts.entry(kind).or_default();
        if let Some(before) = before {
            *all = all.saturating_sub(1);
            *never = never.saturating_sub(u64::from(before == NEVER));
            if queue {
                self.queue.remove(&(before, id));
            } else {
                self.by_time.remove(&(before, kind, id));
            }
        }
        if let Some(at) = at {
            *all = all.saturating_add(1);
            *never = never.saturating_add(u64::from(at == NEVER));
            if queue {
                self.queue.insert((at, id));
            } else {
                self.by_time.insert((at, kind, id));
            }
        }
        before
    }

    /// When something is due.
    pub(crate) fn at(&self, kind: DueKind, id: [u8; 16]) -> Option<Millis> {
        self.by_what.get(&(kind, id)).copied()
    }

    /// How many of a kind there are, and how many of them at [`NEVER`].
    pub(crate) fn count(&self, kind: DueKind) -> (u64, u64) {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// The first moment that brings something, besides what waits for room on the disk or for a place.
    fn first(&self, low: bool, places: usize) -> Option<Millis> {
        let mut timed = self.by_time.iter();
        let timed = timed
            .find(|(_, kind, id)| !(low && self.waits_for_room(*kind, *id)))
            .map(|(at, ..)| *at);
        let queued = self.queue.first().filter(|_| places > 0).map(|(at, _)| *at);
        timed.into_iter().chain(queued).min()
    }

    /// What a tick steps: the clock's part first, then those whose turn it is.
    fn until(&self, now: Millis, low: bool, places: usize) -> Vec<(DueKind, [u8; 16])> {
        let timed = self
            .by_time
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .filter(|(_, kind, id)| !(low && self.waits_for_room(*kind, *id)))
            .take(MAX_DUE)
            .map(|(_, kind, id)| (*kind, *id));
        let queued = self
            .queue
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(MAX_DUE.min(places))
            .map(|(_, id)| (DueKind::Queued, *id));
        timed.chain(queued).collect()
    }

    /// Whether this can wait while room is low: whatever a rotation that does not run would do.
    fn waits_for_room(&self, kind: DueKind, id: [u8; 16]) -> bool {
        let goes_on = [DueKind::Running, DueKind::Ending];
        kind == DueKind::Rotation && goes_on.iter().all(|on| self.at(*on, id).is_none())
    }
}

impl Core {
    /// Sleeps until something is due, at most until the clocks are to be stored.
    pub(super) fn alarm(&self) -> impl Future<Output = ()> + 'static + use<> {
        let lived = self.now().lived;
        let next = self
            .due
            .first(self.space.is_low(), self.places())
            .map_or(CLOCKS_EVERY, |at| Duration::from_millis(lived.until(at)));
        let clock = self.clock.clone();
        async move {
            clock
                .sleep(next.clamp(Duration::from_millis(1), CLOCKS_EVERY))
                .await;
        }
    }

    /// How many rotations may begin now (invariant 3); none while all are paused or room is low.
    fn places(&self) -> usize {
        if self.space.is_low() || self.paused_until(self.vault.paused) > 0 {
            return 0;
        }
        let running = usize::try_from(self.due.count(DueKind::Running).0).unwrap_or(usize::MAX);
        self.workshop.concurrent().saturating_sub(running)
    }

    /// What is due now, as a step with all that it looks at: what becomes due while that is loaded
    /// waits for the next one.
    pub(super) fn due(&self) -> Work {
        let mut needs = Needs {
            lenient: true,
            ..Needs::nothing()
        };
        let due = self
            .due
            .until(self.now().lived, self.space.is_low(), self.places());
        for &(kind, id) in &due {
            match kind {
                DueKind::Ceremony | DueKind::CheckOut => {
                    needs.ceremonies.push(CeremonyId::from_bytes(id));
                }
                DueKind::Rotation
                | DueKind::Queued
                | DueKind::Late
                | DueKind::Manual
                | DueKind::Probe => {
                    needs.credentials.push(CredentialId::from_bytes(id));
                }
                DueKind::Running
                | DueKind::Ending
                | DueKind::Stuck
                | DueKind::Failing
                | DueKind::Rosters
                | DueKind::Diverged => {}
            }
        }
        Work::detached(needs, move |core, txn| core.tick(txn, due))
    }

    /// Steps what is due, and stores the clocks.
    fn tick(&mut self, txn: &mut Txn, due: Vec<(DueKind, [u8; 16])>) -> Result<(), Refused> {
        let now = self.now();
        for (kind, id) in due {
            let before = self.due.at(kind, id);
            let step = |core: &mut Self, txn: &mut Txn| match kind {
                DueKind::Ceremony => core.ceremony_tick(txn, CeremonyId::from_bytes(id)),
                DueKind::CheckOut => core.checkout_tick(txn, CeremonyId::from_bytes(id)),
                DueKind::Rotation | DueKind::Queued => {
                    core.slot_tick(txn, CredentialId::from_bytes(id))
                }
                DueKind::Late => {
                    let credential = CredentialId::from_bytes(id);
                    tracing::warn!(%credential, "a rotation is late");
                    core.set_due(txn, DueKind::Late, id, Some(NEVER));
                    core.tell_late(txn, credential)
                }
                DueKind::Manual => core.remind(txn, CredentialId::from_bytes(id)),
                DueKind::Probe => {
                    core.probe_tick(txn, CredentialId::from_bytes(id));
                    Ok(())
                }
                DueKind::Running
                | DueKind::Ending
                | DueKind::Stuck
                | DueKind::Failing
                | DueKind::Rosters
                | DueKind::Diverged => Ok(()),
            };
            let again = match self.whole(txn, step) {
                Ok(()) => AGAIN_MS,
                Err(refused) => {
                    tracing::warn!(%refused, kind = kind.name(), "what is due cannot be stepped");
                    FAILED_MS
                }
            };
            // Nothing may keep the owner busy by staying due.
            if self.due.at(kind, id) == before && before.is_some_and(|at| at <= now.lived) {
                self.set_due(txn, kind, id, Some(now.lived.after(again)));
            }
        }
        let running = self.clock.running();
        if running.saturating_sub(self.clocks_stored) >= CLOCKS_EVERY {
            self.clocks_stored = running;
            self.each_minute(txn, now)?;
        }
        Ok(())
    }

    /// How many rotations there are of each kind, for operators.
    pub(crate) fn rotation_counts(&self) -> v1::RotationCounts {
        let (due, late) = self.due.count(DueKind::Late);
        let all = |kind| self.due.count(kind).0;
        v1::RotationCounts {
            due,
            late,
            running: all(DueKind::Running).saturating_add(all(DueKind::Ending)),
            backing_off: all(DueKind::Failing),
            needs_operator: all(DueKind::Stuck),
            manual: all(DueKind::Manual),
        }
    }

    /// How many sealed secrets are known not to be the real ones.
    pub(crate) fn diverged(&self) -> u64 {
        self.due.count(DueKind::Diverged).0
    }

    /// Tells Prometheus, whenever something changed: what is scraped is how it stands.
    pub(super) fn count_rotations(&mut self) {
        let (counts, diverged) = (self.rotation_counts(), self.diverged());
        if self.counted.replace((counts, diverged)) == Some((counts, diverged)) {
            return;
        }
        for (state, count) in [
            ("due", counts.due),
            ("late", counts.late),
            ("running", counts.running),
            ("failing", counts.backing_off),
            ("stuck", counts.needs_operator),
            ("manual", counts.manual),
            ("diverged", diverged),
        ] {
            let gauge = self.metrics.gauge(
                "keyturn_rotations",
                "Rotations that are due, late, running, failing, stuck, or to be done by hand; secrets that are not the real ones.",
                &[("state", state)],
            );
            gauge.set(count);
        }
    }

    /// Logs what was refused, or that there is nothing to log; stores the clocks.
    fn each_minute(&mut self, txn: &mut Txn, now: Now) -> Result<(), Refused> {
        self.forget_proposals(txn);
        self.forget_invitations(txn);
        let since = Time::from_ms(now.wall.ms().saturating_sub(CLOCKS_EVERY_MS));
        // At low water they are counted on, and logged when there is room again.
        let refused = if self.space.is_low() {
            Vec::new()
        } else {
            self.tally.take()
        };
        for (person, code, count) in refused {
            let event = Event::RefusalsCounted {
                person,
                code,
                count,
                since,
            };
            self.log(txn, DAEMON, &event)?;
            self.tell_refusals(txn, (person, code, count))?;
        }
        let mut size = self.log_size(txn);
        if size > self.base.size {
            self.base.spoke = now.lived;
        } else if self.base.spoke.until(now.lived) >= ALIVE_EVERY_MS && size > 0 {
            self.log(txn, DAEMON, &Event::Alive {})?;
            self.base.spoke = now.lived;
            size = size.saturating_add(1);
        }
        self.base.size = size;
        let clocks = Clocks {
            wall: now.wall,
            ran: now.ran,
            lived: now.lived,
            spoke: self.base.spoke,
            size,
        };
        txn.put(Name::Clock.key(), rows::encode(&clocks)?);
        Ok(())
    }

    /// Sets or clears when something is due.
    pub(super) fn set_due(
        &mut self,
        txn: &mut Txn,
        kind: DueKind,
        id: [u8; 16],
        at: Option<Millis>,
    ) {
        let before = self.due.place(kind, id, at);
        if before == at {
            return;
        }
        txn.remember(move |core| {
            core.due.place(kind, id, before);
        });
        if let Some(before) = before {
            txn.delete(kind.key(id, before));
        }
        if let Some(at) = at {
            txn.put(kind.key(id, at), vec![ENTRY_FORMAT]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_wait_in_one_queue_first_come_first_served() {
        let mut due = Due::default();
        for (at, id) in [(30, 1), (10, 2), (20, 3)] {
            due.place(DueKind::Queued, [id; 16], Some(Millis(at)));
        }
        due.place(DueKind::Ceremony, [9; 16], Some(Millis(25)));
        due.place(DueKind::Stuck, [8; 16], Some(NEVER));
        for (name, now, room, want, first) in [
            ("nothing yet", 5, 8, vec![], Some(10)),
            ("not before its moment", 15, 8, vec![2], Some(10)),
            (
                "no place: the clock's part alone",
                100,
                0,
                vec![9],
                Some(25),
            ),
            ("one place: who came first", 100, 1, vec![9, 2], Some(10)),
            ("places for all", 100, 8, vec![9, 2, 3, 1], Some(10)),
        ] {
            let ids: Vec<_> = due
                .until(Millis(now), false, room)
                .iter()
                .map(|(_, id)| id[0])
                .collect();
            assert_eq!(ids, want, "{name}");
            assert_eq!(due.first(false, room), first.map(Millis), "{name}");
        }
        assert_eq!(due.count(DueKind::Queued), (3, 0));
        assert_eq!(due.count(DueKind::Stuck), (1, 1));
        assert_eq!(due.count(DueKind::Late), (0, 0));
        for id in 1..=3 {
            due.place(DueKind::Queued, [id; 16], None);
        }
        due.place(DueKind::Stuck, [8; 16], Some(Millis(1)));
        assert_eq!(due.count(DueKind::Queued), (0, 0));
        assert_eq!(due.count(DueKind::Stuck), (1, 0));
        assert_eq!(due.first(false, 8), Some(Millis(1)));
    }

    #[test]
    fn a_turn_steps_a_few_however_many_are_due() {
        let mut due = Due::default();
        for id in 0..=u8::MAX {
            due.place(DueKind::Queued, [id; 16], Some(Millis(1)));
            due.place(DueKind::Probe, [id; 16], Some(Millis(1)));
        }
        assert_eq!(due.until(Millis(1), false, usize::MAX).len(), 2 * MAX_DUE);
        assert_eq!(due.count(DueKind::Queued).0, 256);
    }
}
