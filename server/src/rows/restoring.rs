//! Rows of a restore: what waits for a quorum, and what one has accepted.

use keyturn_vault::{
    digest::Digest,
    id::CeremonyId,
    reference::{CharterRef, Head},
    world::VersionId,
};
use serde::{Deserialize, Serialize};

/// A restore that a quorum accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The ceremony that decided it.
    pub ceremony: CeremonyId,
    /// The charter in force, whose keys it may have replaced.
    pub charter: CharterRef,
    /// The digest of the restore document.
    pub document: Digest,
    /// The head from which the log went on.
    pub head: Head,
    /// The highest head that was known to be lost.
    pub lost: Option<Head>,
    /// The heads that places for copies showed to be lost; a vault made from its log does not know them.
    #[serde(default)]
    pub shown: Vec<Head>,
    /// The entry `restore.accepted`.
    pub entry: u64,
}

impl Restored {
    /// Whether the quorum gave up the log with this head.
    pub fn gave_up(&self, head: Head) -> bool {
        self.lost == Some(head) || self.shown.contains(&head)
    }
}

/// `meta/restore`: there until a quorum accepts what was restored, and all that was found is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restoring {
    /// Why, for people.
    pub why: String,
    /// The log as restored.
    pub head: Head,
    /// Versions whose sealed values are here and that the log does not have, with their manifests.
    pub found: Vec<(VersionId, Digest)>,
    /// The ceremony that accepted it; `found` is then what is not yet taken back.
    #[serde(default)]
    pub accepted: Option<CeremonyId>,
}
