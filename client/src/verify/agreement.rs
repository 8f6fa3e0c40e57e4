//! Whether those agreed who must: the record of a ceremony that opens nothing, held against a charter.
//!
//! # Invariants
//! 1. The request is signed by the person whom it names and asks for exactly this.
//! 2. Of what custodians said only what is signed by their own token counts, and nothing that they took back.
//! 3. The groups that are needed are named by the caller, from documents that it has verified.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Chain, Charter},
    digest::Digest,
    id::GroupName,
    quorum::{Ask, Vote, judge},
    reference::{CharterRef, Signer},
    text::{Approval, Decision, Purpose, Request, Text as _},
    world::{Holding, World},
};

use super::VerifyError;
use crate::wire;

/// What the daemon says put something into force.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The signed request.
    pub request: Option<v1::SignedText>,
    /// What custodians said to it.
    pub statements: Vec<v1::SignedText>,
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
        let (reference, charter) = self.in_force;
        let request = self.request(chain, record)?;
        let votes = votes(charter, &request, &record.statements);
        let holdings: BTreeMap<_, Holding> = BTreeMap::new();
        let world = World {
            charter,
            in_force: reference,
            holdings: &holdings,
        };
        let ask = Ask {
            requester: request.requested_by.id,
            lines: BTreeMap::new(),
            group: None,
            needs: self.needs.clone(),
            waive: request.waive.clone(),
        };
        let verdict = judge(world, &ask, &votes, |_, _| false);
        if verdict.reached() {
            return Ok(request);
        }
        let lacking = verdict
            .missing
            .iter()
            .filter_map(|missing| missing.group.as_ref())
            .map(ToString::to_string);
        Err(VerifyError::NotAgreed {
            what: self.what.clone(),
            lacking: lacking.collect::<Vec<_>>().join(", "),
        })
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

/// Invariant 2: the approvals that count as far as signatures go.
fn votes(charter: &Charter, request: &Request, statements: &[v1::SignedText]) -> Vec<Vote> {
    let own: Vec<Approval> = statements
        .iter()
        .filter_map(|statement| {
            let signed = wire::signed_text(Some(statement.clone()), "a statement").ok()?;
            super::text(charter, &signed, "a statement").ok()?;
            let approval: Approval = signed.parse().ok()?;
            (signed.signer == Signer::Token(approval.token.id)).then_some(approval)
        })
        .collect();
    let back: BTreeSet<Digest> = own
        .iter()
        .filter_map(|approval| match approval.decision {
            Decision::Retract { earlier } => Some(earlier),
            Decision::Approve(_) | Decision::Refuse { .. } => None,
        })
        .collect();
    own.iter()
        .filter(|approval| !back.contains(&approval.digest()))
        .filter_map(|approval| Vote::of(charter, request, approval, None, BTreeSet::new()).ok())
        .collect()
}
