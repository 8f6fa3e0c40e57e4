//! The auditor's fold over the log: the same machines, stepped by what the entries say.
//!
//! Nothing here trusts the daemon. Each entry either is what a machine logs when it takes the event
//! that the entry tells of, or follows from an earlier entry, or is a [`Finding`]. Documents come from
//! the caller by their digests; what only cryptography can tell comes out as [`Check`]s.
//!
//! The daemon's two clocks are not in the log. The times of the entries stand for both; where only
//! time speaks against an entry, that is a warning, and the fold goes on as the daemon did.
//!
//! # Invariants
//! 1. An entry that the machines would not have written is a finding of the level error.
//! 2. A step depends on the records so far and the documents that they name, and on nothing else.
//! 3. A finding changes nothing in what is judged later, but for what the bad entry would have done.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ceremony::{Ceremony, Row, State},
    change::{Joined, Seen},
    charter::{Chain, Charter},
    check::Check,
    checkout::CheckOut,
    digest::Digest,
    event::{Cause, Event},
    id::{CeremonyId, CredentialId, GroupName, PersonId},
    machine::{Millis, Now},
    name::KeyId,
    reference::CharterRef,
    refusal::Refusal,
    rotation::Slot,
    text::{self, SignedText, Text},
    time::{Span, Time},
    world::{Holding, VersionId, World},
};

mod afterwards;
mod ceremonies;
mod charters;
mod credentials;
mod finding;
mod follow;
mod keys;
mod rotations;

pub use finding::{CODES, Finding, Level};
use finding::{Fault, fault};

/// How long after its check-out an opened credential may be owed its rotation before that is late.
const LATE_ROTATION: Span = Span::from_hours(24);

/// How many entries may come between an entry and what follows from it; a batch of the daemon's.
const BATCH: u64 = 512;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 0.
    pub n: u64,
    /// When the daemon wrote it, by its wall clock.
    pub time: Time,
    /// The charter in force, by its index; 0 before the founding.
    pub charter: u64,
    /// Who or what acted.
    pub actor: String,
    /// What happened.
    pub event: Event,
}

/// Gives documents by their digests.
pub trait Documents {
    /// The bytes; none where they are lost.
    fn document(&self, digest: &Digest) -> Option<Vec<u8>>;
}

impl Documents for BTreeMap<Digest, Vec<u8>> {
    fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.get(digest).cloned()
    }
}

/// What came of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What is wrong or worth knowing.
    pub findings: Vec<Finding>,
    /// What must be checked with keys.
    pub checks: Vec<Check>,
    /// Ceremonies that ended with this record, as they ended.
    pub ended: Vec<Row>,
}

/// A ceremony and the request that opened it.
#[derive(Clone, Debug)]
struct Known {
    ceremony: Ceremony<()>,
    request: text::Request,
    /// Its free texts: details, reasons of refusals, notes of reviews.
    texts: BTreeSet<Digest>,
}

/// What is kept of a ceremony that has ended.
#[derive(Clone, Debug)]
struct Ended {
    request: Digest,
    texts: BTreeSet<Digest>,
    credentials: BTreeSet<CredentialId>,
    /// Who asked for it or approved it.
    part: BTreeSet<PersonId>,
}

/// The fold.
#[derive(Debug)]
pub struct Replay {
    genesis: Digest,
    next: u64,
    clock: Millis,
    chain: Option<Chain>,
    joined: BTreeMap<Digest, Joined>,
    seen: Seen,
    holdings: BTreeMap<CredentialId, Holding>,
    slots: BTreeMap<CredentialId, Slot>,
    ceremonies: BTreeMap<CeremonyId, Known>,
    ended: BTreeMap<CeremonyId, Ended>,
    checkouts: BTreeMap<CeremonyId, CheckOut>,
    /// What was decided and has not taken force yet.
    decided: BTreeMap<CeremonyId, text::Purpose>,
    inconsistent: BTreeMap<CeremonyId, BTreeSet<(VersionId, GroupName)>>,
    /// Manifests that an accepted restore takes back, and that have not been yet.
    found: BTreeSet<(CeremonyId, Digest)>,
    /// Entries that follow from earlier ones, with the number after which they are missing.
    expected: Vec<(u64, Event)>,
    refusals: BTreeMap<Refusal, u64>,
    /// Keys that a target made, whose versions the next entries seal.
    making: BTreeMap<CredentialId, KeyId>,
    /// Whether an operator has paused all rotations.
    paused: bool,
}

/// One step of the fold.
struct At<'a> {
    record: &'a Record,
    documents: &'a dyn Documents,
    now: Now,
    out: Judgement,
}

impl At<'_> {
    fn note(
        &mut self,
        Fault {
            level,
            code,
            detail,
        }: Fault,
    ) {
        self.out.findings.push(Finding {
            n: self.record.n,
            level,
            code,
            detail,
        });
    }

    fn warn(&mut self, fault: Fault) {
        self.note(Fault {
            level: Level::Warning,
            ..fault
        });
    }

    /// A document by its digest, parsed.
    fn document<T>(
        &self,
        digest: &Digest,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, Fault> {
        let bytes = self
            .documents
            .document(digest)
            .ok_or_else(|| fault("document-missing"))?;
        if Digest::of(&bytes) != *digest {
            return Err(fault("document"));
        }
        parse(&bytes).ok_or_else(|| fault("document"))
    }

    /// The entry itself, where no machine writes it.
    fn entry(&self) -> Vec<Event> {
        vec![self.record.event.clone()]
    }
}

/// A signed text, parsed.
fn read<T: Text>(signed: &SignedText) -> Result<T, Fault> {
    signed.parse().map_err(|error| Fault {
        detail: error.to_string(),
        ..fault("text")
    })
}

impl Replay {
    /// A fold from the first entry of the vault whose charter 1 has this digest.
    pub fn new(genesis: Digest) -> Self {
        Self {
            genesis,
            next: 0,
            clock: Millis(0),
            chain: None,
            joined: BTreeMap::new(),
            seen: Seen::default(),
            holdings: BTreeMap::new(),
            slots: BTreeMap::new(),
            ceremonies: BTreeMap::new(),
            ended: BTreeMap::new(),
            checkouts: BTreeMap::new(),
            decided: BTreeMap::new(),
            inconsistent: BTreeMap::new(),
            found: BTreeSet::new(),
            expected: Vec::new(),
            refusals: BTreeMap::new(),
            making: BTreeMap::new(),
            paused: false,
        }
    }

    /// The charter in force.
    pub fn charter(&self) -> Option<(CharterRef, &Charter)> {
        self.chain.as_ref()?.newest()
    }

    /// The credentials.
    pub fn holdings(&self) -> &BTreeMap<CredentialId, Holding> {
        &self.holdings
    }

    /// The charters.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// The slots.
    pub fn slots(&self) -> &BTreeMap<CredentialId, Slot> {
        &self.slots
    }

    /// The check-outs, also those that have ended.
    pub fn checkouts(&self) -> &BTreeMap<CeremonyId, CheckOut> {
        &self.checkouts
    }

    /// Ceremonies that have not ended, or whose release is still kept.
    pub fn ceremonies(&self) -> impl Iterator<Item = &Row> {
        self.ceremonies.values().map(|known| &known.ceremony.row)
    }

    /// When each person last signed anything.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The latest time of an entry, which stands for both clocks.
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// How often the daemon refused, by reason.
    pub fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }

    /// Judges the next record.
    pub fn step(&mut self, record: &Record, documents: &dyn Documents) -> Judgement {
        let clock = Millis(record.time.ms());
        let back = clock < self.clock;
        self.clock = self.clock.max(clock);
        let now = Now {
            wall: record.time,
            ran: self.clock,
            lived: self.clock,
        };
        let mut at = At {
            record,
            documents,
            now,
            out: Judgement::default(),
        };
        if back {
            at.warn(fault("time-back"));
        }
        if record.n != self.next {
            at.note(fault("order"));
        }
        self.next = record.n.saturating_add(1);
        let founding = matches!(record.event, Event::VaultFounded { .. });
        let index = self
            .charter()
            .map_or(u64::from(founding), |(in_force, _)| in_force.index);
        let taking = matches!(record.event, Event::CharterInForce { .. });
        if record.charter != index && !(taking && record.charter == index.saturating_add(1)) {
            at.note(fault("charter"));
        }
        match self
            .expected
            .iter()
            .position(|(_, event)| *event == record.event)
        {
            Some(place) => drop(self.expected.remove(place)),
            None => match self.judge(&mut at) {
                Ok(entries) => self.settle(&mut at, entries),
                Err(fault) => at.note(fault),
            },
        }
        self.miss(&mut at);
        at.out
    }

    /// What is still open at the end of the log.
    pub fn finish(&self) -> Vec<Finding> {
        let n = self.next.saturating_sub(1);
        let finding = move |level, code: &'static str, detail: String| Finding {
            n,
            level,
            code,
            detail,
        };
        let missing = self
            .expected
            .iter()
            .map(|(_, event)| finding(Level::Warning, "missing-entry", event.kind().to_owned()));
        let owed = self.slots.values().flat_map(|slot| {
            let path = self
                .holdings
                .get(&slot.credential)
                .map(|holding| holding.definition.path.to_string())
                .unwrap_or_default();
            slot.owed.iter().filter_map(move |(cause, _)| {
                let Cause::Unseal(ceremony) = cause else {
                    return None;
                };
                let until = self.checkouts.get(ceremony).map(|out| out.until);
                let late = until.is_some_and(|until| self.clock >= until.after(LATE_ROTATION.ms()));
                let detail = format!("{path}, opened by {ceremony}");
                Some(if late {
                    finding(Level::Warning, "rotation-late", detail)
                } else {
                    finding(Level::Info, "rotation-owed", detail)
                })
            })
        });
        let authorized =
            |known: &&Known| matches!(known.ceremony.row.state, State::Authorized { .. });
        let open = self
            .ceremonies
            .values()
            .filter(authorized)
            .map(|known| finding(Level::Info, "open-end", known.request.ceremony.to_string()));
        let decided = self
            .decided
            .keys()
            .map(|id| finding(Level::Warning, "missing-entry", id.to_string()));
        missing.chain(owed).chain(open).chain(decided).collect()
    }

    /// The entries that a step of the machines wrote: this one, and others that must follow.
    fn settle(&mut self, at: &mut At<'_>, entries: Vec<Event>) {
        let mut entries = entries;
        match entries.iter().position(|event| *event == at.record.event) {
            Some(place) => drop(entries.remove(place)),
            None => at.note(fault("other-entry")),
        }
        let until = at.record.n.saturating_add(BATCH);
        self.expected
            .extend(entries.into_iter().map(|event| (until, event)));
    }

    fn miss(&mut self, at: &mut At<'_>) {
        let n = at.record.n;
        for (_, event) in self.expected.extract_if(.., |(until, _)| *until < n) {
            at.warn(Fault {
                detail: event.kind().to_owned(),
                ..fault("missing-entry")
            });
        }
    }

    /// What the machines judge by; nothing before the founding.
    fn world(&self) -> Result<World<'_>, Fault> {
        let (in_force, charter) = self.charter().ok_or_else(|| fault("not-founded-yet"))?;
        Ok(World {
            charter,
            in_force,
            holdings: &self.holdings,
        })
    }

    /// What the machines write when what this entry says happens to them.
    fn judge(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        match &at.record.event {
            Event::VaultFounded { .. }
            | Event::CharterJoined { .. }
            | Event::CharterInForce { .. }
            | Event::DeviceJoined { .. }
            | Event::HeartbeatReceived { .. }
            | Event::RestoreAccepted { .. }
            | Event::RecoverImported { .. } => self.judge_charter(at),
            Event::CredentialDefined { .. }
            | Event::VersionSealed { .. }
            | Event::VersionPromoted { .. }
            | Event::VersionRetired { .. }
            | Event::VersionDestroyed { .. }
            | Event::VersionDiverged { .. }
            | Event::VersionMatches { .. }
            | Event::VersionRecovered { .. }
            | Event::ShareConfirmed { .. }
            | Event::RotationOwed { .. }
            | Event::RotationHeld { .. }
            | Event::RotationStarted { .. }
            | Event::RotationAttempted { .. }
            | Event::RotationPromoted { .. }
            | Event::RotationFailed { .. }
            | Event::RotationNeedsOperator { .. }
            | Event::RotationRetried { .. }
            | Event::RotationDone { .. }
            | Event::RotationKeysListed { .. }
            | Event::RotationKeyMade { .. }
            | Event::RotationKeyLost { .. }
            | Event::RotationKeyDropped { .. }
            | Event::RotationKeyDeleted { .. }
            | Event::RotationKeyClaimed { .. }
            | Event::RotationKeyFailed { .. }
            | Event::RotationPaused { .. }
            | Event::RotationResumed { .. }
            | Event::RotationCompleted { .. } => self.judge_credential(at),
            Event::CeremonyOpened { .. }
            | Event::CeremonyApproved { .. }
            | Event::CeremonyRefused { .. }
            | Event::CeremonyRetracted { .. }
            | Event::CeremonyWithdrawn { .. }
            | Event::CeremonyExpired { .. }
            | Event::CeremonySuperseded { .. }
            | Event::CeremonyApplied { .. }
            | Event::CeremonyReviewed { .. }
            | Event::UnsealAuthorized { .. }
            | Event::UnsealReleased { .. }
            | Event::UnsealFailed { .. }
            | Event::UnsealInterrupted { .. }
            | Event::UnsealFetched { .. }
            | Event::VersionInconsistent { .. }
            | Event::CheckoutExtended { .. }
            | Event::CheckoutReturned { .. }
            | Event::CheckoutEnded { .. }
            | Event::DetailsErased { .. } => self.judge_ceremony(at),
            Event::RefusalsCounted { code, count, .. } => {
                let total = self.refusals.entry(*code).or_default();
                *total = total.saturating_add(*count);
                Ok(at.entry())
            }
            Event::CopiesChanged { .. } | Event::Alive {} => Ok(at.entry()),
        }
    }
}
