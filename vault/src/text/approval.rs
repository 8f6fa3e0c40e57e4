//! The approval: what a custodian says to a request, signed on a token.
//!
//! It binds the request by its digest (and through it the vault, the purpose and every manifest),
//! the custodian, the token, each share by its commitment, and the newest charter and log that the
//! custodian's client has verified: a log that forks or shrinks is seen in what people signed, and
//! after a loss the newest charter that anybody signed for is known.
//!
//! A retraction names the approval it takes back, and a later approval differs at least in `signed`.
//! So an approval that was taken back is never used again.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::digest::Digest;
use crate::name::CredentialPath;
use crate::reference::{
    CharterRef, Head, PersonRef, ReferenceError, TokenRef, Version, integer, parts,
};
use crate::text::{
    CredentialLine, MAX_CREDENTIAL_LINES, Reader, Recover, Request, Text, TextError, Writer,
    ascending,
};
use crate::time::Stamp;

/// An approval, a refusal, or a retraction of either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The digest of the request, or of the offline request (`recover`).
    pub request: Digest,
    /// Who signs.
    pub custodian: PersonRef,
    /// With which token.
    pub token: TokenRef,
    /// What they say.
    pub decision: Decision,
    /// The newest charter that the custodian's client has verified; none on a bare machine.
    pub charter: Option<CharterRef>,
    /// The newest log that it has verified; none on a bare machine.
    pub log: Option<Head>,
    /// When, by the custodian's clock.
    pub signed: Stamp,
}

/// What a custodian says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes; one line per version that the request names, in its order.
    Approve(Vec<ShareLine>),
    /// No; the digest of a details text with the reason. It blocks nobody.
    Refuse {
        /// The digest of the details.
        reason: Digest,
    },
    /// What was signed before is taken back.
    Retract {
        /// The digest of the approval or refusal.
        earlier: Digest,
    },
}

/// What a custodian has of a version; written `<path> v7 x2 <commitment>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareLine {
    /// The credential.
    pub path: CredentialPath,
    /// The version.
    pub version: Version,
    /// The share, or why there is none.
    pub state: ShareState,
}

/// A share of a version, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareState {
    /// It is submitted.
    Held {
        /// Its x, from 1 on.
        x: u8,
        /// Its commitment.
        commitment: Digest,
    },
    /// The custodian is not in the manifest.
    NotHeld,
    /// The custodian is in it, but the envelope does not open, or is not what was sealed.
    Unreadable,
}

/// Why an approval does not answer a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// It names another request.
    #[error("the approval is for another request")]
    OtherRequest,
    /// Its lines are not those of the request.
    #[error(
        "the approval does not have one share line for each version of the request, in its order"
    )]
    Lines,
}

impl Approval {
    /// Does it answer this request, whose text has this SHA-256, line for line?
    pub fn answers(&self, request: &Request, digest: Digest) -> Result<(), AnswerError> {
        self.answers_lines(&digest, &request.credentials)
    }

    /// Does it answer this offline request?
    pub fn answers_recover(&self, request: &Recover) -> Result<(), AnswerError> {
        self.answers_lines(&request.digest(), std::slice::from_ref(&request.credential))
    }

    fn answers_lines(&self, request: &Digest, asked: &[CredentialLine]) -> Result<(), AnswerError> {
        if self.request != *request {
            return Err(AnswerError::OtherRequest);
        }
        let Decision::Approve(shares) = &self.decision else {
            return Ok(());
        };
        let asked = asked.iter().map(|line| (&line.path, line.version));
        let answered = shares.iter().map(|line| (&line.path, line.version));
        if asked.eq(answered) {
            Ok(())
        } else {
            Err(AnswerError::Lines)
        }
    }

    /// The share lines; none but in an approval.
    pub fn shares(&self) -> &[ShareLine] {
        match &self.decision {
            Decision::Approve(shares) => shares,
            Decision::Refuse { .. } | Decision::Retract { .. } => &[],
        }
    }
}

impl fmt::Display for ShareLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.path, self.version, self.state)
    }
}

impl fmt::Display for ShareState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { x, commitment } => write!(f, "x{x} {commitment}"),
            Self::NotHeld => f.write_str("not-held"),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

impl FromStr for ShareLine {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (path, rest) = text.split_once(' ')?;
            let (version, state) = rest.split_once(' ')?;
            let state = state.parse().ok()?;
            Some(Self {
                path: path.parse().ok()?,
                version: version.parse().ok()?,
                state,
            })
        };
        read().ok_or(ReferenceError(
            "a share: path, version, and x with commitment, not-held or unreadable",
        ))
    }
}

impl FromStr for ShareState {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let held = || {
            let [x, commitment] = parts(text)?;
            let x = u8::try_from(integer(x.strip_prefix('x')?)?)
                .ok()
                .filter(|x| *x > 0)?;
            Some(Self::Held {
                x,
                commitment: commitment.parse().ok()?,
            })
        };
        match text {
            "not-held" => Ok(Self::NotHeld),
            "unreadable" => Ok(Self::Unreadable),
            _ => held().ok_or(ReferenceError("x with commitment, not-held or unreadable")),
        }
    }
}

impl Text for Approval {
    const TYPE: &'static str = "approval";

    fn write(&self, lines: &mut Writer) {
        let (decision, reason, retracts) = match &self.decision {
            Decision::Approve(_) => ("approve", None, None),
            Decision::Refuse { reason } => ("refuse", Some(reason), None),
            Decision::Retract { earlier } => ("retract", None, Some(earlier)),
        };
        lines.line("request-sha256", &self.request);
        lines.line("custodian", &self.custodian);
        lines.line("token", &self.token);
        lines.each("share", self.shares());
        lines.line("decision", &decision);
        lines.optional("reason", reason);
        lines.optional("retracts", retracts);
        lines.optional("charter", self.charter.as_ref());
        lines.optional("log", self.log.as_ref());
        lines.line("signed", &self.signed);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        let request = lines.line("request-sha256")?;
        let custodian = lines.line("custodian")?;
        let token = lines.line("token")?;
        let shares: Vec<ShareLine> = lines.each("share", MAX_CREDENTIAL_LINES)?;
        let decision = lines.with("decision", |decision| {
            let known = ["approve", "refuse", "retract"]
                .into_iter()
                .find(|name| *name == decision);
            known.ok_or(ReferenceError("approve, refuse or retract"))
        })?;
        let reason: Option<Digest> = lines.optional("reason")?;
        let retracts: Option<Digest> = lines.optional("retracts")?;
        let charter = lines.optional("charter")?;
        let log = lines.optional("log")?;
        let signed = lines.line("signed")?;
        let decision = match (decision, reason, retracts) {
            ("approve", None, None) => Decision::Approve(shares),
            ("refuse", Some(reason), None) if shares.is_empty() => Decision::Refuse { reason },
            ("retract", None, Some(earlier)) if shares.is_empty() => Decision::Retract { earlier },
            _ => {
                return Err(TextError::Rule(
                    "only an approval has shares, only a refusal a reason, only a retraction \
                     what it retracts",
                ));
            }
        };
        Ok(Self {
            request,
            custodian,
            token,
            decision,
            charter,
            log,
            signed,
        })
    }

    fn check(&self) -> Result<(), TextError> {
        ascending("share", self.shares(), |line| {
            (line.path.clone(), line.version)
        })
    }
}
