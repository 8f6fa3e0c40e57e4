//! The ceremony: from a request to an opening that a quorum agreed to.
//!
//! ```text
//!            approvals         waiting over, shares here      combined
//! Open ───────────────► Approved ───────────────► Authorized ─────────► Released
//!  │ ◄───────────────────  │ │                        │ ├── nothing left ─► Failed
//!  │       retracted       │ └─ opens nothing ► Applied │ └── time over ───► Interrupted
//!  └──► Expired, Withdrawn, Superseded ◄┘
//! ```
//!
//! Pure: the caller brings the time and the verified documents, performs [`Ceremony::checks`] before
//! it steps, and carries out the [`Effect`]s in order: first those that belong to the transaction
//! ([`Effect::in_transaction`]), the others when it is committed.
//!
//! # Invariants
//! 1. `Combine` is given only in the state Authorized, whose `unseal.authorized` entry is in the same
//!    list before it, or was committed earlier.
//! 2. `Combine` carries, for every credential, shares of at least k different persons who approved.
//! 3. A refused event changes nothing.
//! 4. A refusal by a custodian, a retraction, or anything else that one person does changes what
//!    this person gave, and nothing that another gave.
//! 5. Shares are taken only when no waiting time lies ahead, and are in memory only.
//! 6. A final state is never left; from every other state time alone leads to a final one.
//! 7. A restart in Authorized stays there and takes shares again until its time or its check-out is
//!    over; then it is Interrupted, and counts as possibly released. So nothing is released after the
//!    check-out that it is part of.
//! 8. Nothing but k persons, the request's own time, its requester, and the loss of what it names
//!    ends an open ceremony.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    charter::{Charter, MIN_QUORUM, Role, Waiver},
    check::Check,
    digest::Digest,
    event::{Event as Entry, Failure},
    id::{CeremonyId, CredentialId, GroupName, PersonId, TokenId},
    machine::{Millis, Now, Step},
    name::ScenarioName,
    quorum::{Ask, Opening, Says, Verdict, Vote, bars, judge, signs},
    reference::CharterRef,
    refusal::Refusal,
    said::Said,
    text::SignedText,
    time::Span,
    world::{Holding, Stage, VersionId, World},
};

mod advance;
mod open;
mod row;
mod steps;

pub use open::{MAX_OPEN, MAX_VALID, Request};
pub use row::{Base, End, Purpose, Row, State};

/// A ceremony: what is stored, and the shares, which are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ceremony<S> {
    /// What is stored.
    pub row: Row,
    shares: BTreeMap<(VersionId, PersonId), S>,
    combining: bool,
}

/// Whether this person may judge a decided ceremony: an auditor, or a member of the governing group, who
/// neither asked for it nor approved it.
pub fn reviews(
    charter: &Charter,
    part: &BTreeSet<PersonId>,
    person: PersonId,
) -> Result<(), Refusal> {
    let auditor = charter
        .person(person)
        .is_some_and(|person| person.has(Role::Auditor));
    let governs = charter
        .governing()
        .is_some_and(|group| group.members.contains(&person));
    match (auditor || governs, part.contains(&person)) {
        (true, false) => Ok(()),
        (false, _) => Err(Refusal::NotReviewer),
        (true, true) => Err(Refusal::TookPart),
    }
}

/// A custodian who says something, with a signed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// The SHA-256 of the request that it answers.
    pub request: Digest,
    /// The custodian.
    pub person: PersonId,
    /// The token that signed.
    pub token: TokenId,
    /// The SHA-256 of the key that signed.
    pub key: Digest,
    /// What a retraction takes back.
    pub earlier: Option<Digest>,
    /// What was signed.
    pub signed: SignedText,
}

/// A share that was checked against its commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidShare<S> {
    /// The version.
    pub version: VersionId,
    /// The group.
    pub group: GroupName,
    /// Its x.
    pub x: u8,
    /// The share; the machine cannot look at it.
    pub share: S,
}

/// What happens to a ceremony.
#[derive(Clone, Debug)]
pub enum Event<S> {
    /// A custodian approves. The same approval again changes nothing.
    Approve(Vote, SignedText),
    /// A custodian refuses: recorded, shown, and binding nobody.
    Refuse(Voice),
    /// A custodian takes an approval or a refusal back.
    Retract(Voice),
    /// A custodian who approved hands in shares.
    Submit(PersonId, Vec<ValidShare<S>>),
    /// The requester gives it up.
    Withdraw(PersonId),
    /// Time has passed.
    Tick,
    /// The daemon has started again, or another has taken over.
    Restart,
    /// The charter in force, a definition, or the versions of a credential have changed.
    Changed,
    /// What it is about is gone: a held rotation runs, a check-out to extend has ended, or what it
    /// decides cannot be applied any more.
    Moot,
    /// What was combined is encrypted (or sealed anew) and can be handed out.
    Opened(Outcome),
    /// Nothing could be opened or encrypted.
    Failed(Failure),
    /// The requester wants the release again.
    Fetch(PersonId),
    /// The check-out has ended.
    CheckoutEnded,
}

/// What came of combining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The digest of what is handed out; none for a reshare.
    pub ciphertext: Option<Digest>,
    /// What is in it.
    pub delivered: BTreeSet<VersionId>,
    /// Versions whose shares do not all match what was sealed.
    pub inconsistent: BTreeSet<(VersionId, GroupName)>,
}

/// The shares of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheaf<S> {
    /// The version.
    pub version: VersionId,
    /// The group.
    pub group: GroupName,
    /// Shares of different persons.
    pub shares: BTreeMap<PersonId, S>,
}

/// What the shell does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<S> {
    /// Append this entry.
    Log(Entry),
    /// Rotations of these credentials are held.
    HoldRotation(BTreeSet<CredentialId>),
    /// They are no longer held by this ceremony.
    FreeRotation(BTreeSet<CredentialId>),
    /// These credentials are checked out by the requester.
    CheckOut(BTreeSet<CredentialId>, Span),
    /// Their rotations are owed.
    OweRotation(BTreeSet<CredentialId>),
    /// Nothing left: the check-out ends.
    EndCheckOut,
    /// What the request's subject says takes force in this transaction. Where that cannot be, the
    /// shell drops this step and steps `Moot` instead.
    Apply,
    /// Tell people.
    Notify(Notice),
    /// Make a submit key in memory and sign its text.
    MakeSubmitKey,
    /// Combine, open, encrypt (or seal anew); then step `Opened` or `Failed`.
    Combine(Vec<Sheaf<S>>),
    /// Keep the release until the check-out ends.
    KeepRelease,
    /// Hand the release out with its receipt.
    Publish,
    /// Delete the release.
    EraseRelease,
    /// Wipe the submit key.
    EraseSubmitKey,
}

impl<S> Effect<S> {
    /// Whether it is part of the transaction that stores the state; if not, it follows the commit.
    pub fn in_transaction(&self) -> bool {
        match self {
            Self::Log(_)
            | Self::HoldRotation(_)
            | Self::FreeRotation(_)
            | Self::CheckOut(..)
            | Self::OweRotation(_)
            | Self::EndCheckOut
            | Self::Apply
            | Self::Notify(_)
            | Self::KeepRelease
            | Self::EraseRelease => true,
            Self::MakeSubmitKey | Self::Combine(_) | Self::Publish | Self::EraseSubmitKey => false,
        }
    }
}

/// What people are told about a ceremony.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "each is named after the state or the voice that it tells of"
)]
pub enum Notice {
    Opened,
    /// Opened with a `waive:` line.
    Waived,
    Approved(PersonId),
    Refused(PersonId),
    Retracted(PersonId),
    Waiting,
    Authorized,
    Released,
    Inconsistent,
    Failed,
    Interrupted,
    Applied,
    Expired,
    Withdrawn,
    Superseded,
}

impl Notice {
    /// Whether somebody should look at once.
    pub fn is_alert(self) -> bool {
        matches!(
            self,
            Self::Waived
                | Self::Refused(_)
                | Self::Authorized
                | Self::Inconsistent
                | Self::Interrupted
        )
    }
}

impl<S> Ceremony<S> {
    /// The ceremony as the store has it: no shares. The next event must be `Restart`.
    pub fn wake(row: Row) -> Self {
        Self {
            row,
            shares: BTreeMap::new(),
            combining: false,
        }
    }

    /// Whether shares are being combined.
    pub fn is_combining(&self) -> bool {
        self.combining
    }

    /// Whether the share of this person of this version is here.
    pub fn has_share(&self, person: PersonId, version: VersionId) -> bool {
        self.shares.contains_key(&(version, person))
    }

    /// The judgement over the approvals, or over the shares that are here.
    pub fn verdict(&self, world: World<'_>, shares: bool) -> Verdict {
        judge(
            world,
            &self.row.ask,
            &self.row.said.votes,
            |person, version| {
                if shares {
                    self.has_share(person, version)
                } else {
                    self.row.promised(person, version)
                }
            },
        )
    }

    /// What must be checked before this event is stepped.
    pub fn checks(&self, world: World<'_>, event: &Event<S>) -> Vec<Check> {
        match event {
            Event::Approve(vote, signed) => Check::signature(world.charter, vote.token, signed),
            Event::Refuse(voice) | Event::Retract(voice) => {
                Check::signature(world.charter, voice.token, &voice.signed)
            }
            Event::Submit(person, shares) => shares
                .iter()
                .filter_map(|share| self.row.commitment(*person, share))
                .collect(),
            Event::Withdraw(_)
            | Event::Tick
            | Event::Restart
            | Event::Changed
            | Event::Moot
            | Event::Opened(_)
            | Event::Failed(_)
            | Event::Fetch(_)
            | Event::CheckoutEnded => Vec::new(),
        }
    }

    /// Takes one event.
    pub fn step(mut self, now: Now, world: World<'_>, event: Event<S>) -> Step<Self, Effect<S>> {
        let outcome = self.take(now, world, event);
        Step {
            state: self,
            outcome,
        }
    }

    /// The table. Whatever returns a refusal does so before it changes anything (invariant 3).
    fn take(
        &mut self,
        now: Now,
        world: World<'_>,
        event: Event<S>,
    ) -> Result<Vec<Effect<S>>, Refusal> {
        use State::{Approved, Authorized, Ended, Open, Waiting};
        match (&self.row.state, event) {
            (_, Event::Tick) => Ok(self.tick(now, world)),
            (_, Event::Restart) => Ok(self.restart()),
            (Authorized { .. }, Event::Opened(outcome)) if self.combining => {
                Ok(self.opened(outcome))
            }
            (Authorized { .. }, Event::Failed(why)) if self.combining => Ok(self.failed(why)),

            (Open { .. } | Waiting { .. } | Approved { .. }, Event::Moot) => Ok(self.superseded()),
            (Open { .. } | Waiting { .. } | Approved { .. }, Event::Changed) => {
                Ok(self.changed(now, world))
            }
            (Ended(End::Released { kept: true }), Event::CheckoutEnded) => {
                self.row.state = Ended(End::Released { kept: false });
                Ok(vec![Effect::EraseRelease])
            }
            (Authorized { .. }, Event::CheckoutEnded) => Ok(self.interrupted()),
            (_, Event::Moot | Event::Changed | Event::CheckoutEnded) => Ok(Vec::new()),
            (_, Event::Fetch(person) | Event::Withdraw(person))
                if person != self.row.ask.requester =>
            {
                Err(Refusal::NotYours)
            }
            (Ended(End::Released { kept: true }), Event::Fetch(person)) => Ok(vec![
                Effect::Log(Entry::UnsealFetched {
                    ceremony: self.row.id,
                    person,
                }),
                Effect::Publish,
            ]),
            (Ended(_), Event::Fetch(_)) => Err(Refusal::NothingToFetch),
            (_, Event::Fetch(_) | Event::Opened(_) | Event::Failed(_)) => Err(Refusal::NotNow),
            (_, Event::Approve(vote, _))
                if self
                    .row
                    .said
                    .votes
                    .iter()
                    .any(|known| known.text == vote.text) =>
            {
                Ok(Vec::new())
            }

            // More than are needed: the approval that they came with was the last thing missing, or somebody was
            // faster. They are dropped, and nobody is refused for it.
            (Authorized { .. }, Event::Submit(person, _))
                if self.combining && self.row.said.vote(person).is_some() =>
            {
                Ok(Vec::new())
            }

            (Ended(_), _) => Err(Refusal::Decided),
            (_, _) if self.row.overdue(now) => Err(Refusal::TooLate),
            (Authorized { .. }, _) if self.combining => Err(Refusal::Decided),

            (_, Event::Approve(vote, signed)) => self.approve(now, world, vote, signed),
            (_, Event::Submit(person, shares)) => self.submit(now, world, person, shares),
            (Authorized { .. }, Event::Refuse(_) | Event::Retract(_) | Event::Withdraw(_)) => {
                Err(Refusal::Decided)
            }
            (_, Event::Refuse(voice)) => self.refuse(now, world, &voice),
            (_, Event::Retract(voice)) => self.retract(now, world, &voice),
            (_, Event::Withdraw(person)) => {
                let entry = Entry::CeremonyWithdrawn {
                    ceremony: self.row.id,
                    person,
                };
                Ok(self.end(End::Withdrawn, entry, Notice::Withdrawn))
            }
        }
    }
}
