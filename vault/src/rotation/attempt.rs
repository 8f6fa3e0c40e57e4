//! One attempt at the target, from rolling to promoting, and what follows when it fails.

use super::{
    Answer, BACK_OFF, Call, Cause, Digest, Effect, Entry, HOLD, Job, Maker, Millis, Notice, Now,
    PersonId, Seal, Slot, Span, Stage, Stuck, Terms, Version,
};

impl Slot {
    /// Whether a ceremony holds a due rotation now (invariant 5).
    fn is_held(&self, now: Now) -> bool {
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
            Job::Idle => effects.extend(self.begin(now, terms)),
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
            | Job::Copying { .. }
            | Job::Promoted { .. }
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
        if self.may_land(now) {
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
        let version = self.next();
        self.job = Job::Sealing { version };
        vec![Effect::Roll(version)]
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
            Effect::EndSessions(version, terms.grace),
        ]);
        effects
    }

    /// An attempt failed; `dead`, that the target never took it.
    fn failed(&mut self, now: Now, terms: Terms, version: Version, dead: bool) -> Vec<Effect> {
        if let Some(kept) = self.versions.get_mut(&version).filter(|_| dead) {
            kept.life.stage = Stage::Retired;
            kept.retired = Some(now.lived);
        }
        let pause = BACK_OFF.get(usize::from(self.failures)).copied();
        self.failures = self.failures.saturating_add(1);
        let entry = Entry::RotationFailed {
            version: self.id(version),
            dead,
            failures: self.failures,
        };
        let mut effects = vec![Effect::Log(entry), Effect::Forget(version)];
        if dead {
            effects.push(Effect::Changed);
        }
        match pause {
            None => effects.extend(self.stuck(Stuck::Failures)),
            Some(pause) => {
                let jitter = pause.ms().saturating_mul(u64::from(terms.jitter.min(1000))) / 4000;
                let next = now.lived.after(pause.ms()).after(jitter);
                self.job = Job::BackingOff { until: next };
                effects.push(Effect::Notify(Notice::Failed));
            }
        }
        effects
    }

    fn stuck(&mut self, why: Stuck) -> Vec<Effect> {
        self.job = Job::Stuck(why);
        let entry = Entry::RotationNeedsOperator {
            credential: self.credential,
            why,
        };
        vec![Effect::Log(entry), Effect::Notify(Notice::NeedsOperator)]
    }

    pub(super) fn retry(&mut self, person: PersonId) -> Vec<Effect> {
        self.job = Job::Idle;
        self.failures = 0;
        vec![Effect::Log(Entry::RotationRetried {
            credential: self.credential,
            person,
        })]
    }

    /// The candidate's secret is lost with the memory. It stays live if the target may have taken it;
    /// the next attempt rolls a new one.
    pub(super) fn restart(&mut self, now: Now, terms: Terms) -> Vec<Effect> {
        match self.job {
            Job::Idle | Job::BackingOff { .. } | Job::Stuck(_) => Vec::new(),
            Job::Sealing { .. } => {
                self.job = Job::Idle;
                Vec::new()
            }
            Job::Copying { version } => self.failed(now, terms, version, true),
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
            Job::Promoted { version } => vec![Effect::EndSessions(version, terms.grace)],
        }
    }
}
