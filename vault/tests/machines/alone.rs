//! One person against the vault: bob is custodian (also of the governing group), requester and
//! operator, has two tokens, and does whatever he can, in any order, while time passes, the daemon
//! restarts and rotations run.
//!
//! # What is shown
//! 1. Nothing is ever opened.
//! 2. Nothing is ever changed: no charter, no other purpose takes force, no version of his becomes
//!    current, none that works retires.
//! 3. In every state the two others open the credential with a new request, and with alice's request
//!    that was open before bob began, unless a rotation has made it stale.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::{
    rotation::{deposit, one, sealed, terms},
    tiny::*,
    walk::Graph,
};
use keyturn_vault::{
    ceremony::{Base, Ceremony, Effect, End, Event, Purpose, State},
    charter::{Role, Token},
    digest::Digest,
    event::{Answer, Cause, Event as Entry, Evidence},
    machine::Millis,
    reference::{TokenKind, Version},
    rotation::{self, Job, Slot},
    world::{Life, Sealed, VersionId},
};

/// Where every state's clock stands.
const BASE: u64 = 1_000_000_000_000;
const SPARE: u8 = 11;

/// The ceremonies in which bob can have a hand.
const ALICES: usize = 0;
const HIS: usize = 1;
const CHANGE: usize = 2;

/// The worlds that were made, by the lives of the versions in them.
type Worlds = BTreeMap<Vec<(Version, Life)>, Rc<Tiny>>;

thread_local! {
    /// Worlds are few and cost more than steps.
    static TINIES: RefCell<Worlds> = const { RefCell::new(BTreeMap::new()) };
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    ceremonies: [Option<Ceremony<u8>>; 3],
    slot: Slot,
    call: Option<(&'static str, Version)>,
    target: Version,
    asked: bool,
}

impl Model {
    fn start() -> Self {
        let mut slot = one();
        slot.current_since = Some(Millis(0));
        let mut model = Self {
            ceremonies: [None, None, None],
            slot,
            call: None,
            target: Version::FIRST,
            asked: false,
        };
        let tiny = model.tiny();
        let request = tiny.request(1, &[1]);
        let opened = Ceremony::open(now(BASE), tiny.world(), request, 0).unwrap();
        model.ceremonies[ALICES] = Some(opened.0);
        model.normalise();
        model
    }

    fn tiny(&self) -> Rc<Tiny> {
        let key: Vec<_> = self
            .slot
            .versions
            .iter()
            .map(|(version, kept)| (*version, kept.life))
            .collect();
        TINIES.with_borrow_mut(|known| {
            known
                .entry(key)
                .or_insert_with(|| Rc::new(self.make_tiny()))
                .clone()
        })
    }

    fn make_tiny(&self) -> Tiny {
        let mut tiny = Tiny::new();
        let bob = &mut tiny.charter.persons[0];
        bob.roles.extend([Role::Requester, Role::Operator]);
        bob.tokens.push(Token {
            id: token(SPARE),
            kind: TokenKind::Software,
            serial: None,
            approval_key: key(SPARE),
            share_key: share_key(SPARE),
            attestation: None,
        });
        tiny.policy().requester_may_approve = true;
        tiny.in_force = reference(&tiny.charter);
        let versions = self.slot.versions.iter().map(|(version, kept)| {
            let line = VersionId {
                credential: credential(1),
                version: *version,
            };
            let manifest = manifest(line, 2, &[BOB, CAROL, DAVE], &tiny.charter);
            (
                *version,
                Sealed {
                    life: kept.life,
                    digest: commitment(line, 0),
                    manifest: manifest.into(),
                },
            )
        });
        tiny.holdings.get_mut(&credential(1)).unwrap().versions = versions.collect();
        tiny
    }

    /// Steps a ceremony; false where it is refused.
    fn step(&mut self, which: usize, event: Event<u8>) -> bool {
        let Some(ceremony) = self.ceremonies[which].take() else {
            return false;
        };
        let before = ceremony.clone();
        let step = ceremony.step(now(BASE), self.tiny().world(), event);
        self.ceremonies[which] = Some(step.state);
        let Ok(effects) = step.outcome else {
            assert_eq!(
                self.ceremonies[which],
                Some(before),
                "a refused event changes nothing"
            );
            return false;
        };
        let id = self.ceremonies[which].as_ref().unwrap().row.id;
        for effect in effects {
            match effect {
                Effect::Combine(_) => panic!("shown 1: {self:#?}"),
                Effect::Apply => panic!("shown 2: {self:#?}"),
                Effect::HoldRotation(_) => self.rotate(rotation::Event::Hold(id)),
                Effect::FreeRotation(_) => self.rotate(rotation::Event::Free(id)),
                Effect::Log(entry) => {
                    let quiet = !matches!(
                        entry,
                        Entry::UnsealAuthorized { .. } | Entry::CeremonyApplied { .. }
                    );
                    assert!(quiet, "shown 1 and 2");
                }
                Effect::CheckOut(..)
                | Effect::OweRotation(_)
                | Effect::EndCheckOut
                | Effect::Notify(_)
                | Effect::MakeSubmitKey
                | Effect::KeepRelease
                | Effect::Publish
                | Effect::EraseRelease
                | Effect::EraseSubmitKey => {}
            }
        }
        true
    }

    fn rotate(&mut self, event: rotation::Event) {
        let step = self.slot.clone().step(now(BASE), terms(), event);
        self.slot = step.state;
        let mut changed = false;
        for effect in step.outcome.unwrap_or_default() {
            match effect {
                rotation::Effect::Changed => changed = true,
                rotation::Effect::Roll(version) => self.call = Some(("roll", version)),
                rotation::Effect::Copy(version) => self.call = Some(("copy", version)),
                rotation::Effect::Apply(version, _) => self.call = Some(("apply", version)),
                rotation::Effect::Test(version) => self.call = Some(("test", version)),
                rotation::Effect::EndSessions(version, _) => self.call = Some(("end", version)),
                rotation::Effect::List(_)
                | rotation::Effect::Create(..)
                | rotation::Effect::Deactivate(..)
                | rotation::Effect::DeleteKey(_) => panic!("of two slots: {effect:?}"),
                rotation::Effect::Log(_)
                | rotation::Effect::Notify(_)
                | rotation::Effect::Forget(_)
                | rotation::Effect::Delete(_) => {}
            }
        }
        if changed {
            self.step(ALICES, Event::Changed);
            self.step(HIS, Event::Changed);
        }
    }

    /// What bob says in a ceremony, with one of his tokens, as himself or (which is forged) as carol.
    fn say(&self, which: usize, as_whom: u8, with: u8) -> Option<Event<u8>> {
        let row = &self.ceremonies[which].as_ref()?.row;
        let mut vote = self.tiny().vote(row.request, &row.ask.lines, as_whom);
        vote.token = token(with);
        vote.key = key(with).pin();
        vote.text = Digest::of(&[*row.request.as_bytes(), [with; 32]].concat());
        Some(approve(vote))
    }

    fn successors(&self, his: usize) -> Vec<Self> {
        let mut all = Vec::new();
        let mut try_to = |act: &dyn Fn(&mut Self) -> bool| {
            let mut model = self.clone();
            if act(&mut model) {
                model.normalise();
                all.push(model);
            }
        };
        for which in [ALICES, his] {
            for (as_whom, with) in [
                (BOB, BOB),
                (BOB, SPARE),
                (CAROL, BOB),
                (CAROL, SPARE),
                (ALICE, SPARE),
            ] {
                try_to(&|model| {
                    model
                        .say(which, as_whom, with)
                        .is_some_and(|event| model.step(which, event))
                });
            }
            try_to(&|model| {
                let Some(ceremony) = &model.ceremonies[which] else {
                    return false;
                };
                let shares = model.tiny().shares(&ceremony.row.ask.lines, BOB);
                model.step(which, Event::Submit(person(BOB), shares))
            });
            for earlier in [false, true] {
                try_to(&|model| {
                    let Some(ceremony) = &model.ceremonies[which] else {
                        return false;
                    };
                    let row = &ceremony.row;
                    let stands = row.said.stands(person(BOB));
                    let voice = voice(row.request, BOB, earlier.then_some(stands).flatten());
                    model.step(
                        which,
                        if earlier {
                            Event::Retract(voice)
                        } else {
                            Event::Refuse(voice)
                        },
                    )
                });
            }
            try_to(&|model| model.step(which, Event::Withdraw(person(BOB))));
            try_to(&|model| model.step(which, Event::Fetch(person(BOB))));
            try_to(&|model| {
                // Its time is over.
                match model.ceremonies[which]
                    .as_mut()
                    .map(|ceremony| &mut ceremony.row.state)
                {
                    Some(State::Open { until } | State::Approved { until }) => {
                        *until = Millis(BASE);
                    }
                    _ => return false,
                }
                model.step(which, Event::Tick)
            });
        }
        if his == HIS {
            try_to(&|model| model.open(HIS, Purpose::Unseal));
            self.rotations(&mut try_to);
        } else {
            try_to(&|model| model.open(CHANGE, Purpose::Change));
            try_to(&|model| model.open(CHANGE, Purpose::Erase));
        }
        all
    }

    fn open(&mut self, which: usize, purpose: Purpose) -> bool {
        if self.ceremonies[which]
            .as_ref()
            .is_some_and(|ceremony| !ceremony.row.state.is_final())
        {
            return false;
        }
        let tiny = self.tiny();
        let opens = purpose.opens();
        let mut request = tiny.request(
            u8::try_from(which).unwrap() + 1,
            if opens { &[1] } else { &[] },
        );
        request.ask.requester = person(BOB);
        request.purpose = purpose;
        request.base = (purpose == Purpose::Change).then_some(Base::Charter(tiny.in_force));
        request.ask.needs = BTreeSet::from_iter((!opens).then(|| group("ops")));
        let opened = Ceremony::open(now(BASE), tiny.world(), request, 0);
        let done = opened.is_ok();
        self.ceremonies[which] = opened
            .ok()
            .map(|(ceremony, _)| ceremony)
            .or(self.ceremonies[which].take());
        done
    }

    /// Bob deposits and asks for rotations; these run, and the daemon restarts.
    fn rotations(&self, try_to: &mut impl FnMut(&dyn Fn(&mut Self) -> bool)) {
        try_to(&|model| {
            let before = model.slot.clone();
            model.rotate(deposit(before.next(), BOB));
            model.slot != before && before.next().number() <= 4
        });
        for version in self.slot.live() {
            try_to(&|model| {
                model.rotate(rotation::Event::Worked(version, ceremony_id(2)));
                true
            });
        }
        try_to(&|model| {
            if std::mem::replace(&mut model.asked, true) {
                return false;
            }
            model.rotate(rotation::Event::Owe(Cause::Asked(person(BOB))));
            true
        });
        for event in [rotation::Event::Retry(person(BOB)), rotation::Event::Tick] {
            try_to(&|model| {
                model.rotate(event.clone());
                true
            });
        }
        try_to(&|model| {
            *model.slot.held_until.get_or_insert_default() = Millis(BASE);
            model.rotate(rotation::Event::Tick);
            true
        });
        try_to(&|model| {
            let Some((call, version)) = model.call.take() else {
                return false;
            };
            match call {
                "roll" => model.rotate(sealed(version)),
                "copy" => model.rotate(rotation::Event::Copied),
                "apply" => {
                    model.target = version;
                    model.rotate(rotation::Event::Applied(Answer::Done));
                }
                "test" => model.rotate(rotation::Event::Tested(Answer::Done)),
                _ => model.rotate(rotation::Event::SessionsEnded(Evidence::NotObservable)),
            }
            true
        });
        try_to(&|model| {
            let applying = matches!(model.slot.job, Job::Idle | Job::Promoted { .. });
            model.rotate(rotation::Event::Restart);
            for which in [ALICES, HIS, CHANGE] {
                model.step(which, Event::Restart);
            }
            applying
        });
    }

    /// Moments have passed or have not; what nobody looks at any more is left out.
    fn normalise(&mut self) {
        let shift = |moment: &mut Millis| *moment = Millis(BASE + u64::from(moment.0 > BASE));
        self.slot.asked = None;
        self.slot.held_until.iter_mut().for_each(shift);
        self.slot.current_since = Some(Millis(0));
        self.slot
            .versions
            .values_mut()
            .for_each(|kept| kept.retired = kept.retired.map(|_| Millis(0)));
        if let Some(retiring) = &mut self.slot.retiring {
            shift(&mut retiring.latest);
        }
        if let Job::Applying { until, .. }
        | Job::Testing { until, .. }
        | Job::BackingOff { until } = &mut self.slot.job
        {
            shift(until);
        }
        for ceremony in self.ceremonies.iter_mut().flatten() {
            ceremony.row.said.spent.clear();
            if ceremony.row.state.is_final() {
                ceremony.row.said.votes.clear();
                ceremony.row.said.refused.clear();
                ceremony.row.ask.lines.clear();
            }
        }
        for which in [HIS, CHANGE] {
            // What has ended cannot be told from what never was.
            self.ceremonies[which].take_if(|ceremony| ceremony.row.state.is_final());
        }
    }

    fn check(&self) {
        let current = self.slot.current().unwrap();
        let kept = self.slot.versions[&current];
        assert!(
            current == Version::FIRST || kept.life.rolled,
            "shown 2: {self:#?}"
        );
        assert!(
            self.slot.live().any(|version| version == self.target),
            "shown 2: {self:#?}"
        );
        let tiny = self.tiny();
        let request = tiny.request(9, &[1]);
        let (new, _) = Ceremony::open(now(BASE), tiny.world(), request, 0).expect("shown 3");
        assert!(
            opened_by_others(&tiny, new).contains(&self.target),
            "shown 3: {self:#?}"
        );
        let alices = self.ceremonies[ALICES].clone().unwrap();
        match alices.row.state {
            State::Ended(End::Superseded) => assert!(self.slot.versions.len() > 1, "shown 3"),
            State::Ended(end) => assert_eq!(end, End::Expired, "shown 3"),
            _ => assert!(
                !opened_by_others(&tiny, alices).is_empty(),
                "shown 3: {self:#?}"
            ),
        }
    }
}

/// Carol and dave come, and nothing else happens.
fn opened_by_others(tiny: &Tiny, mut ceremony: Ceremony<u8>) -> BTreeSet<Version> {
    let (request, lines): (Digest, BTreeMap<VersionId, Digest>) =
        (ceremony.row.request, ceremony.row.ask.lines.clone());
    let mut opened = BTreeSet::new();
    for i in [CAROL, DAVE] {
        for event in [
            approve(tiny.vote(request, &lines, i)),
            Event::Submit(person(i), tiny.shares(&lines, i)),
        ] {
            let step = ceremony.step(now(BASE), tiny.world(), event);
            ceremony = step.state;
            // Bob's own approval and share may make carol's enough; then dave comes too late.
            for effect in step.outcome.unwrap_or_default() {
                if let Effect::Combine(sheaves) = effect {
                    assert!(sheaves.iter().all(|sheaf| sheaf.shares.len() >= 2));
                    opened.extend(sheaves.iter().map(|sheaf| sheaf.version.version));
                }
            }
        }
    }
    opened
}

#[test]
fn one_person_opens_nothing_and_stops_nobody() {
    let graph = Graph::walk(Model::start(), |model| model.successors(HIS), 60_000);
    graph.states().for_each(Model::check);
    let any = |what: fn(&Model) -> bool| graph.states().any(what);
    assert!(any(|model| model.ceremonies[ALICES]
        .as_ref()
        .unwrap()
        .has_share(person(BOB), version(1, 1))));
    assert!(any(|model| model.ceremonies[HIS].is_some()));
    assert!(any(|model| model.slot.current() != Some(Version::FIRST)));
    assert!(any(|model| model.slot.held_until.is_some()));
}

#[test]
fn one_person_changes_nothing() {
    let graph = Graph::walk(Model::start(), |model| model.successors(CHANGE), 60_000);
    graph.states().for_each(Model::check);
    let voted = |model: &Model| {
        model.ceremonies[CHANGE]
            .as_ref()
            .is_some_and(|it| !it.row.said.votes.is_empty())
    };
    assert!(graph.states().any(voted));
}
