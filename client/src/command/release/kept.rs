//! A request as its home keeps it: what was asked, and the key to which the secret comes.
//!
//! # Invariants
//! 1. The key lies in the home encrypted to the requester's token, and is removed at check-in.

use std::collections::BTreeMap;

use keyturn_seal::{SecretBytes, ShareIdentity, ShareKey, encrypt_to};
use keyturn_vault::{
    charter::Person,
    file::Blob,
    id::{CeremonyId, CredentialId},
    text::SignedText,
};
use serde::{Deserialize, Serialize};

use crate::{causes::told, command::Context, home::Home, refusal::Refusal, verify::VerifyError};

/// A request of this person, as the home keeps it until check-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The request.
    pub request: SignedText,
    /// Which version of a credential was current.
    pub current: BTreeMap<CredentialId, u64>,
    /// The key that the secret is delivered to: an age file for the token, or, without a token, as it is.
    pub key: Blob,
    /// Whether the key is an age file.
    pub sealed: bool,
}

fn name(ceremony: CeremonyId) -> String {
    format!("requests/{ceremony}")
}

/// Keeps a request and its key (invariant 1), encrypted to the person's tokens where there are any.
pub fn keep(
    home: &Home,
    to: &[ShareKey],
    request: &SignedText,
    ceremony: CeremonyId,
    current: BTreeMap<CredentialId, u64>,
    key: &ShareIdentity,
) -> Result<(), Refusal> {
    // Exposed to be encrypted, or to the file of a person without a token.
    let text = key.to_text();
    let failed =
        |error: &dyn std::error::Error| Refusal::new("internal", told(error), "report this");
    let sealed = !to.is_empty();
    let key = if sealed {
        encrypt_to(to, text.expose()).map_err(|error| failed(&error))?
    } else {
        text.expose().to_vec()
    };
    let kept = Kept {
        request: request.clone(),
        current,
        key: Blob(key),
        sealed,
    };
    Ok(home.write_json(&name(ceremony), &kept)?)
}

/// The share keys of a person's tokens.
pub fn share_keys(person: &Person) -> Vec<ShareKey> {
    let keys = person
        .tokens
        .iter()
        .map(|token| token.share_key.as_str().parse());
    keys.filter_map(Result::ok).collect()
}

/// A request that was kept.
pub fn kept(home: &Home, ceremony: CeremonyId) -> Result<Kept, Refusal> {
    let kept = home.read_json(&name(ceremony))?;
    kept.ok_or_else(|| {
        Refusal::new(
            "not-found",
            format_args!("this home keeps nothing of {ceremony}"),
            "use the home with which it was requested; what was returned or withdrawn is kept no longer",
        )
    })
}

/// Forgets a request and its key.
pub fn forget(home: &Home, ceremony: CeremonyId) -> Result<(), Refusal> {
    Ok(home.forget(&name(ceremony))?)
}

impl Kept {
    /// The key that the secret is delivered to.
    pub fn identity(&self, context: &mut Context) -> Result<ShareIdentity, Refusal> {
        let text = if self.sealed {
            let profile = context.home.profile()?;
            let mut opened = context.token(&profile)?;
            let text = opened
                .token
                .open_shares(&[&self.key.0], &mut context.person)
                .into_iter()
                .next();
            text.ok_or(VerifyError::Missing("the key of the request"))??
        } else {
            SecretBytes::from_slice(&self.key.0)
        };
        // Exposed to its parser.
        let text = std::str::from_utf8(text.expose()).ok();
        let identity = text.and_then(|text| ShareIdentity::parse(text).ok());
        Ok(identity.ok_or(VerifyError::Missing("the key of the request"))?)
    }
}
