//! `keyturn enroll`: keys of a person, and the file by which a charter can name them.

use std::path::PathBuf;

use clap::Args;
use keyturn_hsm::{Token as _, device::DeviceKey, private, software::SoftwareToken};
use keyturn_seal::keyfile::Cost;
use keyturn_vault::{
    file::{EnrolmentFile, EnrolmentFormat},
    id::{DeviceId, PersonId, TokenId},
    key::PublicKey,
    name::{Name, PersonName},
    reference::{PersonRef, TokenKind, TokenRef},
    text::{Enrol, EnrolledDevice, Text as _},
    words::spoken,
};
use serde_json::json;

use super::{Context, file_error};
use crate::{
    clock,
    home::{Format, Profile, write_file},
    refusal::Refusal,
    session::DEVICE_FILE,
    token::{self, KEY_FILE, Opened},
};

/// Make your keys, and the file that a vault's founder or operator needs.
#[derive(Debug, Args)]
pub struct Enroll {
    /// Your name in the charter, like bob
    name: PersonName,
    /// Where your keys live: software, yubikey, or yubikey:SERIAL
    #[arg(long, default_value = "software", value_name = "KIND")]
    token: String,
    /// What you call this computer
    #[arg(long, value_name = "NAME")]
    device: Option<Name>,
    /// The enrolment file [default: NAME.enroll]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Enroll {
    pub(super) fn run(self, mut context: Context) -> Result<(), Refusal> {
        match self.token.as_str() {
            "software" => {}
            kind if kind == "yubikey" || kind.starts_with("yubikey:") => {
                return Err(token::no_yubikey());
            }
            _ => {
                return Err(Refusal::new(
                    "malformed",
                    "no such kind of token",
                    "write software, or yubikey[:SERIAL]",
                ));
            }
        }
        context.home.create()?;
        let now = clock::now();
        let person = PersonRef {
            name: self.name.clone(),
            id: PersonId::from_parts(now, token::random()?),
        };
        let token_ref = TokenRef {
            id: TokenId::from_parts(now, token::random()?),
            kind: TokenKind::Software,
            serial: None,
        };
        let passphrase = context.person.new_passphrase()?;
        let (file, keys) = SoftwareToken::create(&passphrase, Cost::RECOMMENDED)?;
        private::create(&context.home.path(KEY_FILE), &file)?;
        let device = DeviceKey::create(&context.home.path(DEVICE_FILE), self.name.as_str())?;
        let enrolled = EnrolledDevice {
            id: DeviceId::from_parts(now, token::random()?),
            name: self
                .device
                .or_else(|| device_name(&self.name))
                .ok_or_else(odd)?,
            key: public(device.public())?,
        };
        let enrol = Enrol {
            person,
            token: token_ref,
            approval_key: public(keys.approval_key())?,
            share_key: keys.share_key().to_string().parse().map_err(|_| odd())?,
            attestation: None,
            device: Some(enrolled.clone()),
            made: now.stamp(),
        };
        let signed = Opened::new(Box::new(keys), token_ref.id).sign(&enrol, &mut context.person)?;
        let digest = signed.digest();
        let enrolment = EnrolmentFile {
            format: EnrolmentFormat::V1,
            enrol: signed,
            attestation: None,
        };
        let out = self
            .out
            .unwrap_or_else(|| PathBuf::from(format!("{}.enroll", self.name)));
        let bytes = enrolment
            .to_bytes()
            .map_err(|error| file_error(&out, &error))?;
        write_file(&out, &bytes)?;
        context.home.keep_profile(&Profile {
            format: Format::V1,
            person: enrol.person.id,
            name: self.name,
            token: token_ref,
            device: enrolled.id,
            enrolment: digest,
            vault: None,
        })?;
        let document = json!({
            "person": enrol.person.id, "name": enrol.person.name, "token": token_ref.id, "device": enrolled.id,
            "enrolment": digest, "words": spoken(&digest), "file": out,
        });
        Ok(context.ui.result(&document, || {
            format!(
                "{}: your enrolment; give it to whoever founds the vault or invites you, and read them these words:\n  {}\nKeep copies of {}: without it your shares are lost.",
                out.display(),
                spoken(&enrol.digest()),
                context.home.path(KEY_FILE).display(),
            )
        })?)
    }
}

/// A public key as documents carry it.
fn public(key: &keyturn_hsm::ApprovalKey) -> Result<PublicKey, Refusal> {
    PublicKey::from_der(key.spki()).map_err(|_| odd())
}

fn odd() -> Refusal {
    Refusal::new(
        "internal",
        "a key that was just made has no encoding",
        "report this",
    )
}

/// The person's name, and that of this computer where it makes a name.
fn device_name(person: &PersonName) -> Option<Name> {
    let system = rustix::system::uname();
    let host = system
        .nodename()
        .to_str()
        .unwrap_or_default()
        .to_lowercase();
    let host = host.split('.').next().unwrap_or_default();
    format!("{person}-{host}")
        .parse()
        .or_else(|_| person.as_str().parse())
        .ok()
}
