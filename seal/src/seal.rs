//! Sealing a secret to one group, or to two where a fallback group may open it as well.
//!
//! # Invariants
//! 1. Each group gets an identity of its own, made here, split here and wiped here.
//! 2. What [`seal`] returns can be opened: all n shares were checked and combined once, and the result is the identity that the
//!    ciphertext is encrypted to.

use thiserror::Error;

use crate::{
    Binding, CombineError, EncryptError, Holder, NoEntropy, PayloadError, Roster, Secret,
    SecretBytes, ShareIdentity, ShareKey, Sharing, SharingError, commitment, encrypt_to, payload,
    sha256,
    shamir::{self, Share},
};

/// The most groups that one secret is sealed to.
pub const MAX_GROUPS: usize = 2;

/// A sealed secret: nothing in it is secret any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The age file with the secret.
    pub ciphertext: Vec<u8>,
    /// Its SHA-256.
    pub ciphertext_sha256: [u8; 32],
    /// One per roster, in order.
    pub groups: Vec<SealedGroup>,
}

/// What one group was dealt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedGroup {
    /// The group's name.
    pub group: String,
    /// The quorum.
    pub k: u8,
    /// The number of custodians.
    pub n: u8,
    /// One per custodian, in order: the first is x = 1.
    pub shares: Vec<SealedShare>,
}

/// What one custodian was dealt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedShare {
    /// The custodian.
    pub person: String,
    /// The custodian's number, from 1.
    pub x: u8,
    /// The ids of the tokens that open the envelope.
    pub tokens: Vec<String>,
    /// The commitment to the share.
    pub commitment: [u8; 32],
    /// The age file with the share.
    pub envelope: Vec<u8>,
    /// Its SHA-256.
    pub envelope_sha256: [u8; 32],
}

/// Why nothing was sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// No group, too many, or the same twice.
    #[error("a secret is sealed to one group, or to two different ones")]
    Groups,
    /// The system's generator failed.
    #[error("no keys can be made")]
    NoEntropy(#[source] NoEntropy),
    /// The secret was not encrypted.
    #[error("the secret cannot be sealed")]
    Payload(#[source] PayloadError),
    /// An envelope was not encrypted.
    #[error(
        "the envelope of custodian {person} cannot be made; check the share keys of their tokens"
    )]
    Envelope {
        /// The custodian.
        person: String,
        /// Why.
        source: EncryptError,
    },
    /// A roster that is no sharing; cannot happen.
    #[error("the group cannot be sealed to")]
    Sharing(#[source] SharingError),
    /// The shares did not combine again; cannot happen on a sound machine.
    #[error(
        "the shares do not combine to what was split; do not use this machine, check its memory"
    )]
    Unsound(#[source] Option<CombineError>),
}

/// Seals `secret` (1 to 65,536 bytes) to the rosters.
pub fn seal(
    secret: &SecretBytes,
    binding: &Binding,
    rosters: &[Roster],
) -> Result<Sealed, SealError> {
    match rosters {
        [_] => {}
        [one, other] if one.group() != other.group() => {}
        _ => return Err(SealError::Groups),
    }
    let mut keys = Vec::with_capacity(MAX_GROUPS);
    let mut groups = Vec::with_capacity(MAX_GROUPS);
    for roster in rosters {
        let (key, group) = deal(binding, roster)?;
        keys.push(key);
        groups.push(group);
    }
    let ciphertext = payload::encrypt(secret, binding, &keys).map_err(SealError::Payload)?;
    Ok(Sealed {
        ciphertext_sha256: sha256(&ciphertext),
        ciphertext,
        groups,
    })
}

/// Makes an identity, deals it to the roster and forgets it; its public key remains.
fn deal(binding: &Binding, roster: &Roster) -> Result<(ShareKey, SealedGroup), SealError> {
    let identity = Secret::random().map_err(SealError::NoEntropy)?;
    let threshold = roster.threshold();
    let shares = shamir::deal(&identity, threshold).map_err(|_| SealError::Unsound(None))?;
    let commitments = shares
        .iter()
        .map(|share| commitment(binding, roster.group(), share))
        .collect();
    let sharing = Sharing::new(binding.clone(), roster.group(), threshold.k(), commitments)
        .map_err(SealError::Sharing)?;
    let sealed = roster
        .holders()
        .iter()
        .zip(&shares)
        .map(|(holder, share)| enclose(&sharing, holder, share))
        .collect::<Result<_, _>>()?;
    let key = ShareIdentity::from_secret(&identity).share_key();
    prove(&sharing, shares, &key)?;
    let group = SealedGroup {
        group: roster.group().to_owned(),
        k: threshold.k(),
        n: threshold.n(),
        shares: sealed,
    };
    Ok((key, group))
}

/// Encrypts a share to its custodian's tokens.
fn enclose(sharing: &Sharing, holder: &Holder, share: &Share) -> Result<SealedShare, SealError> {
    let keys: Vec<ShareKey> = holder
        .tokens
        .iter()
        .map(|token| token.key.clone())
        .collect();
    let text = sharing.envelope_text(share);
    // Exposed to be encrypted.
    let envelope = encrypt_to(&keys, text.expose()).map_err(|source| SealError::Envelope {
        person: holder.person.clone(),
        source,
    })?;
    Ok(SealedShare {
        person: holder.person.clone(),
        x: share.x(),
        tokens: holder.tokens.iter().map(|token| token.id.clone()).collect(),
        commitment: commitment(sharing.binding(), sharing.group(), share),
        envelope_sha256: sha256(&envelope),
        envelope,
    })
}

/// Invariant 2: the shares combine to the identity that `key` belongs to.
fn prove(sharing: &Sharing, shares: Vec<Share>, key: &ShareKey) -> Result<(), SealError> {
    let valid: Vec<_> = shares
        .into_iter()
        .map(|share| sharing.verify_share(share))
        .collect::<Result<_, _>>()
        .map_err(|_| SealError::Unsound(None))?;
    let combined = sharing
        .combine(&valid.iter().collect::<Vec<_>>())
        .map_err(|error| SealError::Unsound(Some(error)))?;
    if combined.inconsistent.is_empty() && combined.identity.share_key() == *key {
        Ok(())
    } else {
        Err(SealError::Unsound(None))
    }
}

impl SealedGroup {
    /// The facts by which its shares are checked and combined.
    pub fn sharing(&self, binding: &Binding) -> Result<Sharing, SharingError> {
        let commitments = self.shares.iter().map(|share| share.commitment).collect();
        Sharing::new(binding.clone(), &self.group, self.k, commitments)
    }
}
