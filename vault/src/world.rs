//! What the machines judge by: the charter in force and the credentials that are asked for.
//!
//! The shell hands in documents whose signatures and digests it has checked against the charter's
//! chain; nothing about people, keys, quorums or holders ever comes from a store row. Only the life
//! of a version does, and a life lets nobody open anything.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    charter::{Charter, Policy},
    definition::Definition,
    digest::Digest,
    id::{CeremonyId, CredentialId, GroupName, PersonId},
    manifest::Manifest,
    reference::{CharterRef, Version},
    rotation::Slot,
};

/// Everything a step may look at.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The charter in force.
    pub charter: &'a Charter,
    /// Its index and digest.
    pub in_force: CharterRef,
    /// The credentials.
    pub holdings: &'a dyn Holdings,
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("in_force", &self.in_force)
            .finish_non_exhaustive()
    }
}

/// Finds credentials; the shell's overlay, a plain map, a replay.
pub trait Holdings {
    /// The credential with this id.
    fn holding(&self, id: CredentialId) -> Option<&Holding>;
}

impl Holdings for BTreeMap<CredentialId, Holding> {
    fn holding(&self, id: CredentialId) -> Option<&Holding> {
        self.get(&id)
    }
}

/// A credential: its definition and its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The definition in force; a document never changes, so copies of a holding share it.
    pub definition: Arc<Definition>,
    /// The digest of the definition.
    pub digest: Digest,
    /// Its versions, also the retired and destroyed ones.
    pub versions: BTreeMap<Version, Sealed>,
    /// Who has it checked out, by which ceremony.
    pub out: BTreeMap<CeremonyId, PersonId>,
}

/// One sealed value of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Where it is in its life, as the rotation machine keeps it.
    pub life: Life,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest, shared like the definition.
    pub manifest: Arc<Manifest>,
}

impl Holding {
    /// The group that is asked: the one that the request names, if the credential is sealed to it.
    pub fn asked<'a>(&'a self, named: Option<&'a GroupName>) -> Option<&'a GroupName> {
        let (first, second) = (&self.definition.group, self.definition.fallback.as_ref());
        match named {
            None => Some(first),
            Some(group) => (group == first || Some(group) == second).then_some(group),
        }
    }

    /// The versions that a request must name.
    pub fn live(&self) -> impl Iterator<Item = (Version, &Sealed)> {
        self.versions
            .iter()
            .filter(|(_, sealed)| sealed.life.stage.live())
            .map(|(version, sealed)| (*version, sealed))
    }

    /// Takes the lives of the versions from their slot.
    pub fn follow(&mut self, slot: &Slot) {
        for (version, sealed) in &mut self.versions {
            if let Some(kept) = slot.versions.get(version) {
                sealed.life = kept.life;
            }
        }
    }

    /// Its policy, as the charter in force has it.
    pub fn policy<'a>(&self, charter: &'a Charter) -> Option<&'a Policy> {
        charter.policy(&self.definition.policy)
    }
}

/// Where a version is in its life, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Where it is.
    pub stage: Stage,
    /// Whether it is, or once was, known to be the target's secret.
    pub proven: bool,
    /// Whether a rotation made it, so that it may be the target's secret at any moment.
    pub rolled: bool,
}

impl Life {
    /// Whether a quorum over this version is enough for its credential.
    pub fn counts(self) -> bool {
        self.stage != Stage::Destroyed && (self.stage == Stage::Current || self.proven)
    }
}

/// The stages of a life. Nothing goes back, but a superseded version that works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Sealed, not known to be the target's secret.
    Candidate,
    /// The target's secret, as far as anybody knows.
    Current,
    /// Was current; another one is.
    Superseded,
    /// Known not to be the target's secret; can still be opened when named.
    Retired,
    /// Gone.
    Destroyed,
}

impl Stage {
    /// Whether a request must name it.
    pub fn live(self) -> bool {
        matches!(self, Self::Candidate | Self::Current | Self::Superseded)
    }
}

/// A version of a credential; written like `01HZ… v7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The credential.
    pub credential: CredentialId,
    /// The version.
    pub version: Version,
}

/// Not a version of a credential.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a version of a credential: write its id and a version, like 01HZ… v7")]
pub struct VersionIdError;

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.credential, self.version)
    }
}

impl FromStr for VersionId {
    type Err = VersionIdError;

    fn from_str(text: &str) -> Result<Self, VersionIdError> {
        let (credential, version) = text.split_once(' ').ok_or(VersionIdError)?;
        Ok(Self {
            credential: credential.parse().map_err(|_| VersionIdError)?,
            version: version.parse().map_err(|_| VersionIdError)?,
        })
    }
}

crate::jcs::as_string!(VersionId);
