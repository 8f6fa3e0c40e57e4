//! Signatures, verified on the task of whoever asks, so that the owner has only to compare.
//!
//! # Invariants
//! 1. A [`Verified`] text was checked with exactly the key that it carries; the owner compares that key
//!    with the one that the charter in force has at the moment of the step.

use keyturn_hsm::approval::ApprovalKey;
use keyturn_vault::{
    charter::{Chain, Charter},
    check::{self, Check},
    digest::Digest,
    event::Maker,
    id::{PersonId, TokenId},
    key::PublicKey,
    reference::Signer,
    text::SignedText,
};

use crate::refusal::Refused;

/// A text whose signature is good under `key`.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The text with its signature.
    pub signed: SignedText,
    /// The key it was checked with.
    pub key: PublicKey,
}

/// A document whose signature is good under `key`.
#[derive(Clone, Debug)]
pub struct VerifiedDocument {
    /// Its digest.
    pub digest: Digest,
    /// Who signed.
    pub signer: Signer,
    /// DER.
    pub signature: Vec<u8>,
    /// The key it was checked with.
    pub key: PublicKey,
}

/// Verifies a text with the key that the charter has for its signer.
pub fn text(charter: &Charter, signed: SignedText) -> Result<Verified, Refused> {
    let key = check::key(charter, signed.signer).ok_or(Refused::UnknownSigner)?;
    text_with(key, signed)
}

/// The same for a text that this person says they signed, with a token or device of their own.
pub fn text_by(
    charter: &Charter,
    signed: SignedText,
    person: PersonId,
) -> Result<Verified, Refused> {
    if signer(charter, signed.signer) == Some(person) {
        text(charter, signed)
    } else {
        Err(Refused::Denied(
            "it is not signed by the person whom it names",
        ))
    }
}

/// The same for a text that names the token that signed it.
pub fn text_by_token(
    charter: &Charter,
    signed: SignedText,
    token: TokenId,
) -> Result<Verified, Refused> {
    if signed.signer == Signer::Token(token) {
        text(charter, signed)
    } else {
        Err(Refused::Denied(
            "it is not signed by the token that it names",
        ))
    }
}

/// Who made a version, by whose key signed its manifest: a node seals what a rotation made.
pub fn maker(chain: &Chain, signed_by: Signer) -> Maker {
    let person = chain.all().find_map(|charter| signer(charter, signed_by));
    person.map_or(Maker::Rotation, Maker::Deposit)
}

/// Whose token or device this is.
pub fn signer(charter: &Charter, signer: Signer) -> Option<PersonId> {
    let person = match signer {
        Signer::Token(id) => charter.person_of_token(id).map(|(person, _)| person),
        Signer::Device(id) => charter.person_of_device(id).map(|(person, _)| person),
        Signer::Node(_) => None,
    };
    person.map(|person| person.id)
}

/// Verifies a text with a key that it brings itself, for somebody who is in no charter yet.
pub fn text_with(key: PublicKey, signed: SignedText) -> Result<Verified, Refused> {
    verify(&key, signed.text.as_bytes(), &signed.signature)?;
    Ok(Verified { signed, key })
}

/// Verifies a document with the key that the charter has for its signer.
pub fn document(
    charter: &Charter,
    bytes: &[u8],
    signer: Signer,
    signature: Vec<u8>,
) -> Result<VerifiedDocument, Refused> {
    let key = check::key(charter, signer).ok_or(Refused::UnknownSigner)?;
    verify(&key, bytes, &signature)?;
    Ok(VerifiedDocument {
        digest: Digest::of(bytes),
        signer,
        signature,
        key,
    })
}

/// Verifies a signature (ECDSA P-256 over SHA-256, DER).
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), Refused> {
    let key = ApprovalKey::from_spki(key.as_der()).map_err(|_| Refused::BadSignature)?;
    key.verify(message, signature)
        .map_err(|_| Refused::BadSignature)
}

/// Whether a signature over a text holds; any other check is not this function's to perform.
pub fn holds(check: &Check) -> bool {
    match check {
        Check::Text { key, signed } => {
            verify(key, signed.text.as_bytes(), &signed.signature).is_ok()
        }
        Check::Commitment { .. }
        | Check::Document { .. }
        | Check::Attestation { .. }
        | Check::NoKey { .. }
        | Check::Details(_)
        | Check::Head(_) => false,
    }
}

impl Verified {
    /// Whether this is what the machine wants checked.
    pub fn holds(&self, check: &Check) -> Result<(), Refused> {
        match check {
            Check::Text { key, signed } if *key == self.key && *signed == self.signed => Ok(()),
            // The charter changed between the handler and the step, or the text names another signer.
            Check::Text { .. } | Check::NoKey { .. } => Err(Refused::UnknownSigner),
            // Shares are compared where they enter; documents and attestations are not the text's business.
            Check::Commitment { .. }
            | Check::Document { .. }
            | Check::Attestation { .. }
            | Check::Details(_)
            | Check::Head(_) => Ok(()),
        }
    }
}
