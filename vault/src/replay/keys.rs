//! Keys of targets with two slots, and pauses.
//!
//! What the target listed, and how many keys it holds, is not the auditor's to know. What the log must
//! show is that each key that was given up or deleted was the vault's own.

use super::{At, Event, Fault, Millis, Replay, Slot, fault};
use crate::{
    digest::Digest,
    id::{CredentialId, PersonId},
    name::KeyId,
    reference::Version,
    refusal::Refusal,
    rotation::{self, Job},
    world::{Stage, VersionId},
};

impl Replay {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    pub(super) fn judge_key(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        match at.record.event.clone() {
            Event::RotationKeysListed {
                version,
                keys: listed,
            } => {
                let keys = &mut self.slot(version.credential)?.keys;
                keys.asked = Some(listed.keys().cloned().collect());
                let foreign = listed.into_keys().map(|key| (key, false));
                keys.foreign = foreign.collect();
                let ours = &keys.ours;
                keys.foreign.retain(|key, _| !ours.contains_key(key));
                Ok(at.entry())
            }
            Event::RotationKeyLost {
                credential,
                key,
                person: None,
            } => {
                let slot = self.slot(credential)?;
                new_key(slot, &key)?;
                slot.keys.ours.insert(key, None);
                Ok(at.entry())
            }
            Event::RotationKeyLost {
                credential,
                key,
                person: Some(person),
            } => self.claimed(at, (credential, None), key, person),
            Event::RotationKeyDropped { version, key } => self.dropped(at, version, &key),
            Event::RotationKeyDeleted { credential, key } => {
                let slot = self.slot(credential)?;
                let current = slot.current();
                match slot.keys.ours.remove(&key) {
                    // Nobody may delete what is not the vault's, or what is in use.
                    None => Err(fault("foreign-key")),
                    Some(of) if of.is_some() && of == current => Err(fault("foreign-key")),
                    Some(_) => Ok(at.entry()),
                }
            }
            Event::RotationKeyClaimed {
                version,
                key,
                person,
            } => {
                let of = (version.credential, Some(version.version));
                self.claimed(at, of, key, person)
            }
            Event::RotationKeyFailed {
                credential,
                failures,
                ..
            } => {
                let slot = self.slot(credential)?;
                slot.failures = failures;
                if slot.retiring.is_none() {
                    slot.job = Job::Idle;
                }
                Ok(at.entry())
            }
            Event::RotationPaused {
                credential,
                until,
                person,
            } => {
                self.operator(person)?;
                match credential {
                    Some(id) => {
                        self.slot(id)?.paused = Some(Millis(until.ms()));
                    }
                    None => self.paused = true,
                }
                Ok(at.entry())
            }
            Event::RotationResumed { credential, person } => {
                self.operator(person)?;
                let paused = match credential {
                    Some(id) => self.slot(id)?.paused.take().is_some(),
                    None => std::mem::take(&mut self.paused),
                };
                if paused {
                    Ok(at.entry())
                } else {
                    Err(Refusal::NotPaused.into())
                }
            }
            // These only follow from others: a key from a sealing.
            _ => Err(fault("other-entry")),
        }
    }

    /// A version that the target made the key of, as the entry that follows says.
    pub(super) fn made(
        &mut self,
        credential: CredentialId,
        version: Version,
        (manifest, signature): (Digest, crate::event::Seal),
    ) -> Result<rotation::Event, Fault> {
        let key = self.making.remove(&credential);
        let key = key.ok_or_else(|| fault("key-unknown"))?;
        let slot = self.slot(credential)?;
        slot.job = Job::Creating {
            version,
            until: Millis(u64::MAX),
        };
        slot.held_until = Some(Millis(0));
        Ok(rotation::Event::Made {
            version,
            key,
            manifest,
            signature,
        })
    }

    /// The key of the version that the next entries seal.
    pub(super) fn making(
        &mut self,
        at: &At<'_>,
        version: VersionId,
        key: KeyId,
    ) -> Result<Vec<Event>, Fault> {
        let slot = self.slot(version.credential)?;
        new_key(slot, &key)?;
        if version.version != slot.next() {
            return Err(Refusal::NextVersion.into());
        }
        self.making.insert(version.credential, key);
        Ok(at.entry())
    }

    /// An operator says whose a key is.
    fn claimed(
        &mut self,
        at: &mut At<'_>,
        (credential, version): (CredentialId, Option<Version>),
        key: KeyId,
        person: PersonId,
    ) -> Result<Vec<Event>, Fault> {
        self.operator(person)?;
        self.slot(credential)?.job = Job::Idle;
        let event = rotation::Event::Claim(version, key, person);
        self.slot_step(at, credential, event)
    }

    fn dropped(
        &mut self,
        at: &At<'_>,
        version: VersionId,
        key: &KeyId,
    ) -> Result<Vec<Event>, Fault> {
        let now = at.now.lived;
        let slot = self.slot(version.credential)?;
        if slot.keys.ours.get(key) != Some(&Some(version.version)) {
            return Err(fault("foreign-key"));
        }
        let unproven = |kept: &&mut rotation::Kept| {
            kept.life.stage == Stage::Candidate && kept.life.rolled && !kept.life.proven
        };
        let kept = slot.versions.get_mut(&version.version).filter(unproven);
        let kept = kept.ok_or_else(|| fault("foreign-key"))?;
        kept.life.stage = Stage::Retired;
        kept.retired = Some(now);
        self.sync(version.credential);
        Ok(at.entry())
    }

    fn slot(&mut self, id: CredentialId) -> Result<&mut Slot, Fault> {
        self.slots.get_mut(&id).ok_or_else(|| fault("unknown"))
    }
}

/// A key that was not there when the target was last asked, and is nobody's yet.
fn new_key(slot: &Slot, key: &KeyId) -> Result<(), Fault> {
    let before = slot.keys.asked.as_ref();
    let new = before.is_some_and(|before| !before.contains(key));
    if new && !slot.keys.ours.contains_key(key) {
        Ok(())
    } else {
        Err(fault("foreign-key"))
    }
}
