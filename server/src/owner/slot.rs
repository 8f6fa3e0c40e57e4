//! Slots: what the owner does with the effects of a credential's rotation machine.
//!
//! The machine decides everything. What belongs to the transaction is done here; what happens outside
//! (sealing, the target) is noted for after the commit, and comes back as a step.
//!
//! # Invariants
//! 1. The lives in the credential's row are those of its slot, in every commit.
//! 2. A version's manifest, ciphertext and envelopes are stored in the transaction that logs it.

use std::collections::BTreeSet;

use keyturn_vault::{
    event::{Event as Entry, Evidence, Proof},
    id::CredentialId,
    name::KeyId,
    reference::Version,
    refusal::Refusal,
    rotation::{Effect, Event, Terms, UNFENCED_QUARANTINE},
    time::Span,
    world::Sealed,
};

use super::{
    ceremony::DAEMON,
    core::{Core, Held, Needs, put_object},
    time::DueKind,
    txn::{After, Row, Txn},
};
use crate::{refusal::Refused, rotation::Order, rows, sealing::Fresh, store::Name};

impl Core {
    /// One step of a slot, with everything that follows inside the transaction.
    pub fn step_slot(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        event: Event,
        actor: &str,
    ) -> Result<(), Refused> {
        self.step_slot_with(txn, id, event, actor, None).map(drop)
    }

    /// As [`Core::step_slot`] with the version that the event names; gives the number of its entry,
    /// if the slot took it.
    pub fn step_slot_with(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        event: Event,
        actor: &str,
        fresh: Option<Fresh>,
    ) -> Result<Option<u64>, Refused> {
        let held = self.credential(id)?;
        let (now, terms) = (self.now(), self.terms(held));
        let step = held.slot.clone().step(now, terms, event);
        let effects = step.outcome?;
        if let Some(held) = self.held.get_mut(&id)
            && held.slot != step.state
        {
            txn.touch_credential(Row::Slot(id), id, held);
            held.slot = step.state;
        }
        let version = fresh.as_ref().map(|fresh| fresh.manifest.version);
        if let Some(fresh) = fresh {
            self.keep(txn, id, fresh)?;
        }
        self.follow_lives(txn, id);
        let mut sealed = None;
        for effect in effects {
            let n = self.carry_out_slot(txn, id, effect, actor)?;
            sealed = sealed.or(n);
        }
        if let (Some(version), Some(entry)) = (version, sealed) {
            self.change_credential(txn, id, |row| {
                if let Some(state) = row.versions.get_mut(&version) {
                    state.entry = entry;
                }
            });
        }
        self.schedule_slot(txn, id);
        Ok(sealed)
    }

    /// Stores a version that the slot took (invariant 2).
    fn keep(&mut self, txn: &mut Txn, id: CredentialId, fresh: Fresh) -> Result<(), Refused> {
        let version = fresh.manifest.version;
        let Some(kept) = self.credential(id)?.slot.versions.get(&version).copied() else {
            return Ok(());
        };
        let digest = put_object(txn, &fresh.bytes);
        txn.put(
            Name::Version(id, version.number()).key(),
            rows::encode(&fresh.blob)?,
        );
        let state = rows::VersionState {
            life: kept.life,
            manifest: digest,
            maker: fresh.maker,
            entry: 0,
            sealed: self.now().wall,
            confirmed: BTreeSet::new(),
            inconsistent: false,
        };
        let sealed = Sealed {
            life: kept.life,
            digest,
            manifest: fresh.manifest.into(),
        };
        if let Some(held) = self.held.get_mut(&id) {
            held.holding.versions.insert(version, sealed);
        }
        self.change_credential(txn, id, |row| {
            row.versions.insert(version, state);
        });
        Ok(())
    }

    /// Invariant 1.
    fn follow_lives(&mut self, txn: &mut Txn, id: CredentialId) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let lives: Vec<_> = held
            .slot
            .versions
            .iter()
            .map(|(version, kept)| (*version, kept.life))
            .collect();
        let same = |(version, life): &(Version, _)| {
            held.row
                .versions
                .get(version)
                .is_none_or(|state| state.life == *life)
        };
        if lives.iter().all(same) {
            return;
        }
        self.change_credential(txn, id, |row| {
            for (version, life) in lives {
                if let Some(state) = row.versions.get_mut(&version) {
                    state.life = life;
                }
            }
        });
    }

    /// Gives the number of the entry that an effect appended for a sealed version.
    fn carry_out_slot(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        effect: Effect,
        actor: &str,
    ) -> Result<Option<u64>, Refused> {
        match effect {
            Effect::Log(event) => {
                let n = self.log(txn, actor, &event)?;
                self.note_proof(txn, id, &event);
                return Ok(matches!(event, Entry::VersionSealed { .. }).then_some(n));
            }
            Effect::Changed => self.live_set_changed(txn, id)?,
            Effect::Notify(notice) => self.tell_rotation(txn, id, notice)?,
            Effect::Delete(version) => txn.delete(Name::Version(id, version.number()).key()),
            outside @ (Effect::Roll(_)
            | Effect::Copy(_)
            | Effect::Apply(..)
            | Effect::Test(_)
            | Effect::EndSessions(..)
            | Effect::List(_)
            | Effect::Create(..)
            | Effect::Deactivate(..)
            | Effect::DeleteKey(_)
            | Effect::Forget(_)) => txn.after.push(After::Rotate(id, outside)),
        }
        Ok(None)
    }

    /// What an entry says of the current version's secret is kept for those who ask.
    fn note_proof(&mut self, txn: &mut Txn, id: CredentialId, event: &Entry) {
        let wall = self.now().wall;
        if let Entry::RotationDone { evidence, .. } = event {
            let evidence = evidence.clone();
            self.change_credential(txn, id, |row| row.evidence = Some(evidence));
        } else if let Entry::RotationCompleted { evidence, .. } = event {
            let evidence = evidence.clone();
            self.change_credential(txn, id, |row| {
                row.evidence = Some(evidence);
                // What was seen before is of the secret that people have replaced.
                row.probe = None;
            });
        } else if matches!(
            event,
            Entry::RotationPromoted { .. }
                | Entry::VersionPromoted {
                    proof: Proof::Worked(_),
                    ..
                }
        ) {
            self.change_credential(txn, id, |row| {
                row.proven = Some(wall);
                row.probe = None;
            });
        }
    }

    /// After the commit: what happens outside.
    pub(super) fn rotate(&self, id: CredentialId, effect: Effect) {
        let (Some(owner), Ok(held)) = (self.owner(), self.credential(id)) else {
            return;
        };
        let order = Order {
            credential: id,
            definition: std::sync::Arc::clone(&held.holding.definition),
            digest: held.holding.digest,
            known: std::sync::Arc::clone(&self.known),
            effect,
            issued: self.clock.running(),
        };
        self.workshop.take(owner.clone(), order);
    }

    /// What policy, definition and chance say.
    pub(super) fn terms(&self, held: &Held) -> Terms {
        let definition = &held.holding.definition;
        let policy = held.holding.policy(&self.known.charter);
        let span =
            |read: fn(&keyturn_vault::charter::Policy) -> Span| policy.map_or(Span::ZERO, read);
        let target = self.workshop.target(definition);
        Terms {
            connector: definition.is_automatic(),
            task: definition.task(),
            fence: target.fence,
            deadline: target.deadline,
            grace: span(|policy| policy.grace_secs),
            quarantine: policy.map_or(UNFENCED_QUARANTINE, |policy| policy.quarantine_secs),
            max_age: span(|policy| policy.rotate_max_age_secs),
            jitter: jitter(),
            two: definition.kind.two_slots().then_some(target.two),
            paused: self.vault.paused,
        }
    }

    /// Time has passed for a slot.
    pub(super) fn slot_tick(&mut self, txn: &mut Txn, id: CredentialId) -> Result<(), Refused> {
        if self.held.contains_key(&id) {
            self.step_slot(txn, id, Event::Tick, DAEMON)
        } else {
            for kind in [DueKind::Rotation, DueKind::Queued] {
                self.set_due(txn, kind, id.to_bytes(), None);
            }
            Ok(())
        }
    }

    /// The credentials whose rotation was running when the daemon stopped.
    pub(super) fn interrupted(&self) -> Needs {
        Needs {
            lenient: true,
            ..Needs::credentials(self.interrupted.iter().copied())
        }
    }

    /// The daemon has started again: no candidate's secret is in memory.
    pub(super) fn restart_slots(&mut self, txn: &mut Txn) -> Result<(), Refused> {
        for id in std::mem::take(&mut self.interrupted) {
            if self.held.contains_key(&id) {
                self.step_slot(txn, id, Event::Restart, DAEMON)?;
            }
        }
        Ok(())
    }

    /// A version was sealed for a rotation, or could not be.
    pub fn rolled(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        fresh: Option<Fresh>,
    ) -> Result<(), Refused> {
        let Some(fresh) = fresh else {
            return self.step_slot(txn, id, Event::NotSealed, DAEMON);
        };
        // Charter or definition may have changed while it was sealed.
        let fits = fresh.manifest.validate(
            &self.credential(id)?.holding.definition,
            &self.known.charter,
        );
        if fits.is_err() {
            return self.step_slot(txn, id, Event::NotSealed, DAEMON);
        }
        let event = Event::Sealed {
            version: fresh.manifest.version,
            manifest: keyturn_vault::digest::Digest::of(&fresh.bytes),
            signature: fresh.blob.signature.clone(),
        };
        self.step_slot_with(txn, id, event, DAEMON, Some(fresh))
            .map(drop)
    }

    /// A target with two slots made a key, which is sealed.
    pub fn key_made(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        key: KeyId,
        fresh: Fresh,
    ) -> Result<(), Refused> {
        let fits = fresh.manifest.validate(
            &self.credential(id)?.holding.definition,
            &self.known.charter,
        );
        if fits.is_err() {
            return self.step_slot(txn, id, Event::Unsealed(key), DAEMON);
        }
        let event = Event::Made {
            version: fresh.manifest.version,
            key,
            manifest: keyturn_vault::digest::Digest::of(&fresh.bytes),
            signature: fresh.blob.signature.clone(),
        };
        self.step_slot_with(txn, id, event, DAEMON, Some(fresh))
            .map(drop)
    }

    /// Old sessions are ended; the target showed this.
    pub fn sessions_ended(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        evidence: Evidence,
    ) -> Result<(), Refused> {
        self.step_slot(txn, id, Event::SessionsEnded(evidence), DAEMON)
    }

    /// A rotation is asked for by an operator.
    pub fn rotate_now(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        by: &keyturn_vault::reference::PersonRef,
    ) -> Result<Asked, Refused> {
        self.spare()?;
        let hands = self.credential(id)?.holding.definition.task().is_some();
        let event = Event::Owe(keyturn_vault::event::Cause::Asked(by.id));
        match self.step_slot(txn, id, event, &by.to_string()) {
            Ok(()) | Err(Refused::Vault(Refusal::Rotating)) if hands => Ok(Asked::Task),
            Ok(()) => Ok(Asked::Due),
            Err(Refused::Vault(Refusal::Rotating)) => Ok(Asked::Already),
            Err(refused) => Err(refused),
        }
    }
}

/// What a rotation is that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Due from now on.
    Due,
    /// Due already, or running.
    Already,
    /// A task for people.
    Task,
}

/// A random number from 0 to 1000; without one every daemon backs off alike, and no worse.
pub(super) fn jitter() -> u16 {
    let mut bytes = [0; 2];
    if getrandom::fill(&mut bytes).is_err() {
        return 0;
    }
    u16::from_be_bytes(bytes)
        .checked_rem(1001)
        .unwrap_or_default()
}
