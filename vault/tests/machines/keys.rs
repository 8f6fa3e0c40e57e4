//! A target with two slots: a walk through everything that can go wrong with its keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    rotation::{deposit, run, seal, stages, terms as one_slot},
    tiny::*,
    walk::Graph,
};
use keyturn_vault::{
    digest::Digest,
    event::{Answer, Cause, Evidence, Stuck},
    machine::Millis,
    name::KeyId,
    reference::Version,
    rotation::{Effect, Event, HOLD, Job, Seen, Slot, Terms, Two},
    time::{Span, Time},
    world::Stage,
};

const QUOTA: usize = 2;
const BASE: u64 = 1_000_000_000_000;

fn terms() -> Terms {
    Terms {
        two: Some(Two {
            quota: QUOTA,
            settle: Span::from_secs(15),
        }),
        ..one_slot()
    }
}

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn id(number: u64) -> KeyId {
    format!("KEY{number}").parse().unwrap()
}

fn made(version: Version, key: KeyId) -> Event {
    Event::Made {
        version,
        key,
        manifest: Digest::of(b"manifest"),
        signature: seal(),
    }
}

/// A call that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    List(Version),
    Create(Version),
    Copy(Version),
    Test(Version),
    Deactivate(BTreeSet<KeyId>),
    Delete(KeyId),
}

/// Whose a key at the target is, in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    Ours,
    Foreign,
}

/// The slot, the target, and everything between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Model {
    pub(crate) slot: Slot,
    /// The keys at the target: whose, whether active, and the sealed version with its secret.
    pub(crate) target: BTreeMap<KeyId, (Whose, bool, Option<Version>)>,
    calls: BTreeSet<Call>,
    /// Whether a create may still take effect.
    late: bool,
    /// Whether somebody else has made a key; once is enough.
    strangers: u8,
    /// Whether keys that are made here bear a name that says so.
    names: bool,
}

#[derive(Clone, Copy)]
enum Moment {
    CreateOver,
    Job,
    Hold,
    Retiring,
}

impl Model {
    pub(crate) fn start(names: bool) -> Self {
        let slot = Slot::new(credential(1))
            .step(now(BASE), terms(), deposit(v(1), BOB))
            .state;
        let model = Self {
            slot,
            target: [(id(1), (Whose::Ours, true, Some(v(1))))].into(),
            calls: BTreeSet::new(),
            late: false,
            strangers: 0,
            names,
        };
        let claim = Event::Claim(Some(v(1)), id(1), person(ALICE));
        model.step(claim).unwrap().canonical()
    }

    pub(crate) fn step(mut self, event: Event) -> Option<Self> {
        let before = self.slot.clone();
        let step = self.slot.step(now(BASE), terms(), event);
        self.slot = step.state;
        let Ok(effects) = step.outcome else {
            assert_eq!(self.slot, before, "a refused event changes nothing");
            return None;
        };
        for effect in effects {
            let call = match effect {
                Effect::List(version) => Call::List(version),
                Effect::Create(version, _) => Call::Create(version),
                Effect::Copy(version) => Call::Copy(version),
                Effect::Test(version) => Call::Test(version),
                Effect::Deactivate(_, keys, _) => Call::Deactivate(keys),
                Effect::DeleteKey(key) => Call::Delete(key),
                Effect::Forget(version) => {
                    self.calls.remove(&Call::List(version));
                    // A create that is forgotten may still land.
                    self.late |= self.calls.remove(&Call::Create(version));
                    self.calls.remove(&Call::Copy(version));
                    self.calls.remove(&Call::Test(version));
                    continue;
                }
                Effect::Log(_) | Effect::Changed | Effect::Notify(_) | Effect::Delete(_) => {
                    continue;
                }
                Effect::Roll(_) | Effect::Apply(..) | Effect::EndSessions(..) => {
                    panic!("a target with two slots is never overwritten: {effect:?}")
                }
            };
            self.calls.insert(call);
        }
        Some(self)
    }

    pub(crate) fn crash(mut self) -> Option<Self> {
        self.late |= self
            .calls
            .iter()
            .any(|call| matches!(call, Call::Create(_)));
        self.calls.clear();
        self.step(Event::Restart)
    }

    fn fresh(&self) -> KeyId {
        (1..=9)
            .map(id)
            .find(|key| !self.target.contains_key(key) && !self.slot.keys.ours.contains_key(key))
            .unwrap()
    }

    /// The target makes a key, if it has room.
    fn make(mut self, whose: Whose, version: Option<Version>) -> Option<(Self, KeyId)> {
        if self.target.len() >= QUOTA {
            return None;
        }
        let key = self.fresh();
        self.target.insert(key.clone(), (whose, true, version));
        Some((self, key))
    }

    fn seen(&self) -> BTreeMap<KeyId, Seen> {
        let seen = |whose, active| Seen {
            active,
            named: self.names && whose == Whose::Ours,
        };
        self.target
            .iter()
            .map(|(key, (whose, active, _))| (key.clone(), seen(*whose, *active)))
            .collect()
    }

    /// Done; failed; failed but took effect, at once or later; crashed before or after the effect.
    fn answers(&self, call: &Call) -> Vec<Option<Self>> {
        let mut model = self.clone();
        model.calls.remove(call);
        match call {
            Call::List(_) => vec![
                model.clone().step(Event::Listed(model.seen())),
                model.clone().step(Event::NotListed(Answer::Refused)),
                model.clone().step(Event::NotListed(Answer::Unclear)),
                model.crash(),
            ],
            Call::Create(version) => {
                let mut late = model.clone();
                late.late = true;
                let sealed = model.clone().make(Whose::Ours, Some(*version));
                let lost = model.clone().make(Whose::Ours, None);
                vec![
                    sealed.and_then(|(model, key)| model.step(made(*version, key))),
                    lost.clone()
                        .and_then(|(model, key)| model.step(Event::Unsealed(key))),
                    lost.clone()
                        .and_then(|(model, _)| model.step(Event::NotMade(Answer::Unclear))),
                    lost.and_then(|(model, _)| model.crash()),
                    model.clone().step(Event::NotMade(Answer::Refused)),
                    model.clone().step(Event::NotMade(Answer::Unclear)),
                    late.clone().step(Event::NotMade(Answer::Unclear)),
                    late.crash(),
                    model.crash(),
                ]
            }
            Call::Copy(_) => vec![
                model.clone().step(Event::Copied).or(Some(model.clone())),
                model.crash(),
            ],
            Call::Test(version) => {
                let works = |(_, active, of): &(Whose, bool, Option<Version>)| {
                    *active && *of == Some(*version)
                };
                let truth = if self.target.values().any(works) {
                    Answer::Done
                } else {
                    Answer::Refused
                };
                vec![
                    model.clone().step(Event::Tested(truth)),
                    model.clone().step(Event::Tested(Answer::Refused)),
                    model.clone().step(Event::Tested(Answer::Unclear)),
                    model.crash(),
                ]
            }
            Call::Deactivate(keys) => {
                let mut done = model.clone();
                for key in keys {
                    if let Some((whose, active, _)) = done.target.get_mut(key) {
                        assert_eq!(*whose, Whose::Ours, "invariant 1: {self:#?}");
                        *active = false;
                    }
                }
                vec![
                    done.clone()
                        .step(Event::SessionsEnded(Evidence::NotObservable)),
                    done.clone().step(Event::StillActive(Answer::Unclear)),
                    done.crash(),
                    model.clone().step(Event::StillActive(Answer::Refused)),
                    model.clone().step(Event::StillActive(Answer::Unclear)),
                    model.crash(),
                ]
            }
            Call::Delete(key) => {
                let mut done = model.clone();
                let gone = done.target.remove(key);
                assert!(
                    gone.is_none_or(|(whose, ..)| whose == Whose::Ours),
                    "invariant 1: {self:#?}"
                );
                vec![
                    done.clone().step(Event::KeyDeleted(Answer::Done)),
                    done.clone().step(Event::KeyDeleted(Answer::Unclear)),
                    done.crash(),
                    model.clone().step(Event::KeyDeleted(Answer::Refused)),
                    model.clone().step(Event::KeyDeleted(Answer::Unclear)),
                    model.crash(),
                ]
            }
        }
    }

    fn pass(&self, moment: Moment) -> Option<Self> {
        let mut model = self.clone();
        let passed = Millis(BASE);
        let slot = &mut model.slot;
        match moment {
            Moment::CreateOver => {
                slot.asked.take()?;
                model.late = false;
                if let Job::Creating { until, .. } = &mut slot.job {
                    *until = passed;
                    model.calls.retain(|call| !matches!(call, Call::Create(_)));
                }
            }
            Moment::Job => match &mut slot.job {
                Job::Testing { until, .. }
                | Job::BackingOff { until }
                | Job::Revoking { until, .. }
                    if *until > passed =>
                {
                    *until = passed;
                }
                _ => return None,
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

    fn successors(&self) -> Vec<Self> {
        let mut all = self.at_the_target();
        all.extend(self.by_people());
        all.into_iter().map(Self::canonical).collect()
    }

    /// Whatever the target, time, an operator and strangers do.
    pub(crate) fn at_the_target(&self) -> Vec<Self> {
        let mut all: Vec<Option<Self>> = self
            .calls
            .iter()
            .flat_map(|call| self.answers(call))
            .collect();
        if self.late {
            let landed = self.clone().make(Whose::Ours, None);
            all.push(landed.map(|(mut model, _)| {
                model.late = false;
                model
            }));
        }
        let moments = [
            Moment::CreateOver,
            Moment::Job,
            Moment::Hold,
            Moment::Retiring,
        ];
        all.extend(moments.map(|moment| self.pass(moment)));
        all.push(self.clone().step(Event::Tick));
        all.push(self.clone().crash());
        // Somebody else makes a key, also while a create of ours is not answered.
        if self.strangers == 0 {
            all.push(
                self.clone()
                    .make(Whose::Foreign, None)
                    .map(|(mut model, _)| {
                        model.strangers = 1;
                        model
                    }),
            );
        }
        // An operator removes a foreign key, or says that one is not, and has a stuck rotation tried again.
        let mut cleaned = self.clone();
        cleaned
            .target
            .retain(|_, (whose, ..)| *whose == Whose::Ours);
        all.push(Some(cleaned));
        let in_truth = |key: &KeyId| self.target.get(key).map(|(whose, ..)| *whose);
        for key in self.slot.keys.foreign.keys() {
            if in_truth(key) == Some(Whose::Ours) {
                let claim = Event::Claim(None, key.clone(), person(ALICE));
                all.push(self.clone().step(claim));
            }
        }
        all.push(self.clone().step(Event::Retry(person(ALICE))));
        all.into_iter().flatten().collect()
    }

    /// Whatever ceremonies and check-outs do to the slot.
    fn by_people(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let (user, other) = (ceremony_id(1), ceremony_id(2));
        if self.slot.out.is_empty() {
            let opened = self.clone().step(Event::Owe(Cause::Unseal(user)));
            all.push(opened.and_then(|model| model.step(Event::Out(user))));
        } else {
            all.push(self.clone().step(Event::Returned(user)));
        }
        if self.slot.holds.is_empty() {
            all.push(self.clone().step(Event::Hold(other)));
        } else {
            all.push(self.clone().step(Event::Free(other)));
        }
        all.into_iter().flatten().collect()
    }

    pub(crate) fn check(&self) {
        let live: Vec<_> = self.slot.live().collect();
        let opens = |(_, active, of): &(Whose, bool, Option<Version>)| {
            *active && of.is_some_and(|of| live.contains(&of))
        };
        assert!(
            self.target.values().any(opens),
            "nobody can log in with a live version: {self:#?}"
        );
        let current = self.slot.current().unwrap();
        let works =
            |(_, active, of): &(Whose, bool, Option<Version>)| *active && *of == Some(current);
        assert!(
            self.target.values().any(works),
            "the current version works: {self:#?}"
        );
        for (key, of) in &self.slot.keys.ours {
            let Some((whose, ..)) = self.target.get(key) else {
                continue;
            };
            assert_eq!(*whose, Whose::Ours, "{key} of {of:?}: {self:#?}");
        }
        assert!(live.len() <= 2, "one candidate at a time: {self:#?}");
    }

    /// Nothing more will happen by itself.
    pub(crate) fn quiet(&self) -> bool {
        self.calls.is_empty()
            && match self.slot.job {
                Job::Idle => {
                    !self.slot.is_due() && self.slot.keys.ours.values().all(Option::is_some)
                }
                Job::Stuck(_) => true,
                _ => false,
            }
    }

    /// The same state with the clock at `BASE`: moments have passed or have not.
    pub(crate) fn still(mut self) -> Self {
        self.check();
        let shift = |moment: Millis| Millis(BASE + u64::from(moment.0 > BASE));
        let slot = &mut self.slot;
        slot.held_until = slot.held_until.map(shift);
        slot.current_since = slot.current_since.map(|_| Millis(BASE - HOLD.ms()));
        for begun in slot.out.values_mut() {
            *begun = Millis(BASE);
        }
        if let Some(retiring) = &mut slot.retiring {
            retiring.latest = shift(retiring.latest);
        }
        for kept in slot.versions.values_mut() {
            kept.retired = kept.retired.map(|_| Millis(BASE));
            kept.depositor = None;
            // What a rotation proved differs from a proven deposit in nothing here.
            kept.life.rolled |= kept.life.proven;
        }
        slot.asked = slot
            .asked
            .map(|(version, until)| (version, shift(until)))
            .filter(|(_, until)| until.0 > BASE);
        if let Job::Creating { until, .. }
        | Job::Testing { until, .. }
        | Job::Revoking { until, .. }
        | Job::BackingOff { until } = &mut slot.job
        {
            *until = shift(*until);
        }
        let copying = matches!(slot.job, Job::Copying { .. });
        self.calls
            .retain(|call| copying || !matches!(call, Call::Copy(_)));
        if (1..=4).contains(&slot.failures) {
            slot.failures = 4;
        }
        self
    }

    /// The same, and versions that are gone or have no key left out; the others, and the keys, numbered
    /// from 1.
    fn canonical(self) -> Self {
        let mut model = self.still();
        let slot = &mut model.slot;
        let keys = &slot.keys;
        slot.versions
            .retain(|version, kept| kept.life.stage.live() || keys.of(*version).is_some());
        let ranks: BTreeMap<Version, Version> =
            slot.versions.keys().copied().zip((1..).map(v)).collect();
        let next = v(u64::try_from(ranks.len()).unwrap() + 1);
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
        let mut names: BTreeMap<KeyId, KeyId> = BTreeMap::new();
        let known: BTreeSet<KeyId> = model
            .target
            .keys()
            .chain(slot.keys.ours.keys())
            .cloned()
            .collect();
        for (key, number) in known.into_iter().zip(1..) {
            names.insert(key, id(number));
        }
        let name = |key: &KeyId| names.get(key).cloned();
        model.target = std::mem::take(&mut model.target)
            .into_iter()
            .filter_map(|(key, (whose, active, of))| {
                let of = of.and_then(|of| ranks.get(&of).copied());
                Some((name(&key)?, (whose, active, of)))
            })
            .collect();
        slot.keys.ours = std::mem::take(&mut slot.keys.ours)
            .into_iter()
            .filter_map(|(key, of)| Some((name(&key)?, of.map(rank))))
            .collect();
        slot.keys.deleting = slot.keys.deleting.as_ref().and_then(name);
        if let Some(before) = &mut slot.keys.asked {
            *before = before.iter().filter_map(name).collect();
        }
        slot.keys.foreign = std::mem::take(&mut slot.keys.foreign)
            .into_iter()
            .filter_map(|(key, perhaps)| Some((name(&key)?, perhaps)))
            .collect();
        if let Some((version, _)) = &mut slot.asked {
            *version = rank(*version);
        }
        if let Job::Listing { version }
        | Job::Creating { version, .. }
        | Job::Copying { version }
        | Job::Testing { version, .. }
        | Job::Promoted { version }
        | Job::Revoking { version, .. } = &mut slot.job
        {
            *version = rank(*version);
        }
        if let Some(retiring) = &mut slot.retiring {
            retiring.proven = rank(retiring.proven);
            retiring.versions = retiring
                .versions
                .iter()
                .filter_map(|version| ranks.get(version).copied())
                .collect();
        }
        model.calls = std::mem::take(&mut model.calls)
            .into_iter()
            .map(|call| match call {
                Call::List(version) => Call::List(rank(version)),
                Call::Create(version) => Call::Create(rank(version)),
                Call::Copy(version) => Call::Copy(rank(version)),
                Call::Test(version) => Call::Test(rank(version)),
                Call::Deactivate(keys) => Call::Deactivate(keys.iter().filter_map(name).collect()),
                Call::Delete(key) => Call::Delete(name(&key).unwrap_or(key)),
            })
            .collect();
        model
    }
}

/// Whether a state is one that the walk must see.
type Reached = fn(&Model) -> bool;

#[test]
fn whatever_fails_nobody_is_locked_out_and_no_foreign_key_is_touched() {
    for names in [true, false] {
        walk(names);
    }
}

fn walk(names: bool) {
    let graph = Graph::walk(Model::start(names), Model::successors, 400_000);
    let jobs: BTreeSet<_> = graph
        .states()
        .map(|state| word_of(state.slot.job))
        .collect();
    assert_eq!(
        jobs.into_iter().collect::<Vec<_>>(),
        [
            "backing off",
            "copying",
            "creating",
            "deleting",
            "idle",
            "listing",
            "promoted",
            "revoking",
            "stuck by a foreign key",
            "stuck by failures",
            "testing",
        ],
        "every job is reached"
    );
    let reached: [(&str, Reached); 6] = [
        ("a lost key", |state| {
            state.slot.keys.ours.values().any(Option::is_none)
        }),
        ("a late create", |state| state.late),
        ("a foreign key", |state| state.strangers == 1),
        ("a foreign key that came when a create was lost", |state| {
            let perhaps = |(key, perhaps): (&KeyId, &bool)| {
                let whose = state.target.get(key).map(|(whose, ..)| *whose);
                *perhaps && whose == Some(Whose::Foreign)
            };
            state.slot.keys.foreign.iter().any(perhaps)
        }),
        ("held", |state| state.slot.held_until.is_some()),
        ("a retired version that still has its key", |state| {
            let retired = |kept: &keyturn_vault::rotation::Kept| kept.life.stage == Stage::Retired;
            state.slot.versions.values().any(retired)
        }),
    ];
    for (name, reached) in reached {
        assert!(graph.states().any(reached), "{name} is reached");
    }
    let endless = graph.cannot_reach(Model::quiet);
    assert!(endless.is_none(), "a run that cannot end: {endless:#?}");
    let settled =
        |state: &Model| state.quiet() && state.slot.owed.is_empty() && state.slot.job == Job::Idle;
    let helpless = graph.cannot_reach(settled);
    assert!(helpless.is_none(), "an operator cannot help: {helpless:#?}");
}

fn word_of(job: Job) -> &'static str {
    match job {
        Job::Idle => "idle",
        Job::Listing { .. } => "listing",
        Job::Creating { .. } => "creating",
        Job::Deleting => "deleting",
        Job::Copying { .. } => "copying",
        Job::Testing { .. } => "testing",
        Job::BackingOff { .. } => "backing off",
        Job::Promoted { .. } => "promoted",
        Job::Revoking { .. } => "revoking",
        Job::Stuck(Stuck::Failures) => "stuck by failures",
        Job::Stuck(Stuck::Live) => "stuck by live versions",
        Job::Stuck(Stuck::Foreign) => "stuck by a foreign key",
        Job::Stuck(Stuck::Full) => "stuck by a full target",
        Job::Sealing { .. } | Job::Applying { .. } => "of one slot",
    }
}

#[test]
fn keys_go_their_way() {
    let seen = |keys: &[(u64, bool, bool)]| {
        let seen = |(key, active, named): &(u64, bool, bool)| {
            let (active, named) = (*active, *named);
            (id(*key), Seen { active, named })
        };
        Event::Listed(keys.iter().map(seen).collect())
    };
    let due = || {
        vec![
            (0, Event::Claim(Some(v(1)), id(1), person(ALICE))),
            (1, Event::Owe(Cause::Unseal(ceremony_id(1)))),
            (2, Event::Tick),
        ]
    };
    let with = |more: Vec<(u64, Event)>| {
        let mut events = due();
        events.extend(more);
        events
    };
    let one = || seen(&[(1, true, false)]);
    let claim = |version, key| Event::Claim(version, id(key), person(ALICE));
    let sealed = || vec![(3, one()), (4, made(v(2), id(2))), (5, Event::Copied)];
    let unclear = |then: Event| {
        with(vec![
            (3, one()),
            (4, Event::NotMade(Answer::Unclear)),
            (100, Event::Tick),
            (101, then),
        ])
    };
    let doubtful = |more: Vec<(u64, Event)>| {
        let mut events = unclear(seen(&[(1, true, false), (2, true, false)]));
        events.extend(more);
        events
    };
    let worked = || {
        let mut events = with(sealed());
        events.push((6, Event::Tested(Answer::Done)));
        events
    };
    let promoted = |more: Vec<(u64, Event)>| {
        let mut events = worked();
        events.extend(more);
        events
    };
    for (name, events, want_stages, want) in [
        ("due", due(), "C", "list-v2"),
        (
            "known",
            with(vec![(3, one())]),
            "C",
            "rotation.keys-listed create-v2",
        ),
        (
            "a key that nobody knows",
            with(vec![(3, seen(&[(1, true, false), (7, true, false)]))]),
            "C",
            "rotation.keys-listed forget-v2 rotation.needs-operator notify",
        ),
        (
            "made and sealed",
            with(sealed()[..2].to_vec()),
            "Cc",
            "rotation.key-made version.sealed rotation.started changed copy-v2",
        ),
        (
            "used once there are copies",
            with(sealed()),
            "Cc",
            "test-v2",
        ),
        (
            "made, and not sealed",
            with(vec![(3, one()), (4, Event::Unsealed(id(2)))]),
            "C",
            "rotation.key-lost forget-v2 rotation.key-failed notify",
        ),
        (
            "no answer, and no new key",
            unclear(one()),
            "C",
            "rotation.keys-listed create-v2",
        ),
        (
            "no answer, and one new key of our name",
            unclear(seen(&[(1, true, false), (2, true, true)])),
            "C",
            "rotation.key-lost rotation.keys-listed forget-v2 delete-KEY2",
        ),
        (
            "no answer, and one new key that may be anybody's",
            doubtful(vec![]),
            "C",
            "rotation.keys-listed forget-v2 rotation.needs-operator notify",
        ),
        (
            "no answer, and two new keys",
            unclear(seen(&[(1, true, false), (2, true, true), (3, true, false)])),
            "C",
            "rotation.key-lost rotation.keys-listed forget-v2 rotation.needs-operator notify",
        ),
        (
            "an operator says that it is ours",
            doubtful(vec![(102, claim(None, 2))]),
            "C",
            "rotation.key-lost",
        ),
        (
            "which has it deleted",
            doubtful(vec![
                (102, claim(None, 2)),
                (103, Event::Retry(person(ALICE))),
                (104, Event::Tick),
                (105, seen(&[(1, true, false), (2, true, false)])),
            ]),
            "C",
            "rotation.keys-listed forget-v2 delete-KEY2",
        ),
        (
            "an operator says so of a key that nobody has seen",
            doubtful(vec![(102, claim(None, 3))]),
            "C",
            "not-claimable",
        ),
        (
            "an operator says so of the current version's",
            doubtful(vec![(102, claim(None, 1))]),
            "C",
            "not-claimable",
        ),
        (
            "an answer when its time is over",
            with(vec![
                (3, one()),
                (99, Event::Tick),
                (100, made(v(2), id(2))),
            ]),
            "C",
            "not-running",
        ),
        (
            "it works",
            worked(),
            "sC",
            "rotation.attempted rotation.promoted changed forget-v2 deactivate-KEY1-v2",
        ),
        (
            "the old one is still active",
            promoted(vec![(7, Event::StillActive(Answer::Unclear))]),
            "sC",
            "rotation.key-failed notify",
        ),
        (
            "and is tried again",
            promoted(vec![
                (7, Event::StillActive(Answer::Unclear)),
                (99, Event::Tick),
            ]),
            "sC",
            "deactivate-KEY1-v2",
        ),
        (
            "seen inactive",
            promoted(vec![(7, Event::SessionsEnded(Evidence::NotObservable))]),
            "rC",
            "rotation.done notify changed",
        ),
        (
            "deleted after the quarantine",
            promoted(vec![
                (7, Event::SessionsEnded(Evidence::NotObservable)),
                (8, Event::Tick),
            ]),
            "rC",
            "delete-KEY1",
        ),
        (
            "then the version is destroyed",
            promoted(vec![
                (7, Event::SessionsEnded(Evidence::NotObservable)),
                (8, Event::Tick),
                (9, Event::KeyDeleted(Answer::Done)),
            ]),
            "dC",
            "rotation.key-deleted version.destroyed delete-v1",
        ),
        (
            "claimed twice",
            vec![(0, claim(Some(v(1)), 1)), (1, claim(Some(v(1)), 2))],
            "C",
            "not-claimable",
        ),
    ] {
        let (slot, last) = run(terms(), crate::rotation::one(), events);
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
fn a_target_without_room_for_a_key_needs_an_operator() {
    let room = |quota| Terms {
        two: terms().two.map(|two| Two { quota, ..two }),
        ..terms()
    };
    for (name, quota, stuck, want) in [
        (
            "full",
            1,
            Some("stuck by a full target"),
            "rotation.keys-listed forget-v2 rotation.needs-operator notify",
        ),
        ("room for one", 2, None, "rotation.keys-listed create-v2"),
    ] {
        let key = Seen {
            active: true,
            named: false,
        };
        let events = vec![
            (0, Event::Claim(Some(v(1)), id(1), person(ALICE))),
            (1, Event::Owe(Cause::Unseal(ceremony_id(1)))),
            (2, Event::Tick),
            (3, Event::Listed([(id(1), key)].into())),
        ];
        let (slot, last) = run(room(quota), crate::rotation::one(), events);
        assert_eq!(
            (stages(&slot).as_str(), last.as_str()),
            ("C", want),
            "{name}"
        );
        let word = Some(word_of(slot.job)).filter(|word| word.starts_with("stuck"));
        assert_eq!(word, stuck, "{name}");
    }
}

#[test]
fn what_is_paused_waits() {
    let owed = (1, Event::Owe(Cause::Unseal(ceremony_id(1))));
    let pause = || {
        let until = (Millis(60_000), Time::from_ms(60_000));
        (1, Event::Pause(until, person(ALICE)))
    };
    for (name, all, events, want) in [
        (
            "not paused",
            None,
            vec![owed.clone(), (2, Event::Tick)],
            "roll-v2",
        ),
        (
            "paused",
            None,
            vec![owed.clone(), pause(), (2, Event::Tick)],
            "",
        ),
        (
            "over",
            None,
            vec![owed.clone(), pause(), (61, Event::Tick)],
            "roll-v2",
        ),
        (
            "resumed",
            None,
            vec![
                owed.clone(),
                pause(),
                (2, Event::Resume(person(ALICE))),
                (3, Event::Tick),
            ],
            "roll-v2",
        ),
        (
            "never paused",
            None,
            vec![(2, Event::Resume(person(ALICE)))],
            "not-paused",
        ),
        (
            "all are",
            Some(Millis(60_000)),
            vec![owed.clone(), (2, Event::Tick)],
            "",
        ),
        (
            "all were",
            Some(Millis(60_000)),
            vec![owed, (61, Event::Tick)],
            "roll-v2",
        ),
    ] {
        let terms = Terms {
            paused: all,
            ..one_slot()
        };
        let (_, last) = run(terms, crate::rotation::one(), events);
        assert_eq!(last, want, "{name}");
    }
}
