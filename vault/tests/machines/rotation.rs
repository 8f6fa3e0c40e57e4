//! The slot: a few rows, and a walk through everything that can go wrong at the target.

use std::collections::{BTreeMap, BTreeSet};

use crate::{tiny::*, walk::Graph};
use keyturn_vault::{
    definition::Task,
    digest::Digest,
    event::{Answer, Cause, Event as Entry, Evidence, Seal, Stuck},
    machine::Millis,
    reference::{Signer, Version},
    rotation::{Effect, Event, HOLD, Job, MAX_LIVE, Slot, Terms, UNFENCED_QUARANTINE},
    time::Span,
    world::Stage,
};

pub(crate) fn terms() -> Terms {
    Terms {
        connector: true,
        task: None,
        fence: false,
        deadline: Span::from_secs(30),
        grace: Span::ZERO,
        quarantine: Span::ZERO,
        max_age: Span::ZERO,
        jitter: 0,
        two: None,
        paused: None,
    }
}

pub(crate) fn seal() -> Seal {
    Seal {
        signer: Signer::Device(device(BOB)),
        signature: vec![1],
    }
}

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(crate) fn deposit(version: Version, i: u8) -> Event {
    Event::Deposit {
        version,
        manifest: Digest::of(b"manifest"),
        person: person(i),
        signature: seal(),
    }
}

pub(crate) fn sealed(version: Version) -> Event {
    Event::Sealed {
        version,
        manifest: Digest::of(b"manifest"),
        signature: seal(),
    }
}

fn recovered(version: Version) -> Event {
    Event::Recovered {
        version,
        manifest: Digest::of(b"manifest"),
        ceremony: ceremony_id(9),
    }
}

/// A slot with one deposited version.
pub(crate) fn one() -> Slot {
    Slot::new(credential(1))
        .step(now(0), terms(), deposit(v(1), BOB))
        .state
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Log(entry) => entry.kind().to_owned(),
        Effect::Changed => "changed".to_owned(),
        Effect::Notify(_) => "notify".to_owned(),
        Effect::Roll(version) => format!("roll-{version}"),
        Effect::Copy(version) => format!("copy-{version}"),
        Effect::Apply(version, _) => format!("apply-{version}"),
        Effect::Test(version) => format!("test-{version}"),
        Effect::EndSessions(version, _) => format!("end-sessions-{version}"),
        Effect::List(version) => format!("list-{version}"),
        Effect::Create(version, _) => format!("create-{version}"),
        Effect::Deactivate(version, keys, _) => {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            format!("deactivate-{}-{version}", keys.join("+"))
        }
        Effect::DeleteKey(key) => format!("delete-{key}"),
        Effect::Forget(version) => format!("forget-{version}"),
        Effect::Delete(version) => format!("delete-{version}"),
    }
}

/// Runs the events at the seconds given; says the last answer in one line, and the live versions.
pub(crate) fn run(terms: Terms, mut slot: Slot, events: Vec<(u64, Event)>) -> (Slot, String) {
    let mut last = String::new();
    for (secs, event) in events {
        let before = slot.clone();
        let step = slot.step(now(secs * 1000), terms, event);
        slot = step.state;
        last = match step.outcome {
            Err(refusal) => {
                assert_eq!(slot, before, "invariant 8");
                refusal.code().to_owned()
            }
            Ok(effects) => effects.iter().map(word).collect::<Vec<_>>().join(" "),
        };
    }
    (slot, last)
}

pub(crate) fn stages(slot: &Slot) -> String {
    let letter = |stage| match stage {
        Stage::Candidate => 'c',
        Stage::Current => 'C',
        Stage::Superseded => 's',
        Stage::Retired => 'r',
        Stage::Destroyed => 'd',
    };
    slot.versions
        .values()
        .map(|kept| letter(kept.life.stage))
        .collect()
}

fn unseal() -> Event {
    Event::Owe(Cause::Unseal(ceremony_id(1)))
}

fn until_applied() -> Vec<(u64, Event)> {
    vec![
        (1, unseal()),
        (2, Event::Tick),
        (3, sealed(v(2))),
        (4, Event::Copied),
    ]
}

/// A log that was cut off after the copy may lack that the target was asked.
#[test]
fn after_a_restore_what_was_sealed_for_the_target_stays_live() {
    let (copying, _) = run(terms(), one(), until_applied()[..3].to_vec());
    let (crashed, _) = run(terms(), copying.clone(), vec![(5, Event::Restart)]);
    assert_eq!(
        stages(&crashed),
        "Cr",
        "it was not asked, and the log is whole"
    );
    let mut restored = copying;
    restored.restored(now(5000).lived);
    let (restored, _) = run(terms(), restored, vec![(5, Event::Restart)]);
    assert_eq!(stages(&restored), "Cc", "it may have been asked");

    let mut first = Slot::new(credential(1));
    first.restored(now(0).lived);
    let (first, _) = run(terms(), first, vec![(1, recovered(v(2)))]);
    assert_eq!(stages(&first), "C", "a first version is what there is");
}

#[test]
fn a_rotation_goes_its_way() {
    let out = || (0, Event::Out(ceremony_id(1)));
    let back = |secs| (secs, Event::Returned(ceremony_id(1)));
    let done = || {
        let mut events = until_applied();
        events.extend([
            (5, Event::Applied(Answer::Done)),
            (6, Event::Tested(Answer::Done)),
        ]);
        events
    };
    let ended = || (7, Event::SessionsEnded(Evidence::NotObservable));
    let with = |mut events: Vec<(u64, Event)>, more: Vec<(u64, Event)>| {
        events.extend(more);
        events
    };
    let asked = |secs| (secs, Event::Owe(Cause::Asked(person(ALICE))));
    for (name, events, want_stages, want) in [
        ("nothing owed", vec![(2, Event::Tick)], "C", ""),
        ("owed", vec![(1, unseal())], "C", "rotation.owed"),
        (
            "owed, still out",
            vec![out(), (1, unseal()), (2, Event::Tick)],
            "C",
            "",
        ),
        (
            "owed, back",
            vec![out(), (1, unseal()), back(2), (3, Event::Tick)],
            "C",
            "roll-v2",
        ),
        (
            "sealed",
            vec![(1, unseal()), (2, Event::Tick), (3, sealed(v(2)))],
            "Cc",
            "version.sealed rotation.started changed copy-v2",
        ),
        ("copied", until_applied(), "Cc", "apply-v2"),
        (
            "refused for certain",
            with(until_applied(), vec![(5, Event::Applied(Answer::Refused))]),
            "Cr",
            "rotation.attempted rotation.failed forget-v2 changed notify",
        ),
        (
            "no answer",
            with(until_applied(), vec![(5, Event::Applied(Answer::Unclear))]),
            "Cc",
            "rotation.attempted test-v2",
        ),
        (
            "a login fails too early",
            with(
                until_applied(),
                vec![
                    (5, Event::Applied(Answer::Unclear)),
                    (6, Event::Tested(Answer::Refused)),
                ],
            ),
            "Cc",
            "",
        ),
        (
            "and fails again after the deadline",
            with(
                until_applied(),
                vec![
                    (5, Event::Applied(Answer::Unclear)),
                    (6, Event::Tested(Answer::Refused)),
                    (40, Event::Tick),
                    (41, Event::Tested(Answer::Refused)),
                ],
            ),
            "Cc",
            "rotation.attempted rotation.failed forget-v2 notify",
        ),
        (
            "proven",
            done(),
            "sC",
            "rotation.attempted rotation.promoted changed forget-v2 end-sessions-v2",
        ),
        (
            "done",
            with(done(), vec![ended()]),
            "rC",
            "rotation.done notify changed",
        ),
        (
            "not destroyed yet",
            with(done(), vec![ended(), (600_000, Event::Tick)]),
            "rC",
            "",
        ),
        (
            "destroyed after the quarantine",
            with(done(), vec![ended(), (700_000, Event::Tick)]),
            "dC",
            "version.destroyed delete-v1",
        ),
        (
            "opened again meanwhile: owed again",
            with(
                until_applied(),
                vec![
                    (4, Event::Owe(Cause::Unseal(ceremony_id(2)))),
                    (5, Event::Applied(Answer::Done)),
                    (6, Event::Tested(Answer::Done)),
                    ended(),
                    (40, Event::Tick),
                ],
            ),
            "rC",
            "roll-v3",
        ),
        (
            "crashed before the target was asked",
            with(until_applied()[..3].to_vec(), vec![(5, Event::Restart)]),
            "Cr",
            "rotation.failed forget-v2 changed notify",
        ),
        (
            "crashed after it was asked",
            with(until_applied(), vec![(5, Event::Restart)]),
            "Cc",
            "rotation.failed forget-v2 notify",
        ),
        (
            "and rolls anew",
            with(
                until_applied(),
                vec![(5, Event::Restart), (100, Event::Tick)],
            ),
            "Cc",
            "roll-v3",
        ),
        (
            "held by a ceremony",
            vec![
                (0, Event::Hold(ceremony_id(2))),
                (1, unseal()),
                (2, Event::Tick),
            ],
            "C",
            "rotation.held",
        ),
        (
            "held no longer than an hour",
            vec![
                (0, Event::Hold(ceremony_id(2))),
                (1, unseal()),
                (2, Event::Tick),
                (3602, Event::Tick),
            ],
            "C",
            "roll-v2",
        ),
        (
            "a ceremony comes while it is sealed",
            vec![
                (1, unseal()),
                (2, Event::Tick),
                (3, Event::Hold(ceremony_id(2))),
                (4, sealed(v(2))),
            ],
            "C",
            "forget-v2",
        ),
        (
            "what a ceremony names does not retire",
            with(done(), vec![(6, Event::Hold(ceremony_id(2))), ended()]),
            "sC",
            "",
        ),
        (
            "until it has ended",
            with(
                done(),
                vec![
                    (6, Event::Hold(ceremony_id(2))),
                    ended(),
                    (8, Event::Free(ceremony_id(2))),
                    (9, Event::Tick),
                ],
            ),
            "rC",
            "rotation.done notify changed",
        ),
        (
            "a version that only a copy had is live and unproven",
            vec![(1, recovered(v(3)))],
            "Cc",
            "version.recovered changed copy-v3",
        ),
        (
            "however many there are",
            (2..8).map(|n| (1, recovered(v(n)))).collect(),
            "Ccccccc",
            "version.recovered changed copy-v7",
        ),
        (
            "one that is there is not taken back",
            vec![(1, recovered(v(1)))],
            "C",
            "next-version",
        ),
        (
            "a rotation goes on behind it",
            vec![
                (1, recovered(v(3))),
                (2, unseal()),
                (3, Event::Tick),
                (4, sealed(v(4))),
            ],
            "Ccc",
            "version.sealed rotation.started changed copy-v4",
        ),
        ("asked for", vec![asked(4000)], "C", "rotation.owed"),
        (
            "asked for at once, and deposited by a person",
            vec![asked(10)],
            "C",
            "rotation.owed",
        ),
        (
            "asked for at once, and rotated before",
            with(done(), vec![ended(), asked(10)]),
            "rC",
            "just-rotated",
        ),
        (
            "asked for while it runs",
            with(until_applied(), vec![asked(5)]),
            "Cc",
            "rotating",
        ),
        (
            "an answer that nobody waits for",
            vec![(1, Event::Copied)],
            "C",
            "not-running",
        ),
        (
            "retried without need",
            vec![(1, Event::Retry(person(ALICE)))],
            "C",
            "not-stuck",
        ),
    ] {
        let (slot, last) = run(terms(), one(), events);
        assert_eq!(
            (stages(&slot).as_str(), last.as_str()),
            (want_stages, want),
            "{name}"
        );
        let row = serde_json::to_string(&slot).unwrap();
        assert_eq!(serde_json::from_str::<Slot>(&row).unwrap(), slot, "{name}");
    }
}

#[test]
fn a_task_is_asked_for_and_completed_by_a_second_person_where_two_are_wanted() {
    let task = |two_people| Terms {
        connector: false,
        task: Some(Task { two_people }),
        ..terms()
    };
    let complete_v = |number, i| Event::Complete(v(number), person(i), Evidence::NotObservable);
    let complete = |i| complete_v(2, i);
    let asked = || (9000, Event::Owe(Cause::Asked(person(ALICE))));
    for (name, two_people, events, want) in [
        ("asked for", false, vec![asked()], "rotation.owed notify"),
        (
            "completed by who deposited it",
            false,
            vec![
                asked(),
                (9001, deposit(v(2), CAROL)),
                (9002, complete(CAROL)),
            ],
            "rotation.completed",
        ),
        (
            "where another person must",
            true,
            vec![
                asked(),
                (9001, deposit(v(2), CAROL)),
                (9002, complete(CAROL)),
            ],
            "same-person",
        ),
        (
            "who does",
            true,
            vec![
                asked(),
                (9001, deposit(v(2), CAROL)),
                (9002, complete(ALICE)),
            ],
            "rotation.completed",
        ),
        (
            "also where it was sealed to other people since",
            true,
            vec![
                asked(),
                (9001, deposit(v(2), CAROL)),
                (9001, Event::Out(ceremony_id(1))),
                (9002, Event::Worked(v(2), ceremony_id(1))),
                (9003, reshared(3, 2)),
                (9004, complete_v(3, CAROL)),
            ],
            "same-person",
        ),
        (
            "by who did not deposit it",
            true,
            vec![
                asked(),
                (9001, deposit(v(2), CAROL)),
                (9001, Event::Out(ceremony_id(1))),
                (9002, Event::Worked(v(2), ceremony_id(1))),
                (9003, reshared(3, 2)),
                (9004, complete_v(3, ALICE)),
            ],
            "rotation.completed",
        ),
        (
            "the same secret for other people is no new one",
            false,
            vec![asked(), (9001, reshared(2, 1)), (9002, complete(ALICE))],
            "nothing-owed",
        ),
    ] {
        let (slot, last) = run(task(two_people), one(), events);
        assert_eq!(last, want, "{name}");
        assert_eq!(
            slot.is_due(),
            !want.ends_with("completed"),
            "{name}: what was not completed stays due"
        );
    }
}

#[test]
fn people_deposit_and_prove_versions() {
    let worked = |number| Event::Worked(v(number), ceremony_id(1));
    let out = || (1, Event::Out(ceremony_id(1)));
    let complete = |number| Event::Complete(v(number), person(ALICE), Evidence::NotObservable);
    let by_hand = Terms {
        connector: false,
        ..terms()
    };
    for (name, events, want_stages, want) in [
        (
            "another deposit",
            vec![(1, deposit(v(2), CAROL))],
            "Cc",
            "version.sealed changed copy-v2",
        ),
        (
            "the wrong number",
            vec![(1, deposit(v(3), CAROL))],
            "C",
            "next-version",
        ),
        (
            "two unproven by one",
            vec![(1, deposit(v(2), CAROL)), (2, deposit(v(3), CAROL))],
            "Cc",
            "unproven",
        ),
        (
            "five live ones",
            vec![
                (1, deposit(v(2), BOB)),
                (1, deposit(v(3), CAROL)),
                (1, deposit(v(4), DAVE)),
                (2, deposit(v(5), ERIN)),
            ],
            "Cccc",
            "too-many-live",
        ),
        (
            "it worked",
            vec![(1, deposit(v(2), CAROL)), out(), (2, worked(2))],
            "rC",
            "version.promoted changed version.retired changed",
        ),
        (
            "the current one worked",
            vec![(1, deposit(v(2), CAROL)), (2, worked(1))],
            "Cc",
            "",
        ),
        (
            "an older one worked",
            vec![
                (1, deposit(v(2), CAROL)),
                (1, deposit(v(3), DAVE)),
                out(),
                (2, worked(3)),
                (3, worked(2)),
            ],
            "rrC",
            "",
        ),
        (
            "a version that is not there worked",
            vec![(2, worked(7))],
            "C",
            "not-promotable",
        ),
        (
            "owed, by hand",
            vec![(1, unseal()), (2, Event::Tick)],
            "C",
            "",
        ),
        (
            "completed without a deposit",
            vec![(1, unseal()), (2, complete(1))],
            "C",
            "nothing-owed",
        ),
        (
            "completed with one",
            vec![(1, unseal()), (2, deposit(v(2), CAROL)), (3, complete(2))],
            "Cc",
            "rotation.completed",
        ),
        (
            "completed with what was sealed to others",
            vec![(1, unseal()), (2, reshared(2, 1)), (3, complete(2))],
            "sC",
            "nothing-owed",
        ),
        (
            "completed with what was sealed to others behind a candidate",
            vec![
                (1, unseal()),
                (2, deposit(v(2), CAROL)),
                (3, reshared(3, 1)),
                (4, complete(3)),
            ],
            "scC",
            "nothing-owed",
        ),
        (
            "completed with what was sealed to others twice",
            vec![
                (1, deposit(v(2), CAROL)),
                (2, reshared(3, 1)),
                (3, unseal()),
                (4, reshared(4, 3)),
                (5, complete(4)),
            ],
            "scsC",
            "nothing-owed",
        ),
        (
            "completed with the candidate before it",
            vec![
                (1, unseal()),
                (2, deposit(v(2), CAROL)),
                (3, reshared(3, 1)),
                (4, complete(2)),
            ],
            "scC",
            "rotation.completed",
        ),
        (
            "not owed",
            vec![(2, deposit(v(2), CAROL)), (3, complete(2))],
            "Cc",
            "nothing-owed",
        ),
        (
            "asked for, by hand",
            vec![(9000, Event::Owe(Cause::Asked(person(ALICE))))],
            "C",
            "no-connector",
        ),
    ] {
        let (slot, last) = run(by_hand, one(), events);
        assert_eq!(
            (stages(&slot).as_str(), last.as_str()),
            (want_stages, want),
            "{name}"
        );
    }
    let (_, last) = run(
        terms(),
        one(),
        vec![(1, unseal()), (1, deposit(v(2), CAROL)), (2, complete(2))],
    );
    assert_eq!(last, "has-connector");
}

fn reshared(version: u64, of: u64) -> Event {
    Event::Reshared {
        version: v(version),
        of: v(of),
        manifest: Digest::of(b"manifest"),
        ceremony: ceremony_id(1),
        signature: seal(),
    }
}

#[test]
fn a_reshare_is_the_same_secret_for_other_people() {
    for (name, events, want_stages, want) in [
        (
            "the current one",
            vec![(1, Event::Owe(Cause::Roster)), (1, reshared(2, 1))],
            "sC",
            "version.sealed version.promoted changed copy-v2",
        ),
        (
            "a candidate",
            vec![(1, deposit(v(2), CAROL)), (2, reshared(3, 2))],
            "Cc",
            "not-promotable",
        ),
        (
            "the wrong number",
            vec![(1, reshared(5, 1))],
            "C",
            "next-version",
        ),
    ] {
        let (slot, last) = run(terms(), one(), events);
        assert_eq!(
            (stages(&slot).as_str(), last.as_str()),
            (want_stages, want),
            "{name}"
        );
        assert!(slot.owed.is_empty(), "{name}");
        assert_eq!(slot.current_since, Some(Millis(0)), "{name}: no younger");
    }
}

#[test]
fn attempts_back_off_with_jitter_and_then_need_an_operator() {
    let mut slot = one();
    let mut pauses = Vec::new();
    let mut at = 10_000;
    slot = slot.step(now(at), terms(), unseal()).state;
    for jitter in [0, 1000, 500, 0, 0] {
        let terms = Terms { jitter, ..terms() };
        let next = slot.next();
        for event in [
            Event::Tick,
            sealed(next),
            Event::Copied,
            Event::Applied(Answer::Refused),
        ] {
            let step = slot.step(now(at), terms, event);
            step.outcome.unwrap();
            slot = step.state;
        }
        if let Job::BackingOff { until } = slot.job {
            pauses.push((until.0 - at) / 1000);
            at = until.0;
        }
        at += 40_000;
    }
    assert_eq!(pauses, [60, 375, 2025, 7200]);
    assert_eq!(slot.job, Job::Stuck(Stuck::Failures));
    let step = slot.step(now(at), terms(), Event::Retry(person(ALICE)));
    assert!(matches!(
        step.outcome.unwrap()[..],
        [Effect::Log(Entry::RotationRetried { .. })]
    ));
    assert_eq!(
        step.state
            .step(now(at), terms(), Event::Tick)
            .outcome
            .unwrap(),
        [Effect::Roll(v(7))]
    );
}

#[test]
fn a_version_is_rotated_at_its_age() {
    let old = Terms {
        max_age: Span::from_days(90),
        ..terms()
    };
    let (_, early) = run(old, one(), vec![(89 * 86_400, Event::Tick)]);
    let (_, due) = run(old, one(), vec![(90 * 86_400, Event::Tick)]);
    assert_eq!(
        (early.as_str(), due.as_str()),
        ("", "rotation.owed roll-v2")
    );
    assert_eq!(UNFENCED_QUARANTINE, Span::from_days(7));
}

/// A call to the target or to the shell that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Roll(Version),
    Copy(Version),
    Apply(Version),
    Test(Version),
    EndSessions(Version),
}

/// The slot, the target, and everything between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    slot: Slot,
    /// Whose secret the target has.
    target: Version,
    calls: BTreeSet<Call>,
    /// A write that may still take effect, until then.
    late: Option<(Version, Millis)>,
    /// The version with which the requester last logged in, and has not said so yet.
    login: Option<Version>,
}

/// Who acts beside the rotation. Two walks, so that both stay small.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// Other ceremonies come and hold it.
    Ceremonies,
    /// People change the target by hand, deposit, log in.
    People,
}

/// What a slot waits for.
#[derive(Clone, Copy)]
enum Moment {
    /// A call to the target can take effect no more.
    CallOver,
    /// The last try of a login, or a pause, is over.
    Job,
    /// A ceremony has held the rotation for long enough.
    Hold,
    /// Or the retirement.
    Retiring,
}

/// Where every state's clock stands.
const BASE: u64 = 1_000_000_000_000;

impl Model {
    fn start() -> Self {
        let slot = Slot::new(credential(1))
            .step(now(BASE), terms(), deposit(v(1), BOB))
            .state;
        Self {
            slot,
            target: v(1),
            calls: BTreeSet::new(),
            late: None,
            login: None,
        }
        .canonical()
    }

    /// Steps the slot; carries out what it says as calls that are yet to be answered.
    fn step(mut self, event: Event) -> Option<Self> {
        let before = self.slot.clone();
        let step = self.slot.step(now(BASE), terms(), event);
        self.slot = step.state;
        let Ok(effects) = step.outcome else {
            assert_eq!(self.slot, before, "invariant 8");
            return None;
        };
        for effect in effects {
            let call = match effect {
                Effect::Roll(version) => Call::Roll(version),
                Effect::Copy(version) => Call::Copy(version),
                Effect::Apply(version, _) => Call::Apply(version),
                Effect::Test(version) => Call::Test(version),
                Effect::EndSessions(version, _) => Call::EndSessions(version),
                Effect::Forget(version) => {
                    let calls = [
                        Call::Roll(version),
                        Call::Copy(version),
                        Call::Apply(version),
                        Call::Test(version),
                    ];
                    self.calls.retain(|call| !calls.contains(call));
                    continue;
                }
                Effect::Log(_) | Effect::Changed | Effect::Notify(_) | Effect::Delete(_) => {
                    continue;
                }
                Effect::List(_)
                | Effect::Create(..)
                | Effect::Deactivate(..)
                | Effect::DeleteKey(_) => panic!("a target with one slot has no keys: {effect:?}"),
            };
            self.calls.insert(call);
        }
        Some(self)
    }

    fn crash(mut self) -> Option<Self> {
        self.calls.clear();
        self.step(Event::Restart)
    }

    fn set(mut self, version: Version) -> Self {
        self.target = version;
        self
    }

    fn answered(&self, call: Call) -> Self {
        let mut model = self.clone();
        model.calls.remove(&call);
        model
    }

    /// Everything that can come of a call: done, failed, failed but took effect (at once, or a little
    /// later), crashed after the effect, crashed before it.
    fn answers(&self, call: Call) -> Vec<Option<Self>> {
        let model = self.answered(call);
        match call {
            Call::Roll(version) => vec![
                model.clone().step(sealed(version)),
                model.clone().step(Event::NotSealed),
                model.crash(),
            ],
            // A deposit is copied too, and nobody waits for it.
            Call::Copy(_) => vec![model.clone().step(Event::Copied).or(Some(model))],
            Call::Apply(version) => {
                let mut late = model.clone();
                late.late = self.slot.asked;
                vec![
                    model
                        .clone()
                        .set(version)
                        .step(Event::Applied(Answer::Done)),
                    model.clone().step(Event::Applied(Answer::Refused)),
                    model.clone().step(Event::Applied(Answer::Unclear)),
                    model
                        .clone()
                        .set(version)
                        .step(Event::Applied(Answer::Unclear)),
                    late.clone().step(Event::Applied(Answer::Unclear)),
                    model.clone().set(version).crash(),
                    late.crash(),
                    model.crash(),
                ]
            }
            Call::Test(version) => {
                let truth = if self.target == version {
                    Answer::Done
                } else {
                    Answer::Refused
                };
                vec![
                    model.clone().step(Event::Tested(truth)),
                    model.clone().step(Event::Tested(Answer::Unclear)),
                    model.crash(),
                ]
            }
            Call::EndSessions(_) => {
                vec![
                    model
                        .clone()
                        .step(Event::SessionsEnded(Evidence::NotObservable)),
                    model.crash(),
                ]
            }
        }
    }

    /// Time passes until one of the moments that the slot waits for. Which one comes first is left
    /// open, so that the walk holds for every choice of deadlines, pauses and holds.
    fn pass(&self, moment: Moment) -> Option<Self> {
        let mut model = self.clone();
        let passed = Millis(BASE);
        let slot = &mut model.slot;
        match moment {
            Moment::CallOver => {
                slot.asked.take()?;
                model.late = None;
                // The connector is killed at its deadline.
                model.calls.retain(|call| !matches!(call, Call::Apply(_)));
                if let Job::Applying { until, .. }
                | Job::Testing {
                    until, last: false, ..
                } = &mut slot.job
                {
                    *until = passed;
                }
            }
            Moment::Job => match &mut slot.job {
                Job::Testing {
                    until, last: true, ..
                }
                | Job::BackingOff { until }
                    if *until > passed =>
                {
                    *until = passed;
                }
                Job::Idle
                | Job::Sealing { .. }
                | Job::Copying { .. }
                | Job::Applying { .. }
                | Job::Testing { .. }
                | Job::BackingOff { .. }
                | Job::Promoted { .. }
                | Job::Listing { .. }
                | Job::Creating { .. }
                | Job::Deleting
                | Job::Revoking { .. }
                | Job::Stuck(_) => return None,
            },
            Moment::Hold => *slot.held_until.as_mut().filter(|until| **until > passed)? = passed,
            Moment::Retiring => {
                slot.retiring
                    .as_mut()
                    .filter(|retiring| retiring.latest > passed)?
                    .latest = passed;
            }
        }
        model.step(Event::Tick)
    }

    fn successors(&self, around: Around) -> Vec<Self> {
        let mut all: Vec<Option<Self>> = self
            .calls
            .iter()
            .flat_map(|call| self.answers(*call))
            .collect();
        if let Some((version, _)) = self.late {
            let mut landed = self.clone().set(version);
            landed.late = None;
            all.push(Some(landed));
        }
        let moments = [
            Moment::CallOver,
            Moment::Job,
            Moment::Hold,
            Moment::Retiring,
        ];
        all.extend(moments.map(|moment| self.pass(moment)));
        all.push(self.clone().step(Event::Tick));
        all.push(self.clone().crash());
        let (user, other) = (ceremony_id(1), ceremony_id(2));
        if self.slot.out.is_empty() {
            let opened = self.clone().step(Event::Owe(Cause::Unseal(user)));
            all.push(opened.and_then(|model| model.step(Event::Out(user))));
        } else {
            let mut back = self.clone();
            back.login = None;
            all.push(back.step(Event::Returned(user)));
        }
        match around {
            Around::Ceremonies if self.slot.holds.is_empty() => {
                all.push(self.clone().step(Event::Hold(other)));
            }
            Around::Ceremonies => all.push(self.clone().step(Event::Free(other))),
            Around::People => {
                // A person changes the target by hand and deposits the secret, or deposits a wrong one.
                let next = self.slot.next();
                let deposited = self.clone().step(deposit(next, CAROL));
                all.extend([deposited.clone().map(|model| model.set(next)), deposited]);
                if !self.slot.out.is_empty() {
                    let mut in_use = self.clone();
                    in_use.login = Some(self.target);
                    all.push(Some(in_use));
                }
                // What the requester says of a login may come late, but never after the return.
                if let Some(version) = self.login {
                    let mut said = self.clone();
                    said.login = None;
                    all.push(said.step(Event::Worked(version, user)));
                }
            }
        }
        all.push(self.clone().step(Event::Retry(person(ALICE))));
        all.into_iter().flatten().map(Self::canonical).collect()
    }

    fn check(&self) {
        let live: Vec<_> = self.slot.live().collect();
        assert!(
            live.contains(&self.target),
            "invariant 1: nobody can log in: {self:#?}"
        );
        assert!(
            self.late.is_none_or(|(version, _)| live.contains(&version)),
            "invariant 1: {self:#?}"
        );
        assert!(live.len() <= MAX_LIVE, "invariant 7: {self:#?}");
        let count = |want: fn(&keyturn_vault::rotation::Kept) -> bool| {
            self.slot
                .versions
                .values()
                .filter(|kept| want(kept))
                .count()
        };
        assert_eq!(
            count(|kept| kept.life.stage == Stage::Current),
            1,
            "{self:#?}"
        );
        let unproven =
            count(|kept| kept.life.stage == Stage::Candidate && kept.depositor.is_some());
        assert!(unproven <= 1, "invariant 7: {self:#?}");
        let writers = self
            .calls
            .iter()
            .filter(|call| matches!(call, Call::Apply(_)))
            .count();
        let other = |(version, _): (Version, Millis)| !self.calls.contains(&Call::Apply(version));
        assert!(
            writers <= 1 && (writers == 0 || !self.late.is_some_and(other)),
            "invariant 2: {self:#?}"
        );
    }

    /// Nothing more will happen by itself.
    fn quiet(&self) -> bool {
        self.calls.is_empty()
            && match self.slot.job {
                Job::Idle => !self.slot.is_due(),
                Job::Stuck(_) => true,
                Job::Sealing { .. }
                | Job::Copying { .. }
                | Job::Applying { .. }
                | Job::Testing { .. }
                | Job::BackingOff { .. }
                | Job::Promoted { .. }
                | Job::Listing { .. }
                | Job::Creating { .. }
                | Job::Deleting
                | Job::Revoking { .. } => false,
            }
    }

    /// The same state with the clock at `BASE`, the versions that are gone left out, and the others
    /// numbered from 1: so that the walk is finite.
    fn canonical(mut self) -> Self {
        self.check();
        // A moment has passed or has not.
        let shift = |moment: Millis| Millis(BASE + u64::from(moment.0 > BASE));
        let slot = &mut self.slot;
        slot.held_until = slot.held_until.map(shift);
        // Of these two only the order matters.
        let since = slot.current_since;
        for begun in slot.out.values_mut() {
            let before = since.is_some_and(|since| since >= *begun);
            *begun = Millis(if before { 0 } else { BASE });
        }
        slot.current_since = since.map(|_| Millis(BASE - HOLD.ms()));
        if let Some(retiring) = &mut slot.retiring {
            retiring.latest = shift(retiring.latest);
        }
        slot.versions.retain(|_, kept| kept.life.stage.live());
        let ranks: BTreeMap<Version, Version> =
            slot.versions.keys().copied().zip((1..).map(v)).collect();
        let next = ranks
            .values()
            .next_back()
            .map_or(Version::FIRST, |newest| newest.next());
        let rank = |version: Version| {
            ranks
                .range(version..)
                .next()
                .map_or(next, |(_, rank)| *rank)
        };
        let below = |version: Version| ranks.range(..=version).next_back().map(|(_, rank)| *rank);
        slot.versions = std::mem::take(&mut slot.versions)
            .into_iter()
            .map(|(version, kept)| (rank(version), kept))
            .collect();
        for (_, newest) in &mut slot.owed {
            *newest = newest.and_then(below);
        }
        slot.job = match slot.job {
            Job::Sealing { version } => Job::Sealing {
                version: rank(version),
            },
            Job::Copying { version } => Job::Copying {
                version: rank(version),
            },
            Job::Applying { version, until } => Job::Applying {
                version: rank(version),
                until: shift(until),
            },
            Job::Testing {
                version,
                until,
                last,
            } => Job::Testing {
                version: rank(version),
                until: shift(until),
                last,
            },
            Job::BackingOff { until } => Job::BackingOff {
                until: shift(until),
            },
            Job::Promoted { version } => Job::Promoted {
                version: rank(version),
            },
            job @ (Job::Idle
            | Job::Listing { .. }
            | Job::Creating { .. }
            | Job::Deleting
            | Job::Revoking { .. }
            | Job::Stuck(_)) => job,
        };
        if let Some(retiring) = &mut slot.retiring {
            retiring.proven = rank(retiring.proven);
            retiring.versions = retiring
                .versions
                .iter()
                .filter_map(|version| ranks.get(version).copied())
                .collect();
        }
        self.login = self.login.and_then(|version| ranks.get(&version).copied());
        let over = |(_, until): &(Version, Millis)| until.0 > BASE;
        slot.asked = slot
            .asked
            .map(|(version, until)| (rank(version), shift(until)))
            .filter(over);
        self.target = rank(self.target);
        self.late = self
            .late
            .map(|(version, until)| (rank(version), shift(until)));
        // A copy of a deposit changes nothing when it is done: nobody needs to remember it.
        let waits = |call: &Call| match *call {
            Call::Copy(version) => {
                matches!(self.slot.job, Job::Copying { version: copied } if copied == rank(version))
            }
            Call::Test(version) => {
                matches!(self.slot.job, Job::Testing { version: tested, .. } if tested == rank(version))
            }
            Call::Roll(_) | Call::Apply(_) | Call::EndSessions(_) => true,
        };
        self.calls = std::mem::take(&mut self.calls)
            .into_iter()
            .filter(waits)
            .map(|call| match call {
                Call::Roll(version) => Call::Roll(rank(version)),
                Call::Copy(version) => Call::Copy(rank(version)),
                Call::Apply(version) => Call::Apply(rank(version)),
                Call::Test(version) => Call::Test(rank(version)),
                Call::EndSessions(version) => Call::EndSessions(rank(version)),
            })
            .collect();
        if (1..=4).contains(&self.slot.failures) {
            // The pauses differ in their length only.
            self.slot.failures = 4;
        }
        self
    }
}

#[test]
fn whatever_fails_nobody_is_locked_out() {
    walk(Around::Ceremonies);
}

#[test]
fn whatever_people_do_meanwhile_nobody_is_locked_out() {
    walk(Around::People);
}

fn walk(around: Around) {
    let graph = Graph::walk(Model::start(), |model| model.successors(around), 60_000);
    let jobs: BTreeSet<_> = graph
        .states()
        .map(|state| word_of(state.slot.job))
        .collect();
    assert_eq!(jobs.len(), 10, "every job is reached: {jobs:?}");
    assert!(
        graph
            .states()
            .any(|state| state.slot.live().count() == MAX_LIVE)
    );
    for held in [
        |state: &Model| state.slot.held_until.is_some(),
        |state: &Model| {
            state
                .slot
                .retiring
                .as_ref()
                .is_some_and(|retiring| retiring.evidence.is_some())
        },
    ] {
        assert_eq!(graph.states().any(held), around == Around::Ceremonies);
    }
    assert!(graph.states().any(|state| state.late.is_some()));
    let endless = graph.cannot_reach(Model::quiet);
    assert!(endless.is_none(), "a run that cannot end: {endless:#?}");
}

fn word_of(job: Job) -> &'static str {
    match job {
        Job::Idle => "idle",
        Job::Sealing { .. } => "sealing",
        Job::Copying { .. } => "copying",
        Job::Applying { .. } => "applying",
        Job::Testing { last: false, .. } => "testing",
        Job::Testing { last: true, .. } => "testing again",
        Job::BackingOff { .. } => "backing off",
        Job::Promoted { .. } => "promoted",
        Job::Stuck(Stuck::Failures) => "stuck by failures",
        Job::Stuck(Stuck::Live) => "stuck by live versions",
        Job::Listing { .. }
        | Job::Creating { .. }
        | Job::Deleting
        | Job::Revoking { .. }
        | Job::Stuck(Stuck::Foreign | Stuck::Full) => "of two slots",
    }
}
