//! People who speak to the daemon without the command line: what tests need to send wrong, late,
//! foreign and very many things.
//!
//! A [`Member`] has a token and a device in memory. Nothing is checked here that a careful client
//! checks; the daemon's answers are what is looked at.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use keyturn::connect::{Link, Route, connect};
pub use keyturn::verify::wire::{wire_signer, wire_text};
use keyturn_audit::note::{SignedCheckpoint, Vkey};
use keyturn_hsm::{
    Notice, Prompt, Question, SHARE_MAX, Token as _, TokenError, device::DeviceKey,
    software::SoftwareToken,
};
use keyturn_proto::v1::{
    self, audit_client::AuditClient, ceremony_client::CeremonyClient,
    charter_client::CharterClient, credential_client::CredentialClient,
    rotation_client::RotationClient, status_client::StatusClient,
};
use keyturn_seal::{
    SecretBytes, ShareKey,
    piv::{Point, SoftwareKey},
};
use keyturn_vault::{
    charter::Charter,
    digest::{Digest, Salt},
    file::{EnrolmentFile, EnrolmentFormat, Welcome},
    id::{DeviceId, PersonId, TokenId},
    jcs::Document as _,
    key::PublicKey,
    reference::{CharterRef, Head, PersonRef, Signer, TokenKind, TokenRef},
    text::{Enrol, EnrolledDevice, Join, SignedText, Text},
    time::Time,
};
use tonic::transport::Channel;

use crate::harness::{Outcome, World, write_private};

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "people in tests have a clock of their own"
)]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time::from_ms(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)))
}

/// Random bytes.
pub fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Somebody who knows the passphrase; tokens that are open ask nothing.
pub struct Scripted;

impl Prompt for Scripted {
    fn ask(&mut self, _: &Question) -> Result<SecretBytes, TokenError> {
        Ok(SecretBytes::from_slice(
            crate::harness::PASSPHRASE.as_bytes(),
        ))
    }

    fn notice(&mut self, _: &Notice) {}
}

/// A vault as its welcome files describe it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Charter 1.
    pub charter: Charter,
    /// What it is called.
    pub reference: CharterRef,
    /// The log's verifier key.
    pub vkey: Vkey,
    /// The way to the daemon.
    pub route: Route,
}

impl Facts {
    /// Reads a welcome file.
    pub fn read(welcome: &Path) -> Outcome<(Self, Welcome)> {
        let welcome = Welcome::from_bytes(&std::fs::read(welcome)?)?;
        let addresses = welcome.endpoints.iter().map(|endpoint| endpoint.parse());
        let facts = Self {
            charter: Charter::from_bytes(&welcome.charter.0)?,
            reference: welcome.genesis,
            vkey: welcome.vkey.as_str().parse()?,
            route: Route {
                addresses: addresses.collect::<Result<_, _>>()?,
                pins: welcome.server_pins.clone(),
            },
        };
        Ok((facts, welcome))
    }
}

/// A person with a token and a device, both in memory.
pub struct Member {
    /// Who it is.
    pub person: PersonRef,
    /// The token.
    pub token: TokenRef,
    /// The device's id.
    pub device_id: DeviceId,
    /// The device.
    pub device: DeviceKey,
    /// `keyturn enrol v1`.
    pub enrol: SignedText,
    /// The attestation that it names.
    pub attestation: Option<String>,
    keys: Mutex<SoftwareToken>,
    piv: Option<SoftwareKey>,
}

impl Member {
    /// Makes somebody with new keys.
    pub fn new(name: &str) -> Outcome<Self> {
        let now = now();
        let mut keys = SoftwareToken::in_memory()?;
        let device = DeviceKey::generate(name)?;
        let person = PersonRef {
            name: name.parse()?,
            id: PersonId::from_parts(now, random()?),
        };
        let token = TokenRef {
            id: TokenId::from_parts(now, random()?),
            kind: TokenKind::Software,
            serial: None,
        };
        let device_id = DeviceId::from_parts(now, random()?);
        let enrol = Enrol {
            person: person.clone(),
            token,
            approval_key: PublicKey::from_der(keys.approval_key().spki())?,
            share_key: keys.share_key().to_string().parse()?,
            attestation: None,
            device: Some(EnrolledDevice {
                id: device_id,
                name: name.parse()?,
                key: PublicKey::from_der(device.public().spki())?,
            }),
            made: now.stamp(),
        };
        let text = enrol.to_text();
        let signature = keys.sign(text.as_bytes(), &mut Scripted)?;
        Ok(Self {
            person,
            token,
            device_id,
            device,
            enrol: SignedText {
                text,
                signature,
                signer: Signer::Token(token.id),
            },
            attestation: None,
            keys: Mutex::new(keys),
            piv: None,
        })
    }

    /// Pretends to have a YubiKey of this serial number, with a share key in the kind that one has.
    pub fn with_yubikey(mut self, serial: u32) -> Outcome<Self> {
        self.token.kind = TokenKind::Yubikey;
        self.token.serial = Some(serial);
        self.piv = Some(SoftwareKey::generate()?);
        self.enrol_as(None)?;
        Ok(self)
    }

    /// The points of approval and share key, which a YubiKey's maker would attest.
    pub fn points(&self) -> Outcome<[Vec<u8>; 2]> {
        let share = self.piv.as_ref().ok_or("no YubiKey")?.public();
        let approval = self.keys().approval_key().point().to_vec();
        Ok([approval, share.compressed().to_vec()])
    }

    /// Enrols again, with this attestation.
    pub fn enrol_as(&mut self, attestation: Option<String>) -> Outcome<()> {
        let enrol = Enrol::parse(&self.enrol.text)?;
        let share = self.piv.as_ref().map(|key| ShareKey::Piv(key.public()));
        let share = share.map(|key| key.to_string().parse()).transpose()?;
        let enrol = Enrol {
            token: self.token,
            share_key: share.unwrap_or(enrol.share_key),
            attestation: attestation.as_ref().map(|text| Digest::of(text.as_bytes())),
            ..enrol
        };
        self.enrol = self.sign(&enrol)?;
        self.attestation = attestation;
        Ok(())
    }

    /// Somebody as the command line enrolled them: the same keys, in other hands.
    pub fn of_home(home: &Path) -> Outcome<Self> {
        let profile = keyturn::home::Home::at(home).profile()?;
        let file = keyturn_hsm::private::read(&home.join("token.key"))?;
        let keys = SoftwareToken::open(&file, &mut Scripted)?;
        Ok(Self {
            person: profile.reference(),
            token: profile.token,
            device_id: profile.device,
            device: DeviceKey::load(&home.join("device.pem"))?,
            enrol: SignedText {
                text: String::new(),
                signature: Vec::new(),
                signer: Signer::Token(profile.token.id),
            },
            attestation: None,
            keys: Mutex::new(keys),
            piv: None,
        })
    }

    /// The enrolment file.
    pub fn enrolment(&self) -> Outcome<Vec<u8>> {
        let file = EnrolmentFile {
            format: EnrolmentFormat::V1,
            enrol: self.enrol.clone(),
            attestation: self.attestation.clone(),
        };
        Ok(file.to_bytes()?)
    }

    /// Signs a text with the token.
    pub fn sign<T: Text>(&self, text: &T) -> Outcome<SignedText> {
        let text = text.to_text();
        let signature = self.keys().sign(text.as_bytes(), &mut Scripted)?;
        Ok(SignedText {
            text,
            signature,
            signer: Signer::Token(self.token.id),
        })
    }

    /// Signs anything with the token.
    pub fn sign_bytes(&self, bytes: &[u8]) -> Outcome<Vec<u8>> {
        Ok(self.keys().sign(bytes, &mut Scripted)?)
    }

    /// Signs a text with the device.
    pub fn sign_by_device<T: Text>(&self, text: &T) -> Outcome<SignedText> {
        let text = text.to_text();
        let signature = self.device.sign(text.as_bytes())?;
        Ok(SignedText {
            text,
            signature,
            signer: Signer::Device(self.device_id),
        })
    }

    /// Signs a document with the device.
    pub fn sign_document(&self, document: Vec<u8>) -> Outcome<v1::SignedDocument> {
        let signature = v1::Signature {
            signature: self.device.sign(&document)?,
            signer: Some(wire_signer(Signer::Device(self.device_id))),
        };
        Ok(v1::SignedDocument {
            document,
            signature: Some(signature),
            ceremony: String::new(),
        })
    }

    /// Decrypts an age file with the token.
    pub fn open(&self, file: &[u8]) -> Outcome<SecretBytes> {
        if let Some(key) = &self.piv {
            let ecdh = |point: &Point| key.ecdh(point).ok_or("not on the curve");
            let opened = keyturn_seal::piv::decrypt(&key.public(), file, SHARE_MAX, ecdh);
            return opened.map_err(|_| "the share key does not open it".into());
        }
        let opened = self.keys().open_shares(&[file], &mut Scripted);
        Ok(opened.into_iter().next().ok_or("nothing was opened")??)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, SoftwareToken> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects.
    pub async fn connect(&self, facts: &Facts) -> Outcome<Line> {
        Ok(Line(connect(&facts.route, &self.device).await?))
    }

    /// What this person signs to join.
    pub fn join_text(&self, welcome: &Welcome) -> Outcome<Join> {
        let nonce = self.open(&welcome.nonce.0)?;
        // Exposed to its parser.
        let nonce: Salt = std::str::from_utf8(nonce.expose())?.parse()?;
        Ok(Join {
            vault: welcome.origin.clone(),
            genesis: welcome.genesis.digest,
            charter: welcome.genesis,
            enrolment: self.enrol.digest(),
            person: self.person.clone(),
            token: self.token,
            nonce,
            signed: now().stamp(),
        })
    }

    /// Joins as a founder.
    pub async fn join(&self, facts: &Facts, welcome: &Welcome) -> Outcome<v1::JoinReply> {
        let join = Some(wire_text(&self.sign(&self.join_text(welcome)?)?));
        let request = v1::JoinRequest {
            join,
            founding: None,
        };
        let reply = self.connect(facts).await?.charters().join(request).await?;
        Ok(reply.into_inner())
    }
}

/// A connection of one person.
#[derive(Clone)]
pub struct Line(Link);

impl Line {
    /// The channel itself, for calls that no client would make.
    pub fn channel(&self) -> Channel {
        self.0.channel()
    }

    /// Ceremonies.
    pub fn ceremonies(&self) -> CeremonyClient<Channel> {
        CeremonyClient::new(self.0.channel())
    }

    /// Credentials.
    pub fn credentials(&self) -> CredentialClient<Channel> {
        CredentialClient::new(self.0.channel())
    }

    /// Charters.
    pub fn charters(&self) -> CharterClient<Channel> {
        CharterClient::new(self.0.channel())
    }

    /// Rotations.
    pub fn rotations(&self) -> RotationClient<Channel> {
        RotationClient::new(self.0.channel())
    }

    /// The log.
    pub fn log(&self) -> AuditClient<Channel> {
        AuditClient::new(self.0.channel())
    }

    /// How the vault is.
    pub async fn status(&self) -> Outcome<v1::ShowStatusReply> {
        let mut client = StatusClient::new(self.0.channel());
        let reply = client.show(v1::ShowStatusRequest {}).await?;
        Ok(reply.into_inner())
    }

    /// The newest checkpoint, verified.
    pub async fn checkpoint(&self, vkey: &Vkey) -> Outcome<SignedCheckpoint> {
        let reply = self.log().checkpoint(v1::CheckpointRequest {}).await?;
        Ok(SignedCheckpoint::open(
            &reply.into_inner().checkpoint,
            vkey,
        )?)
    }

    /// The head of the log, as texts name it.
    pub async fn head(&self, vkey: &Vkey) -> Outcome<Head> {
        let newest = self.checkpoint(vkey).await?;
        Ok(Head {
            size: newest.size(),
            root: Digest(*newest.root()),
        })
    }
}

/// A founded vault whose people speak without the command line.
pub struct Founded {
    /// The vault and its daemon.
    pub world: World,
    /// What the vault is.
    pub facts: Facts,
    /// Its people: alice asks, olga operates, bob, carol and dan are custodians.
    pub people: BTreeMap<&'static str, Member>,
}

/// Who founds a vault, with which roles.
pub const PEOPLE: [(&str, &[&str]); 5] = [
    ("alice", &["requester"]),
    ("olga", &["operator"]),
    ("bob", &["custodian"]),
    ("carol", &["custodian"]),
    ("dan", &["custodian"]),
];

impl Founded {
    /// Founds a vault and starts its daemon; `policy` is added to `[policy.default]`.
    pub async fn new(policy: &str) -> Outcome<Self> {
        Self::over(World::new()?, policy).await
    }

    /// As [`Founded::new`], in a world with sinks for copies.
    pub async fn over(world: World, policy: &str) -> Outcome<Self> {
        Self::by(&PEOPLE, world, policy).await
    }

    /// The same, founded by these people.
    pub async fn by(
        founders: &[(&'static str, &[&str])],
        mut world: World,
        policy: &str,
    ) -> Outcome<Self> {
        let mut people = BTreeMap::new();
        std::fs::create_dir_all(world.folder().join("people"))?;
        for (name, _) in founders {
            let member = Member::new(name)?;
            let path = world.folder().join("people").join(format!("{name}.enroll"));
            write_private(&path, &member.enrolment()?)?;
            people.insert(*name, member);
        }
        world.init(founders, policy)?;
        world.start()?;
        let (facts, _) = Facts::read(&world.welcome("alice"))?;
        for (name, member) in &people {
            let (_, welcome) = Facts::read(&world.welcome(name))?;
            member.join(&facts, &welcome).await?;
        }
        Ok(Self {
            world,
            facts,
            people,
        })
    }

    /// A person.
    pub fn who(&self, name: &str) -> Outcome<&Member> {
        Ok(self.people.get(name).ok_or("nobody has this name")?)
    }

    /// A person's connection.
    pub async fn line(&self, name: &str) -> Outcome<Line> {
        self.who(name)?.connect(&self.facts).await
    }
}
