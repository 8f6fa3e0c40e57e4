//! A ceremony as it is stored; what was said to it is parsed once for everybody who is shown it.

use std::sync::{Arc, OnceLock};

use keyturn_vault::{
    ceremony,
    checkout::CheckOut,
    id::CredentialId,
    reference::Version,
    text::{Approval, SignedText, Text as _},
    time::Time,
};
use serde::{Deserialize, Serialize};

/// `ceremony/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// The machine's own part.
    pub row: ceremony::Row,
    /// The signed request.
    pub request: SignedText,
    /// When the daemon had it.
    pub opened: Time,
    /// Grows with every change, from 1.
    pub revision: u64,
    /// Approvals, refusals and retractions in the order of the log.
    pub statements: Vec<Statement>,
    /// The entry `unseal.authorized`.
    pub authorized: Option<u64>,
    /// The entry `unseal.released`.
    pub released: Option<u64>,
    /// What was opened, while the requester can still fetch it.
    pub release: Option<Release>,
    /// The check-out that followed.
    pub checkout: Option<CheckOut>,
    /// When the last of it was returned, or its time was over.
    #[serde(default)]
    pub returned: Option<Time>,
    /// What people who had no part in it said of it afterwards, in the order of the log.
    #[serde(default)]
    pub reviews: Vec<Statement>,
}

impl Ceremony {
    /// The same after a step of its machine.
    #[must_use]
    pub fn with(&self, row: ceremony::Row) -> Self {
        Self {
            row,
            request: self.request.clone(),
            opened: self.opened,
            revision: self.revision,
            statements: self.statements.clone(),
            authorized: self.authorized,
            released: self.released,
            release: self.release.clone(),
            checkout: self.checkout.clone(),
            returned: self.returned,
            reviews: self.reviews.clone(),
        }
    }
}

/// What was opened, encrypted to `deliver-to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// An age file.
    #[serde(with = "super::base64_bytes")]
    pub ciphertext: Vec<u8>,
    /// What is in it, and what is not, with the reason.
    pub versions: Vec<ReleasedVersion>,
}

/// What became of one version that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedVersion {
    /// The credential.
    pub credential: CredentialId,
    /// The version.
    pub version: Version,
    /// Why it is not in the ciphertext; empty when it is.
    pub problem: String,
}

/// What a custodian or a reviewer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The signed text.
    pub signed: SignedText,
    /// The details text of a refusal or a review; empty when there is none or it was erased.
    pub details: String,
    /// When the daemon had it.
    pub time: Time,
    #[serde(skip)]
    parsed: Parsed,
}

/// A custodian's text, once somebody has looked at it: nothing beyond that text, so all are equal.
#[derive(Clone, Debug, Default)]
struct Parsed(OnceLock<Option<Arc<Approval>>>);

impl PartialEq for Parsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Parsed {}

impl Statement {
    /// What somebody signed, with the free text that it names.
    pub fn new(signed: SignedText, details: String, time: Time) -> Self {
        Self {
            signed,
            details,
            time,
            parsed: Parsed::default(),
        }
    }

    /// Remembers what it says, which whoever verified it has read already.
    pub fn reads(&self, approval: Approval) {
        // Read before is as good.
        let _ = self.parsed.0.set(Some(Arc::new(approval)));
    }

    /// What the custodian says; nothing where it is a reviewer's.
    pub fn approval(&self) -> Option<&Approval> {
        let parse = || Approval::parse(&self.signed.text).ok().map(Arc::new);
        self.parsed.0.get_or_init(parse).as_deref()
    }
}
