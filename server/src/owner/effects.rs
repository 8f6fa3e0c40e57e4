//! What the owner does with the effects of a ceremony.

use std::collections::BTreeSet;

use keyturn_vault::{
    ceremony::{self, Effect, Event, Notice, Outcome},
    checkout,
    event::{Cause, Failure},
    id::{CeremonyId, CredentialId, GroupName},
    rotation,
    world::VersionId,
};

use super::{
    Needs,
    ceremony::DAEMON,
    core::{Core, Share},
    txn::{After, Txn},
};
use crate::{
    refusal::Refused,
    release::{self, Opened, Order},
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
                    if let Some(live) = self.live.get_mut(&id) {
                        match kind {
                            "unseal.authorized" => live.row.authorized = Some(n),
                            "unseal.released" => live.row.released = Some(n),
                            _ => {}
                        }
                    }
                }
                Effect::CheckOut(credentials, span) => {
                    self.begin_checkout(txn, id, &credentials, span)?;
                }
                Effect::EndCheckOut => {
                    self.step_checkout(txn, id, checkout::Event::Cancel, actor)?;
                }
                Effect::KeepRelease => self.keep_release(txn, id)?,
                Effect::EraseRelease => {
                    if let Some(live) = self.live.get_mut(&id) {
                        live.row.release = None;
                    }
                }
                Effect::Combine(sheaves) => txn.after.push(After::Combine(id, sheaves)),
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
                Effect::Apply => apply()?,
                Effect::Notify(notice) => tell(id, notice),
                // Submit keys are made when somebody first asks; the release is shown by the row itself.
                Effect::MakeSubmitKey | Effect::Publish => {}
            }
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.row.revision = live.row.revision.saturating_add(1);
        }
        Ok(())
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

    /// Combines on a thread of its own; the outcome comes back as a step.
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
        };
        tokio::spawn(async move {
            let opened = tokio::task::spawn_blocking(move || release::open(order)).await;
            let opened = opened.unwrap_or(Err(Failure::NothingOpened));
            let step = move |core: &mut Core, txn: &mut Txn| core.opened(txn, id, opened.clone());
            // When the daemon stops first, the ceremony stays Authorized.
            if let Err(refused) = owner.insist(Needs::ceremony(id), step).await {
                tracing::warn!(ceremony = %id, %refused, "what was opened was not taken");
            }
        });
    }

    fn opened(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        opened: Result<Opened, Failure>,
    ) -> Result<(), Refused> {
        let event = match opened {
            Err(why) => Event::Failed(why),
            Ok(opened) => {
                let outcome = Outcome {
                    ciphertext: opened.digest,
                    delivered: opened.delivered,
                    inconsistent: opened.inconsistent.clone(),
                };
                if let Some(live) = self.live.get_mut(&id) {
                    live.opened = Some(opened.release);
                }
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

/// What a request that opens nothing decides takes force.
fn apply() -> Result<(), Refused> {
    Err(Refused::Unsupported(
        "this daemon cannot apply such a change yet",
    ))
}

/// Tells people.
fn tell(id: CeremonyId, notice: Notice) {
    tracing::info!(ceremony = %id, ?notice, alert = notice.is_alert(), "ceremony");
}
