//! The request: what somebody wants opened or changed, and why.
//!
//! Signed by a token or device key of the requester, so that a daemon cannot invent or alter one.
//!
//! It binds the vault, the purpose with its subject, every version by the digest of its manifest,
//! the key that gets the secret, all waivers, and the charter and log that the requester saw. The
//! salt makes two requests differ that say the same; the details' digest binds the free text.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::charter::Waiver;
use crate::digest::{Digest, Salt};
use crate::id::{CeremonyId, CredentialId, GroupName};
use crate::key::ShareKey;
use crate::name::{CredentialPath, Line, Origin, ScenarioName};
use crate::reference::{CharterRef, Head, PersonRef, ReferenceError, Version, parts};
use crate::text::purpose::{PURPOSES, Purpose};
use crate::text::{
    MAX_CREDENTIAL_LINES, MAX_CREDENTIALS, Reader, Text, TextError, Writer, ascending,
};
use crate::time::{Span, Stamp};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The vault.
    pub vault: Origin,
    /// The id of the ceremony, made by the requester.
    pub ceremony: CeremonyId,
    /// What is to happen, with its subject.
    pub purpose: Purpose,
    /// The emergency, where the charter names one.
    pub scenario: Option<ScenarioName>,
    /// The fallback group that is to open the credentials; none for each one's own group.
    pub group: Option<GroupName>,
    /// Who asks.
    pub requested_by: PersonRef,
    /// Who will use the secret, if somebody not enrolled.
    pub used_by: Option<Line>,
    /// The key to which the secret is encrypted.
    pub deliver_to: Option<ShareKey>,
    /// The ticket.
    pub ticket: Option<Line>,
    /// The digest of the details.
    pub details: Digest,
    /// How long the credentials are checked out.
    pub check_out: Option<Span>,
    /// Rules to set aside.
    pub waive: BTreeSet<Waiver>,
    /// The charter in force that the requester saw; the base of a change.
    pub charter: CharterRef,
    /// The log that the requester saw.
    pub log: Head,
    /// When it was made, by the requester's clock.
    pub opened: Stamp,
    /// How long it stays open after the daemon has it.
    pub valid_for: Span,
    /// What makes it one of its kind.
    pub salt: Salt,
    /// Versions, ascending by path and number.
    pub credentials: Vec<CredentialLine>,
}

/// A version that a request names; written `<path> <id> v7 <manifest digest>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialLine {
    /// Where people find it.
    pub path: CredentialPath,
    /// Which credential it is.
    pub credential: CredentialId,
    /// Which version.
    pub version: Version,
    /// The digest of its manifest.
    pub manifest: Digest,
}

impl fmt::Display for CredentialLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {}",
            self.path, self.credential, self.version, self.manifest
        )
    }
}

impl FromStr for CredentialLine {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let [path, credential, version, manifest] = parts(text)?;
            Some(Self {
                path: path.parse().ok()?,
                credential: credential.parse().ok()?,
                version: version.parse().ok()?,
                manifest: manifest.parse().ok()?,
            })
        };
        read().ok_or(ReferenceError(
            "a version: path, id, version and manifest digest",
        ))
    }
}

/// Writes waivers, `-` for none.
fn write_waivers(waive: &BTreeSet<Waiver>) -> String {
    let names: Vec<&str> = waive.iter().map(|waiver| waiver.name()).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(" ")
    }
}

/// Reads waivers in their order.
fn read_waivers(text: &str) -> Result<BTreeSet<Waiver>, ReferenceError> {
    if text == "-" {
        return Ok(BTreeSet::new());
    }
    let waive = text
        .split(' ')
        .map(str::parse)
        .collect::<Result<BTreeSet<Waiver>, _>>()?;
    if write_waivers(&waive) == text {
        Ok(waive)
    } else {
        Err(ReferenceError(
            "rules to waive, each once, in alphabetical order",
        ))
    }
}

impl Text for Request {
    const TYPE: &'static str = "request";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("ceremony", &self.ceremony);
        lines.line("purpose", &self.purpose.name());
        lines.line("subject", &self.purpose.subject());
        lines.optional("scenario", self.scenario.as_ref());
        lines.optional("group", self.group.as_ref());
        lines.line("requested-by", &self.requested_by);
        lines.optional("used-by", self.used_by.as_ref());
        lines.optional("deliver-to", self.deliver_to.as_ref());
        lines.optional("ticket", self.ticket.as_ref());
        lines.line("details", &self.details);
        lines.optional("check-out", self.check_out.as_ref());
        lines.line("waive", &write_waivers(&self.waive));
        lines.line("charter", &self.charter);
        lines.line("log", &self.log);
        lines.line("opened", &self.opened);
        lines.line("valid-for", &self.valid_for);
        lines.line("salt", &self.salt);
        lines.each("credential", &self.credentials);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        let vault = lines.line("vault")?;
        let ceremony = lines.line("ceremony")?;
        let purpose = lines.with("purpose", |purpose| {
            let known = PURPOSES.into_iter().find(|name| *name == purpose);
            known.ok_or(ReferenceError("a purpose, like unseal"))
        })?;
        let purpose = lines.with("subject", |subject| {
            Purpose::read(purpose, subject).ok_or(ReferenceError("the subject of this purpose"))
        })?;
        Ok(Self {
            vault,
            ceremony,
            purpose,
            scenario: lines.optional("scenario")?,
            group: lines.optional("group")?,
            requested_by: lines.line("requested-by")?,
            used_by: lines.optional("used-by")?,
            deliver_to: lines.optional("deliver-to")?,
            ticket: lines.optional("ticket")?,
            details: lines.line("details")?,
            check_out: lines.optional("check-out")?,
            waive: lines.with("waive", read_waivers)?,
            charter: lines.line("charter")?,
            log: lines.line("log")?,
            opened: lines.line("opened")?,
            valid_for: lines.line("valid-for")?,
            salt: lines.line("salt")?,
            credentials: lines.each("credential", MAX_CREDENTIAL_LINES)?,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        let rule = |kept: bool, why| {
            if kept {
                Ok(())
            } else {
                Err(TextError::Rule(why))
            }
        };
        let (opens, delivers) = (self.purpose.opens(), self.purpose.delivers());
        rule(
            delivers == self.deliver_to.is_some(),
            "an unseal or drill names the key to deliver to, and nothing else does",
        )?;
        rule(
            delivers == self.check_out.is_some_and(|span| span > Span::ZERO)
                && delivers == self.check_out.is_some(),
            "an unseal or drill names how long the check-out is, and nothing else does",
        )?;
        rule(
            delivers || self.used_by.is_none(),
            "only an unseal or drill names who uses the secret",
        )?;
        rule(
            opens || self.group.is_none(),
            "only a purpose that opens credentials names a fallback group",
        )?;
        rule(
            opens != self.credentials.is_empty(),
            "unseal, drill and reshare name credentials, and nothing else does",
        )?;
        rule(
            self.valid_for > Span::ZERO,
            "a request is valid for some time",
        )?;
        check_credentials(&self.credentials)
    }
}

/// Lines ascend by path and version; a path has one id, an id one path; at most 8 credentials.
fn check_credentials(lines: &[CredentialLine]) -> Result<(), TextError> {
    ascending("credential", lines, |line| {
        (line.path.clone(), line.version)
    })?;
    let paths: BTreeSet<_> = lines.iter().map(|line| &line.path).collect();
    let ids: BTreeSet<_> = lines.iter().map(|line| line.credential).collect();
    let pairs: BTreeSet<_> = lines
        .iter()
        .map(|line| (&line.path, line.credential))
        .collect();
    if paths.len() > MAX_CREDENTIALS {
        return Err(TextError::Rule("a request names at most 8 credentials"));
    }
    if paths.len() == pairs.len() && ids.len() == pairs.len() {
        Ok(())
    } else {
        Err(TextError::Rule("a path has one id, and an id one path"))
    }
}
