//! The slot of a credential: the lives of its versions, and the rotation that makes new ones.
//!
//! ```text
//!        due         sealed           enough copies      answered        login works
//! Idle ───────► Sealing ───► Copying ──────────► Applying ───► Testing ────────────► Promoted ─► Idle
//!   ▲             ▲                                  │            │                  sessions ended,
//!   │             └────────── BackingOff ◄───────────┴────────────┘                  old ones retired
//!   └── retry ── Stuck ◄── five failures, or four live versions
//! ```
//!
//! The target holds one secret, which is overwritten (for one with two slots see [`Keys`]). The daemon never holds an old one. The new one
//! is sealed and copied *before* the target is asked to take it, and every version that the target
//! may hold stays live until a newer one is proven by a login.
//!
//! # Invariants
//! 1. The target's secret is always that of a live version, whatever fails at whatever moment.
//! 2. No new version is rolled while an earlier call to the target may still take effect.
//! 3. A version retires only when another is proven (a login by the connector, or a requester's signed
//!    check-in), or when it is certain that the target never took it. A person's login, of which the
//!    moment is not known, retires none that a rotation rolled and nobody has proven, and counts for
//!    nothing once the connector has proven a version since the check-out began.
//! 4. Nothing here can refuse an opening: this machine decides about versions, not about quorums.
//! 5. A ceremony holds a due rotation once and for at most [`HOLD`]; meanwhile nothing is rolled and
//!    nothing retires or is destroyed.
//! 6. What was opened stays owed until a version sealed *after* it is proven, or deposited by a person
//!    who says so where there is no connector. What a reshare seals anew is as old as its secret.
//! 7. There are at most [`MAX_LIVE`] live versions, and each person has at most one unproven one.
//! 8. A refused event changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    event::{Answer, Call, Cause, Event as Entry, Evidence, Maker, Proof, Seal, Stuck},
    id::{CeremonyId, CredentialId, PersonId},
    machine::{Millis, Now, Step},
    reference::Version,
    refusal::Refusal,
    text::MAX_LIVE_VERSIONS,
    time::{Span, Time},
    world::{Life, Stage, VersionId},
};

mod attempt;
mod event;
mod keys;
mod versions;

pub use event::{Effect, Event, Notice, Terms};
pub use keys::{Keys, Seen, Two};

/// At most this many versions of a credential are live.
pub const MAX_LIVE: usize = MAX_LIVE_VERSIONS;
/// The longest time for which ceremonies hold a due rotation; also between two that are asked for.
pub const HOLD: Span = Span::from_mins(60);
/// The longest time for which an operator pauses rotations.
pub const MAX_PAUSE: Span = Span::from_hours(24);
/// How long after each failure the next attempt begins, before jitter of up to a quarter; after one
/// failure more an operator is needed.
pub const BACK_OFF: [Span; 4] = [
    Span::from_mins(1),
    Span::from_mins(5),
    Span::from_mins(30),
    Span::from_hours(2),
];
/// The most reasons for which a rotation is owed that are kept; the oldest goes first, as whatever
/// settles a later one settles it too.
pub const MAX_OWED: usize = 32;
/// The shortest quarantine where no fence at the target stops a late writer.
pub const UNFENCED_QUARANTINE: Span = Span::from_days(7);

/// A slot, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The credential.
    pub credential: CredentialId,
    /// Its versions.
    pub versions: BTreeMap<Version, Kept>,
    /// Why a rotation is owed, with the newest version at that moment.
    pub owed: Vec<(Cause, Option<Version>)>,
    /// Check-outs that go on, with the beginning of each, in lived time.
    pub out: BTreeMap<CeremonyId, Millis>,
    /// Ceremonies that hold it.
    pub holds: BTreeSet<CeremonyId>,
    /// When the hold of the due rotation is over, in lived time; set once until it is done.
    pub held_until: Option<Millis>,
    /// What goes on at the target.
    pub job: Job,
    /// The version that the target was last asked to take, and when that can no longer take effect,
    /// in lived time.
    pub asked: Option<(Version, Millis)>,
    /// Failed attempts since the last success.
    pub failures: u8,
    /// When the current version became so, in lived time.
    pub current_since: Option<Millis>,
    /// A proven version below which all retire, as soon as nothing holds them.
    pub retiring: Option<Retiring>,
    /// The keys, where the target has two slots.
    #[serde(default)]
    pub keys: Keys,
    /// Nothing is begun before this, in lived time.
    #[serde(default)]
    pub paused: Option<Millis>,
}

/// A version and what the slot must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Where it is in its life.
    pub life: Life,
    /// Who deposited it.
    pub depositor: Option<PersonId>,
    /// When it retired, in lived time.
    pub retired: Option<Millis>,
    /// The version whose secret a reshare sealed anew in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Version>,
}

/// Versions that wait for their retirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retiring {
    /// The proven version.
    pub proven: Version,
    /// What it replaces, as it was when it was proven.
    pub versions: BTreeSet<Version>,
    /// Whether a rotation proved it, which first ends old sessions.
    pub rotation: bool,
    /// What the rotation then saw of the old secret.
    pub evidence: Option<Evidence>,
    /// When it happens even if a ceremony holds them, in lived time.
    pub latest: Millis,
}

/// What goes on at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Job {
    /// Nothing.
    Idle,
    /// A new version is being made.
    Sealing {
        /// Its number.
        version: Version,
    },
    /// The keys at the target are looked at, before one more is made.
    Listing {
        /// The number of the version to come.
        version: Version,
    },
    /// The target is asked to make a key, which becomes this version.
    Creating {
        /// Its number.
        version: Version,
        /// When the call has ended, one way or another, in lived time.
        until: Millis,
    },
    /// A key that is of no use is being deleted.
    Deleting,
    /// It waits for its copies.
    Copying {
        /// The new version.
        version: Version,
    },
    /// The target is asked to take it.
    Applying {
        /// The new version.
        version: Version,
        /// When the call has ended, one way or another, in lived time.
        until: Millis,
    },
    /// A login with it is tried.
    Testing {
        /// The new version.
        version: Version,
        /// Before `last`: when the call to take it has ended. After: when the last try has.
        until: Millis,
        /// Whether this is the try after that call's end.
        last: bool,
    },
    /// After a failure.
    BackingOff {
        /// When the next attempt begins, in lived time.
        until: Millis,
    },
    /// A login worked; old sessions are being ended, old versions retire.
    Promoted {
        /// The version that is current.
        version: Version,
    },
    /// As promoted, but the old keys could not be deactivated.
    Revoking {
        /// The version that is current.
        version: Version,
        /// When it is tried again, in lived time.
        until: Millis,
    },
    /// An operator must look.
    Stuck(Stuck),
}

impl Slot {
    /// The slot of a credential without versions.
    pub fn new(credential: CredentialId) -> Self {
        Self {
            credential,
            versions: BTreeMap::new(),
            owed: Vec::new(),
            out: BTreeMap::new(),
            holds: BTreeSet::new(),
            held_until: None,
            job: Job::Idle,
            asked: None,
            failures: 0,
            current_since: None,
            retiring: None,
            keys: Keys::default(),
            paused: None,
        }
    }

    /// The current version.
    pub fn current(&self) -> Option<Version> {
        self.versions
            .iter()
            .find(|(_, kept)| kept.life.stage == Stage::Current)
            .map(|(version, _)| *version)
    }

    /// The versions that are live, in order.
    pub fn live(&self) -> impl Iterator<Item = Version> {
        self.versions
            .iter()
            .filter(|(_, kept)| kept.life.stage.live())
            .map(|(version, _)| *version)
    }

    /// The number of the version to come.
    pub fn next(&self) -> Version {
        self.versions
            .keys()
            .next_back()
            .map_or(Version::FIRST, |newest| newest.next())
    }

    /// Whether a rotation is due: owed, and nobody has the secret out (or an operator asks for it).
    pub fn is_due(&self) -> bool {
        let asked = self
            .owed
            .iter()
            .any(|(cause, _)| matches!(cause, Cause::Asked(_)));
        !self.owed.is_empty() && (asked || self.out.is_empty())
    }

    /// Whether the target is being changed, or may have been by a call without an answer.
    pub fn is_busy(&self) -> bool {
        !matches!(self.job, Job::Idle | Job::Stuck(_)) || self.keys.asked.is_some()
    }

    /// Takes one event.
    pub fn step(mut self, now: Now, terms: Terms, event: Event) -> Step<Self, Effect> {
        let outcome = self.take(now, terms, event);
        Step {
            state: self,
            outcome,
        }
    }

    /// The table. Whatever returns a refusal does so before it changes anything (invariant 8).
    fn take(&mut self, now: Now, terms: Terms, event: Event) -> Result<Vec<Effect>, Refusal> {
        use Job::{Applying, Copying, Promoted, Sealing, Testing};
        if event.two() {
            return self.take_two(now, terms, event);
        }
        match (self.job, event) {
            (
                _,
                Event::Deposit {
                    version,
                    manifest,
                    person,
                    signature,
                },
            ) => self.deposit(now, version, manifest, person, signature),
            (
                _,
                Event::Reshared {
                    version,
                    of,
                    manifest,
                    ceremony,
                    signature,
                },
            ) => self.reshared(now, (version, of), manifest, ceremony, signature),
            (
                _,
                Event::Recovered {
                    version,
                    manifest,
                    ceremony,
                },
            ) => self.recovered(now, version, manifest, ceremony),
            (_, Event::Worked(version, ceremony)) => self.worked(now, version, ceremony),
            (_, Event::Complete(version, person, evidence)) => {
                self.complete(now, terms, (version, person), evidence)
            }
            (_, Event::Owe(cause)) => self.owe(now, terms, cause),
            (_, Event::Out(ceremony)) => {
                self.out.insert(ceremony, now.lived);
                Ok(Vec::new())
            }
            (_, Event::Returned(ceremony)) => {
                let manual =
                    self.out.remove(&ceremony).is_some() && self.is_due() && !terms.connector;
                Ok(manual
                    .then_some(Effect::Notify(Notice::Manual))
                    .into_iter()
                    .collect())
            }
            (_, Event::Hold(ceremony)) => {
                self.holds.insert(ceremony);
                Ok(Vec::new())
            }
            (_, Event::Free(ceremony)) => {
                self.holds.remove(&ceremony);
                Ok(Vec::new())
            }
            (Job::Stuck(_), Event::Retry(person)) => Ok(self.retry(terms, person)),
            (_, Event::Retry(_)) => Err(Refusal::NotStuck),
            (_, Event::Pause(until, person)) => Ok(self.pause(now, until, person)),
            (_, Event::Resume(person)) => self.resume(person),
            (_, Event::Tick) => Ok(self.tick(now, terms)),
            (_, Event::Restart) => Ok(self.restart(now, terms)),

            (
                Sealing { version },
                Event::Sealed {
                    version: sealed,
                    manifest,
                    signature,
                },
            ) => Ok(self.sealed(now, (version, sealed), manifest, signature)),
            (Sealing { version }, Event::NotSealed) => {
                let [first, ..] = BACK_OFF;
                self.job = Job::BackingOff {
                    until: now.lived.after(first.ms()),
                };
                Ok(vec![Effect::Forget(version)])
            }
            (Copying { version }, Event::Copied) => Ok(self.copied(now, terms, version)),
            (Applying { version, until }, Event::Applied(answer)) => {
                Ok(self.applied(now, terms, (version, until), answer))
            }
            (Testing { version, last, .. }, Event::Tested(answer)) => {
                Ok(self.tested(now, terms, (version, last), answer))
            }
            (Promoted { .. }, Event::SessionsEnded(evidence)) => {
                if let Some(retiring) = &mut self.retiring {
                    retiring.evidence = Some(evidence);
                }
                Ok(self.retire(now))
            }
            _ => Err(Refusal::NotRunning),
        }
    }

    /// The table of what only targets with two slots have.
    fn take_two(&mut self, now: Now, terms: Terms, event: Event) -> Result<Vec<Effect>, Refusal> {
        use Job::{Creating, Deleting, Listing, Promoted};
        let Some(two) = terms.two else {
            return Err(Refusal::NotRunning);
        };
        match (self.job, event) {
            (_, Event::Claim(version, key, person)) => self.claim(version, key, person),
            (Listing { version }, Event::Listed(keys)) => {
                Ok(self.listed(now, terms, (version, two), &keys))
            }
            (Listing { version }, Event::NotListed(answer)) => {
                let mut effects = vec![Effect::Forget(version)];
                effects.extend(self.key_failed(now, terms, Call::List, answer));
                Ok(effects)
            }
            (
                Creating { version, .. },
                Event::Made {
                    version: made,
                    key,
                    manifest,
                    signature,
                },
            ) => Ok(self.made(now, (version, made), key, (manifest, signature))),
            (Creating { version, .. }, Event::Unsealed(key)) => {
                Ok(self.unsealed(now, terms, version, key))
            }
            (Creating { version, .. }, Event::NotMade(answer)) => {
                Ok(self.not_made(now, terms, version, answer))
            }
            (Deleting, Event::KeyDeleted(answer)) => Ok(self.key_deleted(now, terms, answer)),
            (Promoted { version }, Event::StillActive(answer)) if self.revoking().is_some() => {
                Ok(self.still_active(now, terms, version, answer))
            }
            _ => Err(Refusal::NotRunning),
        }
    }

    fn id(&self, version: Version) -> VersionId {
        VersionId {
            credential: self.credential,
            version,
        }
    }
}
