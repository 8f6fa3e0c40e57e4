//! A ceremony as people see it.

use keyturn_proto::v1;
use keyturn_vault::{
    ceremony::State,
    checkout::CheckOut,
    id::{CeremonyId, PersonId},
    machine::Millis,
    quorum::Says,
    reference::PersonRef,
    text::{Decision, Outcome, Review, Text as _},
    time::Time,
    world::VersionId,
};

use super::convert;
use crate::{
    owner::core::{Core, Live},
    refusal::Refused,
    rows,
};

impl Core {
    /// A ceremony that was loaded, for display.
    pub fn view(&self, id: CeremonyId) -> Result<v1::CeremonyView, Refused> {
        let live = self.ceremony(id)?;
        let row = &live.machine.row;
        let now = self.now();
        let (expires, left, waiting) = match &row.state {
            State::Open { until } | State::Approved { until } | State::Authorized { until, .. } => {
                let left = now.lived.until(*until);
                (now.wall.ms().saturating_add(left), left, 0)
            }
            State::Waiting { over } => (0, 0, now.ran.until(*over)),
            State::Ended(_) => (0, 0, 0),
        };
        let request = &live.request;
        Ok(v1::CeremonyView {
            id: id.to_string(),
            revision: live.row.revision,
            state: convert::state(&row.state).into(),
            purpose: convert::purpose(row.purpose).into(),
            subject: request.purpose.subject(),
            request_sha256: row.request.0.to_vec(),
            requester: Some(convert::person(&request.requested_by)),
            ticket: request
                .ticket
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            scenario: request
                .scenario
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            waived: request.waive.iter().map(ToString::to_string).collect(),
            opened_ms: live.row.opened.ms(),
            expires_ms: expires,
            left_secs: secs(left),
            waiting_secs: secs(waiting),
            voices: voices(live),
            needs: self.needs_of(live),
            checkout: live
                .row
                .checkout
                .as_ref()
                .map(|out| self.checkout_view(out, live.row.returned)),
            outcome_code: outcome(&row.state).to_owned(),
            outcome: outcome(&row.state).replace('-', " "),
            submit_key_sha256: self
                .desks
                .of(id)
                .map(|desk| desk.submit_key_sha256.0.to_vec())
                .unwrap_or_default(),
            reviews: live.row.reviews.iter().filter_map(opinion).collect(),
        })
    }

    /// A ceremony as it is stored, and when its check-out ends by the wall clock, for who fetches its release.
    pub fn fetched(&self, id: CeremonyId) -> Result<(Live, u64), Refused> {
        let live = self.ceremony(id)?.clone();
        let ends = live.row.checkout.as_ref();
        let ends = ends.map_or(0, |out| self.wall(out.until));
        Ok((live, ends))
    }

    /// A check-out, for display.
    fn checkout_view(&self, out: &CheckOut, returned: Option<Time>) -> v1::Checkout {
        let left = self.now().lived.until(out.until);
        let ends = self.wall(out.until);
        let afterwards = out.credentials.iter().filter_map(|credential| {
            let definition = &self.credential(*credential).ok()?.holding.definition;
            let connector = definition.connector.as_ref();
            Some(match connector.filter(|_| definition.is_automatic()) {
                Some(connector) => format!("{} is rotated by {}", definition.path, connector.name),
                None => format!("{} is changed by an operator, by hand", definition.path),
            })
        });
        v1::Checkout {
            ends_ms: if out.out.is_empty() { 0 } else { ends },
            returned_ms: returned.filter(|_| out.out.is_empty()).map_or(0, Time::ms),
            overdue: !out.out.is_empty() && left == 0,
            afterwards: afterwards.collect(),
        }
    }

    /// How far each credential is from its quorum.
    fn needs_of(&self, live: &Live) -> Vec<v1::Need> {
        let ask = &live.machine.row.ask;
        let mut credentials: Vec<_> = ask.lines.keys().map(|line| line.credential).collect();
        credentials.dedup();
        let said = &live.machine.row.said;
        let spoke = |person: PersonId| said.vote(person).is_some();
        let needs = credentials.into_iter().filter_map(|credential| {
            let holding = &self.credential(credential).ok()?.holding;
            let name = holding.asked(ask.group.as_ref())?;
            let group = self.known.charter.group(name)?;
            let quorum = holding
                .live()
                .filter_map(|(_, sealed)| sealed.manifest.group(name))
                .map(|group| group.k)
                .max();
            let approved = group
                .members
                .iter()
                .filter(|person| spoke(**person))
                .count();
            let shares = ask
                .lines
                .keys()
                .filter(|line| line.credential == credential);
            let shares = shares.map(|line| {
                group
                    .members
                    .iter()
                    .filter(|person| live.machine.has_share(**person, *line))
                    .count()
            });
            let refused = |person: &PersonId| said.refused.contains_key(person);
            let awaited = group
                .members
                .iter()
                .filter(|person| !spoke(**person) && !refused(person));
            Some(v1::Need {
                credential: credential.to_string(),
                path: holding.definition.path.to_string(),
                group: name.to_string(),
                quorum: u32::from(quorum.unwrap_or(group.k).max(group.k)),
                approved: u32::try_from(approved).unwrap_or(u32::MAX),
                shares: u32::try_from(shares.max().unwrap_or_default()).unwrap_or(u32::MAX),
                awaited: awaited
                    .filter_map(|person| self.reference(*person))
                    .map(|person| convert::person(&person))
                    .collect(),
            })
        });
        needs.collect()
    }

    /// A person of the charter as texts name them.
    pub fn reference(&self, person: PersonId) -> Option<PersonRef> {
        self.known
            .charter
            .person(person)
            .map(keyturn_vault::charter::Person::reference)
    }
}

fn share_state(live: &Live, person: PersonId, version: VersionId, says: Says) -> v1::ShareState {
    match says {
        Says::NotHeld => v1::ShareState::NotHeld,
        Says::Unreadable => v1::ShareState::Unreadable,
        Says::Share { .. } if live.machine.has_share(person, version) => v1::ShareState::Valid,
        Says::Share { .. } => v1::ShareState::Awaited,
    }
}

fn outcome(state: &State) -> &'static str {
    use keyturn_vault::ceremony::End;
    match state {
        State::Open { .. }
        | State::Waiting { .. }
        | State::Approved { .. }
        | State::Authorized { .. } => "",
        State::Ended(End::Released { .. }) => "released",
        State::Ended(End::Failed) => "nothing-left-the-vault",
        State::Ended(End::Interrupted) => "possibly-released",
        State::Ended(End::Applied) => "applied",
        State::Ended(End::Expired) => "expired",
        State::Ended(End::Withdrawn) => "withdrawn",
        State::Ended(End::Superseded) => "superseded",
    }
}

fn secs(ms: u64) -> u32 {
    u32::try_from(Millis(ms).0.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// What a custodian said last, and what became of the shares.
fn voice(live: &Live, statement: &rows::Statement) -> Option<(PersonId, v1::Voice)> {
    let approval = statement.approval()?;
    let person = approval.custodian.id;
    let decision = match approval.decision {
        Decision::Approve(_) => v1::Decision::Approve,
        Decision::Refuse { .. } => v1::Decision::Refuse,
        Decision::Retract { .. } => v1::Decision::Retract,
    };
    let vote = live.machine.row.said.vote(person);
    let shares = vote
        .into_iter()
        .flat_map(|vote| &vote.says)
        .map(|(version, says)| v1::VoiceShare {
            credential: version.credential.to_string(),
            version: version.version.number(),
            state: share_state(live, person, *version, *says).into(),
        });
    let voice = v1::Voice {
        person: Some(convert::person(&approval.custodian)),
        decision: decision.into(),
        time_ms: statement.time.ms(),
        token: approval.token.id.to_string(),
        statement_sha256: statement.signed.digest().0.to_vec(),
        shares: shares.collect(),
    };
    Some((person, voice))
}

/// The last decision of everybody who spoke, in the order of time.
fn voices(live: &Live) -> Vec<v1::Voice> {
    let mut voices: Vec<(PersonId, v1::Voice)> = Vec::new();
    for statement in &live.row.statements {
        let Some((person, voice)) = voice(live, statement) else {
            continue;
        };
        voices.retain(|(earlier, _)| *earlier != person);
        voices.push((person, voice));
    }
    voices.into_iter().map(|(_, voice)| voice).collect()
}

/// What people said, with the free texts that are still kept.
pub(super) fn said(statements: &[rows::Statement]) -> Vec<v1::SignedStatement> {
    let wire = |said: &rows::Statement| v1::SignedStatement {
        statement: Some(convert::wire_text(&said.signed)),
        details: said.details.clone(),
        time_ms: said.time.ms(),
    };
    statements.iter().map(wire).collect()
}

/// What a reviewer said.
fn opinion(said: &rows::Statement) -> Option<v1::Opinion> {
    let review = Review::parse(&said.signed.text).ok()?;
    Some(v1::Opinion {
        person: Some(convert::person(&review.reviewer)),
        questioned: review.outcome == Outcome::Questioned,
        time_ms: said.time.ms(),
        statement_sha256: said.signed.digest().0.to_vec(),
    })
}
