//! Attestations of tokens: whether what an enrolment or a charter says of a token is what its maker says.
//!
//! Clients and auditors ask the same again with roots of their own; a daemon that lies here is found out. What
//! policies demand of true facts is the charter's business ([`keyturn_vault::charter::demand`]).
//!
//! # Invariants
//! 1. Facts get into a charter only with the object that proves them in the store.
//! 2. A check that fails keeps new tokens out and locks out nobody who is in: at the start it is told, no more.

use std::{fs, io, path::Path};

use keyturn_hsm::attestation::{
    ANCHORS_FILE_MAX, Anchors, AnchorsError, AttestationError, Written, prove_object,
};
use keyturn_vault::{
    charter::{Attestation, Charter, Token},
    check::Check,
    digest::Digest,
};
use thiserror::Error;

use crate::{refusal::Refused, rows::object, store::Store};

/// Why the roots of attestations cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read it")]
    File(#[from] io::Error),
    /// The file is none of roots.
    #[error(transparent)]
    Anchors(#[from] AnchorsError),
}

/// The roots in this file, or Yubico's, which are built in.
pub fn roots(file: Option<&Path>) -> Result<Anchors, RootsError> {
    let Some(file) = file else {
        return Ok(Anchors::yubico()?);
    };
    let most = u64::try_from(ANCHORS_FILE_MAX).unwrap_or(u64::MAX);
    if fs::metadata(file)?.len() > most {
        return Err(AnchorsError::Long.into());
    }
    Ok(Anchors::from_file(&fs::read_to_string(file)?)?)
}

/// The same for a daemon that is to serve whatever happens (invariant 2).
pub fn roots_or_nobody(file: Option<&Path>) -> Anchors {
    roots(file).unwrap_or_else(|error| {
        let why = crate::telemetry::whole(&error);
        tracing::error!(%why, "`attestation.roots` cannot be used: no new token will be believed");
        Anchors::nobody()
    })
}

/// Why an attestation does not hold.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unproven {
    /// Its maker does not say it.
    #[error(transparent)]
    Maker(#[from] AttestationError),
    /// It is of a key file.
    #[error("a key file cannot be attested")]
    KeyFile,
    /// The object is not there.
    #[error(
        "the attestation {0} is not in this vault; invite its owner again with their enrolment file"
    )]
    Lost(Digest),
    /// The charter says something else.
    #[error("the charter has other facts of it than its maker attests")]
    OtherFacts,
}

/// The facts of a token that its maker attests in this object; the token's own are not looked at.
pub fn facts(anchors: &Anchors, token: &Token, object: &[u8]) -> Result<Attestation, Unproven> {
    let written = Written {
        approval: token.approval_key.as_der(),
        share: token.share_key.as_str(),
        serial: token.serial.ok_or(Unproven::KeyFile)?,
    };
    let proven = prove_object(object, anchors, written)?;
    let firmware = proven.approval.firmware;
    let policies = (proven.approval.policy(), proven.share.policy());
    let firmware = (firmware.0, firmware.1, firmware.2);
    Attestation::of(Digest::of(object), firmware, policies.0, policies.1)
        .ok_or(Unproven::Maker(AttestationError::Format))
}

/// Checks what a charter says of a token (invariant 1).
pub async fn check(anchors: &Anchors, store: &dyn Store, token: &Token) -> Result<(), Unproven> {
    let Some(said) = &token.attestation else {
        return Ok(());
    };
    let lost = |_: Refused| Unproven::Lost(said.object);
    let object = object(store, said.object).await.map_err(lost)?;
    if facts(anchors, token, &object)? == *said {
        Ok(())
    } else {
        Err(Unproven::OtherFacts)
    }
}

/// The tokens whose attestations a charter brings, after `old`, and that do not hold.
pub async fn unproven(
    anchors: &Anchors,
    store: &dyn Store,
    charter: &Charter,
    old: Option<&Charter>,
) -> Vec<(Token, Unproven)> {
    let mut found = Vec::new();
    for brought in Check::attestations(charter, old) {
        if let Check::Attestation { token } = brought
            && let Err(why) = check(anchors, store, &token).await
        {
            found.push((*token, why));
        }
    }
    found
}
