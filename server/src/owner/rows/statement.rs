//! What was said to a ceremony, as it is stored; and parsed once for everybody who is shown it.

use std::sync::{Arc, OnceLock};

use keyturn_vault::{
    text::{Approval, SignedText, Text as _},
    time::Time,
};
use serde::{Deserialize, Serialize};

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

    /// What the custodian says; nothing where it is a reviewer's.
    pub fn approval(&self) -> Option<&Approval> {
        let parse = || Approval::parse(&self.signed.text).ok().map(Arc::new);
        self.parsed.0.get_or_init(parse).as_deref()
    }
}
