//! Where a ceremony goes by itself, once its votes, shares, time or world have changed.

use std::collections::BTreeMap;

use super::{
    Base, Ceremony, CredentialId, Effect, End, Entry, MIN_QUORUM, Millis, Notice, Now, Opening,
    PersonId, Purpose, Row, Sheaf, Span, Stage, State, VersionId, World,
};

impl<S> Ceremony<S> {
    /// Moves on as far as votes, shares and time allow.
    pub(super) fn advance(&mut self, now: Now, world: World<'_>, effects: &mut Vec<Effect<S>>) {
        let agreed = self.verdict(world, false).reached();
        let valid = now.lived.after(self.row.valid_for.ms());
        match self.row.state {
            State::Open { .. } if agreed && self.row.waiting > Span::ZERO => {
                self.row.state = State::Waiting {
                    over: now.ran.after(self.row.waiting.ms()),
                };
                effects.push(Effect::Notify(Notice::Waiting));
            }
            State::Open { until } if agreed => self.row.state = State::Approved { until },
            State::Waiting { .. } if !agreed => self.row.state = State::Open { until: valid },
            State::Waiting { over } if now.ran >= over => {
                self.row.state = State::Approved { until: valid }
            }
            State::Approved { until } if !agreed => self.row.state = State::Open { until },
            State::Open { .. }
            | State::Waiting { .. }
            | State::Approved { .. }
            | State::Authorized { .. }
            | State::Ended(_) => {}
        }
        match self.row.state {
            State::Approved { .. } if !self.row.purpose.opens() => self.apply(world, effects),
            State::Approved { until } => self.authorize(world, until, effects),
            State::Authorized { .. } if !self.combining => self.resume(world, effects),
            State::Open { .. }
            | State::Waiting { .. }
            | State::Authorized { .. }
            | State::Ended(_) => {}
        }
    }

    /// What opens nothing takes force in the same transaction.
    fn apply(&mut self, world: World<'_>, effects: &mut Vec<Effect<S>>) {
        let persons = self.verdict(world, false).persons;
        let entry = Entry::CeremonyApplied {
            ceremony: self.row.id,
            persons,
        };
        effects.extend(self.end(End::Applied, entry, Notice::Applied));
        effects.push(Effect::Apply);
    }

    /// Invariants 1 and 2: the entry goes before the shares, which come from a reached quorum.
    fn authorize(&mut self, world: World<'_>, until: Millis, effects: &mut Vec<Effect<S>>) {
        let verdict = self.verdict(world, true);
        if !verdict.reached() {
            return;
        }
        let openings = verdict.openings;
        effects.push(Effect::Log(Entry::UnsealAuthorized {
            ceremony: self.row.id,
            openings: openings.clone(),
        }));
        let credentials = self.row.credentials();
        if self.row.purpose.delivers() {
            effects.push(Effect::CheckOut(credentials.clone(), self.row.check_out));
        }
        if self.row.purpose == Purpose::Unseal {
            effects.push(Effect::OweRotation(credentials));
        }
        effects.push(Effect::Notify(Notice::Authorized));
        let sheaves = openings.iter().map(|opening| self.bind(opening)).collect();
        effects.push(Effect::Combine(sheaves));
        self.row.state = State::Authorized { until, openings };
        self.combining = true;
        self.shares.clear();
    }

    /// For a replay: the shares of these persons are there, and it is authorized by them; nothing
    /// where they are not enough.
    pub(crate) fn authorized(
        &mut self,
        now: Now,
        world: World<'_>,
        shares: impl Iterator<Item = (VersionId, PersonId)>,
    ) -> Vec<Effect<S>>
    where
        S: Default,
    {
        self.shares = shares.map(|share| (share, S::default())).collect();
        let mut effects = Vec::new();
        if !self.row.state.is_final() {
            self.advance(now, world, &mut effects);
        }
        effects
    }

    /// Invariant 7: after a restart, the same opening as soon as its shares are here again.
    ///
    /// Who agrees is judged again: what was authorized is read from a row, and a row makes no quorum.
    fn resume(&mut self, world: World<'_>, effects: &mut Vec<Effect<S>>) {
        let State::Authorized { openings, .. } = &self.row.state else {
            return;
        };
        let sealed = |line: VersionId| {
            world
                .holdings
                .holding(line.credential)?
                .versions
                .get(&line.version)
        };
        let here = |opening: &&Opening| {
            let count = self
                .shares
                .keys()
                .filter(|(version, _)| *version == opening.version)
                .count();
            let roster =
                sealed(opening.version).and_then(|sealed| sealed.manifest.group(&opening.group));
            roster.is_some_and(|roster| count >= usize::from(roster.k.max(MIN_QUORUM)))
        };
        let agreed = self.verdict(world, false).openings;
        let agreed = |opening: &&Opening| {
            agreed
                .iter()
                .any(|one| (one.version, &one.group) == (opening.version, &opening.group))
        };
        let ready = openings.iter().filter(agreed).filter(here);
        let ready: Vec<_> = ready.cloned().collect();
        let answered = |credential: &CredentialId| {
            ready
                .iter()
                .any(|opening| opening.counts && opening.version.credential == *credential)
        };
        if self.row.credentials().iter().all(answered) {
            let sheaves = ready.iter().map(|opening| self.bind(opening)).collect();
            effects.push(Effect::Combine(sheaves));
            self.combining = true;
            self.shares.clear();
        }
    }

    /// The shares of an opening: of those who counted, or after a restart of all who approved.
    fn bind(&mut self, opening: &Opening) -> Sheaf<S> {
        let resumed = matches!(self.row.state, State::Authorized { .. });
        let (bound, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.shares)
            .into_iter()
            .partition(|((version, person), _)| {
                *version == opening.version && (resumed || opening.shares.contains(person))
            });
        self.shares = rest;
        let shares = bound
            .into_iter()
            .map(|((_, person), share)| (person, share))
            .collect();
        Sheaf {
            version: opening.version,
            group: opening.group.clone(),
            shares,
        }
    }
}

impl Row {
    /// Whether what it names or is based on is gone.
    ///
    /// A deposit does not supersede a request: it is unproven, so what the request names still
    /// answers it. A version that a rotation rolled may be the target's secret at any moment, and the
    /// current one is: a request that does not name these would deliver what does not work.
    pub(super) fn gone(&self, world: World<'_>) -> bool {
        let named = |credential, version| {
            self.ask.lines.contains_key(&VersionId {
                credential,
                version,
            })
        };
        stale(world, self.base)
            || self.credentials().into_iter().any(|credential| {
                let Some(holding) = world.holdings.holding(credential) else {
                    return true;
                };
                let unnamed = holding.live().any(|(version, sealed)| {
                    (sealed.life.rolled || sealed.life.stage == Stage::Current)
                        && !named(credential, version)
                });
                let counting = holding
                    .versions
                    .iter()
                    .any(|(version, sealed)| named(credential, *version) && sealed.life.counts());
                unnamed || !counting
            })
    }
}

/// Whether what a change is based on is no longer in force.
pub(super) fn stale(world: World<'_>, base: Option<Base>) -> bool {
    match base {
        None => false,
        Some(Base::Charter(base)) => world.in_force != base,
        Some(Base::Definition(id, base)) => world
            .holdings
            .holding(id)
            .is_none_or(|holding| holding.digest != base),
    }
}
