//! What a ceremony that opens nothing decides: whom it asks, and how it takes force.
//!
//! `keyturn_vault::change` says who must agree. It is asked when the request is opened, and again in the
//! transaction that would apply it; where the second answer is another one, the ceremony is moot.
//!
//! # Invariants
//! 1. A charter takes force in the transaction that logs it; from then on every step judges by it.
//! 2. The pins follow the commit, never precede it: they name no charter that is not in force.

use std::{collections::BTreeSet, io, sync::Arc};

use keyturn_vault::{
    change::{self, Needs as Agreed, Seen},
    charter::Charter,
    checkout,
    definition::Definition,
    digest::Digest,
    event::{Cause, Event as Entry, Seal},
    id::{CeremonyId, CredentialId, GroupName, PersonId},
    jcs::Document as _,
    manifest::Manifest,
    reference::{CharterRef, Signer},
    refusal::Refusal,
    restore::RestoreDocument,
    rotation,
    text::{Change, Purpose, Request},
    time::Span,
    world::Holding,
};

use super::{
    ceremony::DAEMON,
    core::{Core, HeldCredentials, Needs},
    time::{DueKind, NEVER},
    txn::{After, Row, Txn},
};
use crate::{chain::Known, refusal::Refused, rows};

/// How old the mark of somebody's last signature gets before it is renewed.
const SEEN_MS: u64 = 24 * 60 * 60 * 1000;

/// A document that a ceremony may put into force.
#[derive(Clone, Debug)]
pub enum Proposal {
    /// A charter.
    Charter(Arc<Charter>),
    /// A definition.
    Definition(Arc<Definition>),
    /// What is put in force after a restore.
    Restore(Arc<RestoreDocument>),
}

impl Core {
    /// Whom a request asks that opens nothing, and how long its quorum waits at least.
    pub(super) fn asks(&self, request: &Request) -> Result<(BTreeSet<GroupName>, Span), Refused> {
        let agreed = |needs: Agreed| {
            let waiting = needs.waiting();
            (needs.groups, waiting)
        };
        Ok(match &request.purpose {
            Purpose::Unseal | Purpose::Drill | Purpose::Reshare(_) => (BTreeSet::new(), Span::ZERO),
            Purpose::Change(Change::Charter(new)) => agreed(self.charter_needs(*new)?),
            Purpose::Change(Change::Definition {
                credential, new, ..
            }) => agreed(self.definition_needs(*credential, *new)?),
            Purpose::Extend { checkout, until } => {
                let out = self.ceremony(*checkout)?.row.checkout.clone();
                let out = out.ok_or(Refusal::NotOut)?;
                let groups = self.judge(|world| change::extension(world, out.credentials.iter()));
                let event = checkout::Event::Extend {
                    until: until.time(),
                    ceremony: request.ceremony,
                };
                out.step(self.now(), event).outcome?;
                (groups, Span::ZERO)
            }
            Purpose::Erase { ceremony, details } => {
                self.has_text(*ceremony, *details)?;
                let credentials = self.ceremony(*ceremony)?.machine.row.credentials();
                let groups = self.judge(|world| change::erasure(world, credentials.iter()));
                (groups, Span::ZERO)
            }
            Purpose::AcceptRestore(accepted) => (self.asks_restore(accepted)?, Span::ZERO),
        })
    }

    /// What a proposed charter needs; every credential was loaded.
    pub(super) fn charter_needs(&self, new: CharterRef) -> Result<Agreed, Refused> {
        let Some(Proposal::Charter(charter)) = self.proposals.get(&new.digest) else {
            return Err(Refused::NotFound("no such charter was proposed"));
        };
        if charter.index != new.index {
            return Err(Refusal::WrongSubject.into());
        }
        self.judge_charter(charter)
    }

    /// What a charter would need.
    pub(super) fn judge_charter(&self, charter: &Charter) -> Result<Agreed, Refused> {
        let joined = self.joined(&charter.joins);
        let mut seen = Seen::default();
        for (person, at) in &self.vault.seen {
            seen.sign(*person, *at);
        }
        let holdings: Vec<&Holding> = self.held.values().map(|held| &held.holding).collect();
        let held = HeldCredentials(&self.held);
        let world = self.world(&held);
        let needs = change::charter(
            self.now(),
            world,
            charter,
            holdings.into_iter(),
            &joined,
            &seen,
        )?;
        Ok(needs)
    }

    fn definition_needs(&self, id: CredentialId, new: Digest) -> Result<Agreed, Refused> {
        let definition = self.proposed_definition(id, new)?;
        let holding = &self.credential(id)?.holding;
        Ok(self.judge(|world| change::definition(world, holding, &definition))?)
    }

    fn proposed_definition(
        &self,
        id: CredentialId,
        new: Digest,
    ) -> Result<Arc<Definition>, Refused> {
        match self.proposals.get(&new) {
            Some(Proposal::Definition(definition)) if definition.credential == id => {
                Ok(Arc::clone(definition))
            }
            Some(_) | None => Err(Refused::NotFound("no such definition was proposed")),
        }
    }

    /// A charter that a ceremony may name; gives what it needs.
    pub fn propose_charter(
        &mut self,
        txn: &mut Txn,
        by: PersonId,
        charter: Charter,
    ) -> Result<(CharterRef, Agreed), Refused> {
        self.founded()?;
        let needs = self.judge_charter(&charter)?;
        let index = charter.index;
        let digest = self.keep_proposal(txn, by, Proposal::Charter(Arc::new(charter)))?;
        Ok((CharterRef { index, digest }, needs))
    }

    /// Whether what a ceremony decides can still take force as those who agreed saw it.
    pub(super) fn applicable(&self, id: CeremonyId) -> Result<(), Refused> {
        let live = self.ceremony(id)?;
        let (groups, waiting) = self.asks(&live.request)?;
        let row = &live.machine.row;
        if !groups.is_subset(&row.ask.needs) || waiting > row.waiting {
            return Err(Refusal::Stale.into());
        }
        Ok(())
    }

    /// What a request that opens nothing decides takes force.
    pub(super) fn apply(&mut self, txn: &mut Txn, id: CeremonyId) -> Result<(), Refused> {
        let request = Arc::clone(&self.ceremony(id)?.request);
        match request.purpose {
            Purpose::Change(Change::Charter(new)) => self.apply_charter(txn, id, new),
            Purpose::Change(Change::Definition {
                credential, new, ..
            }) => self.apply_definition(txn, id, credential, new),
            Purpose::Extend { checkout, until } => {
                let event = checkout::Event::Extend {
                    until: until.time(),
                    ceremony: id,
                };
                self.step_checkout(txn, checkout, event, DAEMON)
            }
            Purpose::Erase { .. } => self.erase(txn, id, &request.purpose),
            Purpose::AcceptRestore(accepted) => self.apply_restore(txn, id, &accepted),
            Purpose::Unseal | Purpose::Drill | Purpose::Reshare(_) => {
                Err(Refusal::WrongSubject.into())
            }
        }
    }

    /// Invariant 1.
    fn apply_charter(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        new: CharterRef,
    ) -> Result<(), Refused> {
        let Some(Proposal::Charter(charter)) = self.proposals.get(&new.digest).cloned() else {
            return Err(Refused::Row);
        };
        if !self.charter_needs(new)?.bypassed.is_empty() {
            txn.waited = Some(new);
        }
        let event = Entry::CharterInForce {
            charter: new,
            ceremony: id,
        };
        let entry = self.log(txn, DAEMON, &event)?;
        let before = (self.vault.clone(), Arc::clone(&self.known));
        self.vault.in_force = Some(new);
        // A device that a token signed in is known until the charter changes.
        self.vault.devices.clear();
        self.vault.charters.push(rows::InForce {
            charter: new,
            ceremony: id,
            entry,
        });
        self.known = Arc::new(Known {
            charter,
            reference: new,
            founded: true,
        });
        txn.touch(Row::Vault, move |core| (core.vault, core.known) = before);
        txn.after.push(After::Charter);
        self.set_due(txn, DueKind::Rosters, roster_id(new.index), Some(NEVER));
        txn.after.push(After::Rosters(new.index));
        let open: Vec<_> = self
            .live
            .iter()
            .filter(|(other, live)| **other != id && !live.machine.row.state.is_final())
            .map(|(other, _)| *other)
            .collect();
        for other in open {
            let changed = keyturn_vault::ceremony::Event::Changed;
            self.step_ceremony(txn, other, changed, DAEMON)?;
        }
        Ok(())
    }

    fn apply_definition(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        credential: CredentialId,
        new: Digest,
    ) -> Result<(), Refused> {
        let definition = self.proposed_definition(credential, new)?;
        // Signed by its proposer in the request, and by everybody who agreed.
        let signed = self.ceremony(id)?.row.request.clone();
        let signature = Seal {
            signer: signed.signer,
            signature: signed.signature,
        };
        let event = Entry::CredentialDefined {
            credential,
            path: definition.path.clone(),
            definition: new,
            signature: signature.clone(),
            ceremony: Some(id),
        };
        let entry = self.log(txn, DAEMON, &event)?;
        self.change_credential(txn, credential, |row| {
            row.earlier.push(row.defined());
            row.definition = new;
            row.signature = signature;
            row.changed_by = Some(id);
            row.entry = entry;
        });
        if let Some(held) = self.held.get_mut(&credential) {
            held.holding.definition = definition;
            held.holding.digest = new;
        }
        self.live_set_changed(txn, credential)?;
        self.step_slot(txn, credential, rotation::Event::Tick, DAEMON)
    }

    /// Somebody has signed something with a token, which an auditor counts too; remembered to the day.
    pub(super) fn saw(&mut self, txn: &mut Txn, by: Signer, person: PersonId) {
        if !matches!(by, Signer::Token(_)) {
            return;
        }
        let now = self.now().lived;
        let known = self.vault.seen.get(&person).copied();
        if known.is_some_and(|at| now < at.after(SEEN_MS)) {
            return;
        }
        self.vault.seen.insert(person, now);
        txn.touch(Row::Vault, move |core| {
            match known {
                Some(at) => core.vault.seen.insert(person, at),
                None => core.vault.seen.remove(&person),
            };
        });
    }

    /// Before a commit: what only this node can say of the wait that a charter had (see [`crate::chain`]).
    pub(super) fn note_wait(&self, txn: &Txn) -> io::Result<()> {
        txn.waited
            .map_or(Ok(()), |waited| self.pinned.note_wait(waited))
    }

    /// What a stop of the daemon left to look at.
    pub(super) fn check_rosters_again(&mut self) {
        for charter in std::mem::take(&mut self.rosters) {
            self.check_rosters(charter);
        }
    }

    /// After a change of the charter: looks at the rosters of all credentials. The row that asks for it
    /// goes when all were looked at.
    pub(super) fn check_rosters(&self, charter: u64) {
        let Some(owner) = self.owner().cloned() else {
            return;
        };
        tokio::spawn(async move {
            let all = Needs {
                everything: true,
                ..Needs::default()
            };
            let list = |core: &mut Core, _: &mut Txn| Ok(core.held.keys().copied().collect());
            let Ok(ids) = owner.insist::<Vec<CredentialId>>(all, list).await else {
                return;
            };
            for id in ids {
                let step = move |core: &mut Core, txn: &mut Txn| core.check_roster(txn, id);
                match owner.insist(Needs::credentials([id]), step).await {
                    Ok(()) => {}
                    Err(Refused::Stopping) => return,
                    Err(refused) => {
                        tracing::warn!(credential = %id, %refused, "its roster was not looked at");
                    }
                }
            }
            let done = move |core: &mut Core, txn: &mut Txn| {
                core.set_due(txn, DueKind::Rosters, roster_id(charter), None);
                Ok(())
            };
            if let Err(refused) = owner.insist(Needs::nothing(), done).await {
                tracing::debug!(%refused, "rosters are looked at again at the next start");
            }
        });
    }

    /// Whether a credential's current version is sealed to another roster than the charter's: then
    /// its rotation is owed, where there is a connector.
    pub fn check_roster(&mut self, txn: &mut Txn, id: CredentialId) -> Result<(), Refused> {
        let held = self.credential(id)?;
        let definition = &held.holding.definition;
        let current = held
            .slot
            .current()
            .and_then(|version| held.holding.versions.get(&version));
        let Some(current) = current else {
            return Ok(());
        };
        if definition.connector.is_none()
            || !old_roster(&current.manifest, definition, &self.known)?
        {
            return Ok(());
        }
        let event = rotation::Event::Owe(Cause::Roster);
        self.step_slot(txn, id, event, DAEMON)
    }
}

/// The id under which the row waits that asks for a look at all rosters.
fn roster_id(charter: u64) -> [u8; 16] {
    u128::from(charter).to_be_bytes()
}

/// The charter of such a row.
pub(super) fn roster_charter(id: [u8; 16]) -> Option<u64> {
    u64::try_from(u128::from_be_bytes(id)).ok()
}

/// Whether a version is sealed to another roster than the charter in force has.
pub fn old_roster(
    manifest: &Manifest,
    definition: &Definition,
    known: &Known,
) -> Result<bool, Refused> {
    let moved = Manifest {
        charter: known.reference,
        definition: Digest::of(&definition.to_bytes().map_err(|_| Refused::Row)?),
        ..manifest.clone()
    };
    Ok(moved.validate(definition, &known.charter).is_err())
}
