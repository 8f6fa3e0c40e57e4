//! The check-out: from authorisation to return. It records; it never locks.
//!
//! One check-out per ceremony, over the credentials that it opened. Nothing asks it before opening:
//! a request only looks at who else has a credential out, and a `waive:` line answers that.
//!
//! # Invariants
//! 1. A credential is out from authorisation until it is returned, or the time ends; then, and not
//!    before, its owed rotation is due.
//! 2. Only the requester returns, and only versions that were delivered can be said to have worked.
//! 3. Only a quorum makes it longer, and never longer than the policy's longest.
//! 4. Every check-out ends by time alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    event::Event as Entry,
    id::{CeremonyId, CredentialId, PersonId},
    machine::{Millis, Now, Step},
    reference::Version,
    refusal::Refusal,
    text::{Checkin, SignedText},
    time::{Span, Time},
    world::VersionId,
};

/// How long before the end the requester is warned: first, and once more.
pub const WARNINGS: [Span; 2] = [Span::from_mins(30), Span::from_mins(5)];
/// How many check-in texts are taken after the end: what worked, what is void.
pub const MAX_LATE: u8 = 8;

/// A check-out, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckOut {
    /// The ceremony that opened it.
    pub ceremony: CeremonyId,
    /// Its requester.
    pub person: PersonId,
    /// What is still out.
    pub out: BTreeSet<CredentialId>,
    /// What was out at first.
    pub credentials: BTreeSet<CredentialId>,
    /// What was delivered.
    pub delivered: BTreeSet<VersionId>,
    /// When it ends, in lived time.
    pub until: Millis,
    /// The latest end that extensions can give it, in lived time.
    pub latest: Millis,
    /// How many warnings were given.
    pub warned: u8,
    /// How many texts came after the end.
    pub late: u8,
}

/// What happens to a check-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The release is handed out.
    Delivered(BTreeSet<VersionId>),
    /// The requester returns credentials, and says which versions worked.
    Return {
        /// Who says so.
        person: PersonId,
        /// What is returned, with the version that worked.
        returned: BTreeMap<CredentialId, Option<Version>>,
        /// The signed text.
        signed: SignedText,
    },
    /// A quorum makes it longer.
    Extend {
        /// Its new end, by the wall clock.
        until: Time,
        /// The ceremony.
        ceremony: CeremonyId,
    },
    /// Nothing was released: it ends.
    Cancel,
    /// Time has passed.
    Tick,
}

/// What the shell does, in the order given; all of it belongs to the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this entry.
    Log(Entry),
    /// These credentials are no longer out by this ceremony: their slots step `Returned`.
    Returned(BTreeSet<CredentialId>),
    /// A login with this version succeeded: its slot steps `Worked`.
    Worked(VersionId),
    /// The ceremony steps `CheckoutEnded`.
    Close,
    /// Tell people.
    Notify(Notice),
}

/// What people are told about a check-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// It ends soon.
    EndsSoon,
    /// It has ended without a return.
    Ended,
    /// It was returned.
    Returned,
    /// It ends later.
    Extended,
}

impl Event {
    /// The return that a parsed check-in is.
    pub fn of(checkin: &Checkin, signed: SignedText) -> Self {
        let returned = checkin
            .credentials
            .iter()
            .map(|line| (line.credential, line.worked))
            .collect();
        Self::Return {
            person: checkin.returned_by.id,
            returned,
            signed,
        }
    }
}

impl CheckOut {
    /// A check-out that begins.
    pub fn start(
        now: Now,
        ceremony: CeremonyId,
        person: PersonId,
        credentials: BTreeSet<CredentialId>,
        check_out: Span,
        longest: Span,
    ) -> Self {
        let until = now.lived.after(check_out.ms());
        Self {
            ceremony,
            person,
            out: credentials.clone(),
            credentials,
            delivered: BTreeSet::new(),
            until,
            latest: until.max(now.lived.after(longest.ms())),
            warned: 0,
            late: 0,
        }
    }

    /// Takes one event.
    pub fn step(mut self, now: Now, event: Event) -> Step<Self, Effect> {
        let outcome = match event {
            Event::Delivered(versions) => {
                self.delivered.extend(versions);
                Ok(Vec::new())
            }
            Event::Return { person, .. } if person != self.person => Err(Refusal::NotYours),
            Event::Return {
                returned, signed, ..
            } => self.take_back(&returned, signed),
            Event::Extend { .. } | Event::Cancel if self.out.is_empty() => Err(Refusal::NotOut),
            Event::Extend { until, ceremony } => self.extend(now, until, ceremony),
            Event::Cancel => Ok(self.end()),
            Event::Tick => Ok(self.tick(now)),
        };
        Step {
            state: self,
            outcome,
        }
    }

    fn take_back(
        &mut self,
        returned: &BTreeMap<CredentialId, Option<Version>>,
        signed: SignedText,
    ) -> Result<Vec<Effect>, Refusal> {
        if returned.is_empty()
            || !returned
                .keys()
                .all(|credential| self.credentials.contains(credential))
        {
            return Err(Refusal::UnknownCredential);
        }
        let worked: BTreeSet<_> = returned
            .iter()
            .filter_map(|(credential, worked)| {
                Some(VersionId {
                    credential: *credential,
                    version: (*worked)?,
                })
            })
            .collect();
        if !worked.is_subset(&self.delivered) {
            return Err(Refusal::NotDelivered);
        }
        let back: BTreeSet<_> = returned
            .keys()
            .copied()
            .filter(|credential| self.out.contains(credential))
            .collect();
        if back.is_empty() {
            if self.late >= MAX_LATE {
                return Err(Refusal::NotOut);
            }
            self.late = self.late.saturating_add(1);
        }
        self.out.retain(|credential| !back.contains(credential));
        let entry = Entry::CheckoutReturned {
            ceremony: self.ceremony,
            checkin: signed,
            worked: worked.clone(),
        };
        let mut effects = vec![Effect::Log(entry)];
        effects.extend(worked.into_iter().map(Effect::Worked));
        if !back.is_empty() {
            effects.push(Effect::Returned(back));
            if self.out.is_empty() {
                effects.push(Effect::Close);
            }
            effects.push(Effect::Notify(Notice::Returned));
        }
        Ok(effects)
    }

    fn extend(
        &mut self,
        now: Now,
        until: Time,
        ceremony: CeremonyId,
    ) -> Result<Vec<Effect>, Refusal> {
        let end = now.lived.after(until.ms_since(now.wall));
        if end <= self.until {
            return Err(Refusal::NotLonger);
        }
        if end > self.latest {
            return Err(Refusal::CheckOutTooLong);
        }
        self.until = end;
        self.warned = 0;
        let entry = Entry::CheckoutExtended {
            checkout: self.ceremony,
            until,
            ceremony,
        };
        Ok(vec![Effect::Log(entry), Effect::Notify(Notice::Extended)])
    }

    fn tick(&mut self, now: Now) -> Vec<Effect> {
        if self.out.is_empty() {
            return Vec::new();
        }
        let left = now.lived.until(self.until);
        if left == 0 {
            return self.end();
        }
        let due = WARNINGS.iter().filter(|before| left <= before.ms()).count();
        let due = u8::try_from(due).unwrap_or(u8::MAX);
        if due <= self.warned {
            return Vec::new();
        }
        self.warned = due;
        vec![Effect::Notify(Notice::EndsSoon)]
    }

    fn end(&mut self) -> Vec<Effect> {
        let out = std::mem::take(&mut self.out);
        vec![
            Effect::Log(Entry::CheckoutEnded {
                ceremony: self.ceremony,
            }),
            Effect::Returned(out),
            Effect::Close,
            Effect::Notify(Notice::Ended),
        ]
    }
}
