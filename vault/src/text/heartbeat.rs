//! The heartbeat: a custodian is there, the token works, and these shares open.
//!
//! Signed by the token. It binds the newest charter and log that the custodian's client verified,
//! and each confirmed share by its commitment: `confirm` sends a heartbeat with such lines.

use std::fmt;
use std::str::FromStr;

use crate::id::{CredentialId, GroupName};
use crate::name::{CredentialPath, Origin};
use crate::reference::{CharterRef, Head, PersonRef, ReferenceError, TokenRef, Version};
use crate::text::{MAX_CREDENTIAL_LINES, Reader, ShareState, Text, TextError, Writer, ascending};
use crate::time::Stamp;

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The vault.
    pub vault: Origin,
    /// Whose.
    pub person: PersonRef,
    /// The token that signs.
    pub token: TokenRef,
    /// The newest charter that the client has verified.
    pub charter: CharterRef,
    /// The newest log that it has verified.
    pub log: Head,
    /// When, by the person's clock.
    pub signed: Stamp,
    /// Shares that were tried, ascending by path, version and group; perhaps none.
    pub confirmations: Vec<Confirmation>,
}

/// A share that was tried; written `<path> <id> <group> v7 x2 <commitment>`, or `… v7 unreadable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Where people find the credential.
    pub path: CredentialPath,
    /// Which credential it is.
    pub credential: CredentialId,
    /// In which group the share counts.
    pub group: GroupName,
    /// Which version.
    pub version: Version,
    /// What came of it; never `not-held`.
    pub state: ShareState,
}

impl fmt::Display for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            credential,
            group,
            version,
            state,
        } = self;
        write!(f, "{path} {credential} {group} {version} {state}")
    }
}

impl FromStr for Confirmation {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (path, rest) = text.split_once(' ')?;
            let (credential, rest) = rest.split_once(' ')?;
            let (group, rest) = rest.split_once(' ')?;
            let (version, state) = rest.split_once(' ')?;
            Some(Self {
                path: path.parse().ok()?,
                credential: credential.parse().ok()?,
                group: group.parse().ok()?,
                version: version.parse().ok()?,
                state: state
                    .parse()
                    .ok()
                    .filter(|state| *state != ShareState::NotHeld)?,
            })
        };
        read().ok_or(ReferenceError(
            "a tried share: path, id, group, version, and x with commitment or unreadable",
        ))
    }
}

impl Text for Heartbeat {
    const TYPE: &'static str = "heartbeat";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("person", &self.person);
        lines.line("token", &self.token);
        lines.line("charter", &self.charter);
        lines.line("log", &self.log);
        lines.line("signed", &self.signed);
        lines.each("share", &self.confirmations);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            person: lines.line("person")?,
            token: lines.line("token")?,
            charter: lines.line("charter")?,
            log: lines.line("log")?,
            signed: lines.line("signed")?,
            confirmations: lines.each("share", MAX_CREDENTIAL_LINES)?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        ascending("share", &self.confirmations, |line| {
            (line.path.clone(), line.version, line.group.clone())
        })
    }
}
