//! Steps of ceremonies and check-outs, and what follows from their effects.

use super::{
    At, BTreeSet, Cause, CeremonyId, Chain, CheckOut, CredentialId, Ended, Event, Fault, Known,
    Millis, Now, Refusal, Replay, State, World, fault,
};
use crate::{
    ceremony::{self, Effect, End},
    checkout, rotation,
    time::Span,
};

/// The end of both clocks.
pub(super) const LATE: Millis = Millis(u64::MAX);

impl Replay {
    /// Something ended by time before its time.
    pub(super) fn early(&self, at: &mut At<'_>, id: CeremonyId) {
        let Some(known) = self.ceremonies.get(&id) else {
            return;
        };
        let early = match known.ceremony.row.state {
            State::Waiting { over } => at.now.ran < over,
            State::Open { until } | State::Approved { until } | State::Authorized { until, .. } => {
                at.now.lived < until
            }
            State::Ended(_) => false,
        };
        if early {
            at.warn(Refusal::NotNow.into());
        }
    }

    /// What changed around a ceremony.
    pub(super) fn changed(&mut self, at: &mut At<'_>, id: CeremonyId) -> Result<Vec<Event>, Fault> {
        self.step_at(at, id, ceremony::Event::Changed, at.now)
    }

    /// Steps a ceremony. Where only time speaks against it, that is a warning.
    pub(super) fn step_on(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        event: ceremony::Event<()>,
    ) -> Result<Vec<Event>, Fault> {
        let overdue = self
            .ceremonies
            .get(&id)
            .and_then(|known| known.ceremony.row.until())
            .is_some_and(|until| at.now.lived >= until);
        if !overdue {
            return self.step_at(at, id, event, at.now);
        }
        at.warn(Refusal::TooLate.into());
        self.step_at(
            at,
            id,
            event,
            Now {
                lived: Millis(0),
                ..at.now
            },
        )
    }

    pub(super) fn step_at(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        event: ceremony::Event<()>,
        now: Now,
    ) -> Result<Vec<Event>, Fault> {
        let Known {
            ceremony,
            request,
            texts,
        } = self
            .ceremonies
            .remove(&id)
            .ok_or_else(|| fault("unknown"))?;
        let Some((in_force, charter)) = self.chain.as_ref().and_then(Chain::newest) else {
            return Err(fault("not-founded-yet"));
        };
        let world = World {
            charter,
            in_force,
            holdings: &self.holdings,
        };
        let step = ceremony.step(now, world, event);
        self.ceremonies.insert(
            id,
            Known {
                ceremony: step.state,
                request,
                texts,
            },
        );
        let effects = step.outcome?;
        self.carry_out(at, id, effects)
    }

    /// What follows from the effects of a ceremony.
    pub(super) fn carry_out(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        effects: Vec<Effect<()>>,
    ) -> Result<Vec<Event>, Fault> {
        let mut entries = Vec::new();
        for effect in effects {
            match effect {
                Effect::Log(entry) => entries.push(entry),
                Effect::HoldRotation(credentials) => {
                    self.each(at, &credentials, &rotation::Event::Hold(id))?;
                }
                Effect::FreeRotation(credentials) => {
                    self.each(at, &credentials, &rotation::Event::Free(id))?;
                }
                Effect::CheckOut(credentials, span) => {
                    self.check_out(at, id, &credentials, span)?;
                }
                Effect::OweRotation(credentials) => {
                    let owe = rotation::Event::Owe(Cause::Unseal(id));
                    entries.extend(self.each(at, &credentials, &owe)?);
                }
                Effect::EndCheckOut => {
                    entries.extend(self.check_out_step(at, id, checkout::Event::Cancel)?);
                }
                Effect::Apply => {
                    let known = self.ceremonies.get(&id).ok_or_else(|| fault("unknown"))?;
                    self.decided.insert(id, known.request.purpose.clone());
                }
                Effect::Notify(_)
                | Effect::MakeSubmitKey
                | Effect::Combine(_)
                | Effect::KeepRelease
                | Effect::Publish
                | Effect::EraseRelease
                | Effect::EraseSubmitKey => {}
            }
        }
        self.forget(at, id);
        Ok(entries)
    }

    /// Of what has ended only its digests are kept.
    fn forget(&mut self, at: &mut At<'_>, id: CeremonyId) {
        let over = |known: &Known| match known.ceremony.row.state {
            State::Ended(end) => end != (End::Released { kept: true }),
            State::Open { .. }
            | State::Waiting { .. }
            | State::Approved { .. }
            | State::Authorized { .. } => false,
        };
        if self.ceremonies.get(&id).is_some_and(over)
            && let Some(known) = self.ceremonies.remove(&id)
        {
            let row = &known.ceremony.row;
            let (request, credentials, part) = (row.request, row.credentials(), row.took_part());
            self.ended.insert(
                id,
                Ended {
                    request,
                    texts: known.texts,
                    credentials,
                    part,
                },
            );
            at.out.ended.push(known.ceremony.row);
        }
    }

    fn each(
        &mut self,
        at: &mut At<'_>,
        credentials: &BTreeSet<CredentialId>,
        event: &rotation::Event,
    ) -> Result<Vec<Event>, Fault> {
        let mut entries = Vec::new();
        for credential in credentials {
            entries.extend(self.slot_step(at, *credential, event.clone())?);
        }
        Ok(entries)
    }

    fn check_out(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        credentials: &BTreeSet<CredentialId>,
        span: Span,
    ) -> Result<(), Fault> {
        let known = self.ceremonies.get(&id).ok_or_else(|| fault("unknown"))?;
        let person = known.ceremony.row.ask.requester;
        let charter = self.world()?.charter;
        let longest = |credential| {
            Some(
                self.holdings
                    .get(credential)?
                    .policy(charter)?
                    .extend_max_secs,
            )
        };
        let longest = credentials.iter().filter_map(longest).min().unwrap_or(span);
        let checkout = CheckOut::start(at.now, id, person, credentials.clone(), span, longest);
        self.checkouts.insert(id, checkout);
        self.each(at, credentials, &rotation::Event::Out(id))?;
        Ok(())
    }

    pub(super) fn check_out_step(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        event: checkout::Event,
    ) -> Result<Vec<Event>, Fault> {
        let checkout = self.checkouts.remove(&id).ok_or(Refusal::NotOut)?;
        let step = checkout.step(at.now, event);
        self.checkouts.insert(id, step.state);
        let mut entries = Vec::new();
        for effect in step.outcome? {
            match effect {
                checkout::Effect::Log(entry) => entries.push(entry),
                checkout::Effect::Worked(version) => {
                    let worked = rotation::Event::Worked(version.version, id);
                    entries.extend(self.slot_step(at, version.credential, worked)?);
                }
                checkout::Effect::Returned(credentials) => {
                    entries.extend(self.each(at, &credentials, &rotation::Event::Returned(id))?);
                }
                checkout::Effect::Close if self.ceremonies.contains_key(&id) => {
                    entries.extend(self.step_at(at, id, ceremony::Event::CheckoutEnded, at.now)?);
                }
                checkout::Effect::Close | checkout::Effect::Notify(_) => {}
            }
        }
        Ok(entries)
    }
}
