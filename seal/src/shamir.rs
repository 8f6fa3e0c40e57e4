//! Shamir's secret sharing over GF(256): the only file that knows the library.
//!
//! # The arithmetic, for recovering without this program
//!
//! Bytes are polynomials over GF(2) modulo x⁸ + x⁴ + x³ + x² + 1 (0x11d; not AES's 0x11b). Adding and subtracting are XOR.
//! Multiplying: go through the bits of one factor from the highest; double the result (shift left; if a bit falls out, XOR
//! 0x1d), and XOR the other factor where the bit is 1. Dividing by b is multiplying by b²⁵⁴.
//!
//! Each of the secret's 32 bytes is split by itself. The share of custodian x (1 ≤ x ≤ n) holds the 32 bytes f₁(x) … f₃₂(x);
//! each f has degree k − 1, random coefficients, and the secret's byte as f(0). From k shares, for each byte:
//!
//! ```text
//! secret = XOR over shares i of  yᵢ · wᵢ        wᵢ = product over the other shares j of  xⱼ / (xⱼ XOR xᵢ)
//! ```
//! For custodians 1 and 2: w₁ = 2 / (2 XOR 1) = 2 / 3 = 0xf5 and w₂ = 1 / (1 XOR 2) = 1 / 3 = 0xf4. The 32 bytes, in bech32 as
//! `AGE-SECRET-KEY-1…`, are the identity that the ciphertext is encrypted to. `testdata/oracle.py` does all of it.
//!
//! # Invariants
//! 1. 2 ≤ k ≤ n ≤ 64: with k < 2 the library would hand out the secret itself.
//! 2. 1 ≤ x ≤ 64 and no x twice in one combination: the library answers both with a wrong secret.
//! 3. Combining depends on secrets in no branch and no look-up. The library looks up tables, so it is given only public x
//!    values, to compute the weights w; the products with secret bytes are ours. Dealing, once per secret, is the library's.

use getrandom::{SysRng, rand_core::UnwrapErr};
use sharks::Sharks;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Secret;

/// The smallest quorum.
pub const MIN_QUORUM: u8 = 2;
/// The largest number of custodians in a group.
pub const MAX_HOLDERS: u8 = 64;

/// k of n: 2 ≤ k ≤ n ≤ 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    k: u8,
    n: u8,
}

/// Why k of n is no threshold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThresholdError {
    /// One person could open it alone.
    #[error("a quorum of {0} is not allowed; at least two custodians must open together")]
    QuorumTooSmall(u8),
    /// Nobody could ever open it.
    #[error("a quorum of {k} cannot be reached with {n} custodians; add custodians or lower it")]
    TooFewHolders {
        /// The quorum.
        k: u8,
        /// The number of custodians.
        n: usize,
    },
    /// More than the bound.
    #[error("{0} custodians are too many; a group has at most {MAX_HOLDERS}")]
    TooManyHolders(usize),
}

impl Threshold {
    /// Parses k of n.
    pub fn new(k: u8, n: usize) -> Result<Self, ThresholdError> {
        match u8::try_from(n) {
            Err(_) => Err(ThresholdError::TooManyHolders(n)),
            Ok(n_small) if n_small > MAX_HOLDERS => Err(ThresholdError::TooManyHolders(n)),
            Ok(_) if k < MIN_QUORUM => Err(ThresholdError::QuorumTooSmall(k)),
            Ok(n_small) if n_small < k => Err(ThresholdError::TooFewHolders { k, n }),
            Ok(n) => Ok(Self { k, n }),
        }
    }

    /// The quorum.
    pub fn k(self) -> u8 {
        self.k
    }

    /// The number of custodians.
    pub fn n(self) -> u8 {
        self.n
    }
}

/// One share: a point (x, y) with 1 ≤ x ≤ 64 and 32 secret bytes y. It has its form; whether it was dealt, only its
/// commitment tells.
pub struct Share {
    x: u8,
    y: Secret<32>,
}

impl Share {
    /// A share of custodian `x`; `None` unless 1 ≤ x ≤ 64.
    pub fn new(x: u8, y: Secret<32>) -> Option<Self> {
        (1..=MAX_HOLDERS).contains(&x).then_some(Self { x, y })
    }

    /// The custodian's number, from 1.
    pub fn x(&self) -> u8 {
        self.x
    }

    /// The share's bytes.
    pub fn secret(&self) -> &Secret<32> {
        &self.y
    }
}

/// The library refused what this module promises never to ask.
#[derive(Debug)]
pub(crate) struct Unexpected;

/// Deals the n shares of `secret`, those of custodians 1 to n in order.
pub(crate) fn deal(secret: &Secret<32>, threshold: Threshold) -> Result<Vec<Share>, Unexpected> {
    let mut rng = UnwrapErr(SysRng);
    // Invariant 1 holds for every `Threshold`.
    let dealer = Sharks(threshold.k).dealer_rng(secret.expose(), &mut rng);
    dealer
        .take(threshold.n.into())
        .map(|dealt| {
            let bytes = Zeroizing::new(Vec::from(&dealt));
            let (&x, y) = bytes.split_first().ok_or(Unexpected)?;
            Share::new(x, Secret::from_slice(y).ok_or(Unexpected)?).ok_or(Unexpected)
        })
        .collect()
}

/// The value at `x` of the polynomials through `shares`, whose x are different: the secret at 0, custodian x's share at x.
pub(crate) fn value_at(x: u8, shares: &[&Share]) -> Result<Secret<32>, Unexpected> {
    let mut sum = Secret::zero();
    if let Some(given) = shares.iter().find(|share| share.x == x) {
        sum.expose_mut().copy_from_slice(given.y.expose());
        return Ok(sum);
    }
    let xs: Vec<u8> = shares.iter().map(|share| share.x).collect();
    for (share, weight) in shares.iter().zip(weights_at(x, &xs)?) {
        for (sum, y) in sum.expose_mut().iter_mut().zip(share.y.expose()) {
            *sum ^= times(*y, weight);
        }
    }
    Ok(sum)
}

/// The weights that give a polynomial's value at `at`, none of `xs`, from its values at `xs`.
///
/// The library interpolates at 0 only. With g(z) = f(z + at) the value wanted is g(0), and the points are z = x + at, which
/// is x XOR at. Given the i-th unit vector as the "share" of point i, what it recovers is the vector of weights.
fn weights_at(at: u8, xs: &[u8]) -> Result<Vec<u8>, Unexpected> {
    let k = u8::try_from(xs.len()).map_err(|_| Unexpected)?;
    let units: Vec<sharks::Share> = xs
        .iter()
        .map(|x| {
            let unit = xs.iter().map(|other| u8::from(other == x));
            let point: Vec<u8> = std::iter::once(x ^ at).chain(unit).collect();
            sharks::Share::try_from(point.as_slice()).map_err(|_| Unexpected)
        })
        .collect::<Result<_, _>>()?;
    Sharks(k).recover(&units).map_err(|_| Unexpected)
}

/// The product in GF(256), without branches or look-ups that depend on `secret`.
fn times(secret: u8, weight: u8) -> u8 {
    (0..8).rev().fold(0, |product, bit| {
        let doubled = (product << 1) ^ (0x1d & mask(product >> 7));
        doubled ^ (secret & mask((weight >> bit) & 1))
    })
}

/// 0 → 0x00, 1 → 0xff.
fn mask(bit: u8) -> u8 {
    bit.wrapping_neg()
}
