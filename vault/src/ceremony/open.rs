//! Opening a request: what it may ask for.

use super::advance::stale;
use super::{
    Ask, BTreeSet, Base, Ceremony, CeremonyId, CharterRef, CredentialId, Digest, Effect, Entry,
    GroupName, Holding, Notice, Now, Purpose, Refusal, Role, Row, Said, ScenarioName, SignedText,
    Span, Stage, State, VersionId, Waiver, World,
};
use crate::text::{self, MAX_CREDENTIAL_LINES, MAX_CREDENTIALS, Text as _};

/// The most ceremonies that one requester can have open at a time.
pub const MAX_OPEN: usize = 16;
/// The longest validity of what opens nothing; for the rest policies say.
pub const MAX_VALID: Span = Span::from_days(7);

/// A request as it was parsed and its signature checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The ceremony.
    pub id: CeremonyId,
    /// The SHA-256 of its text.
    pub text: Digest,
    /// What it is for.
    pub purpose: Purpose,
    /// Whom and what it asks for; for what opens nothing with the groups that must agree.
    pub ask: Ask,
    /// What a change is based on.
    pub base: Option<Base>,
    /// The charter for which it was made.
    pub charter: CharterRef,
    /// The scenario that it names.
    pub scenario: Option<ScenarioName>,
    /// Whether it names a ticket.
    pub ticket: bool,
    /// How long the check-out shall be; as its policies say, if it does not.
    pub check_out: Option<Span>,
    /// How long it shall be valid.
    pub valid_for: Span,
    /// How long a quorum waits at least, whatever policies say.
    pub waiting: Span,
    /// The signed text.
    pub signed: SignedText,
}

impl<S> Ceremony<S> {
    /// Opens a request of a requester who has `open` other ceremonies open.
    pub fn open(
        now: Now,
        world: World<'_>,
        request: Request,
        open: usize,
    ) -> Result<(Self, Vec<Effect<S>>), Refusal> {
        let (waiting, check_out) = allowed(world, &request, open)?;
        let row = Row {
            id: request.id,
            request: request.text,
            purpose: request.purpose,
            ask: request.ask,
            base: request.base,
            valid_for: request.valid_for,
            waiting,
            check_out,
            state: State::Open {
                until: now.lived.after(request.valid_for.ms()),
            },
            said: Said::default(),
            holds: false,
        };
        let waived = !row.ask.waive.is_empty();
        let mut effects = vec![
            Effect::Log(Entry::CeremonyOpened {
                ceremony: row.id,
                request: request.signed,
            }),
            Effect::Notify(if waived {
                Notice::Waived
            } else {
                Notice::Opened
            }),
        ];
        if row.purpose.opens() {
            effects.push(Effect::MakeSubmitKey);
        }
        Ok((Self::wake(row), effects))
    }
}

/// Judges a request; gives the time for which its quorum waits, and the length of its check-out.
fn allowed(world: World<'_>, request: &Request, open: usize) -> Result<(Span, Span), Refusal> {
    let ask = &request.ask;
    let requester = world
        .charter
        .person(ask.requester)
        .ok_or(Refusal::NotRequester)?;
    let may = if request.purpose.delivers() {
        requester.has(Role::Requester)
    } else {
        [Role::Requester, Role::Custodian, Role::Operator]
            .into_iter()
            .any(|role| requester.has(role))
    };
    if !may {
        return Err(Refusal::NotRequester);
    }
    if open >= MAX_OPEN {
        return Err(Refusal::TooManyOpen);
    }
    if request.charter != world.in_force {
        return Err(Refusal::OldCharter);
    }
    if ask.lines.is_empty() == request.purpose.opens()
        || ask.needs.is_empty() != request.purpose.opens()
    {
        return Err(Refusal::WrongSubject);
    }
    if request.base.is_some() != matches!(request.purpose, Purpose::Change | Purpose::Reshare) {
        return Err(Refusal::WrongSubject);
    }
    let scenario = match &request.scenario {
        None => None,
        Some(name) => Some(
            world
                .charter
                .scenario(name)
                .ok_or(Refusal::NoSuchScenario)?,
        ),
    };
    if scenario.is_some_and(|scenario| scenario.require_ticket)
        && !request.ticket
        && !ask.waive.contains(&Waiver::Ticket)
    {
        return Err(Refusal::NoTicket);
    }
    if stale(world, request.base) {
        return Err(Refusal::Stale);
    }
    if !request.purpose.opens() {
        return if request.valid_for > MAX_VALID {
            Err(Refusal::ValidTooLong)
        } else {
            Ok((request.waiting, Span::ZERO))
        };
    }
    let credentials: BTreeSet<_> = ask.lines.keys().map(|line| line.credential).collect();
    if ask.lines.len() > MAX_CREDENTIAL_LINES || credentials.len() > MAX_CREDENTIALS {
        return Err(Refusal::TooManyLines);
    }
    let (mut waiting, mut check_out) = (request.waiting, None::<Span>);
    for credential in credentials {
        let holding = world
            .holdings
            .holding(credential)
            .ok_or(Refusal::UnknownCredential)?;
        named(ask, credential, holding)?;
        if request.purpose == Purpose::Drill && !holding.definition.canary {
            return Err(Refusal::NotCanary);
        }
        let others = holding.out.values().any(|person| *person != ask.requester);
        if others && request.purpose.delivers() && !ask.waive.contains(&Waiver::CheckOut) {
            return Err(Refusal::CheckedOut);
        }
        let policy = holding
            .policy(world.charter)
            .ok_or(Refusal::UnknownCredential)?;
        let policy = scenario.map_or_else(|| policy.clone(), |scenario| policy.under(scenario));
        if request.valid_for > policy.valid_for_secs {
            return Err(Refusal::ValidTooLong);
        }
        let asked = request.check_out.unwrap_or(policy.check_out_secs);
        if asked > policy.check_out_max_secs {
            return Err(Refusal::CheckOutTooLong);
        }
        waiting = waiting.max(policy.waiting_secs);
        check_out = Some(check_out.map_or(asked, |shortest| shortest.min(asked)));
    }
    Ok((waiting, check_out.unwrap_or(Span::ZERO)))
}

/// The lines of one credential name every live version, and nothing that is not there.
fn named(ask: &Ask, credential: CredentialId, holding: &Holding) -> Result<(), Refusal> {
    holding
        .asked(ask.group.as_ref())
        .ok_or(Refusal::NoSuchGroup)?;
    let line = |version| {
        ask.lines.get(&VersionId {
            credential,
            version,
        })
    };
    if holding.live().any(|(version, _)| line(version).is_none()) {
        return Err(Refusal::NotLive);
    }
    let mut counts = false;
    for (id, manifest) in ask
        .lines
        .iter()
        .filter(|(id, _)| id.credential == credential)
    {
        let sealed = holding
            .versions
            .get(&id.version)
            .ok_or(Refusal::UnknownVersion)?;
        if sealed.digest != *manifest {
            return Err(Refusal::UnknownVersion);
        }
        if sealed.life.stage == Stage::Destroyed {
            return Err(Refusal::Destroyed);
        }
        counts |= sealed.life.counts();
    }
    if counts {
        Ok(())
    } else {
        Err(Refusal::Unopenable)
    }
}

impl Request {
    /// What a parsed and verified request asks for; `needs` and `waiting` are what
    /// [`crate::change`] says of what opens nothing.
    pub fn of(
        world: World<'_>,
        signed: SignedText,
        request: &text::Request,
        needs: BTreeSet<GroupName>,
        waiting: Span,
    ) -> Result<Self, Refusal> {
        for line in &request.credentials {
            let holding = world
                .holdings
                .holding(line.credential)
                .ok_or(Refusal::UnknownCredential)?;
            if holding.definition.path != line.path {
                return Err(Refusal::UnknownVersion);
            }
        }
        Ok(Self {
            id: request.ceremony,
            text: request.digest(),
            purpose: Purpose::of(&request.purpose),
            ask: asked(request, needs),
            base: base(request),
            charter: request.charter,
            scenario: request.scenario.clone(),
            ticket: request.ticket.is_some(),
            check_out: request.check_out,
            valid_for: request.valid_for,
            waiting,
            signed,
        })
    }
}

/// Whom and what the text of a request asks for.
fn asked(request: &text::Request, needs: BTreeSet<GroupName>) -> Ask {
    let lines = request.credentials.iter().map(|line| {
        let version = VersionId {
            credential: line.credential,
            version: line.version,
        };
        (version, line.manifest)
    });
    Ask {
        requester: request.requested_by.id,
        lines: lines.collect(),
        group: request.group.clone(),
        needs,
        waive: request.waive.clone(),
    }
}

/// What a change is based on.
fn base(request: &text::Request) -> Option<Base> {
    match &request.purpose {
        text::Purpose::Change(text::Change::Charter(_)) => Some(Base::Charter(request.charter)),
        text::Purpose::Change(text::Change::Definition {
            credential, old, ..
        }) => Some(Base::Definition(*credential, *old)),
        text::Purpose::Reshare(charter) => Some(Base::Charter(*charter)),
        text::Purpose::Unseal
        | text::Purpose::Drill
        | text::Purpose::Extend { .. }
        | text::Purpose::AcceptRestore(_)
        | text::Purpose::Erase { .. } => None,
    }
}

impl Row {
    /// Whether this asks for what the request asks for, and of whom. The groups that must agree to what
    /// opens nothing are in no text: whoever applies it asks [`crate::change`] again.
    pub fn is_of(&self, request: &text::Request) -> bool {
        self.id == request.ceremony
            && self.request == request.digest()
            && self.purpose == Purpose::of(&request.purpose)
            && self.ask == asked(request, self.ask.needs.clone())
            && self.base == base(request)
            && self.valid_for == request.valid_for
    }
}

impl Purpose {
    /// The purpose of a request, without its subject.
    pub fn of(purpose: &text::Purpose) -> Self {
        match purpose {
            text::Purpose::Unseal => Self::Unseal,
            text::Purpose::Drill => Self::Drill,
            text::Purpose::Reshare(_) => Self::Reshare,
            text::Purpose::Change(_) => Self::Change,
            text::Purpose::Extend { .. } => Self::Extend,
            text::Purpose::AcceptRestore(_) => Self::AcceptRestore,
            text::Purpose::Erase { .. } => Self::Erase,
        }
    }
}
