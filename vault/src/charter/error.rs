//! Why a charter is not valid: one error a rule.

use std::fmt;

use thiserror::Error;

use crate::id::{GroupName, PersonId};
use crate::name::{PersonName, PolicyName, ScenarioName};

/// Why a charter is not valid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CharterError {
    /// The first charter has a predecessor or joins, or a later one has none; or its index is 0.
    #[error("charter 1 has no previous charter and names no joins; every later one has a previous")]
    Place,
    /// More of something than allowed.
    #[error("{what}: {count}, and at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// None of something that must be there.
    #[error("there is no {what}")]
    None {
        /// Of what.
        what: &'static str,
    },
    /// Two things have one id.
    #[error("the id {id} is given twice")]
    SameId {
        /// The id.
        id: String,
    },
    /// Two things of a kind have one name.
    #[error("the {what} name {name} is given twice")]
    SameName {
        /// What they are.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// Two things of a kind have names that look alike.
    #[error("the {what} names {one} and {other} look alike; rename one")]
    LookAlike {
        /// What they are.
        what: &'static str,
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// One signing key is given to two tokens, devices or nodes.
    #[error("{one} and {other} have the same signing key")]
    SameKey {
        /// Who has it first.
        one: String,
        /// Who has it too.
        other: String,
    },
    /// One share key is given to two tokens.
    #[error("{one} and {other} have the same share key")]
    SameShareKey {
        /// Who has it first.
        one: String,
        /// Who has it too.
        other: String,
    },
    /// One serial is given to two tokens.
    #[error("{one} and {other} have a token with the serial {serial}")]
    SameSerial {
        /// The serial.
        serial: u32,
        /// Who has it first.
        one: String,
        /// Who has it too.
        other: String,
    },
    /// A hardware token without a serial, or a key file with one or with an attestation.
    #[error("{person}: a yubikey has a serial; a software token has none and no attestation")]
    TokenKind {
        /// Whose token it is.
        person: PersonName,
    },
    /// A person without a role.
    #[error("{person} has no role")]
    NoRole {
        /// The person.
        person: PersonName,
    },
    /// A person who cannot identify themselves.
    #[error("{person} has neither a token nor a device")]
    NoKey {
        /// The person.
        person: PersonName,
    },
    /// A custodian without a token.
    #[error("{person} is a custodian and has no token")]
    NoToken {
        /// The person.
        person: PersonName,
    },
    /// No governing group, or several.
    #[error("exactly one group is governing, and here {count} are")]
    Governing {
        /// How many are.
        count: usize,
    },
    /// A member that is nobody, or no custodian.
    #[error("group {group}: {member} is not a custodian of this charter")]
    Member {
        /// The group.
        group: GroupName,
        /// Who.
        member: PersonId,
    },
    /// A quorum of one.
    #[error("group {group}: the quorum is {k}; at least two persons must agree")]
    QuorumTooSmall {
        /// The group.
        group: GroupName,
        /// Its quorum.
        k: u8,
    },
    /// A quorum of more than all.
    #[error("group {group}: the quorum is {k} of only {n}")]
    QuorumTooLarge {
        /// The group.
        group: GroupName,
        /// Its quorum.
        k: u8,
        /// Its members.
        n: usize,
    },
    /// A quorum of all.
    #[error(
        "group {group}: with {k} of {n}, one lost token closes its credentials for ever; \
         add a member, or say allow_no_spare"
    )]
    NoSpare {
        /// The group.
        group: GroupName,
        /// Its quorum.
        k: u8,
        /// Its members.
        n: usize,
    },
    /// A team that is empty, or has somebody from outside.
    #[error("group {group}: team {team} is empty or has somebody who is not a member")]
    Team {
        /// The group.
        group: GroupName,
        /// The team.
        team: String,
    },
    /// More teams than a quorum has people.
    #[error("group {group}: a quorum of {k} cannot be of {teams} teams")]
    Teams {
        /// The group.
        group: GroupName,
        /// Its quorum.
        k: u8,
        /// Its teams.
        teams: usize,
    },
    /// A rule of a policy that makes no sense.
    #[error("{place}: {rule}")]
    Policy {
        /// Where.
        place: PolicyPlace,
        /// What would be right.
        rule: &'static str,
    },
    /// A log key of another name or kind.
    #[error("the log key is not an Ed25519 log key whose name is the origin")]
    LogKey,
    /// A witness's key of another kind, or with the name of the log.
    #[error("{name} is not the key of a witness (Ed25519 cosignatures)")]
    Witness {
        /// Its name.
        name: String,
    },
}

/// A policy, or what a scenario makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPlace {
    /// The policy.
    pub policy: PolicyName,
    /// The scenario.
    pub scenario: Option<ScenarioName>,
}

impl fmt::Display for PolicyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}", self.policy)?;
        self.scenario
            .iter()
            .try_for_each(|scenario| write!(f, " in scenario {scenario}"))
    }
}
