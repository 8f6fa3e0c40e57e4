//! What each event of a ceremony does; the table is [`Ceremony::step`].

use super::{
    Ceremony, Effect, End, Entry, Failure, Notice, Now, Outcome, PersonId, Refusal, Says,
    SignedText, Span, State, ValidShare, Voice, Vote, World, signs,
};

impl<S> Ceremony<S> {
    pub(super) fn approve(
        &mut self,
        now: Now,
        world: World<'_>,
        vote: Vote,
        signed: SignedText,
    ) -> Result<Vec<Effect<S>>, Refusal> {
        let row = &mut self.row;
        if vote.request != row.request {
            return Err(Refusal::WrongRequest);
        }
        row.speaks(world, vote.person, vote.token, vote.key)?;
        row.said.hears(&vote)?;
        row.fits(world, &vote)?;

        let (person, device, broken) = (vote.person, vote.device, vote.broken.clone());
        row.said.approve(vote)?;
        let mut effects = vec![Effect::Log(Entry::CeremonyApproved {
            ceremony: row.id,
            approval: signed,
            device,
            broken,
        })];
        if row.purpose.opens() && !row.holds && person != row.ask.requester {
            row.holds = true;
            effects.push(Effect::HoldRotation(row.credentials()));
        }
        effects.push(Effect::Notify(Notice::Approved(person)));
        self.advance(now, world, &mut effects);
        Ok(effects)
    }

    pub(super) fn refuse(
        &mut self,
        now: Now,
        world: World<'_>,
        voice: &Voice,
    ) -> Result<Vec<Effect<S>>, Refusal> {
        self.row
            .speaks(world, voice.person, voice.token, voice.key)?;
        if voice.request != self.row.request {
            return Err(Refusal::WrongRequest);
        }
        self.row.said.refuse(voice.person, voice.signed.digest())?;
        let entry = Entry::CeremonyRefused {
            ceremony: self.row.id,
            refusal: voice.signed.clone(),
        };
        let mut effects = vec![
            Effect::Log(entry),
            Effect::Notify(Notice::Refused(voice.person)),
        ];
        self.forget(voice.person);
        self.advance(now, world, &mut effects);
        Ok(effects)
    }

    pub(super) fn retract(
        &mut self,
        now: Now,
        world: World<'_>,
        voice: &Voice,
    ) -> Result<Vec<Effect<S>>, Refusal> {
        if voice.request != self.row.request {
            return Err(Refusal::WrongRequest);
        }
        if !signs(world.charter, voice.person, voice.token, voice.key) {
            return Err(Refusal::UnknownToken);
        }
        let earlier = voice.earlier.ok_or(Refusal::NotApproved)?;
        self.row.said.retract(voice.person, earlier)?;
        let entry = Entry::CeremonyRetracted {
            ceremony: self.row.id,
            retraction: voice.signed.clone(),
        };
        let mut effects = vec![
            Effect::Log(entry),
            Effect::Notify(Notice::Retracted(voice.person)),
        ];
        self.forget(voice.person);
        self.advance(now, world, &mut effects);
        Ok(effects)
    }

    /// Invariant 4: the shares that one person gave, and no more.
    fn forget(&mut self, person: PersonId) {
        self.shares.retain(|(_, holder), _| *holder != person);
    }

    pub(super) fn submit(
        &mut self,
        now: Now,
        world: World<'_>,
        person: PersonId,
        shares: Vec<ValidShare<S>>,
    ) -> Result<Vec<Effect<S>>, Refusal> {
        let ahead = match self.row.state {
            State::Open { .. } => self.row.waiting > Span::ZERO,
            State::Waiting { over } => now.ran < over,
            State::Approved { .. } | State::Authorized { .. } | State::Ended(_) => false,
        };
        if ahead {
            return Err(Refusal::Waiting);
        }
        let vote = self.row.said.vote(person).ok_or(Refusal::NotApproved)?;
        for share in &shares {
            let holding = world
                .holdings
                .holding(share.version.credential)
                .ok_or(Refusal::UnknownCredential)?;
            let asked = holding.asked(self.row.ask.group.as_ref());
            let promised = matches!(vote.says.get(&share.version), Some(Says::Share { x, .. }) if *x == share.x);
            if !promised || asked != Some(&share.group) {
                return Err(Refusal::NotPromised);
            }
        }
        self.shares.extend(
            shares
                .into_iter()
                .map(|share| ((share.version, person), share.share)),
        );
        let mut effects = Vec::new();
        self.advance(now, world, &mut effects);
        Ok(effects)
    }

    pub(super) fn tick(&mut self, now: Now, world: World<'_>) -> Vec<Effect<S>> {
        let ceremony = self.row.id;
        match self.row.state {
            State::Open { .. } | State::Approved { .. } if self.row.overdue(now) => self.end(
                End::Expired,
                Entry::CeremonyExpired { ceremony },
                Notice::Expired,
            ),
            State::Authorized { .. } if self.row.overdue(now) && !self.combining => {
                self.interrupted()
            }
            State::Open { .. }
            | State::Waiting { .. }
            | State::Approved { .. }
            | State::Authorized { .. } => {
                let mut effects = Vec::new();
                self.advance(now, world, &mut effects);
                effects
            }
            State::Ended(_) => Vec::new(),
        }
    }

    pub(super) fn restart(&mut self) -> Vec<Effect<S>> {
        self.shares.clear();
        self.combining = false;
        let takes_shares = self.row.purpose.opens() && !self.row.state.is_final();
        takes_shares
            .then_some(Effect::MakeSubmitKey)
            .into_iter()
            .collect()
    }

    pub(super) fn changed(&mut self, now: Now, world: World<'_>) -> Vec<Effect<S>> {
        if self.row.gone(world) {
            return self.superseded();
        }
        let mut effects = Vec::new();
        if !self.row.overdue(now) {
            self.advance(now, world, &mut effects);
        }
        effects
    }

    pub(super) fn interrupted(&mut self) -> Vec<Effect<S>> {
        let entry = Entry::UnsealInterrupted {
            ceremony: self.row.id,
        };
        self.end(End::Interrupted, entry, Notice::Interrupted)
    }

    pub(super) fn superseded(&mut self) -> Vec<Effect<S>> {
        let entry = Entry::CeremonySuperseded {
            ceremony: self.row.id,
        };
        self.end(End::Superseded, entry, Notice::Superseded)
    }

    pub(super) fn opened(&mut self, outcome: Outcome) -> Vec<Effect<S>> {
        if outcome.delivered.is_empty() {
            return self.failed(Failure::NothingOpened);
        }
        let ceremony = self.row.id;
        let missing = self
            .row
            .ask
            .lines
            .keys()
            .filter(|line| !outcome.delivered.contains(line))
            .copied()
            .collect();
        let kept = self.row.purpose.delivers();
        let mut effects: Vec<_> = outcome
            .inconsistent
            .into_iter()
            .map(|(version, group)| {
                Effect::Log(Entry::VersionInconsistent {
                    version,
                    group,
                    ceremony,
                })
            })
            .collect();
        if !effects.is_empty() {
            effects.push(Effect::Notify(Notice::Inconsistent));
        }
        let entry = Entry::UnsealReleased {
            ceremony,
            ciphertext: outcome.ciphertext,
            delivered: outcome.delivered,
            missing,
        };
        let ended = self.end(End::Released { kept }, entry, Notice::Released);
        effects.extend(ended);
        if kept {
            effects.extend([Effect::KeepRelease, Effect::Publish]);
        }
        effects
    }

    pub(super) fn failed(&mut self, why: Failure) -> Vec<Effect<S>> {
        let entry = Entry::UnsealFailed {
            ceremony: self.row.id,
            why,
        };
        let mut effects = self.end(End::Failed, entry, Notice::Failed);
        if self.row.purpose.delivers() {
            effects.push(Effect::EndCheckOut);
        }
        effects
    }

    /// Ends it: the entry, the rotations, the people, the keys.
    pub(super) fn end(&mut self, end: End, entry: Entry, notice: Notice) -> Vec<Effect<S>> {
        self.row.state = State::Ended(end);
        self.shares.clear();
        self.combining = false;
        let mut effects = vec![Effect::Log(entry)];
        if std::mem::take(&mut self.row.holds) {
            effects.push(Effect::FreeRotation(self.row.credentials()));
        }
        effects.push(Effect::Notify(notice));
        if self.row.purpose.opens() {
            effects.push(Effect::EraseSubmitKey);
        }
        effects
    }
}
