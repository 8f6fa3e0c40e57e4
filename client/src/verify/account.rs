//! What happened, told from the entries of a verified log: who opened what, when, why, with whose agreement,
//! and what came of it. What is wrong with it is [`super::directory`]'s business.

mod case;

use std::collections::{BTreeMap, BTreeSet};

use keyturn_audit::entry::Entry;
use keyturn_vault::{
    event::{Cause, Event, Evidence, Maker},
    id::{CeremonyId, CredentialId, PersonId},
    name::CredentialPath,
    reference::Version,
    text::{Approval, Checkin, Decision, Outcome, Request, Review, SignedText},
    time::Time,
    world::VersionId,
};
use serde::Serialize;

pub use case::{Case, Moment, Named, Note, Reviewed, Rotated, Said};

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    /// Requests that were opened in it, in order.
    pub cases: Vec<Case>,
    /// Charters that took force, definitions, restores, openings without the daemon.
    pub changes: Vec<Note>,
    /// What the daemon refused, by person and reason.
    pub refusals: BTreeMap<String, u64>,
    /// Candidates that nobody has logged in with.
    pub unproven: BTreeSet<String>,
    /// Versions of which no custodian confirmed a share.
    pub unconfirmed: BTreeSet<String>,
    /// From when on, and before when, requests and what else happened are told.
    #[serde(skip)]
    period: (Option<Time>, Option<Time>),
    #[serde(skip)]
    paths: BTreeMap<CredentialId, CredentialPath>,
    #[serde(skip)]
    candidates: BTreeSet<VersionId>,
    #[serde(skip)]
    silent: BTreeSet<VersionId>,
    #[serde(skip)]
    people: BTreeMap<PersonId, String>,
    #[serde(skip)]
    places: BTreeMap<CeremonyId, usize>,
    /// Requests by what they opened and is not rotated yet.
    #[serde(skip)]
    waiting: BTreeMap<CredentialId, BTreeSet<CeremonyId>>,
    /// Requests by the version of whose rotation no evidence is logged yet.
    #[serde(skip)]
    unshown: BTreeMap<VersionId, BTreeSet<CeremonyId>>,
}

impl Account {
    /// An account of this time: from one moment on, and until before another.
    pub fn of(from: Option<Time>, to: Option<Time>) -> Self {
        Self {
            period: (from, to),
            ..Self::default()
        }
    }

    fn within(&self, at: &Moment) -> bool {
        let time = at.time.parse::<Time>().ok();
        let after = |from: Time| time.is_some_and(|time| time >= from);
        let before = |to: Time| time.is_some_and(|time| time < to);
        self.period.0.is_none_or(after) && self.period.1.is_none_or(before)
    }

    /// Takes the next entry.
    pub fn entry(&mut self, entry: &Entry, event: &Event) {
        if let Event::CeremonyOpened { ceremony, request } = event {
            self.opened(entry, *ceremony, request);
        } else if let Event::CeremonyApproved { approval: text, .. }
        | Event::CeremonyRefused { refusal: text, .. }
        | Event::CeremonyRetracted {
            retraction: text, ..
        } = event
        {
            self.said(entry, event.ceremony(), text);
        } else if let Event::CeremonyReviewed { ceremony, review } = event {
            self.reviewed(entry, *ceremony, review);
        } else if let Some(ceremony) = event.ceremony() {
            self.step(entry, ceremony, event);
        }
        self.credential(entry, event);
        self.else_happened(entry, event);
    }

    /// Closes the books: what is still open is named, and what is of another time left out.
    pub fn finish(&mut self) {
        let mut cases = std::mem::take(&mut self.cases);
        cases.retain(|case| self.within(&case.opened));
        self.cases = cases;
        let name = |version: &VersionId| self.version(*version);
        let unproven = self.candidates.iter().map(name).collect();
        let unconfirmed = self.silent.iter().map(name).collect();
        (self.unproven, self.unconfirmed) = (unproven, unconfirmed);
    }

    /// Whether the log has a credential at this path.
    pub fn knows(&self, path: &str) -> bool {
        let asked = self.cases.iter().flat_map(|case| &case.versions);
        let mut known = asked.map(|named| &named.path).chain(self.paths.values());
        known.any(|known| known.as_str() == path)
    }

    fn case(&mut self, ceremony: CeremonyId) -> Option<&mut Case> {
        let place = *self.places.get(&ceremony)?;
        self.cases.get_mut(place)
    }

    fn path(&self, credential: CredentialId) -> String {
        let path = self.paths.get(&credential);
        path.map_or_else(|| credential.to_string(), ToString::to_string)
    }

    fn version(&self, version: VersionId) -> String {
        format!("{} {}", self.path(version.credential), version.version)
    }

    fn person(&self, person: PersonId) -> String {
        self.people
            .get(&person)
            .cloned()
            .unwrap_or_else(|| person.to_string())
    }

    fn opened(&mut self, entry: &Entry, ceremony: CeremonyId, signed: &SignedText) {
        let Ok(request) = signed.parse::<Request>() else {
            return;
        };
        self.people.insert(
            request.requested_by.id,
            request.requested_by.name.to_string(),
        );
        let named = request.credentials.iter().map(|line| Named {
            path: line.path.clone(),
            credential: line.credential,
            version: line.version,
        });
        let case = Case {
            ceremony,
            purpose: request.purpose.name().to_owned(),
            subject: request.purpose.subject(),
            request: signed.digest(),
            requested_by: request.requested_by.name.to_string(),
            used_by: request.used_by.as_ref().map(ToString::to_string),
            ticket: request.ticket.as_ref().map(ToString::to_string),
            scenario: request.scenario.as_ref().map(ToString::to_string),
            details: request.details,
            waived: request.waive.iter().map(ToString::to_string).collect(),
            versions: named.collect(),
            opened: Moment::of(entry),
            said: Vec::new(),
            agreed: BTreeSet::new(),
            authorized: None,
            released: None,
            fetched: 0,
            outcome: "open",
            returned: None,
            rotated: Vec::new(),
            owed: BTreeSet::new(),
            reviews: Vec::new(),
        };
        self.places.insert(ceremony, self.cases.len());
        self.cases.push(case);
    }

    fn said(&mut self, entry: &Entry, ceremony: Option<CeremonyId>, text: &SignedText) {
        let Ok(approval) = text.parse::<Approval>() else {
            return;
        };
        self.people
            .insert(approval.custodian.id, approval.custodian.name.to_string());
        let (decision, reason) = match approval.decision {
            Decision::Approve(_) => ("approve", None),
            Decision::Refuse { reason } => ("refuse", Some(reason)),
            Decision::Retract { .. } => ("retract", None),
        };
        let said = Said {
            person: approval.custodian.name.to_string(),
            token: approval.token.to_string(),
            decision,
            reason,
            at: Moment::of(entry),
        };
        if let Some(case) = ceremony.and_then(|ceremony| self.case(ceremony)) {
            case.said.push(said);
        }
    }

    fn reviewed(&mut self, entry: &Entry, ceremony: CeremonyId, text: &SignedText) {
        let Ok(review) = text.parse::<Review>() else {
            return;
        };
        let reviewed = Reviewed {
            person: review.reviewer.name.to_string(),
            outcome: match review.outcome {
                Outcome::InOrder => "in order",
                Outcome::Questioned => "questioned",
            },
            note: review.note,
            at: Moment::of(entry),
        };
        if let Some(case) = self.case(ceremony) {
            case.reviews.push(reviewed);
        }
    }

    /// What became of a request.
    fn step(&mut self, entry: &Entry, ceremony: CeremonyId, event: &Event) {
        let at = Moment::of(entry);
        let person = if let Event::CheckoutReturned { checkin, .. } = event {
            checkin.parse::<Checkin>().ok().map(|text| text.returned_by)
        } else {
            None
        };
        if let Some(person) = person {
            self.people.insert(person.id, person.name.to_string());
        }
        let agreed: BTreeSet<_> = agreed(event).map(|person| self.person(person)).collect();
        let Some(case) = self.case(ceremony) else {
            return;
        };
        case.agreed.extend(agreed);
        if let Event::UnsealAuthorized { .. } = event {
            case.authorized = Some(at);
            case.outcome = "authorized";
        } else if let Event::UnsealReleased { .. } = event {
            case.released = Some(at);
            case.outcome = "released";
        } else if let Event::CeremonyApplied { .. } = event {
            case.released = Some(at);
            case.outcome = "applied";
        } else if let Event::UnsealFailed { .. } = event {
            case.outcome = "failed: nothing left the vault";
        } else if let Event::UnsealInterrupted { .. } = event {
            case.outcome = "interrupted: possibly released";
        } else if let Event::CeremonyExpired { .. } = event {
            case.outcome = "expired";
        } else if let Event::CeremonyWithdrawn { .. } = event {
            case.outcome = "withdrawn";
        } else if let Event::CeremonySuperseded { .. } = event {
            case.outcome = "superseded";
        } else if let Event::UnsealFetched { .. } = event {
            case.fetched = case.fetched.saturating_add(1);
        } else if let Event::CheckoutReturned { .. } | Event::CheckoutEnded { .. } = event {
            case.returned.get_or_insert(at);
        }
    }

    /// Versions and rotations.
    fn credential(&mut self, entry: &Entry, event: &Event) {
        if let Event::CredentialDefined {
            credential, path, ..
        } = event
        {
            self.paths.insert(*credential, path.clone());
        } else if let Event::VersionSealed { version, maker, .. } = event {
            if version.version != Version::FIRST && matches!(maker, Maker::Deposit(_)) {
                self.candidates.insert(*version);
            }
            self.silent.insert(*version);
        } else if let Event::ShareConfirmed { version, .. } = event {
            self.silent.remove(version);
        } else if let Event::VersionRetired {
            credential,
            versions,
        } = event
        {
            self.retired(*credential, versions);
        } else if let Event::RotationOwed {
            credential,
            cause: Cause::Unseal(ceremony),
        } = event
        {
            let path = self.path(*credential);
            if let Some(case) = self.case(*ceremony) {
                case.owed.insert(path);
                let waiting = self.waiting.entry(*credential).or_default();
                waiting.insert(*ceremony);
            }
        } else if let Event::RotationPromoted { version }
        | Event::RotationCompleted { version, .. }
        | Event::VersionPromoted { version, .. } = event
        {
            self.candidates.remove(version);
            self.rotated(entry, *version);
        } else if let Event::RotationDone {
            version,
            evidence,
            retired,
        } = event
        {
            self.retired(version.credential, retired);
            let evidence = match evidence {
                Evidence::Shown(line) => line.to_string(),
                Evidence::NotObservable => "not observable at the target".to_owned(),
            };
            let path = self.path(version.credential);
            for ceremony in self.unshown.remove(version).unwrap_or_default() {
                let rotated = self.case(ceremony).into_iter();
                let mut rotated = rotated.flat_map(|case| &mut case.rotated);
                if let Some(rotated) = rotated.find(|it| it.path == path) {
                    rotated.evidence = Some(evidence.clone());
                }
            }
        }
    }

    /// Of versions that retire nobody has to prove or confirm anything any more.
    fn retired(&mut self, credential: CredentialId, versions: &BTreeSet<Version>) {
        for version in versions {
            let version = VersionId {
                credential,
                version: *version,
            };
            self.candidates.remove(&version);
            self.silent.remove(&version);
        }
    }

    /// A newer version than those that were opened is in force: what was owed for it is done.
    fn rotated(&mut self, entry: &Entry, version: VersionId) {
        let path = self.path(version.credential);
        let older = |named: &Named| {
            named.credential == version.credential && named.version < version.version
        };
        for ceremony in self.waiting.remove(&version.credential).unwrap_or_default() {
            let Some(case) = self.case(ceremony) else {
                continue;
            };
            if case.versions.iter().any(older) && case.owed.remove(&path) {
                case.rotated.push(Rotated {
                    path: path.clone(),
                    version: version.version,
                    evidence: None,
                    at: Moment::of(entry),
                });
                self.unshown.entry(version).or_default().insert(ceremony);
            } else {
                let waiting = self.waiting.entry(version.credential).or_default();
                waiting.insert(ceremony);
            }
        }
    }

    fn else_happened(&mut self, entry: &Entry, event: &Event) {
        if !self.within(&Moment::of(entry)) {
            return;
        }
        let what = if let Event::VaultFounded { charter, .. } = event {
            format!("the vault was founded with charter {}", charter.digest)
        } else if let Event::CharterInForce { charter, ceremony } = event {
            format!(
                "charter {} took force, by {ceremony}: {}",
                charter.index, charter.digest
            )
        } else if let Event::CharterJoined { join, .. } = event {
            format!("somebody joined, with text {}", join.digest())
        } else if let Event::DeviceJoined { person, .. } = event {
            format!("{} signed in a new device", self.person(*person))
        } else if let Event::CredentialDefined {
            path,
            definition,
            ceremony,
            ..
        } = event
        {
            match ceremony {
                Some(ceremony) => format!("{path} was changed, by {ceremony}: {definition}"),
                None => format!("{path} was added: {definition}"),
            }
        } else if let Event::RestoreAccepted { ceremony, .. } = event {
            format!("a restore was accepted, by {ceremony}")
        } else if let Event::RecoverImported { record, .. } = event {
            format!("an opening without the vault was recorded: {record}")
        } else if let Event::DetailsErased { of, ceremony, .. } = event {
            format!("the details of {of} were erased, by {ceremony}")
        } else if let Event::RotationNeedsOperator { credential, .. } = event {
            format!(
                "the rotation of {} needs an operator",
                self.path(*credential)
            )
        } else if let Event::VersionInconsistent { version, .. } = event {
            format!("the shares of {} do not match", self.version(*version))
        } else {
            if let Event::RefusalsCounted {
                person,
                code,
                count,
                ..
            } = event
            {
                let key = format!("{}: {}", self.person(*person), code.code());
                let total = self.refusals.entry(key).or_default();
                *total = total.saturating_add(*count);
            }
            return;
        };
        self.changes.push(Note {
            what,
            at: Moment::of(entry),
        });
    }
}

/// Who agreed and counted, as the entry says that the rules had it.
fn agreed(event: &Event) -> impl Iterator<Item = PersonId> {
    let mut persons = BTreeSet::new();
    if let Event::UnsealAuthorized { openings, .. } = event {
        for opening in openings {
            persons.extend(opening.persons.iter().copied());
        }
    } else if let Event::CeremonyApplied {
        persons: agreed, ..
    } = event
    {
        persons.extend(agreed.iter().copied());
    }
    persons.into_iter()
}
