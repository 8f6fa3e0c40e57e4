//! A look at a target, without the secret.

use std::sync::Arc;

use keyturn_vault::{definition::Definition, id::CredentialId, reference::Version};

use super::{Workshop, target::target};
use crate::{
    connector::{Failure, Known},
    owner::{Core, Needs, Txn, WeakOwner},
};

/// A target to look at, and what is known of it.
pub struct Look {
    /// The credential.
    pub credential: CredentialId,
    /// Its current version.
    pub version: Version,
    /// Its definition.
    pub definition: Arc<Definition>,
    /// What is known.
    pub known: Known,
}

impl Workshop {
    /// Looks at a target without the secret; what is seen is stepped. Looks share the places of rotations.
    pub fn look(&self, owner: WeakOwner, look: Look) {
        let workshop = self.clone();
        tokio::spawn(async move {
            let _permit = Arc::clone(&workshop.0.permits).acquire_owned().await;
            let Some(shape) = workshop.connector(&look.definition) else {
                return;
            };
            let (connector, target) = (shape.connector(), target(&look.definition));
            let within = connector.deadline();
            let probe = tokio::time::timeout(within, connector.probe(&target, &look.known)).await;
            let late = || Failure::Unknown(format!("no look within {} s", within.as_secs()));
            let sight = match probe.unwrap_or_else(|_| Err(late())) {
                Ok(sight) => sight,
                Err(failure) => return workshop.blame(look.credential, failure.to_string()),
            };
            let (id, version) = (look.credential, look.version);
            let step =
                move |core: &mut Core, txn: &mut Txn| core.looked(txn, id, version, sight.clone());
            if let Err(refused) = owner.insist(Needs::credentials([id]), step).await {
                tracing::warn!(credential = %id, %refused, "what a look saw was not taken");
            }
        });
    }
}
