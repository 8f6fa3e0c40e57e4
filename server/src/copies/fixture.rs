//! A store with versions in it, as the owner writes it, for tests.

use std::sync::Arc;

use keyturn_audit::{
    entry::Entry,
    note::{LogKey, SignedCheckpoint, Vkey},
    tree::Edge,
};
use keyturn_vault::{
    definition::Definition,
    digest::Digest,
    event::{Event, Maker, Seal},
    id::{CredentialId, PersonId, TokenId},
    jcs::Document as _,
    layout::SealedVersion,
    machine::Millis,
    manifest::Manifest,
    reference::{Signer, Version},
    time::Time,
    world::{Life, Stage, VersionId},
};
use std::collections::BTreeSet;

use crate::{
    rows,
    store::{Name, Store, Txn, memory::MemoryStore},
};

pub(crate) const ORIGIN: &str = "vault.example.org/prod";

pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: LogKey,
    pub(crate) edge: Edge,
    /// What its secrets are told from another history's by.
    pub(crate) history: &'static str,
    definition: Definition,
    row: rows::Credential,
}

pub(crate) fn number(version: u64) -> Version {
    Version::new(version).unwrap()
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    /// The same history, begun in another store.
    pub(crate) async fn over(store: Arc<dyn Store>) -> Self {
        let definition = include_bytes!("../../../vault/testdata/valid/definition.aws.json");
        let digest = Digest::of(definition);
        let definition = Definition::from_bytes(definition).unwrap();
        let signature = Seal {
            signer: Signer::Token(TokenId::from_bytes([7; 16])),
            signature: vec![0x30; 70],
        };
        let row = rows::Credential::new(definition.path.clone(), digest, signature.clone(), 0);
        let mut fixture = Self {
            store,
            key: LogKey::from_seed(ORIGIN, &[3; 32]).unwrap(),
            edge: Edge::new(),
            history: "",
            definition,
            row,
        };
        let event = Event::CredentialDefined {
            credential: fixture.credential(),
            path: fixture.definition.path.clone(),
            definition: digest,
            signature,
            ceremony: None,
        };
        let bytes = fixture.definition.to_bytes().unwrap();
        let txn = object(Txn::new(), &bytes);
        fixture.commit(&event, txn).await;
        fixture
    }

    pub(crate) fn vkey(&self) -> Vkey {
        self.key.vkey().clone()
    }

    pub(crate) fn credential(&self) -> CredentialId {
        self.definition.credential
    }

    pub(crate) fn checkpoint(&self) -> SignedCheckpoint {
        let (size, root) = (self.edge.size(), self.edge.root());
        self.key.sign(size, root).unwrap()
    }

    async fn commit(&mut self, event: &Event, txn: Txn) {
        let entry = Entry {
            n: self.edge.size(),
            time: "2026-11-21T02:17:00.123Z".into(),
            charter: 1,
            actor: "daemon".into(),
            kind: event.kind().into(),
            body: event.body(),
        };
        let bytes = entry.encode().unwrap();
        let batch = self.edge.append([bytes.as_slice()]).unwrap();
        let value = [&[1_u8][..], &bytes].concat();
        let row = rows::encode(&self.row).unwrap();
        let txn = txn
            .put(Name::Entry(self.edge.size()).key(), value)
            .put(Name::Head.key(), batch.edge().to_bytes())
            .put(Name::Credential(self.credential()).key(), row);
        self.store.txn(txn).await.unwrap();
        self.edge = batch.into_edge();
    }

    /// Seals a version, in form only: its digests are right, nothing is encrypted.
    pub(crate) async fn seal(&mut self, version: u64) -> SealedVersion {
        let sealed = self.sealed(version);
        let manifest = sealed.manifest.to_bytes().unwrap();
        let event = Event::VersionSealed {
            version: VersionId {
                credential: self.credential(),
                version: number(version),
            },
            manifest: Digest::of(&manifest),
            maker: Maker::Rotation,
            signature: sealed.signature.clone(),
        };
        let holders = sealed.manifest.groups.iter().flat_map(|group| {
            let name = group.group.clone();
            group
                .holders
                .iter()
                .map(move |holder| (name.clone(), holder))
        });
        let shares = holders.zip(&sealed.envelopes);
        let blob = rows::Blob {
            signature: sealed.signature.clone(),
            ciphertext: sealed.payload.clone(),
            envelopes: shares
                .map(|((group, holder), envelope)| rows::Envelope {
                    group,
                    person: holder.person,
                    x: holder.x,
                    envelope: envelope.clone(),
                })
                .collect(),
        };
        let state = rows::VersionState {
            life: Life {
                stage: Stage::Candidate,
                proven: false,
                rolled: true,
            },
            manifest: Digest::of(&manifest),
            maker: Maker::Deposit(PersonId::from_bytes([1; 16])),
            entry: self.edge.size(),
            sealed: Time::from_ms(Millis(1).0),
            confirmed: BTreeSet::new(),
            inconsistent: false,
        };
        self.row.versions.insert(number(version), state);
        let key = Name::Version(self.credential(), version).key();
        let txn = object(Txn::new(), &manifest).put(key, rows::encode(&blob).unwrap());
        self.commit(&event, txn).await;
        sealed
    }

    pub(crate) fn sealed(&self, version: u64) -> SealedVersion {
        let manifest = include_bytes!("../../../vault/testdata/valid/manifest.aws.json");
        let mut manifest = Manifest::from_bytes(manifest).unwrap();
        let payload = format!("sealed secret {version}{}", self.history).into_bytes();
        manifest.version = number(version);
        manifest.ciphertext = Digest::of(&payload);
        manifest.definition = Digest::of(&self.definition.to_bytes().unwrap());
        let mut envelopes = Vec::new();
        for holder in manifest.groups.iter_mut().flat_map(|g| &mut g.holders) {
            let envelope = format!("envelope {} of {version}{}", holder.x, self.history);
            let envelope = envelope.into_bytes();
            holder.envelope = Digest::of(&envelope);
            envelopes.push(envelope);
        }
        SealedVersion {
            definition: self.definition.clone(),
            manifest,
            signature: self.row.signature.clone(),
            payload,
            envelopes,
        }
    }

    pub(crate) async fn destroy(&mut self, version: u64) {
        let id = VersionId {
            credential: self.credential(),
            version: number(version),
        };
        let key = Name::Version(self.credential(), version).key();
        let event = Event::VersionDestroyed { version: id };
        self.commit(&event, Txn::new().delete(key)).await;
    }
}

fn object(txn: Txn, bytes: &[u8]) -> Txn {
    let value = [&[1_u8][..], bytes].concat();
    txn.put(Name::Object(Digest::of(bytes)).key(), value)
}
