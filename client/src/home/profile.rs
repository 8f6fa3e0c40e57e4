//! Who uses a home, and how they know the vault.

use std::path::PathBuf;

use keyturn_vault::{
    digest::Digest,
    id::{DeviceId, PersonId},
    key::{PublicKey, ShareKey, VerifierKey},
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
    /// The keys on the token; none for a key file, which holds them itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<TokenKeys>,
    /// Further tokens of this person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<Enrolled>,
    /// The program that asks for PINs and passphrases; none for the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinentry: Option<PathBuf>,
    /// The vault; none before `join`.
    #[serde(default)]
    pub vault: Option<Vault>,
}

/// A token of this person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// As texts name it.
    #[serde(with = "by_text")]
    pub token: TokenRef,
    /// The digest of its enrolment text.
    pub enrolment: Digest,
    /// The keys on it; none for a key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<TokenKeys>,
}

/// The public keys that were made on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeys {
    /// The key that signs.
    pub approval: PublicKey,
    /// The key to which shares are encrypted.
    pub share: ShareKey,
}

impl Profile {
    /// The person as texts name them.
    pub fn reference(&self) -> PersonRef {
        PersonRef {
            name: self.name.clone(),
            id: self.person,
        }
    }

    /// The person's tokens; the one that was enrolled first comes first.
    pub fn tokens(&self) -> Vec<Enrolled> {
        let first = Enrolled {
            token: self.token,
            enrolment: self.enrolment,
            keys: self.keys.clone(),
        };
        [first].into_iter().chain(self.spares.clone()).collect()
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

pub(super) mod by_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::{fmt::Display, str::FromStr};

    pub(in crate::home) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::home) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
