//! The connectors of this host: made from its configuration, in one place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Failure, Manual, Shape, aws, exec, ldap::Ldap, postgres::Postgres};
use crate::config;

/// The longest look at a connector's own credentials.
const SELF_CHECK: Duration = Duration::from_secs(30);

/// The connectors that this host is configured for, by the name that definitions use.
#[derive(Clone, Default)]
pub struct Connectors {
    by_name: BTreeMap<String, Shape>,
}

/// A connector as its configuration says. Nothing is asked of the outside here.
fn build(config: &config::Connector) -> Shape {
    match config {
        config::Connector::Exec(config) => exec::build(config),
        config::Connector::AwsIamPassword(config) => {
            Shape::One(Arc::new(aws::Passwords::new(config)))
        }
        config::Connector::AwsIamAccessKey(config) => {
            Shape::Two(Arc::new(aws::AccessKeys::new(config)))
        }
        config::Connector::AwsIamMfa(config) => Shape::Two(Arc::new(aws::Mfa::new(config))),
        config::Connector::AwsRoot(config) => Shape::One(Arc::new(aws::Root::new(config))),
        config::Connector::Manual(config) => Shape::Hands(Arc::new(Manual::new(config))),
        config::Connector::Postgres(config) => Shape::One(Arc::new(Postgres::new(config))),
        config::Connector::Ldap(config) => Shape::One(Arc::new(Ldap::new(config))),
    }
}

impl Connectors {
    /// Those of a configuration.
    pub fn of(config: &BTreeMap<config::Label, config::Connector>) -> Self {
        let named = |(name, connector): (&config::Label, &config::Connector)| {
            (name.as_ref().to_owned(), build(connector))
        };
        Self {
            by_name: config.iter().map(named).collect(),
        }
    }

    /// These, and one that no configuration describes: for programs that bring a target of their own.
    #[must_use]
    pub fn with(mut self, name: &str, shape: Shape) -> Self {
        self.by_name.insert(name.to_owned(), shape);
        self
    }

    /// The connector of that name, where this host has one.
    pub fn named(&self, name: &str) -> Option<Shape> {
        self.by_name.get(name).cloned()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether each connector's own credentials work; all are looked at side by side.
    pub async fn check_all(&self) -> BTreeMap<String, Result<String, Failure>> {
        let mut looks = tokio::task::JoinSet::new();
        for (name, shape) in self.by_name.clone() {
            looks.spawn(async move {
                let look = tokio::time::timeout(SELF_CHECK, shape.connector().check_self());
                let late = || format!("no answer within {} s", SELF_CHECK.as_secs());
                let outcome = look.await.unwrap_or_else(|_| Err(Failure::Unknown(late())));
                (name, outcome)
            });
        }
        let mut all = BTreeMap::new();
        while let Some(look) = looks.join_next().await {
            all.extend(look);
        }
        all
    }
}
