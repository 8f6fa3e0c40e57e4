//! Loading: what a step names comes into memory, documents by their digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keyturn_vault::{
    ceremony::Ceremony,
    charter::Charter,
    definition::Definition,
    digest::Digest,
    id::{CeremonyId, CredentialId},
    jcs::Document,
    machine::Millis,
    restore::RestoreDocument,
    rotation::Slot,
    text::{self, Text as _},
    world::{Holding, Sealed, Stage, VersionId},
};

use super::{
    change::Proposal,
    core::{Core, Held, Live, MAX_HELD, MAX_OVER, MAX_WATCHERS, Needs},
    time::DueKind,
    txn::Txn,
};
use crate::{
    refusal::Refused,
    rows::{self, ENTRY_FORMAT, object, read},
    store::{self, Name, Store},
};

impl Core {
    /// Learns what the clock still has to bring, and loads the ceremonies that are not over.
    ///
    /// What is checked out is loaded when its time comes or somebody asks: there may be thousands, each with
    /// credentials whose signatures are verified first.
    pub(super) async fn wake(&mut self, store: &dyn Store) -> Result<(), Refused> {
        let mut next = Some(store::KeyRange::family(store::key::Family::Due));
        let mut ceremonies = BTreeSet::new();
        while let Some(range) = next {
            let page = store.range(&range, store::MAX_PAGE_ROWS).await?;
            for row in &page.rows {
                let Some(Name::Due { at, kind, id }) = row.key.name() else {
                    continue;
                };
                let Some(kind) = DueKind::of(kind) else {
                    continue;
                };
                self.due.place(kind, id, Some(Millis(at.ms())));
                match kind {
                    DueKind::Ceremony => {
                        ceremonies.insert(CeremonyId::from_bytes(id));
                    }
                    DueKind::Running | DueKind::Ending => {
                        self.interrupted.push(CredentialId::from_bytes(id));
                    }
                    DueKind::Rosters => self.rosters.extend(super::change::roster_charter(id)),
                    DueKind::CheckOut
                    | DueKind::Rotation
                    | DueKind::Queued
                    | DueKind::Late
                    | DueKind::Stuck
                    | DueKind::Failing
                    | DueKind::Manual
                    | DueKind::Probe
                    | DueKind::Diverged => {}
                }
            }
            next = page.rest;
        }
        self.load_outbox(store).await?;
        self.kept = read(store, &Name::Proposals.key())
            .await?
            .unwrap_or_default();
        for id in ceremonies {
            let needs = Needs {
                lenient: true,
                ..Needs::ceremony(id)
            };
            self.load(store, &needs).await?;
            if let Some(live) = self.live.get(&id)
                && !live.machine.row.state.is_final()
            {
                let requester = live.machine.row.ask.requester;
                let open = self.open_of.entry(requester).or_default();
                *open = open.saturating_add(1);
                self.open = self.open.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Keeps the caches within their bounds.
    ///
    /// A bound that is reached is looked into, and then set so far above what had to stay that the next
    /// look is paid for by what came in between: a turn costs what it changed, not what is held.
    pub(super) fn trim(&mut self) {
        if self.watchers.len() > self.bounds.watchers {
            self.watchers
                .retain(|_, watcher| watcher.receiver_count() > 0);
            self.bounds.watchers = bound(self.watchers.len(), MAX_WATCHERS);
        }
        if self.held.len() > self.bounds.held {
            let open = |live: &&Arc<Live>| !live.machine.row.state.is_final();
            let named: BTreeSet<_> = self
                .live
                .values()
                .filter(open)
                .flat_map(|live| {
                    live.machine
                        .row
                        .ask
                        .lines
                        .keys()
                        .map(|line| line.credential)
                })
                .collect();
            self.held.retain(|id, _| named.contains(id));
            self.paths.clear();
            self.bounds.held = bound(self.held.len(), MAX_HELD);
        }
        if self.live.len().saturating_sub(self.open) > self.bounds.over {
            // What is still checked out is shown to who has it.
            let out = |live: &Live| {
                let mut checkout = live.row.checkout.iter();
                checkout.any(|out| !out.out.is_empty())
            };
            self.live
                .retain(|_, live| !live.machine.row.state.is_final() || out(live));
            let left = self.live.len().saturating_sub(self.open);
            self.bounds.over = bound(left, MAX_OVER);
        }
    }

    /// Makes sure that everything named is in memory, if it exists.
    pub(super) async fn load(&mut self, store: &dyn Store, needs: &Needs) -> Result<(), Refused> {
        for id in &needs.ceremonies {
            self.load_ceremony(store, *id, needs.lenient).await?;
            let named: Vec<_> = self
                .live
                .get(id)
                .map(|live| {
                    live.machine
                        .row
                        .ask
                        .lines
                        .keys()
                        .map(|line| line.credential)
                        .collect()
                })
                .unwrap_or_default();
            for credential in named {
                self.name(store, credential, needs.lenient).await?;
            }
            // What an open ceremony decides is judged again when it is to take force.
            let decides = self.live.get(id).and_then(|live| {
                let row = &live.machine.row;
                let over = row.state.is_final() || row.purpose.opens();
                (!over).then(|| Needs {
                    lenient: needs.lenient,
                    ..Needs::request(&live.request)
                })
            });
            if let Some(decides) = decides {
                self.load_subject(store, decides).await?;
            }
        }
        self.load_subject(store, needs.clone()).await?;
        for path in &needs.paths {
            if !self.paths.contains_key(path)
                && let Some((id, _)) = store.get(&Name::Path(path.as_str()).key()).await?
            {
                let id: CredentialId = rows::decode(&id)?;
                self.paths.insert(path.clone(), id);
            }
            if let Some(id) = self.paths.get(path).copied() {
                self.load_credential(store, id).await?;
            }
        }
        Ok(())
    }

    /// What a change is about: proposals, other ceremonies, every credential.
    async fn load_subject(&mut self, store: &dyn Store, needs: Needs) -> Result<(), Refused> {
        for digest in needs.proposals {
            if self.proposals.contains_key(&digest) {
                continue;
            }
            let bytes = match self.proposal(store, digest).await? {
                Some(bytes) => bytes,
                None => match object(store, digest).await {
                    Ok(bytes) => bytes,
                    Err(_) => continue,
                },
            };
            if let Ok(charter) = Charter::from_bytes(&bytes) {
                self.propose(digest, Proposal::Charter(Arc::new(charter)));
            } else if let Ok(definition) = Definition::from_bytes(&bytes) {
                self.propose(digest, Proposal::Definition(Arc::new(definition)));
            } else if let Ok(document) = RestoreDocument::from_bytes(&bytes) {
                self.propose(digest, Proposal::Restore(Arc::new(document)));
            }
        }
        if let Some(restoring) = self.restoring.clone() {
            let found = restoring.found.keys().map(|version| version.credential);
            for credential in found.chain(self.interrupted.clone()) {
                self.name(store, credential, true).await?;
            }
        }
        for id in needs.ceremonies {
            let known = self.live.contains_key(&id);
            self.load_ceremony(store, id, needs.lenient).await?;
            let named = self.live.get(&id).filter(|_| !known);
            let named = named.map(|live| live.machine.row.credentials());
            for credential in named.unwrap_or_default() {
                self.name(store, credential, needs.lenient).await?;
            }
        }
        for id in needs.credentials {
            self.name(store, id, needs.lenient).await?;
        }
        let mut next = needs
            .everything
            .then(|| store::KeyRange::family(store::key::Family::Credential));
        while let Some(range) = next {
            let page = store.range(&range, store::MAX_PAGE_ROWS).await?;
            for row in &page.rows {
                // One row that cannot be used keeps nobody from changing the charter.
                if let Some(Name::Credential(id)) = row.key.name() {
                    self.name(store, id, true).await?;
                }
            }
            next = page.rest;
        }
        Ok(())
    }

    /// Loads a credential; leniently, one whose row cannot be used is as if it were not there.
    async fn name(
        &mut self,
        store: &dyn Store,
        id: CredentialId,
        lenient: bool,
    ) -> Result<(), Refused> {
        match self.load_credential(store, id).await {
            Err(Refused::Row) if lenient => {
                self.distrust(format!("credential {id}"));
                Ok(())
            }
            other => other,
        }
    }

    /// Loads a ceremony; leniently, one whose row cannot be used is as if it were not there.
    async fn load_ceremony(
        &mut self,
        store: &dyn Store,
        id: CeremonyId,
        lenient: bool,
    ) -> Result<(), Refused> {
        if self.live.contains_key(&id) {
            return Ok(());
        }
        match self.woken(store, id).await {
            Ok(live) => {
                self.live.extend(live.map(|live| (id, Arc::new(live))));
                Ok(())
            }
            Err(Refused::Row) => {
                self.distrust(format!("ceremony {id}"));
                lenient.then_some(()).ok_or(Refused::Row)
            }
            Err(refused) => Err(refused),
        }
    }

    async fn woken(&mut self, store: &dyn Store, id: CeremonyId) -> Result<Option<Live>, Refused> {
        let key = Name::Ceremony(id).key();
        let Some(mut row) = read::<rows::Ceremony>(store, &key).await? else {
            return Ok(None);
        };
        let request = text::Request::parse(&row.request.text).map_err(|_| Refused::Row)?;
        if !row.row.state.is_final() {
            self.as_signed(store, id, &request, &mut row).await?;
        }
        Ok(Some(Live {
            machine: Ceremony::wake(row.row.clone()),
            request: Arc::new(request),
            row,
            opened: None,
            receipt: None,
        }))
    }

    async fn load_credential(
        &mut self,
        store: &dyn Store,
        id: CredentialId,
    ) -> Result<(), Refused> {
        if self.held.contains_key(&id) {
            return Ok(());
        }
        let key = Name::Credential(id).key();
        let Some(row) = read::<rows::Credential>(store, &key).await? else {
            return Ok(());
        };
        let definition = self.proven(store, id, &row).await?;
        let mut versions = BTreeMap::new();
        for (version, state) in &row.versions {
            if state.life.stage != Stage::Destroyed {
                let sealed = VersionId {
                    credential: id,
                    version: *version,
                };
                let manifest = self.sealed(store, sealed, state).await?;
                versions.insert(
                    *version,
                    Sealed {
                        life: state.life,
                        digest: state.manifest,
                        manifest: manifest.into(),
                    },
                );
            }
        }
        let holding = Holding {
            definition: definition.into(),
            digest: row.definition,
            versions,
            out: row.out.clone(),
        };
        let slot = read(store, &Name::Job(id).key()).await?;
        let slot = slot.unwrap_or_else(|| Slot::new(id));
        // When it comes back is told with it.
        for ceremony in row.out.keys() {
            self.load_ceremony(store, *ceremony, true).await?;
        }
        self.paths.insert(row.path.clone(), id);
        self.held.insert(id, Held { row, holding, slot });
        Ok(())
    }
}

/// The bound of a cache that holds so much after a look.
fn bound(held: usize, least: usize) -> usize {
    held.saturating_mul(2).max(least)
}

/// Writes a document.
pub fn put_object(txn: &mut Txn, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    txn.objects.push(digest);
    txn.put(
        Name::Object(digest).key(),
        [&[ENTRY_FORMAT], bytes].concat(),
    );
    digest
}
