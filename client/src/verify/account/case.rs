//! A request and what came of it, as people are told.

use std::collections::BTreeSet;

use keyturn_audit::entry::Entry;
use keyturn_vault::{
    digest::Digest,
    id::{CeremonyId, CredentialId},
    name::CredentialPath,
    reference::Version,
};
use serde::Serialize;

/// A moment: an entry and its time, by the daemon's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// The entry.
    pub n: u64,
    /// Its time.
    pub time: String,
}

impl Moment {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            n: entry.n,
            time: entry.time.clone(),
        }
    }
}

/// What a custodian said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Who.
    pub person: String,
    /// With which token.
    pub token: String,
    /// `approve`, `refuse` or `retract`.
    pub decision: &'static str,
    /// The digest of the reason of a refusal.
    pub reason: Option<Digest>,
    /// When it was logged.
    pub at: Moment,
}

/// What somebody said of it when it was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reviewed {
    /// Who.
    pub person: String,
    /// `in order` or `questioned`.
    pub outcome: &'static str,
    /// The digest of their words.
    pub note: Option<Digest>,
    /// When it was logged.
    pub at: Moment,
}

/// A version that a request names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Where people find it.
    pub path: CredentialPath,
    /// Which credential.
    #[serde(skip)]
    pub credential: CredentialId,
    /// Which version.
    pub version: Version,
}

/// How a credential was rotated after an opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// The credential.
    pub path: String,
    /// The new version.
    pub version: Version,
    /// What the target showed of the old secret being void; none as long as that is not logged.
    pub evidence: Option<String>,
    /// When the new one was in force.
    pub at: Moment,
}

/// A request and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Its id.
    pub ceremony: CeremonyId,
    /// What it was for, like `unseal` or `change`.
    pub purpose: String,
    /// What it changes, where it changes something.
    pub subject: String,
    /// The SHA-256 of the signed request.
    pub request: Digest,
    /// Who asked.
    pub requested_by: String,
    /// Who was to use it, if somebody else.
    pub used_by: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// The emergency.
    pub scenario: Option<String>,
    /// The SHA-256 of the details text.
    pub details: Digest,
    /// Rules that were set aside.
    pub waived: Vec<String>,
    /// What was to be opened.
    pub versions: Vec<Named>,
    /// When it was opened.
    pub opened: Moment,
    /// What custodians said, in order.
    pub said: Vec<Said>,
    /// Who agreed and counted, as the rules have it.
    pub agreed: BTreeSet<String>,
    /// When quorum and shares were there.
    pub authorized: Option<Moment>,
    /// When the secret, or what else was asked for, was handed on.
    pub released: Option<Moment>,
    /// How often it was fetched again.
    pub fetched: u64,
    /// What it came to.
    pub outcome: &'static str,
    /// When it was returned, or its check-out ended.
    pub returned: Option<Moment>,
    /// The rotations that followed, one for each credential that was opened.
    pub rotated: Vec<Rotated>,
    /// Credentials that were opened and not rotated.
    pub owed: BTreeSet<String>,
    /// What people who had no part in it said afterwards.
    pub reviews: Vec<Reviewed>,
}

/// Something else that an auditor wants to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What happened.
    pub what: String,
    /// When.
    pub at: Moment,
}
