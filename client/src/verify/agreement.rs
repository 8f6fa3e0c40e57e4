//! Whether those agreed who must: the record of a ceremony that opens nothing, held against a charter.
//!
//! # Invariants
//! 1. The request is signed by the person whom it names and asks for exactly this.
//! 2. Of what custodians said only what is signed by their own token counts, and nothing that they took back.
//! 3. The groups that are needed are named by the caller, from documents that it has verified.

use std::collections::BTreeSet;

use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Chain, Charter},
    id::GroupName,
    quorum::Verdict,
    reference::CharterRef,
    said::Said,
    text::{Purpose, Request, SignedText},
};

use super::{VerifyError, wire};

/// What the daemon says put something into force.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The signed request.
    pub request: Option<v1::SignedText>,
    /// What custodians said to it.
    pub statements: Vec<v1::SignedText>,
}

/// What a record comes to.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The request.
    pub request: Request,
    /// Everything that was said, signed or not.
    pub statements: Vec<SignedText>,
    /// What of it stands.
    pub said: Said,
    /// Who agrees, and who is missing.
    pub verdict: Verdict,
}

/// Something that somebody claims was agreed to.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// What it is, for people.
    pub what: String,
    /// What the request must ask for.
    pub purpose: Purpose,
    /// The charter by which the quorum is judged.
    pub in_force: (CharterRef, &'a Charter),
    /// The groups of which k must agree.
    pub needs: BTreeSet<GroupName>,
}

impl Claim<'_> {
    /// Checks the record (invariants 1 to 3). `chain` has the charter that the request names.
    pub fn check(&self, chain: &Chain, record: &Record) -> Result<Request, VerifyError> {
        let judged = self.judge(chain, record)?;
        if judged.verdict.reached() {
            Ok(judged.request)
        } else {
            Err(self.lacks(&judged.verdict))
        }
    }

    /// The record as it is to be judged (invariants 1 to 3), whether it suffices or not.
    pub fn judge(&self, chain: &Chain, record: &Record) -> Result<Judged, VerifyError> {
        let (_, charter) = self.in_force;
        let request = self.request(chain, record)?;
        let made_under = chain.find(&request.charter).unwrap_or(charter);
        let statements: Vec<_> = record
            .statements
            .iter()
            .filter_map(|statement| wire::signed_text(Some(statement.clone()), "a statement").ok())
            .collect();
        let charters = [charter, made_under];
        let said = Said::fold(&charters, &request, &statements, super::holds);
        let verdict = said.agree(self.in_force, &request, self.needs.clone());
        Ok(Judged {
            request,
            statements,
            said,
            verdict,
        })
    }

    /// Who did not agree.
    pub fn lacks(&self, verdict: &Verdict) -> VerifyError {
        let lacking = verdict
            .missing
            .iter()
            .filter_map(|missing| missing.group.as_ref())
            .map(ToString::to_string);
        VerifyError::NotAgreed {
            what: self.what.clone(),
            lacking: lacking.collect::<Vec<_>>().join(", "),
        }
    }

    /// Invariant 1.
    fn request(&self, chain: &Chain, record: &Record) -> Result<Request, VerifyError> {
        let what = || format!("the request for {}", self.what);
        let signed = wire::signed_text(record.request.clone(), "the request of a change")?;
        let request: Request = signed
            .parse()
            .map_err(|source| VerifyError::Text(what(), source))?;
        let other = || VerifyError::Other {
            what: self.what.clone(),
            by: "its request",
        };
        let (reference, charter) = self.in_force;
        let made_under = chain
            .find(&request.charter)
            .filter(|made_under| made_under.index <= reference.index)
            .ok_or_else(other)?;
        super::text(made_under, &signed, &what())?;
        let requester = super::person_of(made_under, signed.signer)
            .filter(|person| person.reference() == request.requested_by);
        requester.ok_or_else(|| VerifyError::Person(what()))?;
        if request.purpose != self.purpose || request.vault != charter.origin {
            return Err(other());
        }
        Ok(request)
    }
}
