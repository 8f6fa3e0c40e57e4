//! What a sealed value is for.

use std::fmt;

use thiserror::Error;

use crate::text::{Reader, TextError, Writer, is_name, number};

/// The vault, credential and version that a share or payload belongs to, checked wherever one is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    origin: String,
    credential: String,
    version: u64,
}

/// Why these are no names.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindingError {
    /// The vault's name.
    #[error("the vault's name must have 1 to 500 printable ASCII characters and no space")]
    Origin,
    /// The credential's id.
    #[error("the credential's id must have 1 to 500 printable ASCII characters and no space")]
    Credential,
    /// The version.
    #[error("versions are counted from 1")]
    Version,
}

/// A field by which sealed values are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The vault's name.
    Origin,
    /// The credential's id.
    Credential,
    /// The version of the credential.
    Version,
    /// The group of custodians.
    Group,
    /// The quorum.
    K,
    /// The number of custodians.
    N,
    /// The custodian's number.
    X,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origin => "vault",
            Self::Credential => "credential",
            Self::Version => "version",
            Self::Group => "group",
            Self::K => "quorum",
            Self::N => "number of custodians",
            Self::X => "custodian",
        })
    }
}

impl Binding {
    /// Names of 1 to 500 printable ASCII characters without a space; versions are counted from 1.
    pub fn new(origin: &str, credential: &str, version: u64) -> Result<Self, BindingError> {
        if !is_name(origin) {
            return Err(BindingError::Origin);
        }
        if !is_name(credential) {
            return Err(BindingError::Credential);
        }
        if version == 0 {
            return Err(BindingError::Version);
        }
        Ok(Self {
            origin: origin.to_owned(),
            credential: credential.to_owned(),
            version,
        })
    }

    /// Adds the lines that say what a text is for.
    pub(crate) fn write(&self, text: Writer) -> Writer {
        text.line("origin", &self.origin)
            .line("credential", &self.credential)
            .number("version", self.version)
    }

    /// Reads these lines and names the first field that differs.
    pub(crate) fn check(&self, text: &mut Reader<'_>) -> Result<Option<Field>, TextError> {
        let origin = text.name("origin")?;
        let credential = text.name("credential")?;
        let version: u64 = text.parse("version", number)?;
        Ok([
            (origin == self.origin, Field::Origin),
            (credential == self.credential, Field::Credential),
            (version == self.version, Field::Version),
        ]
        .into_iter()
        .find_map(|(same, field)| (!same).then_some(field)))
    }

    /// The vault's name, like `vault.example.org/prod`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The credential's id.
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// The version of the credential.
    pub fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names() {
        for (name, origin, credential, version, want) in [
            ("plain", "vault.example.org/prod", "01HZ", 1, None),
            ("largest version", "v", "c", u64::MAX, None),
            ("no origin", "", "01HZ", 1, Some(BindingError::Origin)),
            (
                "line in the origin",
                "a\nk: 1",
                "01HZ",
                1,
                Some(BindingError::Origin),
            ),
            ("no credential", "v", "", 1, Some(BindingError::Credential)),
            ("space", "v", "01 HZ", 1, Some(BindingError::Credential)),
            ("version zero", "v", "01HZ", 0, Some(BindingError::Version)),
        ] {
            assert_eq!(
                Binding::new(origin, credential, version).err(),
                want,
                "{name}"
            );
        }
    }
}
