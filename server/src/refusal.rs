//! Refusals on the wire: a status, a stable code for programs, a hint for people.

use std::fmt::Display;

use keyturn_proto::{CODE_TRAILER, HINT_TRAILER};
use keyturn_vault::refusal::Refusal;
use thiserror::Error;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::store::StoreError;

/// A status whose trailers carry the refusal's stable word and what to do next.
///
/// `word` is a constant of the program, lower-case letters and dashes, like `same-custodian`.
pub fn status(code: Code, word: &'static str, message: impl Display, hint: &str) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert(CODE_TRAILER, MetadataValue::from_static(word));
    trailers.insert_bin(HINT_TRAILER, MetadataValue::from_bytes(hint.as_bytes()));
    Status::with_metadata(code, message.to_string(), trailers)
}

/// A malformed field, text or document.
pub fn malformed(what: impl Display) -> Status {
    let hint = "nothing was changed; mend what it names, or, where you gave nothing of the kind, use programs of one version";
    status(Code::InvalidArgument, "malformed", what, hint)
}

/// There is no such thing, or not for this person.
pub fn not_found(what: impl Display) -> Status {
    let hint = "check the spelling, and that you are in the vault you mean";
    status(Code::NotFound, "not-found", what, hint)
}

/// Nothing can be changed now; `reason` is the one that health tells.
pub fn not_serving(reason: impl Display) -> Status {
    let hint =
        "an operator sees the reason in `keyturn status` and in the daemon's log; try again later";
    status(Code::Unavailable, "not-serving", reason, hint)
}

/// Why the vault did not do what it was asked; nothing was changed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Refused {
    /// A rule of the vault.
    #[error(transparent)]
    Vault(#[from] Refusal),
    /// The store took nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored row or document cannot be used.
    #[error("a part of the store is damaged, or written by a newer keyturnd")]
    Row,
    /// A text, document or message does not have its form.
    #[error("{0}")]
    Malformed(String),
    /// A submission cannot be taken.
    #[error("{0}")]
    Submission(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// The id, path or number is taken by something else.
    #[error("{0}")]
    Taken(&'static str),
    /// What was named is no longer the newest.
    #[error("{0}")]
    Stale(&'static str),
    /// A rule about the caller.
    #[error("{0}")]
    Denied(&'static str),
    /// What is said of tokens is not what their maker says.
    #[error("{0}")]
    Attestation(String),
    /// Tokens do not meet the charter's policies.
    #[error("{0}")]
    WeakToken(String),
    /// No charter has the key that signed.
    #[error("the charter in force does not have the key that signed this")]
    UnknownSigner,
    /// A signature is not good.
    #[error("the signature is not good")]
    BadSignature,
    /// The vault is not founded yet.
    #[error("the vault is not founded: not every founder has joined")]
    NotFounded,
    /// The caller's head of the log is not in this log.
    #[error("this log does not contain that head: it shrank or forked")]
    Fork,
    /// Not in this version of the program.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The system's random numbers failed.
    #[error("the system's random number generator failed")]
    NoEntropy,
    /// The store is not where the log has been.
    #[error(
        "this vault is in restore mode: nothing changes until a quorum accepts what was restored"
    )]
    RestoreMode,
    /// The vault goes on: there is nothing to accept.
    #[error("this vault is not in restore mode")]
    NotRestoring,
    /// A check does not say that people have changed a target.
    #[error("the check does not see that it was changed: {0}")]
    NotChanged(crate::connector::Failure),
    /// As much is kept for somebody as may be.
    #[error("{0}")]
    Limit(&'static str),
    /// Room on the disk is kept for ceremonies.
    #[error("the daemon's disk is almost full: what is left is kept for ceremonies")]
    LowSpace,
    /// Too much waits.
    #[error("the vault has too much to do at the moment")]
    Busy,
    /// The daemon is stopping.
    #[error("the vault is stopping")]
    Stopping,
    /// The log cannot grow any more.
    #[error("the log is full")]
    Full,
}

impl Refused {
    /// The stable word of the refusal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Vault(refusal) => refusal.code(),
            Self::Store(_) => "store",
            Self::Row => "damaged",
            Self::Malformed(_) => "malformed",
            Self::Submission(_) => "wrong-submission",
            Self::NotFound(_) => "not-found",
            Self::Taken(_) => "taken",
            Self::Stale(_) => "stale",
            Self::Denied(_) => "denied",
            Self::Attestation(_) => "attestation",
            Self::WeakToken(_) => Refusal::WeakToken.code(),
            Self::UnknownSigner => "unknown-signer",
            Self::BadSignature => "wrong-signature",
            Self::NotFounded => "not-founded",
            Self::Fork => "head-mismatch",
            Self::Unsupported(_) => "other-version",
            Self::NoEntropy => "no-entropy",
            Self::RestoreMode => "restore-mode",
            Self::NotRestoring => "not-in-restore-mode",
            Self::NotChanged(_) => "not-changed",
            Self::Limit(_) => "limit",
            Self::LowSpace => "low-space",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Full => "log-full",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Vault(refusal) => refusal.hint(),
            Self::Store(_) => "an operator looks at the daemon's disk; nothing was changed",
            Self::Row | Self::Full => {
                "an operator looks at the daemon's log, and at `keyturnd restore`"
            }
            Self::Malformed(_) => {
                "nothing was changed; mend what it names, or, where you gave nothing of the kind, use programs of one version"
            }
            Self::Submission(_) => "send the shares again with `keyturn approve --resend`",
            Self::NotFound(_) => "check the spelling, and that you are in the vault you mean",
            Self::Taken(_) => "choose another, or look at what is there",
            Self::Stale(_) => "make it again from the newest state",
            Self::Denied(_) => "`keyturn charter show` tells who may do what",
            Self::Attestation(_) => {
                "let its owner enrol again; tokens of other makers need `attestation.roots` in keyturnd.toml"
            }
            Self::WeakToken(_) => Refusal::WeakToken.hint(),
            Self::UnknownSigner => "sign with a token or device of the charter in force",
            Self::BadSignature => "sign again; if it goes on, the token or the file is damaged",
            Self::NotFounded => "every founder runs `keyturn join` with their welcome file",
            Self::Fork => {
                "sign nothing; ask an auditor to compare the saved checkpoints with this log"
            }
            Self::Unsupported(_) => "update the daemon",
            Self::NoEntropy => "do not use this host",
            Self::RestoreMode => {
                "see `keyturn status`; sign nothing but `accept-restore`, after comparing its fingerprint"
            }
            Self::NotRestoring => "nothing was restored; see `keyturn status`",
            Self::NotChanged(_) => {
                "change it at the target, or mend the check of the connector `manual`; then complete it again"
            }
            Self::Limit(_) => "nothing was changed; make room first, or come back later",
            Self::LowSpace => "an operator makes room on the daemon's disk; openings go on",
            Self::Busy => "try again in some seconds",
            Self::Stopping => "try again in some seconds; the daemon is being started anew",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Vault(
                Refusal::NotLive | Refusal::OldCharter | Refusal::Stale | Refusal::UnknownVersion,
            )
            | Self::Stale(_) => Code::Aborted,
            Self::Vault(Refusal::TooManyOpen)
            | Self::Limit(_)
            | Self::Busy
            | Self::Full
            | Self::LowSpace => Code::ResourceExhausted,
            Self::Vault(Refusal::UnknownCredential) | Self::NotFound(_) => Code::NotFound,
            Self::Vault(Refusal::KnownCeremony) | Self::Taken(_) => Code::AlreadyExists,
            Self::Vault(
                Refusal::NotRequester
                | Refusal::NotYours
                | Refusal::NotOperator
                | Refusal::NotCustodian,
            )
            | Self::Denied(_)
            | Self::UnknownSigner
            | Self::BadSignature => Code::PermissionDenied,
            Self::Vault(_)
            | Self::Attestation(_)
            | Self::WeakToken(_)
            | Self::NotChanged(_)
            | Self::NotFounded
            | Self::Fork
            | Self::RestoreMode
            | Self::NotRestoring => Code::FailedPrecondition,
            Self::Malformed(_) | Self::Submission(_) => Code::InvalidArgument,
            Self::Store(_) | Self::Row | Self::Stopping | Self::NoEntropy => Code::Unavailable,
            Self::Unsupported(_) => Code::Unimplemented,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        status(refused.code(), refused.word(), &refused, refused.hint())
    }
}
