//! The charter's chain, each change with the signatures of those who agreed to it.

use std::collections::BTreeSet;

use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Chain, Charter, touched_groups},
    digest::Digest,
    jcs::Document as _,
    reference::{CharterRef, Signer},
    text::{Change, Join, Purpose},
};

use super::{
    VerifyError,
    agreement::{Claim, Record},
};
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
    let in_force = chain
        .newest()
        .ok_or(VerifyError::Missing("the first charter"))?;
    let new = Charter::from_bytes(&record.charter)
        .map_err(|source| VerifyError::Document("the charter", source))?;
    agreed(chain, in_force, &new, &record)?;
    joined(&new, &record)?;
    push(chain, &record.charter)?;
    Ok(record.charter)
}

/// The governing group and every group that the change touches agreed, as the old charter has them.
fn agreed(
    chain: &Chain,
    in_force: (CharterRef, &Charter),
    new: &Charter,
    record: &v1::CharterRecord,
) -> Result<(), VerifyError> {
    let (old_ref, old) = in_force;
    let mut needs = touched_groups(old, new);
    needs.extend(old.governing().map(|group| group.name.clone()));
    let claim = Claim {
        what: format!("charter {}", new.index),
        purpose: Purpose::Change(Change::Charter(CharterRef {
            index: new.index,
            digest: Digest::of(&record.charter),
        })),
        in_force,
        needs,
    };
    let record = Record {
        request: record.request.clone(),
        statements: record.approvals.clone(),
    };
    // A change is made for one charter, and is stale after any other.
    if claim.check(chain, &record)?.charter == old_ref {
        Ok(())
    } else {
        Err(VerifyError::Other {
            what: claim.what,
            by: "its request",
        })
    }
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
