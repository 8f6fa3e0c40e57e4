//! The charter: the one document that says who may do what.
//!
//! A charter is checked twice: [`Charter::validate`] by itself, [`Charter::follows`] against the one
//! before it. Who must sign a change is the business of the `change` machine; what they read is
//! [`diff()`].
//!
//! # Invariants
//! 1. A valid charter has exactly one governing group, and every reference in it resolves.
//! 2. Signing keys, share keys and serials are pairwise different, in a group and in the whole
//!    charter, so that k approvals are k keys of k persons; 2 ≤ k ≤ n in each group, and k < n
//!    unless the group says otherwise.
//! 3. Ids are unique in the whole charter, names among their kind, and no two names look alike.
//! 4. Every number and list is bounded.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::digest::Digest;
use crate::id::{DeviceId, NodeId, PersonId, TokenId};
use crate::jcs::Document;
use crate::key::{PublicKey, ShareKey, VerifierKey};
use crate::name::{GroupName, Name, Origin, PersonName, PolicyName, ScenarioName};
use crate::reference::{PersonRef, TokenKind, TokenRef};

pub mod chain;
pub mod condition;
pub mod demand;
pub mod diff;
pub mod error;
pub mod policy;
pub mod validate;
pub mod warnings;

pub use chain::{Chain, ChainError};
pub use condition::{Firmware, Hours, Network, Weekday};
pub use demand::{Lack, Weak};
pub use diff::{Difference, How, diff, touched_groups};
pub use error::{CharterError, PolicyPlace};
pub use policy::{Policy, Scenario, Waiver};
pub use warnings::Warning;

/// The largest charter, in bytes.
pub const MAX_CHARTER_BYTES: usize = 512 * 1024;
/// The most persons.
pub const MAX_PERSONS: usize = 500;
/// The most tokens of a person.
pub const MAX_TOKENS: usize = 4;
/// The most devices of a person.
pub const MAX_DEVICES: usize = 8;
/// The most groups.
pub const MAX_GROUPS: usize = 100;
/// The most members of a group: what the manifest of a credential with two groups can list.
pub const MAX_MEMBERS: usize = 60;
/// The least quorum.
pub const MIN_QUORUM: u8 = 2;
/// The most teams of a group.
pub const MAX_TEAMS: usize = 16;
/// The most policies, and the most scenarios.
pub const MAX_POLICIES: usize = 100;
/// The most nodes.
pub const MAX_NODES: usize = 16;
/// The most witnesses.
pub const MAX_WITNESSES: usize = 16;
/// The most joins that one charter names.
pub const MAX_JOINS: usize = 1_000;

/// The type and version of a charter document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "keyturn charter v1")]
    V1,
}

/// Who may do what in one vault, from one change to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The type of this document.
    #[serde(default)]
    pub format: Format,
    /// The vault.
    pub origin: Origin,
    /// Its place in the chain: 1 for the first charter.
    pub index: u64,
    /// The digest of the charter before it; none for the first.
    pub previous: Option<Digest>,
    /// Everybody who has a role.
    pub persons: Vec<Person>,
    /// Custodians with their quorums.
    pub groups: Vec<Group>,
    /// Rules that definitions name.
    pub policies: Vec<Policy>,
    /// Changes of rules that requests name.
    #[serde(default)]
    pub scenarios: Vec<Scenario>,
    /// Machines that run the daemon.
    pub nodes: Vec<Node>,
    /// The key that signs the log's checkpoints; its name is the origin.
    pub log_key: VerifierKey,
    /// Keys of those who cosign checkpoints.
    #[serde(default)]
    pub witnesses: Vec<VerifierKey>,
    /// The digests of the join texts that prove the tokens which this charter adds.
    ///
    /// Empty in the first charter, which its founders' join texts name instead.
    #[serde(default)]
    pub joins: BTreeSet<Digest>,
    /// The digest of its document, where an accepted restore has changed its keys since.
    #[serde(skip)]
    pub restored: Option<Digest>,
}

impl Document for Charter {
    const MAX_BYTES: usize = MAX_CHARTER_BYTES;
}

/// Somebody with a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Who it is, for ever.
    pub id: PersonId,
    /// What people call them.
    pub name: PersonName,
    /// What they do.
    pub roles: BTreeSet<Role>,
    /// Their hardware keys or key files.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// Their computers.
    #[serde(default)]
    pub devices: Vec<Device>,
}

impl Person {
    /// The person as texts name them.
    pub fn reference(&self) -> PersonRef {
        PersonRef {
            name: self.name.clone(),
            id: self.id,
        }
    }

    /// Does the person have this role?
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds shares and approves.
    Custodian,
    /// Asks for credentials.
    Requester,
    /// Adds credentials and looks after rotation.
    Operator,
    /// Reads the log and reviews.
    Auditor,
}

/// A token: a signing key for approvals and a key for shares, held together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Which one it is, for ever.
    pub id: TokenId,
    /// What it is.
    pub kind: TokenKind,
    /// The number printed on it; none for a key file.
    pub serial: Option<u32>,
    /// The key that verifies approvals.
    pub approval_key: PublicKey,
    /// The key to which shares are encrypted.
    pub share_key: ShareKey,
    /// What its maker says about it; none for a key file or where nobody asked.
    #[serde(default)]
    pub attestation: Option<Attestation>,
}

impl Token {
    /// The token as texts name it.
    pub fn reference(&self) -> TokenRef {
        TokenRef {
            id: self.id,
            kind: self.kind,
            serial: self.serial,
        }
    }
}

/// The facts of an attestation, as they were verified when the token was enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The SHA-256 of the object that holds the certificates.
    pub object: Digest,
    /// The firmware of the token.
    pub firmware: Firmware,
    /// How the approval key is guarded.
    pub approval: SlotFacts,
    /// How the share key is guarded.
    pub share: SlotFacts,
}

/// How a slot of a token is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotFacts {
    /// When it asks for the PIN.
    pub pin: PinPolicy,
    /// When it asks for a touch.
    pub touch: TouchPolicy,
}

/// When a slot asks for the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once per session.
    Once,
    /// Each time.
    Always,
}

/// When a slot asks for a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// Once in 15 seconds.
    Cached,
    /// Each time.
    Always,
}

/// A computer of a person. Its one key signs requests and, in TLS, is pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Which one it is, for ever.
    pub id: DeviceId,
    /// What its owner calls it.
    pub name: Name,
    /// The key of its certificate and of its signatures.
    pub key: PublicKey,
}

/// Custodians with a quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name, by which definitions choose it.
    pub name: GroupName,
    /// How many must approve: at least 2.
    pub k: u8,
    /// Who they are. The order of ids gives the shares of a new version their x, from 1 on.
    pub members: BTreeSet<PersonId>,
    /// Does this group decide about the charter? Exactly one does.
    #[serde(default)]
    pub governing: bool,
    /// May k be all of them, so that one lost token closes its credentials for ever?
    #[serde(default)]
    pub allow_no_spare: bool,
    /// What else a quorum of it must satisfy.
    #[serde(default)]
    pub rules: GroupRules,
}

impl Group {
    /// How many members it has.
    pub fn n(&self) -> usize {
        self.members.len()
    }
}

/// What a quorum of a group must satisfy beside k; waivable by `waive: teams`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRules {
    /// At least one approval comes from each of these; empty for no such rule.
    #[serde(default)]
    pub one_from_each: Vec<Team>,
}

/// Some members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Its name.
    pub name: Name,
    /// Who they are.
    pub members: BTreeSet<PersonId>,
}

/// A machine that runs the daemon. Its one key signs submit keys and manifests and, in TLS, is
/// pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Which one it is, for ever.
    pub id: NodeId,
    /// What people call it.
    pub name: Name,
    /// The key of its certificate and of its signatures.
    pub key: PublicKey,
}

impl Charter {
    /// The person with this id.
    pub fn person(&self, id: PersonId) -> Option<&Person> {
        self.persons.iter().find(|person| person.id == id)
    }

    /// The person with this name.
    pub fn person_named(&self, name: &PersonName) -> Option<&Person> {
        self.persons.iter().find(|person| person.name == *name)
    }

    /// The token with this id, and whose it is.
    pub fn person_of_token(&self, id: TokenId) -> Option<(&Person, &Token)> {
        self.persons
            .iter()
            .find_map(|person| Some((person, person.tokens.iter().find(|token| token.id == id)?)))
    }

    /// The device with this id, and whose it is.
    pub fn person_of_device(&self, id: DeviceId) -> Option<(&Person, &Device)> {
        self.persons.iter().find_map(|person| {
            Some((
                person,
                person.devices.iter().find(|device| device.id == id)?,
            ))
        })
    }

    /// The device whose TLS certificate has the key with this SHA-256, and whose it is.
    pub fn person_of_pin(&self, pin: &Digest) -> Option<(&Person, &Device)> {
        self.persons.iter().find_map(|person| {
            Some((
                person,
                person
                    .devices
                    .iter()
                    .find(|device| device.key.pin() == *pin)?,
            ))
        })
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The group with this name.
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == *name)
    }

    /// The group that decides about the charter.
    pub fn governing(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.governing)
    }

    /// The members of a group in the order of their ids, which is the order of their shares.
    pub fn holders(&self, group: &GroupName) -> Vec<&Person> {
        self.group(group)
            .into_iter()
            .flat_map(|group| &group.members)
            .filter_map(|id| self.person(*id))
            .collect()
    }

    /// The policy with this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == *name)
    }

    /// The policy of a definition.
    pub fn policy_for(&self, definition: &Definition) -> Option<&Policy> {
        self.policy(&definition.policy)
    }

    /// The scenario with this name.
    pub fn scenario(&self, name: &ScenarioName) -> Option<&Scenario> {
        self.scenarios
            .iter()
            .find(|scenario| scenario.name == *name)
    }
}
