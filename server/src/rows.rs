//! What the store's rows hold: a format byte and JSON.
//!
//! Nothing here is believed about people, keys, quorums or holders: those come from documents whose
//! digests and signatures were checked. A row says where things stand.

mod ceremony;
mod reading;
mod restoring;

use std::collections::{BTreeMap, BTreeSet};

use keyturn_vault::{
    digest::Digest,
    event::{Evidence, Maker, Seal},
    id::{CeremonyId, DeviceId, GroupName, NodeId, PersonId, TokenId},
    machine::Millis,
    name::CredentialPath,
    reference::{CharterRef, Version},
    text::SignedText,
    time::Time,
    world::{Life, Stage},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use self::{
    ceremony::{Ceremony, Release, ReleasedVersion, Statement},
    reading::{document, object, read},
    restoring::{Restored, Restoring},
};
use crate::{notice::Notice, peers};

/// The format byte of every row here.
pub(crate) const FORMAT: u8 = 1;
/// Room for most rows, so that they are written into one piece of memory.
const USUAL_BYTES: usize = 4096;

/// Most devices that the tokens of one person have signed in; a further one takes the place of the oldest.
const MAX_JOINED: usize = 8;
/// The most texts of one person that are remembered to have signed a device in.
const MAX_SIGNED_IN: usize = 64;

/// The format byte of entries and of rows that only say that they are there.
pub const ENTRY_FORMAT: u8 = 1;

/// Why a row cannot be used.
#[derive(Debug, Error)]
pub enum RowError {
    /// Another format, or damaged.
    #[error(
        "a row of the store is damaged, or of a newer keyturnd; restore a backup or run the newer one"
    )]
    Damaged,
}

/// Writes a row.
pub fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, RowError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.push(FORMAT);
    serde_json::to_writer(&mut bytes, row).map_err(|_| RowError::Damaged)?;
    Ok(bytes)
}

/// Reads a row.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    match bytes.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json).map_err(|_| RowError::Damaged),
        _ => Err(RowError::Damaged),
    }
}

/// `meta/vault`: which vault this is and how far its founding has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// This node.
    pub node: NodeId,
    /// The first charter.
    pub genesis: CharterRef,
    /// The charter in force; none before every founder has joined.
    pub in_force: Option<CharterRef>,
    /// The founders' joins so far, one of each token.
    pub joins: BTreeMap<TokenId, SignedText>,
    /// What each token of the founders must prove.
    pub founders: BTreeMap<TokenId, Founder>,
    /// Who was asked to join after the founding.
    pub invitations: BTreeMap<PersonId, Invitation>,
    /// Devices that tokens have signed in; transport only.
    pub devices: Vec<JoinedDevice>,
    /// What each person's tokens signed to let devices in, by digest, the newest last: each text is good for once.
    #[serde(default)]
    pub signed_in: BTreeMap<PersonId, Vec<Digest>>,
    /// The charters after the first, in order, and where to find what put them into force.
    #[serde(default)]
    pub charters: Vec<InForce>,
    /// Who joined after the founding, with which keys.
    #[serde(default)]
    pub joined: Vec<Joined>,
    /// When each person last signed anything, to the day, in lived time.
    #[serde(default)]
    pub seen: BTreeMap<PersonId, Millis>,
    /// Until when no rotation is begun, in lived time.
    #[serde(default)]
    pub paused: Option<Millis>,
    /// What the log says of the places for copies: whether each is complete.
    #[serde(default)]
    pub sinks: BTreeMap<String, bool>,
    /// Restores that a quorum accepted, in order.
    #[serde(default)]
    pub restores: Vec<Restored>,
}

/// A charter that took force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// Which one.
    pub charter: CharterRef,
    /// The ceremony that decided it.
    pub ceremony: CeremonyId,
    /// The entry that says so.
    pub entry: u64,
}

/// Somebody who joined after the founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The enrolment, signed with the key in it.
    pub enrolment: SignedText,
    /// The join, signed with the same key.
    pub join: SignedText,
    /// The entry `charter.joined`.
    pub entry: u64,
}

/// A device that a token has signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedDevice {
    /// Whose it is.
    pub person: PersonId,
    /// Which one it is.
    pub id: DeviceId,
    /// The pin of its key.
    pub pin: Digest,
    /// The entry `device.joined`.
    #[serde(default)]
    pub entry: u64,
}

impl Vault {
    /// A vault that nobody has joined yet.
    pub fn new(node: NodeId, genesis: CharterRef) -> Self {
        Self {
            node,
            genesis,
            in_force: None,
            joins: BTreeMap::new(),
            founders: BTreeMap::new(),
            invitations: BTreeMap::new(),
            devices: Vec::new(),
            signed_in: BTreeMap::new(),
            charters: Vec::new(),
            joined: Vec::new(),
            seen: BTreeMap::new(),
            paused: None,
            sinks: BTreeMap::new(),
            restores: Vec::new(),
        }
    }

    /// A token has signed a device in, with this text; beyond `MAX_JOINED` the person's oldest one goes.
    pub fn sign_in(&mut self, device: JoinedDevice, text: Digest) {
        self.devices.retain(|known| known.pin != device.pin);
        let mine = |known: &&JoinedDevice| known.person == device.person;
        if self.devices.iter().filter(mine).count() >= MAX_JOINED
            && let Some(oldest) = self.devices.iter().position(|known| mine(&known))
        {
            self.devices.remove(oldest);
        }
        let spent = self.signed_in.entry(device.person).or_default();
        if spent.len() >= MAX_SIGNED_IN {
            spent.remove(0);
        }
        spent.push(text);
        self.devices.push(device);
    }

    /// The devices that tokens have signed in, as TLS wants them.
    pub fn joined(&self) -> Vec<peers::JoinedDevice> {
        let joined = |device: &JoinedDevice| peers::JoinedDevice {
            person: device.person,
            id: device.id,
            pin: device.pin,
        };
        self.devices.iter().map(joined).collect()
    }
}

/// What a token of a founder must prove; charter 1 has its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// The SHA-256 of the nonce's text, which its share key must decrypt.
    pub nonce: Digest,
    /// The SHA-256 of the enrolment.
    pub enrolment: Digest,
}

/// Somebody who was asked to prove their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The SHA-256 of the nonce's text, which the share key must decrypt.
    pub nonce: Digest,
    /// The enrolment.
    pub enrolment: SignedText,
    /// Who invited.
    pub by: PersonId,
    /// When it ends, in lived time.
    pub until: Millis,
}

/// `meta/proposals`: the documents that were proposed and that no request has named yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposals {
    /// In the order in which they came.
    pub kept: Vec<Proposed>,
}

/// A document at `proposal/<sha256>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposed {
    /// Its digest.
    pub digest: Digest,
    /// Who proposed it.
    pub by: PersonId,
    /// When it is forgotten, in lived time.
    pub until: Millis,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// `meta/clock`: the vault's own clocks, stored each minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The wall clock when this was stored.
    pub wall: Time,
    /// Running time.
    pub ran: Millis,
    /// Running time and downtime.
    pub lived: Millis,
    /// When, in lived time, the log was last seen to have grown.
    pub spoke: Millis,
    /// How many entries it had.
    pub size: u64,
}

/// `meta/outbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// The number of the next notice.
    pub next: u64,
}

/// `outbox/<seq>`: a notice for one notifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    /// The notifier's name.
    pub to: String,
    /// When it was written, in lived time.
    pub posted: Millis,
    /// Since when it is given up, and why; none while it is tried.
    #[serde(default)]
    pub undelivered: Option<Undelivered>,
    /// What is told.
    pub notice: Notice,
}

/// Why a notice was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undelivered {
    /// Since when.
    pub since: Time,
    /// What the last try failed with.
    pub problem: String,
}

/// `credential/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its path.
    pub path: CredentialPath,
    /// The digest of the definition in force.
    pub definition: Digest,
    /// The signature over it; of a change: its ceremony.
    pub signature: Seal,
    /// The ceremony that put the definition into force.
    pub changed_by: Option<CeremonyId>,
    /// The entry of the definition.
    pub entry: u64,
    /// The definitions before this one, oldest first.
    #[serde(default)]
    pub earlier: Vec<Earlier>,
    /// Its versions, also those that are gone.
    pub versions: BTreeMap<Version, VersionState>,
    /// Who has it checked out, by which ceremony.
    pub out: BTreeMap<CeremonyId, PersonId>,
    /// When the current version was last proven by a login.
    #[serde(default)]
    pub proven: Option<Time>,
    /// What the target showed of the secret before the current one, when it was last rotated.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// What the last look at the target saw; none since the current version was proven.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// Since when a rotation is owed.
    #[serde(default)]
    pub owed: Option<Since>,
}

/// What looks at a target saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// When the last one was.
    pub at: Time,
    /// When one last saw that the sealed secret is the real one.
    pub same: Option<Time>,
    /// Whether it is known not to be.
    pub diverged: bool,
    /// What shows so.
    pub why: Option<String>,
    /// What must not change: what the first look since the proof saw that found the secret real; none before it.
    #[serde(default)]
    pub facts: Option<BTreeMap<String, String>>,
}

/// A definition that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Its digest.
    pub definition: Digest,
    /// The signature over it; of a change: its ceremony.
    pub signature: Seal,
    /// The ceremony that put it into force.
    pub changed_by: Option<CeremonyId>,
    /// Its entry.
    pub entry: u64,
}

impl Credential {
    /// One that was just defined, by this entry.
    pub fn new(path: CredentialPath, definition: Digest, signature: Seal, entry: u64) -> Self {
        Self {
            path,
            definition,
            signature,
            changed_by: None,
            entry,
            earlier: Vec::new(),
            versions: BTreeMap::new(),
            out: BTreeMap::new(),
            proven: None,
            evidence: None,
            probe: None,
            owed: None,
        }
    }

    /// The definition in force, as one that was.
    pub fn defined(&self) -> Earlier {
        Earlier {
            definition: self.definition,
            signature: self.signature.clone(),
            changed_by: self.changed_by,
            entry: self.entry,
        }
    }

    /// Whether a person deposited the current secret. Sealed anew it stays the same one.
    pub fn known_to_human(&self) -> bool {
        let current = |state: &VersionState| state.life.stage == Stage::Current;
        let newest = self.versions.iter().rposition(|(_, state)| current(state));
        let upto = newest.map_or(0, |place| place.saturating_add(1));
        let makers = self.versions.values().take(upto).map(|state| state.maker);
        let made = makers
            .rev()
            .find(|maker| !matches!(maker, Maker::Reshare(_)));
        matches!(made, Some(Maker::Deposit(_)))
    }
}

/// What is known of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionState {
    /// Where it is in its life.
    pub life: Life,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Who made it.
    pub maker: Maker,
    /// The entry `version.sealed`.
    pub entry: u64,
    /// When that was.
    pub sealed: Time,
    /// Custodians who have read their share.
    pub confirmed: BTreeSet<PersonId>,
    /// Whether its shares were seen not to match what was sealed.
    pub inconsistent: bool,
}

/// `version/<credential>/<v>`: the sealed value itself; written once, deleted when destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// The signature over the manifest.
    pub signature: Seal,
    /// The age file with the secret.
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
    /// The envelopes, in the manifest's order.
    pub envelopes: Vec<Envelope>,
}

/// A share, encrypted to its custodian's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The group.
    pub group: GroupName,
    /// The custodian.
    pub person: PersonId,
    /// The custodian's x.
    pub x: u8,
    /// The age file.
    #[serde(with = "base64_bytes")]
    pub envelope: Vec<u8>,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// By the wall clock, for people and targets.
    pub wall: Time,
    /// In lived time, for what waits.
    pub lived: Millis,
}

/// Bytes in JSON: standard base64 with padding.
mod base64_bytes {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
