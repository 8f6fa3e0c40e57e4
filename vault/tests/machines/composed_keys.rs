//! A target with two slots, an unseal and its check-out together in a tiny world, as [`composed`](crate::composed)
//! has it for one slot.
//!
//! # What is shown
//! 1. A refused event changes nothing.
//! 2. Every opening is in the log before it happens, is checked out and owes a rotation.
//! 3. **A quorum is never refused**: in every state any two custodians reach a key that the target accepts,
//!    with a new request and nothing else; and so they do by the request that is open, unless none of what it
//!    names is accepted any more.
//! 4. The current version's key is accepted, whatever a ceremony does meanwhile, and no foreign key is touched.
//! 5. Every run can end.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::{
    composed::{come, make_tiny, over, stepped},
    keys,
    tiny::*,
    walk::Graph,
};
use keyturn_vault::{
    ceremony::{Ceremony, Effect, Event, Outcome, State},
    checkout::{self, CheckOut},
    digest::Digest,
    event::{Cause, Event as Entry},
    reference::Version,
    rotation::{self, Job},
    text::Signer,
    world::{Life, VersionId},
};

/// Where every state's clock stands.
const BASE: u64 = 1_000_000_000_000;
const UNSEAL: u8 = 1;
const RESCUE: u8 = 3;
/// The last version that is made.
const LAST: usize = 2;
const PAIRS: [[u8; 2]; 3] = [[BOB, CAROL], [CAROL, DAVE], [DAVE, BOB]];

/// The versions with their lives, and whether the credential is out.
type Key = (Vec<(Version, Life)>, bool);

thread_local! {
    /// Worlds are few and cost more than steps.
    static TINIES: RefCell<BTreeMap<Key, Rc<Tiny>>> = const { RefCell::new(BTreeMap::new()) };
}

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    keys: keys::Model,
    unseal: Option<Ceremony<u8>>,
    checkout: Option<CheckOut>,
    /// A combination that is going on, with the versions that will come out of it.
    combining: Option<BTreeSet<VersionId>>,
    opened: bool,
}

/// What people do, and the time of what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Age,
    Open,
    Approve(u8),
    Resend(u8),
    Combined(bool),
    Return,
    Crash,
    UnsealOver,
    CheckOutOver,
}

impl Model {
    fn start() -> Self {
        Self {
            keys: keys::Model::start(true),
            unseal: None,
            checkout: None,
            combining: None,
            opened: false,
        }
    }

    fn key(&self) -> Key {
        let versions = self.keys.slot.versions.iter();
        let lives = versions.map(|(version, kept)| (*version, kept.life));
        (lives.collect(), !self.keys.slot.out.is_empty())
    }

    /// The verified documents, and the lives that the slot keeps.
    fn tiny(&self) -> Rc<Tiny> {
        let key = self.key();
        TINIES.with_borrow_mut(|known| {
            let make = || {
                let lives = key.0.iter().map(|(version, life)| (*version, *life, false));
                Rc::new(make_tiny(&lives.collect::<Vec<_>>(), false, key.1))
            };
            known.entry(key.clone()).or_insert_with(make).clone()
        })
    }

    /// The versions whose keys the target accepts.
    fn accepted(&self) -> BTreeSet<Version> {
        let active = self.keys.target.values().filter(|(_, active, _)| *active);
        active.filter_map(|(.., version)| *version).collect()
    }

    /// The slot and its target are like this from now on.
    fn turn(&mut self, keys: keys::Model) {
        let before = self.key().0;
        self.keys = keys;
        if self.key().0 != before {
            self.unseal(Event::Changed);
        }
    }

    fn rotate(&mut self, event: rotation::Event) {
        if let Some(keys) = self.keys.clone().step(event) {
            self.turn(keys);
        }
    }

    /// Steps the unseal; what it says happens at once.
    fn unseal(&mut self, event: Event<u8>) -> bool {
        let Some(ceremony) = self.unseal.take() else {
            return false;
        };
        let (ceremony, effects) = stepped(ceremony, &self.tiny(), event);
        let authorized_before = matches!(ceremony.row.state, State::Authorized { .. });
        self.unseal = Some(ceremony);
        let Some(effects) = effects else { return false };
        let mut authorized = false;
        for effect in effects {
            match effect {
                Effect::Log(Entry::UnsealAuthorized { .. }) => authorized = true,
                Effect::HoldRotation(_) => self.rotate(rotation::Event::Hold(ceremony_id(UNSEAL))),
                Effect::FreeRotation(_) => self.rotate(rotation::Event::Free(ceremony_id(UNSEAL))),
                Effect::CheckOut(credentials, span) => {
                    assert!(authorized, "2");
                    let (id, who) = (ceremony_id(UNSEAL), person(ALICE));
                    let out = CheckOut::start(now(BASE), id, who, credentials, span, span);
                    self.checkout = Some(out);
                    self.rotate(rotation::Event::Out(ceremony_id(UNSEAL)));
                }
                Effect::OweRotation(_) => {
                    self.rotate(rotation::Event::Owe(Cause::Unseal(ceremony_id(UNSEAL))));
                }
                Effect::EndCheckOut => self.checkout(checkout::Event::Cancel),
                Effect::Combine(sheaves) => {
                    assert!(authorized || authorized_before, "2");
                    let slot = &self.keys.slot;
                    let mut owed = slot.owed.iter().map(|(cause, _)| *cause);
                    let owed = owed.any(|cause| cause == Cause::Unseal(ceremony_id(UNSEAL)));
                    // What comes out after a restart may have been replaced at the target meanwhile.
                    let older = |version: Version| version < slot.current().unwrap();
                    let mut opened = sheaves.iter().map(|sheaf| sheaf.version.version);
                    assert!(owed || opened.all(older), "2");
                    self.combining = Some(sheaves.into_iter().map(|sheaf| sheaf.version).collect());
                }
                Effect::Log(_)
                | Effect::Apply
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

    fn checkout(&mut self, event: checkout::Event) {
        let Some(checkout) = self.checkout.take() else {
            return;
        };
        let step = checkout.step(now(BASE), event);
        self.checkout = Some(step.state);
        for effect in step.outcome.unwrap_or_default() {
            match effect {
                checkout::Effect::Returned(_) => {
                    self.rotate(rotation::Event::Returned(ceremony_id(UNSEAL)));
                }
                checkout::Effect::Close => drop(self.unseal(Event::CheckoutEnded)),
                checkout::Effect::Log(_)
                | checkout::Effect::Worked(_)
                | checkout::Effect::Notify(_) => {}
            }
        }
    }

    /// What an action leads to; nothing where it is refused or makes no sense.
    fn act(&self, action: Action) -> Option<Self> {
        let mut model = self.clone();
        let state = self.unseal.as_ref().map(|ceremony| &ceremony.row.state);
        let live = state.is_some_and(|state| !state.is_final());
        let tiny = model.tiny();
        let done = match action {
            Action::Age if self.keys.slot.versions.len() == 1 && self.keys.slot.owed.is_empty() => {
                model.rotate(rotation::Event::Owe(Cause::Age));
                true
            }
            Action::Open if !self.opened => {
                let request = tiny.request(UNSEAL, &[1]);
                let opened = Ceremony::open(now(BASE), tiny.world(), request, 0).ok()?;
                model.opened = true;
                model.unseal = Some(opened.0);
                true
            }
            Action::Approve(i) if live && self.combining.is_none() => {
                let (text, lines) = self.asked()?;
                let (vote, shares) = (tiny.vote(text, &lines, i), tiny.shares(&lines, i));
                model.unseal(approve(vote)) && model.unseal(Event::Submit(person(i), shares))
            }
            Action::Resend(i) if self.combining.is_none() => {
                let authorized = matches!(state, Some(State::Authorized { .. }));
                let (_, lines) = self.asked().filter(|_| authorized)?;
                model.unseal(Event::Submit(person(i), tiny.shares(&lines, i)))
            }
            Action::Combined(well) => {
                let delivered = model.combining.take()?;
                let outcome = Outcome {
                    ciphertext: Some(Digest::of(b"out")),
                    delivered: delivered.clone(),
                    inconsistent: BTreeSet::new(),
                };
                let failed = keyturn_vault::event::Failure::NothingOpened;
                model.unseal(if well {
                    Event::Opened(outcome)
                } else {
                    Event::Failed(failed)
                });
                model.checkout(checkout::Event::Delivered(delivered));
                true
            }
            Action::Return => {
                self.checkout.as_ref().filter(|out| !out.out.is_empty())?;
                model.checkout(checkout::Event::Return {
                    person: person(ALICE),
                    returned: BTreeMap::from([(credential(1), None)]),
                    signed: signed("checkin", Signer::Device(device(ALICE))),
                });
                true
            }
            Action::Crash => {
                model.combining = None;
                model.unseal(Event::Restart);
                let keys = model.keys.clone().crash()?;
                model.turn(keys);
                true
            }
            Action::UnsealOver if live => over(model.unseal.as_mut()) && model.unseal(Event::Tick),
            Action::CheckOutOver => {
                let checkout = model.checkout.as_mut();
                checkout.filter(|out| !out.out.is_empty())?.until =
                    keyturn_vault::machine::Millis(BASE);
                model.checkout(checkout::Event::Tick);
                true
            }
            Action::Age
            | Action::Open
            | Action::Approve(_)
            | Action::Resend(_)
            | Action::UnsealOver => false,
        };
        done.then_some(model)
    }

    /// The open request and what it names.
    fn asked(&self) -> Option<(Digest, BTreeMap<VersionId, Digest>)> {
        let row = &self.unseal.as_ref()?.row;
        Some((row.request, row.ask.lines.clone()))
    }

    fn successors(&self) -> Vec<Self> {
        let people = [
            Action::Age,
            Action::Open,
            Action::Approve(BOB),
            Action::Approve(CAROL),
            Action::Resend(BOB),
            Action::Resend(CAROL),
            Action::Combined(true),
            Action::Combined(false),
            Action::Return,
            Action::Crash,
            Action::UnsealOver,
            Action::CheckOutOver,
        ];
        let mut all: Vec<Self> = people
            .into_iter()
            .filter_map(|action| self.act(action))
            .collect();
        all.extend(self.keys.at_the_target().into_iter().map(|keys| {
            let mut model = self.clone();
            model.turn(keys);
            model
        }));
        all.retain(|model| model.keys.slot.versions.len() <= LAST);
        all.into_iter().map(Self::still).collect()
    }

    /// Moments have passed or have not; what nobody looks at any more is left out.
    fn still(mut self) -> Self {
        self.keys = self.keys.still();
        if let Some(ceremony) = &mut self.unseal {
            ceremony.row.said.spent.clear();
            if ceremony.row.state.is_final() {
                ceremony.row.said.votes.clear();
                ceremony.row.ask.lines.clear();
            }
        }
        self.checkout.take_if(|checkout| checkout.out.is_empty());
        self
    }

    /// Shown 3, by a new request.
    fn a_new_request_succeeds(&self) {
        let (tiny, accepted) = (self.tiny(), self.accepted());
        for pair in PAIRS {
            let request = tiny.request(RESCUE, &[1]);
            let (ceremony, _) =
                Ceremony::open(now(BASE), tiny.world(), request, 0).expect("3: a request opens");
            let opened = come(&tiny, ceremony, pair);
            assert!(!opened.is_disjoint(&accepted), "3: {pair:?} {self:#?}");
        }
    }

    /// Shown 3, by the request that is open.
    fn the_open_request_succeeds(&self, ceremony: &Ceremony<u8>) {
        let (tiny, accepted) = (self.tiny(), self.accepted());
        let lines = ceremony.row.ask.lines.keys();
        let named: BTreeSet<_> = lines.map(|line| line.version).collect();
        let authorized = matches!(ceremony.row.state, State::Authorized { .. });
        for pair in PAIRS {
            let opened = come(&tiny, ceremony.clone(), pair);
            assert!(!opened.is_empty(), "3: {pair:?} {self:#?}");
            // What was authorized stays as it was, even if more custodians bring more shares.
            assert!(
                authorized || named.is_disjoint(&accepted) || !opened.is_disjoint(&accepted),
                "3: {self:#?}"
            );
        }
    }

    fn quiet(&self) -> bool {
        let over = self
            .unseal
            .as_ref()
            .is_none_or(|it| it.row.state.is_final());
        // The horizon of the walk: the next key would be one too many.
        let full = self.keys.slot.versions.len() >= LAST && self.keys.slot.job != Job::Deleting;
        over && self.checkout.is_none() && (full || self.keys.quiet())
    }
}

#[test]
fn a_quorum_is_never_refused_while_keys_are_made_and_ended() {
    let graph = Graph::walk(Model::start(), Model::successors, 600_000);
    let (mut worlds, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for state in graph.states() {
        let accepted = state.accepted();
        assert!(accepted.contains(&state.keys.slot.current().unwrap()), "4");
        if worlds.insert((state.key(), accepted.clone())) {
            state.a_new_request_succeeds();
        }
        let open = state
            .unseal
            .as_ref()
            .filter(|it| it.row.until().is_some_and(|until| until.0 > BASE) && !it.is_combining());
        if let Some(ceremony) = open
            && requests.insert((ceremony, state.key(), accepted))
        {
            state.the_open_request_succeeds(ceremony);
        }
    }
    let reached = |what: &dyn Fn(&Model) -> bool| graph.states().any(what);
    for (name, reached) in [
        (
            "a second key is proven",
            reached(&|state| {
                state
                    .keys
                    .slot
                    .current()
                    .is_some_and(|current| current > Version::FIRST)
            }),
        ),
        (
            "released",
            reached(&|state| {
                state
                    .unseal
                    .as_ref()
                    .is_some_and(|it| it.row.state.is_final())
                    && state.checkout.is_some()
            }),
        ),
        (
            "held by the request",
            reached(&|state| state.keys.slot.held_until.is_some()),
        ),
        (
            "a foreign key",
            reached(&|state| {
                state.keys.slot.job == Job::Stuck(keyturn_vault::event::Stuck::Foreign)
            }),
        ),
    ] {
        assert!(reached, "{name}");
    }
    assert!(
        worlds.len() > 5 && requests.len() > 100,
        "{} {}",
        worlds.len(),
        requests.len()
    );
    let endless = graph.cannot_reach(Model::quiet);
    assert!(endless.is_none(), "5: {endless:#?}");
}
