//! Where a definition comes from. A row of the store says which one is in force; who said so is read from
//! signatures: whoever can write to the store cannot send a rotation's new secret to people of their own.
//!
//! # Invariants
//! 1. The first definition is signed by an operator of the charter under which its entry was written.
//! 2. A later one names the one before, and its `change` ceremony was agreed to by the governing group and by
//!    every group that could open the credential before or can then, by the charter of its entry.
//! 3. The entry of a definition names it.
//! 4. What was proven is remembered by its digest; a definition is verified once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keyturn_audit::entry::Entry;
use keyturn_vault::{
    change,
    charter::{Charter, Role},
    definition::Definition,
    digest::Digest,
    event::{Event, Seal},
    id::CredentialId,
    quorum::{Ask, Vote, judge},
    reference::CharterRef,
    text::{Approval, Change, Decision, Purpose, Request, Text as _},
    world::{Holding, World},
};

use super::{
    core::{Core, read},
    load::document,
    rows,
};
use crate::{
    refusal::Refused,
    store::{Name, Store},
    verify,
};

/// The most digests that are remembered.
const MAX_PROVEN: usize = 65_536;

impl Core {
    /// The definition in force of this row, once it was followed back to its first one.
    pub(super) async fn proven(
        &mut self,
        store: &dyn Store,
        id: CredentialId,
        row: &rows::Credential,
    ) -> Result<Definition, Refused> {
        let newest: Definition = document(store, row.definition).await?;
        if newest.credential != id || newest.path != row.path {
            return Err(Refused::Row);
        }
        // Invariant 4.
        if self.proven.contains(&row.definition) {
            return Ok(newest);
        }
        let mut before: Option<(Digest, Definition)> = None;
        for defined in row.earlier.iter().chain([&row.defined()]) {
            let definition: Definition = document(store, defined.definition).await?;
            if definition.credential != id || definition.path != row.path {
                return Err(Refused::Row);
            }
            let charter = self.charter_of(store, id, defined).await?;
            match &before {
                None => first(&charter.1, &definition, defined)?,
                Some((digest, old)) => {
                    let change = Change::Definition {
                        credential: id,
                        old: *digest,
                        new: defined.definition,
                    };
                    definition.follows(old, *digest).map_err(|_| Refused::Row)?;
                    let key = defined.changed_by.ok_or(Refused::Row)?;
                    let key = Name::Ceremony(key).key();
                    let ceremony: rows::Ceremony = read(store, &key).await?.ok_or(Refused::Row)?;
                    self.agreed(store, &charter, change, (old, &definition), &ceremony)
                        .await?;
                }
            }
            before = Some((defined.definition, definition));
        }
        if self.proven.len() >= MAX_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(row.definition);
        Ok(newest)
    }

    /// The charter under which the entry of a definition was written (invariant 3).
    async fn charter_of(
        &self,
        store: &dyn Store,
        id: CredentialId,
        defined: &rows::Earlier,
    ) -> Result<(CharterRef, Arc<Charter>), Refused> {
        let found = store.get(&Name::Entry(defined.entry).key()).await?;
        let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
        let entry = Entry::decode(&bytes.ok_or(Refused::Row)?).map_err(|_| Refused::Row)?;
        let event = Event::parse(&entry.kind, &entry.body).map_err(|_| Refused::Row)?;
        let named = matches!(
            event,
            Event::CredentialDefined { credential, definition, ceremony, .. }
                if (credential, definition, ceremony) == (id, defined.definition, defined.changed_by)
        );
        if !named {
            return Err(Refused::Row);
        }
        let later = self.vault.charters.iter().map(|later| later.charter);
        let known = std::iter::once(self.vault.genesis)
            .chain(later)
            .find(|known| known.index == entry.charter)
            .ok_or(Refused::Row)?;
        self.charter_at(store, known).await
    }

    async fn charter_at(
        &self,
        store: &dyn Store,
        known: CharterRef,
    ) -> Result<(CharterRef, Arc<Charter>), Refused> {
        if known == self.known.reference {
            return Ok((known, Arc::clone(&self.known.charter)));
        }
        Ok((known, Arc::new(document(store, known.digest).await?)))
    }

    /// Invariant 2.
    async fn agreed(
        &self,
        store: &dyn Store,
        (reference, charter): &(CharterRef, Arc<Charter>),
        change: Change,
        (old, new): (&Definition, &Definition),
        ceremony: &rows::Ceremony,
    ) -> Result<(), Refused> {
        let request = Request::parse(&ceremony.request.text).map_err(|_| Refused::Row)?;
        let later = self.vault.charters.iter().map(|later| later.charter);
        let made_under = std::iter::once(self.vault.genesis)
            .chain(later)
            .find(|known| *known == request.charter && known.index <= reference.index)
            .ok_or(Refused::Row)?;
        let (_, made_under) = self.charter_at(store, made_under).await?;
        verify::text_by(
            &made_under,
            ceremony.request.clone(),
            request.requested_by.id,
        )
        .map_err(|_| Refused::Row)?;
        if request.purpose != Purpose::Change(change) || request.vault != charter.origin {
            return Err(Refused::Row);
        }
        let mut needs = change::governing(charter);
        needs.extend(old.groups().chain(new.groups()).cloned());
        let ask = Ask {
            requester: request.requested_by.id,
            lines: BTreeMap::new(),
            group: None,
            needs,
            waive: request.waive.clone(),
        };
        let votes = votes(charter, &request, &ceremony.statements);
        let holdings: BTreeMap<CredentialId, Holding> = BTreeMap::new();
        let world = World {
            charter,
            in_force: *reference,
            holdings: &holdings,
        };
        if judge(world, &ask, &votes, |_, _| false).reached() {
            Ok(())
        } else {
            Err(Refused::Row)
        }
    }
}

/// Invariant 1.
fn first(
    charter: &Charter,
    definition: &Definition,
    defined: &rows::Earlier,
) -> Result<(), Refused> {
    let operator = verify::signer(charter, defined.signature.signer)
        .and_then(|person| charter.person(person))
        .is_some_and(|person| person.has(Role::Operator));
    if !operator || definition.previous.is_some() || defined.changed_by.is_some() {
        return Err(Refused::Row);
    }
    let bytes = keyturn_vault::jcs::Document::to_bytes(definition).map_err(|_| Refused::Row)?;
    let Seal { signer, signature } = defined.signature.clone();
    verify::document(charter, &bytes, signer, signature)
        .map(drop)
        .map_err(|_| Refused::Row)
}

/// The approvals that custodians signed with their own tokens, and did not take back.
fn votes(charter: &Charter, request: &Request, statements: &[rows::Statement]) -> Vec<Vote> {
    let own: Vec<Approval> = statements
        .iter()
        .filter_map(|statement| {
            let approval = Approval::parse(&statement.signed.text).ok()?;
            verify::text_by_token(charter, statement.signed.clone(), approval.token.id).ok()?;
            Some(approval)
        })
        .collect();
    let back: BTreeSet<Digest> = own
        .iter()
        .filter_map(|approval| match approval.decision {
            Decision::Retract { earlier } => Some(earlier),
            Decision::Approve(_) | Decision::Refuse { .. } => None,
        })
        .collect();
    own.iter()
        .filter(|approval| !back.contains(&approval.digest()))
        .filter_map(|approval| Vote::of(charter, request, approval, None, BTreeSet::new()).ok())
        .collect()
}
