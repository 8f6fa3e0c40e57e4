//! Ceremonies: what people bring, and the steps of the machine.

use std::{collections::BTreeSet, sync::Arc};

use keyturn_vault::{
    ceremony::{Ceremony, Effect, Event, Request, State, ValidShare, Voice},
    charter::Policy,
    check::Check,
    id::{CeremonyId, CredentialId, DeviceId, PersonId},
    machine::Millis,
    quorum::{self, Vote},
    refusal::Refusal,
    text::{self, Approval, Decision, SignedText},
    world::World,
};

use super::{
    core::{Core, Live},
    time::DueKind,
    txn::{Row, Txn},
};
use crate::{desk::Share, refusal::Refused, rows, store::Name, verify::Verified};

/// The most approvals and refusals of one custodian to one request; more say nothing that was not said.
pub const MAX_STATEMENTS_OF_ONE: usize = 16;

/// A custodian's decision, verified outside.
pub struct Spoken {
    /// The signed text and the key that it was verified with.
    pub verified: Verified,
    /// The same, parsed.
    pub approval: Approval,
    /// The device through which it came.
    pub device: Option<DeviceId>,
    /// The details text of a refusal.
    pub reason: String,
    /// The shares that came with it, each checked against its commitment.
    pub shares: Vec<ValidShare<Share>>,
}

impl Core {
    /// Opens a ceremony; the same request again changes nothing.
    pub fn open_ceremony(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        request: text::Request,
        details: Option<&str>,
    ) -> Result<(), Refused> {
        if let Some(known) = self.live.get(&request.ceremony) {
            return if known.row.request.text == verified.signed.text {
                Ok(())
            } else {
                Err(Refusal::KnownCeremony.into())
            };
        }
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        self.lets(&request);
        let id = request.ceremony;
        let requester = request.requested_by.clone();
        let open = self.open_of.get(&requester.id).copied().unwrap_or_default();
        let signed = verified.signed;
        let now = self.now();
        let (needs, waiting) = self.asks(&request)?;
        let (machine, effects) = self.judge(|world| {
            let asked = Request::of(world, signed.clone(), &request, needs, waiting)?;
            Ceremony::open(now, world, asked, open)
        })?;
        let row = rows::Ceremony {
            row: machine.row.clone(),
            request: signed,
            opened: now.wall,
            revision: 0,
            statements: Vec::new(),
            authorized: None,
            released: None,
            release: None,
            checkout: None,
            returned: None,
            reviews: Vec::new(),
        };
        self.saw(txn, row.request.signer, requester.id);
        self.named(txn, &request)?;
        let live = Live {
            machine,
            request: Arc::new(request),
            row,
            opened: None,
            receipt: None,
        };
        self.live.insert(id, Arc::new(live));
        txn.touch(Row::Ceremony(id), move |core| drop(core.live.remove(&id)));
        self.count_open(txn, requester.id, 1);
        if let Some(details) = details {
            txn.put(Name::Details(id).key(), rows::encode(&details)?);
        }
        self.carry_out(txn, id, effects, &requester.to_string())?;
        self.schedule(txn, id);
        Ok(())
    }

    /// Steps of the ceremony that ends restore mode are let through it.
    fn lets(&mut self, request: &text::Request) {
        self.let_through = matches!(request.purpose, text::Purpose::AcceptRestore(_));
    }

    /// Takes a custodian's decision with the shares that came with it, whole or not at all.
    pub fn speak(&mut self, txn: &mut Txn, id: CeremonyId, spoken: Spoken) -> Result<(), Refused> {
        let Spoken {
            verified,
            approval,
            device,
            reason,
            shares,
        } = spoken;
        let live = self.ceremony(id)?;
        let (request, asked) = (Arc::clone(&live.request), live.machine.row.request);
        self.lets(&request);
        let actor = approval.custodian.to_string();
        let person = approval.custodian.id;
        let signed = verified.signed.clone();
        // What stands can always be taken back.
        if !matches!(approval.decision, Decision::Retract { .. }) {
            said_enough(&self.ceremony(id)?.row.statements, person, &signed)?;
        }
        let voice = |earlier| Voice {
            request: approval.request,
            person,
            token: approval.token.id,
            key: verified.key.pin(),
            earlier,
            signed: signed.clone(),
        };
        let event = match approval.decision {
            Decision::Approve(_) => {
                let at = self.now().wall;
                let policies = self.judge(|world| policies_of(world, &request));
                let broken: BTreeSet<_> = policies
                    .iter()
                    .flat_map(|policy| {
                        quorum::broken(&self.known.charter, policy, approval.token.id, at)
                    })
                    .collect();
                let vote = Vote::of(
                    &self.known.charter,
                    (&request, asked),
                    (&approval, signed.digest()),
                    device,
                    broken,
                )?;
                Event::Approve(vote, signed.clone())
            }
            Decision::Refuse { .. } => Event::Refuse(voice(None)),
            Decision::Retract { earlier, .. } => Event::Retract(voice(Some(earlier))),
        };
        self.checked(&verified, id, &event)?;
        self.saw(txn, signed.signer, person);
        self.step_ceremony(txn, id, event, &actor)?;
        if !shares.is_empty() {
            self.submit(txn, id, &approval.custodian, shares)?;
        }
        self.amend(id, |live| {
            if let Some(said) = live.row.statements.last_mut()
                && said.signed == signed
            {
                said.details = reason;
                said.reads(approval);
            }
        });
        Ok(())
    }

    /// Takes shares for an approval that stands.
    pub fn submit(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        person: &keyturn_vault::reference::PersonRef,
        shares: Vec<ValidShare<Share>>,
    ) -> Result<(), Refused> {
        let commitments: BTreeSet<_> = shares
            .iter()
            .map(|share| (share.version, share.x, *share.share.0.commitment()))
            .collect();
        let event = Event::Submit(person.id, shares);
        let live = self.ceremony(id)?;
        // Each share was checked against the manifest where it came in; here it must be the promised one.
        let promised = |check: &Check| match check {
            Check::Commitment {
                version,
                x,
                commitment,
                ..
            } => commitments.contains(&(*version, *x, commitment.0)),
            Check::Text { .. }
            | Check::Document { .. }
            | Check::Attestation { .. }
            | Check::Details(_)
            | Check::Head(_)
            | Check::NoKey { .. } => false,
        };
        if !self
            .judge(|world| live.machine.checks(world, &event))
            .iter()
            .all(promised)
        {
            return Err(Refusal::WrongShare.into());
        }
        self.step_ceremony(txn, id, event, &person.to_string())
    }

    /// Performs the checks that the machine asks for, with what was verified outside.
    fn checked(
        &self,
        verified: &Verified,
        id: CeremonyId,
        event: &Event<Share>,
    ) -> Result<(), Refused> {
        let live = self.ceremony(id)?;
        let checks = self.judge(|world| live.machine.checks(world, event));
        checks.iter().try_for_each(|check| verified.holds(check))
    }

    /// One step of a ceremony's machine, with everything that follows inside the transaction.
    pub fn step_ceremony(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        event: Event<Share>,
        actor: &str,
    ) -> Result<(), Refused> {
        let before = self.live.get(&id).map(Arc::clone);
        let before = before.ok_or(Refused::NotFound("no such ceremony"))?;
        let statement = statement_of(&event);
        let now = self.now();
        let step = self.judge(|world| before.machine.clone().step(now, world, event));
        let effects = step.outcome?;
        if effects.contains(&Effect::Apply)
            && let Err(refused) = self.applicable(id)
        {
            tracing::info!(ceremony = %id, %refused, "what was agreed cannot take force any more");
            return self.step_ceremony(txn, id, Event::Moot, actor);
        }
        let over = !before.machine.row.state.is_final() && step.state.row.state.is_final();
        let changed = step.state != before.machine || !effects.is_empty();
        if !changed {
            return Ok(());
        }
        let requester = before.machine.row.ask.requester;
        let mut live = Live {
            row: before.row.with(step.state.row.clone()),
            machine: step.state,
            request: Arc::clone(&before.request),
            opened: before.opened.clone(),
            receipt: before.receipt.clone(),
        };
        live.row
            .statements
            .extend(statement.map(|signed| rows::Statement::new(signed, String::new(), now.wall)));
        self.live.insert(id, Arc::new(live));
        txn.touch(Row::Ceremony(id), move |core| {
            drop(core.live.insert(id, before));
        });
        if over {
            self.count_open(txn, requester, -1);
        }
        self.carry_out(txn, id, effects, actor)?;
        self.schedule(txn, id);
        Ok(())
    }

    /// Changes a credential's row and the holding beside it.
    pub(super) fn change_credential(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        change: impl FnOnce(&mut rows::Credential),
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        txn.touch_credential(Row::Credential(id), id, held);
        change(&mut held.row);
        held.holding.out.clone_from(&held.row.out);
        for (version, state) in &held.row.versions {
            if let Some(sealed) = held.holding.versions.get_mut(version) {
                sealed.life = state.life;
            }
        }
    }

    fn count_open(&mut self, txn: &mut Txn, person: PersonId, by: isize) {
        let before = self.open_of.get(&person).copied().unwrap_or_default();
        let all = self.open;
        self.open_of
            .insert(person, before.saturating_add_signed(by));
        self.open = all.saturating_add_signed(by);
        txn.remember(move |core| {
            core.open_of.insert(person, before);
            core.open = all;
        });
    }

    /// Keeps the row that says when the ceremony wants a tick.
    fn schedule(&mut self, txn: &mut Txn, id: CeremonyId) {
        let now = self.now();
        let state = self.live.get(&id).map(|live| &live.machine.row.state);
        // A waiting time runs on the other clock; downtime only makes its tick come early and again.
        let due = state.and_then(due_of).map(|(clock, at)| match clock {
            Clocked::Lived => at,
            Clocked::Ran => now.lived.after(now.ran.until(at)),
        });
        self.set_due(txn, DueKind::Ceremony, id.to_bytes(), due);
    }

    /// Time has passed for a ceremony.
    pub(super) fn ceremony_tick(&mut self, txn: &mut Txn, id: CeremonyId) -> Result<(), Refused> {
        if self.live.contains_key(&id) {
            self.step_ceremony(txn, id, Event::Tick, DAEMON)?;
        }
        self.schedule(txn, id);
        Ok(())
    }
}

/// The actor of what the daemon does by itself.
pub const DAEMON: &str = "keyturnd";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clocked {
    Ran,
    Lived,
}

fn due_of(state: &State) -> Option<(Clocked, Millis)> {
    match state {
        State::Open { until } | State::Approved { until } | State::Authorized { until, .. } => {
            Some((Clocked::Lived, *until))
        }
        State::Waiting { over } => Some((Clocked::Ran, *over)),
        State::Ended(_) => None,
    }
}

/// One custodian does not fill a ceremony with words, which everybody else has to read.
fn said_enough(
    statements: &[rows::Statement],
    person: PersonId,
    signed: &SignedText,
) -> Result<(), Refused> {
    let own = |said: &&rows::Statement| {
        let approval = said.approval();
        let approval = approval.filter(|approval| approval.custodian.id == person);
        approval.is_some_and(|own| !matches!(own.decision, Decision::Retract { .. }))
    };
    let known = statements.iter().any(|said| said.signed == *signed);
    if !known && statements.iter().filter(own).count() >= MAX_STATEMENTS_OF_ONE {
        return Err(Refused::Limit(
            "you have approved and refused as often as is kept for one request; what you said last stands",
        ));
    }
    Ok(())
}

fn statement_of(event: &Event<Share>) -> Option<SignedText> {
    match event {
        Event::Approve(_, signed) => Some(signed.clone()),
        Event::Refuse(voice) | Event::Retract(voice) => Some(voice.signed.clone()),
        Event::Submit(..)
        | Event::Withdraw(_)
        | Event::Tick
        | Event::Restart
        | Event::Changed
        | Event::Moot
        | Event::Opened(_)
        | Event::Failed(_)
        | Event::Fetch(_)
        | Event::CheckoutEnded => None,
    }
}

/// The policies of everything that a request names.
fn policies_of(world: World<'_>, request: &text::Request) -> Vec<Policy> {
    let credentials: BTreeSet<_> = request
        .credentials
        .iter()
        .map(|line| line.credential)
        .collect();
    let holding = |id| world.holdings.holding(id);
    credentials
        .into_iter()
        .filter_map(|id| holding(id)?.policy(world.charter).cloned())
        .collect()
}
