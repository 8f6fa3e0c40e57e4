//! `keyturn charter invite`: an operator lets somebody prove their keys whom the charter does not have yet.
//!
//! # Invariants
//! 1. Nobody is invited before the operator has heard the six words of the enrolment from them.
//! 2. A welcome file holds only what this computer has verified, beside the nonce, which proves nothing.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Charter, Device, Person},
    file::{Blob, EnrolmentFile, MAX_FILE_BYTES, Welcome, WelcomeFormat},
    jcs::Document as _,
    text::Enrol,
    words::spoken,
};
use serde_json::json;

use super::{Context, file_error, read_named};
use crate::{
    home::write_file,
    refusal::Refusal,
    session::Session,
    ui::{Style, clean},
    verify::{self, VerifyError, attested, wire},
};

/// Make a welcome file for somebody who is to join.
#[derive(Debug, Args)]
pub struct Invite {
    /// Their enrolment file
    file: PathBuf,
    /// The welcome file [default: NAME.welcome]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Invite {
    pub(super) async fn run(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let max = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let bytes = read_named(&self.file, max)?;
        let file =
            EnrolmentFile::from_bytes(&bytes).map_err(|error| file_error(&self.file, &error))?;
        let enrol = verify::enrolment(&file.enrol)?;
        let digest = file.enrol.digest();
        let words = context.ui.paint_err(Style::Bold, spoken(&digest));
        context.ui.note(format_args!(
            "{}\nSHA-256    {digest}\nsix words  {words}",
            enrol.person
        ));
        let new = newcomer(context, &file, &enrol)?;
        let person = person(new, session.charter()?.1);
        // Invariant 1.
        let question = format!(
            "Let {} read the six words of the enrolment to you. Are they the same?",
            enrol.person.name
        );
        context.person.confirm(&question, &digest.to_string())?;
        let request = v1::InviteRequest {
            enrol: Some(wire::wire_text(&file.enrol)),
            attestation: file.attestation.clone().unwrap_or_default().into_bytes(),
        };
        let reply = session.charters().invite(request).await?.into_inner();
        for warning in &reply.warnings {
            context.ui.warn(clean(warning));
        }
        let welcome = welcome(session, &enrol, digest, reply.nonce)?;
        let out = self
            .out
            .unwrap_or_else(|| PathBuf::from(format!("{}.welcome", enrol.person.name)));
        let bytes = welcome
            .to_bytes()
            .map_err(|error| file_error(&out, &error))?;
        write_file(&out, &bytes)?;
        let document = json!({ "file": out, "enrolment": digest, "person": person });
        let lines = serde_json::to_string_pretty(&person).map_err(std::io::Error::from)?;
        Ok(context.ui.result(&document, || {
            format!(
                "{}: give it to {}, who runs `keyturn join` and tells you the digest of the join.\nFor the changed charter, with roles, groups and that digest in `joins`:\n{lines}",
                out.display(),
                enrol.person.name
            )
        })?)
    }
}

/// Invariant 2.
fn welcome(
    session: &Session,
    enrol: &Enrol,
    enrolment: keyturn_vault::digest::Digest,
    nonce: Vec<u8>,
) -> Result<Welcome, Refusal> {
    let (in_force, charter) = session.charter()?;
    let (genesis, first) = session
        .chain
        .at(1)
        .ok_or(VerifyError::Missing("the first charter"))?;
    let first_bytes = first
        .to_bytes()
        .map_err(|source| VerifyError::Document("the first charter", source))?;
    Ok(Welcome {
        format: WelcomeFormat::V1,
        origin: session.vault.origin.clone(),
        endpoints: session.vault.endpoints.clone(),
        server_pins: charter.nodes.iter().map(|node| node.key.pin()).collect(),
        vkey: first.log_key.clone(),
        genesis,
        in_force: Some(in_force),
        charter: Blob(first_bytes),
        person: enrol.person.id,
        nonce: Blob(nonce),
        enrolment,
    })
}

/// The person as a charter has them: without roles yet, or with one more token.
fn person(new: Person, charter: &Charter) -> Person {
    match charter.person(new.id) {
        None => new,
        Some(known) => {
            let mut known = known.clone();
            known.tokens.extend(new.tokens);
            known.devices.extend(new.devices);
            known
        }
    }
}

/// Somebody without roles yet; the token with what its maker says of it.
fn newcomer(context: &Context, file: &EnrolmentFile, enrol: &Enrol) -> Result<Person, Refusal> {
    let attestation = file
        .attestation(enrol)
        .map_err(|error| Refusal::new("attestation", error, "ask for the file again"))?;
    let mut token = enrol.token();
    if let Some(object) = attestation {
        let facts = attested::facts(&context.home.anchors()?, &token, object.as_bytes())?;
        context.ui.note(format_args!("attested   {facts}"));
        token.attestation = Some(facts);
    }
    let device = |device: keyturn_vault::text::EnrolledDevice| Device {
        id: device.id,
        name: device.name,
        key: device.key,
    };
    Ok(Person {
        id: enrol.person.id,
        name: enrol.person.name.clone(),
        roles: BTreeSet::new(),
        tokens: vec![token],
        devices: enrol.device.clone().map(device).into_iter().collect(),
    })
}
