//! What a charter says of tokens, asked of their maker: attestations, judged with roots of our own.
//!
//! The daemon asks the same before it takes a token in. Here its answer is not believed.

use keyturn_hsm::attestation::{Anchors, AttestationError, Written, prove_object};
use keyturn_vault::{
    charter::{Attestation, Token},
    digest::Digest,
};

use super::VerifyError;

/// The facts of a token that its maker attests in this object; the token's own are not looked at.
pub fn facts(anchors: &Anchors, token: &Token, object: &[u8]) -> Result<Attestation, VerifyError> {
    maker(anchors, token, object).map_err(|source| VerifyError::Attestation {
        token: token.reference().to_string(),
        source,
    })
}

/// Checks what a charter says of a token.
pub fn check(anchors: &Anchors, token: &Token, object: &[u8]) -> Result<(), VerifyError> {
    let facts = facts(anchors, token, object)?;
    if token.attestation.as_ref() == Some(&facts) {
        Ok(())
    } else {
        Err(VerifyError::Other {
            what: format!("what the charter says of token {}", token.reference()),
            by: "its maker's attestation",
        })
    }
}

fn maker(anchors: &Anchors, token: &Token, object: &[u8]) -> Result<Attestation, AttestationError> {
    let format = || AttestationError::Format;
    let written = Written {
        approval: token.approval_key.as_der(),
        share: token.share_key.as_str(),
        serial: token.serial.ok_or_else(format)?,
    };
    let proven = prove_object(object, anchors, written)?;
    let firmware = proven.approval.firmware;
    let policies = (proven.approval.policy(), proven.share.policy());
    let firmware = (firmware.0, firmware.1, firmware.2);
    Attestation::of(Digest::of(object), firmware, policies.0, policies.1).ok_or_else(format)
}
