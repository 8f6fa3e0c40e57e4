//! The ceremony, row by row.

use std::collections::BTreeSet;

use crate::tiny::*;
use keyturn_vault::{
    ceremony::{Ceremony, Effect, End, Event, MAX_OPEN, Outcome, Purpose, Request, State},
    charter::{Charter, Scenario, Waiver},
    digest::Digest,
    event::Event as Entry,
    machine::Millis,
    quorum::{Opening, Says, Vote},
    refusal::Refusal,
    time::Span,
    world::{Stage, VersionId},
};

const HOUR: u64 = 3_600_000;

fn text() -> Digest {
    Digest::of(&[1])
}

fn opened(tiny: &Tiny, change: impl FnOnce(&mut Request)) -> Ceremony<u8> {
    let mut request = tiny.request(1, &[1]);
    change(&mut request);
    Ceremony::open(now(0), tiny.world(), request, 0).unwrap().0
}

/// Runs the events at the times given; says the last answer in one line.
fn run(
    tiny: &Tiny,
    mut ceremony: Ceremony<u8>,
    events: Vec<(u64, Event<u8>)>,
) -> (Ceremony<u8>, String) {
    let mut last = String::new();
    for (ms, event) in events {
        let before = ceremony.clone();
        let step = ceremony.step(now(ms), tiny.world(), event);
        ceremony = step.state;
        last = match step.outcome {
            Err(refusal) => {
                assert_eq!(ceremony, before, "invariant 3: {refusal}");
                refusal.code().to_owned()
            }
            Ok(effects) => effects.iter().map(word).collect::<Vec<_>>().join(" "),
        };
    }
    (ceremony, last)
}

fn word(effect: &Effect<u8>) -> String {
    match effect {
        Effect::Log(entry) => entry.kind().to_owned(),
        Effect::HoldRotation(_) => "hold".to_owned(),
        Effect::FreeRotation(_) => "free".to_owned(),
        Effect::CheckOut(..) => "check-out".to_owned(),
        Effect::OweRotation(_) => "owe".to_owned(),
        Effect::EndCheckOut => "end-check-out".to_owned(),
        Effect::Apply => "apply".to_owned(),
        Effect::Notify(_) => "notify".to_owned(),
        Effect::MakeSubmitKey => "make-key".to_owned(),
        Effect::Combine(sheaves) => {
            let shares: usize = sheaves.iter().map(|sheaf| sheaf.shares.len()).sum();
            format!("combine-{shares}")
        }
        Effect::KeepRelease => "keep".to_owned(),
        Effect::Publish => "publish".to_owned(),
        Effect::EraseRelease => "erase-release".to_owned(),
        Effect::EraseSubmitKey => "erase-key".to_owned(),
    }
}

fn yes(tiny: &Tiny, i: u8) -> Event<u8> {
    approve(vote(tiny, i))
}

fn vote(tiny: &Tiny, i: u8) -> Vote {
    tiny.vote(text(), &tiny.request(1, &[1]).ask.lines, i)
}

fn share(tiny: &Tiny, i: u8) -> Event<u8> {
    Event::Submit(person(i), tiny.shares(&tiny.request(1, &[1]).ask.lines, i))
}

fn no(i: u8) -> Event<u8> {
    Event::Refuse(voice(text(), i, None))
}

fn back(tiny: &Tiny, i: u8) -> Event<u8> {
    Event::Retract(voice(text(), i, Some(vote(tiny, i).text)))
}

fn delivered() -> Event<u8> {
    Event::Opened(Outcome {
        ciphertext: Some(Digest::of(b"out")),
        delivered: BTreeSet::from([version(1, 1)]),
        inconsistent: BTreeSet::new(),
    })
}

/// Where it stands, in a word.
pub(crate) fn state(ceremony: &Ceremony<u8>) -> &'static str {
    match ceremony.row.state {
        State::Open { .. } => "open",
        State::Waiting { .. } => "waiting",
        State::Approved { .. } => "approved",
        State::Authorized { .. } => "authorized",
        State::Ended(End::Released { kept: true }) => "released",
        State::Ended(End::Released { kept: false }) => "closed",
        State::Ended(End::Failed) => "failed",
        State::Ended(End::Interrupted) => "interrupted",
        State::Ended(End::Applied) => "applied",
        State::Ended(End::Expired) => "expired",
        State::Ended(End::Withdrawn) => "withdrawn",
        State::Ended(End::Superseded) => "superseded",
    }
}

#[test]
fn what_a_row_says_was_authorized_is_judged_again() {
    // k grew after the version was sealed: its shares would do, its custodians do not.
    let mut t = Tiny::new();
    t.charter = charter(2, 3, &[BOB, CAROL, DAVE, ERIN]);
    let request = || t.request(1, &[1]);
    let (opened, _) = Ceremony::<u8>::open(now(0), t.world(), request(), 0).unwrap();
    let mut row = opened.row;
    for i in [BOB, CAROL] {
        row.said
            .approve(t.vote(row.request, &row.ask.lines, i))
            .unwrap();
    }
    let both = BTreeSet::from([person(BOB), person(CAROL)]);
    row.state = State::Authorized {
        until: Millis(HOUR),
        openings: vec![Opening {
            version: version(1, 1),
            group: group("ops"),
            counts: true,
            k: 2,
            persons: both.clone(),
            shares: both,
        }],
    };
    let mut woken = Ceremony::wake(row.clone());
    let share = |i| Event::Submit(person(i), t.shares(&row.ask.lines, i));
    let vote = approve(t.vote(row.request, &row.ask.lines, DAVE));
    for (name, event, combines) in [
        ("started again", Event::Restart, false),
        ("bob's share", share(BOB), false),
        ("carol's share", share(CAROL), false),
        ("a third person agrees", vote, true),
    ] {
        let step = woken.step(now(1), t.world(), event);
        let effects = step.outcome.unwrap();
        let combined = effects.iter().any(|it| matches!(it, Effect::Combine(_)));
        assert_eq!(combined, combines, "{name}");
        woken = step.state;
    }
}

#[test]
fn an_unseal_goes_its_way() {
    let t = &Tiny::new();
    let two = || vec![(1, yes(t, BOB)), (2, share(t, BOB)), (3, yes(t, CAROL))];
    let authorized = || [two(), vec![(4, share(t, CAROL))]].concat();
    let released = || [authorized(), vec![(5, delivered())]].concat();
    let and = |mut events: Vec<(u64, Event<u8>)>, event| {
        events.push(event);
        events
    };
    for (name, events, want_state, want) in [
        (
            "one approval",
            vec![(1, yes(t, BOB))],
            "open",
            "ceremony.approved hold notify",
        ),
        (
            "the same approval again",
            vec![(1, yes(t, BOB)), (2, yes(t, BOB))],
            "open",
            "",
        ),
        (
            "two approvals and one share",
            two(),
            "approved",
            "ceremony.approved notify",
        ),
        (
            "two approvals and their shares",
            authorized(),
            "authorized",
            "unseal.authorized check-out owe notify combine-2",
        ),
        (
            "combined",
            released(),
            "released",
            "unseal.released free notify erase-key keep publish",
        ),
        (
            "fetched again",
            and(released(), (6, Event::Fetch(person(ALICE)))),
            "released",
            "unseal.fetched publish",
        ),
        (
            "fetched by somebody else",
            and(released(), (6, Event::Fetch(person(BOB)))),
            "released",
            "not-yours",
        ),
        (
            "checked in",
            and(released(), (6, Event::CheckoutEnded)),
            "closed",
            "erase-release",
        ),
        (
            "fetched too late",
            and(
                and(released(), (6, Event::CheckoutEnded)),
                (7, Event::Fetch(person(ALICE))),
            ),
            "closed",
            "nothing-to-fetch",
        ),
        (
            "approved after the end",
            and(released(), (6, yes(t, DAVE))),
            "released",
            "decided",
        ),
        (
            "nothing opened",
            and(
                authorized(),
                (
                    5,
                    Event::Failed(keyturn_vault::event::Failure::NothingOpened),
                ),
            ),
            "failed",
            "unseal.failed free notify erase-key end-check-out",
        ),
        (
            "time over while combining",
            and(authorized(), (5 * HOUR, Event::Tick)),
            "authorized",
            "",
        ),
        (
            "restarted while combining",
            and(authorized(), (5, Event::Restart)),
            "authorized",
            "make-key",
        ),
        (
            "restarted, and the shares again",
            [
                authorized(),
                vec![
                    (5, Event::Restart),
                    (6, share(t, CAROL)),
                    (7, share(t, BOB)),
                ],
            ]
            .concat(),
            "authorized",
            "combine-2",
        ),
        (
            "restarted, and another custodian helps",
            [
                authorized(),
                vec![
                    (5, Event::Restart),
                    (6, share(t, CAROL)),
                    (7, yes(t, DAVE)),
                    (8, share(t, DAVE)),
                ],
            ]
            .concat(),
            "authorized",
            "combine-2",
        ),
        (
            "restarted, and the time is over",
            [
                authorized(),
                vec![(5, Event::Restart), (5 * HOUR, Event::Tick)],
            ]
            .concat(),
            "interrupted",
            "unseal.interrupted free notify erase-key",
        ),
        (
            "an outcome without a combination",
            vec![(1, delivered())],
            "open",
            "not-now",
        ),
        (
            "nobody comes",
            vec![(4 * HOUR, Event::Tick)],
            "expired",
            "ceremony.expired notify erase-key",
        ),
        (
            "too late",
            vec![(4 * HOUR, yes(t, BOB))],
            "open",
            "too-late",
        ),
        (
            "given up",
            vec![(1, Event::Withdraw(person(ALICE)))],
            "withdrawn",
            "ceremony.withdrawn notify erase-key",
        ),
        (
            "given up by somebody else",
            vec![(1, Event::Withdraw(person(BOB)))],
            "open",
            "not-yours",
        ),
        (
            "given up too late",
            and(authorized(), (5, Event::Withdraw(person(ALICE)))),
            "authorized",
            "decided",
        ),
        (
            "the rotation runs",
            and(two(), (4, Event::Moot)),
            "superseded",
            "ceremony.superseded free notify erase-key",
        ),
        (
            "the rotation runs after it was authorized",
            and(authorized(), (5, Event::Moot)),
            "authorized",
            "",
        ),
    ] {
        let (ceremony, last) = run(t, opened(t, |_| {}), events);
        assert_eq!(
            (state(&ceremony), last.as_str()),
            (want_state, want),
            "{name}"
        );
        let row = serde_json::to_string(&ceremony.row).unwrap();
        assert_eq!(
            serde_json::from_str::<keyturn_vault::ceremony::Row>(&row).unwrap(),
            ceremony.row,
            "{name}"
        );
    }
}

#[test]
fn custodians_say_yes_no_and_otherwise() {
    let t = &Tiny::new();
    let change = |i, change: fn(&mut Vote)| {
        let mut vote = vote(t, i);
        change(&mut vote);
        approve(vote)
    };
    let anew = |vote: &mut Vote| vote.text = Digest::of(b"anew");
    for (name, events, want_state, want) in [
        (
            "twice by one",
            vec![(1, yes(t, BOB)), (2, change(BOB, anew))],
            "open",
            "same-custodian",
        ),
        (
            "with the token of another",
            vec![
                (1, yes(t, BOB)),
                (
                    2,
                    change(CAROL, |vote| {
                        (vote.token, vote.key) = (token(BOB), key(BOB).pin());
                    }),
                ),
            ],
            "open",
            "unknown-token",
        ),
        (
            "with an unknown key",
            vec![(1, change(BOB, |vote| vote.key = key(77).pin()))],
            "open",
            "unknown-token",
        ),
        (
            "by the requester",
            vec![(1, change(BOB, |vote| vote.person = person(ALICE)))],
            "open",
            "not-custodian",
        ),
        (
            "for another request",
            vec![(1, change(BOB, |vote| vote.request = Digest::of(b"")))],
            "open",
            "wrong-request",
        ),
        (
            "without lines",
            vec![(1, change(BOB, |vote| vote.says.clear()))],
            "open",
            "wrong-lines",
        ),
        (
            "with another's share",
            vec![(
                1,
                change(BOB, |vote| {
                    vote.says = Tiny::new()
                        .vote(text(), &Tiny::new().request(1, &[1]).ask.lines, CAROL)
                        .says;
                }),
            )],
            "open",
            "wrong-share",
        ),
        (
            "not-held, though held",
            vec![(
                1,
                change(BOB, |vote| {
                    vote.says
                        .values_mut()
                        .for_each(|says| *says = Says::NotHeld);
                }),
            )],
            "open",
            "wrong-lines",
        ),
        (
            "outside the hours",
            vec![(
                1,
                change(BOB, |vote| vote.broken = BTreeSet::from([Waiver::Hours])),
            )],
            "open",
            "rule-broken",
        ),
        (
            "a share without an approval",
            vec![(1, share(t, BOB))],
            "open",
            "not-approved",
        ),
        (
            "another's share",
            vec![
                (1, yes(t, BOB)),
                (2, Event::Submit(person(BOB), tiny_shares(t, CAROL))),
            ],
            "open",
            "not-promised",
        ),
        ("no", vec![(1, no(BOB))], "open", "ceremony.refused notify"),
        (
            "no twice",
            vec![(1, no(BOB)), (2, no(BOB))],
            "open",
            "spent-approval",
        ),
        (
            "no, by nobody",
            vec![(1, no(ALICE))],
            "open",
            "not-custodian",
        ),
        (
            "no, then yes",
            vec![(1, no(BOB)), (2, yes(t, BOB)), (3, yes(t, CAROL))],
            "approved",
            "ceremony.approved notify",
        ),
        (
            "yes, then no",
            vec![(1, yes(t, BOB)), (2, yes(t, CAROL)), (3, no(BOB))],
            "open",
            "ceremony.refused notify",
        ),
        (
            "no hinders nobody",
            vec![(1, no(BOB)), (2, yes(t, CAROL)), (3, yes(t, DAVE))],
            "approved",
            "ceremony.approved notify",
        ),
        (
            "taken back",
            vec![(1, yes(t, BOB)), (2, yes(t, CAROL)), (3, back(t, BOB))],
            "open",
            "ceremony.retracted notify",
        ),
        (
            "nothing to take back",
            vec![(1, back(t, BOB))],
            "open",
            "not-approved",
        ),
        (
            "taken back, used again",
            vec![(1, yes(t, BOB)), (2, back(t, BOB)), (3, yes(t, BOB))],
            "open",
            "spent-approval",
        ),
        (
            "taken back, signed anew",
            vec![
                (1, yes(t, BOB)),
                (2, yes(t, CAROL)),
                (3, back(t, BOB)),
                (4, change(BOB, anew)),
            ],
            "approved",
            "ceremony.approved notify",
        ),
        (
            "taken back with three there",
            vec![
                (1, yes(t, BOB)),
                (2, yes(t, CAROL)),
                (3, yes(t, DAVE)),
                (4, back(t, BOB)),
            ],
            "approved",
            "ceremony.retracted notify",
        ),
        (
            "an unreadable share does not combine",
            vec![
                (
                    1,
                    change(BOB, |vote| {
                        vote.says
                            .values_mut()
                            .for_each(|says| *says = Says::Unreadable);
                    }),
                ),
                (2, yes(t, CAROL)),
                (3, share(t, CAROL)),
            ],
            "open",
            "",
        ),
    ] {
        let (ceremony, last) = run(t, opened(t, |_| {}), events);
        assert_eq!(
            (state(&ceremony), last.as_str()),
            (want_state, want),
            "{name}"
        );
    }
}

fn tiny_shares(t: &Tiny, i: u8) -> Vec<keyturn_vault::ceremony::ValidShare<u8>> {
    t.shares(&t.request(1, &[1]).ask.lines, i)
}

#[test]
fn waiting_counts_running_time_and_shares_come_after_it() {
    let t = &mut Tiny::new();
    t.policy().waiting_secs = Span::from_hours(10);
    let (ceremony, last) = run(
        t,
        opened(t, |_| {}),
        vec![(1, yes(t, BOB)), (2, share(t, BOB))],
    );
    assert_eq!((state(&ceremony), last.as_str()), ("open", "waiting"));
    let (ceremony, last) = run(
        t,
        ceremony,
        vec![(HOUR, yes(t, CAROL)), (9 * HOUR, share(t, CAROL))],
    );
    assert_eq!(
        (state(&ceremony), last.as_str()),
        ("waiting", "waiting"),
        "valid-for does not run meanwhile"
    );
    let mut outage = now(20 * HOUR);
    outage.ran = now(2 * HOUR).ran;
    let step = ceremony.step(outage, t.world(), share(t, CAROL));
    assert_eq!(
        step.outcome,
        Err(Refusal::Waiting),
        "an outage does not shorten it"
    );
    let (ceremony, _) = run(t, step.state, vec![(21 * HOUR, Event::Tick)]);
    assert_eq!(state(&ceremony), "approved");
    let (ceremony, last) = run(
        t,
        ceremony,
        vec![(24 * HOUR, share(t, BOB)), (24 * HOUR, share(t, CAROL))],
    );
    assert_eq!(
        state(&ceremony),
        "authorized",
        "valid-for runs from its end: {last}"
    );
}

#[test]
fn the_charter_in_force_at_the_end_judges() {
    let t = &mut Tiny::new();
    let both = vec![(1, yes(t, BOB)), (2, yes(t, CAROL)), (3, share(t, BOB))];
    let (ceremony, _) = run(t, opened(t, |_| {}), both);
    let carol = share(t, CAROL);
    let change = |t: &mut Tiny, new: Charter| {
        t.in_force = reference(&new);
        t.charter = new;
    };
    let mut without = t.clone();
    change(&mut without, charter(2, 2, &[CAROL, DAVE, ERIN]));
    let (gone, _) = run(
        &without,
        ceremony.clone(),
        vec![(4, Event::Changed), (5, carol.clone())],
    );
    assert_eq!(state(&gone), "open", "bob left");
    let mut higher = t.clone();
    change(&mut higher, charter(2, 3, &[BOB, CAROL, DAVE, ERIN]));
    let (higher_k, _) = run(&higher, ceremony.clone(), vec![(5, carol.clone())]);
    assert_eq!(state(&higher_k), "open", "three are needed now");
    let (same, _) = run(t, ceremony, vec![(4, Event::Changed), (5, carol)]);
    assert_eq!(state(&same), "authorized");
}

#[test]
fn requests_are_judged_when_they_open() {
    type Case = (
        &'static str,
        fn(&mut Tiny),
        fn(&mut Request),
        usize,
        Result<(), Refusal>,
    );
    fn same(_: &mut Tiny) {}
    let cases: [Case; 23] = [
        ("as it should be", same, |_| {}, 0, Ok(())),
        (
            "no requester",
            same,
            |r| r.ask.requester = person(BOB),
            0,
            Err(Refusal::NotRequester),
        ),
        (
            "too many",
            same,
            |_| {},
            MAX_OPEN,
            Err(Refusal::TooManyOpen),
        ),
        (
            "an old charter",
            same,
            |r| r.charter.index = 7,
            0,
            Err(Refusal::OldCharter),
        ),
        (
            "nothing named",
            same,
            |r| r.ask.lines.clear(),
            0,
            Err(Refusal::WrongSubject),
        ),
        (
            "a live version left out",
            |t| *t = two_versions(Stage::Superseded, Stage::Current),
            |r| r.ask.lines.retain(|line, _| line.version.number() > 1),
            0,
            Err(Refusal::NotLive),
        ),
        (
            "a retired version may be left out",
            |t| *t = two_versions(Stage::Retired, Stage::Current),
            |_| {},
            0,
            Ok(()),
        ),
        (
            "a retired version may be named",
            |t| *t = two_versions(Stage::Retired, Stage::Current),
            |r| name_also(r, version(1, 1), Tiny::new().digest(version(1, 1))),
            0,
            Ok(()),
        ),
        (
            "a destroyed one may not",
            |t| *t = two_versions(Stage::Destroyed, Stage::Current),
            |r| name_also(r, version(1, 1), Tiny::new().digest(version(1, 1))),
            0,
            Err(Refusal::Destroyed),
        ),
        (
            "unproven ones only",
            |t| *t = two_versions(Stage::Retired, Stage::Candidate),
            |_| {},
            0,
            Err(Refusal::Unopenable),
        ),
        (
            "an unknown version",
            same,
            |r| name_also(r, version(1, 9), text()),
            0,
            Err(Refusal::UnknownVersion),
        ),
        (
            "another manifest",
            same,
            |r| r.ask.lines.values_mut().for_each(|m| *m = text()),
            0,
            Err(Refusal::UnknownVersion),
        ),
        (
            "an unknown credential",
            same,
            |r| name_also(r, version(9, 1), text()),
            0,
            Err(Refusal::UnknownCredential),
        ),
        (
            "another group",
            same,
            |r| r.ask.group = Some(group("others")),
            0,
            Err(Refusal::NoSuchGroup),
        ),
        (
            "an unknown scenario",
            same,
            |r| r.scenario = Some("fire".parse().unwrap()),
            0,
            Err(Refusal::NoSuchScenario),
        ),
        (
            "without the ticket",
            ticketed,
            |r| r.scenario = Some("fire".parse().unwrap()),
            0,
            Err(Refusal::NoTicket),
        ),
        (
            "without the ticket, waived",
            ticketed,
            |r| {
                (r.scenario, r.ask.waive) = (
                    Some("fire".parse().unwrap()),
                    BTreeSet::from([Waiver::Ticket]),
                );
            },
            0,
            Ok(()),
        ),
        (
            "a drill",
            same,
            |r| r.purpose = Purpose::Drill,
            0,
            Err(Refusal::NotCanary),
        ),
        (
            "a drill with a canary",
            |t| canary(t),
            |r| r.purpose = Purpose::Drill,
            0,
            Ok(()),
        ),
        (
            "checked out by another",
            out,
            |_| {},
            0,
            Err(Refusal::CheckedOut),
        ),
        (
            "checked out, waived",
            out,
            |r| r.ask.waive = BTreeSet::from([Waiver::CheckOut]),
            0,
            Ok(()),
        ),
        (
            "too long out",
            same,
            |r| r.check_out = Some(Span::from_hours(13)),
            0,
            Err(Refusal::CheckOutTooLong),
        ),
        (
            "valid too long",
            same,
            |r| r.valid_for = Span::from_hours(5),
            0,
            Err(Refusal::ValidTooLong),
        ),
    ];
    for (name, world, request, open, want) in cases {
        let mut tiny = Tiny::new();
        world(&mut tiny);
        let mut made = tiny.request(1, &[1]);
        request(&mut made);
        let got = Ceremony::<u8>::open(now(0), tiny.world(), made, open);
        assert_eq!(got.map(|_| ()), want, "{name}");
    }
}

fn name_also(request: &mut Request, line: VersionId, manifest: Digest) {
    request.ask.lines.insert(line, manifest);
}

fn two_versions(first: Stage, second: Stage) -> Tiny {
    let mut tiny = Tiny::new();
    let holding = holding(1, &[first, second], 2, &[BOB, CAROL, DAVE], &tiny.charter);
    tiny.holdings.insert(credential(1), holding);
    tiny
}

fn ticketed(tiny: &mut Tiny) {
    let mut scenario = Scenario::named("fire".parse().unwrap());
    scenario.require_ticket = true;
    tiny.charter.scenarios.push(scenario);
}

fn canary(tiny: &mut Tiny) {
    let held = tiny.holdings.get_mut(&credential(1)).unwrap();
    std::sync::Arc::make_mut(&mut held.definition).canary = true;
}

fn out(tiny: &mut Tiny) {
    tiny.holdings
        .get_mut(&credential(1))
        .unwrap()
        .out
        .insert(ceremony_id(7), person(ERIN));
}

#[test]
fn what_opens_nothing_applies_at_once_or_after_waiting() {
    let t = &Tiny::new();
    let erase = |waiting| {
        opened(t, |request| {
            request.purpose = Purpose::Erase;
            request.ask.lines.clear();
            request.ask.needs = BTreeSet::from([group("ops")]);
            request.waiting = waiting;
        })
    };
    let yes = |i| {
        let mut vote = vote(t, i);
        vote.says.clear();
        (1, approve::<u8>(vote))
    };
    let (ceremony, last) = run(t, erase(Span::ZERO), vec![yes(BOB)]);
    assert_eq!(
        (state(&ceremony), last.as_str()),
        ("open", "ceremony.approved notify")
    );
    let (ceremony, last) = run(t, ceremony, vec![yes(CAROL)]);
    let all = "ceremony.approved notify ceremony.applied notify apply";
    assert_eq!((state(&ceremony), last.as_str()), ("applied", all));
    let (ceremony, _) = run(t, erase(Span::from_hours(1)), vec![yes(BOB), yes(CAROL)]);
    assert_eq!(state(&ceremony), "waiting");
    let (ceremony, last) = run(t, ceremony, vec![(2 * HOUR, Event::Tick)]);
    assert_eq!(
        (state(&ceremony), last.as_str()),
        ("applied", "ceremony.applied notify apply")
    );
}

#[test]
fn a_request_that_no_longer_names_what_may_work_is_superseded() {
    for (name, stages, rolled, want) in [
        ("nothing changed", vec![Stage::Current], false, "open"),
        (
            "somebody deposits",
            vec![Stage::Current, Stage::Candidate],
            false,
            "open",
        ),
        (
            "a rotation rolls",
            vec![Stage::Current, Stage::Candidate],
            true,
            "superseded",
        ),
        (
            "another is current",
            vec![Stage::Superseded, Stage::Current],
            false,
            "superseded",
        ),
        (
            "what it names is destroyed",
            vec![Stage::Destroyed],
            false,
            "superseded",
        ),
    ] {
        let ceremony = opened(&Tiny::new(), |_| {});
        let mut tiny = Tiny::new();
        let mut changed = holding(1, &stages, 2, &[BOB, CAROL, DAVE], &tiny.charter);
        changed.versions.values_mut().last().unwrap().life.rolled = rolled;
        tiny.holdings.insert(credential(1), changed);
        let (ceremony, _) = run(&tiny, ceremony, vec![(1, Event::Changed)]);
        assert_eq!(state(&ceremony), want, "{name}");
    }
}

#[test]
fn the_entries_of_a_ceremony_read_back() {
    let t = &Tiny::new();
    let mut ceremony = opened(t, |_| {});
    let events = vec![
        yes(t, BOB),
        share(t, BOB),
        yes(t, CAROL),
        share(t, CAROL),
        delivered(),
        Event::Fetch(person(ALICE)),
    ];
    let mut kinds = Vec::new();
    for event in events {
        let step = ceremony.step(now(1), t.world(), event);
        ceremony = step.state;
        for effect in step.outcome.unwrap() {
            let Effect::Log(entry) = effect else { continue };
            let body = entry.body();
            assert_eq!(Entry::parse(entry.kind(), &body).unwrap(), entry);
            assert_eq!(entry.ceremony(), Some(ceremony_id(1)));
            let mut more = body.clone();
            more["more"] = 1.into();
            assert!(
                Entry::parse(entry.kind(), &more).is_err(),
                "{}",
                entry.kind()
            );
            kinds.push(entry.kind());
        }
    }
    let want = [
        "ceremony.approved",
        "ceremony.approved",
        "unseal.authorized",
        "unseal.released",
        "unseal.fetched",
    ];
    assert_eq!(kinds, want);
}
