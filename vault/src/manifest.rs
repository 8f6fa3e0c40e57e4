//! The manifest: the list of digests that fixes one sealed version.
//!
//! Whoever seals a version signs the bytes of its manifest: a depositor's token or device, or the
//! node that rotated or resealed. Its digest enters the log with `version.sealed`, and every request
//! that opens the version names it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::definition::Kind;
use crate::digest::Digest;
use crate::id::{CredentialId, GroupName, PersonId, TokenId};
use crate::jcs::Document;
use crate::name::Origin;
use crate::reference::{CharterRef, Version};

/// The largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 48 * 1024;

/// The type and version of a manifest document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "keyturn manifest v1")]
    V1,
}

/// What one sealed version consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The type of this document.
    #[serde(default)]
    pub format: Format,
    /// The vault.
    pub origin: Origin,
    /// The digest of the definition for which it was sealed.
    pub definition: Digest,
    /// The credential.
    pub credential: CredentialId,
    /// The number of the version.
    pub version: Version,
    /// What kind of secret it is, as the definition says.
    pub kind: Kind,
    /// The charter to whose groups it was sealed.
    pub charter: CharterRef,
    /// The SHA-256 of the ciphertext.
    pub ciphertext: Digest,
    /// The groups that can open it: the definition's group, then its fallback group if it has one.
    pub groups: Vec<SealedGroup>,
}

impl Document for Manifest {
    const MAX_BYTES: usize = MAX_MANIFEST_BYTES;
}

/// One group's shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedGroup {
    /// The group.
    pub group: GroupName,
    /// How many shares open it.
    pub k: u8,
    /// How many shares there are.
    pub n: u8,
    /// Who holds them, in the order of their x.
    pub holders: Vec<Holder>,
}

/// One custodian's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Whose it is.
    pub person: PersonId,
    /// Its x: 1 to n.
    pub x: u8,
    /// The tokens to which its envelope is encrypted.
    pub tokens: BTreeSet<TokenId>,
    /// The digest by which anybody checks the share.
    pub commitment: Digest,
    /// The SHA-256 of the envelope.
    pub envelope: Digest,
}

impl Manifest {
    /// The shares of this group.
    pub fn group(&self, name: &GroupName) -> Option<&SealedGroup> {
        self.groups.iter().find(|group| group.group == *name)
    }
}

impl SealedGroup {
    /// The share of this person.
    pub fn holder(&self, person: PersonId) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.person == person)
    }
}
