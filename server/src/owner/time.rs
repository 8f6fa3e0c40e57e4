//! Time: what is due, and the clocks that are stored.
//!
//! # Invariants
//! 1. What is due has a row in the store, so that a start finds it without looking at anything else.
//! 2. A step that fails for one ceremony or rotation stands in the way of no other.

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
    ceremony::DAEMON,
    core::{CLOCKS_EVERY, Core, ENTRY_FORMAT, Needs},
    rows::{self, Clocks},
    txn::Txn,
};
use crate::{refusal::Refused, store::Name};

/// What the clock will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DueKind {
    /// A ceremony waits or ends.
    Ceremony,
    /// A check-out is warned of or ends.
    CheckOut,
    /// A rotation begins, goes on, retires or destroys something.
    Rotation,
    /// A rotation runs: at [`NEVER`], and looked at when the daemon starts.
    Running,
    /// A rotation is due, and late from then on; at [`NEVER`] when it is.
    Late,
    /// A rotation needs an operator: at [`NEVER`], for those who count.
    Stuck,
    /// It failed and is tried again: the same.
    Failing,
    /// It is due and must be done by hand: the same.
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
    const ALL: [(Self, &'static str); 11] = [
        (Self::Ceremony, "ceremony"),
        (Self::CheckOut, "checkout"),
        (Self::Rotation, "rotation"),
        (Self::Running, "running"),
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
            Self::Running => "running",
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Failing => "failing",
            Self::Manual => "manual",
            Self::Rosters => "rosters",
            Self::Probe => "probe",
            Self::Diverged => "diverged",
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| kind)
    }
}

/// What is due, by time and by what it is.
#[derive(Default)]
pub(crate) struct Due {
    by_time: BTreeSet<(Millis, DueKind, [u8; 16])>,
    by_what: BTreeMap<(DueKind, [u8; 16]), Millis>,
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
        if let Some(before) = before {
            self.by_time.remove(&(before, kind, id));
        }
        if let Some(at) = at {
            self.by_time.insert((at, kind, id));
        }
        before
    }

    /// When something is due.
    pub(crate) fn at(&self, kind: DueKind, id: [u8; 16]) -> Option<Millis> {
        self.by_what.get(&(kind, id)).copied()
    }

    /// How many of a kind there are, and how many of them at [`NEVER`].
    pub(crate) fn count(&self, kind: DueKind) -> (u64, u64) {
        let all = self
            .by_what
            .range((kind, [0; 16])..=(kind, [u8::MAX; 16]))
            .map(|(_, at)| u64::from(*at == NEVER));
        all.fold((0, 0), |(all, never), one| {
            (u64::saturating_add(all, 1), u64::saturating_add(never, one))
        })
    }

    /// What is due next, besides what waits for room.
    fn first(&self, low: bool) -> Option<Millis> {
        let mut next = self.by_time.iter();
        next.find(|(_, kind, id)| !(low && self.waits_for_room(*kind, *id)))
            .map(|(at, ..)| *at)
    }

    fn until(&self, now: Millis, low: bool) -> Vec<(DueKind, [u8; 16])> {
        self.by_time
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .filter(|(_, kind, id)| !(low && self.waits_for_room(*kind, *id)))
            .take(MAX_DUE)
            .map(|(_, kind, id)| (*kind, *id))
            .collect()
    }

    /// Whether this can wait while room is low: whatever a rotation that does not run would do.
    fn waits_for_room(&self, kind: DueKind, id: [u8; 16]) -> bool {
        kind == DueKind::Rotation && self.at(DueKind::Running, id).is_none()
    }
}

impl Core {
    /// Sleeps until something is due, at most until the clocks are to be stored.
    pub(super) fn alarm(&self) -> impl Future<Output = ()> + 'static + use<> {
        let lived = self.now().lived;
        let next = self
            .due
            .first(self.space.is_low())
            .map_or(CLOCKS_EVERY, |at| Duration::from_millis(lived.until(at)));
        let clock = self.clock.clone();
        async move {
            clock
                .sleep(next.clamp(Duration::from_millis(1), CLOCKS_EVERY))
                .await;
        }
    }

    /// What a tick looks at.
    pub(super) fn due(&self) -> Needs {
        let mut needs = Needs::nothing();
        for (kind, id) in self.due.until(self.now().lived, self.space.is_low()) {
            match kind {
                DueKind::Ceremony | DueKind::CheckOut => {
                    needs.ceremonies.push(CeremonyId::from_bytes(id));
                }
                DueKind::Rotation | DueKind::Running | DueKind::Late | DueKind::Probe => {
                    needs.credentials.push(CredentialId::from_bytes(id));
                }
                DueKind::Stuck
                | DueKind::Failing
                | DueKind::Manual
                | DueKind::Rosters
                | DueKind::Diverged => {}
            }
        }
        needs
    }

    /// Steps what is due, and stores the clocks.
    pub(super) fn tick(&mut self, txn: &mut Txn) -> Result<(), Refused> {
        let now = self.now();
        for (kind, id) in self.due.until(now.lived, self.space.is_low()) {
            let before = self.due.at(kind, id);
            let step = |core: &mut Self, txn: &mut Txn| match kind {
                DueKind::Ceremony => core.ceremony_tick(txn, CeremonyId::from_bytes(id)),
                DueKind::CheckOut => core.checkout_tick(txn, CeremonyId::from_bytes(id)),
                DueKind::Rotation => core.slot_tick(txn, CredentialId::from_bytes(id)),
                DueKind::Late => {
                    let credential = CredentialId::from_bytes(id);
                    tracing::warn!(%credential, "a rotation is late");
                    core.set_due(txn, DueKind::Late, id, Some(NEVER));
                    core.tell_late(txn, credential)
                }
                DueKind::Probe => {
                    core.probe_tick(txn, CredentialId::from_bytes(id));
                    Ok(())
                }
                DueKind::Running
                | DueKind::Stuck
                | DueKind::Failing
                | DueKind::Manual
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
        self.count_rotations();
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
            running: all(DueKind::Running),
            backing_off: all(DueKind::Failing),
            needs_operator: all(DueKind::Stuck),
            manual: all(DueKind::Manual),
        }
    }

    /// How many sealed secrets are known not to be the real ones.
    pub(crate) fn diverged(&self) -> u64 {
        self.due.count(DueKind::Diverged).0
    }

    fn count_rotations(&self) {
        let counts = self.rotation_counts();
        for (state, count) in [
            ("due", counts.due),
            ("late", counts.late),
            ("running", counts.running),
            ("failing", counts.backing_off),
            ("stuck", counts.needs_operator),
            ("manual", counts.manual),
            ("diverged", self.diverged()),
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
        let key = |at: Millis| {
            let at = Time::from_ms(at.0);
            let kind = kind.name();
            Name::Due { at, kind, id }.key()
        };
        if let Some(before) = before {
            txn.delete(key(before));
        }
        if let Some(at) = at {
            txn.put(key(at), vec![ENTRY_FORMAT]);
        }
    }
}
