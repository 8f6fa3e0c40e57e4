//! The submit key: the age key to which shares of one ceremony are encrypted on their way.
//!
//! Signed by the node that made it in memory. It binds the key to the vault, the ceremony, the
//! request and the node, so that nobody in between can put in a key of their own, and a key of one
//! ceremony takes no shares of another.

use crate::digest::Digest;
use crate::id::{CeremonyId, NodeId};
use crate::key::ShareKey;
use crate::name::Origin;
use crate::text::{Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// The key of one ceremony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitKey {
    /// The vault.
    pub vault: Origin,
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// The digest of its request.
    pub request: Digest,
    /// The node that holds the identity in its memory.
    pub node: NodeId,
    /// The recipient, X25519.
    pub submit_key: ShareKey,
    /// When it was made, by the node's clock.
    pub made: Stamp,
}

impl Text for SubmitKey {
    const TYPE: &'static str = "submit-key";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("ceremony", &self.ceremony);
        lines.line("request-sha256", &self.request);
        lines.line("node", &self.node);
        lines.line("submit-key", &self.submit_key);
        lines.line("made", &self.made);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            ceremony: lines.line("ceremony")?,
            request: lines.line("request-sha256")?,
            node: lines.line("node")?,
            submit_key: lines.line("submit-key")?,
            made: lines.line("made")?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        if self.submit_key.is_native() {
            Ok(())
        } else {
            Err(TextError::Rule("a submit key is an X25519 recipient"))
        }
    }
}
