//! The check-in: a requester returns credentials and says what worked.
//!
//! Signed by a token or device key of the requester. `worked v7` says that a login with version 7
//! succeeded, which proves the version; `void v6` says that the requester, who still held it, tried
//! version 6 after the rotation and was refused. It binds the ceremony through its request.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::id::{CeremonyId, CredentialId};
use crate::name::{CredentialPath, Origin};
use crate::reference::{PersonRef, ReferenceError, Version, or_dash, parts};
use crate::text::{MAX_CREDENTIALS, Reader, Text, TextError, Writer, ascending};
use crate::time::Stamp;

/// The return of some or all credentials of a check-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkin {
    /// The vault.
    pub vault: Origin,
    /// The ceremony that opened them.
    pub ceremony: CeremonyId,
    /// The digest of its request.
    pub request: Digest,
    /// Who returns them.
    pub returned_by: PersonRef,
    /// When, by the requester's clock.
    pub signed: Stamp,
    /// The credentials, ascending by path.
    pub credentials: Vec<Returned>,
}

/// A returned credential; written `<path> <id> worked v7 void -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Where people find it.
    pub path: CredentialPath,
    /// Which credential it is.
    pub credential: CredentialId,
    /// The version with which the requester logged in.
    pub worked: Option<Version>,
    /// The version that the target refused when the requester tried it after the rotation.
    pub void: Option<Version>,
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worked, void) = (or_dash(self.worked.as_ref()), or_dash(self.void.as_ref()));
        write!(
            f,
            "{} {} worked {worked} void {void}",
            self.path, self.credential
        )
    }
}

impl FromStr for Returned {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = |text: &str| match text {
            "-" => Ok(None),
            version => version.parse().map(Some),
        };
        let read = || {
            let [path, credential, "worked", worked, "void", void] = parts(text)? else {
                return None;
            };
            Some(Self {
                path: path.parse().ok()?,
                credential: credential.parse().ok()?,
                worked: version(worked).ok()?,
                void: version(void).ok()?,
            })
        };
        read().ok_or(ReferenceError(
            "a returned credential: path, id, worked VERSION, void VERSION",
        ))
    }
}

impl Text for Checkin {
    const TYPE: &'static str = "checkin";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("ceremony", &self.ceremony);
        lines.line("request-sha256", &self.request);
        lines.line("returned-by", &self.returned_by);
        lines.line("signed", &self.signed);
        lines.each("credential", &self.credentials);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            ceremony: lines.line("ceremony")?,
            request: lines.line("request-sha256")?,
            returned_by: lines.line("returned-by")?,
            signed: lines.line("signed")?,
            credentials: lines.each("credential", MAX_CREDENTIALS)?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        if self.credentials.is_empty() {
            return Err(TextError::Rule(
                "a check-in returns at least one credential",
            ));
        }
        let contradicts = |line: &Returned| line.worked.is_some() && line.worked == line.void;
        if self.credentials.iter().any(contradicts) {
            return Err(TextError::Rule("a version either worked or was refused"));
        }
        ascending("credential", &self.credentials, |line| line.path.clone())
    }
}
