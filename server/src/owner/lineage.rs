//! Where a credential's documents come from. A row of the store says which ones are in force; who said so is
//! read from signatures: whoever can write to the store cannot send a rotation's new secret to people of their
//! own, nor let fewer of them open an old one.
//!
//! # Invariants
//! 1. The first definition is signed by an operator of the charter under which its entry was written.
//! 2. A later one names the one before, and its `change` ceremony was agreed to by the governing group and by
//!    every group that could open the credential before or can then, by the charter of its entry.
//! 3. The entry of a definition names it.
//! 4. What was proven is remembered by its digest; a document is verified once.
//! 5. A manifest is signed by the one who sealed it, by the charter of its entry, or named in a restore that a
//!    quorum accepted.

use std::sync::Arc;

use keyturn_audit::entry::Entry;
use keyturn_vault::{
    change,
    charter::{Charter, Role},
    check,
    definition::Definition,
    digest::Digest,
    event::{Event, Seal},
    id::CredentialId,
    jcs::Document as _,
    key::PublicKey,
    manifest::Manifest,
    reference::{CharterRef, Signer},
    restore::RestoreDocument,
    said::Said,
    text::{Change, Purpose, Request, Text as _},
    world::VersionId,
};

use super::core::Core;
use crate::{
    refusal::Refused,
    rows::{self, document, object, read},
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
        self.prove(row.definition);
        Ok(newest)
    }

    /// The manifest of a version, signed by the one who sealed it (invariants 4 and 5).
    pub(super) async fn sealed(
        &mut self,
        store: &dyn Store,
        version: VersionId,
        state: &rows::VersionState,
    ) -> Result<Manifest, Refused> {
        let bytes = object(store, state.manifest).await?;
        let manifest = Manifest::from_bytes(&bytes).map_err(|_| Refused::Row)?;
        if (manifest.credential, manifest.version) != (version.credential, version.version) {
            return Err(Refused::Row);
        }
        if self.proven.contains(&state.manifest) {
            return Ok(manifest);
        }
        let (event, reference) = self.entry_of(store, state.entry).await?;
        let named = (version, state.manifest);
        if let Event::VersionSealed {
            version,
            manifest,
            signature,
            ..
        } = &event
            && (*version, *manifest) == named
        {
            let keys = self.sealer(store, reference, signature.signer).await?;
            let signed = |key: &PublicKey| verify::verify(key, &bytes, &signature.signature);
            if !keys.iter().any(|key| signed(key).is_ok()) {
                return Err(Refused::Row);
            }
        } else if let Event::VersionRecovered {
            version,
            manifest,
            ceremony,
        } = &event
            && (*version, *manifest) == named
        {
            let mut restores = self.vault.restores.iter();
            let restore = restores.find(|restore| restore.ceremony == *ceremony);
            let restore = restore.ok_or(Refused::Row)?.document;
            let restore: RestoreDocument = document(store, restore).await?;
            if !restore.documents.contains(manifest) {
                return Err(Refused::Row);
            }
        } else {
            return Err(Refused::Row);
        }
        self.prove(state.manifest);
        Ok(manifest)
    }

    /// The keys that a signer had under a charter: a restore may have replaced a node's.
    async fn sealer(
        &mut self,
        store: &dyn Store,
        known: CharterRef,
        signer: Signer,
    ) -> Result<Vec<PublicKey>, Refused> {
        let charter = self.charter_at(store, known).await?;
        let mut keys: Vec<_> = check::key(&charter, signer).into_iter().collect();
        if let Signer::Node(id) = signer {
            let under = self.vault.restores.iter();
            for restore in under.filter(|restore| restore.charter == known) {
                let restore: RestoreDocument = document(store, restore.document).await?;
                let node = restore.node.filter(|node| node.id == id);
                keys.extend(node.map(|node| node.key));
            }
        }
        Ok(keys)
    }

    /// Remembers that a document was verified (invariant 4).
    fn prove(&mut self, digest: Digest) {
        if self.proven.len() >= MAX_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(digest);
    }

    /// What an entry says, and the charter under which it was written.
    async fn entry_of(&self, store: &dyn Store, n: u64) -> Result<(Event, CharterRef), Refused> {
        let found = store.get(&Name::Entry(n).key()).await?;
        let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
        let entry = Entry::decode(&bytes.ok_or(Refused::Row)?).map_err(|_| Refused::Row)?;
        let event = Event::parse(&entry.kind, &entry.body).map_err(|_| Refused::Row)?;
        let later = self.vault.charters.iter().map(|later| later.charter);
        let known = std::iter::once(self.vault.genesis)
            .chain(later)
            .find(|known| known.index == entry.charter)
            .ok_or(Refused::Row)?;
        Ok((event, known))
    }

    /// The charter under which the entry of a definition was written (invariant 3).
    async fn charter_of(
        &mut self,
        store: &dyn Store,
        id: CredentialId,
        defined: &rows::Earlier,
    ) -> Result<(CharterRef, Arc<Charter>), Refused> {
        let (event, known) = self.entry_of(store, defined.entry).await?;
        let named = matches!(
            event,
            Event::CredentialDefined { credential, definition, ceremony, .. }
                if (credential, definition, ceremony) == (id, defined.definition, defined.changed_by)
        );
        if !named {
            return Err(Refused::Row);
        }
        Ok((known, self.charter_at(store, known).await?))
    }

    /// A charter as it was signed; the last one that is not in force is kept, for the next will want it too.
    pub(super) async fn charter_at(
        &mut self,
        store: &dyn Store,
        known: CharterRef,
    ) -> Result<Arc<Charter>, Refused> {
        if known == self.known.reference && self.known.charter.restored.is_none() {
            return Ok(Arc::clone(&self.known.charter));
        }
        if let Some((reference, charter)) = &self.earlier
            && *reference == known
        {
            return Ok(Arc::clone(charter));
        }
        let charter = Arc::new(document(store, known.digest).await?);
        self.earlier = Some((known, Arc::clone(&charter)));
        Ok(charter)
    }

    /// Invariant 2.
    async fn agreed(
        &mut self,
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
        let made_under = self.charter_at(store, made_under).await?;
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
        let charters: [&Charter; 2] = [charter, &made_under];
        let statements = ceremony.statements.iter().map(|one| &one.signed);
        let said = Said::fold(&charters, &request, statements, verify::holds);
        if said.agree((*reference, charter), &request, needs).reached() {
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
    let bytes = definition.to_bytes().map_err(|_| Refused::Row)?;
    let Seal { signer, signature } = defined.signature.clone();
    verify::document(charter, &bytes, signer, signature)
        .map(drop)
        .map_err(|_| Refused::Row)
}
