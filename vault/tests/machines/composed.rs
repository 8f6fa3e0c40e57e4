//! Everything together in a tiny world: an unseal, its check-out, the rotation it owes, and a change
//! of charter that takes bob out and erin in.
//!
//! # What is shown
//! 1. Shares are combined only when `unseal.authorized` is in the log: in the same list before it, or
//!    from an earlier step.
//! 2. What is combined has shares of two different custodians, who both approved.
//! 3. A refused event changes nothing.
//! 4. Every opening is in the log before it happens, is checked out and owes a rotation.
//! 5. The target's secret is that of a live version.
//! 6. **A quorum is never refused**: in every state, any two custodians of the charter in force who
//!    hold the target's secret reach it, with a new request and nothing else: no answer of the target,
//!    no copy, no rotation, no time. And so they do by the request that is open, unless what it names
//!    is no longer what may work.
//! 7. Every run can end.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::LazyLock,
};

use crate::{
    rotation::{seal, terms},
    tiny::*,
    walk::Graph,
};
use keyturn_vault::{
    ceremony::{Base, Ceremony, Effect, Event, Outcome, Purpose, State},
    charter::Charter,
    checkout::{self, CheckOut},
    digest::Digest,
    event::{Answer, Cause, Event as Entry, Evidence},
    id::PersonId,
    machine::Millis,
    reference::Version,
    rotation::{self, Job, Slot},
    world::{Holding, Life, Sealed, Stage, VersionId},
};

/// Where every state's clock stands.
const BASE: u64 = 1_000_000_000_000;
const UNSEAL: u8 = 1;
const CHANGE: u8 = 2;
const RESCUE: u8 = 3;
/// How many requests are made; the one that must always succeed comes on top.
const OPENINGS: u8 = 1;
/// The last version that is rolled.
const LAST: u64 = 2;

/// The charter before and after the change.
static CHARTERS: LazyLock<[Charter; 2]> = LazyLock::new(|| {
    let before = charter(1, 2, &[BOB, CAROL, DAVE]);
    let mut after = charter(2, 2, &[CAROL, DAVE, ERIN]);
    after.previous = Some(reference(&before).digest);
    [before, after]
});

/// Versions 1 to 4, sealed to either charter.
static SEALED: LazyLock<Vec<[Sealed; 2]>> = LazyLock::new(|| {
    let members = [[BOB, CAROL, DAVE], [CAROL, DAVE, ERIN]];
    let sealed = |number: usize, roster: usize| {
        let stages = vec![Stage::Candidate; number];
        let held = holding(1, &stages, 2, &members[roster], &CHARTERS[roster]);
        held.versions.into_values().last().unwrap()
    };
    (1..=4)
        .map(|number| [sealed(number, 0), sealed(number, 1)])
        .collect()
});

/// The versions with their lives and rosters, the charter, and whether the credential is out.
type Key = (Vec<(Version, Life, bool)>, bool, bool);

thread_local! {
    /// Worlds are few and cost more than steps.
    static TINIES: RefCell<BTreeMap<Key, Rc<Tiny>>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) fn make_tiny(lives: &[(Version, Life, bool)], changed: bool, out: bool) -> Tiny {
    let charter = CHARTERS[usize::from(changed)].clone();
    let versions = lives.iter().map(|(version, life, roster)| {
        let at = usize::try_from(version.number()).unwrap() - 1;
        (
            *version,
            Sealed {
                life: *life,
                ..SEALED[at][usize::from(*roster)].clone()
            },
        )
    });
    let held = Holding {
        digest: Digest::of(b"definition"),
        definition: definition(1).into(),
        versions: versions.collect(),
        out: out
            .then(|| (ceremony_id(UNSEAL), person(ALICE)))
            .into_iter()
            .collect(),
    };
    Tiny {
        in_force: reference(&charter),
        charter,
        holdings: BTreeMap::from([(credential(1), held)]),
    }
}

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    unseal: Option<Ceremony<u8>>,
    checkout: Option<CheckOut>,
    slot: Slot,
    change: Option<Ceremony<u8>>,
    proposed: bool,
    changed: bool,
    /// To which charter each version is sealed.
    rosters: BTreeMap<Version, bool>,
    target: Version,
    /// A combination that is going on, with the versions that will come out of it.
    combining: Option<BTreeSet<VersionId>>,
    call: Option<Call>,
    /// Openings so far; two are enough to see everything.
    opened: u8,
}

/// What the shell does for a rotation; one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Roll(Version),
    Copy(Version),
    Apply(Version),
    Test(Version),
    EndSessions,
}

/// What somebody, something or time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Age,
    Open,
    Approve(u8),
    Resend(u8),
    Retract(u8),
    Withdraw,
    Combined(bool),
    Return,
    Propose,
    Agree(u8),
    Answer(bool, Answer),
    Crash,
    Tick,
    UnsealOver,
    ChangeOver,
    CheckOutOver,
    CallOver,
    PauseOver,
    HoldOver,
    RetireOver,
}

impl Action {
    fn all() -> Vec<Self> {
        use Action::*;
        let custodians = [BOB, CAROL, ERIN];
        let mut all = vec![
            Age,
            Open,
            Withdraw,
            Combined(true),
            Combined(false),
            Return,
            Propose,
            Agree(CAROL),
            Agree(DAVE),
        ];
        all.extend(custodians.map(Approve));
        all.extend(custodians.map(Resend));
        all.push(Retract(CAROL));
        all.extend([
            Answer(true, self::Answer::Done),
            Answer(false, self::Answer::Refused),
        ]);
        all.extend([Answer(true, self::Answer::Unclear)]);
        all.extend([
            Crash,
            Tick,
            UnsealOver,
            ChangeOver,
            CheckOutOver,
            CallOver,
            PauseOver,
            HoldOver,
            RetireOver,
        ]);
        all
    }
}

impl Model {
    fn start() -> Self {
        let first = rotation::Event::Deposit {
            version: Version::FIRST,
            manifest: SEALED[0][0].digest,
            person: person(ALICE),
            signature: seal(),
        };
        let slot = Slot::new(credential(1))
            .step(now(BASE), terms(), first)
            .state;
        let mut model = Self {
            unseal: None,
            checkout: None,
            slot,
            change: None,
            proposed: false,
            changed: false,
            rosters: BTreeMap::from([(Version::FIRST, false)]),
            target: Version::FIRST,
            combining: None,
            call: None,
            opened: 0,
        };
        model.normalise();
        model
    }

    /// The verified documents, and the lives that the slot keeps.
    fn tiny(&self) -> Rc<Tiny> {
        let key = self.key();
        TINIES.with_borrow_mut(|known| {
            let make = || Rc::new(make_tiny(&key.0, key.1, key.2));
            known.entry(key.clone()).or_insert_with(make).clone()
        })
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
                    assert!(authorized, "4");
                    let out = CheckOut::start(
                        now(BASE),
                        ceremony_id(UNSEAL),
                        person(ALICE),
                        credentials,
                        span,
                        span,
                    );
                    self.checkout = Some(out);
                    self.rotate(rotation::Event::Out(ceremony_id(UNSEAL)));
                }
                Effect::OweRotation(_) => {
                    self.rotate(rotation::Event::Owe(Cause::Unseal(ceremony_id(UNSEAL))));
                }
                Effect::EndCheckOut => self.checkout(checkout::Event::Cancel),
                Effect::Combine(sheaves) => {
                    assert!(authorized || authorized_before, "1");
                    // What comes out after a restart may have been replaced at the target meanwhile.
                    let owed = self
                        .slot
                        .owed
                        .iter()
                        .any(|(cause, _)| *cause == Cause::Unseal(ceremony_id(UNSEAL)));
                    let current = self.slot.current().unwrap();
                    assert!(
                        owed || sheaves.iter().all(|sheaf| sheaf.version.version < current),
                        "4"
                    );
                    for sheaf in &sheaves {
                        assert!(sheaf.shares.len() >= 2, "2: {sheaf:?}");
                        let row = &self.unseal.as_ref().unwrap().row;
                        let approved = |holder: &PersonId| row.said.vote(*holder).is_some();
                        assert!(sheaf.shares.keys().all(approved), "2: {sheaf:?}");
                        assert!(
                            sheaf
                                .shares
                                .iter()
                                .all(|(holder, share)| *holder == person(*share)),
                            "2"
                        );
                    }
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

    /// Steps the slot.
    fn rotate(&mut self, event: rotation::Event) {
        let slot = std::mem::replace(&mut self.slot, Slot::new(credential(1)));
        let before = slot.clone();
        let step = slot.step(now(BASE), terms(), event);
        self.slot = step.state;
        let Ok(effects) = step.outcome else {
            assert_eq!(self.slot, before, "3");
            return;
        };
        let mut changed = false;
        for effect in effects {
            match effect {
                rotation::Effect::Changed => changed = true,
                rotation::Effect::Roll(version) => self.call = Some(Call::Roll(version)),
                rotation::Effect::Copy(version) => self.call = Some(Call::Copy(version)),
                rotation::Effect::Apply(version, _) => self.call = Some(Call::Apply(version)),
                rotation::Effect::Test(version) => self.call = Some(Call::Test(version)),
                rotation::Effect::EndSessions(..) => self.call = Some(Call::EndSessions),
                rotation::Effect::Forget(_) => self.call = None,
                rotation::Effect::List(_)
                | rotation::Effect::Create(..)
                | rotation::Effect::Deactivate(..)
                | rotation::Effect::DeleteKey(_) => panic!("of two slots: {effect:?}"),
                rotation::Effect::Log(_)
                | rotation::Effect::Notify(_)
                | rotation::Effect::Delete(_) => {}
            }
        }
        if changed {
            self.unseal(Event::Changed);
        }
    }

    /// Steps the change of the charter.
    fn change(&mut self, event: Event<u8>) -> bool {
        let Some(ceremony) = self.change.take() else {
            return false;
        };
        let (ceremony, effects) = stepped(ceremony, &self.tiny(), event);
        self.change = Some(ceremony);
        let Some(effects) = effects else { return false };
        if effects.contains(&Effect::Apply) {
            self.changed = true;
            self.unseal(Event::Changed);
            self.rotate(rotation::Event::Owe(Cause::Roster));
        }
        true
    }

    /// Whether an action makes sense at all.
    fn possible(&self, action: Action) -> bool {
        let state = self.unseal.as_ref().map(|ceremony| &ceremony.row.state);
        let voted = |i| {
            self.change
                .as_ref()
                .is_some_and(|ceremony| ceremony.row.said.vote(person(i)).is_some())
        };
        match action {
            Action::Age => self.slot.versions.len() == 1 && self.slot.owed.is_empty(),
            Action::Open => self.opened < OPENINGS,
            Action::Approve(_) => {
                state.is_some_and(|state| !state.is_final()) && self.combining.is_none()
            }
            Action::Resend(_) => {
                matches!(state, Some(State::Authorized { .. })) && self.combining.is_none()
            }
            Action::Retract(_) | Action::Withdraw => {
                matches!(state, Some(State::Open { .. } | State::Approved { .. }))
            }
            Action::UnsealOver => state.is_some_and(|state| !state.is_final()),
            Action::Combined(_) => self.combining.is_some(),
            Action::Return | Action::CheckOutOver => self.checkout.is_some(),
            Action::Propose => !self.proposed,
            // In this order only: the other way round is the same.
            Action::Agree(i) => self.change.is_some() && (i == CAROL) != voted(CAROL),
            Action::ChangeOver => self.change.is_some(),
            Action::Answer(..) => self.call.is_some(),
            Action::Crash | Action::Tick => true,
            Action::CallOver => self.slot.asked.is_some(),
            Action::PauseOver => {
                matches!(self.slot.job, Job::Testing { .. } | Job::BackingOff { .. })
            }
            Action::HoldOver => self.slot.held_until.is_some(),
            Action::RetireOver => self.slot.retiring.is_some(),
        }
    }

    /// What an action leads to; nothing where it is refused or makes no sense.
    fn act(&self, action: Action) -> Option<Self> {
        if !self.possible(action) {
            return None;
        }
        let mut model = self.clone();
        let tiny = model.tiny();
        let done = match action {
            Action::Age => {
                if model.slot.next() != Version::FIRST.next() || !model.slot.owed.is_empty() {
                    return None;
                }
                model.rotate(rotation::Event::Owe(Cause::Age));
                true
            }
            Action::Open => {
                let busy = model
                    .unseal
                    .as_ref()
                    .is_some_and(|ceremony| !ceremony.row.state.is_final());
                if busy || model.opened >= OPENINGS {
                    return None;
                }
                model.opened += 1;
                model.unseal = Some(
                    Ceremony::open(now(BASE), tiny.world(), tiny.request(UNSEAL, &[1]), 0)
                        .ok()?
                        .0,
                );
                true
            }
            Action::Approve(i) => {
                let (vote, shares) = model.says(&tiny, i)?;
                model.unseal(approve(vote)) && model.unseal(Event::Submit(person(i), shares))
            }
            Action::Resend(i) => {
                let (_, shares) = model.says(&tiny, i)?;
                let authorized =
                    matches!(model.unseal.as_ref()?.row.state, State::Authorized { .. });
                authorized && model.unseal(Event::Submit(person(i), shares))
            }
            Action::Retract(i) => {
                let row = &model.unseal.as_ref()?.row;
                let voice = voice(
                    row.request,
                    i,
                    row.said.vote(person(i)).map(|vote| vote.text),
                );
                model.unseal(Event::Retract(voice))
            }
            Action::Withdraw => model.unseal(Event::Withdraw(person(ALICE))),
            Action::Combined(well) => {
                let delivered = model.combining.take()?;
                let ciphertext = Some(Digest::of(b"out"));
                let outcome = Outcome {
                    ciphertext,
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
                let returned = BTreeMap::from([(credential(1), None)]);
                model
                    .checkout
                    .as_ref()
                    .filter(|checkout| !checkout.out.is_empty())?;
                let signed = model.unseal.as_ref().map(|_| {
                    signed(
                        "checkin",
                        keyturn_vault::text::Signer::Device(device(ALICE)),
                    )
                })?;
                model.checkout(checkout::Event::Return {
                    person: person(ALICE),
                    returned,
                    signed,
                });
                true
            }
            Action::Propose => {
                if std::mem::replace(&mut model.proposed, true) {
                    return None;
                }
                let mut request = tiny.request(CHANGE, &[]);
                request.purpose = Purpose::Change;
                request.base = Some(Base::Charter(tiny.in_force));
                request.ask.needs = BTreeSet::from([group("ops")]);
                model.change = Some(
                    Ceremony::open(now(BASE), tiny.world(), request, 0)
                        .unwrap()
                        .0,
                );
                true
            }
            Action::Agree(i) => {
                let row = &model.change.as_ref()?.row;
                let vote = tiny.vote(row.request, &row.ask.lines, i);
                model.change(approve(vote))
            }
            Action::Answer(effect, answer) => model.answer(effect, answer)?,
            Action::Crash => {
                model.combining = None;
                model.call = None;
                model.unseal(Event::Restart);
                model.change(Event::Restart);
                model.rotate(rotation::Event::Restart);
                true
            }
            Action::Tick => {
                model.unseal(Event::Tick);
                model.rotate(rotation::Event::Tick);
                true
            }
            Action::UnsealOver => over(model.unseal.as_mut()) && model.unseal(Event::Tick),
            Action::ChangeOver => over(model.change.as_mut()) && model.change(Event::Tick),
            Action::CheckOutOver => {
                let checkout = model
                    .checkout
                    .as_mut()
                    .filter(|checkout| !checkout.out.is_empty())?;
                checkout.until = Millis(BASE);
                model.checkout(checkout::Event::Tick);
                true
            }
            Action::CallOver | Action::PauseOver | Action::HoldOver | Action::RetireOver => {
                model.pass(action)?
            }
        };
        model.normalise();
        done.then_some(model)
    }

    /// What a custodian can say to the open request, and the shares that go with it.
    fn says(
        &self,
        tiny: &Tiny,
        i: u8,
    ) -> Option<(
        keyturn_vault::quorum::Vote,
        Vec<keyturn_vault::ceremony::ValidShare<u8>>,
    )> {
        let row = &self.unseal.as_ref()?.row;
        let holds = row.ask.lines.keys().any(|line| {
            let roster = &tiny.holdings[&credential(1)].versions[&line.version]
                .manifest
                .groups[0];
            roster.holder(person(i)).is_some()
        });
        holds.then(|| {
            (
                tiny.vote(row.request, &row.ask.lines, i),
                tiny.shares(&row.ask.lines, i),
            )
        })
    }

    /// The target, the sealing, the sinks answer. The first attempt may fail, later ones do not.
    fn answer(&mut self, effect: bool, answer: Answer) -> Option<bool> {
        let plain = effect && answer == Answer::Done;
        match self.call.take()? {
            Call::Roll(version) if plain && version.number() <= LAST => {
                self.rosters.insert(version, self.changed);
                self.rotate(crate::rotation::sealed(version));
            }
            Call::Copy(_) if plain => self.rotate(rotation::Event::Copied),
            Call::Apply(version) if plain || version.number() == 2 => {
                if effect {
                    self.target = version;
                }
                self.rotate(rotation::Event::Applied(answer));
            }
            Call::Test(version)
                if effect == (self.target == version) && answer != Answer::Unclear =>
            {
                self.rotate(rotation::Event::Tested(answer));
            }
            Call::EndSessions if plain => {
                self.rotate(rotation::Event::SessionsEnded(Evidence::NotObservable));
            }
            Call::Roll(_) | Call::Copy(_) | Call::Apply(_) | Call::Test(_) | Call::EndSessions => {
                return None;
            }
        }
        Some(true)
    }

    /// One of the moments that the slot waits for passes.
    fn pass(&mut self, moment: Action) -> Option<bool> {
        let passed = Millis(BASE);
        let slot = &mut self.slot;
        match moment {
            Action::CallOver => {
                slot.asked.take()?;
                if let Job::Applying { until, .. }
                | Job::Testing {
                    until, last: false, ..
                } = &mut slot.job
                {
                    *until = passed;
                }
            }
            Action::PauseOver => match &mut slot.job {
                Job::Testing {
                    until, last: true, ..
                }
                | Job::BackingOff { until }
                    if *until > passed =>
                {
                    *until = passed;
                }
                _ => return None,
            },
            Action::HoldOver => {
                *slot.held_until.as_mut().filter(|until| **until > passed)? = passed;
            }
            _ => {
                slot.retiring
                    .as_mut()
                    .filter(|retiring| retiring.latest > passed)?
                    .latest = passed;
            }
        }
        self.rotate(rotation::Event::Tick);
        Some(true)
    }

    /// Moments have passed or have not; what is over and what nobody looks at any more is left out.
    fn normalise(&mut self) {
        let shift = |moment: &mut Millis| *moment = Millis(BASE + u64::from(moment.0 > BASE));
        let slot = &mut self.slot;
        slot.held_until.iter_mut().for_each(shift);
        slot.current_since = slot.current_since.map(|_| Millis(0));
        slot.out.values_mut().for_each(|begun| *begun = Millis(1));
        if let Some(retiring) = &mut slot.retiring {
            shift(&mut retiring.latest);
        }
        if let Some((_, until)) = &mut slot.asked {
            shift(until);
        }
        slot.asked = slot.asked.filter(|(_, until)| until.0 > BASE);
        match &mut slot.job {
            Job::Applying { until, .. }
            | Job::Testing { until, .. }
            | Job::Creating { until, .. }
            | Job::Revoking { until, .. }
            | Job::BackingOff { until } => shift(until),
            Job::Idle
            | Job::Listing { .. }
            | Job::Deleting
            | Job::Sealing { .. }
            | Job::Copying { .. }
            | Job::Promoted { .. }
            | Job::Stuck(_) => {}
        }
        slot.versions
            .values_mut()
            .for_each(|kept| kept.retired = kept.retired.map(|_| Millis(BASE)));
        if slot.failures > 0 {
            slot.failures = 1;
        }
        for ceremony in [&mut self.unseal, &mut self.change].into_iter().flatten() {
            ceremony.row.said.spent.clear();
            if ceremony.row.state.is_final() {
                ceremony.row.said.votes.clear();
                ceremony.row.ask.lines.clear();
            }
        }
        self.change
            .take_if(|ceremony| ceremony.row.state.is_final());
        if self
            .checkout
            .as_ref()
            .is_some_and(|checkout| checkout.out.is_empty())
        {
            self.checkout = None;
        }
    }

    fn successors(&self) -> Vec<Self> {
        Action::all()
            .into_iter()
            .filter_map(|action| self.act(action))
            .collect()
    }

    /// The world as [`TINIES`] knows it.
    fn key(&self) -> Key {
        let kept = self.slot.versions.iter();
        let lives = kept
            .map(|(version, kept)| (*version, kept.life, self.rosters[version]))
            .collect();
        (lives, self.changed, !self.slot.out.is_empty())
    }

    /// The custodians of the charter in force, two by two.
    fn pairs(&self) -> [[u8; 2]; 3] {
        if self.changed {
            [[CAROL, DAVE], [DAVE, ERIN], [ERIN, CAROL]]
        } else {
            [[BOB, CAROL], [CAROL, DAVE], [DAVE, BOB]]
        }
    }

    /// Whether both hold a version.
    fn both_hold(tiny: &Tiny, pair: [u8; 2], version: Version) -> bool {
        let roster = &tiny.holdings[&credential(1)].versions[&version]
            .manifest
            .groups[0];
        pair.iter().all(|i| roster.holder(person(*i)).is_some())
    }

    /// Shown 6, by a new request.
    fn a_new_request_succeeds(&self) {
        let tiny = self.tiny();
        let held = |pair: &[u8; 2]| {
            let current = self.slot.current().unwrap();
            [self.target, current]
                .iter()
                .all(|version| Self::both_hold(&tiny, *pair, *version))
        };
        for pair in self.pairs().into_iter().filter(held) {
            let request = tiny.request(RESCUE, &[1]);
            let (ceremony, _) =
                Ceremony::open(now(BASE), tiny.world(), request, 0).expect("6: a request opens");
            let opened = come(&tiny, ceremony, pair);
            assert!(opened.contains(&self.target), "6: {pair:?} {self:#?}");
        }
    }

    /// Shown 6, by the request that is open.
    fn the_open_request_succeeds(&self) {
        let tiny = self.tiny();
        let Some(ceremony) = &self.unseal else { return };
        let named: Vec<_> = ceremony
            .row
            .ask
            .lines
            .keys()
            .map(|line| line.version)
            .collect();
        let authorized = matches!(ceremony.row.state, State::Authorized { .. });
        let held = |pair: &[u8; 2]| {
            named
                .iter()
                .all(|version| Self::both_hold(&tiny, *pair, *version))
        };
        for pair in self.pairs().into_iter().filter(held) {
            let opened = come(&tiny, ceremony.clone(), pair);
            assert!(!opened.is_empty(), "6: {pair:?} {self:#?}");
            // What was authorized stays as it was, even if more custodians bring more shares.
            assert!(
                authorized || !named.contains(&self.target) || opened.contains(&self.target),
                "6: {self:#?}"
            );
        }
    }

    fn quiet(&self) -> bool {
        let over = |ceremony: &Option<Ceremony<u8>>| {
            ceremony.as_ref().is_none_or(|it| it.row.state.is_final())
        };
        let rotated = match self.slot.job {
            Job::Idle => !self.slot.is_due(),
            Job::Stuck(_) => true,
            // The horizon of the walk.
            Job::Sealing { version } => version.number() > LAST,
            _ => false,
        };
        over(&self.unseal) && over(&self.change) && self.checkout.is_none() && rotated
    }
}

/// A ceremony's time is over.
pub(crate) fn over(ceremony: Option<&mut Ceremony<u8>>) -> bool {
    match ceremony.map(|ceremony| &mut ceremony.row.state) {
        Some(
            State::Open { until } | State::Approved { until } | State::Authorized { until, .. },
        ) => {
            *until = Millis(BASE);
            true
        }
        Some(State::Waiting { .. } | State::Ended(_)) | None => false,
    }
}

pub(crate) fn stepped(
    ceremony: Ceremony<u8>,
    tiny: &Tiny,
    event: Event<u8>,
) -> (Ceremony<u8>, Option<Vec<Effect<u8>>>) {
    let before = ceremony.clone();
    let step = ceremony.step(now(BASE), tiny.world(), event);
    if step.outcome.is_err() {
        assert_eq!(step.state, before, "3");
    }
    (step.state, step.outcome.ok())
}

/// Two custodians come, and nothing else happens: the versions that are opened.
pub(crate) fn come(tiny: &Tiny, mut ceremony: Ceremony<u8>, pair: [u8; 2]) -> BTreeSet<Version> {
    let (text, lines) = (ceremony.row.request, ceremony.row.ask.lines.clone());
    let mut opened = BTreeSet::new();
    for i in pair {
        for event in [
            approve(tiny.vote(text, &lines, i)),
            Event::Submit(person(i), tiny.shares(&lines, i)),
        ] {
            let (next, effects) = stepped(ceremony, tiny, event);
            ceremony = next;
            if ceremony.is_combining() && effects.is_none() {
                // The one who came first was enough, together with somebody who had come before.
                continue;
            }
            for effect in effects.unwrap_or_else(|| {
                panic!("6: a willing custodian is heard: {i} of {pair:?} {ceremony:#?}")
            }) {
                if let Effect::Combine(sheaves) = effect {
                    opened.extend(sheaves.iter().map(|sheaf| sheaf.version.version));
                }
            }
        }
    }
    opened
}

#[test]
fn a_quorum_is_never_refused() {
    let graph = Graph::walk(Model::start(), Model::successors, 100_000);
    let (mut worlds, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for state in graph.states() {
        assert!(
            state.slot.live().any(|version| version == state.target),
            "5: {state:#?}"
        );
        if worlds.insert((state.key(), state.target)) {
            state.a_new_request_succeeds();
        }
        let open = state
            .unseal
            .as_ref()
            .filter(|it| it.row.until().is_some_and(|until| until.0 > BASE) && !it.is_combining());
        if open.is_some_and(|ceremony| requests.insert((ceremony, state.key(), state.target))) {
            state.the_open_request_succeeds();
        }
    }
    assert!(
        worlds.len() > 30 && requests.len() > 400,
        "{} {}",
        worlds.len(),
        requests.len()
    );
    let mut seen = BTreeSet::new();
    for state in graph.states() {
        seen.extend(state.unseal.iter().map(crate::ceremony::state));
    }
    let want = [
        "approved",
        "authorized",
        "closed",
        "expired",
        "failed",
        "interrupted",
        "open",
        "released",
        "superseded",
        "withdrawn",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
    assert!(
        graph
            .states()
            .any(|state| state.changed && state.slot.versions.len() > 1)
    );
    let endless = graph.cannot_reach(Model::quiet);
    assert!(endless.is_none(), "7: {endless:#?}");
}
