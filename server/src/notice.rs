//! What is told: one JSON document, the same for every notifier.
//!
//! `docs/OPERATIONS.md` has its contract. Fields come; none goes or changes its meaning under `notice v1`.

mod filter;

use keyturn_vault::{
    ceremony, checkout,
    digest::Digest,
    id::{CeremonyId, CredentialId, PersonId},
    name::{CredentialPath, Origin},
    reference::PersonRef,
    rotation,
    time::Time,
};
use serde::{Deserialize, Serialize};

pub use self::filter::{Filter, KindPattern};

/// What a test names before the vault is founded.
pub const UNNAMED: &str = "vault.invalid/not-founded";
/// Persons that a notice names at most.
pub const MAX_PERSONS: usize = 32;
/// Credentials that a notice names at most.
pub const MAX_CREDENTIALS: usize = 8;

/// How much somebody should mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Alert,
}

macro_rules! kinds {
    ($($kind:ident $name:literal $phrase:literal)*) => {
        /// What a notice tells of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = $phrase] #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it says, for people.
            pub const fn phrase(self) -> &'static str {
                match self { $(Self::$kind => $phrase,)* }
            }
        }
    };
}

kinds! {
    RequestOpened "request.opened" "a request waits for approval"
    RequestWaived "request.waived" "a request that waives a rule waits for approval"
    RequestApproved "request.approved" "a custodian approved"
    RequestRefused "request.refused" "a custodian refused"
    RequestRetracted "request.retracted" "a custodian took a decision back"
    RequestWaiting "request.waiting" "a quorum approved and the waiting time runs"
    RequestApplied "request.applied" "what was decided is in force"
    RequestExpired "request.expired" "a request expired"
    RequestWithdrawn "request.withdrawn" "a request was withdrawn"
    RequestSuperseded "request.superseded" "a request was superseded"
    UnsealAuthorized "unseal.authorized" "an opening is authorised"
    UnsealReleased "unseal.released" "a secret was handed out"
    UnsealFailed "unseal.failed" "an opening failed and nothing left the vault"
    UnsealInterrupted "unseal.interrupted" "an opening was interrupted: it counts as possibly released"
    VersionInconsistent "version.inconsistent" "the shares of a version are not all what was sealed"
    CheckoutEndsSoon "checkout.ends-soon" "a check-out ends soon"
    CheckoutEnded "checkout.ended" "a check-out ended without a return"
    CheckoutReturned "checkout.returned" "a check-out was returned"
    CheckoutExtended "checkout.extended" "a check-out was made longer"
    VersionDiverged "version.diverged" "a sealed secret is no longer the real one"
    VersionMatches "version.matches" "a sealed secret is the real one again"
    RotationManual "rotation.manual" "a rotation is due and must be done by hand"
    RotationOverdue "rotation.overdue" "a rotation by hand is overdue"
    RotationFailed "rotation.failed" "an attempt to rotate failed"
    RotationNeedsOperator "rotation.needs-operator" "a rotation is stuck and needs an operator"
    RotationLate "rotation.late" "a rotation is late"
    RotationDone "rotation.done" "a credential was rotated"
    CharterProposed "charter.proposed" "a change of the charter waits for approval"
    CharterBypass "charter.bypass" "a group is about to be replaced without its own members"
    CharterInForce "charter.in-force" "another charter is in force"
    RefusalsRepeated "refusals.repeated" "somebody was refused again and again"
    CopiesForeign "copies.foreign" "a place for copies holds more of the log, or another one: nothing is written there"
    CopiesAside "copies.set-aside" "sealed versions of another history lie in a place for copies"
    SpaceLow "vault.low-space" "the disk is low on space: deposits and rotations wait"
    RestoreMode "vault.restore-mode" "the store was set back: the vault is in restore mode"
    Test "notice.test" "this is a test; nothing happened"
}

impl Kind {
    /// The kind and severity of what a ceremony tells.
    pub fn of_ceremony(
        notice: ceremony::Notice,
        purpose: ceremony::Purpose,
        charter: bool,
    ) -> (Self, Severity) {
        use ceremony::Notice as N;
        let kind = match notice {
            N::Opened | N::Waived if charter => Self::CharterProposed,
            N::Opened => Self::RequestOpened,
            N::Waived => Self::RequestWaived,
            N::Approved(_) => Self::RequestApproved,
            N::Refused(_) => Self::RequestRefused,
            N::Retracted(_) => Self::RequestRetracted,
            N::Waiting if charter => Self::CharterBypass,
            N::Waiting => Self::RequestWaiting,
            N::Applied if charter => Self::CharterInForce,
            N::Applied => Self::RequestApplied,
            N::Authorized => Self::UnsealAuthorized,
            N::Released => Self::UnsealReleased,
            N::Inconsistent => Self::VersionInconsistent,
            N::Failed => Self::UnsealFailed,
            N::Interrupted => Self::UnsealInterrupted,
            N::Expired => Self::RequestExpired,
            N::Withdrawn => Self::RequestWithdrawn,
            N::Superseded => Self::RequestSuperseded,
        };
        let practice = purpose == ceremony::Purpose::Drill;
        let warns = [
            Self::CharterProposed,
            Self::CharterInForce,
            Self::UnsealFailed,
        ];
        let severity = if kind == Self::CharterBypass || (notice.is_alert() && !practice) {
            Severity::Alert
        } else if warns.contains(&kind) {
            Severity::Warning
        } else {
            Severity::Info
        };
        (kind, severity)
    }

    /// The kind and severity of what a check-out tells.
    pub const fn of_checkout(notice: checkout::Notice) -> (Self, Severity) {
        match notice {
            checkout::Notice::EndsSoon => (Self::CheckoutEndsSoon, Severity::Warning),
            checkout::Notice::Ended => (Self::CheckoutEnded, Severity::Warning),
            checkout::Notice::Returned => (Self::CheckoutReturned, Severity::Info),
            checkout::Notice::Extended => (Self::CheckoutExtended, Severity::Info),
        }
    }

    /// The kind and severity of what a rotation tells.
    pub const fn of_rotation(notice: rotation::Notice) -> (Self, Severity) {
        match notice {
            rotation::Notice::Manual => (Self::RotationManual, Severity::Warning),
            rotation::Notice::Failed => (Self::RotationFailed, Severity::Warning),
            rotation::Notice::NeedsOperator => (Self::RotationNeedsOperator, Severity::Alert),
            rotation::Notice::Done => (Self::RotationDone, Severity::Info),
        }
    }
}

/// The contract's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[serde(rename = "notice v1")]
    V1,
}

/// A credential as a notice names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its id.
    pub id: CredentialId,
    /// Its path.
    pub path: CredentialPath,
}

/// A person as a notice names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Somebody {
    /// The name in the charter.
    pub name: String,
    /// The id, which stays when the name changes.
    pub id: PersonId,
}

impl From<PersonRef> for Somebody {
    fn from(person: PersonRef) -> Self {
        Self {
            name: person.name.to_string(),
            id: person.id,
        }
    }
}

/// What is told. What does not belong to its kind is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// The contract.
    pub keyturn: Format,
    /// The same at every delivery of this notice, and no other notice's.
    pub id: String,
    /// The vault.
    pub vault: Origin,
    /// When it became true.
    pub time: Time,
    /// What it tells of.
    pub kind: Kind,
    /// How much somebody should mind.
    pub severity: Severity,
    /// A sentence made of the fields, for people.
    pub summary: String,
    /// The ceremony.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceremony: Option<CeremonyId>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<ceremony::Purpose>,
    /// The SHA-256 of its request; its six words are compared by voice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<Digest>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Somebody>,
    /// Who acted, or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Somebody>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Named>,
    /// Who can still approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<Somebody>,
    /// When the request, the waiting time or the check-out ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Time>,
    /// The charter that is proposed or in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charter: Option<u64>,
    /// The code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The name of the place for copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Notice {
    /// A notice with nothing in it but what every notice has.
    pub fn new(vault: Origin, time: Time, kind: Kind, severity: Severity) -> Self {
        Self {
            keyturn: Format::V1,
            id: String::new(),
            vault,
            time,
            kind,
            severity,
            summary: String::new(),
            ceremony: None,
            purpose: None,
            request_sha256: None,
            requester: None,
            person: None,
            credentials: Vec::new(),
            awaited: Vec::new(),
            ends: None,
            charter: None,
            code: None,
            count: None,
            place: None,
        }
    }

    /// What `keyturnd notify --test` sends.
    pub fn test(vault: Origin, time: Time) -> Self {
        let mut notice = Self::new(vault, time, Kind::Test, Severity::Info);
        notice.id = format!("{}/test-{}", notice.vault, time.ms());
        notice.bounded()
    }

    /// The same within its bounds, with its sentence.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.credentials.truncate(MAX_CREDENTIALS);
        self.awaited.truncate(MAX_PERSONS);
        let mut summary = self.kind.phrase().to_owned();
        let paths: Vec<_> = self
            .credentials
            .iter()
            .map(|one| one.path.as_str())
            .collect();
        let awaited: Vec<_> = self.awaited.iter().map(|one| one.name.as_str()).collect();
        let person = |person: &Option<Somebody>| person.as_ref().map(|one| one.name.clone());
        for (label, value) in [
            ("for ", (!paths.is_empty()).then(|| paths.join(", "))),
            ("asked by ", person(&self.requester)),
            ("by ", person(&self.person)),
            ("charter ", self.charter.map(|index| index.to_string())),
            ("place ", self.place.clone()),
            ("refusal ", self.code.clone()),
            ("times ", self.count.map(|count| count.to_string())),
            (
                "can approve: ",
                (!awaited.is_empty()).then(|| awaited.join(", ")),
            ),
        ] {
            if let Some(value) = value {
                summary.push_str("; ");
                summary.push_str(label);
                summary.push_str(&value);
            }
        }
        self.summary = summary;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/OPERATIONS.md");

    #[test]
    fn the_manual_shows_a_notice_and_every_kind() {
        let (_, after) = PAGE.split_once("### The notice\n\n```json\n").unwrap();
        let (example, after) = after.split_once("```").unwrap();
        let notice: Notice = serde_json::from_str(example).unwrap();
        let shown: serde_json::Value = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(&notice).unwrap(), shown);
        assert_eq!(
            notice.clone().bounded(),
            notice,
            "its sentence is made of its fields"
        );
        let (section, _) = after.split_once("\n#").unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<_> = rows.map(str::to_owned).collect();
        let kinds = Kind::ALL.iter();
        let want: Vec<_> = kinds
            .map(|kind| format!("| `{}` | {} |", kind.name(), kind.phrase()))
            .collect();
        assert_eq!(rows, want);
    }

    #[test]
    fn a_notice_is_bounded() {
        let mut notice = Notice::test(UNNAMED.parse().unwrap(), Time::from_ms(1));
        let long = Somebody {
            name: "n".repeat(64),
            id: PersonId::from_parts(Time::from_ms(1), [0; 10]),
        };
        notice.awaited = vec![long; 1000];
        let size = serde_json::to_vec(&notice.bounded()).unwrap().len();
        assert!(size < 8192, "{size}");
    }
}
