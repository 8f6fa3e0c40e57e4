//! Connectors without a vault around them.

use std::{collections::BTreeMap, time::Duration};

use keyturn_seal::SecretBytes;
use keyturnd::{
    config,
    connector::{Attempt, Connectors, Failure, OneSlot, Shape, Target},
};

use crate::harness::Outcome;

/// The connector of this table of the configuration.
pub fn connector(table: &str) -> Outcome<Shape> {
    let all: BTreeMap<config::Label, config::Connector> =
        toml::from_str(&format!("[it]\n{table}"))?;
    Ok(Connectors::of(&all).named("it").ok_or("no connector")?)
}

/// A credential with these settings.
pub fn target(kind: &str, settings: &[(&str, &str)]) -> Target {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Target {
        credential: "01HX0000000000000000000000".to_owned(),
        path: "a/b".to_owned(),
        kind: kind.to_owned(),
        metadata: BTreeMap::new(),
        settings: settings.iter().map(own).collect(),
    }
}

/// Sets this as a version, within so many seconds.
pub async fn apply(
    one: &dyn OneSlot,
    target: &Target,
    (version, new): (u64, &str),
    secs: u64,
) -> Result<(), Failure> {
    let attempt = Attempt::within(version, Duration::from_secs(secs));
    let new = SecretBytes::from_slice(new.as_bytes());
    one.apply(target, attempt, &new).await
}

/// Tries this.
pub async fn test(one: &dyn OneSlot, target: &Target, secret: &str) -> Result<(), Failure> {
    let attempt = Attempt::within(1, Duration::from_secs(10));
    one.test(target, attempt, &SecretBytes::from_slice(secret.as_bytes()))
        .await
}

/// What an answer says of the target, as a word.
pub fn word<T>(answer: &Result<T, Failure>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Failure::Refused(_)) => "refused",
        Err(Failure::Full(_)) => "full",
        Err(Failure::Busy { .. }) => "busy",
        Err(Failure::Unknown(_)) => "unknown",
    }
}
