//! Small values by which documents and texts name one another.
//!
//! Each has the one spelling that a line of a signed text carries: parts with one blank between.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::digest::Digest;
use crate::id::{NodeId, PersonId, TokenId};
use crate::jcs::MAX_INTEGER;
use crate::name::PersonName;
use crate::time::decimal;

/// A reference that is not written as it should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected {0}")]
pub struct ReferenceError(pub &'static str);

/// A charter: its place in the chain and the digest of its bytes; written `12 <digest>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharterRef {
    /// Its number: 1 for the first charter of a vault.
    pub index: u64,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
}

/// The log at some moment: how many entries, and the root of their tree; written `4711 <root>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// The root of the RFC 6962 tree over them.
    pub root: Digest,
}

/// A person, for people and for rules; written `bob 01HX…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonRef {
    /// The name that the charter gives.
    pub name: PersonName,
    /// The id, by which rules compare.
    pub id: PersonId,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A `YubiKey`: keys that cannot leave it, PIN and touch.
    Yubikey,
    /// A key file under a passphrase.
    Software,
}

/// A token, for people and for rules; written `01HW… yubikey 12345678`, with `-` for no serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenRef {
    /// The id, by which rules compare.
    pub id: TokenId,
    /// What it is.
    pub kind: TokenKind,
    /// The number printed on it, where there is one.
    pub serial: Option<u32>,
}

/// The number of a sealed value of a credential, from 1 on; written `v7`, in JSON as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The first version of a credential.
    pub const FIRST: Self = Self(1);

    /// Version `number`: 1 to 2^53 − 1.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number > MAX_INTEGER {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(if self.0 < MAX_INTEGER {
            self.0.saturating_add(1)
        } else {
            self.0
        })
    }
}

/// Who signed: the key is found under this id in the charter in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Signer {
    /// A token of a person.
    Token(TokenId),
    /// A device of a person.
    Device(crate::id::DeviceId),
    /// A node of the vault.
    Node(NodeId),
}

/// Splits a value into exactly `N` parts with one blank between them.
pub(crate) fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let parts: Vec<&str> = text.split(' ').collect();
    <[&str; N]>::try_from(parts)
        .ok()
        .filter(|parts| parts.iter().all(|part| !part.is_empty()))
}

/// A number from 0 to 2^53 − 1 in its one spelling.
pub(crate) fn integer(text: &str) -> Option<u64> {
    decimal(text).filter(|number| *number <= MAX_INTEGER)
}

/// Writes a value, or `-` for nothing.
pub(crate) fn or_dash<T: fmt::Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

impl fmt::Display for CharterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.index, self.digest)
    }
}

impl FromStr for CharterRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [index, digest] = parts(text)?;
            let index = integer(index).filter(|index| *index > 0)?;
            Some(Self {
                index,
                digest: digest.parse().ok()?,
            })
        };
        read().ok_or(ReferenceError("a charter: its number and its digest"))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.size, self.root)
    }
}

impl FromStr for Head {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [size, root] = parts(text)?;
            Some(Self {
                size: integer(size)?,
                root: root.parse().ok()?,
            })
        };
        read().ok_or(ReferenceError(
            "a log head: the number of entries and the root",
        ))
    }
}

impl fmt::Display for PersonRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.id)
    }
}

impl FromStr for PersonRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [name, id] = parts(text)?;
            Some(Self {
                name: name.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        read().ok_or(ReferenceError("a person: name and id"))
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yubikey => "yubikey",
            Self::Software => "software",
        })
    }
}

impl FromStr for TokenKind {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "yubikey" => Ok(Self::Yubikey),
            "software" => Ok(Self::Software),
            _ => Err(ReferenceError("a kind of token: yubikey or software")),
        }
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.id,
            self.kind,
            or_dash(self.serial.as_ref())
        )
    }
}

impl FromStr for TokenRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [id, kind, serial] = parts(text)?;
            let serial = match serial {
                "-" => None,
                number => Some(u32::try_from(integer(number)?).ok()?),
            };
            Some(Self {
                id: id.parse().ok()?,
                kind: kind.parse().ok()?,
                serial,
            })
        };
        read().ok_or(ReferenceError("a token: id, kind and serial (or -)"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Version {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('v')
            .and_then(integer)
            .and_then(Self::new)
            .ok_or(ReferenceError("a version like v7"))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| serde::de::Error::custom("versions count from 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr + fmt::Display>(rows: &[(&str, bool)]) {
        for (text, accepted) in rows {
            let read = text.parse::<T>().ok();
            assert_eq!(read.is_some(), *accepted, "{text:?}");
            assert!(
                read.is_none_or(|value| value.to_string() == *text),
                "{text:?}"
            );
        }
    }

    #[test]
    fn references_have_one_spelling() {
        let digest = Digest::of(b"");
        let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        check::<CharterRef>(&[
            (&format!("1 {digest}"), true),
            (&format!("0 {digest}"), false),
            (&format!("01 {digest}"), false),
            (&format!("1  {digest}"), false),
            (&format!("1 {digest} "), false),
            (&format!("9007199254740992 {digest}"), false),
            ("1", false),
            ("", false),
        ]);
        check::<Head>(&[
            (&format!("0 {digest}"), true),
            (&format!("-1 {digest}"), false),
        ]);
        check::<PersonRef>(&[
            (&format!("bob {id}"), true),
            (&format!("{id} bob"), false),
            ("bob", false),
        ]);
        check::<TokenRef>(&[
            (&format!("{id} yubikey 12345678"), true),
            (&format!("{id} software -"), true),
            (&format!("{id} software 4294967296"), false),
            (&format!("{id} smartcard 1"), false),
            (&format!("{id} yubikey"), false),
        ]);
        check::<Version>(&[
            ("v1", true),
            ("v9007199254740991", true),
            ("v0", false),
            ("v01", false),
            ("7", false),
            ("V7", false),
        ]);
    }
}
