//! `FOUNDING.toml` and the enrolments beside it: what charter 1 is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use keyturn_audit::note::LogKey;
use keyturn_hsm::attestation::Anchors;
use keyturn_seal::ShareKey;
use keyturn_vault::{
    charter::{Charter, Device, Group, Node, Person, Policy, Role, Scenario},
    digest::Digest,
    file::EnrolmentFile,
    id::{GroupName, TokenId},
    name::{Origin, PersonName},
    text::{Enrol, Text as _},
};
use serde::Deserialize;

use super::{InitError, Request, file, founding_error};
use crate::{attest, verify};

/// Most tokens that found a vault: the entry that says so holds a join of each.
const MAX_TOKENS: usize = 64;

/// `FOUNDING.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Founding {
    /// Persons by name.
    person: BTreeMap<PersonName, FoundingPerson>,
    /// Groups by name.
    group: BTreeMap<GroupName, FoundingGroup>,
    /// Policies by name; what is not said is as `docs/FORMATS.md` says.
    #[serde(default)]
    policy: BTreeMap<String, toml::Table>,
    /// Scenarios by name.
    #[serde(default)]
    scenario: BTreeMap<String, toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FoundingPerson {
    /// Path of the enrolment file, beside the founding file.
    enrolment: PathBuf,
    /// Paths of the enrolment files of spare tokens.
    #[serde(default)]
    spares: Vec<PathBuf>,
    roles: BTreeSet<Role>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FoundingGroup {
    k: u8,
    members: Vec<PersonName>,
    #[serde(default)]
    governing: bool,
    #[serde(default)]
    allow_no_spare: bool,
}

/// A person as enrolled.
pub(super) struct Enrolled {
    /// The person, as the charter has them.
    pub(super) person: Person,
    /// What each of their tokens enrolled with, in the same order.
    pub(super) tokens: Vec<EnrolledToken>,
}

/// What a token enrolled with.
pub(super) struct EnrolledToken {
    /// Which one it is.
    pub(super) id: TokenId,
    /// The digest of the enrolment.
    pub(super) enrolment: Digest,
    /// The key that the nonce is encrypted to.
    pub(super) share_key: ShareKey,
    /// What its maker says of it, where it can.
    pub(super) attestation: Option<Vec<u8>>,
}

/// Reads the founding file and the enrolments that it names.
pub(super) fn read_founding(
    request: &Request,
    anchors: &Anchors,
) -> Result<(Founding, BTreeMap<PersonName, Enrolled>), InitError> {
    let text = fs::read_to_string(&request.founding).map_err(|e| file(&request.founding, e))?;
    let founding: Founding =
        toml::from_str(&text).map_err(|error| founding_error(request, error.to_string()))?;
    let tokens = founding.person.values().fold(0_usize, |sum, person| {
        sum.saturating_add(person.spares.len()).saturating_add(1)
    });
    if tokens > MAX_TOKENS {
        return Err(founding_error(
            request,
            format!(
                "at most {MAX_TOKENS} tokens found a vault; invite the others when it is founded"
            ),
        ));
    }
    let beside = request.founding.parent().unwrap_or_else(|| Path::new("."));
    let mut enrolled = BTreeMap::new();
    for (name, person) in &founding.person {
        let read = |path: &PathBuf| {
            let path = beside.join(path);
            let bytes = fs::read(&path).map_err(|e| file(&path, e))?;
            enrol(&bytes, name, &person.roles, anchors)
                .map_err(|why| InitError::Enrolment { path, why })
        };
        let mut one = read(&person.enrolment)?;
        for path in &person.spares {
            let spare = read(path)?;
            let path = beside.join(path);
            one.add(spare)
                .map_err(|why| InitError::Enrolment { path, why })?;
        }
        enrolled.insert(name.clone(), one);
    }
    Ok((founding, enrolled))
}

impl Enrolled {
    /// A spare token of the same person; the devices are those of the first enrolment.
    fn add(&mut self, spare: Self) -> Result<(), String> {
        let (person, new) = (&mut self.person, spare.person);
        if new.id != person.id {
            return Err(format!(
                "it was made in another home; make it with `keyturn enroll {} --spare`",
                person.name
            ));
        }
        person.tokens.extend(new.tokens);
        self.tokens.extend(spare.tokens);
        Ok(())
    }
}

/// An enrolment whose signature shows that the keys are at hand.
fn enrol(
    bytes: &[u8],
    name: &PersonName,
    roles: &BTreeSet<Role>,
    anchors: &Anchors,
) -> Result<Enrolled, String> {
    let enrolment = EnrolmentFile::from_bytes(bytes).map_err(|error| error.to_string())?;
    let enrol = Enrol::parse(&enrolment.enrol.text).map_err(|error| error.to_string())?;
    verify::text_with(enrol.approval_key.clone(), enrolment.enrol.clone())
        .map_err(|error| error.to_string())?;
    if enrol.person.name != *name {
        return Err(format!("it is {}'s, not {name}'s", enrol.person.name));
    }
    let share_key: ShareKey = enrol
        .share_key
        .as_str()
        .parse()
        .map_err(|error: keyturn_seal::KeyError| error.to_string())?;
    let attestation = enrolment
        .attestation(&enrol)
        .map_err(|error| error.to_string())?
        .map(|text| text.as_bytes().to_vec());
    let mut token = enrol.token();
    if let Some(object) = &attestation {
        let facts = attest::facts(anchors, &token, object);
        token.attestation =
            Some(facts.map_err(|why| format!("its attestation does not hold: {why}"))?);
    }
    let device = enrol.device.as_ref().map(|device| Device {
        id: device.id,
        name: device.name.clone(),
        key: device.key.clone(),
    });
    let person = Person {
        id: enrol.person.id,
        name: enrol.person.name.clone(),
        roles: roles.clone(),
        tokens: vec![token],
        devices: device.into_iter().collect(),
    };
    let token = EnrolledToken {
        id: enrol.token.id,
        enrolment: enrol.digest(),
        share_key,
        attestation,
    };
    Ok(Enrolled {
        person,
        tokens: vec![token],
    })
}

/// Charter 1.
pub(super) fn charter(
    request: &Request,
    origin: &Origin,
    founding: Founding,
    enrolled: &BTreeMap<PersonName, Enrolled>,
    node: Node,
    log_key: &LogKey,
) -> Result<Charter, InitError> {
    let wrong = |why: String| founding_error(request, why);
    let mut groups = Vec::new();
    for (name, group) in founding.group {
        let member = |person: &PersonName| {
            enrolled
                .get(person)
                .map(|one| one.person.id)
                .ok_or_else(|| wrong(format!("group {name}: {person} is no person here")))
        };
        groups.push(Group {
            k: group.k,
            members: group.members.iter().map(member).collect::<Result<_, _>>()?,
            governing: group.governing,
            allow_no_spare: group.allow_no_spare,
            rules: keyturn_vault::charter::GroupRules::default(),
            name,
        });
    }
    let named =
        |kind: &str, name: &str, error: &dyn fmt::Display| wrong(format!("{kind} {name}: {error}"));
    let mut policies = Vec::new();
    for (name, said) in founding.policy {
        let default = Policy::named(
            name.parse()
                .map_err(|error| named("policy", &name, &error))?,
        );
        policies.push(overridden(&default, said).map_err(|error| named("policy", &name, &error))?);
    }
    let mut scenarios = Vec::new();
    for (name, said) in founding.scenario {
        let default = Scenario::named(
            name.parse()
                .map_err(|error| named("scenario", &name, &error))?,
        );
        scenarios
            .push(overridden(&default, said).map_err(|error| named("scenario", &name, &error))?);
    }
    let charter = Charter {
        restored: None,
        format: keyturn_vault::charter::Format::V1,
        origin: origin.clone(),
        index: 1,
        previous: None,
        persons: enrolled.values().map(|one| one.person.clone()).collect(),
        groups,
        policies,
        scenarios,
        nodes: vec![node],
        log_key: log_key
            .vkey()
            .to_string()
            .parse()
            .map_err(|error: keyturn_vault::key::KeyError| wrong(error.to_string()))?,
        witnesses: Vec::new(),
        joins: BTreeSet::new(),
    };
    charter
        .validate()
        .map_err(|error| InitError::Charter(error.to_string()))?;
    let weak: Vec<_> = charter
        .new_weak_tokens(None)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !weak.is_empty() {
        return Err(InitError::WeakTokens(weak.join("; ")));
    }
    Ok(charter)
}

/// A document with some of its fields said otherwise.
fn overridden<T: serde::Serialize + serde::de::DeserializeOwned>(
    default: &T,
    said: toml::Table,
) -> Result<T, serde_json::Error> {
    let mut document = serde_json::to_value(default)?;
    if let serde_json::Value::Object(fields) = &mut document {
        for (field, value) in said {
            fields.insert(field, serde_json::to_value(value)?);
        }
    }
    serde_json::from_value(document)
}
