//! What happens to a slot, and what follows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Answer, Cause, CeremonyId, Deserialize, Digest, Entry, Evidence, Millis, PersonId, Seal, Seen,
    Serialize, Span, Two, UNFENCED_QUARANTINE, Version,
};
use crate::{definition::Task, name::KeyId};

/// What policy, definition and chance say at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether a connector rotates it by itself.
    pub connector: bool,
    /// What people are given to do, where that is wanted.
    pub task: Option<Task>,
    /// Whether the target has a fence that stops a late writer.
    pub fence: bool,
    /// How long a call to the target can take at most.
    pub deadline: Span,
    /// How long old sessions go on after a rotation.
    pub grace: Span,
    /// How long a retired version is kept.
    pub quarantine: Span,
    /// The age at which a version is rotated; 0 for never.
    pub max_age: Span,
    /// A random number from 0 to 1000.
    pub jitter: u16,
    /// What is promised of the target, where it has two slots.
    pub two: Option<Two>,
    /// Until when no rotation of this vault is begun, in lived time.
    pub paused: Option<Millis>,
}

impl Terms {
    /// How long a retired version is kept: where nothing stops a late writer, at least
    /// [`UNFENCED_QUARANTINE`]. With two slots nobody writes over anything.
    pub fn kept(&self) -> Span {
        if self.fence || self.two.is_some() {
            self.quarantine
        } else {
            self.quarantine.max(UNFENCED_QUARANTINE)
        }
    }
}

/// What happens to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A person deposits a version.
    Deposit {
        /// Its number: the next one.
        version: Version,
        /// Its manifest's digest.
        manifest: Digest,
        /// Who.
        person: PersonId,
        /// Over the manifest.
        signature: Seal,
    },
    /// A reshare sealed a version anew.
    Reshared {
        /// The new version.
        version: Version,
        /// The one whose secret it has.
        of: Version,
        /// Its manifest's digest.
        manifest: Digest,
        /// The ceremony.
        ceremony: CeremonyId,
        /// Over the manifest.
        signature: Seal,
    },
    /// An accepted restore takes back a version that was found in a copy only.
    Recovered {
        /// Its number.
        version: Version,
        /// Its manifest's digest.
        manifest: Digest,
        /// The ceremony.
        ceremony: CeremonyId,
    },
    /// A rotation is owed.
    Owe(Cause),
    /// A check-out begins.
    Out(CeremonyId),
    /// It has ended, or the credential is returned.
    Returned(CeremonyId),
    /// The requester of a check-out logged in with this version.
    Worked(Version, CeremonyId),
    /// A ceremony has its first approval by somebody other than its requester.
    Hold(CeremonyId),
    /// It has ended.
    Free(CeremonyId),
    /// An operator says that the owed rotation was done by hand, with this version; what a check of the
    /// target showed.
    Complete(Version, PersonId, Evidence),
    /// An operator wants a stuck rotation tried again.
    Retry(PersonId),
    /// A new version is sealed: stored with this step.
    Sealed {
        /// Its number, as `Roll` gave it.
        version: Version,
        /// Its manifest's digest.
        manifest: Digest,
        /// By the node, over the manifest.
        signature: Seal,
    },
    /// It could not be sealed.
    NotSealed,
    /// Enough copies exist.
    Copied,
    /// The target answered to `Apply`.
    Applied(Answer),
    /// The target answered to `Test`.
    Tested(Answer),
    /// Old sessions are ended.
    SessionsEnded(Evidence),
    /// The target listed its keys.
    Listed(BTreeMap<KeyId, Seen>),
    /// It did not.
    NotListed(Answer),
    /// The target made a key, which is sealed as this version: stored with this step.
    Made {
        /// Its number, as `List` gave it.
        version: Version,
        /// What the target calls it.
        key: KeyId,
        /// Its manifest's digest.
        manifest: Digest,
        /// By the node, over the manifest.
        signature: Seal,
    },
    /// The target made a key, which could not be sealed.
    Unsealed(KeyId),
    /// The target made no key, or nobody knows.
    NotMade(Answer),
    /// The target answered to `DeleteKey`.
    KeyDeleted(Answer),
    /// An old key is still active, or nobody knows.
    StillActive(Answer),
    /// An operator says that a key at the target is that of a version; or, without one, that it was made
    /// here and nobody has its secret.
    Claim(Option<Version>, KeyId, PersonId),
    /// An operator wants nothing begun before this, in lived time and by the wall clock.
    Pause((Millis, crate::time::Time), PersonId),
    /// An operator wants it to go on.
    Resume(PersonId),
    /// Time has passed.
    Tick,
    /// The daemon has started again: no candidate's secret is in memory any more.
    Restart,
}

impl Event {
    /// Whether only a target with two slots can bring it.
    pub(super) fn two(&self) -> bool {
        matches!(
            self,
            Self::Listed(_)
                | Self::NotListed(_)
                | Self::Made { .. }
                | Self::Unsealed(_)
                | Self::NotMade(_)
                | Self::KeyDeleted(_)
                | Self::StillActive(_)
                | Self::Claim(..)
        )
    }
}

/// What the shell does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this entry.
    Log(Entry),
    /// Versions changed: every open ceremony that names the credential steps `Changed`.
    Changed,
    /// Tell people.
    Notify(Notice),
    /// Make a secret, seal it as this version, then step `Sealed`.
    Roll(Version),
    /// Copy this version to the sinks, then step `Copied`.
    Copy(Version),
    /// Ask the target to take this version, within this time; then step `Applied`.
    Apply(Version, Span),
    /// Try a login with this version, then step `Tested`.
    Test(Version),
    /// After this time end the sessions of the old secret and look for evidence, then step `SessionsEnded`.
    EndSessions(Version, Span),
    /// List the keys at the target, before this version; then step `Listed` or `NotListed`.
    List(Version),
    /// Have the target make a key within this time and seal it as this version; then step `Made`,
    /// `Unsealed` or `NotMade`.
    Create(Version, Span),
    /// After this time have the target accept these keys no more, and see that it does not; then step
    /// `SessionsEnded` or `StillActive`.
    Deactivate(Version, BTreeSet<KeyId>, Span),
    /// Delete this key at the target; then step `KeyDeleted`.
    DeleteKey(KeyId),
    /// Wipe the secret of this version from memory, and let the next attempt have its place.
    Forget(Version),
    /// Delete ciphertext and envelopes of this version.
    Delete(Version),
}

impl Effect {
    /// Whether it is part of the transaction that stores the state; if not, it follows the commit.
    pub fn in_transaction(&self) -> bool {
        match self {
            Self::Log(_) | Self::Changed | Self::Notify(_) | Self::Delete(_) => true,
            Self::Roll(_)
            | Self::Copy(_)
            | Self::Apply(..)
            | Self::Test(_)
            | Self::EndSessions(..)
            | Self::List(_)
            | Self::Create(..)
            | Self::Deactivate(..)
            | Self::DeleteKey(_)
            | Self::Forget(_) => false,
        }
    }
}

/// What people are told about a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// It is due and must be done by hand.
    Manual,
    /// An attempt failed.
    Failed,
    /// An operator must look.
    NeedsOperator,
    /// It is done.
    Done,
}
