//! What makes a charter valid by itself: one function a part, one error a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::charter::policy::{MAX_COPIES, MAX_COSIGNATURE_WAIT, MAX_LISTED, MAX_WAIT};
use crate::charter::{
    Charter, Group, MAX_DEVICES, MAX_GROUPS, MAX_JOINS, MAX_MEMBERS, MAX_NODES, MAX_PERSONS,
    MAX_POLICIES, MAX_TEAMS, MAX_TOKENS, MAX_WITNESSES, MIN_QUORUM, Person, Policy, Role,
};
use crate::id::{GroupName, PersonId};
use crate::key::{VerifierKey, VerifierKind};
use crate::name::{PersonName, PolicyName, ScenarioName, skeleton};
use crate::reference::TokenKind;
use crate::time::Span;

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
    #[error("two {what}s are called {name}")]
    SameName {
        /// What they are.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// Two things of a kind have names that look alike.
    #[error("the {what}s {one} and {other} look alike; rename one")]
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

impl Charter {
    /// Is it valid by itself? The first rule that is broken is the error.
    pub fn validate(&self) -> Result<(), CharterError> {
        let first = self.index == 1;
        if self.index == 0 || first != self.previous.is_none() || (first && !self.joins.is_empty())
        {
            return Err(CharterError::Place);
        }
        self.check_numbers()?;
        self.check_ids()?;
        self.check_names()?;
        self.persons.iter().try_for_each(check_person)?;
        self.check_keys()?;
        self.check_log_keys()?;
        let governing = self.groups.iter().filter(|group| group.governing).count();
        if governing != 1 {
            return Err(CharterError::Governing { count: governing });
        }
        self.groups
            .iter()
            .try_for_each(|group| self.check_group(group))?;
        self.check_policies()
    }

    fn check_numbers(&self) -> Result<(), CharterError> {
        for (what, count, least, max) in [
            ("person", self.persons.len(), 1, MAX_PERSONS),
            ("group", self.groups.len(), 1, MAX_GROUPS),
            ("policy", self.policies.len(), 1, MAX_POLICIES),
            ("scenario", self.scenarios.len(), 0, MAX_POLICIES),
            ("node", self.nodes.len(), 1, MAX_NODES),
            ("witness", self.witnesses.len(), 0, MAX_WITNESSES),
            ("join", self.joins.len(), 0, MAX_JOINS),
        ] {
            if count < least {
                return Err(CharterError::None { what });
            }
            at_most(what, count, max)?;
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<(), CharterError> {
        let persons = self.persons.iter();
        let tokens = persons.clone().flat_map(|person| &person.tokens);
        let devices = persons.clone().flat_map(|person| &person.devices);
        let ids = persons
            .map(|person| person.id.to_string())
            .chain(tokens.map(|token| token.id.to_string()))
            .chain(devices.map(|device| device.id.to_string()))
            .chain(self.nodes.iter().map(|node| node.id.to_string()));
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(id.clone()) {
                return Err(CharterError::SameId { id });
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), CharterError> {
        distinct(
            "person",
            self.persons.iter().map(|person| person.name.as_str()),
        )?;
        distinct("group", self.groups.iter().map(|group| group.name.as_str()))?;
        distinct(
            "policy",
            self.policies.iter().map(|policy| policy.name.as_str()),
        )?;
        distinct(
            "scenario",
            self.scenarios.iter().map(|scenario| scenario.name.as_str()),
        )?;
        distinct("node", self.nodes.iter().map(|node| node.name.as_str()))?;
        distinct("witness", self.witnesses.iter().map(VerifierKey::name))
    }

    /// Invariant 2 of the charter, for all of it at once.
    fn check_keys(&self) -> Result<(), CharterError> {
        let (mut keys, mut shares, mut serials) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for person in &self.persons {
            let owner = person.name.to_string();
            for token in &person.tokens {
                if let Some(one) = keys.insert(&token.approval_key, owner.clone()) {
                    return Err(CharterError::SameKey { one, other: owner });
                }
                if let Some(one) = shares.insert(&token.share_key, owner.clone()) {
                    return Err(CharterError::SameShareKey { one, other: owner });
                }
                let Some(serial) = token.serial else { continue };
                if let Some(one) = serials.insert(serial, owner.clone()) {
                    return Err(CharterError::SameSerial {
                        serial,
                        one,
                        other: owner,
                    });
                }
            }
            for device in &person.devices {
                if let Some(one) = keys.insert(&device.key, owner.clone()) {
                    return Err(CharterError::SameKey { one, other: owner });
                }
            }
        }
        for node in &self.nodes {
            if let Some(one) = keys.insert(&node.key, node.name.to_string()) {
                return Err(CharterError::SameKey {
                    one,
                    other: node.name.to_string(),
                });
            }
        }
        Ok(())
    }

    fn check_log_keys(&self) -> Result<(), CharterError> {
        if self.log_key.name() != self.origin.as_str() || self.log_key.kind() != VerifierKind::Log {
            return Err(CharterError::LogKey);
        }
        let wrong = self.witnesses.iter().find(|witness| {
            witness.kind() != VerifierKind::Witness || witness.name() == self.origin.as_str()
        });
        match wrong {
            Some(witness) => Err(CharterError::Witness {
                name: witness.name().to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn check_group(&self, group: &Group) -> Result<(), CharterError> {
        let (name, k, n) = (group.name.clone(), group.k, group.n());
        at_most("member of a group", n, MAX_MEMBERS)?;
        let is_custodian = |id: PersonId| {
            self.person(id)
                .is_some_and(|person| person.has(Role::Custodian))
        };
        if let Some(member) = group.members.iter().find(|id| !is_custodian(**id)) {
            return Err(CharterError::Member {
                group: name,
                member: *member,
            });
        }
        if k < MIN_QUORUM {
            return Err(CharterError::QuorumTooSmall { group: name, k });
        }
        if usize::from(k) > n {
            return Err(CharterError::QuorumTooLarge { group: name, k, n });
        }
        if usize::from(k) == n && !group.allow_no_spare {
            return Err(CharterError::NoSpare { group: name, k, n });
        }
        let teams = &group.rules.one_from_each;
        at_most("team of a group", teams.len(), MAX_TEAMS)?;
        distinct("team", teams.iter().map(|team| team.name.as_str()))?;
        for team in teams {
            if team.members.is_empty() || !team.members.is_subset(&group.members) {
                return Err(CharterError::Team {
                    group: name,
                    team: team.name.to_string(),
                });
            }
        }
        if teams.len() > usize::from(k) {
            return Err(CharterError::Teams {
                group: name,
                k,
                teams: teams.len(),
            });
        }
        Ok(())
    }

    fn check_policies(&self) -> Result<(), CharterError> {
        for policy in &self.policies {
            let place = PolicyPlace {
                policy: policy.name.clone(),
                scenario: None,
            };
            self.check_policy(policy, &place)?;
            for scenario in &self.scenarios {
                let place = PolicyPlace {
                    scenario: Some(scenario.name.clone()),
                    ..place.clone()
                };
                self.check_policy(&policy.under(scenario), &place)?;
            }
        }
        Ok(())
    }

    fn check_policy(&self, policy: &Policy, place: &PolicyPlace) -> Result<(), CharterError> {
        let hours = policy.hours.iter();
        let sensible = |kept: bool, rule| {
            if kept {
                Ok(())
            } else {
                Err(CharterError::Policy {
                    place: place.clone(),
                    rule,
                })
            }
        };
        let waits = [
            policy.valid_for_secs,
            policy.waiting_secs,
            policy.extend_max_secs,
            policy.grace_secs,
            policy.quarantine_secs,
        ];
        sensible(
            waits.iter().all(|span| *span <= MAX_WAIT),
            "no span is longer than 400 days",
        )?;
        sensible(
            policy.valid_for_secs > Span::ZERO,
            "valid_for_secs is more than 0",
        )?;
        sensible(
            policy.check_out_secs > Span::ZERO,
            "check_out_secs is more than 0",
        )?;
        sensible(
            policy.check_out_secs <= policy.check_out_max_secs
                && policy.check_out_max_secs <= policy.extend_max_secs,
            "check_out_secs ≤ check_out_max_secs ≤ extend_max_secs",
        )?;
        sensible(
            hours
                .clone()
                .all(|hours| hours.from_hour < hours.until_hour && hours.until_hour <= 24),
            "hours go from 0 to 24, from_hour before until_hour",
        )?;
        sensible(
            hours.clone().all(|hours| !hours.days.is_empty()),
            "hours have days",
        )?;
        sensible(
            [
                policy.hours.len(),
                policy.networks.len(),
                policy.notices.len(),
            ]
            .iter()
            .all(|count| *count <= MAX_LISTED),
            "at most 32 hours, networks and notices each",
        )?;
        sensible(
            usize::from(policy.cosignatures) <= self.witnesses.len(),
            "there are fewer witnesses than cosignatures wanted",
        )?;
        sensible(
            policy.cosignature_wait_secs <= MAX_COSIGNATURE_WAIT,
            "cosignature_wait_secs is at most 60",
        )?;
        sensible(policy.copies_min <= MAX_COPIES, "copies_min is at most 8")
    }
}

fn check_person(person: &Person) -> Result<(), CharterError> {
    let name = || person.name.clone();
    at_most("token of a person", person.tokens.len(), MAX_TOKENS)?;
    at_most("device of a person", person.devices.len(), MAX_DEVICES)?;
    distinct(
        "device",
        person.devices.iter().map(|device| device.name.as_str()),
    )?;
    if person.roles.is_empty() {
        return Err(CharterError::NoRole { person: name() });
    }
    if person.has(Role::Custodian) && person.tokens.is_empty() {
        return Err(CharterError::NoToken { person: name() });
    }
    if person.tokens.is_empty() && person.devices.is_empty() {
        return Err(CharterError::NoKey { person: name() });
    }
    let coherent = |kind, serial: bool, attested: bool| match kind {
        TokenKind::Yubikey => serial,
        TokenKind::Software => !serial && !attested,
    };
    let mut tokens = person.tokens.iter();
    if tokens.all(|token| {
        coherent(
            token.kind,
            token.serial.is_some(),
            token.attestation.is_some(),
        )
    }) {
        Ok(())
    } else {
        Err(CharterError::TokenKind { person: name() })
    }
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), CharterError> {
    if count > max {
        Err(CharterError::TooMany { what, count, max })
    } else {
        Ok(())
    }
}

/// Invariant 3 for names of one kind.
fn distinct<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), CharterError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        match seen.insert(skeleton(name), name) {
            None => {}
            Some(one) if one == name => {
                return Err(CharterError::SameName {
                    what,
                    name: name.to_owned(),
                });
            }
            Some(one) => {
                let (one, other) = (one.to_owned(), name.to_owned());
                return Err(CharterError::LookAlike { what, one, other });
            }
        }
    }
    Ok(())
}
