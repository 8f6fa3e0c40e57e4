//! What a rotation needs of its target, behind three traits.
//!
//! A connector changes a credential where it is used: a database, a directory, an account service.
//! It gets the *new* secret only; the daemon holds no old one. Its rights come from the platform the
//! daemon runs on, never from the vault. [`Connector`] is what every one has; besides it, a target
//! that holds one secret, which is overwritten, is a [`OneSlot`], and one that holds several keys at a
//! time, whose secrets it makes itself, a [`TwoSlot`]. [`Manual`] is people. A [`Shape`] is one of them, so
//! a step of the wrong kind cannot be written down.
//!
//! # Invariants
//! 1. A failure says whether the target may have changed: [`Failure::Unknown`] means "perhaps", every
//!    other one "certainly not". The rotation machine treats the two apart.
//! 2. Every call ends by its deadline, whatever the target does, and begins nothing at the target
//!    after it: see [`Attempt::left`].
//! 3. No message, fact or name that a connector gives carries a secret.
//! 4. What looks (`check`, `check_self`, `probe`, `keys`, `evidence`) changes nothing.

pub mod aws;
mod build;
pub mod exec;
mod ldap;
mod manual;
mod peer;
mod postgres;
mod probe;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::generate::{Rules, RulesError};
use async_trait::async_trait;
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::name::KeyId;
use thiserror::Error;

pub use self::{
    build::Connectors,
    manual::Manual,
    probe::{Facts, Known, MAX_FACTS, PROBE_EVERY, Sight, Verdict},
};

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

/// One attempt to make `version` a secret of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The version being rolled.
    pub version: u64,
    /// When the call is over, one way or the other.
    pub until: Instant,
}

impl Attempt {
    /// An attempt that has this long.
    #[expect(
        clippy::disallowed_methods,
        reason = "a deadline of a call is a moment of the running process, which no test moves"
    )]
    pub fn within(version: u64, time: Duration) -> Self {
        let now = Instant::now();
        Self {
            version,
            until: now.checked_add(time).unwrap_or(now),
        }
    }

    /// The time left. Whatever changes the target asks this right before it sends, so that a process
    /// that was stopped in between and goes on late sends nothing.
    pub fn left(&self) -> Result<Duration, Failure> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a deadline of a call is a moment of the running process, which no test moves"
        )]
        let left = self.until.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
            .ok_or_else(|| Failure::Unknown("the time for this call is over".to_owned()))
    }
}

/// Why a call did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The target said no; nothing was changed there.
    #[error("the target refused: {0}")]
    Refused(String),
    /// It holds as many keys as it can; nothing was changed there.
    #[error("the target holds as many keys as it can: {0}")]
    Full(String),
    /// It wants to be asked later; nothing was begun there. The caller waits so long, or a little
    /// where it does not say, and asks again while there is time.
    #[error("the target is busy: {why}")]
    Busy {
        /// What it said.
        why: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
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

/// What a connector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its kind, as in the configuration.
    pub kind: &'static str,
    /// Whether the target refuses a writer that comes late by itself. Without such a fence, retired
    /// versions are kept for the whole quarantine.
    pub fence: bool,
    /// The rights that it needs at the target, one sentence each, for people. The page of the
    /// connector has them ready to paste.
    pub rights: &'static [&'static str],
}

/// What every connector has.
#[async_trait]
pub trait Connector: Send + Sync {
    /// What it is.
    fn about(&self) -> About;

    /// How long a call takes at most.
    fn deadline(&self) -> Duration;

    /// Whether the settings of a definition are whole and can be meant: looks at nothing but them.
    /// One sentence for the operator where they are not.
    fn check_settings(&self, _target: &Target) -> Result<(), String> {
        Ok(())
    }

    /// Whether the connector's own credentials work; says as whom, like a role's name.
    async fn check_self(&self) -> Result<String, Failure>;

    /// Whether connector, settings and target fit each other.
    async fn check(&self, target: &Target) -> Result<(), Failure>;

    /// Looks at the target without the secret: is the sealed one still the real one?
    async fn probe(&self, _target: &Target, _known: &Known) -> Result<Sight, Failure> {
        Ok(Sight::not_observable(
            "this connector has nothing to look at",
        ))
    }
}

/// A target that holds one secret, which is overwritten.
#[async_trait]
pub trait OneSlot: Connector {
    /// The rules that generated secrets follow at this target: those of the configuration, with what
    /// the definition's settings say.
    fn rules(&self, target: &Target) -> Result<Rules, RulesError>;

    /// Makes a new secret: by the rules, and by what the target itself demands where it can be asked.
    async fn make(&self, target: &Target) -> Result<SecretBytes, RulesError> {
        self.rules(target)?.generate()
    }

    /// Sets the new secret. The same one twice is no failure.
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

/// A key as the target lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What the target calls it; never used twice.
    pub id: KeyId,
    /// Whether the target accepts it.
    pub active: bool,
    /// Whether it bears the name that only creates for this credential give it. A key that does not is
    /// never taken for one that an unanswered create of ours has made.
    pub named: bool,
}

/// A key that the target has just made.
pub struct Created {
    /// What the target calls it.
    pub id: KeyId,
    /// What is sealed: everything that a person needs to use the key, in the form that the
    /// connector's page describes.
    pub secret: SecretBytes,
}

/// A target that holds several keys at a time, whose secrets it makes itself.
///
/// Deactivating and deleting name one key, which never comes back, so whoever does it late or twice
/// does no harm.
#[async_trait]
pub trait TwoSlot: Connector {
    /// How many keys the target holds at most.
    fn quota(&self) -> usize {
        2
    }

    /// How long the target may take until everybody there knows of a change. A key that is refused
    /// is tried again until then, and a list is believed only afterwards.
    fn settle(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// All keys of the credential, whoever made them.
    async fn keys(&self, target: &Target) -> Result<Vec<Key>, Failure>;

    /// Has the target make a key.
    async fn create(&self, target: &Target, attempt: Attempt) -> Result<Created, Failure>;

    /// Uses the new key: signs a call with it, or enables it where the target wants that first. The
    /// caller tries again what a key that is not known everywhere yet gives.
    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        key: &KeyId,
        new: &SecretBytes,
    ) -> Result<(), Failure>;

    /// Has the target accept a key no more. One that is inactive or gone already is no failure.
    async fn deactivate(&self, target: &Target, key: &KeyId) -> Result<(), Failure>;

    /// Deletes a key. One that is gone already is no failure.
    async fn delete(&self, target: &Target, key: &KeyId) -> Result<(), Failure>;
}

/// A connector, by what its target holds.
#[derive(Clone)]
pub enum Shape {
    /// One secret.
    One(Arc<dyn OneSlot>),
    /// Several keys.
    Two(Arc<dyn TwoSlot>),
    /// Whatever people change there.
    Hands(Arc<Manual>),
}

impl Shape {
    /// What every connector has.
    pub fn connector(&self) -> &dyn Connector {
        match self {
            Self::One(one) => one.as_ref(),
            Self::Two(two) => two.as_ref(),
            Self::Hands(manual) => manual.as_ref(),
        }
    }

    /// The connector, where the target holds one secret.
    pub fn one(&self) -> Option<&dyn OneSlot> {
        match self {
            Self::One(one) => Some(one.as_ref()),
            Self::Two(_) | Self::Hands(_) => None,
        }
    }

    /// The connector, where the target holds several keys.
    pub fn two(&self) -> Option<&dyn TwoSlot> {
        match self {
            Self::One(_) | Self::Hands(_) => None,
            Self::Two(two) => Some(two.as_ref()),
        }
    }
}
