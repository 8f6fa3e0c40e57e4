//! The restore document: what an `accept-restore` puts in force, whole.
//!
//! The request's subject shows the heads and the fingerprints of new keys, and names this document
//! by its digest; so the keys themselves, and every document that was found in the sinks, are what
//! the quorum signed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::charter::{Charter, Node};
use crate::digest::Digest;
use crate::jcs::{Document, JcsError};
use crate::key::VerifierKey;
use crate::name::Origin;
use crate::reference::{CharterRef, Head};
use crate::text::Restore;

/// The largest restore document, in bytes: about 60,000 found documents.
pub const MAX_RESTORE_BYTES: usize = 4 * 1024 * 1024;

/// The type and version of a restore document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "keyturn restore v1")]
    V1,
}

/// What a restored vault goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreDocument {
    /// The type of this document.
    #[serde(default)]
    pub format: Format,
    /// The vault.
    pub origin: Origin,
    /// The log as restored.
    pub head: Head,
    /// The newest log that anybody knows to have been lost.
    pub lost: Option<Head>,
    /// The newest charter that anybody has.
    pub charter: CharterRef,
    /// The new log key, where the old one is lost.
    pub log_key: Option<VerifierKey>,
    /// The new node, where the old one's key is lost.
    pub node: Option<Node>,
    /// What was found in the sinks and is not in the restored log.
    pub documents: BTreeSet<Digest>,
}

impl Document for RestoreDocument {
    const MAX_BYTES: usize = MAX_RESTORE_BYTES;
}

impl RestoreDocument {
    /// The charter as it is from then on: with the new log key, and the new node for the one of its name.
    pub fn applied_to(&self, charter: &Charter) -> Charter {
        let mut charter = charter.clone();
        charter.restored = Some(self.charter.digest);
        if let Some(key) = &self.log_key {
            charter.log_key = key.clone();
        }
        if let Some(node) = &self.node {
            charter.nodes.retain(|known| known.name != node.name);
            charter.nodes.push(node.clone());
        }
        charter
    }

    /// The subject of the request that accepts it.
    pub fn subject(&self) -> Result<Restore, JcsError> {
        Ok(Restore {
            head: self.head,
            lost: self.lost,
            log_key: self.log_key.as_ref().map(VerifierKey::fingerprint),
            node_key: self.node.as_ref().map(|node| node.key.pin()),
            documents: Digest::of(&self.to_bytes()?),
        })
    }
}
