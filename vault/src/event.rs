//! What the log says: one type for each kind of entry, strict in both directions.
//!
//! An entry's envelope (`n`, `time`, `charter`, `actor`, `type`, `body`) belongs to the log; this is
//! what `type` and `body` may be. Signed texts go in whole with their signatures; free text only by
//! the digest of a details text, so that it can be erased without touching the log.
//!
//! # Invariants
//! 1. An event has one encoding; what [`Event::parse`] accepts, [`Event::body`] gives again.
//! 2. No event has a secret, a share, free text of people other than signed lines, or an address.
//! 3. A kind, once written, keeps its name, fields and meaning for ever.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    charter::Waiver,
    digest::Digest,
    id::{CeremonyId, CredentialId, DeviceId, GroupName, PersonId},
    name::{CredentialPath, KeyId, Line, Name},
    quorum::Opening,
    reference::{CharterRef, Head, Version},
    refusal::Refusal,
    text::SignedText,
    time::Time,
    world::VersionId,
};

/// Why a type and a body are not an event.
#[derive(Debug, Error)]
pub enum EventError {
    /// Not a known kind, or not its fields.
    #[error("not an event of the kind {kind}; a newer program may know it")]
    Shape {
        /// The `type` of the entry.
        kind: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Readable, but not as it would be written.
    #[error("the body of this {0} is not in its one encoding")]
    NotCanonical(String),
}

macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $name:ident $kind:literal { $( $(#[$field_doc:meta])* $field:ident: $type:ty, )* }
    )*) => {
        /// One entry of the log.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type", content = "body", deny_unknown_fields)]
        #[non_exhaustive]
        pub enum Event {
            $( $(#[$doc])* #[serde(rename = $kind)] $name { $( $(#[$field_doc])* $field: $type, )* }, )*
        }

        impl Event {
            /// Every kind, in the order of the table in FORMATS.
            pub const KINDS: &'static [&'static str] = &[$($kind,)*];

            /// The `type` of the entry.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name { .. } => $kind,)* }
            }
        }
    };
}

events! {
    /// The vault begins: charter 1, which every founder has signed with every token of theirs after comparing its six words.
    VaultFounded "vault.founded" {
        /// Charter 1.
        charter: CharterRef,
        /// The founders' signed join texts, one of each token.
        joins: Vec<SignedText>,
    }
    /// A person or token has proven its keys; only a charter gives it a part.
    CharterJoined "charter.joined" {
        /// The enrolment that the join names, signed with the key in it.
        enrolment: SignedText,
        /// The signed join text.
        join: SignedText,
    }
    /// A charter takes force.
    CharterInForce "charter.in-force" {
        /// The new charter.
        charter: CharterRef,
        /// The ceremony that decided it.
        ceremony: CeremonyId,
    }
    /// A credential is added, or its definition changed.
    CredentialDefined "credential.defined" {
        /// Its id.
        credential: CredentialId,
        /// Its path, for ever.
        path: CredentialPath,
        /// The digest of the definition.
        definition: Digest,
        /// By an operator, over the definition; of a change: its proposer's, over the request.
        signature: Seal,
        /// The ceremony of a change; none when it is added.
        ceremony: Option<CeremonyId>,
    }
    /// A version exists; without a newer entry it is current when it is the first, else a candidate.
    VersionSealed "version.sealed" {
        /// The version.
        version: VersionId,
        /// The digest of its manifest.
        manifest: Digest,
        /// Who made it.
        maker: Maker,
        /// By the maker, over the manifest.
        signature: Seal,
    }
    /// A version is known to be the target's secret; the one before it becomes superseded.
    VersionPromoted "version.promoted" {
        /// The version.
        version: VersionId,
        /// How that is known.
        proof: Proof,
    }
    /// Versions are known not to be the target's secret any more.
    VersionRetired "version.retired" {
        /// The credential.
        credential: CredentialId,
        /// Which.
        versions: BTreeSet<Version>,
    }
    /// A version's ciphertext and envelopes are deleted.
    VersionDestroyed "version.destroyed" {
        /// The version.
        version: VersionId,
    }
    /// A look at the target shows that a current version is not its secret any more.
    VersionDiverged "version.diverged" {
        /// The version.
        version: VersionId,
        /// What shows so; none where it cannot be written on a line.
        evidence: Option<Line>,
    }
    /// A later look shows that it is again.
    VersionMatches "version.matches" {
        /// The version.
        version: VersionId,
    }
    /// All shares of a version recomputed from an opening do not match all its commitments.
    VersionInconsistent "version.inconsistent" {
        /// The version.
        version: VersionId,
        /// The group whose shares do not match.
        group: GroupName,
        /// The ceremony in which it was seen.
        ceremony: CeremonyId,
    }
    /// A version was found in a copy only, and is taken back.
    VersionRecovered "version.recovered" {
        /// The version.
        version: VersionId,
        /// The digest of its manifest.
        manifest: Digest,
        /// The ceremony that accepted it.
        ceremony: CeremonyId,
    }
    /// A custodian confirmed that their share of a version can be read.
    ShareConfirmed "share.confirmed" {
        /// The version.
        version: VersionId,
        /// The custodian.
        person: PersonId,
    }
    /// A request is open.
    CeremonyOpened "ceremony.opened" {
        /// Its id.
        ceremony: CeremonyId,
        /// The signed request.
        request: SignedText,
    }
    /// A custodian approved.
    CeremonyApproved "ceremony.approved" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The signed approval.
        approval: SignedText,
        /// The device through which it came.
        device: Option<DeviceId>,
        /// Rules that the circumstances broke, as the daemon saw them; all were waived.
        broken: BTreeSet<Waiver>,
    }
    /// A custodian refused; it blocks nobody.
    CeremonyRefused "ceremony.refused" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The signed refusal.
        refusal: SignedText,
    }
    /// A custodian took an approval back.
    CeremonyRetracted "ceremony.retracted" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The signed retraction.
        retraction: SignedText,
    }
    /// The requester gave it up.
    CeremonyWithdrawn "ceremony.withdrawn" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The requester.
        person: PersonId,
    }
    /// Its time ended without a quorum.
    CeremonyExpired "ceremony.expired" {
        /// The ceremony.
        ceremony: CeremonyId,
    }
    /// What it named is no longer live, or what it changes is no longer in force.
    CeremonySuperseded "ceremony.superseded" {
        /// The ceremony.
        ceremony: CeremonyId,
    }
    /// What it decided took force; it opened nothing.
    CeremonyApplied "ceremony.applied" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// Who agreed and counted, in order.
        persons: BTreeSet<PersonId>,
    }
    /// A ceremony was looked at afterwards.
    CeremonyReviewed "ceremony.reviewed" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The signed review.
        review: SignedText,
    }
    /// Quorum and shares are there. Durable before anything is combined.
    UnsealAuthorized "unseal.authorized" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// What can be opened, by whom.
        openings: Vec<Opening>,
    }
    /// What combined is encrypted to the request's `deliver-to` (or sealed anew, by a reshare).
    UnsealReleased "unseal.released" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The digest of the ciphertext that is handed out; none for a reshare.
        ciphertext: Option<Digest>,
        /// What is in it.
        delivered: BTreeSet<VersionId>,
        /// What was asked for and is not in it.
        missing: BTreeSet<VersionId>,
    }
    /// Known: nothing left the vault.
    UnsealFailed "unseal.failed" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// Why.
        why: Failure,
    }
    /// Counts as possibly released.
    UnsealInterrupted "unseal.interrupted" {
        /// The ceremony.
        ceremony: CeremonyId,
    }
    /// The requester fetched the release again.
    UnsealFetched "unseal.fetched" {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The requester.
        person: PersonId,
    }
    /// A check-out ends later.
    CheckoutExtended "checkout.extended" {
        /// The ceremony that opened it.
        checkout: CeremonyId,
        /// Its new end.
        until: Time,
        /// The ceremony that extended it.
        ceremony: CeremonyId,
    }
    /// The requester returned what was checked out.
    CheckoutReturned "checkout.returned" {
        /// The ceremony that opened it.
        ceremony: CeremonyId,
        /// The signed check-in.
        checkin: SignedText,
        /// The versions with which the requester logged in, as the check-in says.
        worked: BTreeSet<VersionId>,
    }
    /// The time of a check-out ended.
    CheckoutEnded "checkout.ended" {
        /// The ceremony that opened it.
        ceremony: CeremonyId,
    }
    /// A rotation is owed.
    RotationOwed "rotation.owed" {
        /// The credential.
        credential: CredentialId,
        /// Why.
        cause: Cause,
    }
    /// A due rotation is held by a ceremony that somebody has approved.
    RotationHeld "rotation.held" {
        /// The credential.
        credential: CredentialId,
        /// The ceremonies.
        ceremonies: BTreeSet<CeremonyId>,
    }
    /// A new version is being set at the target.
    RotationStarted "rotation.started" {
        /// The new version.
        version: VersionId,
    }
    /// The target was asked for something.
    RotationAttempted "rotation.attempted" {
        /// The new version.
        version: VersionId,
        /// What was asked.
        call: Call,
        /// What came back.
        answer: Answer,
    }
    /// The target accepts the new version: it is current, the one before it superseded.
    RotationPromoted "rotation.promoted" {
        /// The new version.
        version: VersionId,
    }
    /// An attempt failed; another follows.
    RotationFailed "rotation.failed" {
        /// The new version.
        version: VersionId,
        /// Whether it is known that the target never took it.
        dead: bool,
        /// How many attempts failed.
        failures: u8,
    }
    /// A person must look.
    RotationNeedsOperator "rotation.needs-operator" {
        /// The credential.
        credential: CredentialId,
        /// Why.
        why: Stuck,
    }
    /// An operator had it tried again.
    RotationRetried "rotation.retried" {
        /// The credential.
        credential: CredentialId,
        /// The operator.
        person: PersonId,
    }
    /// Done: old sessions are ended and the older versions retired.
    RotationDone "rotation.done" {
        /// The version that is current.
        version: VersionId,
        /// What the target shows of the old secret.
        evidence: Evidence,
        /// The versions that retire.
        retired: BTreeSet<Version>,
    }
    /// The keys at a target with two slots, before one more is made.
    RotationKeysListed "rotation.keys-listed" {
        /// The version to come.
        version: VersionId,
        /// The keys, and whether each is active.
        keys: BTreeMap<KeyId, bool>,
    }
    /// The target made the key of a version.
    RotationKeyMade "rotation.key-made" {
        /// The version.
        version: VersionId,
        /// What the target calls it.
        key: KeyId,
    }
    /// The target made a key for a rotation, and its secret is lost. It is deleted.
    RotationKeyLost "rotation.key-lost" {
        /// The credential.
        credential: CredentialId,
        /// What the target calls it.
        key: KeyId,
        /// The operator who says so, where the vault cannot know whose it is.
        person: Option<PersonId>,
    }
    /// A version that was never proven is given up, and retires; its key is deleted.
    RotationKeyDropped "rotation.key-dropped" {
        /// The version.
        version: VersionId,
        /// What the target calls its key.
        key: KeyId,
    }
    /// A key was deleted at the target.
    RotationKeyDeleted "rotation.key-deleted" {
        /// The credential.
        credential: CredentialId,
        /// What the target called it.
        key: KeyId,
    }
    /// An operator says that a key at the target is that of a version.
    RotationKeyClaimed "rotation.key-claimed" {
        /// The version.
        version: VersionId,
        /// What the target calls the key.
        key: KeyId,
        /// The operator.
        person: PersonId,
    }
    /// The target did not do what was asked with a key; it is tried again.
    RotationKeyFailed "rotation.key-failed" {
        /// The credential.
        credential: CredentialId,
        /// What was asked.
        call: Call,
        /// What came back; of a create, `done` where the key could not be sealed.
        answer: Answer,
        /// How many attempts failed.
        failures: u8,
    }
    /// No rotation is begun until then, or until it is resumed.
    RotationPaused "rotation.paused" {
        /// The credential; none for all.
        credential: Option<CredentialId>,
        /// Until when.
        until: Time,
        /// The operator.
        person: PersonId,
    }
    /// Rotations begin again.
    RotationResumed "rotation.resumed" {
        /// The credential; none for all.
        credential: Option<CredentialId>,
        /// The operator.
        person: PersonId,
    }
    /// A person changed the target by hand and deposited the new secret.
    RotationCompleted "rotation.completed" {
        /// The deposited version.
        version: VersionId,
        /// The operator.
        person: PersonId,
        /// What a check of the target showed.
        evidence: Evidence,
    }
    /// Refusals by the daemon in one minute.
    RefusalsCounted "refusals.counted" {
        /// Who was refused.
        person: PersonId,
        /// Why.
        code: Refusal,
        /// How often.
        count: u64,
        /// The minute's beginning.
        since: Time,
    }
    /// A details text and its salt are deleted.
    DetailsErased "details.erased" {
        /// The ceremony whose details they were.
        of: CeremonyId,
        /// Their digest.
        details: Digest,
        /// The ceremony that decided it.
        ceremony: CeremonyId,
    }
    /// A place for copies came, went, or caught up.
    CopiesChanged "copies.changed" {
        /// The name of the sink in the daemon's configuration.
        sink: Name,
        /// Whether it holds everything that it should.
        complete: bool,
    }
    /// A recovery without the daemon is made known.
    RecoverImported "recover.imported" {
        /// The digest of its record.
        record: Digest,
        /// The signed request and answers.
        texts: Vec<SignedText>,
    }
    /// A restored store goes on.
    RestoreAccepted "restore.accepted" {
        /// The ceremony that decided it.
        ceremony: CeremonyId,
        /// The head from which it goes on.
        restored: Head,
        /// The highest head that is known to be lost.
        lost: Option<Head>,
        /// Documents found only in copies.
        found: BTreeSet<Digest>,
    }
    /// A new device of a person; transport only.
    DeviceJoined "device.joined" {
        /// The person.
        person: PersonId,
        /// The join text, signed with an approval key.
        join: SignedText,
    }
    /// A custodian showed that token and share can be used.
    HeartbeatReceived "heartbeat.received" {
        /// The signed heartbeat.
        heartbeat: SignedText,
    }
    /// Nothing else happened today.
    Alive "alive" {}
}

/// A signature over a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Who signed.
    pub signer: crate::reference::Signer,
    /// DER, in base64.
    #[serde(with = "crate::text::base64_bytes")]
    pub signature: Vec<u8>,
}

/// Who made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// A person.
    Deposit(PersonId),
    /// A rotation.
    Rotation,
    /// A reshare: the same secret for the charter in force.
    Reshare(CeremonyId),
}

/// How it is known that a version is the target's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The requester of a check-out logged in with it and signed so.
    Worked(CeremonyId),
    /// It is the current secret, sealed anew.
    Reshare(CeremonyId),
}

/// Why a rotation is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was opened.
    Unseal(CeremonyId),
    /// An operator asked for it.
    Asked(PersonId),
    /// The current version is as old as the policy allows.
    Age,
    /// The current version is sealed to another roster than the charter's.
    Roster,
}

/// What a rotation asks of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Take the new secret.
    Apply,
    /// Let somebody log in with it.
    Test,
    /// List the keys.
    List,
    /// Make a key.
    Create,
    /// Accept an old key no more.
    Deactivate,
    /// Delete a key.
    Delete,
}

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Yes.
    Done,
    /// No, for certain: nothing changed; or the login was refused.
    Refused,
    /// Nobody knows.
    Unclear,
}

/// Why a rotation needs an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stuck {
    /// It failed too often.
    Failures,
    /// It would need a fifth live version.
    Live,
    /// The target has a key that the vault does not know.
    Foreign,
    /// The target has no room for a new key, and none can go.
    Full,
}

/// What the target shows of the old secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// It is void, as this line says.
    Shown(Line),
    /// The target does not say.
    NotObservable,
}

/// Why nothing was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// No version of some credential combined and opened.
    NothingOpened,
    /// What was opened could not be encrypted or sealed.
    NotEncrypted,
}

impl Event {
    /// The `body` of the entry.
    pub fn body(&self) -> Value {
        // Every field is a string, an integer, or made of these: nothing here can fail to serialise.
        match serde_json::to_value(self) {
            Ok(Value::Object(mut event)) => event.remove("body").unwrap_or_else(|| json!({})),
            Ok(_) | Err(_) => Value::Null,
        }
    }

    /// The event of an entry's `type` and `body`.
    pub fn parse(kind: &str, body: &Value) -> Result<Self, EventError> {
        let event: Self =
            serde_json::from_value(json!({ "type": kind, "body": body })).map_err(|source| {
                EventError::Shape {
                    kind: kind.to_owned(),
                    source,
                }
            })?;
        if event.body() == *body {
            Ok(event)
        } else {
            Err(EventError::NotCanonical(kind.to_owned()))
        }
    }

    /// The ceremony to which the entry belongs.
    pub fn ceremony(&self) -> Option<CeremonyId> {
        let body = self.body();
        body.get("ceremony")
            .and_then(Value::as_str)
            .and_then(|id| id.parse().ok())
    }
}
