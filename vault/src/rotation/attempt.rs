//! One attempt at the target, from rolling to promoting, and what follows when it fails.

use super::{
    Answer, BACK_OFF, Call, Cause, Digest, Effect, Entry, HOLD, Job, Maker, Millis, Notice, Now,
    PersonId, Refusal, Seal, Slot, Span, Stage, Stuck, Terms, Time, Version,
};

impl Slot {
    /// Whether a ceremony holds a due rotation now (invariant 5).
    pub(super) fn is_held(&self, now: Now) -> bool {
        !self.holds.is_empty() && self.held_until.is_none_or(|until| now.lived < until)
    }

    /// Whether an earlier call to the target may still take effect (invariant 2).
    fn may_land(&self, now: Now) -> bool {
        self.asked.is_some_and(|(_, until)| now.lived < until)
    }

    pub(super) fn tick(&mut self, now: Now, terms: Terms) -> Vec<Effect> {
        let mut effects = self.retire(now);
        effects.extend(self.destroy(now, terms));
        let old = |since: Millis| now.lived >= since.after(terms.max_age.ms());
        if terms.max_age > Span::ZERO && self.current_since.is_some_and(old) {
            // Never refused: only what is asked for is.
            effects.extend(self.owe(now, terms, Cause::Age).unwrap_or_default());
        }
        match self.job {
            Job::Idle => {
                effects.extend(self.begin(now, terms));
                if terms.two.is_some() {
                    effects.extend(self.clean(now, terms.kept()));
                }
            }
            Job::Creating { version, until } if now.lived >= until => {
                effects.extend(self.not_made(now, terms, version, Answer::Unclear));
            }
            Job::Revoking { version, until } if now.lived >= until => {
                self.job = Job::Promoted { version };
                effects.push(self.deactivate(version, Span::ZERO));
            }
            Job::BackingOff { until } if now.lived >= until => {
                effects.extend(self.begin(now, terms));
            }
            // No answer within the deadline: nobody knows.
            Job::Applying { version, until } if now.lived >= until => {
                effects.extend(self.applied(now, terms, (version, until), Answer::Unclear));
            }
            Job::Testing {
                version,
                until,
                last: false,
            } if now.lived >= until => {
                let until = now.lived.after(terms.deadline.ms());
                self.job = Job::Testing {
                    version,
                    until,
                    last: true,
                };
                effects.push(Effect::Test(version));
            }
            Job::Testing {
                version,
                until,
                last: true,
            } if now.lived >= until => {
                effects.extend(self.tested(now, terms, (version, true), Answer::Unclear));
            }
            Job::BackingOff { .. }
            | Job::Applying { .. }
            | Job::Testing { .. }
            | Job::Sealing { .. }
            | Job::Listing { .. }
            | Job::Creating { .. }
            | Job::Deleting
            | Job::Copying { .. }
            | Job::Promoted { .. }
            | Job::Revoking { .. }
            | Job::Stuck(_) => {}
        }
        effects
    }

    /// Begins an attempt, if one is due and nothing holds it.
    fn begin(&mut self, now: Now, terms: Terms) -> Vec<Effect> {
        if !terms.connector || !self.is_due() {
            self.job = Job::Idle;
            return Vec::new();
        }
        if self.may_land(now) || self.is_paused(now, terms) {
            return Vec::new();
        }
        if self.is_held(now) {
            if self.held_until.is_some() {
                return Vec::new();
            }
            self.held_until = Some(now.lived.after(HOLD.ms()));
            let entry = Entry::RotationHeld {
                credential: self.credential,
                ceremonies: self.holds.clone(),
            };
            return vec![Effect::Log(entry)];
        }
        if !self.has_room() {
            return self.stuck(Stuck::Live);
        }
        if terms.two.is_some() {
            return self.list();
        }
        let version = self.next();
        self.job = Job::Sealing { version };
        vec![Effect::Roll(version)]
    }

    /// Whether an operator wants nothing begun now.
    fn is_paused(&self, now: Now, terms: Terms) -> bool {
        let paused = self.paused.max(terms.paused);
        paused.is_some_and(|until| now.lived < until)
    }

    pub(super) fn pause(
        &mut self,
        now: Now,
        (until, wall): (Millis, Time),
        person: PersonId,
    ) -> Vec<Effect> {
        self.paused = Some(until).filter(|until| now.lived < *until);
        vec![Effect::Log(Entry::RotationPaused {
            credential: Some(self.credential),
            until: wall,
            person,
        })]
    }

    pub(super) fn resume(&mut self, person: PersonId) -> Result<Vec<Effect>, Refusal> {
        if self.paused.take().is_none() {
            return Err(Refusal::NotPaused);
        }
        Ok(vec![Effect::Log(Entry::RotationResumed {
            credential: Some(self.credential),
            person,
        })])
    }

    /// Step 1: the version is stored before anything happens at the target. Where a ceremony has come
    /// in between, or another version has its number, it is forgotten again.
    pub(super) fn sealed(
        &mut self,
        now: Now,
        (expected, version): (Version, Version),
        manifest: Digest,
        signature: Seal,
    ) -> Vec<Effect> {
        if version != expected || version != self.next() || self.is_held(now) || !self.has_room() {
            self.job = Job::Idle;
            return vec![Effect::Forget(version)];
        }
        self.add(version, Stage::Candidate, true, None);
        self.job = Job::Copying { version };
        let id = self.id(version);
        vec![
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

    /// There are enough copies: a target with one slot is asked to take the version, one with two has
    /// it already.
    pub(super) fn copied(&mut self, now: Now, terms: Terms, version: Version) -> Vec<Effect> {
        let until = now.lived.after(terms.deadline.ms());
        if let Some(two) = terms.two {
            self.job = Job::Testing {
                version,
                until: until.after(two.settle.ms()),
                last: true,
            };
            return vec![Effect::Test(version)];
        }
        self.asked = Some((version, until));
        self.job = Job::Applying { version, until };
        vec![Effect::Apply(version, terms.deadline)]
    }

    /// Step 2: what the target says to the new secret.
    pub(super) fn applied(
        &mut self,
        now: Now,
        terms: Terms,
        (version, until): (Version, Millis),
        answer: Answer,
    ) -> Vec<Effect> {
        let entry = Entry::RotationAttempted {
            version: self.id(version),
            call: Call::Apply,
            answer,
        };
        let mut effects = vec![Effect::Log(entry)];
        if answer == Answer::Refused {
            effects.extend(self.failed(now, terms, version, true));
        } else {
            self.job = Job::Testing {
                version,
                until,
                last: false,
            };
            effects.push(Effect::Test(version));
        }
        effects
    }

    /// Steps 3 and 4: a login, tried once more when a late answer can no longer come.
    pub(super) fn tested(
        &mut self,
        now: Now,
        terms: Terms,
        (version, last): (Version, bool),
        answer: Answer,
    ) -> Vec<Effect> {
        if answer != Answer::Done && !last {
            return Vec::new();
        }
        let id = self.id(version);
        let mut effects = vec![Effect::Log(Entry::RotationAttempted {
            version: id,
            call: Call::Test,
            answer,
        })];
        if answer != Answer::Done {
            effects.extend(self.failed(now, terms, version, false));
            return effects;
        }
        self.promote(now, version);
        self.settle(version);
        self.replace(now, version, true);
        self.failures = 0;
        self.job = Job::Promoted { version };
        effects.extend([
            Effect::Log(Entry::RotationPromoted { version: id }),
            Effect::Changed,
            Effect::Forget(version),
            self.end(terms, version),
        ]);
        effects
    }

    /// An attempt failed; `dead`, that the target never took it.
    fn failed(&mut self, now: Now, terms: Terms, version: Version, dead: bool) -> Vec<Effect> {
        if let Some(kept) = self.versions.get_mut(&version).filter(|_| dead) {
            kept.life.stage = Stage::Retired;
            kept.retired = Some(now.lived);
        }
        let pause = self.next_pause(now, terms);
        let entry = Entry::RotationFailed {
            version: self.id(version),
            dead,
            failures: self.failures,
        };
        let mut effects = vec![Effect::Log(entry), Effect::Forget(version)];
        if dead {
            effects.push(Effect::Changed);
        }
        effects.extend(self.back_off(pause));
        effects
    }

    /// What ends the old secret: its sessions, or its keys.
    fn end(&self, terms: Terms, version: Version) -> Effect {
        if terms.two.is_some() {
            self.deactivate(version, terms.grace)
        } else {
            Effect::EndSessions(version, terms.grace)
        }
    }

    /// Counts a failure; gives when the next attempt begins, if there is one.
    pub(super) fn next_pause(&mut self, now: Now, terms: Terms) -> Option<Millis> {
        let pause = BACK_OFF.get(usize::from(self.failures)).copied();
        self.failures = self.failures.saturating_add(1);
        pause.map(|pause| {
            let jitter = pause.ms().saturating_mul(u64::from(terms.jitter.min(1000))) / 4000;
            now.lived.after(pause.ms()).after(jitter)
        })
    }

    pub(super) fn back_off(&mut self, pause: Option<Millis>) -> Vec<Effect> {
        match pause {
            None => self.stuck(Stuck::Failures),
            Some(until) => {
                self.job = Job::BackingOff { until };
                vec![Effect::Notify(Notice::Failed)]
            }
        }
    }

    pub(super) fn stuck(&mut self, why: Stuck) -> Vec<Effect> {
        self.job = Job::Stuck(why);
        let entry = Entry::RotationNeedsOperator {
            credential: self.credential,
            why,
        };
        vec![Effect::Log(entry), Effect::Notify(Notice::NeedsOperator)]
    }

    pub(super) fn retry(&mut self, terms: Terms, person: PersonId) -> Vec<Effect> {
        self.failures = 0;
        let mut effects = vec![Effect::Log(Entry::RotationRetried {
            credential: self.credential,
            person,
        })];
        match self.revoking().filter(|_| terms.two.is_some()) {
            // The new key is proven; what is left is the end of the old ones.
            Some(version) => {
                self.job = Job::Promoted { version };
                effects.push(self.deactivate(version, Span::ZERO));
            }
            None => self.job = Job::Idle,
        }
        effects
    }

    /// The vault goes on from a restored log, which may lack that the target was asked: a version that
    /// was sealed for it counts as asked for, and so is not given up.
    pub fn restored(&mut self, now: Millis) {
        if let Job::Copying { version } = self.job {
            self.asked = Some((version, now));
            self.job = Job::Applying {
                version,
                until: now,
            };
        }
    }

    /// The candidate's secret is lost with the memory. It stays live if the target may have taken it;
    /// the next attempt rolls a new one.
    pub(super) fn restart(&mut self, now: Now, terms: Terms) -> Vec<Effect> {
        match self.job {
            Job::Idle | Job::BackingOff { .. } | Job::Revoking { .. } | Job::Stuck(_) => Vec::new(),
            Job::Sealing { .. } | Job::Listing { .. } | Job::Deleting => {
                self.keys.deleting = None;
                self.job = Job::Idle;
                Vec::new()
            }
            Job::Creating { version, .. } => self.not_made(now, terms, version, Answer::Unclear),
            // A key is at the target since it was made; a secret of ours gets there later.
            Job::Copying { version } => self.failed(now, terms, version, terms.two.is_none()),
            Job::Applying { version, .. } | Job::Testing { version, .. } => {
                self.failed(now, terms, version, false)
            }
            // Sessions are ended, and only a ceremony keeps the old versions.
            Job::Promoted { .. }
                if self
                    .retiring
                    .as_ref()
                    .is_some_and(|retiring| retiring.evidence.is_some()) =>
            {
                Vec::new()
            }
            Job::Promoted { version } => vec![self.end(terms, version)],
        }
    }
}
