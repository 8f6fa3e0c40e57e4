//! What a rotation needs of its target, behind one trait.
//!
//! A connector changes a credential where it is used: a database, a directory, an account service.
//! It gets the *new* secret only; the daemon holds no old one. Its rights come from the platform the
//! daemon runs on, never from the vault.
//!
//! # Invariants
//! 1. A failure says whether the target may have changed: [`Failure::Refused`] means "certainly
//!    not", everything unknown is [`Failure::Unknown`]. The rotation machine treats the two apart.
//! 2. Every call ends by its deadline, whatever the target does.
//! 3. No message of a connector carries the secret it was given.

pub mod exec;
pub mod generate;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use keyturn_seal::secret::SecretBytes;
use thiserror::Error;

pub use self::generate::Rules;
use crate::config;

/// The credential at its target, as the definition has it. Nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The credential's id, a ULID.
    pub credential: String,
    /// The credential's path, like `aws/123456789012/root`.
    pub path: String,
    /// The credential's kind, as in its definition.
    pub kind: String,
    /// Clear metadata of the definition: user name, account, sign-in address.
    pub metadata: BTreeMap<String, String>,
    /// The connector settings of the definition.
    pub settings: BTreeMap<String, String>,
}

/// One attempt to make `version` the secret at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The version being rolled.
    pub version: u64,
    /// Time left for the call; it is over afterwards, one way or the other.
    pub deadline: Duration,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The target said no; nothing was changed there.
    #[error("the target refused: {0}")]
    Refused(String),
    /// No answer that can be relied on; the target may or may not have changed.
    #[error("the outcome at the target is unknown: {0}")]
    Unknown(String),
}

/// What a target can show for an old secret being void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The target shows that the secret was changed: a verifier, a time of change.
    Shown(String),
    /// The target has nothing to look at.
    NotObservable,
}

/// A target that a credential can be rotated at.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The rules that generated secrets follow at this target.
    fn rules(&self, target: &Target) -> Rules;

    /// How long a call takes at most.
    fn deadline(&self) -> Duration;

    /// Whether the target refuses a writer that comes late by itself. Without one, retired versions
    /// are kept for the quarantine.
    fn has_fence(&self) -> bool {
        false
    }

    /// Looks whether connector and settings fit, without changing anything.
    async fn check(&self, target: &Target) -> Result<(), Failure>;

    /// Sets the new secret.
    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure>;

    /// Signs in with the new secret.
    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure>;

    /// Ends sessions that were opened with an older secret.
    async fn end_sessions(&self, target: &Target) -> Result<(), Failure>;

    /// Asks the target for evidence that older secrets are void.
    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure>;
}

/// The connectors that this host is configured for, by the name that definitions use.
#[derive(Clone, Default)]
pub struct Connectors {
    by_name: BTreeMap<String, Arc<dyn Connector>>,
}

impl Connectors {
    /// Those of a configuration.
    pub fn of(config: &BTreeMap<config::Label, config::Connector>) -> Self {
        let named = |(name, connector): (&config::Label, &config::Connector)| {
            let config::Connector::Exec {
                command,
                args,
                env,
                deadline_secs,
                rules,
            } = connector;
            let exec = exec::Exec {
                program: AsRef::<std::path::Path>::as_ref(command).to_owned(),
                args: args.clone(),
                env: env.clone(),
                timeout: deadline_secs.secs(),
                rules: rules.rules(),
            };
            let connector: Arc<dyn Connector> = Arc::new(exec);
            (name.as_ref().to_owned(), connector)
        };
        Self {
            by_name: config.iter().map(named).collect(),
        }
    }

    /// Adds a connector under a name of the configuration.
    #[must_use]
    pub fn with(mut self, name: &str, connector: Arc<dyn Connector>) -> Self {
        self.by_name.insert(name.to_owned(), connector);
        self
    }

    /// The connector of that name, where this host has one.
    pub fn named(&self, name: &str) -> Option<Arc<dyn Connector>> {
        self.by_name.get(name).cloned()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
