//! Targets with two slots: several keys at a time, whose secrets the target makes itself.
//!
//! ```text
//!        due         keys known          made, sealed      enough copies     used once
//! Idle ───────► Listing ───────► Creating ───────► Copying ───────► Testing ───────► Promoted ─► Idle
//!                 │  ▲                                                              old ones inactive,
//!                 ▼  │                                                              seen to be so
//!               Deleting   what is ours and of no use, before a new one is made
//! ```
//!
//! The old key works until the new one is proven, so nothing here can lock anybody out; what can go
//! wrong is to leave keys behind, or to delete somebody else's. A key is ours when its create was
//! answered, when an operator says so, or when a create got no answer and the key that is there
//! afterwards bears the name that only this credential's creates give. Anything else is foreign: that a
//! key appeared just when a create of ours was lost does not prove whose it is.
//!
//! # Invariants
//! 1. Only keys that are ours are deactivated or deleted, and never that of the current version.
//! 2. An unproven version's key is given up only while the current one's is there and active.
//! 3. The keys that are there are known, and stored, before the target is asked for one more.
//! 4. A foreign key ends the attempt: an operator removes it or says whose it is, of one that the target
//!    was seen to have.
//! 5. The old versions retire after their keys were *seen* not to be active.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Answer, Call, Digest, Effect, Entry, Job, Maker, Millis, Now, PersonId, Refusal, Seal, Slot,
    Span, Stage, Stuck, Terms, Version,
};
use crate::name::KeyId;

/// What is promised of a target with two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Two {
    /// How many keys it holds at most.
    pub quota: usize,
    /// How long it takes until all of it knows of a change.
    pub settle: Span,
}

/// A key as the target lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Whether the target accepts it.
    pub active: bool,
    /// Whether it bears the name that only this credential's creates give; never where the target
    /// names its keys itself.
    pub named: bool,
}

/// What is known of the keys at the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Those that are ours, with their versions; none where the secret is lost.
    pub ours: BTreeMap<KeyId, Option<Version>>,
    /// Those that were seen there last and are not ours; true where one came when a create of ours
    /// got no answer, and may be its.
    #[serde(default)]
    pub foreign: BTreeMap<KeyId, bool>,
    /// The keys that were there before a create that has not been answered, or not clearly.
    pub asked: Option<BTreeSet<KeyId>>,
    /// The key that is being deleted.
    pub deleting: Option<KeyId>,
}

impl Keys {
    /// The key of a version.
    pub fn of(&self, version: Version) -> Option<&KeyId> {
        self.ours
            .iter()
            .find(|(_, of)| **of == Some(version))
            .map(|(key, _)| key)
    }

    /// A version has the secret, and so the key, of another one from now on.
    pub(super) fn follow(&mut self, of: Version, version: Version) {
        for owner in self.ours.values_mut().filter(|owner| **owner == Some(of)) {
            *owner = Some(version);
        }
    }
}

impl Slot {
    /// Begins an attempt with a look at what is there.
    pub(super) fn list(&mut self) -> Vec<Effect> {
        let version = self.next();
        self.job = Job::Listing { version };
        vec![Effect::List(version)]
    }

    /// What is there decides what follows (invariants 3 and 4).
    pub(super) fn listed(
        &mut self,
        now: Now,
        terms: Terms,
        (version, two): (Version, Two),
        listed: &BTreeMap<KeyId, Seen>,
    ) -> Vec<Effect> {
        let entry = Entry::RotationKeysListed {
            version: self.id(version),
            keys: listed
                .iter()
                .map(|(key, seen)| (key.clone(), seen.active))
                .collect(),
        };
        let mut effects = self.account(listed);
        effects.push(Effect::Log(entry));
        if !self.keys.foreign.is_empty() {
            effects.push(Effect::Forget(version));
            effects.extend(self.stuck(Stuck::Foreign));
            return effects;
        }
        // What is gone is of no interest, but for the versions that people could ask about.
        let live: BTreeSet<Version> = self.live().collect();
        let kept = |key: &KeyId, of: &mut Option<Version>| {
            listed.contains_key(key) || of.is_some_and(|of| live.contains(&of))
        };
        self.keys.ours.retain(kept);
        if let Some((key, dropped)) = self.superfluous(two, listed) {
            effects.push(Effect::Forget(version));
            if let Some(dropped) = dropped {
                effects.extend(self.drop_key(now, dropped, &key));
            }
            effects.extend(self.delete_key(key));
            return effects;
        }
        if listed.len() >= two.quota {
            effects.push(Effect::Forget(version));
            effects.extend(self.stuck(Stuck::Full));
            return effects;
        }
        if version != self.next() || self.is_held(now) || !self.has_room() {
            self.job = Job::Idle;
            effects.push(Effect::Forget(version));
            return effects;
        }
        let until = now.lived.after(terms.deadline.ms());
        self.keys.asked = Some(listed.keys().cloned().collect());
        // Not before this is over, and everybody at the target knows, is there a new attempt.
        self.asked = Some((version, until.after(two.settle.ms())));
        self.job = Job::Creating { version, until };
        effects.push(Effect::Create(version, terms.deadline));
        effects
    }

    /// Whose the keys are that are there. After a create whose end is not known, a new one that bears
    /// our name is its; of any other nobody can tell, and a deleted key does not come back.
    fn account(&mut self, listed: &BTreeMap<KeyId, Seen>) -> Vec<Effect> {
        let asked = self.keys.asked.take();
        let doubted = std::mem::take(&mut self.keys.foreign);
        let mut effects = Vec::new();
        for (key, seen) in listed {
            if self.keys.ours.contains_key(key) {
                continue;
            }
            let new = asked.as_ref().is_some_and(|before| !before.contains(key));
            if new && seen.named {
                self.keys.ours.insert(key.clone(), None);
                effects.push(self.lost(key.clone(), None));
            } else {
                let perhaps = new || doubted.get(key) == Some(&true);
                self.keys.foreign.insert(key.clone(), perhaps);
            }
        }
        effects
    }

    fn lost(&self, key: KeyId, person: Option<PersonId>) -> Effect {
        Effect::Log(Entry::RotationKeyLost {
            credential: self.credential,
            key,
            person,
        })
    }

    /// A key that goes before a new one is made, with the unproven version that is given up by it.
    fn superfluous(
        &self,
        two: Two,
        listed: &BTreeMap<KeyId, Seen>,
    ) -> Option<(KeyId, Option<Version>)> {
        let there = || {
            self.keys
                .ours
                .iter()
                .filter(|(key, _)| listed.contains_key(*key))
        };
        if let Some((key, _)) = there().find(|(_, of)| of.is_none()) {
            return Some((key.clone(), None));
        }
        let current = self.current().and_then(|current| self.keys.of(current));
        let safe = current
            .and_then(|key| listed.get(key))
            .is_some_and(|seen| seen.active);
        let stage = |of: &Option<Version>| {
            let kept = self.versions.get(&(*of)?)?;
            Some((kept.life.stage, kept.life.proven || !kept.life.rolled))
        };
        if safe {
            let unproven = |of: &Option<Version>| stage(of) == Some((Stage::Candidate, false));
            if let Some((key, of)) = there().find(|(_, of)| unproven(of)) {
                return Some((key.clone(), *of));
            }
        }
        if listed.len() < two.quota {
            return None;
        }
        // Room is needed before the quarantine is over. The key has been inactive since then.
        let retired = |of: &Option<Version>| {
            stage(of).is_none_or(|(stage, _)| matches!(stage, Stage::Retired | Stage::Destroyed))
        };
        let idle = |key: &KeyId| listed.get(key).is_some_and(|seen| !seen.active);
        there()
            .find(|(key, of)| retired(of) && (safe || idle(key)))
            .map(|(key, _)| (key.clone(), None))
    }

    /// An unproven version is given up (invariant 2).
    fn drop_key(&mut self, now: Now, version: Version, key: &KeyId) -> Vec<Effect> {
        if let Some(kept) = self.versions.get_mut(&version) {
            kept.life.stage = Stage::Retired;
            kept.retired = Some(now.lived);
        }
        let entry = Entry::RotationKeyDropped {
            version: self.id(version),
            key: key.clone(),
        };
        vec![Effect::Log(entry), Effect::Changed]
    }

    fn delete_key(&mut self, key: KeyId) -> Vec<Effect> {
        self.job = Job::Deleting;
        self.keys.deleting = Some(key.clone());
        vec![Effect::DeleteKey(key)]
    }

    /// A key that is of no use any more, when nothing else goes on: lost, or of a version whose
    /// quarantine is over.
    pub(super) fn clean(&mut self, now: Now, quarantine: Span) -> Vec<Effect> {
        if self.job != Job::Idle || !self.holds.is_empty() {
            return Vec::new();
        }
        let over = |of: &Option<Version>| {
            let Some(version) = of else { return true };
            self.versions.get(version).is_none_or(|kept| {
                let over = |retired: Millis| now.lived >= retired.after(quarantine.ms());
                kept.life.stage == Stage::Retired && kept.retired.is_some_and(over)
            })
        };
        let useless = self.keys.ours.iter().find(|(_, of)| over(of));
        match useless.map(|(key, _)| key.clone()) {
            Some(key) => self.delete_key(key),
            None => Vec::new(),
        }
    }

    /// A key was made and sealed. Where a ceremony has come in between, or another version has its
    /// number, it counts as lost.
    pub(super) fn made(
        &mut self,
        now: Now,
        (expected, version): (Version, Version),
        key: KeyId,
        (manifest, signature): (Digest, Seal),
    ) -> Vec<Effect> {
        (self.keys.asked, self.asked) = (None, None);
        if version != expected || version != self.next() || self.is_held(now) || !self.has_room() {
            self.keys.ours.insert(key.clone(), None);
            self.job = Job::Idle;
            return vec![self.lost(key, None), Effect::Forget(version)];
        }
        self.add(version, Stage::Candidate, true, None);
        self.keys.ours.insert(key.clone(), Some(version));
        self.job = Job::Copying { version };
        let id = self.id(version);
        vec![
            Effect::Log(Entry::RotationKeyMade { version: id, key }),
            Effect::Log(Entry::VersionSealed {
                version: id,
                manifest,
                maker: Maker::Rotation,
                signature,
            }),
            Effect::Log(Entry::RotationStarted { version: id }),
            Effect::Changed,
            Effect::Copy(version),
        ]
    }

    /// A key was made and could not be sealed.
    pub(super) fn unsealed(
        &mut self,
        now: Now,
        terms: Terms,
        version: Version,
        key: KeyId,
    ) -> Vec<Effect> {
        (self.keys.asked, self.asked) = (None, None);
        self.keys.ours.insert(key.clone(), None);
        let mut effects = vec![self.lost(key, None), Effect::Forget(version)];
        effects.extend(self.key_failed(now, terms, Call::Create, Answer::Done));
        effects
    }

    /// No key was made, or nobody knows.
    pub(super) fn not_made(
        &mut self,
        now: Now,
        terms: Terms,
        version: Version,
        answer: Answer,
    ) -> Vec<Effect> {
        if answer == Answer::Refused {
            (self.keys.asked, self.asked) = (None, None);
        }
        let mut effects = vec![Effect::Forget(version)];
        effects.extend(self.key_failed(now, terms, Call::Create, answer));
        effects
    }

    /// What the target says to a deletion.
    pub(super) fn key_deleted(&mut self, now: Now, terms: Terms, answer: Answer) -> Vec<Effect> {
        let key = self.keys.deleting.take();
        let (Some(key), Answer::Done) = (key, answer) else {
            return self.key_failed(now, terms, Call::Delete, answer);
        };
        self.keys.ours.remove(&key);
        self.job = Job::Idle;
        if self.owed.is_empty() {
            self.failures = 0;
        }
        let entry = Entry::RotationKeyDeleted {
            credential: self.credential,
            key,
        };
        let mut effects = vec![Effect::Log(entry)];
        effects.extend(self.tick(now, terms));
        effects
    }

    /// The old keys are to be inactive (invariants 1 and 5).
    pub(super) fn deactivate(&self, version: Version, grace: Span) -> Effect {
        let replaced = |old: Version| {
            let gone = self
                .versions
                .get(&old)
                .is_none_or(|kept| matches!(kept.life.stage, Stage::Retired | Stage::Destroyed));
            gone || self
                .retiring
                .as_ref()
                .is_some_and(|retiring| retiring.versions.contains(&old))
        };
        let old = self
            .keys
            .ours
            .iter()
            .filter(|(_, of)| of.is_none_or(replaced));
        let keys = old.map(|(key, _)| key.clone()).collect();
        Effect::Deactivate(version, keys, grace)
    }

    /// An old key is still active, or nobody knows.
    pub(super) fn still_active(
        &mut self,
        now: Now,
        terms: Terms,
        version: Version,
        answer: Answer,
    ) -> Vec<Effect> {
        let effects = self.key_failed(now, terms, Call::Deactivate, answer);
        if let Job::BackingOff { until } = self.job {
            self.job = Job::Revoking { version, until };
        }
        effects
    }

    /// Whether old keys of a rotation that proved a new one are still to be deactivated.
    pub(super) fn revoking(&self) -> Option<Version> {
        self.retiring
            .as_ref()
            .filter(|retiring| retiring.rotation && retiring.evidence.is_none())
            .map(|retiring| retiring.proven)
    }

    /// An operator says that a key is that of a version; or that the vault had it made and nobody has
    /// its secret, which is believed only of one that was seen there, as it is deleted for that.
    pub(super) fn claim(
        &mut self,
        version: Option<Version>,
        key: KeyId,
        person: PersonId,
    ) -> Result<Vec<Effect>, Refusal> {
        if !matches!(self.job, Job::Idle | Job::Stuck(_) | Job::BackingOff { .. }) {
            return Err(Refusal::Rotating);
        }
        let claimable = match version {
            Some(version) => {
                self.versions.contains_key(&version) && self.keys.of(version).is_none()
            }
            None => self.keys.foreign.contains_key(&key),
        };
        if !claimable || self.keys.ours.contains_key(&key) {
            return Err(Refusal::NotClaimable);
        }
        self.keys.foreign.remove(&key);
        self.keys.ours.insert(key.clone(), version);
        let effect = match version.map(|version| self.id(version)) {
            Some(version) => Effect::Log(Entry::RotationKeyClaimed {
                version,
                key,
                person,
            }),
            None => self.lost(key, Some(person)),
        };
        Ok(vec![effect])
    }

    pub(super) fn key_failed(
        &mut self,
        now: Now,
        terms: Terms,
        call: Call,
        answer: Answer,
    ) -> Vec<Effect> {
        let pause = self.next_pause(now, terms);
        let entry = Entry::RotationKeyFailed {
            credential: self.credential,
            call,
            answer,
            failures: self.failures,
        };
        let mut effects = vec![Effect::Log(entry)];
        effects.extend(self.back_off(pause));
        effects
    }
}
