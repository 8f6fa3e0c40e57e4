//! Who uses a home, and how they know the vault.

use keyturn_vault::{
    digest::Digest,
    id::{DeviceId, PersonId},
    key::VerifierKey,
    name::{Origin, PersonName},
    reference::{PersonRef, TokenRef},
};
use serde::{Deserialize, Serialize};

/// The type of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "keyturn profile v1")]
    V1,
}

/// Who uses this home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The type of this file.
    pub format: Format,
    /// The person.
    pub person: PersonId,
    /// What people call them.
    pub name: PersonName,
    /// Their token, as texts name it.
    #[serde(with = "by_text")]
    pub token: TokenRef,
    /// The key of this computer.
    pub device: DeviceId,
    /// The digest of the enrolment text.
    pub enrolment: Digest,
    /// The vault; none before `join`.
    #[serde(default)]
    pub vault: Option<Vault>,
}

impl Profile {
    /// The person as texts name them.
    pub fn reference(&self) -> PersonRef {
        PersonRef {
            name: self.name.clone(),
            id: self.person,
        }
    }
}

/// How to reach a vault and how to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Its name.
    pub origin: Origin,
    /// Where it can be reached.
    pub endpoints: Vec<String>,
    /// The SHA-256 of its nodes' public keys.
    pub server_pins: Vec<Digest>,
    /// The key that signs its log.
    pub vkey: VerifierKey,
    /// The digest of its first charter, compared by voice.
    pub genesis: Digest,
}

mod by_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::{fmt::Display, str::FromStr};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
