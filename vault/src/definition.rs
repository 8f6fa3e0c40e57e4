//! The definition: what a credential is. Everything in it is clear; the secret is sealed elsewhere.
//!
//! The operator who adds a credential signs the bytes of its first definition; each later one is
//! the subject of a `change` ceremony and names the one before it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::charter::Charter;

use crate::digest::Digest;
use crate::id::{CredentialId, GroupName};
use crate::jcs::Document;
use crate::name::{CredentialPath, Line, Name, Origin, PolicyName};
use crate::reference::ReferenceError;

/// The largest definition, in bytes.
pub const MAX_DEFINITION_BYTES: usize = 48 * 1024;
/// The most settings of a connector.
pub const MAX_SETTINGS: usize = 32;
/// The most lines of clear metadata.
pub const MAX_METADATA: usize = 32;
/// The name of the connector that is people. It is the definition that says so and not a daemon's
/// configuration, so that an auditor judges by the same rules.
pub const MANUAL: &str = "manual";
/// The setting of such a definition by which whoever deposits a version does not complete it: `yes`.
pub const TWO_PEOPLE: &str = "two-people";

/// The type and version of a definition document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "keyturn definition v1")]
    V1,
}

/// What a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The type of this document.
    #[serde(default)]
    pub format: Format,
    /// The vault, so that a definition signed for one is none of another.
    pub origin: Origin,
    /// Which credential it is, for ever.
    pub credential: CredentialId,
    /// Where people find it; bound to the id for ever.
    pub path: CredentialPath,
    /// What kind of secret it is.
    pub kind: Kind,
    /// The group whose quorum opens it.
    pub group: GroupName,
    /// Another group that can open it when the first cannot be reached.
    #[serde(default)]
    pub fallback: Option<GroupName>,
    /// The rules for it.
    pub policy: PolicyName,
    /// How it is rotated; none where people do it.
    #[serde(default)]
    pub connector: Option<Connector>,
    /// Is it worthless, and there for drills?
    #[serde(default)]
    pub canary: bool,
    /// What is known beside the secret: user name, account, sign-in address. Never secret.
    #[serde(default)]
    pub metadata: BTreeMap<Name, Line>,
    /// The digest of the definition before this one; none for the first.
    #[serde(default)]
    pub previous: Option<Digest>,
}

impl Document for Definition {
    const MAX_BYTES: usize = MAX_DEFINITION_BYTES;
}

/// Why a definition is not valid under a charter, or does not follow another.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DefinitionError {
    /// Another vault's definition.
    #[error("the definition is of another vault")]
    Origin,
    /// A group that the charter does not have.
    #[error("there is no group {0} in the charter")]
    Group(GroupName),
    /// The fallback group is the group itself.
    #[error("the fallback group is the group itself")]
    SameFallback,
    /// A policy that the charter does not have.
    #[error("there is no policy {0} in the charter")]
    Policy(PolicyName),
    /// Too many settings of the connector.
    #[error("the connector has more than {MAX_SETTINGS} settings")]
    Settings,
    /// Too many lines of metadata.
    #[error("there are more than {MAX_METADATA} lines of metadata")]
    Metadata,
    /// A first definition that names a previous one, or a later one that does not name the one in
    /// force.
    #[error("the definition does not name the one in force as its previous one")]
    Previous,
    /// Another id, path or kind than before.
    #[error("a credential keeps its id, its path and its kind for ever")]
    Identity,
}

impl Definition {
    /// Is it valid under this charter?
    pub fn validate(&self, charter: &Charter) -> Result<(), DefinitionError> {
        if self.origin != charter.origin {
            return Err(DefinitionError::Origin);
        }
        if let Some(unknown) = self.groups().find(|name| charter.group(name).is_none()) {
            return Err(DefinitionError::Group(unknown.clone()));
        }
        if self.fallback.as_ref() == Some(&self.group) {
            return Err(DefinitionError::SameFallback);
        }
        if charter.policy(&self.policy).is_none() {
            return Err(DefinitionError::Policy(self.policy.clone()));
        }
        if self
            .connector
            .as_ref()
            .is_some_and(|connector| connector.settings.len() > MAX_SETTINGS)
        {
            return Err(DefinitionError::Settings);
        }
        if self.metadata.len() > MAX_METADATA {
            return Err(DefinitionError::Metadata);
        }
        Ok(())
    }

    /// Does it follow `old`, whose bytes have this digest?
    pub fn follows(&self, old: &Self, digest: Digest) -> Result<(), DefinitionError> {
        if self.origin != old.origin {
            return Err(DefinitionError::Origin);
        }
        if (self.credential, &self.path, self.kind) != (old.credential, &old.path, old.kind) {
            return Err(DefinitionError::Identity);
        }
        if self.previous == Some(digest) {
            Ok(())
        } else {
            Err(DefinitionError::Previous)
        }
    }

    /// Does a connector rotate it by itself?
    pub fn is_automatic(&self) -> bool {
        self.connector.is_some() && self.task().is_none()
    }

    /// The task that its rotation is for people; none where nobody is given one.
    pub fn task(&self) -> Option<Task> {
        let connector = self.connector.as_ref();
        let connector = connector.filter(|connector| connector.name.as_str() == MANUAL)?;
        let two_people = connector
            .settings
            .iter()
            .any(|(name, value)| name.as_str() == TWO_PEOPLE && value.as_str() == "yes");
        Some(Task { two_people })
    }

    /// The groups that can open it: its group, then its fallback group if it has one.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        [Some(&self.group), self.fallback.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// How the daemon changes a secret at its target. Its rights come from the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The connector's name in the daemons' configuration.
    pub name: Name,
    /// What the connector is told about the target. Never secret.
    #[serde(default)]
    pub settings: BTreeMap<Name, Line>,
}

/// A rotation that people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Whether another person completes it than the one who deposited the new version.
    pub two_people: bool,
}

/// What kind of secret a credential holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The password of an AWS account's root user.
    AwsRoot,
    /// The password of an IAM user.
    AwsIamPassword,
    /// An access key of an IAM user: id and secret, two at a time.
    AwsIamAccessKey,
    /// The seed of time-based one-time codes (RFC 6238).
    TotpSeed,
    /// The password of a PostgreSQL role.
    Postgres,
    /// The password of an LDAP entry.
    Ldap,
    /// The seed of a virtual second factor that its target registers.
    Mfa,
    /// Anything else, up to 64 KiB.
    Text,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AwsRoot,
        Self::AwsIamPassword,
        Self::AwsIamAccessKey,
        Self::TotpSeed,
        Self::Postgres,
        Self::Ldap,
        Self::Mfa,
        Self::Text,
    ];

    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsRoot => "aws-root",
            Self::AwsIamPassword => "aws-iam-password",
            Self::AwsIamAccessKey => "aws-iam-access-key",
            Self::TotpSeed => "totp-seed",
            Self::Postgres => "postgres",
            Self::Ldap => "ldap",
            Self::Mfa => "mfa",
            Self::Text => "text",
        }
    }

    /// Does the target hold two secrets at a time, so that rotation has two slots?
    pub const fn two_slots(self) -> bool {
        matches!(self, Self::AwsIamAccessKey | Self::Mfa)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or(ReferenceError(
            "one of aws-root, aws-iam-password, aws-iam-access-key, totp-seed, postgres, ldap, mfa, text",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_answered_with_those_there_are() {
        let ReferenceError(expected) = Kind::from_str("aws").unwrap_err();
        let named: Vec<_> = expected
            .strip_prefix("one of ")
            .unwrap()
            .split(", ")
            .collect();
        assert_eq!(named, Kind::ALL.map(Kind::name));
    }
}
