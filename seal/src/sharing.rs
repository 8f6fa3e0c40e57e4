//! One version as it was dealt to one group: the public facts by which shares are checked and combined.
//!
//! # Invariants
//! 1. A [`ValidShare`] matches the commitment of its place; nothing else can make one.
//! 2. [`Sharing::combine`] takes k different shares of this very sharing.
//! 3. What the polynomial gives for all n custodians is compared with all n commitments afterwards: a sealer that dealt shares
//!    of different polynomials is found out at the first opening.

use subtle::ConstantTimeEq as _;
use thiserror::Error;

use crate::{
    Binding, Secret, ShareIdentity, Threshold, ThresholdError, commitment,
    shamir::{self, Share},
    text::is_name,
};

/// The facts of a manifest about one group: k, and the commitments of custodians 1 to n in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    binding: Binding,
    group: String,
    threshold: Threshold,
    commitments: Vec<[u8; 32]>,
}

/// Why these facts are none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharingError {
    /// The group's name.
    #[error("the group's name must have 1 to 500 printable ASCII characters and no space")]
    Group,
    /// k of n.
    #[error("the group's quorum is not possible; the manifest is wrong")]
    Threshold(#[source] ThresholdError),
}

/// A share that is what was sealed: it matches its commitment.
pub struct ValidShare {
    share: Share,
    commitment: [u8; 32],
}

/// Why a share is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareError {
    /// There is no such custodian.
    #[error("there is no share x{x} among {n} custodians; take x from the manifest")]
    UnknownPlace {
        /// The number given.
        x: u8,
        /// The number of custodians.
        n: u8,
    },
    /// Altered, of another version, or of somebody else.
    #[error(
        "share x{0} is not what was sealed; its custodian must open the envelope of exactly this version again"
    )]
    NotAsSealed(u8),
}

/// Why shares do not combine. Nothing was computed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CombineError {
    /// No quorum.
    #[error("{have} valid shares are too few; {need} custodians must submit theirs")]
    TooFew {
        /// Shares given.
        have: usize,
        /// The quorum.
        need: u8,
    },
    /// The same custodian twice.
    #[error("share x{0} was given twice; another custodian's is needed")]
    Repeated(u8),
    /// A valid share of another version, credential, group or vault.
    #[error(
        "share x{0} belongs to another version or group; its custodian must submit the one for this"
    )]
    Foreign(u8),
    /// Cannot happen.
    #[error(
        "the secret-sharing library refused valid shares; report this and use the manual recovery"
    )]
    Library,
}

/// A combined secret.
pub struct Combined {
    /// What the ciphertext was encrypted to.
    pub identity: ShareIdentity,
    /// Custodians whose commitment is not that of the share which the polynomial gives for them: the sealing was faulty. Their
    /// shares will not help; seal anew soon. Empty if all is well.
    pub inconsistent: Vec<u8>,
}

impl Sharing {
    /// Parses the facts. `commitments` are those of custodians 1 to n in order.
    pub fn new(
        binding: Binding,
        group: &str,
        k: u8,
        commitments: Vec<[u8; 32]>,
    ) -> Result<Self, SharingError> {
        if !is_name(group) {
            return Err(SharingError::Group);
        }
        let threshold = Threshold::new(k, commitments.len()).map_err(SharingError::Threshold)?;
        Ok(Self {
            binding,
            group: group.to_owned(),
            threshold,
            commitments,
        })
    }

    /// What is sealed.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The group it is sealed to.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// k of n.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The commitment of custodian `x`.
    pub fn commitment(&self, x: u8) -> Option<&[u8; 32]> {
        usize::from(x)
            .checked_sub(1)
            .and_then(|place| self.commitments.get(place))
    }

    /// Checks the share that somebody submits as custodian `x`'s.
    pub fn verify(&self, x: u8, share: Secret<32>) -> Result<ValidShare, ShareError> {
        let unknown = ShareError::UnknownPlace {
            x,
            n: self.threshold.n(),
        };
        self.verify_share(Share::new(x, share).ok_or(unknown)?)
    }

    pub(crate) fn verify_share(&self, share: Share) -> Result<ValidShare, ShareError> {
        let x = share.x();
        let expected = self.commitment(x).ok_or(ShareError::UnknownPlace {
            x,
            n: self.threshold.n(),
        })?;
        let commitment = commitment(&self.binding, &self.group, &share);
        if bool::from(commitment.ct_eq(expected)) {
            Ok(ValidShare { share, commitment })
        } else {
            Err(ShareError::NotAsSealed(x))
        }
    }

    /// Combines at least k shares of different custodians, then checks all n places.
    pub fn combine(&self, shares: &[&ValidShare]) -> Result<Combined, CombineError> {
        let k = self.threshold.k();
        for (place, share) in shares.iter().enumerate() {
            if self.commitment(share.x()) != Some(&share.commitment) {
                return Err(CombineError::Foreign(share.x()));
            }
            if shares
                .iter()
                .take(place)
                .any(|earlier| earlier.x() == share.x())
            {
                return Err(CombineError::Repeated(share.x()));
            }
        }
        let quorum: Vec<&Share> = shares
            .iter()
            .take(k.into())
            .map(|valid| &valid.share)
            .collect();
        if quorum.len() < k.into() {
            return Err(CombineError::TooFew {
                have: quorum.len(),
                need: k,
            });
        }
        let secret = shamir::value_at(0, &quorum).map_err(|_| CombineError::Library)?;
        Ok(Combined {
            identity: ShareIdentity::from_secret(&secret),
            inconsistent: self.inconsistent(&quorum)?,
        })
    }

    fn inconsistent(&self, quorum: &[&Share]) -> Result<Vec<u8>, CombineError> {
        let mut inconsistent = Vec::new();
        for x in 1..=self.threshold.n() {
            if quorum.iter().any(|share| share.x() == x) {
                continue; // It is on the polynomial, and `verify` compared its commitment.
            }
            let share = shamir::value_at(x, quorum).map_err(|_| CombineError::Library)?;
            if self.verify(x, share).is_err() {
                inconsistent.push(x);
            }
        }
        Ok(inconsistent)
    }
}

impl ValidShare {
    /// The custodian's number, from 1.
    pub fn x(&self) -> u8 {
        self.share.x()
    }

    /// The commitment that it matches.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// The share's bytes, to submit them encrypted.
    pub fn secret(&self) -> &Secret<32> {
        self.share.secret()
    }
}
