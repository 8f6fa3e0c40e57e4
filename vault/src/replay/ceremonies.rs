//! Ceremonies and check-outs.

use std::collections::BTreeSet;

use super::{At, Fault, Known, Replay, fault, follow::LATE, read};
use crate::{
    ceremony::{self, Ceremony, Outcome, Request, State, Voice},
    change,
    check::{Check, owner},
    checkout::{self},
    digest::Digest,
    event::Event,
    id::{CeremonyId, GroupName},
    machine::Now,
    quorum::{Opening, Vote, broken},
    reference::{Head, Signer},
    refusal::Refusal,
    text::{self, Approval, Decision, SignedText},
    time::Span,
    world::VersionId,
};

impl Replay {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    pub(super) fn judge_ceremony(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        let event = &at.record.event;
        let id = event.ceremony().ok_or_else(|| fault("unknown"))?;
        match event {
            Event::CeremonyOpened { request, .. } => self.opened(at, id, request),
            Event::CeremonyApproved { approval, .. } => self.approved(at, id, approval),
            Event::CeremonyRefused { refusal, .. } => self.spoken(at, id, refusal),
            Event::CeremonyRetracted { retraction, .. } => self.spoken(at, id, retraction),
            Event::CeremonyWithdrawn { person, .. } => {
                self.step_on(at, id, ceremony::Event::Withdraw(*person))
            }
            Event::CeremonyExpired { .. } => {
                self.early(at, id);
                self.step_at(
                    at,
                    id,
                    ceremony::Event::Tick,
                    Now {
                        lived: LATE,
                        ..at.now
                    },
                )
            }
            Event::CeremonySuperseded { .. } => self.step_on(at, id, ceremony::Event::Moot),
            Event::CeremonyApplied { .. } => {
                if matches!(self.state(id), Some(State::Waiting { .. })) {
                    self.early(at, id);
                }
                self.step_at(
                    at,
                    id,
                    ceremony::Event::Tick,
                    Now {
                        ran: LATE,
                        ..at.now
                    },
                )
            }
            Event::CeremonyReviewed { review, .. } => self.reviewed(at, id, review),
            _ => self.judge_unseal(at, id),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    fn judge_unseal(&mut self, at: &mut At<'_>, id: CeremonyId) -> Result<Vec<Event>, Fault> {
        match &at.record.event {
            Event::UnsealAuthorized { openings, .. } => self.authorized(at, id, openings),
            Event::VersionInconsistent { version, group, .. } => {
                self.inconsistent
                    .entry(id)
                    .or_default()
                    .insert((*version, group.clone()));
                at.warn(Fault {
                    detail: version.to_string(),
                    ..Refusal::WrongShare.into()
                });
                Ok(at.entry())
            }
            Event::UnsealReleased {
                ciphertext,
                delivered,
                ..
            } => self.released(at, id, *ciphertext, delivered),
            Event::UnsealFailed { why, .. } => self.outcome(at, id, ceremony::Event::Failed(*why)),
            Event::UnsealInterrupted { .. } => {
                self.early(at, id);
                self.step_on(at, id, ceremony::Event::Restart)?;
                self.step_at(
                    at,
                    id,
                    ceremony::Event::Tick,
                    Now {
                        lived: LATE,
                        ..at.now
                    },
                )
            }
            Event::UnsealFetched { person, .. } => {
                self.step_on(at, id, ceremony::Event::Fetch(*person))
            }
            Event::CheckoutExtended {
                checkout, until, ..
            } => {
                let stamp = until.stamp();
                self.take_decided(
                    id,
                    &text::Purpose::Extend {
                        checkout: *checkout,
                        until: stamp,
                    },
                )?;
                self.check_out_step(
                    at,
                    *checkout,
                    checkout::Event::Extend {
                        until: *until,
                        ceremony: id,
                    },
                )
            }
            Event::CheckoutReturned { checkin, .. } => {
                let text: text::Checkin = read(checkin)?;
                self.signed(at, checkin, text.returned_by.id)?;
                if text.ceremony != id || self.request_of(id) != Some(text.request) {
                    return Err(fault("text"));
                }
                self.check_out_step(at, id, checkout::Event::of(&text, checkin.clone()))
            }
            Event::CheckoutEnded { .. } => {
                let checkout = self
                    .checkouts
                    .get_mut(&id)
                    .ok_or_else(|| fault("unknown"))?;
                checkout.until = at.now.lived;
                self.check_out_step(at, id, checkout::Event::Tick)
            }
            Event::DetailsErased { of, details, .. } => self.erased(at, id, *of, *details),
            _ => Err(fault("unknown")),
        }
    }

    fn state(&self, id: CeremonyId) -> Option<&State> {
        self.ceremonies
            .get(&id)
            .map(|known| &known.ceremony.row.state)
    }

    pub(super) fn request_of(&self, id: CeremonyId) -> Option<Digest> {
        let open = self
            .ceremonies
            .get(&id)
            .map(|known| known.ceremony.row.request);
        open.or_else(|| self.ended.get(&id).map(|ended| ended.request))
    }

    fn opened(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        signed: &SignedText,
    ) -> Result<Vec<Event>, Fault> {
        let request: text::Request = read(signed)?;
        if self.request_of(id).is_some() {
            return Err(Refusal::KnownCeremony.into());
        }
        let world = self.world()?;
        if request.ceremony != id || request.vault != world.charter.origin {
            return Err(fault("text"));
        }
        at.out.checks.push(Check::text(world.charter, signed));
        at.out.checks.extend(seen(&request, Some(request.log)));
        at.out.checks.push(Check::Details(request.details));
        if owner(world.charter, signed.signer) != Some(request.requested_by.id) {
            return Err(fault("signer"));
        }
        let (needs, waiting) = self.needs(at, &request)?;
        let mine = |known: &&Known| {
            known.ceremony.row.ask.requester == request.requested_by.id
                && !known.ceremony.row.state.is_final()
        };
        let open = self.ceremonies.values().filter(mine).count();
        let asked = Request::of(world, signed.clone(), &request, needs, waiting)?;
        let (ceremony, effects) = Ceremony::open(at.now, world, asked, open)?;
        if matches!(signed.signer, Signer::Token(_)) {
            self.seen.sign(request.requested_by.id, at.now.lived);
        }
        let known = Known {
            ceremony,
            texts: [request.details].into(),
            request,
        };
        self.ceremonies.insert(id, known);
        self.carry_out(at, id, effects)
    }

    /// The groups that must agree to what opens nothing, and how long they wait.
    fn needs(
        &self,
        at: &At<'_>,
        request: &text::Request,
    ) -> Result<(BTreeSet<GroupName>, Span), Fault> {
        let world = self.world()?;
        let needs = match &request.purpose {
            text::Purpose::Unseal | text::Purpose::Drill | text::Purpose::Reshare(_) => {
                change::Needs::default()
            }
            text::Purpose::Change(text::Change::Charter(charter)) => {
                self.charter_needs(at, *charter)?
            }
            text::Purpose::Change(text::Change::Definition {
                credential, new, ..
            }) => {
                use crate::jcs::Document as _;
                let holding = self
                    .holdings
                    .get(credential)
                    .ok_or_else(|| fault("unknown"))?;
                let new = at.document(new, |bytes| {
                    crate::definition::Definition::from_bytes(bytes).ok()
                })?;
                change::definition(world, holding, &new)?
            }
            text::Purpose::Extend { checkout, .. } => {
                let checkout = self.checkouts.get(checkout).ok_or(Refusal::NotOut)?;
                let groups = change::extension(world, checkout.credentials.iter());
                change::Needs {
                    groups,
                    ..change::Needs::default()
                }
            }
            text::Purpose::Erase { ceremony, .. } => {
                let open = self
                    .ceremonies
                    .get(ceremony)
                    .map(|known| known.ceremony.row.credentials());
                let ended = || {
                    self.ended
                        .get(ceremony)
                        .map(|ended| ended.credentials.clone())
                };
                let credentials = open.or_else(ended).ok_or_else(|| fault("unknown"))?;
                let groups = change::erasure(world, credentials.iter());
                change::Needs {
                    groups,
                    ..change::Needs::default()
                }
            }
            text::Purpose::AcceptRestore(_) => change::Needs {
                groups: change::governing(world.charter),
                ..change::Needs::default()
            },
        };
        let waiting = needs.waiting();
        Ok((needs.groups, waiting))
    }

    fn approved(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        signed: &SignedText,
    ) -> Result<Vec<Event>, Fault> {
        let Event::CeremonyApproved {
            device,
            broken: recorded,
            ..
        } = &at.record.event
        else {
            return Err(fault("unknown"));
        };
        let approval: Approval = read(signed)?;
        self.signed(at, signed, approval.custodian.id)?;
        let known = self.ceremonies.get(&id).ok_or_else(|| fault("unknown"))?;
        at.out.checks.extend(seen(&known.request, approval.log));
        let world = self.world()?;
        for credential in known.ceremony.row.credentials() {
            let policy = self
                .holdings
                .get(&credential)
                .and_then(|holding| holding.policy(world.charter));
            let breaks =
                policy.map(|policy| broken(world.charter, policy, approval.token.id, at.now.wall));
            if !breaks.unwrap_or_default().is_subset(recorded) {
                at.note(fault("unrecorded-rule"));
            }
        }
        let vote = Vote::of(
            world.charter,
            (&known.request, known.ceremony.row.request),
            (&approval, signed.digest()),
            *device,
            recorded.clone(),
        )?;
        self.step_on(at, id, ceremony::Event::Approve(vote, signed.clone()))
    }

    fn spoken(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        signed: &SignedText,
    ) -> Result<Vec<Event>, Fault> {
        let text: Approval = read(signed)?;
        self.signed(at, signed, text.custodian.id)?;
        let known = self.ceremonies.get(&id).ok_or_else(|| fault("unknown"))?;
        at.out.checks.extend(seen(&known.request, text.log));
        let charter = self.world()?.charter;
        let (_, token) = charter
            .person_of_token(text.token.id)
            .ok_or(Refusal::UnknownToken)?;
        let mut reasons = None;
        let earlier = match text.decision {
            Decision::Retract { earlier } => Some(earlier),
            Decision::Refuse { reason } => {
                at.out.checks.push(Check::Details(reason));
                reasons = Some(reason);
                None
            }
            Decision::Approve(_) => return Err(fault("text")),
        };
        let voice = Voice {
            request: text.request,
            person: text.custodian.id,
            token: text.token.id,
            key: token.approval_key.pin(),
            earlier,
            signed: signed.clone(),
        };
        let retracts = earlier.is_some();
        let refuses = matches!(at.record.event, Event::CeremonyRefused { .. });
        if retracts == refuses {
            return Err(fault("text"));
        }
        let event = if retracts {
            ceremony::Event::Retract(voice)
        } else {
            ceremony::Event::Refuse(voice)
        };
        let entries = self.step_on(at, id, event)?;
        if let Some(reason) = reasons {
            self.wrote(id, reason);
        }
        Ok(entries)
    }

    /// The entry says whose shares were there: the same judgement over them must give the same entry.
    fn authorized(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        openings: &[Opening],
    ) -> Result<Vec<Event>, Fault> {
        let mut known = self
            .ceremonies
            .remove(&id)
            .ok_or_else(|| fault("unknown"))?;
        let waiting = match known.ceremony.row.state {
            State::Waiting { over } => at.now.ran < over,
            State::Open { .. }
            | State::Approved { .. }
            | State::Authorized { .. }
            | State::Ended(_) => false,
        };
        if waiting {
            at.warn(Refusal::Waiting.into());
        }
        if known
            .ceremony
            .row
            .until()
            .is_some_and(|until| at.now.lived >= until)
        {
            at.warn(Refusal::TooLate.into());
        }
        let held = openings.iter().flat_map(|opening| {
            opening
                .shares
                .iter()
                .map(|person| (opening.version, *person))
        });
        let effects = self.world().map(|world| {
            let now = if waiting {
                Now {
                    ran: LATE,
                    ..at.now
                }
            } else {
                at.now
            };
            known.ceremony.authorized(now, world, held)
        });
        self.ceremonies.insert(id, known);
        let effects = effects?;
        if effects.is_empty() {
            return Err(Refusal::NotApproved.into());
        }
        self.carry_out(at, id, effects)
    }

    /// Nothing is delivered but what was authorized.
    fn released(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        ciphertext: Option<Digest>,
        delivered: &BTreeSet<VersionId>,
    ) -> Result<Vec<Event>, Fault> {
        if let Some(State::Authorized { openings, .. }) = self.state(id)
            && !delivered
                .iter()
                .all(|version| openings.iter().any(|opening| opening.version == *version))
        {
            return Err(fault("unauthorized"));
        }
        let outcome = Outcome {
            ciphertext,
            delivered: delivered.clone(),
            inconsistent: self.inconsistent.remove(&id).unwrap_or_default(),
        };
        self.outcome(at, id, ceremony::Event::Opened(outcome))
    }

    fn outcome(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        event: ceremony::Event<()>,
    ) -> Result<Vec<Event>, Fault> {
        if !matches!(self.state(id), Some(State::Authorized { .. })) {
            return Err(fault("unauthorized"));
        }
        if let (ceremony::Event::Opened(outcome), Some(checkout)) =
            (&event, self.checkouts.get_mut(&id))
        {
            checkout.delivered.extend(outcome.delivered.iter().copied());
        }
        self.step_on(at, id, event)
    }
}

/// The log that somebody saw who spoke of a request, as the log is to have it. Who accepts a restore saw a
/// log that is lost; what was lost is in the subject, and told of when the restore takes force.
fn seen(request: &text::Request, log: Option<Head>) -> Option<Check> {
    let restores = matches!(request.purpose, text::Purpose::AcceptRestore(_));
    log.filter(|_| !restores).map(Check::Head)
}
