//! The node: the key that this daemon signs submit keys and manifests with, and serves TLS by.

use std::sync::Arc;

use keyturn_hsm::device::DeviceKey;
use keyturn_vault::{
    event::Seal,
    id::NodeId,
    text::{SignedText, Signer},
};

use crate::refusal::Refused;

/// This node; clones are the same.
#[derive(Clone)]
pub struct Node {
    /// Its id in the charter.
    pub id: NodeId,
    key: Arc<DeviceKey>,
}

impl Node {
    /// The node with this id and key.
    pub fn new(id: NodeId, key: Arc<DeviceKey>) -> Self {
        Self { id, key }
    }

    /// Its key.
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// Signs a text.
    pub fn sign(&self, text: String) -> Result<SignedText, Refused> {
        let signature = self
            .key
            .sign(text.as_bytes())
            .map_err(|_| Refused::NoEntropy)?;
        Ok(SignedText {
            text,
            signature,
            signer: Signer::Node(self.id),
        })
    }

    /// Signs a document.
    pub fn seal(&self, document: &[u8]) -> Result<Seal, Refused> {
        let signature = self.key.sign(document).map_err(|_| Refused::NoEntropy)?;
        Ok(Seal {
            signer: Signer::Node(self.id),
            signature,
        })
    }
}
