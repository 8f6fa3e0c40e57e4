//! Where shares are handed in: one desk per open ceremony, in memory only.
//!
//! A desk has the submit key, made here and signed by the node, and what every share must hash to. It
//! decrypts and checks a submission on the task of the handler that received it.
//!
//! # Invariants
//! 1. A submit key lives as long as its ceremony is open in this process, and is wiped afterwards.
//! 2. What leaves a desk as a share was sealed for the custodian who hands it in: it hashes to the
//!    commitment that the signed manifest has for this person.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use keyturn_seal::{Binding, ShareIdentity, Sharing, Submission};
use keyturn_vault::{
    ceremony::ValidShare,
    digest::Digest,
    id::{CeremonyId, CredentialId, GroupName, PersonId},
    manifest::Manifest,
    reference::Version,
    refusal::Refusal,
    text::{Request, SignedText, SubmitKey, Text as _},
    time::Time,
    world::VersionId,
};

use crate::{identity::Node, refusal::Refused};

/// A share that was checked against its commitment; the machine cannot look at it.
#[derive(Clone)]
pub struct Share(pub Arc<keyturn_seal::ValidShare>);

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share(x{})", self.0.x())
    }
}

impl PartialEq for Share {
    /// By the commitment: the share itself is looked at by nobody.
    fn eq(&self, other: &Self) -> bool {
        self.0.commitment() == other.0.commitment()
    }
}

/// All desks of this process; clones are the same ones.
#[derive(Clone, Default)]
pub struct Desks(Arc<Mutex<HashMap<CeremonyId, Arc<Desk>>>>);

/// Where the shares of one ceremony are handed in.
pub struct Desk {
    identity: ShareIdentity,
    /// The submit key as the node signed it.
    pub submit_key: SignedText,
    /// Its digest.
    pub submit_key_sha256: Digest,
    places: BTreeMap<(VersionId, GroupName), Place>,
}

/// One version's shares of one group.
pub struct Place {
    /// What combines them.
    pub sharing: Sharing,
    /// The age file with the secret.
    pub ciphertext: Arc<[u8]>,
    holders: BTreeMap<PersonId, (u8, Digest)>,
}

/// A version that a desk takes shares of.
pub struct Stock {
    /// The version.
    pub version: VersionId,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// The age file with the secret.
    pub ciphertext: Arc<[u8]>,
}

impl Desks {
    /// The desk of a ceremony, while there is one.
    pub fn of(&self, id: CeremonyId) -> Option<Arc<Desk>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Sets a desk up, unless somebody was faster.
    pub fn set_up(&self, id: CeremonyId, desk: Desk) -> Arc<Desk> {
        let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(desks.entry(id).or_insert_with(|| Arc::new(desk)))
    }

    /// Forgets a desk; its key is wiped when the last handler is done with it.
    pub fn forget(&self, id: CeremonyId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}

impl Desk {
    /// Makes a submit key for a request and has the node sign it.
    pub fn new(
        node: &Node,
        request: &Request,
        stock: Vec<Stock>,
        made: Time,
    ) -> Result<Self, Refused> {
        let identity = ShareIdentity::generate().map_err(|_| Refused::NoEntropy)?;
        let text = SubmitKey {
            vault: request.vault.clone(),
            ceremony: request.ceremony,
            request: request.digest(),
            node: node.id,
            submit_key: identity
                .share_key()
                .to_string()
                .parse()
                .map_err(|_| Refused::Row)?,
            made: made.into(),
        };
        let submit_key_sha256 = text.digest();
        let submit_key = node.sign(text.to_text())?;
        let mut places = BTreeMap::new();
        for Stock {
            version,
            manifest,
            ciphertext,
        } in stock
        {
            let binding = binding(&manifest)?;
            for group in &manifest.groups {
                let commitments = group
                    .holders
                    .iter()
                    .map(|holder| holder.commitment.0)
                    .collect();
                let sharing =
                    Sharing::new(binding.clone(), group.group.as_str(), group.k, commitments)
                        .map_err(|_| Refused::Row)?;
                let holders = group
                    .holders
                    .iter()
                    .map(|holder| (holder.person, (holder.x, holder.commitment)));
                let place = Place {
                    sharing,
                    ciphertext: Arc::clone(&ciphertext),
                    holders: holders.collect(),
                };
                places.insert((version, group.group.clone()), place);
            }
        }
        Ok(Self {
            identity,
            submit_key,
            submit_key_sha256,
            places,
        })
    }

    /// Where the shares of a version of a group belong.
    pub fn place(&self, version: VersionId, group: &GroupName) -> Option<&Place> {
        self.places.get(&(version, group.clone()))
    }

    /// Decrypts a submission and checks each share of it.
    pub fn take(
        &self,
        submission: &[u8],
        approval: Digest,
        ceremony: CeremonyId,
        person: PersonId,
    ) -> Result<Vec<ValidShare<Share>>, Refused> {
        let opened = Submission::open(
            submission,
            &self.identity,
            &approval.0,
            &ceremony.to_string(),
            &person.to_string(),
        );
        let opened = opened.map_err(|error| Refused::Submission(error.to_string()))?;
        opened
            .shares
            .into_iter()
            .map(|share| self.check(person, share))
            .collect()
    }

    fn check(
        &self,
        person: PersonId,
        share: keyturn_seal::SubmittedShare,
    ) -> Result<ValidShare<Share>, Refused> {
        let malformed =
            || Refused::Submission("a submitted share names nothing of this request".to_owned());
        let credential: CredentialId = share.credential.parse().map_err(|_| malformed())?;
        let version = Version::new(share.version).ok_or_else(malformed)?;
        let version = VersionId {
            credential,
            version,
        };
        let group: GroupName = share.group.parse().map_err(|_| malformed())?;
        let place = self.place(version, &group).ok_or_else(malformed)?;
        let (x, _) = place
            .holders
            .get(&person)
            .ok_or(Refused::Vault(Refusal::NotHolder))?;
        if *x != share.x {
            return Err(Refusal::WrongShare.into());
        }
        let valid = place
            .sharing
            .verify(share.x, share.share)
            .map_err(|_| Refused::Vault(Refusal::WrongShare))?;
        Ok(ValidShare {
            version,
            group,
            x: share.x,
            share: Share(Arc::new(valid)),
        })
    }
}

/// What a sealed value is for, as the sealing crate wants it.
pub fn binding(manifest: &Manifest) -> Result<Binding, Refused> {
    Binding::new(
        manifest.origin.as_str(),
        &manifest.credential.to_string(),
        manifest.version.number(),
    )
    .map_err(|_| Refused::Row)
}
