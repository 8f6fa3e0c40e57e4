//! Rotations, and the steps of slots.

use super::{At, CeremonyId, CredentialId, Event, Fault, Millis, Replay, Slot, VersionId, fault};
use crate::{
    event::{Answer, Call},
    rotation::{self, Job},
};

impl Replay {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    pub(super) fn judge_rotation(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        match at.record.event.clone() {
            Event::RotationOwed { credential, cause } => {
                self.slot_step(at, credential, rotation::Event::Owe(cause))
            }
            Event::RotationHeld { credential, .. } => self
                .holdings
                .get(&credential)
                .map(|_| at.entry())
                .ok_or_else(|| fault("unknown")),
            Event::RotationAttempted {
                version,
                call,
                answer,
            } => {
                let two = self.terms(version.credential)?.two.is_some();
                self.force(at, version.credential, move |slot, now| {
                    attempted(slot, (now, two), version, call, answer)
                })
            }
            Event::RotationFailed { version, .. } => {
                self.force(at, version.credential, |_, _| rotation::Event::Restart)
            }
            Event::RotationNeedsOperator { credential, why } => {
                let slot = self
                    .slots
                    .get_mut(&credential)
                    .ok_or_else(|| fault("unknown"))?;
                slot.job = Job::Stuck(why);
                Ok(at.entry())
            }
            Event::RotationRetried { credential, person } => {
                self.operator(person)?;
                self.slot_step(at, credential, rotation::Event::Retry(person))
            }
            Event::RotationDone {
                version, evidence, ..
            } => self.force(at, version.credential, move |slot, _| {
                if let Some(retiring) = &mut slot.retiring {
                    retiring.latest = Millis(0);
                }
                rotation::Event::SessionsEnded(evidence)
            }),
            Event::RotationCompleted {
                version,
                person,
                evidence,
            } => {
                self.operator(person)?;
                let event = rotation::Event::Complete(version.version, person, evidence);
                self.slot_step(at, version.credential, event)
            }
            Event::RotationKeyMade { version, key } => self.making(at, version, key),
            Event::RotationPromoted { .. } | Event::RotationStarted { .. } => {
                // These only follow from others: a promotion from a login, a start from a sealing.
                Err(fault("other-entry"))
            }
            _ => self.judge_key(at),
        }
    }

    /// Steps a slot; gives what it logs, and what the ceremonies log that name its credential.
    pub(super) fn slot_step(
        &mut self,
        at: &mut At<'_>,
        credential: CredentialId,
        event: rotation::Event,
    ) -> Result<Vec<Event>, Fault> {
        let terms = self.terms(credential)?;
        let slot = self
            .slots
            .remove(&credential)
            .ok_or_else(|| fault("unknown"))?;
        let step = slot.step(at.now, terms, event);
        self.slots.insert(credential, step.state);
        self.sync(credential);
        let (mut entries, mut changed) = (Vec::new(), false);
        for effect in step.outcome? {
            match effect {
                rotation::Effect::Log(entry) => entries.push(entry),
                rotation::Effect::Changed => changed = true,
                rotation::Effect::Notify(_)
                | rotation::Effect::Roll(_)
                | rotation::Effect::Copy(_)
                | rotation::Effect::Apply(..)
                | rotation::Effect::Test(_)
                | rotation::Effect::EndSessions(..)
                | rotation::Effect::List(_)
                | rotation::Effect::Create(..)
                | rotation::Effect::Deactivate(..)
                | rotation::Effect::DeleteKey(_)
                | rotation::Effect::Forget(_)
                | rotation::Effect::Delete(_) => {}
            }
        }
        if changed {
            let named = |id: &CeremonyId| {
                self.ceremonies
                    .get(id)
                    .is_some_and(|it| it.ceremony.row.credentials().contains(&credential))
            };
            let open: Vec<_> = self.ceremonies.keys().copied().filter(named).collect();
            for id in open {
                entries.extend(self.changed(at, id)?);
            }
        }
        Ok(entries)
    }

    /// Steps a slot after what only the daemon's clocks decide is set as the entry says.
    pub(super) fn force(
        &mut self,
        at: &mut At<'_>,
        credential: CredentialId,
        event: impl FnOnce(&mut Slot, Millis) -> rotation::Event,
    ) -> Result<Vec<Event>, Fault> {
        let now = at.now.lived;
        let slot = self
            .slots
            .get_mut(&credential)
            .ok_or_else(|| fault("unknown"))?;
        let event = event(slot, now);
        self.slot_step(at, credential, event)
    }

    /// The holding follows its slot.
    pub(super) fn sync(&mut self, credential: CredentialId) {
        let (Some(holding), Some(slot)) = (
            self.holdings.get_mut(&credential),
            self.slots.get(&credential),
        ) else {
            return;
        };
        holding.follow(slot);
        let requester = |id: &CeremonyId| {
            self.checkouts
                .get(id)
                .map(|checkout| (*id, checkout.person))
        };
        holding.out = slot.out.keys().filter_map(requester).collect();
    }
}

/// The job as it must have been for the target to answer so; a slot whose job is about another
/// version, or at another step, keeps it and refuses the answer.
fn attempted(
    slot: &mut Slot,
    (now, two): (Millis, bool),
    id: VersionId,
    call: Call,
    answer: Answer,
) -> rotation::Event {
    match (call, slot.job) {
        (Call::Apply, Job::Copying { version }) if version == id.version => {
            slot.asked = Some((version, now));
            slot.job = Job::Applying {
                version,
                until: now,
            };
        }
        (Call::Test, Job::Testing { version, .. } | Job::Copying { version })
            if version == id.version && (two || matches!(slot.job, Job::Testing { .. })) =>
        {
            slot.job = Job::Testing {
                version,
                until: now,
                last: true,
            };
        }
        _ => {}
    }
    match call {
        Call::Test => rotation::Event::Tested(answer),
        Call::Apply | Call::List | Call::Create | Call::Deactivate | Call::Delete => {
            rotation::Event::Applied(answer)
        }
    }
}
