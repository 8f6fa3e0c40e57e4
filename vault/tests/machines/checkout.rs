//! The check-out, row by row.

use std::collections::{BTreeMap, BTreeSet};

use crate::tiny::*;
use keyturn_vault::{
    checkout::{CheckOut, Effect, Event, MAX_LATE, Notice},
    reference::{Signer, Version},
    refusal::Refusal,
    time::{Span, Time},
};

const MIN: u64 = 60_000;

/// Two credentials out for two hours; at most for ten.
fn out() -> CheckOut {
    let both = BTreeSet::from([credential(1), credential(2)]);
    let (check_out, longest) = (Span::from_hours(2), Span::from_hours(10));
    let checkout = CheckOut::start(
        now(0),
        ceremony_id(1),
        person(ALICE),
        both,
        check_out,
        longest,
    );
    checkout
        .step(now(0), Event::Delivered(BTreeSet::from([version(1, 7)])))
        .state
}

fn back(i: u8, credentials: &[(u8, Option<u64>)]) -> Event {
    let returned: BTreeMap<_, _> = credentials
        .iter()
        .map(|(i, worked)| (credential(*i), worked.and_then(Version::new)))
        .collect();
    Event::Return {
        person: person(i),
        returned,
        signed: signed("checkin", Signer::Device(device(i))),
    }
}

fn extend(mins: u64) -> Event {
    Event::Extend {
        until: Time::from_ms(mins * MIN),
        ceremony: ceremony_id(2),
    }
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Log(entry) => entry.kind().to_owned(),
        Effect::Returned(credentials) => format!("returned-{}", credentials.len()),
        Effect::Worked(version) => format!("worked-{}", version.version),
        Effect::Close => "close".to_owned(),
        Effect::Notify(Notice::EndsSoon) => "ends-soon".to_owned(),
        Effect::Notify(_) => "notify".to_owned(),
    }
}

#[test]
fn a_check_out_is_returned_extended_or_ends() {
    for (name, events, want) in [
        ("time passes", vec![(80, Event::Tick)], ""),
        ("it ends soon", vec![(91, Event::Tick)], "ends-soon"),
        ("said once", vec![(91, Event::Tick), (92, Event::Tick)], ""),
        (
            "and once more",
            vec![(91, Event::Tick), (116, Event::Tick)],
            "ends-soon",
        ),
        (
            "it ends",
            vec![(120, Event::Tick)],
            "checkout.ended returned-2 close notify",
        ),
        (
            "it ends once",
            vec![(120, Event::Tick), (121, Event::Tick)],
            "",
        ),
        (
            "all is returned",
            vec![(5, back(ALICE, &[(1, Some(7)), (2, None)]))],
            "checkout.returned worked-v7 returned-2 close notify",
        ),
        (
            "some is",
            vec![(5, back(ALICE, &[(2, None)]))],
            "checkout.returned returned-1 notify",
        ),
        (
            "and then the rest",
            vec![
                (5, back(ALICE, &[(2, None)])),
                (6, back(ALICE, &[(1, None)])),
            ],
            "checkout.returned returned-1 close notify",
        ),
        (
            "by somebody else",
            vec![(5, back(BOB, &[(1, None)]))],
            "not-yours",
        ),
        ("nothing", vec![(5, back(ALICE, &[]))], "unknown-credential"),
        (
            "what was not out",
            vec![(5, back(ALICE, &[(3, None)]))],
            "unknown-credential",
        ),
        (
            "what was not delivered worked",
            vec![(5, back(ALICE, &[(1, Some(8))]))],
            "not-delivered",
        ),
        (
            "what worked is said later",
            vec![(120, Event::Tick), (125, back(ALICE, &[(1, Some(7))]))],
            "checkout.returned worked-v7",
        ),
        (
            "extended",
            vec![(5, extend(200))],
            "checkout.extended notify",
        ),
        (
            "extended, and the old end comes",
            vec![(5, extend(200)), (120, Event::Tick)],
            "",
        ),
        (
            "extended, and the new end comes",
            vec![(5, extend(200)), (200, Event::Tick)],
            "checkout.ended returned-2 close notify",
        ),
        ("extended to earlier", vec![(5, extend(100))], "not-longer"),
        (
            "extended for too long",
            vec![(5, extend(601))],
            "check-out-too-long",
        ),
        (
            "extended too late",
            vec![(120, Event::Tick), (121, extend(300))],
            "not-out",
        ),
        (
            "nothing was released",
            vec![(5, Event::Cancel)],
            "checkout.ended returned-2 close notify",
        ),
    ] {
        let (mut checkout, mut last) = (out(), String::new());
        for (mins, event) in events {
            let before = checkout.clone();
            let step = checkout.step(now(mins * MIN), event);
            checkout = step.state;
            last = match step.outcome {
                Ok(effects) => effects.iter().map(word).collect::<Vec<_>>().join(" "),
                Err(refusal) => {
                    assert_eq!(checkout, before, "{name}");
                    refusal.code().to_owned()
                }
            };
        }
        assert_eq!(last, want, "{name}");
    }
}

#[test]
fn late_texts_are_bounded_and_downtime_counts() {
    let mut checkout = out();
    let mut at = now(MIN);
    at.lived = now(120 * MIN).lived;
    checkout = checkout.step(at, Event::Tick).state;
    assert!(checkout.out.is_empty(), "the daemon was down");
    for _ in 0..MAX_LATE {
        let step = checkout.step(now(0), back(ALICE, &[(1, None)]));
        assert!(step.outcome.is_ok());
        checkout = step.state;
    }
    assert_eq!(
        checkout.step(now(0), back(ALICE, &[(1, None)])).outcome,
        Err(Refusal::NotOut)
    );
}
