//! Changes of charter and definition, row by row.

use std::collections::{BTreeMap, BTreeSet};

use crate::tiny::*;
use keyturn_vault::{
    change::{self, BYPASS_WAIT, Joined, Needs, SEEN_AGAIN, Seen, UNSEEN},
    charter::{Charter, Group, GroupRules, Policy, Token},
    definition::Definition,
    digest::{Digest, Salt},
    machine::{Millis, Now},
    reference::TokenRef,
    refusal::Refusal,
    text::{Enrol, Join},
    time::{Span, Time},
    world::Stage,
};

/// Two groups: `ops` governs (bob, carol, dave, erin); `dba` (carol, dave, erin) holds credential 1.
fn two_groups() -> Tiny {
    let mut tiny = Tiny::new();
    tiny.charter = charter(1, 2, &[BOB, CAROL, DAVE, ERIN]);
    tiny.charter.groups.push(Group {
        name: group("dba"),
        k: 2,
        members: [CAROL, DAVE, ERIN].map(person).into(),
        governing: false,
        allow_no_spare: false,
        rules: GroupRules::default(),
    });
    tiny.in_force = reference(&tiny.charter);
    let mut held = holding(1, &[Stage::Current], 2, &[CAROL, DAVE, ERIN], &tiny.charter);
    std::sync::Arc::make_mut(&mut held.definition).group = group("dba");
    for sealed in held.versions.values_mut() {
        std::sync::Arc::make_mut(&mut sealed.manifest).groups[0].group = group("dba");
    }
    tiny.holdings.insert(credential(1), held);
    tiny
}

fn next(tiny: &Tiny) -> Charter {
    let mut new = tiny.charter.clone();
    new.index += 1;
    new.previous = Some(tiny.in_force.digest);
    new.joins.clear();
    new
}

fn everybody() -> Seen {
    let mut seen = Seen::default();
    for i in [BOB, CAROL, DAVE, ERIN] {
        seen.sign(person(i), Millis(0));
    }
    seen
}

/// The join of person and token `i`, with the keys of `keys`.
fn joined(tiny: &Tiny, i: u8, keys: u8) -> (Digest, Joined) {
    let who = keyturn_vault::reference::PersonRef {
        name: format!("custodian{i}").parse().unwrap(),
        id: person(i),
    };
    let token = TokenRef {
        id: token(i),
        kind: keyturn_vault::reference::TokenKind::Software,
        serial: None,
    };
    let made = Time::from_ms(0).stamp();
    let enrolment = Enrol {
        person: who.clone(),
        token,
        approval_key: key(keys),
        share_key: share_key(keys),
        attestation: None,
        device: None,
        made,
    };
    let join = Join {
        vault: origin(),
        genesis: tiny.in_force.digest,
        charter: tiny.in_force,
        enrolment: Digest::of(b"enrolment"),
        person: who,
        token,
        nonce: Salt([i; 32]),
        signed: made,
    };
    (Digest::of(&[i, keys]), Joined { join, enrolment })
}

fn needs(tiny: &Tiny, now: Now, new: &Charter, seen: &Seen, keys: u8) -> Result<Needs, Refusal> {
    let joined: BTreeMap<_, _> = [joined(tiny, 5, keys)].into();
    change::charter(
        now,
        tiny.world(),
        new,
        tiny.holdings.values(),
        &joined,
        seen,
    )
}

fn groups(names: &[&str]) -> BTreeSet<keyturn_vault::id::GroupName> {
    names.iter().map(|name| group(name)).collect()
}

/// A fifth custodian joins `dba`.
fn with_fifth(tiny: &Tiny, keys: u8) -> Charter {
    let mut new = next(tiny);
    let fifth = charter(1, 2, &[BOB, CAROL, 5]).persons.remove(2);
    new.persons.push(fifth);
    new.groups[1].members.insert(person(5));
    new.joins.insert(joined(tiny, 5, keys).0);
    new
}

#[test]
fn a_change_needs_the_governing_group_and_those_it_touches() {
    type Case = (
        &'static str,
        fn(&Tiny) -> Charter,
        Result<&'static [&'static str], Refusal>,
    );
    let cases: [Case; 12] = [
        ("nothing", next, Err(Refusal::NothingChanges)),
        (
            "a policy",
            |t| {
                edit(t, |new| {
                    new.policies.push(Policy::named("strict".parse().unwrap()));
                })
            },
            Ok(&["ops"]),
        ),
        ("a new member", |t| with_fifth(t, 5), Ok(&["dba", "ops"])),
        (
            "a member who joined with other keys",
            |t| with_fifth(t, 6),
            Err(Refusal::NotJoined),
        ),
        (
            "a quorum",
            |t| edit(t, |new| new.groups[1].allow_no_spare = true),
            Ok(&["dba", "ops"]),
        ),
        (
            "a member's token",
            |t| edit(t, |new| new.persons[3].tokens[0].serial = Some(7)),
            Err(Refusal::BrokenCharter),
        ),
        (
            "a member leaves",
            |t| edit(t, |new| drop_member(new, ERIN)),
            Err(Refusal::BrokenCharter),
        ),
        (
            "a member leaves a group without a spare",
            |t| {
                edit(t, |new| {
                    new.groups[1].allow_no_spare = true;
                    drop_member(new, ERIN);
                })
            },
            Ok(&["dba", "ops"]),
        ),
        (
            "too many leave",
            |t| {
                edit(t, |new| {
                    new.groups[1].members = [BOB, ERIN].map(person).into();
                    new.groups[1].allow_no_spare = true;
                })
            },
            Err(Refusal::TooFewHolders),
        ),
        (
            "a quorum that the holders just reach",
            |t| {
                edit(t, |new| {
                    new.groups[1].k = 3;
                    new.groups[1].members = [BOB, CAROL, DAVE, ERIN].map(person).into();
                })
            },
            Ok(&["dba", "ops"]),
        ),
        (
            "a group in use",
            |t| edit(t, |new| new.groups.truncate(1)),
            Err(Refusal::TooFewHolders),
        ),
        (
            "another base",
            |t| edit(t, |new| new.previous = Some(Digest::of(b"fork"))),
            Err(Refusal::Stale),
        ),
    ];
    for (name, new, want) in cases {
        let tiny = two_groups();
        let got = needs(&tiny, now(0), &new(&tiny), &everybody(), 5);
        // The join in the log has the keys of token 5, whatever the digest in the charter says.
        assert_eq!(got.map(|needs| needs.groups), want.map(groups), "{name}");
    }
}

fn edit(tiny: &Tiny, change: impl FnOnce(&mut Charter)) -> Charter {
    let mut new = next(tiny);
    change(&mut new);
    new
}

fn drop_member(new: &mut Charter, i: u8) {
    new.groups[1].members.remove(&person(i));
}

#[test]
fn a_group_that_is_gone_is_replaced_after_a_wait() {
    let tiny = two_groups();
    let new = edit(&tiny, |new| {
        new.groups[1].members = [BOB, CAROL, DAVE].map(person).into();
    });
    let at = |ms| needs(&tiny, now(ms), &new, &everybody(), 5).unwrap();
    let (early, late) = (at(0), at(UNSEEN.ms()));
    assert_eq!(
        (early.groups.clone(), early.waiting()),
        (groups(&["dba", "ops"]), Span::ZERO)
    );
    assert_eq!(
        (late.groups.clone(), late.waiting()),
        (groups(&["ops"]), BYPASS_WAIT)
    );
    assert!(
        late.covers(&late) && !late.covers(&early),
        "whoever speaks up in time is asked again"
    );

    let mut seen = everybody();
    for i in [CAROL, DAVE] {
        // Counted once a day: the second signature does not move the first.
        seen.sign(person(i), Millis(UNSEEN.ms() - 1));
        seen.sign(person(i), Millis(UNSEEN.ms() + SEEN_AGAIN.ms() / 2));
    }
    let spoken = needs(&tiny, now(UNSEEN.ms()), &new, &seen, 5).unwrap();
    assert!(spoken.bypassed.is_empty());
    let later = needs(&tiny, now(2 * UNSEEN.ms()), &new, &seen, 5).unwrap();
    assert_eq!(later.waiting(), BYPASS_WAIT);
    let gone = edit(&tiny, |new| {
        new.groups[1].members = [BOB, ERIN].map(person).into();
        new.groups[1].allow_no_spare = true;
    });
    assert_eq!(
        needs(&tiny, now(0), &gone, &everybody(), 5),
        Err(Refusal::TooFewHolders)
    );
    assert!(
        needs(&tiny, now(UNSEEN.ms()), &gone, &everybody(), 5).is_ok(),
        "nobody can open it anyway"
    );
}

#[test]
fn definitions_change_by_their_groups() {
    let tiny = two_groups();
    let holding = &tiny.holdings[&credential(1)];
    let base = Definition {
        previous: Some(holding.digest),
        ..Definition::clone(&holding.definition)
    };
    for (name, new, want) in [
        ("nothing", base.clone(), Err(Refusal::NothingChanges)),
        (
            "a canary",
            Definition {
                canary: true,
                ..base.clone()
            },
            Ok(groups(&["dba", "ops"])),
        ),
        (
            "a fallback",
            Definition {
                fallback: Some(group("ops")),
                ..base.clone()
            },
            Ok(groups(&["dba", "ops"])),
        ),
        (
            "a group to which it is not sealed",
            Definition {
                group: group("ops"),
                ..base.clone()
            },
            Err(Refusal::TooFewHolders),
        ),
        (
            "an unknown group",
            Definition {
                group: group("none"),
                ..base.clone()
            },
            Err(Refusal::BrokenDefinition),
        ),
        (
            "another path",
            Definition {
                path: "aws/other".parse().unwrap(),
                ..base.clone()
            },
            Err(Refusal::BrokenDefinition),
        ),
        (
            "another base",
            Definition {
                previous: None,
                ..base
            },
            Err(Refusal::Stale),
        ),
    ] {
        let got = change::definition(tiny.world(), holding, &new);
        assert_eq!(got.map(|needs| needs.groups), want, "{name}");
    }
}

#[test]
fn an_operator_adds_credentials_at_free_paths() {
    let tiny = Tiny::new();
    let unknown = |_| false;
    let free = |_: &_| false;
    let add = |i, new: &Definition| change::add(tiny.world(), person(i), new, unknown, free);
    assert_eq!(add(ALICE, &definition(2)), Ok(()));
    assert_eq!(add(BOB, &definition(2)), Err(Refusal::NotOperator));
    let later = Definition {
        previous: Some(Digest::of(b"")),
        ..definition(2)
    };
    assert_eq!(add(ALICE, &later), Err(Refusal::BrokenDefinition));
    let taken = change::add(tiny.world(), person(ALICE), &definition(2), unknown, |_| {
        true
    });
    assert_eq!(taken, Err(Refusal::PathTaken));
    let known = change::add(tiny.world(), person(ALICE), &definition(2), |_| true, free);
    assert_eq!(known, Err(Refusal::PathTaken));
}

#[test]
fn a_vault_is_founded_when_every_token_has_joined() {
    let tiny = Tiny::new();
    let all: Vec<Join> = [BOB, CAROL, DAVE]
        .map(|i| joined(&tiny, i, i).1.join)
        .into();
    let found = |joins: &[Join]| change::found(&tiny.charter, tiny.in_force, joins);
    assert_eq!(found(&all), Ok(()));
    assert_eq!(found(&all[1..]), Err(Refusal::NotFounded));
    let mut other = all.clone();
    other[0].charter.digest = Digest::of(b"another charter");
    assert_eq!(found(&other), Err(Refusal::NotFounded));

    // A spare: its owner's other token proves nothing of it, nor does somebody else's join with it.
    let mut charter = tiny.charter.clone();
    let bob = charter.persons.iter_mut().find(|one| one.id == person(BOB));
    let bob = bob.unwrap();
    let spare = Token {
        id: token(9),
        approval_key: key(9),
        share_key: share_key(9),
        ..bob.tokens[0].clone()
    };
    bob.tokens.push(spare);
    let with = |person: u8| {
        let mut joins = all.clone();
        joins.push(joined(&tiny, person, person).1.join);
        joins[3].token.id = token(9);
        change::found(&charter, tiny.in_force, &joins)
    };
    assert_eq!(
        change::found(&charter, tiny.in_force, &all),
        Err(Refusal::NotFounded)
    );
    assert_eq!(with(CAROL), Err(Refusal::NotFounded));
    assert_eq!(with(BOB), Ok(()));
}

#[test]
fn an_extension_needs_the_groups_of_what_is_out() {
    let tiny = two_groups();
    assert_eq!(
        change::extension(tiny.world(), [credential(1)].iter()),
        groups(&["dba"])
    );
}

#[test]
fn an_erasure_needs_the_groups_of_what_was_asked_for() {
    let tiny = two_groups();
    let erasure = |named: &[_]| change::erasure(tiny.world(), named.iter());
    assert_eq!(erasure(&[credential(1)]), groups(&["dba"]));
    assert_eq!(erasure(&[]), groups(&["ops"]));
}
