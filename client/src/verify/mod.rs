//! Nothing that the daemon says is believed: everything is checked against the charter's chain, from the
//! first charter that was compared by voice, and against the log, from the checkpoint seen before.
//!
//! # Invariants
//! 1. Whatever comes out of this module was signed by whom the charter names, or is named by its digest in
//!    something that was.
//! 2. Nothing here talks to anybody; callers bring the bytes.

pub mod account;
pub mod agreement;
pub mod attested;
pub mod charter;
pub mod checks;
pub mod definition;
pub mod directory;
pub mod log;
pub mod restore;
mod rules;
pub mod sealed;
pub mod wire;

use keyturn_audit::{
    entry::EntryError,
    note::OpenError,
    proof::{ReceiptError, VerifyError as ProofError},
    tree,
};
use keyturn_hsm::{ApprovalKey, attestation::AttestationError};
use keyturn_vault::{
    charter::{Chain, ChainError, Charter, Person},
    check::{self, Check},
    definition::DefinitionError,
    event::EventError,
    jcs::JcsError,
    key::PublicKey,
    manifest::ManifestError,
    reference::Signer,
    text::{Enrol, SignedText, TextError},
};
use thiserror::Error;

/// Why something is not what it is said to be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A field that must be there, or is not readable.
    #[error("the daemon's answer lacks {0}, or it is not readable")]
    Missing(&'static str),
    /// Nobody in the charter has this key.
    #[error("{0} is signed by nobody whom the charter knows")]
    Signer(String),
    /// Signed by somebody else than it says.
    #[error("{0} is not signed by the person it names")]
    Person(String),
    /// The signature does not hold.
    #[error("the signature on {0} is not good")]
    Signature(String),
    /// A signed text cannot be read.
    #[error("{0} cannot be read")]
    Text(String, #[source] TextError),
    /// A document cannot be read.
    #[error("{0} cannot be read")]
    Document(&'static str, #[source] JcsError),
    /// Two things that must belong together do not.
    #[error("{what} is not the one that {by} names")]
    Other {
        /// What was looked at.
        what: String,
        /// What names another.
        by: &'static str,
    },
    /// A charter does not follow the one before.
    #[error("charter {index} does not follow the one before")]
    Chain {
        /// Its number.
        index: u64,
        /// Why not.
        source: ChainError,
    },
    /// A charter, a definition or a restore took force without its quorum.
    #[error("{what} took force without the agreement of {lacking}")]
    NotAgreed {
        /// What took force.
        what: String,
        /// The groups that lack approvals.
        lacking: String,
    },
    /// A manifest does not fit its definition and charter.
    #[error("the manifest of {0} does not fit")]
    Manifest(String, #[source] ManifestError),
    /// A definition does not fit.
    #[error("the definition of {0} does not fit")]
    Definition(String, #[source] DefinitionError),
    /// The key of the log cannot be read.
    #[error("the log's key cannot be read")]
    Vkey,
    /// A checkpoint is not the log's.
    #[error("a checkpoint is not signed by the log's key")]
    Checkpoint(#[source] OpenError),
    /// A receipt cannot be read.
    #[error("a receipt cannot be read")]
    Receipt(#[source] ReceiptError),
    /// A receipt does not lead to its entry.
    #[error("entry {n} is not proven to be in the log")]
    NotIncluded {
        /// Its number.
        n: u64,
        /// Why not.
        source: ProofError,
    },
    /// An entry cannot be read.
    #[error("entry {n} of the log cannot be read")]
    Entry {
        /// Its number.
        n: u64,
        /// Why not.
        source: EntryError,
    },
    /// An entry has a body that this program does not know.
    #[error("entry {n} of the log is not of a known kind")]
    Event {
        /// Its number.
        n: u64,
        /// Why not.
        source: EventError,
    },
    /// The log was longer before.
    #[error("the log shrank: it has {now} entries, and this computer has seen {before}")]
    Shrank {
        /// Entries now.
        now: u64,
        /// Entries before.
        before: u64,
    },
    /// The log is another one.
    #[error(
        "the log forked: it does not continue the {before} entries that this computer has seen"
    )]
    Forked {
        /// Entries before.
        before: u64,
        /// What the proof says.
        #[source]
        source: tree::ProofError,
    },
    /// A token is not what its maker attests.
    #[error("the attestation of token {token} does not hold")]
    Attestation {
        /// The token.
        token: String,
        /// Why not.
        source: AttestationError,
    },
    /// The definition in force went back.
    #[error("the daemon's definition of {0} is older than the one that this computer has verified")]
    OldDefinition(String),
    /// The charter in force went back.
    #[error(
        "the daemon's charter {now} is older than charter {before}, which this computer has verified"
    )]
    OldCharter {
        /// Its number.
        now: u64,
        /// The newest verified one.
        before: u64,
    },
}

impl VerifyError {
    /// Stable.
    pub fn code(&self) -> &'static str {
        if self.goes_back() {
            "head-mismatch"
        } else if matches!(self, Self::Attestation { .. }) {
            "attestation"
        } else {
            "verification"
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        if self.goes_back() {
            "sign nothing: the vault was restored from a backup or shows you another log; ask its operators on another way"
        } else if matches!(self, Self::Attestation { .. }) {
            "if this token's maker is not Yubico, name the roots with --attestation-roots; otherwise sign nothing, and tell the vault's auditors"
        } else if matches!(self, Self::Missing(_)) {
            "compare the versions of client and daemon"
        } else {
            "sign nothing and use nothing of this; tell the vault's operators and auditors on another way"
        }
    }

    /// Whether what was seen before is not continued.
    fn goes_back(&self) -> bool {
        matches!(
            self,
            Self::Shrank { .. }
                | Self::Forked { .. }
                | Self::OldCharter { .. }
                | Self::OldDefinition(_)
        )
    }
}

/// Checks a signature over `bytes`.
fn verify(key: &PublicKey, bytes: &[u8], signature: &[u8], what: &str) -> Result<(), VerifyError> {
    let bad = || VerifyError::Signature(what.to_owned());
    let key = ApprovalKey::from_spki(key.as_der()).map_err(|_| bad())?;
    key.verify(bytes, signature).map_err(|_| bad())
}

/// Whether a signature over a text holds; any other check is not this function's to perform.
fn holds(check: &Check) -> bool {
    match check {
        Check::Text { key, signed } => {
            verify(key, signed.text.as_bytes(), &signed.signature, "a text").is_ok()
        }
        Check::Commitment { .. }
        | Check::Document { .. }
        | Check::Attestation { .. }
        | Check::NoKey { .. }
        | Check::Details(_)
        | Check::Head(_) => false,
    }
}

/// Checks a signature over `bytes` with the key that the charter has for the signer.
pub fn signature(
    charter: &Charter,
    signer: Signer,
    bytes: &[u8],
    signature: &[u8],
    what: &str,
) -> Result<(), VerifyError> {
    let key = check::key(charter, signer).ok_or_else(|| VerifyError::Signer(what.to_owned()))?;
    verify(&key, bytes, signature, what)
}

/// Checks a signed text with the key that the charter has for its signer.
pub fn text(charter: &Charter, signed: &SignedText, what: &str) -> Result<(), VerifyError> {
    signature(
        charter,
        signed.signer,
        signed.text.as_bytes(),
        &signed.signature,
        what,
    )
}

/// Reads an enrolment, which is signed by the key that it names.
pub fn enrolment(signed: &SignedText) -> Result<Enrol, VerifyError> {
    let what = "the enrolment";
    let enrol: Enrol = signed
        .parse()
        .map_err(|source| VerifyError::Text(what.to_owned(), source))?;
    if signed.signer != Signer::Token(enrol.token.id) {
        return Err(VerifyError::Person(what.to_owned()));
    }
    verify(
        &enrol.approval_key,
        signed.text.as_bytes(),
        &signed.signature,
        what,
    )?;
    Ok(enrol)
}

/// Checks a document with the newest charter that knows its signer: authors may have left since.
pub fn document(
    chain: &Chain,
    signer: Signer,
    bytes: &[u8],
    by: &[u8],
    what: &str,
) -> Result<(), VerifyError> {
    let mut known = chain
        .all()
        .filter(|charter| check::key(charter, signer).is_some());
    let charter = known
        .next()
        .ok_or_else(|| VerifyError::Signer(what.to_owned()))?;
    signature(charter, signer, bytes, by, what)
}

/// The person of a signer.
pub fn person_of(charter: &Charter, signer: Signer) -> Option<&Person> {
    match signer {
        Signer::Token(id) => charter.person_of_token(id).map(|(person, _)| person),
        Signer::Device(id) => charter.person_of_device(id).map(|(person, _)| person),
        Signer::Node(_) => None,
    }
}
