//! The manifest: the list of digests that fixes one sealed version.
//!
//! Whoever seals a version signs the bytes of its manifest: a depositor's token or device, or the
//! node that rotated or resealed. Its digest enters the log with `version.sealed`, and every request
//! that opens the version names it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::charter::Charter;
use crate::definition::{Definition, Kind};
use crate::digest::Digest;
use crate::id::{CredentialId, GroupName, PersonId, TokenId};
use crate::jcs::{Document, JcsError};
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

/// Why a manifest does not fit its definition and its charter.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The definition or the charter has no encoding.
    #[error("the definition or the charter cannot be encoded")]
    Jcs(#[source] JcsError),
    /// Another vault, credential, kind or definition.
    #[error("the manifest is of another definition")]
    Definition,
    /// Another charter.
    #[error("the manifest is sealed to another charter")]
    Charter,
    /// Not the groups of the definition in their order.
    #[error("the manifest does not have exactly the definition's group and its fallback group")]
    Groups,
    /// Fewer shares needed than the charter says, or more than there are.
    #[error("group {group}: {k} of {n} shares open it, and the charter says at least {least}")]
    Quorum {
        /// The group.
        group: GroupName,
        /// How many open it.
        k: u8,
        /// How many there are.
        n: u8,
        /// The charter's quorum.
        least: u8,
    },
    /// Not exactly the members of the group, with x from 1 to n in the order of their ids.
    #[error("group {group}: the holders are not the group's members, in order, with x from 1 to n")]
    Roster {
        /// The group.
        group: GroupName,
    },
    /// Not exactly the member's tokens.
    #[error("group {group}: the share of {person} is not sealed to exactly their tokens")]
    Tokens {
        /// The group.
        group: GroupName,
        /// The member.
        person: PersonId,
    },
    /// A commitment or an envelope is there twice.
    #[error("two shares have the same commitment or envelope")]
    Repeated,
}

impl Manifest {
    /// Does it fit this definition and this charter, which it names?
    ///
    /// So the roster comes from the charter alone: whoever writes to the store adds no reader.
    pub fn validate(
        &self,
        definition: &Definition,
        charter: &Charter,
    ) -> Result<(), ManifestError> {
        let bytes = definition.to_bytes().map_err(ManifestError::Jcs)?;
        let named = (&self.origin, self.definition, self.credential, self.kind);
        let wanted = (
            &definition.origin,
            Digest::of(&bytes),
            definition.credential,
            definition.kind,
        );
        if named != wanted {
            return Err(ManifestError::Definition);
        }
        let reference = charter.reference().map_err(ManifestError::Jcs)?;
        if self.charter != reference || self.origin != charter.origin {
            return Err(ManifestError::Charter);
        }
        if !self
            .groups
            .iter()
            .map(|group| &group.group)
            .eq(definition.groups())
        {
            return Err(ManifestError::Groups);
        }
        self.groups
            .iter()
            .try_for_each(|group| group.validate(charter))?;
        let holders = || self.groups.iter().flat_map(|group| &group.holders);
        let commitments: BTreeSet<_> = holders().map(|holder| holder.commitment).collect();
        let envelopes: BTreeSet<_> = holders().map(|holder| holder.envelope).collect();
        let shares = holders().count();
        if commitments.len() == shares && envelopes.len() == shares {
            Ok(())
        } else {
            Err(ManifestError::Repeated)
        }
    }
}

impl SealedGroup {
    fn validate(&self, charter: &Charter) -> Result<(), ManifestError> {
        let group = self.group.clone();
        let Some(chartered) = charter.group(&group) else {
            return Err(ManifestError::Groups);
        };
        let (k, n, least) = (self.k, self.n, chartered.k);
        if k < least || k > n {
            return Err(ManifestError::Quorum { group, k, n, least });
        }
        let holders = self.holders.iter().map(|holder| (holder.person, holder.x));
        let members = chartered.members.iter().copied().zip(1..=n);
        let counted = usize::from(n) == chartered.members.len();
        if !counted || !holders.eq(members) {
            return Err(ManifestError::Roster { group });
        }
        for holder in &self.holders {
            let person = holder.person;
            let tokens = charter.person(person).map(|person| &person.tokens);
            let tokens = tokens.into_iter().flatten().map(|token| token.id).collect();
            if holder.tokens != tokens {
                return Err(ManifestError::Tokens { group, person });
            }
        }
        Ok(())
    }

    /// The share of this person.
    pub fn holder(&self, person: PersonId) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.person == person)
    }
}
