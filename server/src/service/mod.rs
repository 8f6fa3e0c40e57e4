//! The gRPC services: they parse, ask the owner, and answer.
//!
//! What is costly to verify is verified here, on the caller's own task; what is decided is decided by
//! the owner's step. Nothing here decides who may do what.

pub mod audit;
pub mod census;
pub mod ceremony;
pub mod charter;
pub mod convert;
pub mod credential;
pub mod credential_view;
pub mod findings;
pub mod lists;
pub mod rotation;
mod rotation_view;
pub mod status;
pub mod view;
pub mod watcher;

use std::sync::Arc;

use keyturn_audit::{
    note::{LogKey, Vkey},
    proof::Receipt,
    publish::Dir,
    tile::TileNodes,
    tree::inclusion,
};
use keyturn_hsm::attestation::Anchors;
use keyturn_proto::v1;
use keyturn_vault::{
    id::{CeremonyId, CredentialId},
    reference::Version,
    world::VersionId,
};
use tokio::sync::watch;

use crate::{
    chain::Known,
    clock::Clock,
    copies::{Copies, head},
    desk::{Desk, Desks, Stock},
    health::Reporter,
    identity::Node,
    log::Published,
    mode::Mode,
    owner::{Committed, Needs, Owner},
    peers::Peers,
    refusal::Refused,
    rotation::Workshop,
    rows::{self, object, read},
    store::{Name, Store, space::Space},
};

/// The most items of a page when the caller does not say.
pub const PAGE: usize = 100;
/// The most items of a page.
pub const MAX_PAGE: usize = 1000;

/// What every service works with; clones are the same.
#[derive(Clone)]
pub struct Context {
    /// The one that changes things.
    pub owner: Owner,
    /// Read only.
    pub store: Arc<dyn Store>,
    /// The charter by which signatures are verified.
    pub known: watch::Receiver<Arc<Known>>,
    /// Who calls.
    pub peers: Peers,
    /// Where shares are handed in.
    pub desks: Desks,
    /// This node.
    pub node: Node,
    /// Whose word about tokens is believed.
    pub anchors: Arc<Anchors>,
    /// The clock.
    pub clock: Clock,
    /// The log as published.
    pub published: Published,
    /// The key that signs checkpoints.
    pub log_key: Arc<LogKey>,
    /// Places for copies.
    pub copies: Copies,
    /// How many the configuration wants a rotation to wait for.
    pub copies_min: usize,
    /// What rotations know.
    pub workshop: Workshop,
    /// The room on the disk.
    pub space: Space,
    /// Whether the store takes changes.
    pub health: Reporter,
    /// What was counted.
    pub census: census::Last,
    /// The copy of the log's head.
    pub head_copy: watch::Receiver<head::Status>,
    /// Whether the vault goes on.
    pub mode: watch::Receiver<Mode>,
    /// Ends every stream when the daemon stops.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    /// The charter by which signatures are verified now.
    pub fn charter(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// The verifier key of the log.
    pub fn vkey(&self) -> &Vkey {
        self.log_key.vkey()
    }

    /// The receipt of any entry: its own commit's, or one made from the published tiles.
    pub async fn receipt(
        &self,
        committed: Option<&Committed>,
        n: u64,
    ) -> Result<v1::Receipt, Refused> {
        if let Some(receipt) = committed.and_then(|committed| committed.wire_receipt(n)) {
            return Ok(receipt);
        }
        let entry = self.entry(n).await?;
        let checkpoint = self
            .published
            .reaching(n.saturating_add(1))
            .await
            .ok_or(Refused::Stopping)?;
        let dir = self.published.dir().clone();
        let proof = tokio::task::spawn_blocking(move || {
            let nodes = TileNodes::new(dir, checkpoint.size());
            inclusion(&nodes, n, checkpoint.size())
                .map(|hashes| Receipt::new(n, hashes, &checkpoint))
        });
        let proof = proof
            .await
            .map_err(|_| Refused::Stopping)?
            .map_err(|_| Refused::Row)?;
        Ok(v1::Receipt {
            n,
            entry,
            tlog_proof: proof.to_string(),
        })
    }

    /// The bytes of an entry.
    pub async fn entry(&self, n: u64) -> Result<Vec<u8>, Refused> {
        let found = self.store.get(&Name::Entry(n).key()).await?;
        let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
        bytes.ok_or(Refused::NotFound("the log has no such entry"))
    }

    /// A sealed value.
    pub async fn blob(
        &self,
        credential: CredentialId,
        version: Version,
    ) -> Result<rows::Blob, Refused> {
        let key = Name::Version(credential, version.number()).key();
        read(self.store.as_ref(), &key)
            .await?
            .ok_or(Refused::NotFound("no such version, or it is destroyed"))
    }

    /// The bytes of a document.
    pub async fn object(&self, digest: keyturn_vault::digest::Digest) -> Result<Vec<u8>, Refused> {
        object(self.store.as_ref(), digest).await
    }

    /// The desk of a ceremony that takes shares; set up when the first asks for it.
    pub async fn desk(&self, id: CeremonyId) -> Result<Arc<Desk>, Refused> {
        if let Some(desk) = self.desks.of(id) {
            return Ok(desk);
        }
        let (request, manifests) = self
            .owner
            .look(Needs::ceremony(id), move |core| core.stock(id))
            .await?;
        let mut stock = Vec::with_capacity(manifests.len());
        for (version, manifest) in manifests {
            let ciphertext = self
                .blob(version.credential, version.version)
                .await?
                .ciphertext
                .into();
            stock.push(Stock {
                version,
                manifest,
                ciphertext,
            });
        }
        let desk = Desk::new(&self.node, &request, stock, self.clock.now())?;
        // Set up by the owner: it forgets the desk in the turn in which the ceremony ends, so one that has
        // ended meanwhile gets none.
        self.owner
            .look(Needs::ceremony(id), move |core| core.set_up_desk(id, desk))
            .await
    }

    /// One version with all that proves it; `mine` leaves only one custodian's envelopes in.
    pub async fn sealed_version(
        &self,
        version: VersionId,
        mine: Option<keyturn_vault::id::PersonId>,
        ciphertext: bool,
    ) -> Result<v1::SealedVersion, Refused> {
        let needs = Needs::credentials([version.credential]);
        let row = self
            .owner
            .look(needs, move |core| {
                Ok(core.credential(version.credential)?.row.clone())
            })
            .await?;
        let state = row
            .versions
            .get(&version.version)
            .ok_or(Refused::NotFound("no such version"))?;
        let blob = self.blob(version.credential, version.version).await?;
        let envelopes = blob
            .envelopes
            .iter()
            .filter(|envelope| mine.is_none_or(|person| envelope.person == person));
        Ok(v1::SealedVersion {
            credential: version.credential.to_string(),
            path: row.path.to_string(),
            version: version.version.number(),
            state: convert::stage(state.life.stage).into(),
            definition: Some(v1::SignedDocument {
                document: self.object(row.definition).await?,
                signature: Some(convert::signature(&row.signature)),
                ceremony: row.changed_by.map(|id| id.to_string()).unwrap_or_default(),
            }),
            manifest: Some(v1::SignedDocument {
                document: self.object(state.manifest).await?,
                signature: Some(convert::signature(&blob.signature)),
                ceremony: String::new(),
            }),
            envelopes: envelopes.map(convert::envelope).collect(),
            ciphertext: if ciphertext {
                blob.ciphertext
            } else {
                Vec::new()
            },
            sealed: Some(self.receipt(None, state.entry).await?),
        })
    }
}

/// The directory of the published log, as tile readers want it.
pub type LogDir = Dir;

/// A page: where it starts, and how long it may be.
pub fn page(request: Option<v1::PageRequest>) -> (String, usize) {
    let request = request.unwrap_or_default();
    let size = usize::try_from(request.size).unwrap_or(MAX_PAGE);
    (
        request.after,
        if size == 0 { PAGE } else { size.min(MAX_PAGE) },
    )
}
