//! `keyturn credential export`: a folder with which custodians open a credential without the vault.
//!
//! The folder has the layout of every copy (`vault::layout`), with the charters among its objects, and two
//! files beside it: `vault.json` says which vault it is and in what order its charters follow, and
//! `credentials/ID/vN/sealed.{entry.json,tlog-proof}` prove that the log has the version.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    digest::Digest,
    event::Seal,
    id::CredentialId,
    key::VerifierKey,
    layout::{File, SealedVersion},
    name::{CredentialPath, Origin},
    reference::Version,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Context, confirm::line_of};
use crate::{
    causes::told,
    home::Home,
    refusal::Refusal,
    session::Session,
    verify::{VerifyError, sealed::Sealed, wire},
};

/// Everything that an opening without the vault needs, into a folder.
#[derive(Debug, Args)]
pub struct Export {
    /// The credentials
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<CredentialPath>,
    /// The folder; what is there already stays
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// What an export is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The vault.
    pub origin: Origin,
    /// The key of the log.
    pub vkey: VerifierKey,
    /// The digests of the charters in their order; the first one was compared by voice.
    pub charters: Vec<Digest>,
}

/// The file with [`About`].
pub const VAULT_FILE: &str = "vault.json";

impl Export {
    pub(super) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        // The same private, whole-or-nothing files as a home's.
        let folder = Home::at(&self.to);
        charters(&session, &folder)?;
        put(&folder, &File::readme())?;
        let mut exported = BTreeMap::new();
        for path in &self.paths {
            let (id, versions) = credential(&session, &folder, path).await?;
            exported.insert(
                path.clone(),
                json!({ "credential": id, "versions": versions }),
            );
        }
        let files = || {
            let lines: Vec<_> = exported
                .keys()
                .map(|path| format!("{path}: exported to {}", self.to.display()))
                .collect();
            lines.join("\n")
        };
        Ok(context.ui.result(&exported, files)?)
    }
}

fn put(folder: &Home, file: &File) -> Result<(), Refusal> {
    Ok(folder.write(&file.place.to_string(), &file.bytes)?)
}

/// The vault and its charters.
fn charters(session: &Session, folder: &Home) -> Result<(), Refusal> {
    let charters = session.home.charters()?;
    let about = About {
        origin: session.vault.origin.clone(),
        vkey: session.charter()?.1.log_key.clone(),
        charters: charters.iter().map(|charter| Digest::of(charter)).collect(),
    };
    if folder
        .read_json::<About>(VAULT_FILE)?
        .is_some_and(|other| other.charters.first() != about.charters.first())
    {
        return Err(Refusal::new(
            "already-exists",
            "this folder has an export of another vault",
            "choose another folder",
        ));
    }
    for charter in charters {
        put(folder, &File::object(charter))?;
    }
    Ok(folder.write_json(VAULT_FILE, &about)?)
}

async fn credential(
    session: &Session,
    folder: &Home,
    path: &CredentialPath,
) -> Result<(CredentialId, Vec<u64>), Refusal> {
    let mut after = String::new();
    let mut exported = Vec::new();
    let mut id = None;
    loop {
        let request = v1::ExportRequest {
            credential: wire::at_path(path),
            version: 0,
            mine_only: false,
            page: wire::next_page(after),
        };
        let reply = session.credentials().export(request).await?.into_inner();
        for version in reply.versions {
            let line = line_of(path, &version)?;
            let payload = version.ciphertext.clone();
            let (signer, signature) = wire::signature(
                version
                    .manifest
                    .clone()
                    .and_then(|manifest| manifest.signature),
                "the signature on a manifest",
            )?;
            let sealed = session.sealed(&line, version).await?;
            write(folder, sealed, Seal { signer, signature }, payload)?;
            id = Some(line.credential);
            exported.push(line.version.number());
        }
        after = reply.next_page;
        if after.is_empty() {
            break;
        }
    }
    let none = || {
        Refusal::new(
            "not-found",
            format_args!("{path} has no live version"),
            "deposit its secret first",
        )
    };
    Ok((id.ok_or_else(none)?, exported))
}

/// Where the entry of a version lies, and the proof that the log has it.
pub fn proof_files(credential: CredentialId, version: Version) -> [String; 2] {
    ["entry.json", "tlog-proof"]
        .map(|end| format!("credentials/{credential}/{version}/sealed.{end}"))
}

fn write(folder: &Home, sealed: Sealed, signature: Seal, payload: Vec<u8>) -> Result<(), Refusal> {
    let mut envelopes = Vec::new();
    for group in &sealed.manifest.groups {
        for holder in &group.holders {
            let envelope = sealed
                .share_of(&group.group, holder.person)
                .and_then(|(_, envelope)| envelope);
            envelopes.push(
                envelope
                    .ok_or(VerifyError::Missing("an envelope that the manifest names"))?
                    .to_vec(),
            );
        }
    }
    let [entry, proof] = proof_files(sealed.line.credential, sealed.line.version);
    folder.write(&entry, &sealed.proven.bytes)?;
    folder.write(&proof, sealed.proven.receipt.as_bytes())?;
    let version = SealedVersion {
        definition: sealed.definition,
        manifest: sealed.manifest,
        signature,
        payload,
        envelopes,
    };
    let files = version.files().map_err(|error| {
        Refusal::new(
            "verification",
            told(&error),
            "nothing of this version was written",
        )
    })?;
    files.iter().try_for_each(|file| put(folder, file))
}
