//! Accepted restores: the only way in which keys of the log and of nodes are replaced without them.
//!
//! # Invariants
//! 1. A restore counts when k of the governing group of the newest charter that this computer has verified
//!    signed an approval of a signed request that names the document by its digest.
//! 2. A restore under an older charter, or for another vault, is none.

use keyturn_proto::v1;
use keyturn_vault::{
    change,
    charter::Chain,
    jcs::Document as _,
    restore::RestoreDocument,
    text::{Purpose, SignedText},
};
use serde::{Deserialize, Serialize};

use super::{
    VerifyError,
    agreement::{self, Claim},
    wire,
};

/// An accepted restore with the signatures that put it in force, as a home keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    document: String,
    request: SignedText,
    approvals: Vec<SignedText>,
}

impl Record {
    /// As the daemon tells it.
    pub fn read(record: v1::RestoreRecord) -> Result<Self, VerifyError> {
        let document = String::from_utf8(record.document);
        let approvals = record.approvals.into_iter();
        Ok(Self {
            document: document.map_err(|_| VerifyError::Missing("a restore document"))?,
            request: wire::signed_text(record.request, "the request of a restore")?,
            approvals: approvals
                .map(|approval| wire::signed_text(Some(approval), "an approval"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The document, not verified.
    pub fn document(&self) -> Result<RestoreDocument, VerifyError> {
        RestoreDocument::from_bytes(self.document.as_bytes())
            .map_err(|source| VerifyError::Document("the restore document", source))
    }
}

/// Puts the keys of a restore in force, having checked that those agreed who must (invariant 1).
pub fn accept(chain: &mut Chain, record: &Record) -> Result<RestoreDocument, VerifyError> {
    let document = record.document()?;
    let in_force = chain
        .newest()
        .ok_or(VerifyError::Missing("the first charter"))?;
    let (reference, charter) = in_force;
    let subject = document
        .subject()
        .map_err(|source| VerifyError::Document("the restore document", source))?;
    let claim = Claim {
        what: "the restore".to_owned(),
        purpose: Purpose::AcceptRestore(subject),
        in_force,
        needs: change::governing(charter),
    };
    let agreed = agreement::Record {
        request: Some(wire::wire_text(&record.request)),
        statements: record.approvals.iter().map(wire::wire_text).collect(),
    };
    let request = claim.check(chain, &agreed)?;
    if request.charter != reference || document.charter != reference {
        return Err(VerifyError::Other {
            what: claim.what,
            by: "its request",
        });
    }
    chain
        .restore(&document)
        .map_err(|source| VerifyError::Chain {
            index: reference.index,
            source,
        })?;
    Ok(document)
}
