//! The charter's chain, its differences, and what answers what, on the golden vectors.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by stopping")]

use std::path::Path;

use keyturn_vault::charter::{Chain, ChainError, Charter, Role, diff, touched_groups};
use keyturn_vault::definition::{Definition, DefinitionError};
use keyturn_vault::digest::Digest;
use keyturn_vault::jcs::Document;
use keyturn_vault::key::PublicKey;
use keyturn_vault::manifest::Manifest;
use keyturn_vault::restore::RestoreDocument;
use keyturn_vault::text::approval::AnswerError;
use keyturn_vault::text::{
    Approval, Decision, Join, Purpose, Recover, Request, ShareState, SignedText, Signer, Text,
};
use keyturn_vault::time::Span;
use serde_json::{Value, json};

fn bytes(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/valid");
    std::fs::read(folder.join(name)).unwrap()
}

fn charter(name: &str) -> Charter {
    Charter::from_bytes(&bytes(name)).unwrap()
}

fn text<T: Text>(name: &str) -> T {
    T::parse(std::str::from_utf8(&bytes(name)).unwrap()).unwrap()
}

/// The charter after `second`, with changes of its own.
fn third(change: impl FnOnce(&mut Charter)) -> Vec<u8> {
    let mut charter = charter("charter.second.json");
    charter.index = 3;
    charter.previous = Some(Digest::of(&bytes("charter.second.json")));
    charter.joins.clear();
    change(&mut charter);
    charter.to_bytes().unwrap()
}

#[test]
fn a_chain_begins_at_the_pinned_digest_and_never_forks() {
    let (first, second) = (bytes("charter.first.json"), bytes("charter.second.json"));
    let pinned = Digest::of(&first);
    assert!(matches!(
        Chain::begin(&second, pinned),
        Err(ChainError::Genesis { .. })
    ));
    assert!(matches!(
        Chain::begin(&second, Digest::of(&second)),
        Err(ChainError::Index { found: 2, next: 1 })
    ));

    let mut chain = Chain::begin(&first, pinned).unwrap();
    chain.push(&second).unwrap();
    assert_eq!(chain.genesis(), Some(pinned));
    assert_eq!(chain.newest().unwrap().0.index, 2);
    assert_eq!(chain.at(1).unwrap().0.digest, pinned);
    assert!(chain.at(0).is_none() && chain.at(3).is_none());
    assert_eq!(chain.find(&chain.at(2).unwrap().0).unwrap().index, 2);

    assert!(matches!(
        chain.push(&second),
        Err(ChainError::Index { found: 2, next: 3 })
    ));
    let fork = third(|charter| charter.previous = Some(pinned));
    assert!(matches!(chain.push(&fork), Err(ChainError::Previous)));
    let invalid = third(|charter| charter.groups[0].k = 1);
    assert!(matches!(chain.push(&invalid), Err(ChainError::Invalid(_))));
    assert!(matches!(chain.push(b"{}"), Err(ChainError::Jcs(_))));
    assert_eq!(
        chain.newest().unwrap().0.index,
        2,
        "a refused charter changes nothing"
    );
    chain.push(&third(|_| {})).unwrap();
}

#[test]
fn an_id_never_comes_back_with_another_key() {
    let first = bytes("charter.first.json");
    let mut chain = Chain::begin(&first, Digest::of(&first)).unwrap();
    chain.push(&bytes("charter.second.json")).unwrap();
    let without = third(|charter| charter.persons[2].devices.truncate(1));
    chain.push(&without).unwrap();
    // Two charters later, the removed device's id is given to another key.
    let mut fourth = Charter::from_bytes(&without).unwrap();
    let mut device = charter("charter.first.json").persons[2].devices[1].clone();
    let mut der = device.key.as_der().to_vec();
    der[90] ^= 1;
    device.key = PublicKey::from_der(&der).unwrap();
    fourth.persons[2].devices.push(device);
    fourth.index = 4;
    fourth.previous = Some(Digest::of(&without));
    let pushed = chain.push(&fourth.to_bytes().unwrap());
    assert!(
        matches!(pushed, Err(ChainError::IdReused { .. })),
        "{pushed:?}"
    );
}

#[test]
fn differences_are_lines_for_people() {
    let (old, new) = (
        charter("charter.first.json"),
        charter("charter.second.json"),
    );
    let lines: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    let erin = new.persons[4].reference();
    let token = &new.persons[4].tokens[0];
    let attestation = token.attestation.as_ref().unwrap();
    assert_eq!(
        lines,
        [
            format!("~ person {erin}: roles from auditor to custodian auditor"),
            format!(
                "+ token {} of {erin}: approval_key {}, attestation (approval (pin always touch \
                 always) firmware 5.7.1 object {} share (pin once touch cached)), kind yubikey, \
                 serial 34567890, share_key {}",
                token.reference(),
                token.approval_key,
                attestation.object,
                token.share_key
            ),
            "~ group governors: k from 2 to 3".to_owned(),
            format!("+ member {erin} of group governors"),
            "~ policy standard: check_out_secs from 2h to 1h".to_owned(),
        ]
    );
    assert_eq!(diff(&old, &old), []);
    let back: Vec<String> = diff(&new, &old).iter().map(ToString::to_string).collect();
    assert!(back.contains(&format!("- member {erin} of group governors")));
}

/// Invariant 1 of `diff`: every field of a charter, changed, gives a line.
#[test]
fn no_field_is_left_out_of_the_differences() {
    fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found));
            }
            Value::Array(items) if !items.is_empty() => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(i, value)| leaves(value, &format!("{at}/{i}"), found));
            }
            Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => {
                found.push(at.to_owned());
            }
        }
    }
    let old = charter("charter.first.json");
    let whole: Value = serde_json::from_slice(&bytes("charter.first.json")).unwrap();
    let mut found = Vec::new();
    leaves(&whole, "", &mut found);
    let unseen = ["/index", "/previous", "/joins", "/format"];
    let mut changed = 0;
    for place in found
        .iter()
        .filter(|place| !unseen.contains(&place.as_str()))
    {
        // Values of other places and of every type, where the field takes them.
        let others = found
            .iter()
            .map(|other| whole.pointer(other).unwrap().clone());
        let more = [
            json!(7),
            json!(true),
            json!(false),
            json!("x"),
            json!(null),
            json!("9.9.9"),
            json!("never"),
        ];
        for other in others.chain(more) {
            let mut value = whole.clone();
            let target = value.pointer_mut(place).unwrap();
            if *target == other {
                continue;
            }
            *target = other;
            let Ok(new) = serde_json::from_value::<Charter>(value) else {
                continue;
            };
            if new == old {
                continue; // a set in another order
            }
            assert_ne!(diff(&old, &new), [], "{place}");
            changed += 1;
        }
    }
    assert!(changed > 1_000, "{changed} changes were tried");
}

#[test]
fn a_change_touches_the_groups_of_whom_it_changes() {
    type Change = fn(&mut Charter);
    let rows: [(&str, Change, &[&str]); 9] = [
        ("nothing", |_| {}, &[]),
        ("a policy", |new| new.policies[0].copies_min = 2, &[]),
        (
            "a member's device",
            |new| new.persons[1].devices.clear(),
            &[],
        ),
        (
            "a member's token",
            |new| new.persons[2].tokens[0].serial = Some(1),
            &["aws-custodians", "governors"],
        ),
        (
            "a spare token of a member of all",
            |new| drop(new.persons[1].tokens.pop()),
            &["aws-custodians", "board", "governors"],
        ),
        (
            "tokens in another order",
            |new| new.persons[1].tokens.reverse(),
            &[],
        ),
        ("a quorum", |new| new.groups[2].k = 1, &["board"]),
        (
            "rules",
            |new| drop(new.groups[1].rules.one_from_each.pop()),
            &["aws-custodians"],
        ),
        (
            "a group that is gone",
            |new| drop(new.groups.remove(1)),
            &["aws-custodians"],
        ),
    ];
    let old = charter("charter.first.json");
    for (name, change, want) in rows {
        let mut new = old.clone();
        change(&mut new);
        let touched: Vec<String> = touched_groups(&old, &new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(touched, want, "{name}");
    }
}

#[test]
fn what_may_be_regretted_is_told() {
    type Change = fn(&mut Charter);
    let usual = [
        "group board needs everybody: one lost token closes its credentials for ever",
        "carol has no spare token",
        "carol has a token that nobody attests",
        "carol's token 01M7XXW77JQB5BXNWBGN1CYXQV does not meet policy strict: it is not attested; a key that was imported never is",
        "dave has no spare token",
        "dave has a key file, which can be copied",
        "dave's token 01M7XXW77JMGQC9MQHZC8MTCR2 does not meet policy strict: its keys are in a file, which nobody attests",
    ];
    let rows: [(&str, Change, &[&str]); 4] = [
        ("the first charter", |_| {}, &[]),
        (
            "old firmware",
            |charter| {
                let attestation = charter.persons[1].tokens[0].attestation.as_mut().unwrap();
                attestation.firmware = "5.4.3".parse().unwrap();
            },
            &[
                "bob has a token with firmware 5.4.3; below 5.7.0 it can be cloned by whoever holds it (EUCLEAK)",
                "bob's token 01M7XXW77JF1DBQ6SVHNSPAS7A does not meet policy strict: its firmware 5.4.3 is older than 5.7.0",
            ],
        ),
        (
            "nobody reads",
            |charter| charter.persons.truncate(4),
            &["nobody is an auditor"],
        ),
        (
            "nobody watches",
            |charter| charter.witnesses.clear(),
            &["there is no witness: only saved checkpoints show a log that was rewritten"],
        ),
    ];
    for (name, change, more) in rows {
        let mut charter = charter("charter.first.json");
        change(&mut charter);
        let mut lines: Vec<String> = charter.warnings().iter().map(ToString::to_string).collect();
        let mut want: Vec<&str> = usual.iter().chain(more).copied().collect();
        lines.sort();
        want.sort_unstable();
        assert_eq!(lines, want, "{name}");
    }
}

#[test]
fn a_charter_tells_who_is_who() {
    let charter = charter("charter.first.json");
    let bob = charter.person_named(&"bob".parse().unwrap()).unwrap();
    let (owner, token) = charter.person_of_token(bob.tokens[1].id).unwrap();
    assert_eq!((owner.id, token.serial), (bob.id, Some(12_345_679)));
    let (owner, _) = charter.person_of_device(bob.devices[0].id).unwrap();
    assert_eq!(owner.id, bob.id);
    let (owner, device) = charter.person_of_pin(&bob.devices[0].key.pin()).unwrap();
    assert_eq!((owner.id, device.id), (bob.id, bob.devices[0].id));
    assert!(charter.person_of_pin(&Digest::of(b"")).is_none());
    assert!(bob.has(Role::Custodian) && !bob.has(Role::Operator));
    let holders: Vec<_> = charter
        .holders(&"board".parse().unwrap())
        .iter()
        .map(|who| who.id)
        .collect();
    assert!(holders.is_sorted() && holders.len() == 2);
    assert_eq!(charter.governing().unwrap().name.as_str(), "governors");
    let definition = Definition::from_bytes(&bytes("definition.aws.json")).unwrap();
    let policy = charter.policy_for(&definition).unwrap();
    let outage = charter.scenario(&"idp-outage".parse().unwrap()).unwrap();
    assert_eq!(policy.waiting_secs, Span::from_mins(15));
    assert_eq!(policy.under(outage).waiting_secs, Span::ZERO);
    assert_eq!(policy.under(outage).copies_min, policy.copies_min);
    let manifest = Manifest::from_bytes(&bytes("manifest.aws.json")).unwrap();
    let sealed = manifest.group(&definition.group).unwrap();
    assert_eq!(sealed.holder(bob.id).unwrap().tokens.len(), 2);
    assert!(sealed.holder(charter.persons[0].id).is_none());
}

#[test]
fn a_definition_follows_the_one_it_names() {
    let old = Definition::from_bytes(&bytes("definition.aws.json")).unwrap();
    let new = Definition::from_bytes(&bytes("definition.fallback.json")).unwrap();
    let digest = Digest::of(&bytes("definition.aws.json"));
    let canary = Definition::from_bytes(&bytes("definition.canary.json")).unwrap();
    for (name, definition, want) in [
        ("the next one", new.clone(), Ok(())),
        ("a first one", old.clone(), Err(DefinitionError::Previous)),
        (
            "another credential's",
            canary,
            Err(DefinitionError::Identity),
        ),
        (
            "another path",
            Definition {
                path: "aws/123456789012/admin".parse().unwrap(),
                ..new.clone()
            },
            Err(DefinitionError::Identity),
        ),
        (
            "another vault's",
            Definition {
                origin: "vault.example.org/test".parse().unwrap(),
                ..new
            },
            Err(DefinitionError::Origin),
        ),
    ] {
        assert_eq!(definition.follows(&old, digest), want, "{name}");
    }
}

#[test]
fn an_approval_answers_one_request_line_for_line() {
    let request: Request = text("request.unseal.txt");
    let approval: Approval = text("approval.approve.txt");
    let Decision::Approve(shares) = approval.decision.clone() else {
        panic!("it approves")
    };
    assert!(matches!(shares[0].state, ShareState::Held { x: 2, .. }));
    let with = |shares| Approval {
        decision: Decision::Approve(shares),
        ..approval.clone()
    };
    let drill: Request = text("request.drill.txt");
    let recover: Recover = text("recover.offline.txt");
    let one = vec![shares[0].clone()];
    for (name, answer, want) in [
        (
            "its own",
            approval.answers(&request, request.digest()),
            Ok(()),
        ),
        (
            "another's",
            approval.answers(&drill, drill.digest()),
            Err(AnswerError::OtherRequest),
        ),
        (
            "a line missing",
            with(one.clone()).answers(&request, request.digest()),
            Err(AnswerError::Lines),
        ),
        (
            "no line",
            with(Vec::new()).answers(&request, request.digest()),
            Err(AnswerError::Lines),
        ),
        (
            "lines swapped",
            with(shares.iter().rev().cloned().collect()).answers(&request, request.digest()),
            Err(AnswerError::Lines),
        ),
        (
            "a refusal",
            text::<Approval>("approval.refuse.txt").answers(&request, request.digest()),
            Ok(()),
        ),
        (
            "an offline request",
            approval.answers_recover(&recover),
            Err(AnswerError::OtherRequest),
        ),
        (
            "an offline request's own",
            Approval {
                request: recover.digest(),
                ..with(one)
            }
            .answers_recover(&recover),
            Ok(()),
        ),
    ] {
        assert_eq!(answer, want, "{name}");
    }
}

#[test]
fn a_restore_changes_two_keys_and_nothing_else_of_the_newest_charter() {
    let first = bytes("charter.first.json");
    let mut chain = Chain::begin(&first, Digest::of(&first)).unwrap();
    let (reference, old) = chain.newest().unwrap();
    let old = old.clone();
    let golden = RestoreDocument::from_bytes(&bytes("restore.new-keys.json")).unwrap();
    let mut document = RestoreDocument {
        charter: reference,
        ..golden
    };
    if let Some(node) = &mut document.node {
        node.name = old.nodes[0].name.clone();
    }
    let other = |change: fn(&mut RestoreDocument)| {
        let mut other = document.clone();
        change(&mut other);
        other
    };
    for (name, wrong) in [
        (
            "another vault",
            other(|it| it.origin = "other".parse().unwrap()),
        ),
        ("an older charter", other(|it| it.charter.index = 0)),
        (
            "another charter of this number",
            other(|it| it.charter.digest = Digest::of(b"")),
        ),
    ] {
        assert!(chain.restore(&wrong).is_err(), "{name}");
        assert_eq!(chain.newest().unwrap().1, &old, "{name}: nothing changes");
    }

    chain.restore(&document).unwrap();
    let (after, new) = chain.newest().unwrap();
    assert_eq!(after, reference, "number and digest stay");
    assert_eq!(new.reference().unwrap(), reference);
    assert_eq!(Some(&new.log_key), document.log_key.as_ref());
    assert_eq!(new.nodes.last(), document.node.as_ref());
    assert_eq!(
        new.nodes.len(),
        old.nodes.len(),
        "in the place of the old one"
    );
    let (persons, groups) = (&new.persons, &new.groups);
    assert_eq!((persons, groups), (&old.persons, &old.groups));
    let meant: Vec<_> = chain.meant(reference).map(|it| &it.log_key).collect();
    assert_eq!(
        meant,
        [&new.log_key, &old.log_key],
        "what was signed before verifies"
    );
    assert!(
        matches!(chain.restore(&document), Err(ChainError::IdReused { .. })),
        "a node's id never comes back"
    );
    chain.push(&bytes("charter.second.json")).unwrap();
    assert!(
        chain.restore(&document).is_err(),
        "it is of the charter before"
    );
    assert_eq!(chain.all().count(), 3);
}

#[test]
fn texts_name_documents_by_their_digests() {
    let change: Request = text("request.change-charter.txt");
    let second = charter("charter.second.json").reference().unwrap();
    assert_eq!(
        change.purpose,
        Purpose::Change(keyturn_vault::text::Change::Charter(second))
    );
    let restore: Request = text("request.accept-restore.txt");
    let document = RestoreDocument::from_bytes(&bytes("restore.new-keys.json")).unwrap();
    assert_eq!(
        restore.purpose,
        Purpose::AcceptRestore(document.subject().unwrap())
    );
    let join: Join = text("join.founder.txt");
    assert_eq!(
        join.charter,
        charter("charter.first.json").reference().unwrap()
    );
}

#[test]
fn a_signed_text_travels_as_json() {
    let signer = text::<Approval>("approval.approve.txt").token.id;
    let text = String::from_utf8(bytes("approval.approve.txt")).unwrap();
    let signed = SignedText {
        text: text.clone(),
        signature: vec![1, 2],
        signer: Signer::Token(signer),
    };
    let value = serde_json::to_value(&signed).unwrap();
    assert_eq!(
        value,
        json!({"signature": "AQI=", "signer": {"token": signer}, "text": text})
    );
    assert_eq!(serde_json::from_value::<SignedText>(value).unwrap(), signed);
    assert_eq!(
        signed.digest(),
        signed.parse::<Approval>().unwrap().digest()
    );
}
