//! `keyturn recover`: a credential is opened without the vault, by custodians who may be far apart.
//!
//! The requester makes a signed request; each custodian answers it with a signed approval and the share,
//! encrypted to the requester; the files go by any channel; the requester opens. What everybody needs is an
//! export, or any other copy. When the vault is back, `recover import` takes the record into its log.
//!
//! # Invariants
//! 1. A custodian's share leaves only for a request that was shown, signed by a person of the charter, and
//!    for the very version that it names.
//! 2. Shares combine only with the approvals of k different persons of the group that is asked.

mod open;
mod share;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use keyturn_proto::v1;
use keyturn_seal::ShareIdentity;
use keyturn_vault::{
    charter::{Chain, Person},
    digest::Digest,
    file::Blob,
    id::{CeremonyId, GroupName},
    jcs::Document as _,
    layout::SealedVersion,
    name::{CredentialPath, Line},
    reference::{Signer, Version},
    text::{CredentialLine, Details, Recover as RecoverText, SignedText, Text as _},
    words::spoken,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Context,
    copy::Copy,
    file_error, read_named,
    release::{self, keep_receipt},
};
use crate::{
    causes::told,
    clock,
    home::{HomeError, Profile, write_file},
    refusal::Refusal,
    session::{DEVICE_FILE, kept_chain},
    token::{malformed, random, salt},
    verify::{self, VerifyError, log, sealed::sharing, wire},
};

/// The largest file that is carried around, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Open a credential without the vault.
#[derive(Debug, Subcommand)]
pub enum Recover {
    /// Ask custodians for their shares, by a file
    Request(Request),
    /// Answer such a request with your share, by a file
    Share(share::Share),
    /// Open the credential with the answers
    Open(open::Open),
    /// Take the record of such an opening into the log, once the vault is back
    Import(Import),
}

/// Ask custodians for their shares, by a file.
#[derive(Debug, Args)]
pub struct Request {
    /// The credential
    path: CredentialPath,
    /// A folder from `credential export`, or another copy
    #[arg(long, value_name = "DIR")]
    export: PathBuf,
    /// Why; the custodians read it
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    /// The ticket
    #[arg(long, value_name = "TICKET")]
    ticket: Option<Line>,
    /// The version [default: the newest]
    #[arg(long, value_name = "vN")]
    version: Option<Version>,
    /// The group whose shares combine [default: the credential's own]
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupName>,
    /// The request file, to be sent to custodians
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Take the record of such an opening into the log.
#[derive(Debug, Args)]
pub struct Import {
    /// The ceremony
    ceremony: CeremonyId,
}

/// The file that goes to custodians.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    recover: SignedText,
    details: String,
}

/// The file that comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    approval: SignedText,
    submission: Blob,
}

/// What is kept for the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    recover: SignedText,
    approvals: Vec<SignedText>,
}

impl Recover {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        match self {
            Self::Request(command) => command.run(&context),
            Self::Share(command) => command.run(context),
            Self::Open(command) => command.run(context).await,
            Self::Import(command) => command.run(&context).await,
        }
    }
}

/// The profile and the charters that this home has verified, with those of the copy that follow them.
fn known(context: &Context, copy: &Copy) -> Result<(Profile, Chain), Refusal> {
    let profile = context.home.profile()?;
    let vault = profile.vault.clone().ok_or(HomeError::NoVault)?;
    let mut chain = kept_chain(&context.home, &vault)?;
    let later = copy.extend(&mut chain)?;
    if later > 0 {
        context.ui.warn(format_args!("{later} charters of the copy are newer than what this computer has verified; nobody's agreement to them was checked"));
    }
    Ok((profile, chain))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Refusal> {
    serde_json::from_slice(&read_named(path, MAX_FILE)?).map_err(|error| file_error(path, &error))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| file_error(path, &error))?;
    Ok(write_file(path, &bytes)?)
}

impl Request {
    fn run(self, context: &Context) -> Result<(), Refusal> {
        let copy = Copy::at(&self.export);
        let (profile, chain) = known(context, &copy)?;
        let (_, charter) = chain.newest().ok_or(HomeError::NoVault)?;
        let version = copy.version(&self.path, self.version)?;
        copy.verify(&chain, &version)?;
        let manifest = &version.manifest;
        let group = self
            .group
            .unwrap_or_else(|| version.definition.group.clone());
        sharing(manifest, &group)?;
        let key = ShareIdentity::generate().map_err(|error| {
            Refusal::new("no-entropy", told(&error), "do not use this computer")
        })?;
        let now = clock::now();
        let details = Details {
            salt: salt()?,
            reason: self.reason,
            contact: None,
            systems: None,
        };
        let bytes = manifest
            .to_bytes()
            .map_err(|source| VerifyError::Document("a manifest", source))?;
        let text = RecoverText {
            vault: manifest.origin.clone(),
            ceremony: CeremonyId::from_parts(now, random()?),
            group,
            requested_by: profile.reference(),
            used_by: None,
            deliver_to: key
                .share_key()
                .to_string()
                .parse()
                .map_err(|_| VerifyError::Missing("a key"))?,
            ticket: self.ticket,
            details: details.digest(),
            opened: now.stamp(),
            salt: salt()?,
            credential: CredentialLine {
                path: self.path,
                credential: manifest.credential,
                version: manifest.version,
                manifest: Digest::of(&bytes),
            },
        };
        text.check().map_err(|error| malformed(&error))?;
        let device = keyturn_hsm::device::DeviceKey::load(&context.home.path(DEVICE_FILE))?;
        let signature = device.sign(text.to_text().as_bytes())?;
        let recover = SignedText {
            text: text.to_text(),
            signature,
            signer: Signer::Device(profile.device),
        };
        let share_keys = charter
            .person(profile.person)
            .map(release::share_keys)
            .unwrap_or_default();
        let current = BTreeMap::from([(manifest.credential, manifest.version.number())]);
        release::keep(
            &context.home,
            &share_keys,
            &recover,
            text.ceremony,
            current,
            &key,
        )?;
        write_json(
            &self.out,
            &Asked {
                recover: recover.clone(),
                details: details.to_text(),
            },
        )?;
        let digest = recover.digest();
        let document = json!({ "ceremony": text.ceremony, "request_sha256": digest, "words": spoken(&digest), "file": self.out });
        Ok(context.ui.result(&document, || {
            format!("ceremony   {}\nSHA-256    {digest}\nsix words  {}\nSend {} to custodians of {} and read them the words.", text.ceremony, spoken(&digest), self.out.display(), text.group)
        })?)
    }
}

/// A request file whose signer is the person that it names, and the version that it asks for.
fn read_request(path: &Path, chain: &Chain) -> Result<(Asked, RecoverText), Refusal> {
    let asked: Asked = read_json(path)?;
    let what = || "the request".to_owned();
    let text: RecoverText = asked
        .recover
        .parse()
        .map_err(|source| VerifyError::Text(what(), source))?;
    let (_, charter) = chain.newest().ok_or(HomeError::NoVault)?;
    verify::text(charter, &asked.recover, &what())?;
    let person = verify::person_of(charter, asked.recover.signer).map(Person::reference);
    if person.as_ref() != Some(&text.requested_by) || text.vault != charter.origin {
        return Err(VerifyError::Person(what()).into());
    }
    if Digest::of(asked.details.as_bytes()) != text.details {
        return Err(VerifyError::Other {
            what: "the details".to_owned(),
            by: "the request",
        }
        .into());
    }
    Ok((asked, text))
}

/// The version of a copy that a request names, verified.
fn asked_version(copy: &Copy, chain: &Chain, text: &RecoverText) -> Result<SealedVersion, Refusal> {
    let version = copy.version(&text.credential.path, Some(text.credential.version))?;
    copy.verify(chain, &version)?;
    let bytes = version
        .manifest
        .to_bytes()
        .map_err(|source| VerifyError::Document("a manifest", source))?;
    if Digest::of(&bytes) == text.credential.manifest
        && version.manifest.credential == text.credential.credential
    {
        Ok(version)
    } else {
        Err(VerifyError::Other {
            what: "the version in this copy".to_owned(),
            by: "the request",
        }
        .into())
    }
}

impl Import {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let record: Option<Record> = context
            .home
            .read_json(&format!("recovered/{}", self.ceremony))?;
        let none = || {
            Refusal::new(
                "not-found",
                "this home has no record of such an opening",
                "use the home with which it was opened",
            )
        };
        let record = record.ok_or_else(none)?;
        let session = context.session().await?;
        let request = v1::ImportRecoverRequest {
            recover: Some(wire::wire_text(&record.recover)),
            approvals: record.approvals.iter().map(wire::wire_text).collect(),
        };
        let reply = session.log().import_recover(request).await?.into_inner();
        let proven = log::receipt(reply.imported, &session.vkey()?)?;
        keep_receipt(
            &context.home,
            &format!("{}-imported", self.ceremony),
            &proven,
        )?;
        release::forget(&context.home, self.ceremony)?;
        let document = json!({ "ceremony": self.ceremony, "entry": proven.n });
        Ok(context.ui.result(&document, || {
            format!(
                "The log has it as entry {}. Rotate the credential now.",
                proven.n
            )
        })?)
    }
}
