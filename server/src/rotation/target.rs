//! A credential as its connector is told of it, and what can be said of that without asking the target.

use std::collections::BTreeMap;

use keyturn_seal::SecretBytes;
use keyturn_vault::{
    definition::Definition,
    name::{Line, Name},
};

use tokio::time::timeout;

use super::Workshop;
use crate::connector::{Shape, Target};

/// The credential at its target.
pub(super) fn target(definition: &Definition) -> Target {
    let lines = |lines: &BTreeMap<Name, Line>| {
        lines
            .iter()
            .map(|(name, line)| (name.to_string(), line.to_string()))
            .collect()
    };
    Target {
        credential: definition.credential.to_string(),
        path: definition.path.to_string(),
        kind: definition.kind.to_string(),
        metadata: lines(&definition.metadata),
        settings: definition
            .connector
            .as_ref()
            .map(|connector| lines(&connector.settings))
            .unwrap_or_default(),
    }
}

impl Workshop {
    /// Whether a definition's settings can be meant, where this host has its connector.
    pub fn check_settings(&self, definition: &Definition) -> Result<(), String> {
        let Some(shape) = self.connector(definition) else {
            return Ok(());
        };
        let hands = matches!(shape, Shape::Hands(_));
        if !hands && shape.two().is_some() != definition.kind.two_slots() {
            return Err(format!(
                "a credential of the kind {} cannot be rotated by this connector: see `slots` on its page",
                definition.kind
            ));
        }
        shape.connector().check_settings(&target(definition))
    }

    /// Whether a definition names a connector that this host does not have.
    pub fn lacks_connector(&self, definition: &Definition) -> bool {
        definition.connector.is_some() && self.connector(definition).is_none()
    }

    /// How strong the secrets are that are made here for a credential, in bits.
    pub fn entropy_bits(&self, definition: &Definition) -> Option<f64> {
        let shape = self.connector(definition)?;
        let rules = shape.one()?.rules(&target(definition)).ok()?;
        rules.entropy_bits().ok()
    }

    /// A new secret, as its target wants it.
    pub(super) async fn secret(&self, definition: &Definition) -> Result<SecretBytes, String> {
        let shape = self.connector(definition);
        let shape = shape.ok_or("this daemon has no such connector in its configuration")?;
        let connector = shape
            .one()
            .ok_or("the target makes the secrets of this connector")?;
        let target = target(definition);
        let made = timeout(connector.deadline(), connector.make(&target)).await;
        let made = made.map_err(|_| "no secret was made in time".to_owned())?;
        made.map_err(|error| error.to_string())
    }
}
