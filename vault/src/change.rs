//! Who must agree to a change of charter or definition, and which changes nobody can make.
//!
//! These are asked when a `change` is opened, and again when it is to take force: in between people
//! sign, credentials are added, versions are sealed. Where the second answer needs more than the
//! first, or refuses, the ceremony is moot.
//!
//! # Invariants
//! 1. A charter is changed by k of the governing group *and* k own members of every group whose
//!    members, their tokens, k or rules it touches, as all of these stand in the old charter.
//! 2. Only a group of which fewer than k members have signed anything for [`UNSEEN`] is replaced by
//!    the governing group alone, after [`BYPASS_WAIT`]; any member who signs anything in that time,
//!    even a refusal, is seen again.
//! 3. No change leaves a live version, which enough holders could open before, fewer than its k.
//! 4. A change is made for one charter or definition, and is stale after any other.
//! 5. A charter holds only tokens whose owner joined with these very keys and this attestation, and
//!    that meet its policies when they begin to hold shares.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    charter::{Charter, Group, MIN_QUORUM, Person, Role, Token, touched_groups},
    definition::Definition,
    digest::Digest,
    id::{CredentialId, GroupName, PersonId},
    machine::{Millis, Now},
    manifest::SealedGroup,
    name::CredentialPath,
    reference::CharterRef,
    refusal::Refusal,
    text::{Enrol, Join},
    time::Span,
    world::{Holding, World},
};

/// After this time without anything signed by a person, the person does not count as usable.
pub const UNSEEN: Span = Span::from_days(30);
/// A signature within this time of the last one that counted is not counted again, so that daemon
/// and auditor need to remember a day, not a moment.
pub const SEEN_AGAIN: Span = Span::from_hours(24);
/// How long a group that is replaced without its own members has to speak up.
pub const BYPASS_WAIT: Span = Span::from_days(7);

/// What a change needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The groups of which k must agree.
    pub groups: BTreeSet<GroupName>,
    /// Groups that are replaced without their own members; to be alerted.
    pub bypassed: BTreeSet<GroupName>,
}

impl Needs {
    /// How long the quorum waits.
    pub fn waiting(&self) -> Span {
        if self.bypassed.is_empty() {
            Span::ZERO
        } else {
            BYPASS_WAIT
        }
    }

    /// Whether a ceremony that was opened for `self` may still be applied when `now` is needed.
    pub fn covers(&self, now: &Self) -> bool {
        now.groups.is_subset(&self.groups) && now.bypassed.is_subset(&self.bypassed)
    }
}

/// When each person last signed anything that is in the log, in lived time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PersonId, Millis>);

impl Seen {
    /// A person signed something.
    pub fn sign(&mut self, person: PersonId, at: Millis) {
        let known = self.0.get(&person).copied();
        if known.is_none_or(|known| at >= known.after(SEEN_AGAIN.ms())) {
            self.0.insert(person, at);
        }
    }

    /// When each person last signed.
    pub fn iter(&self) -> impl Iterator<Item = (PersonId, Millis)> {
        self.0.iter().map(|(person, at)| (*person, *at))
    }

    fn is_recent(&self, person: PersonId, now: Now) -> bool {
        self.0
            .get(&person)
            .is_some_and(|at| now.lived < at.after(UNSEEN.ms()))
    }
}

/// The keys with which a person joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The join text.
    pub join: Join,
    /// The enrolment that it names.
    pub enrolment: Enrol,
}

/// What the change from the charter in force to `new` needs.
///
/// `holdings` are all credentials; `joined` the logged joins by their digests.
pub fn charter<'a>(
    now: Now,
    world: World<'_>,
    new: &Charter,
    holdings: impl Iterator<Item = &'a Holding>,
    joined: &BTreeMap<Digest, Joined>,
    seen: &Seen,
) -> Result<Needs, Refusal> {
    let old = world.charter;
    if new.index != old.index.saturating_add(1) || new.previous != Some(world.in_force.digest) {
        return Err(Refusal::Stale);
    }
    if new.validate().is_err() || new.follows(old, world.in_force.digest).is_err() {
        return Err(Refusal::BrokenCharter);
    }
    if !new.changes(old) {
        return Err(Refusal::NothingChanges);
    }
    if unjoined(old, new, joined).is_some() {
        return Err(Refusal::NotJoined);
    }
    if !new.new_weak_tokens(Some(old)).is_empty() {
        return Err(Refusal::WeakToken);
    }
    let mut needs = Needs {
        groups: governing(old),
        bypassed: BTreeSet::new(),
    };
    for name in touched_groups(old, new) {
        let Some(group) = old.group(&name) else {
            continue;
        };
        let usable = group
            .members
            .iter()
            .filter(|member| seen.is_recent(**member, now))
            .count();
        if usable < usize::from(group.k) && !group.governing {
            needs.bypassed.insert(name);
        } else {
            needs.groups.insert(name);
        }
    }
    for holding in holdings {
        if !keeps_holders(old, new, holding, &needs.bypassed) {
            return Err(Refusal::TooFewHolders);
        }
    }
    Ok(needs)
}

/// A token that a charter brings without one of the joins that it names (invariant 5).
pub fn unjoined<'a>(
    old: &Charter,
    new: &'a Charter,
    joined: &BTreeMap<Digest, Joined>,
) -> Option<&'a Token> {
    let proven = |owner: &Person, token: &Token| {
        let mut named = new.joins.iter().filter_map(|join| joined.get(join));
        named.any(|joined| matches(joined, owner.id, token))
    };
    new.persons.iter().find_map(|owner| {
        let mut added = owner
            .tokens
            .iter()
            .filter(|token| old.person_of_token(token.id).is_none());
        added.find(|token| !proven(owner, token))
    })
}

/// Whether a token is the one that joined.
fn matches(joined: &Joined, owner: PersonId, token: &Token) -> bool {
    let Joined { join, enrolment } = joined;
    let keys =
        enrolment.approval_key == token.approval_key && enrolment.share_key == token.share_key;
    // Its owner has signed for the attestation, where the charter has one.
    let attested = token
        .attestation
        .as_ref()
        .is_none_or(|facts| enrolment.attestation == Some(facts.object));
    keys && attested
        && token.serial == enrolment.token.serial
        && token.kind == enrolment.token.kind
        && join.person.id == owner
        && join.token.id == token.id
        && enrolment.token.id == token.id
}

/// Invariant 3 for one credential.
fn keeps_holders(
    old: &Charter,
    new: &Charter,
    holding: &Holding,
    bypassed: &BTreeSet<GroupName>,
) -> bool {
    let groups: Vec<_> = holding.definition.groups().collect();
    if groups.iter().any(|name| new.group(name).is_none())
        || new.policy(&holding.definition.policy).is_none()
    {
        return false;
    }
    holding
        .live()
        .flat_map(|(_, sealed)| &sealed.manifest.groups)
        .all(|roster| {
            let enough = |charter: &Charter| {
                charter
                    .group(&roster.group)
                    .is_some_and(|group| can_open(charter, group, roster))
            };
            bypassed.contains(&roster.group)
                || !groups.contains(&&roster.group)
                || !enough(old)
                || enough(new)
        })
}

/// Whether enough holders of a roster are in the group and have a token that opens their envelope.
fn can_open(charter: &Charter, group: &Group, roster: &SealedGroup) -> bool {
    let holds = |person: PersonId| {
        let own = charter
            .person(person)
            .into_iter()
            .flat_map(|person| &person.tokens);
        let tokens = roster.holder(person).map(|holder| &holder.tokens);
        own.map(|token| token.id)
            .any(|id| tokens.is_some_and(|tokens| tokens.contains(&id)))
    };
    let holders = group
        .members
        .iter()
        .filter(|person| holds(**person))
        .count();
    holders >= usize::from(group.k.max(roster.k).max(MIN_QUORUM))
}

/// What the change of a credential's definition needs: the governing group and every group that can
/// open the credential now or could then.
pub fn definition(world: World<'_>, holding: &Holding, new: &Definition) -> Result<Needs, Refusal> {
    let old: &Definition = &holding.definition;
    if new.previous != Some(holding.digest) {
        return Err(Refusal::Stale);
    }
    if new.follows(old, holding.digest).is_err() || new.validate(world.charter).is_err() {
        return Err(Refusal::BrokenDefinition);
    }
    let renewed = Definition {
        previous: old.previous,
        ..new.clone()
    };
    if renewed == *old {
        return Err(Refusal::NothingChanges);
    }
    // The group that is asked must be one to which the live versions are sealed.
    if holding
        .live()
        .any(|(_, sealed)| sealed.manifest.group(&new.group).is_none())
    {
        return Err(Refusal::TooFewHolders);
    }
    let mut groups = governing(world.charter);
    groups.extend(old.groups().chain(new.groups()).cloned());
    Ok(Needs {
        groups,
        bypassed: BTreeSet::new(),
    })
}

/// Whether an operator may add this credential; `taken` says whether a path, or one that looks like
/// it, belongs to a credential already.
pub fn add(
    world: World<'_>,
    person: PersonId,
    new: &Definition,
    known: impl Fn(CredentialId) -> bool,
    taken: impl Fn(&CredentialPath) -> bool,
) -> Result<(), Refusal> {
    if !world
        .charter
        .person(person)
        .is_some_and(|person| person.has(Role::Operator))
    {
        return Err(Refusal::NotOperator);
    }
    if new.previous.is_some() || new.validate(world.charter).is_err() {
        return Err(Refusal::BrokenDefinition);
    }
    if known(new.credential) || taken(&new.path) {
        Err(Refusal::PathTaken)
    } else {
        Ok(())
    }
}

/// Whether charter 1 takes force: every token in it has joined this very charter, spares too.
pub fn found(charter: &Charter, reference: CharterRef, joins: &[Join]) -> Result<(), Refusal> {
    if charter.index != 1 || charter.validate().is_err() {
        return Err(Refusal::BrokenCharter);
    }
    if !charter.new_weak_tokens(None).is_empty() {
        return Err(Refusal::WeakToken);
    }
    let proven = |person: &Person, token: &Token| {
        joins.iter().any(|join| {
            join.vault == charter.origin
                && join.genesis == reference.digest
                && join.charter == reference
                && join.person.id == person.id
                && join.token == token.reference()
        })
    };
    let mut founders = charter.persons.iter();
    if founders.all(|person| person.tokens.iter().all(|token| proven(person, token))) {
        Ok(())
    } else {
        Err(Refusal::NotFounded)
    }
}

/// The governing group.
pub fn governing(charter: &Charter) -> BTreeSet<GroupName> {
    charter
        .governing()
        .map(|group| group.name.clone())
        .into_iter()
        .collect()
}

/// The groups that must agree to a longer check-out: those of its credentials.
pub fn extension<'a>(
    world: World<'_>,
    credentials: impl Iterator<Item = &'a CredentialId>,
) -> BTreeSet<GroupName> {
    credentials
        .filter_map(|id| Some(world.holdings.holding(*id)?.definition.group.clone()))
        .collect()
}

/// The groups that must agree to the deletion of a ceremony's details: those of its credentials, and
/// the governing group where it names none.
pub fn erasure<'a>(
    world: World<'_>,
    credentials: impl Iterator<Item = &'a CredentialId>,
) -> BTreeSet<GroupName> {
    let groups = extension(world, credentials);
    if groups.is_empty() {
        governing(world.charter)
    } else {
        groups
    }
}
