//! The lives of versions: deposited, resealed, proven, retired, destroyed; and what is owed.

use super::{
    BTreeSet, Cause, CeremonyId, Digest, Effect, Entry, Evidence, HOLD, Job, Kept, Life, MAX_LIVE,
    MAX_OWED, Maker, Notice, Now, PersonId, Proof, Refusal, Retiring, Seal, Slot, Stage, Terms,
    Version, VersionId,
};

impl Slot {
    /// Whether one version more can live.
    pub(super) fn has_room(&self) -> bool {
        self.live().count() < MAX_LIVE
    }

    pub(super) fn add(
        &mut self,
        version: Version,
        stage: Stage,
        rolled: bool,
        depositor: Option<PersonId>,
    ) {
        let life = Life {
            stage,
            proven: false,
            rolled,
        };
        self.versions.insert(
            version,
            Kept {
                life,
                depositor,
                retired: None,
                anew: None,
            },
        );
    }

    pub(super) fn deposit(
        &mut self,
        now: Now,
        version: Version,
        manifest: Digest,
        person: PersonId,
        signature: Seal,
    ) -> Result<Vec<Effect>, Refusal> {
        if version != self.next() {
            return Err(Refusal::NextVersion);
        }
        let unproven =
            |kept: &Kept| kept.life.stage == Stage::Candidate && kept.depositor == Some(person);
        if self.versions.values().any(unproven) {
            return Err(Refusal::Unproven);
        }
        if !self.has_room() {
            return Err(Refusal::TooManyLive);
        }
        let first = self.versions.is_empty();
        self.add(
            version,
            if first {
                Stage::Current
            } else {
                Stage::Candidate
            },
            false,
            Some(person),
        );
        if first {
            self.current_since = Some(now.lived);
        }
        let entry = Entry::VersionSealed {
            version: self.id(version),
            manifest,
            maker: Maker::Deposit(person),
            signature,
        };
        Ok(vec![
            Effect::Log(entry),
            Effect::Changed,
            Effect::Copy(version),
        ])
    }

    pub(super) fn reshared(
        &mut self,
        now: Now,
        (version, of): (Version, Version),
        manifest: Digest,
        ceremony: CeremonyId,
        signature: Seal,
    ) -> Result<Vec<Effect>, Refusal> {
        if version != self.next() {
            return Err(Refusal::NextVersion);
        }
        if self.current() != Some(of) {
            return Err(Refusal::NotPromotable);
        }
        if !self.has_room() {
            return Err(Refusal::TooManyLive);
        }
        let since = self.current_since;
        let kept = self.versions.get(&of);
        let proven = kept.is_some_and(|kept| kept.life.proven);
        // Who deposited the secret stays who did: of two people who are wanted, the other completes it.
        let depositor = kept.and_then(|kept| kept.depositor);
        let secret = self.secret_of(of);
        self.add(version, Stage::Candidate, false, depositor);
        self.promote(now, version);
        self.keys.follow(of, version);
        // The same secret: no younger, and no better proven.
        self.current_since = since;
        if let Some(kept) = self.versions.get_mut(&version) {
            kept.life.proven = proven;
            kept.anew = Some(secret);
        }
        self.owed.retain(|(cause, _)| *cause != Cause::Roster);
        let id = self.id(version);
        Ok(vec![
            Effect::Log(Entry::VersionSealed {
                version: id,
                manifest,
                maker: Maker::Reshare(ceremony),
                signature,
            }),
            Effect::Log(Entry::VersionPromoted {
                version: id,
                proof: Proof::Reshare(ceremony),
            }),
            Effect::Changed,
            Effect::Copy(version),
        ])
    }

    /// A version that was found in a copy only. Whether the target has it nobody knows: it is live and
    /// unproven, whatever the number of others, and where there was no version it is current.
    pub(super) fn recovered(
        &mut self,
        now: Now,
        version: Version,
        manifest: Digest,
        ceremony: CeremonyId,
    ) -> Result<Vec<Effect>, Refusal> {
        if self.versions.contains_key(&version) {
            return Err(Refusal::NextVersion);
        }
        let first = self.versions.is_empty();
        let stage = if first {
            Stage::Current
        } else {
            Stage::Candidate
        };
        self.add(version, stage, true, None);
        if first {
            self.current_since = Some(now.lived);
        }
        let entry = Entry::VersionRecovered {
            version: self.id(version),
            manifest,
            ceremony,
        };
        Ok(vec![
            Effect::Log(entry),
            Effect::Changed,
            Effect::Copy(version),
        ])
    }

    /// A version is current from now on; the one before it is superseded.
    pub(super) fn promote(&mut self, now: Now, version: Version) {
        for (number, kept) in &mut self.versions {
            if *number == version {
                kept.life.stage = Stage::Current;
                kept.life.proven = true;
            } else if kept.life.stage == Stage::Current {
                kept.life.stage = Stage::Superseded;
            }
        }
        self.current_since = Some(now.lived);
    }

    /// What a requester's login proves: that a version is the target's secret, unless it is older
    /// than the current one, or the connector has proven another since (invariant 3).
    pub(super) fn worked(
        &mut self,
        now: Now,
        version: Version,
        ceremony: CeremonyId,
    ) -> Result<Vec<Effect>, Refusal> {
        let life = self
            .versions
            .get(&version)
            .ok_or(Refusal::NotPromotable)?
            .life;
        let current = self
            .current()
            .and_then(|current| Some((current, self.versions.get(&current)?)));
        let rolled = current.is_some_and(|(_, kept)| kept.life.rolled);
        let newer = current.is_none_or(|(current, _)| version > current);
        let begun = self.out.get(&ceremony);
        let since = begun
            .is_none_or(|begun| rolled && self.current_since.is_some_and(|since| since >= *begun));
        let mut effects = Vec::new();
        match life.stage {
            Stage::Candidate | Stage::Current if since => return Ok(effects),
            Stage::Candidate if newer => {
                self.promote(now, version);
                let entry = Entry::VersionPromoted {
                    version: self.id(version),
                    proof: Proof::Worked(ceremony),
                };
                effects.extend([Effect::Log(entry), Effect::Changed]);
            }
            Stage::Current => {
                if let Some(kept) = self.versions.get_mut(&version) {
                    kept.life.proven = true;
                }
            }
            Stage::Candidate | Stage::Superseded | Stage::Retired | Stage::Destroyed => {
                return Ok(effects);
            }
        }
        self.replace(now, version, false);
        effects.extend(self.retire(now));
        Ok(effects)
    }

    /// Notes what a proven version replaces (invariant 3).
    pub(super) fn replace(&mut self, now: Now, proven: Version, rotation: bool) {
        let replaced = |number: Version, life: Life| {
            let known = rotation || life.proven || !life.rolled;
            let older = number < proven || life.stage == Stage::Superseded;
            life.stage.live() && number != proven && older && known
        };
        let versions = self
            .versions
            .iter()
            .filter(|(number, kept)| replaced(**number, kept.life));
        let versions: BTreeSet<_> = versions.map(|(number, _)| *number).collect();
        match &mut self.retiring {
            // A rotation that is ending sessions retires these too, when it is done.
            Some(retiring) if retiring.rotation && !rotation => retiring.versions.extend(versions),
            Some(_) | None => {
                let latest = now.lived.after(HOLD.ms());
                self.retiring = Some(Retiring {
                    proven,
                    versions,
                    rotation,
                    evidence: None,
                    latest,
                });
            }
        }
    }

    /// Retires what was replaced, unless a ceremony holds it (invariant 5).
    pub(super) fn retire(&mut self, now: Now) -> Vec<Effect> {
        let held = |retiring: &Retiring| !self.holds.is_empty() && now.lived < retiring.latest;
        let ready = |retiring: &mut Retiring| {
            (!retiring.rotation || retiring.evidence.is_some()) && !held(retiring)
        };
        let Some(Retiring {
            proven,
            versions,
            evidence,
            ..
        }) = self.retiring.take_if(ready)
        else {
            return Vec::new();
        };
        let mut retired = BTreeSet::new();
        for (number, kept) in &mut self.versions {
            if versions.contains(number)
                && kept.life.stage.live()
                && kept.life.stage != Stage::Current
            {
                kept.life.stage = Stage::Retired;
                kept.retired = Some(now.lived);
                retired.insert(*number);
            }
        }
        let mut effects = Vec::new();
        if let Some(evidence) = evidence {
            self.job = Job::Idle;
            let entry = Entry::RotationDone {
                version: self.id(proven),
                evidence,
                retired: retired.clone(),
            };
            effects.extend([Effect::Log(entry), Effect::Notify(Notice::Done)]);
        } else if !retired.is_empty() {
            let entry = Entry::VersionRetired {
                credential: self.credential,
                versions: retired.clone(),
            };
            effects.push(Effect::Log(entry));
        }
        if !retired.is_empty() {
            effects.push(Effect::Changed);
        }
        effects
    }

    /// Destroys what has been retired for long enough (invariant 5: not while a ceremony holds).
    pub(super) fn destroy(&mut self, now: Now, terms: Terms) -> Vec<Effect> {
        if !self.holds.is_empty() {
            return Vec::new();
        }
        let quarantine = terms.kept();
        let mut effects = Vec::new();
        // Its key goes first.
        let keys = &self.keys;
        for (version, kept) in &mut self.versions {
            if keys.of(*version).is_some() {
                continue;
            }
            let over = kept
                .retired
                .is_some_and(|retired| now.lived >= retired.after(quarantine.ms()));
            if kept.life.stage == Stage::Retired && over {
                kept.life.stage = Stage::Destroyed;
                let id = VersionId {
                    credential: self.credential,
                    version: *version,
                };
                effects.extend([
                    Effect::Log(Entry::VersionDestroyed { version: id }),
                    Effect::Delete(*version),
                ]);
            }
        }
        effects
    }

    pub(super) fn owe(
        &mut self,
        now: Now,
        terms: Terms,
        cause: Cause,
    ) -> Result<Vec<Effect>, Refusal> {
        if let Cause::Asked(_) = cause {
            if !terms.connector && terms.task.is_none() {
                return Err(Refusal::NoConnector);
            }
            if !matches!(self.job, Job::Idle)
                || self
                    .owed
                    .iter()
                    .any(|(owed, _)| matches!(owed, Cause::Asked(_)))
            {
                return Err(Refusal::Rotating);
            }
            // Otherwise one operator could end every request before it is approved. What a person
            // deposited may be replaced at once: that happens once, and a person knows it until then.
            let rolled = |current| Some(self.versions.get(&current)?.life.rolled);
            if self.current().and_then(rolled).unwrap_or_default()
                && self
                    .current_since
                    .is_some_and(|since| now.lived < since.after(HOLD.ms()))
            {
                return Err(Refusal::JustRotated);
            }
        }
        if self.owed.iter().any(|(owed, _)| *owed == cause) {
            return Ok(Vec::new());
        }
        if self.owed.len() >= MAX_OWED {
            self.owed.remove(0);
        }
        self.owed
            .push((cause, self.versions.keys().next_back().copied()));
        let mut effects = vec![Effect::Log(Entry::RotationOwed {
            credential: self.credential,
            cause,
        })];
        if !terms.connector && self.is_due() {
            effects.push(Effect::Notify(Notice::Manual));
        }
        Ok(effects)
    }

    /// The version in which a secret was sealed first.
    fn secret_of(&self, version: Version) -> Version {
        let anew = self.versions.get(&version).and_then(|kept| kept.anew);
        anew.unwrap_or(version)
    }

    /// Invariant 6: only what was owed before this secret was sealed is done with it.
    pub(super) fn settle(&mut self, version: Version) {
        let secret = self.secret_of(version);
        self.owed
            .retain(|(_, newest)| newest.is_some_and(|newest| newest >= secret));
        self.held_until = None;
    }

    pub(super) fn complete(
        &mut self,
        now: Now,
        terms: Terms,
        (version, person): (Version, PersonId),
        evidence: Evidence,
    ) -> Result<Vec<Effect>, Refusal> {
        if terms.connector {
            return Err(Refusal::HasConnector);
        }
        let kept = self.versions.get(&version);
        let kept = kept.filter(|kept| kept.life.stage.live());
        let depositor = kept.ok_or(Refusal::NotPromotable)?.depositor;
        if terms.task.is_some_and(|task| task.two_people) && depositor == Some(person) {
            return Err(Refusal::SamePerson);
        }
        let secret = self.secret_of(version);
        if !self
            .owed
            .iter()
            .any(|(_, newest)| newest.is_none_or(|newest| newest < secret))
        {
            return Err(Refusal::NothingOwed);
        }
        self.settle(version);
        // A person says that the target has a new secret; its age counts from now on.
        self.current_since = Some(now.lived);
        Ok(vec![Effect::Log(Entry::RotationCompleted {
            version: self.id(version),
            person,
            evidence,
        })])
    }
}
