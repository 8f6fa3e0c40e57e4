//! Combining, opening, encrypting: the one place where a secret is in clear in the daemon.
//!
//! # Invariants
//! 1. It runs only for sheaves that the ceremony's machine gave after `unseal.authorized` was durable.
//! 2. A secret leaves encrypted to the request's `deliver-to`, and in no other way.
//! 3. A reshare delivers nothing: the current secrets are sealed anew, or nothing changes.
//! 4. What does not combine or open is named and does not stand in the way of what does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keyturn_proto::v1;
use keyturn_seal::{self as seal, Release, Released};
use keyturn_vault::{
    ceremony::Sheaf,
    definition::Definition,
    digest::Digest,
    event::{Failure, Maker},
    id::{CeremonyId, CredentialId, GroupName},
    key::ShareKey,
    name::Origin,
    reference::Version,
    text::CredentialLine,
    world::VersionId,
};

use crate::{
    chain::Known,
    desk::{Desk, Share},
    identity::Node,
    rows,
    sealing::{self, Fresh},
};

/// What to open, and for whom.
pub struct Order {
    /// The vault.
    pub origin: Origin,
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// The requester's key.
    pub deliver_to: Option<ShareKey>,
    /// What the request names, in its order.
    pub lines: Vec<CredentialLine>,
    /// The commitments and ciphertexts.
    pub desk: Option<Arc<Desk>>,
    /// The shares.
    pub sheaves: Vec<Sheaf<Share>>,
    /// What is sealed anew, and delivered to nobody; none to deliver.
    pub reshare: Option<Reshare>,
}

/// Sealing the same secrets for the charter in force.
pub struct Reshare {
    /// Who signs the manifests.
    pub node: Node,
    /// The charter.
    pub known: Arc<Known>,
    /// Per credential: its definition, the version that is current, and the number of the new one.
    pub of: BTreeMap<CredentialId, (Arc<Definition>, Version, Version)>,
}

/// What came of it.
#[derive(Clone)]
pub struct Opened {
    /// The digest of what is handed out.
    pub digest: Option<Digest>,
    /// The versions in it.
    pub delivered: BTreeSet<VersionId>,
    /// Versions whose shares do not all match what was sealed.
    pub inconsistent: BTreeSet<(VersionId, GroupName)>,
    /// What is kept for the requester.
    pub release: rows::Release,
    /// What was sealed anew, with the version whose secret it has.
    pub resealed: Vec<(Version, Fresh)>,
}

/// Opens what can be opened. Takes a few hundred microseconds of computing; no I/O.
pub fn open(order: Order) -> Result<Opened, Failure> {
    let Order {
        origin,
        ceremony,
        deliver_to,
        lines,
        desk,
        sheaves,
        reshare,
    } = order;
    let desk = desk.ok_or(Failure::NothingOpened)?;
    let mut inconsistent = BTreeSet::new();
    let mut secrets = Vec::new();
    let mut delivered = BTreeSet::new();
    let mut versions = Vec::with_capacity(lines.len());
    for line in &lines {
        let version = VersionId {
            credential: line.credential,
            version: line.version,
        };
        let sheaf = sheaves.iter().find(|sheaf| sheaf.version == version);
        let problem = match sheaf.map(|sheaf| combine(&desk, sheaf, &mut inconsistent)) {
            Some(Ok(secret)) => {
                secrets.push(Released {
                    credential: line.credential.to_string(),
                    version: line.version.number(),
                    secret,
                });
                delivered.insert(version);
                String::new()
            }
            Some(Err(problem)) => problem,
            None => "too few shares".to_owned(),
        };
        versions.push(rows::ReleasedVersion {
            credential: line.credential,
            version: line.version,
            problem,
        });
    }
    if secrets.is_empty() {
        return Err(Failure::NothingOpened);
    }
    if let Some(reshare) = reshare {
        let resealed = reshare.seal(ceremony, &secrets)?;
        let kept = |version: &VersionId| {
            let sealed = reshare.of.get(&version.credential);
            sealed.is_some_and(|(_, of, _)| *of == version.version)
        };
        delivered.retain(kept);
        return Ok(Opened {
            digest: None,
            delivered,
            inconsistent,
            release: rows::Release {
                ciphertext: Vec::new(),
                versions,
            },
            resealed,
        });
    }
    let to: seal::ShareKey = deliver_to
        .and_then(|key| key.as_str().parse().ok())
        .ok_or(Failure::NotEncrypted)?;
    let release = Release {
        origin: origin.to_string(),
        ceremony: ceremony.to_string(),
        secrets,
    };
    let ciphertext = release.encrypt(&to).map_err(|_| Failure::NotEncrypted)?;
    let digest = Some(Digest::of(&ciphertext));
    Ok(Opened {
        digest,
        delivered,
        inconsistent,
        release: rows::Release {
            ciphertext,
            versions,
        },
        resealed: Vec::new(),
    })
}

impl Reshare {
    /// Seals each current version anew; all of them, or nothing.
    fn seal(
        &self,
        ceremony: CeremonyId,
        secrets: &[Released],
    ) -> Result<Vec<(Version, Fresh)>, Failure> {
        let mut resealed = Vec::with_capacity(self.of.len());
        for (credential, (definition, of, new)) in &self.of {
            let id = credential.to_string();
            let secret = secrets
                .iter()
                .find(|one| one.credential == id && one.version == of.number())
                .ok_or(Failure::NothingOpened)?;
            let maker = Maker::Reshare(ceremony);
            let sealed = sealing::seal(
                &self.node,
                &self.known,
                definition,
                (*new, maker),
                &secret.secret,
            );
            resealed.push((*of, sealed.map_err(|_| Failure::NotEncrypted)?));
        }
        Ok(resealed)
    }
}

/// Combines the shares of one version and opens it; what does not match is noted.
fn combine(
    desk: &Desk,
    sheaf: &Sheaf<Share>,
    inconsistent: &mut BTreeSet<(VersionId, GroupName)>,
) -> Result<seal::SecretBytes, String> {
    let place = desk
        .place(sheaf.version, &sheaf.group)
        .ok_or_else(|| "not sealed to this group".to_owned())?;
    let shares: Vec<&seal::ValidShare> = sheaf
        .shares
        .values()
        .map(|share| share.0.as_ref())
        .collect();
    let combined = place
        .sharing
        .combine(&shares)
        .map_err(|error| error.to_string())?;
    if !combined.inconsistent.is_empty() {
        inconsistent.insert((sheaf.version, sheaf.group.clone()));
    }
    seal::open(
        &place.ciphertext,
        &combined.identity,
        place.sharing.binding(),
    )
    .map_err(|error| error.to_string())
}

/// A release without its receipts.
pub fn wire(id: CeremonyId, release: &rows::Release) -> v1::Release {
    let versions = release.versions.iter().map(|version| v1::ReleasedVersion {
        credential: version.credential.to_string(),
        version: version.version.number(),
        state: v1::VersionState::Unspecified.into(),
        delivered: version.problem.is_empty(),
        problem: version.problem.clone(),
    });
    v1::Release {
        ceremony: id.to_string(),
        ciphertext: release.ciphertext.clone(),
        versions: versions.collect(),
        authorized: None,
        released: None,
        checkout_ends_ms: 0,
    }
}
