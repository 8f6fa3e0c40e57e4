//! What the owner does with the effects of a ceremony.

use std::{collections::BTreeSet, sync::Arc};

use keyturn_vault::{
    ceremony::{self, Effect, Event, Outcome, Purpose},
    checkout,
    digest::Digest,
    event::{Cause, Failure},
    id::{CeremonyId, CredentialId, GroupName},
    reference::Version,
    refusal::Refusal,
    rotation,
    world::VersionId,
};

use super::{
    Needs,
    ceremony::DAEMON,
    core::{Core, Live},
    txn::{After, Txn},
};
use crate::{
    desk::Share,
    refusal::Refused,
    release::{self, Opened, Order, Reshare},
    sealing::Fresh,
};

impl Core {
    /// Carries the effects out in their order: into the transaction, or noted for after it.
    pub(super) fn carry_out(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        effects: Vec<Effect<Share>>,
        actor: &str,
    ) -> Result<(), Refused> {
        for effect in effects {
            match effect {
                Effect::Log(event) => {
                    let kind = event.kind();
                    let n = self.log(txn, actor, &event)?;
                    match kind {
                        "unseal.authorized" => self.amend(id, |live| live.row.authorized = Some(n)),
                        "unseal.released" => self.amend(id, |live| live.row.released = Some(n)),
                        _ => {}
                    }
                }
                Effect::CheckOut(credentials, span) => {
                    self.begin_checkout(txn, id, &credentials, span)?;
                }
                Effect::EndCheckOut => {
                    self.step_checkout(txn, id, checkout::Event::Cancel, actor)?;
                }
                Effect::KeepRelease => self.keep_release(txn, id)?,
                Effect::EraseRelease => self.amend(id, |live| live.row.release = None),
                Effect::Combine(sheaves) => txn.combine.push((id, sheaves)),
                Effect::EraseSubmitKey => txn.after.push(After::Forget(id)),
                Effect::OweRotation(credentials) => {
                    let event = rotation::Event::Owe(Cause::Unseal(id));
                    self.step_slots(txn, &credentials, &event, actor)?;
                }
                Effect::HoldRotation(credentials) => {
                    self.step_slots(txn, &credentials, &rotation::Event::Hold(id), actor)?;
                }
                Effect::FreeRotation(credentials) => {
                    self.step_slots(txn, &credentials, &rotation::Event::Free(id), actor)?;
                }
                Effect::Apply => self.apply(txn, id)?,
                Effect::Notify(notice) => self.tell_ceremony(txn, id, notice)?,
                // Submit keys are made when somebody first asks; the release is shown by the row itself.
                Effect::MakeSubmitKey | Effect::Publish => {}
            }
        }
        self.amend(id, |live| {
            live.row.revision = live.row.revision.saturating_add(1);
        });
        Ok(())
    }

    /// Changes what is stored with a ceremony; the step that began it knows the way back.
    pub(super) fn amend(&mut self, id: CeremonyId, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.live.get_mut(&id) {
            change(Arc::make_mut(live));
        }
    }

    /// The same step of each of these slots.
    fn step_slots(
        &mut self,
        txn: &mut Txn,
        credentials: &BTreeSet<CredentialId>,
        event: &rotation::Event,
        actor: &str,
    ) -> Result<(), Refused> {
        for credential in credentials {
            self.step_slot(txn, *credential, event.clone(), actor)?;
        }
        Ok(())
    }

    /// What was opened is kept for the requester, and counts as delivered.
    fn keep_release(&mut self, txn: &mut Txn, id: CeremonyId) -> Result<(), Refused> {
        let Some(live) = self.live.get_mut(&id) else {
            return Ok(());
        };
        let live = Arc::make_mut(live);
        live.row.release = live.opened.take();
        let versions = live
            .row
            .release
            .iter()
            .flat_map(|release| &release.versions);
        let delivered = versions
            .filter(|version| version.problem.is_empty())
            .map(|version| VersionId {
                credential: version.credential,
                version: version.version,
            })
            .collect();
        self.step_checkout(txn, id, checkout::Event::Delivered(delivered), DAEMON)
    }

    /// Combines on a task of its own; the outcome comes back as a step.
    pub(super) fn combine(&self, id: CeremonyId, sheaves: Vec<ceremony::Sheaf<Share>>) {
        let (Some(owner), Some(live)) = (self.owner(), self.live.get(&id)) else {
            return;
        };
        let owner = owner.clone();
        let order = Order {
            origin: self.known.charter.origin.clone(),
            ceremony: id,
            deliver_to: live.request.deliver_to.clone(),
            lines: live.request.credentials.clone(),
            desk: self.desks.of(id),
            sheaves,
            reshare: self.reshare(live),
        };
        tokio::spawn(async move {
            // Here rather than on a blocking thread: as short as verifying an approval, and the requester waits.
            let opened = release::open(order);
            let step = move |core: &mut Core, txn: &mut Txn| core.opened(txn, id, opened.clone());
            // When the daemon stops first, the ceremony stays Authorized.
            if let Err(refused) = owner.insist(Needs::ceremony(id), step).await {
                tracing::warn!(ceremony = %id, %refused, "what was opened was not taken");
            }
        });
    }

    /// What a reshare seals anew: the current version of each credential.
    fn reshare(&self, live: &Live) -> Option<Reshare> {
        let row = &live.machine.row;
        let of = |credential: &CredentialId| {
            let held = self.held.get(credential)?;
            let versions = (held.slot.current()?, held.slot.next());
            let definition = Arc::clone(&held.holding.definition);
            Some((*credential, (definition, versions.0, versions.1)))
        };
        (row.purpose == Purpose::Reshare).then(|| Reshare {
            node: self.workshop.node().clone(),
            known: Arc::clone(&self.known),
            of: row.credentials().iter().filter_map(of).collect(),
        })
    }

    /// What was sealed anew is stored; it fits the charter in force, or nothing is.
    fn take_resealed(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        resealed: Vec<(Version, Fresh)>,
    ) -> Result<(), Refused> {
        for (of, fresh) in resealed {
            let credential = fresh.manifest.credential;
            let definition = &self.credential(credential)?.holding.definition;
            fresh
                .manifest
                .validate(definition, &self.known.charter)
                .map_err(|_| Refused::Vault(Refusal::WrongRoster))?;
            let event = rotation::Event::Reshared {
                version: fresh.manifest.version,
                of,
                manifest: Digest::of(&fresh.bytes),
                ceremony: id,
                signature: fresh.blob.signature.clone(),
            };
            self.step_slot_with(txn, credential, event, DAEMON, Some(fresh))?;
        }
        Ok(())
    }

    fn opened(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        opened: Result<Opened, Failure>,
    ) -> Result<(), Refused> {
        let event = match opened {
            Err(why) => Event::Failed(why),
            Ok(mut opened) => {
                let resealed = std::mem::take(&mut opened.resealed);
                let take = |core: &mut Self, txn: &mut Txn| core.take_resealed(txn, id, resealed);
                if let Err(refused) = self.whole(txn, take) {
                    tracing::warn!(ceremony = %id, %refused, "what was sealed anew does not fit");
                    let failed = Event::Failed(Failure::NotEncrypted);
                    return self.step_ceremony(txn, id, failed, DAEMON);
                }
                let outcome = Outcome {
                    ciphertext: opened.digest,
                    delivered: opened.delivered,
                    inconsistent: opened.inconsistent.clone(),
                };
                self.amend(id, |live| live.opened = Some(opened.release));
                self.mark_inconsistent(txn, &opened.inconsistent);
                Event::Opened(outcome)
            }
        };
        self.step_ceremony(txn, id, event, DAEMON)
    }

    fn mark_inconsistent(&mut self, txn: &mut Txn, versions: &BTreeSet<(VersionId, GroupName)>) {
        for (version, _) in versions {
            self.change_credential(txn, version.credential, |row| {
                if let Some(state) = row.versions.get_mut(&version.version) {
                    state.inconsistent = true;
                }
            });
        }
    }
}
