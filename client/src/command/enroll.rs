//! `keyturn enroll`: keys of a person, and the file by which a charter can name them.
//!
//! # Invariants
//! 1. The profile is written last: an enrolment that was interrupted is finished by the same command.
//! 2. The enrolment file is signed by the approval key that it names.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use keyturn_hsm::{
    Token, attestation::Bundle, device::DeviceKey, private, software::SoftwareToken,
};
use keyturn_seal::{ShareKey, keyfile::Cost, piv::PivKey};
use keyturn_vault::{
    digest::Digest,
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
    home::{Enrolled, Format, Profile, TokenKeys, place, write_file},
    refusal::Refusal,
    session::DEVICE_FILE,
    token::{self, KEY_FILE, Opened, Wanted},
};

/// Make your keys, and the file that a vault's founder or operator needs.
#[derive(Debug, Args)]
pub struct Enroll {
    /// Your name in the charter, like bob
    name: PersonName,
    /// Enrol one more token of yours, beside the one that you have
    #[arg(long)]
    spare: bool,
    /// What you call this computer
    #[arg(long, value_name = "NAME", conflicts_with = "spare")]
    device: Option<Name>,
    /// The enrolment file [default: NAME.enroll, or NAME-spare.enroll]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The retired slot for the share key of a YubiKey, 82 to 95 [default: the first free one]
    #[arg(long, value_name = "SLOT", value_parser = slot)]
    slot: Option<u8>,
    /// The recipient of an identity that age-plugin-yubikey made on this YubiKey: it becomes the share key, and stays
    /// as it is
    #[arg(long, value_name = "age1yubikey1…", value_parser = piv_key, conflicts_with_all = ["slot", "touch"])]
    share_key: Option<PivKey>,
    /// When the share key asks for a touch
    #[arg(long, value_enum, default_value_t = Touch::Cached)]
    touch: Touch,
    /// Overwrite the key in slot 9c, that in the slot you name, and those of an earlier enrolment
    #[arg(long)]
    overwrite: bool,
    /// Read the new PUK of the YubiKey from this file descriptor (the new PIN from --pin-fd)
    #[arg(long, value_name = "N")]
    puk_fd: Option<i32>,
}

/// When a share key asks for a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Touch {
    /// One touch lasts for 15 seconds.
    Cached,
    /// A touch for each share.
    Always,
}

/// Keys that were made, or found.
struct Made {
    token: Box<dyn Token>,
    reference: TokenRef,
    keys: Option<TokenKeys>,
    attestation: Option<Bundle>,
}

impl Enroll {
    pub(crate) fn run(self, mut context: Context) -> Result<(), Refusal> {
        context.person.with_puk_fd(self.puk_fd);
        if self.spare {
            return self.spare(context);
        }
        place(&self.out())?;
        context.home.create()?;
        let now = clock::now();
        let person = PersonRef {
            name: self.name.clone(),
            id: PersonId::from_parts(now, token::random()?),
        };
        let made = self.keys(&mut context)?;
        let path = context.home.path(DEVICE_FILE);
        let device = if path.exists() {
            DeviceKey::load(&path)?
        } else {
            DeviceKey::create(&path, self.name.as_str())?
        };
        let enrolled = EnrolledDevice {
            id: DeviceId::from_parts(now, token::random()?),
            name: self
                .device
                .clone()
                .or_else(|| device_name(&self.name))
                .ok_or_else(odd)?,
            key: public(device.public())?,
        };
        let device = enrolled.id;
        let (out, enrolled) = self.file(&mut context, made, &person, Some(enrolled))?;
        context.home.keep_profile(&Profile {
            format: Format::V1,
            person: person.id,
            name: person.name.clone(),
            token: enrolled.token,
            device,
            enrolment: enrolled.enrolment,
            keys: enrolled.keys.clone(),
            spares: Vec::new(),
            pinentry: context.person.pinentry(),
            vault: None,
        })?;
        tell(&context, &person, &enrolled, Some(device), &out)
    }

    /// One more token for the person of this home.
    fn spare(self, mut context: Context) -> Result<(), Refusal> {
        let mut profile = context.home.profile()?;
        if profile.name != self.name {
            return Err(Refusal::new(
                "denied",
                format_args!("this home is {}'s, not {}'s", profile.name, self.name),
                "enrol a spare token in your own home (--home)",
            ));
        }
        if !matches!(context.wanted, Some(Wanted::Yubikey(_))) {
            return Err(Refusal::new(
                "malformed",
                "a spare token is a YubiKey",
                "insert it alone and say --token yubikey, or name it: --token yubikey:SERIAL",
            ));
        }
        place(&self.out())?;
        let made = self.keys(&mut context)?;
        let serials = |known: &Enrolled| known.token.serial == made.reference.serial;
        if profile.tokens().iter().any(serials) {
            return Err(Refusal::new(
                "taken",
                format_args!("{} is a token of yours already", made.reference),
                "insert your spare token, or name it: --token yubikey:SERIAL",
            ));
        }
        let person = profile.reference();
        let (out, enrolled) = self.file(&mut context, made, &person, None)?;
        profile.spares.push(enrolled.clone());
        context.home.keep_profile(&profile)?;
        tell(&context, &person, &enrolled, None, &out)
    }

    /// Where the enrolment is written.
    fn out(&self) -> PathBuf {
        let end = if self.spare { "-spare" } else { "" };
        let own = || PathBuf::from(format!("{}{end}.enroll", self.name));
        self.out.clone().unwrap_or_else(own)
    }

    /// Makes the keys, or takes those that an interrupted enrolment made.
    fn keys(&self, context: &mut Context) -> Result<Made, Refusal> {
        let id = TokenId::from_parts(clock::now(), token::random()?);
        match context.wanted.unwrap_or(Wanted::Software) {
            Wanted::Software if self.share_key.is_some() => Err(Refusal::new(
                "malformed",
                "the share key of a key file is made with it",
                "say --token yubikey, with the YubiKey that has this share key",
            )),
            Wanted::Software => {
                let passphrase = context.person.new_passphrase()?;
                let (file, keys) = SoftwareToken::create(&passphrase, Cost::RECOMMENDED)?;
                private::create(&context.home.path(KEY_FILE), &file)?;
                Ok(Made {
                    token: Box::new(keys),
                    reference: TokenRef {
                        id,
                        kind: TokenKind::Software,
                        serial: None,
                    },
                    keys: None,
                    attestation: None,
                })
            }
            Wanted::Yubikey(serial) => self.hardware(context, id, serial),
        }
    }

    #[cfg(feature = "yubikey")]
    fn hardware(
        &self,
        context: &mut Context,
        id: TokenId,
        serial: Option<u32>,
    ) -> Result<Made, Refusal> {
        let making = token::yubikey::Making {
            serial,
            share: self.share_key.clone(),
            slot: self.slot,
            touch_always: self.touch == Touch::Always,
            overwrite: self.overwrite,
        };
        let made = token::yubikey::make(&making, context.ui, &mut context.person)?;
        Ok(Made {
            reference: TokenRef {
                id,
                kind: TokenKind::Yubikey,
                serial: made.token.describe().serial,
            },
            keys: Some(token::yubikey::keys(&made.token).ok_or_else(odd)?),
            token: Box::new(made.token),
            attestation: made.attestation,
        })
    }

    #[cfg(not(feature = "yubikey"))]
    fn hardware(&self, _: &mut Context, _: TokenId, _: Option<u32>) -> Result<Made, Refusal> {
        Err(token::no_yubikey())
    }

    /// Signs and writes the enrolment file (invariant 2).
    fn file(
        &self,
        context: &mut Context,
        made: Made,
        person: &PersonRef,
        device: Option<EnrolledDevice>,
    ) -> Result<(PathBuf, Enrolled), Refusal> {
        let pem = made.attestation.as_ref().map(Bundle::to_pem);
        let enrol = Enrol {
            person: person.clone(),
            token: made.reference,
            approval_key: public(made.token.approval_key())?,
            share_key: made
                .token
                .share_key()
                .to_string()
                .parse()
                .map_err(|_| odd())?,
            attestation: pem.as_ref().map(|pem| Digest::of(pem.as_bytes())),
            device,
            made: clock::now().stamp(),
        };
        let mut opened = Opened::new(made.token, made.reference);
        let signed = opened.sign(&enrol, &mut context.person)?;
        let enrolment = EnrolmentFile {
            format: EnrolmentFormat::V1,
            enrol: signed,
            attestation: pem,
        };
        let out = self.out();
        let bytes = enrolment
            .to_bytes()
            .map_err(|error| file_error(&out, &error))?;
        write_file(&out, &bytes)?;
        let enrolled = Enrolled {
            token: made.reference,
            enrolment: enrol.digest(),
            keys: made.keys,
        };
        Ok((out, enrolled))
    }
}

/// What the person does next.
fn tell(
    context: &Context,
    person: &PersonRef,
    enrolled: &Enrolled,
    device: Option<DeviceId>,
    out: &std::path::Path,
) -> Result<(), Refusal> {
    let digest = enrolled.enrolment;
    let document = json!({
        "person": person.id, "name": person.name, "token": enrolled.token.id, "serial": enrolled.token.serial, "device": device,
        "enrolment": digest, "words": spoken(&digest), "file": out,
    });
    let care = match enrolled.token.kind {
        TokenKind::Software => format!(
            "Keep copies of {}: without it your shares are lost.",
            context.home.path(KEY_FILE).display()
        ),
        TokenKind::Yubikey => "Its keys cannot be copied: enrol a spare token too (keyturn enroll --spare), and keep the PUK where the token is not.".to_owned(),
    };
    Ok(context.ui.result(&document, || {
        format!(
            "{}: your enrolment; give it to whoever founds the vault or invites you, and read them these words:\n  {}\n{care}",
            out.display(),
            spoken(&digest),
        )
    })?)
}

/// A public key as documents carry it.
pub(super) fn public(key: &keyturn_hsm::ApprovalKey) -> Result<PublicKey, Refusal> {
    PublicKey::from_der(key.spki()).map_err(|_| odd())
}

pub(super) fn odd() -> Refusal {
    Refusal::new(
        "internal",
        "a key that was just made has no encoding",
        "report this",
    )
}

/// A retired slot, as Yubico writes it.
fn slot(text: &str) -> Result<u8, String> {
    let number = u8::from_str_radix(text, 16).ok();
    number
        .filter(|number| (0x82..=0x95).contains(number))
        .ok_or_else(|| "a retired slot is 82 to 95".to_owned())
}

/// A key in a slot of a YubiKey, as age-plugin-yubikey writes it.
fn piv_key(text: &str) -> Result<PivKey, String> {
    match text.parse() {
        Ok(ShareKey::Piv(key)) => Ok(key),
        Ok(_) | Err(_) => Err("an identity's recipient begins with age1yubikey1".to_owned()),
    }
}

/// The person's name, and that of this computer where it makes a name.
pub(super) fn device_name(person: &PersonName) -> Option<Name> {
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
