//! Definitions, versions, rotations.

use super::{At, Fault, Replay, fault};
use crate::{
    change,
    charter::Role,
    check::{Check, owner},
    definition::Definition,
    digest::Digest,
    event::{Event, Maker, Seal},
    id::{CeremonyId, CredentialId, PersonId},
    jcs::Document as _,
    machine::Millis,
    manifest::Manifest,
    reference::Signer,
    refusal::Refusal,
    rotation::{self, Job, Slot, Terms, Two},
    text,
    time::Span,
    world::{Holding, Life, Sealed, Stage, VersionId},
};

impl Replay {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    pub(super) fn judge_credential(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        match &at.record.event {
            Event::CredentialDefined {
                credential,
                definition,
                signature,
                ceremony,
                path,
            } => {
                let digest = *definition;
                let new = at.document(&digest, |bytes| Definition::from_bytes(bytes).ok())?;
                if new.credential != *credential || new.path != *path {
                    return Err(fault("document"));
                }
                match ceremony {
                    None => self.add(at, signature, new, digest)?,
                    // Signed in the request that names its digest, and by everybody who agreed.
                    Some(ceremony) => self.redefine(*ceremony, new, digest)?,
                }
                Ok(at.entry())
            }
            Event::VersionSealed {
                version,
                maker,
                signature,
                manifest,
            } => {
                let digest = *manifest;
                let manifest = at.document(&digest, |bytes| Manifest::from_bytes(bytes).ok())?;
                self.sealed(
                    at,
                    *version,
                    *maker,
                    signature,
                    Sealed {
                        life: NEW,
                        digest,
                        manifest: manifest.into(),
                    },
                )
            }
            Event::VersionRetired { credential, .. } => self.force(at, *credential, |slot, _| {
                if let Some(retiring) = &mut slot.retiring {
                    retiring.latest = Millis(0);
                }
                rotation::Event::Tick
            }),
            Event::VersionDestroyed { version } => self.destroyed(at, *version),
            // What a target shows is not the auditor's to know; of what, is.
            Event::VersionDiverged { version, .. } | Event::VersionMatches { version } => {
                let current = self.slots.get(&version.credential).and_then(Slot::current);
                if current == Some(version.version) {
                    Ok(at.entry())
                } else {
                    Err(fault("unknown"))
                }
            }
            Event::VersionRecovered {
                version,
                manifest,
                ceremony,
            } => self.recovered(at, *version, *manifest, *ceremony),
            Event::ShareConfirmed { version, person } => {
                let sealed = self
                    .holdings
                    .get(&version.credential)
                    .and_then(|it| it.versions.get(&version.version));
                let holds = |sealed: &Sealed| {
                    sealed
                        .manifest
                        .groups
                        .iter()
                        .any(|it| it.holder(*person).is_some())
                };
                if sealed.is_some_and(holds) {
                    Ok(at.entry())
                } else {
                    Err(Refusal::NotHolder.into())
                }
            }
            _ => self.judge_rotation(at),
        }
    }

    fn destroyed(&mut self, at: &mut At<'_>, version: VersionId) -> Result<Vec<Event>, Fault> {
        let terms = self.terms(version.credential)?;
        let slot = self
            .slots
            .get_mut(&version.credential)
            .ok_or_else(|| fault("unknown"))?;
        let kept = slot.versions.get_mut(&version.version);
        let kept = kept
            .filter(|kept| kept.life.stage == Stage::Retired)
            .ok_or_else(|| fault("unknown"))?;
        if kept
            .retired
            .is_none_or(|since| at.now.lived < since.after(terms.quarantine.ms()))
        {
            at.warn(Refusal::Destroyed.into());
        }
        kept.life.stage = Stage::Destroyed;
        self.sync(version.credential);
        Ok(at.entry())
    }

    fn recovered(
        &mut self,
        at: &mut At<'_>,
        version: VersionId,
        digest: Digest,
        ceremony: CeremonyId,
    ) -> Result<Vec<Event>, Fault> {
        let manifest = at.document(&digest, |bytes| Manifest::from_bytes(bytes).ok())?;
        if (manifest.credential, manifest.version) != (version.credential, version.version) {
            return Err(fault("document"));
        }
        if !self.found.remove(&(ceremony, digest)) {
            return Err(fault("undecided"));
        }
        let sealed = Sealed {
            life: NEW,
            digest,
            manifest: manifest.into(),
        };
        self.keep(version, sealed)?;
        let event = rotation::Event::Recovered {
            version: version.version,
            manifest: digest,
            ceremony,
        };
        self.slot_step(at, version.credential, event)
    }

    pub(super) fn operator(&self, person: PersonId) -> Result<(), Fault> {
        let person = self.world()?.charter.person(person);
        if person.is_some_and(|person| person.has(Role::Operator)) {
            Ok(())
        } else {
            Err(Refusal::NotOperator.into())
        }
    }

    fn add(
        &mut self,
        at: &mut At<'_>,
        signature: &Seal,
        new: Definition,
        digest: Digest,
    ) -> Result<(), Fault> {
        let world = self.world()?;
        at.out.checks.push(Check::document(
            world.charter,
            digest,
            signature.signer,
            &signature.signature,
        ));
        let person = owner(world.charter, signature.signer).ok_or_else(|| fault("signer"))?;
        let looks = new.path.skeleton();
        let taken = self
            .holdings
            .values()
            .any(|holding| holding.definition.path.skeleton() == looks);
        change::add(
            world,
            person,
            &new,
            |id| self.holdings.contains_key(&id),
            |_| taken,
        )?;
        let (id, versions, out) = (
            new.credential,
            std::collections::BTreeMap::new(),
            std::collections::BTreeMap::new(),
        );
        self.holdings.insert(
            id,
            Holding {
                definition: new.into(),
                digest,
                versions,
                out,
            },
        );
        self.slots.insert(id, Slot::new(id));
        Ok(())
    }

    fn redefine(
        &mut self,
        ceremony: CeremonyId,
        new: Definition,
        digest: Digest,
    ) -> Result<(), Fault> {
        let credential = new.credential;
        let holding = self
            .holdings
            .get(&credential)
            .ok_or_else(|| fault("unknown"))?;
        let change = text::Change::Definition {
            credential,
            old: holding.digest,
            new: digest,
        };
        change::definition(self.world()?, holding, &new)?;
        self.take_decided(ceremony, &text::Purpose::Change(change))?;
        if let Some(holding) = self.holdings.get_mut(&credential) {
            (holding.definition, holding.digest) = (new.into(), digest);
        }
        Ok(())
    }

    pub(super) fn sealed(
        &mut self,
        at: &mut At<'_>,
        version: VersionId,
        maker: Maker,
        signature: &Seal,
        sealed: Sealed,
    ) -> Result<Vec<Event>, Fault> {
        let world = self.world()?;
        let manifest = &sealed.manifest;
        let named =
            manifest.credential == version.credential && manifest.version == version.version;
        let holding = self
            .holdings
            .get(&version.credential)
            .filter(|_| named)
            .ok_or_else(|| fault("unknown"))?;
        if manifest.charter != world.in_force {
            return Err(Refusal::WrongRoster.into());
        }
        manifest
            .validate(&holding.definition, world.charter)
            .map_err(|error| Fault {
                detail: error.to_string(),
                ..fault("document")
            })?;
        at.out.checks.push(Check::document(
            world.charter,
            sealed.digest,
            signature.signer,
            &signature.signature,
        ));
        let by_maker = match maker {
            Maker::Deposit(person) => owner(world.charter, signature.signer) == Some(person),
            Maker::Rotation | Maker::Reshare(_) => matches!(signature.signer, Signer::Node(_)),
        };
        if !by_maker {
            return Err(fault("signer"));
        }
        if maker == Maker::Rotation && !holding.definition.is_automatic() {
            return Err(Refusal::NoConnector.into());
        }
        let (number, digest, signature) = (version.version, sealed.digest, signature.clone());
        let two = holding.definition.kind.two_slots();
        let slot = self
            .slots
            .entry(version.credential)
            .or_insert_with(|| Slot::new(version.credential));
        let event = match maker {
            Maker::Deposit(person) => rotation::Event::Deposit {
                version: number,
                manifest: digest,
                person,
                signature,
            },
            Maker::Rotation if two => self.made(version.credential, number, (digest, signature))?,
            Maker::Rotation => {
                // When a rotation begins, and what holds it, is a matter of the daemon's clocks.
                slot.job = Job::Sealing { version: number };
                slot.held_until = Some(Millis(0));
                rotation::Event::Sealed {
                    version: number,
                    manifest: digest,
                    signature,
                }
            }
            Maker::Reshare(ceremony) => {
                let of = slot.current().ok_or_else(|| fault("unknown"))?;
                rotation::Event::Reshared {
                    version: number,
                    of,
                    manifest: digest,
                    ceremony,
                    signature,
                }
            }
        };
        self.keep(version, sealed)?;
        let mut entries = self.slot_step(at, version.credential, event)?;
        // It came before this one.
        entries.retain(|entry| !matches!(entry, Event::RotationKeyMade { .. }));
        Ok(entries)
    }

    pub(super) fn keep(&mut self, version: VersionId, sealed: Sealed) -> Result<(), Fault> {
        let holding = self
            .holdings
            .get_mut(&version.credential)
            .ok_or_else(|| fault("unknown"))?;
        holding.versions.entry(version.version).or_insert(sealed);
        Ok(())
    }

    pub(super) fn terms(&self, credential: CredentialId) -> Result<Terms, Fault> {
        let holding = self
            .holdings
            .get(&credential)
            .ok_or_else(|| fault("unknown"))?;
        let policy = holding
            .policy(self.world()?.charter)
            .ok_or_else(|| fault("unknown"))?;
        Ok(Terms {
            connector: holding.definition.is_automatic(),
            task: holding.definition.task(),
            // Whether the target has a fence is not in the log.
            fence: true,
            deadline: Span::ZERO,
            grace: policy.grace_secs,
            quarantine: policy.quarantine_secs,
            max_age: Span::ZERO,
            jitter: 0,
            two: holding.definition.kind.two_slots().then_some(Two {
                quota: usize::MAX,
                settle: Span::ZERO,
            }),
            paused: None,
        })
    }
}

/// A version that nobody has proven.
const NEW: Life = Life {
    stage: Stage::Candidate,
    proven: false,
    rolled: false,
};
