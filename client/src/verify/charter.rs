//! The charter's chain, each change with the signatures of those who agreed to it.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Chain, Charter, touched_groups},
    digest::Digest,
    jcs::Document as _,
    quorum::{Ask, Vote, judge},
    reference::{CharterRef, Signer},
    text::{Approval, Change, Join, Purpose, Request},
    world::{Holding, World},
};

use super::VerifyError;
use crate::wire;

/// Begins with the pinned first charter.
pub fn begin(bytes: &[u8], genesis: Digest) -> Result<Chain, VerifyError> {
    Chain::begin(bytes, genesis).map_err(|source| VerifyError::Chain { index: 1, source })
}

/// Adds a charter that was verified before.
pub fn push(chain: &mut Chain, bytes: &[u8]) -> Result<(), VerifyError> {
    let index = chain
        .newest()
        .map_or(1, |(newest, _)| newest.index.saturating_add(1));
    chain
        .push(bytes)
        .map_err(|source| VerifyError::Chain { index, source })
}

/// Adds the next charter, having checked that those agreed who must.
pub fn follow(chain: &mut Chain, record: v1::CharterRecord) -> Result<Vec<u8>, VerifyError> {
    let (old_ref, old) = chain
        .newest()
        .ok_or(VerifyError::Missing("the first charter"))?;
    let new = Charter::from_bytes(&record.charter)
        .map_err(|source| VerifyError::Document("the charter", source))?;
    agreed(old_ref, old, &new, &record)?;
    joined(&new, &record)?;
    push(chain, &record.charter)?;
    Ok(record.charter)
}

/// The governing group and every group that the change touches agreed, as the old charter has them.
fn agreed(
    old_ref: CharterRef,
    old: &Charter,
    new: &Charter,
    record: &v1::CharterRecord,
) -> Result<(), VerifyError> {
    let what = || format!("the change to charter {}", new.index);
    let signed = wire::signed_text(record.request.clone(), "the request of a charter change")?;
    super::text(old, &signed, &what())?;
    let request: Request = signed
        .parse()
        .map_err(|source| VerifyError::Text(what(), source))?;
    let requester = super::person_of(old, signed.signer)
        .filter(|person| person.reference() == request.requested_by);
    requester.ok_or_else(|| VerifyError::Person(what()))?;
    let named = if let Purpose::Change(Change::Charter(named)) = &request.purpose {
        Some(*named)
    } else {
        None
    };
    let wanted = CharterRef {
        index: new.index,
        digest: Digest::of(&record.charter),
    };
    if named != Some(wanted) || request.charter != old_ref || request.vault != old.origin {
        return Err(VerifyError::Other {
            what: what(),
            by: "its request",
        });
    }
    let mut votes = Vec::new();
    for approval in &record.approvals {
        let signed = wire::signed_text(Some(approval.clone()), "an approval")?;
        let approval: Approval = signed
            .parse()
            .map_err(|source| VerifyError::Text("an approval".to_owned(), source))?;
        if signed.signer != Signer::Token(approval.token.id) {
            return Err(VerifyError::Person("an approval".to_owned()));
        }
        super::text(old, &signed, "an approval")?;
        if let Ok(vote) = Vote::of(old, &request, &approval, None, BTreeSet::new()) {
            votes.push(vote);
        }
    }
    let mut needs = touched_groups(old, new);
    needs.extend(old.governing().map(|group| group.name.clone()));
    let holdings: BTreeMap<_, Holding> = BTreeMap::new();
    let world = World {
        charter: old,
        in_force: old_ref,
        holdings: &holdings,
    };
    let ask = Ask {
        requester: request.requested_by.id,
        lines: BTreeMap::new(),
        group: None,
        needs,
        waive: request.waive.clone(),
    };
    let verdict = judge(world, &ask, &votes, |_, _| false);
    if verdict.reached() {
        return Ok(());
    }
    let lacking = verdict
        .missing
        .iter()
        .filter_map(|missing| missing.group.as_ref())
        .map(ToString::to_string);
    Err(VerifyError::NotAgreed {
        index: new.index,
        lacking: lacking.collect::<Vec<_>>().join(", "),
    })
}

/// Every join that the charter names is there, and signed by the token that it is about.
fn joined(new: &Charter, record: &v1::CharterRecord) -> Result<(), VerifyError> {
    let mut found = BTreeSet::new();
    for join in &record.joins {
        let signed = wire::signed_text(Some(join.clone()), "a join")?;
        let join: Join = signed
            .parse()
            .map_err(|source| VerifyError::Text("a join".to_owned(), source))?;
        if signed.signer != Signer::Token(join.token.id) {
            return Err(VerifyError::Person("a join".to_owned()));
        }
        super::text(new, &signed, "a join")?;
        found.insert(signed.digest());
    }
    if new.joins.is_subset(&found) {
        Ok(())
    } else {
        Err(VerifyError::Other {
            what: "a join".to_owned(),
            by: "the charter",
        })
    }
}
