//! What makes a charter valid by itself: one function a part, one error a rule.

use std::collections::{BTreeMap, BTreeSet};

use crate::charter::error::{CharterError, PolicyPlace};
use crate::charter::policy::{MAX_COPIES, MAX_COSIGNATURE_WAIT, MAX_LISTED, MAX_WAIT};
use crate::charter::{
    Charter, Group, MAX_DEVICES, MAX_GROUPS, MAX_JOINS, MAX_MEMBERS, MAX_NODES, MAX_PERSONS,
    MAX_POLICIES, MAX_TEAMS, MAX_TOKENS, MAX_WITNESSES, MIN_QUORUM, Person, Policy, Role,
};
use crate::id::PersonId;
use crate::key::{VerifierKey, VerifierKind};
use crate::name::skeleton;
use crate::reference::TokenKind;
use crate::time::Span;

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
