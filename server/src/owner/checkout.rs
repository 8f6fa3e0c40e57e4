//! Check-outs: what the owner does with their machine's effects.
//!
//! A check-out is stored with the ceremony that opened it; a credential's row says who has it out.

use std::{collections::BTreeSet, sync::Arc};

use keyturn_vault::{
    ceremony,
    check::Check,
    checkout::{CheckOut, Effect, Event, WARNINGS},
    id::{CeremonyId, CredentialId},
    machine::Millis,
    reference::PersonRef,
    refusal::Refusal,
    rotation,
    text::Checkin,
    time::Span,
    world::VersionId,
};

use super::{
    ceremony::DAEMON,
    core::Core,
    time::DueKind,
    txn::{Row, Txn},
};
use crate::{refusal::Refused, verify::Verified};

impl Core {
    /// What a ceremony opens is checked out by its requester.
    pub(super) fn begin_checkout(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        credentials: &BTreeSet<CredentialId>,
        span: Span,
    ) -> Result<(), Refused> {
        let person = self.ceremony(id)?.machine.row.ask.requester;
        let longest = credentials
            .iter()
            .filter_map(|credential| {
                let held = self.held.get(credential)?;
                let policy = held.holding.policy(&self.known.charter)?;
                Some(policy.extend_max_secs)
            })
            .min()
            .unwrap_or(span);
        let checkout = CheckOut::start(self.now(), id, person, credentials.clone(), span, longest);
        self.put_checkout(txn, id, checkout);
        for credential in credentials {
            self.change_credential(txn, *credential, |row| {
                row.out.insert(id, person);
            });
            self.step_slot(txn, *credential, rotation::Event::Out(id), DAEMON)?;
        }
        Ok(())
    }

    /// One step of a check-out, with everything that follows inside the transaction.
    pub(super) fn step_checkout(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        event: Event,
        actor: &str,
    ) -> Result<(), Refused> {
        let before = self.ceremony(id)?.row.checkout.clone();
        let step = before.ok_or(Refusal::NotOut)?.step(self.now(), event);
        let effects = step.outcome?;
        self.put_checkout(txn, id, step.state);
        for effect in effects {
            match effect {
                Effect::Log(entry) => {
                    self.log(txn, actor, &entry)?;
                }
                Effect::Returned(credentials) => {
                    for credential in credentials {
                        self.change_credential(txn, credential, |row| {
                            row.out.remove(&id);
                        });
                        self.step_slot(txn, credential, rotation::Event::Returned(id), DAEMON)?;
                    }
                }
                Effect::Worked(VersionId {
                    credential,
                    version,
                }) => {
                    let event = rotation::Event::Worked(version, id);
                    self.step_slot(txn, credential, event, actor)?;
                }
                Effect::Close => {
                    self.step_ceremony(txn, id, ceremony::Event::CheckoutEnded, actor)?;
                }
                Effect::Notify(notice) => self.tell_checkout(txn, id, notice)?,
            }
        }
        Ok(())
    }

    /// Stores a check-out, and when it wants a tick.
    fn put_checkout(&mut self, txn: &mut Txn, id: CeremonyId, checkout: CheckOut) {
        let due = due_of(&checkout);
        let over = checkout.out.is_empty();
        let now = self.now().wall;
        let Some(live) = self.live.get_mut(&id).map(Arc::make_mut) else {
            return;
        };
        let before = (
            live.row.checkout.replace(checkout),
            live.row.revision,
            live.row.returned,
        );
        if over {
            live.row.returned = live.row.returned.or(Some(now));
        }
        live.row.revision = live.row.revision.saturating_add(1);
        txn.touch(Row::Ceremony(id), move |core| {
            core.amend(id, |live| {
                (live.row.checkout, live.row.revision, live.row.returned) = before;
            });
        });
        self.set_due(txn, DueKind::CheckOut, id.to_bytes(), due);
    }

    /// Time has passed for a check-out.
    pub(super) fn checkout_tick(&mut self, txn: &mut Txn, id: CeremonyId) -> Result<(), Refused> {
        let known = self
            .live
            .get(&id)
            .is_some_and(|live| live.row.checkout.is_some());
        if known {
            self.step_checkout(txn, id, Event::Tick, DAEMON)
        } else {
            self.set_due(txn, DueKind::CheckOut, id.to_bytes(), None);
            Ok(())
        }
    }

    /// A check-in: the credentials come back, and their rotation is due.
    pub fn check_in(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        checkin: &Checkin,
        by: &PersonRef,
    ) -> Result<(), Refused> {
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        let id = checkin.ceremony;
        if checkin.returned_by.id != by.id {
            return Err(Refusal::NotYours.into());
        }
        if checkin.request != self.ceremony(id)?.machine.row.request {
            return Err(Refusal::WrongRequest.into());
        }
        self.saw(txn, verified.signed.signer, by.id);
        let event = Event::of(checkin, verified.signed);
        self.step_checkout(txn, id, event, &by.to_string())
    }
}

/// When a check-out wants its next tick: a warning, or the end.
fn due_of(checkout: &CheckOut) -> Option<Millis> {
    if checkout.out.is_empty() {
        return None;
    }
    let warning = WARNINGS.get(usize::from(checkout.warned));
    Some(warning.map_or(checkout.until, |before| {
        Millis(checkout.until.0.saturating_sub(before.ms()))
    }))
}
