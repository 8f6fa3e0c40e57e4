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

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "counts of a few thousand")]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret<32> {
        Secret::from_slice(&[byte; 32]).unwrap()
    }

    fn counting() -> Secret<32> {
        Secret::from_slice(&(0..32).map(|i| 255 - 7 * i).collect::<Vec<u8>>()).unwrap()
    }

    fn theirs(share: &Share) -> sharks::Share {
        let bytes: Vec<u8> = std::iter::once(share.x).chain(*share.y.expose()).collect();
        sharks::Share::try_from(bytes.as_slice()).unwrap()
    }

    #[test]
    fn thresholds() {
        use ThresholdError::{QuorumTooSmall, TooFewHolders, TooManyHolders};
        for (k, n, want) in [
            (2, 2, Ok((2, 2))),
            (2, 64, Ok((2, 64))),
            (64, 64, Ok((64, 64))),
            (0, 3, Err(QuorumTooSmall(0))),
            (1, 3, Err(QuorumTooSmall(1))),
            (3, 2, Err(TooFewHolders { k: 3, n: 2 })),
            (2, 0, Err(TooFewHolders { k: 2, n: 0 })),
            (2, 65, Err(TooManyHolders(65))),
            (2, 258, Err(TooManyHolders(258))),
        ] {
            assert_eq!(
                Threshold::new(k, n).map(|threshold| (threshold.k(), threshold.n())),
                want,
                "{k} of {n}"
            );
        }
    }

    #[test]
    fn shares_have_numbers_1_to_64() {
        for (x, want) in [(0, false), (1, true), (64, true), (65, false), (255, false)] {
            assert_eq!(Share::new(x, secret(0)).is_some(), want, "x = {x}");
        }
    }

    #[test]
    fn any_k_shares_give_the_secret_and_every_other_share() {
        for (k, n) in [(2, 2), (2, 3), (3, 5), (5, 8), (2, 64), (48, 64), (64, 64)] {
            let dealt = deal(&counting(), Threshold::new(k, n.into()).unwrap()).unwrap();
            assert_eq!(
                dealt.iter().map(Share::x).collect::<Vec<_>>(),
                (1..=n).collect::<Vec<_>>()
            );
            for first in [0, usize::from(n - k)] {
                let quorum: Vec<_> = dealt.iter().skip(first).take(k.into()).collect();
                assert!(
                    value_at(0, &quorum).unwrap().same(&counting()),
                    "{k} of {n} from {first}"
                );
                for share in &dealt {
                    assert!(
                        value_at(share.x, &quorum).unwrap().same(&share.y),
                        "{k} of {n}, x = {}",
                        share.x
                    );
                }
            }
            let too_few: Vec<_> = dealt.iter().skip(1).take(usize::from(k) - 1).collect();
            assert!(
                !value_at(0, &too_few).unwrap().same(&counting()),
                "{k} of {n} with one too few"
            );
        }
    }

    #[test]
    fn shares_interchange_with_the_library() {
        for (k, n) in [(2, 3), (3, 5), (7, 9)] {
            let ours = deal(&counting(), Threshold::new(k, n).unwrap()).unwrap();
            let recovered = Sharks(k)
                .recover(&ours.iter().rev().map(theirs).collect::<Vec<_>>())
                .unwrap();
            assert_eq!(
                recovered,
                counting().expose(),
                "the library combines ours, {k} of {n}"
            );

            let dealt: Vec<Share> = Sharks(k)
                .dealer(counting().expose())
                .take(n)
                .map(|share| Vec::from(&share))
                .map(|bytes| {
                    Share::new(bytes[0], Secret::from_slice(&bytes[1..]).unwrap()).unwrap()
                })
                .collect();
            let quorum: Vec<_> = dealt.iter().rev().take(k.into()).collect();
            assert!(
                value_at(0, &quorum).unwrap().same(&counting()),
                "we combine the library's, {k} of {n}"
            );
        }
    }

    /// Invariant 3: our product is the field's, as the library has it in tables.
    #[test]
    fn products_are_those_of_the_field() {
        // With x = 1 and x = 2 the library multiplies by two constants; times() must agree for every byte.
        let [w1, w2] = weights_at(0, &[1, 2]).unwrap()[..] else {
            panic!("two weights")
        };
        assert_eq!((w1, w2), (0xf5, 0xf4), "as the documentation says");
        for a in 0..=255_u8 {
            for b in [0, 1, a.wrapping_mul(3), 255] {
                let shares = [
                    Share::new(1, secret(a)).unwrap(),
                    Share::new(2, secret(b)).unwrap(),
                ];
                let want = Sharks(2)
                    .recover(&shares.iter().map(theirs).collect::<Vec<_>>())
                    .unwrap();
                assert_eq!([times(a, w1) ^ times(b, w2); 32].as_slice(), want);
            }
        }
        for a in 0..=255_u8 {
            assert_eq!(
                (times(a, 0), times(0, a), times(a, 1), times(1, a)),
                (0, 0, a, a)
            );
            for b in 0..=255 {
                assert_eq!(times(a, b), times(b, a));
            }
        }
        assert_eq!(times(0x80, 2), 0x1d, "x⁸ = x⁴ + x³ + x² + 1");
    }

    /// 32,000 samples of a byte are uniform: χ² with 255 degrees of freedom has mean 255 and deviation 22.6, and is outside
    /// of 130 to 420 less than once in 10⁸ runs.
    fn assert_uniform(counts: &[u32; 256], name: &str) {
        let total: u32 = counts.iter().sum();
        let mean = f64::from(total) / 256.0;
        let chi2: f64 = counts
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2) / mean)
            .sum();
        assert!((130.0..420.0).contains(&chi2), "{name}: χ² = {chi2}");
    }

    /// Lib invariant 4. The library's predecessor never gave a share equal to the secret's byte, which a few thousand shares
    /// of one secret reveal.
    #[test]
    fn fewer_than_k_shares_say_nothing() {
        for byte in [0x00, 0x01, 0x5a, 0xff] {
            let (mut one, mut two, mut other) = ([0; 256], [0; 256], [0; 256]);
            for _ in 0..1000 {
                let dealt = deal(&secret(byte), Threshold::new(3, 3).unwrap()).unwrap();
                // What two of three custodians could compute: any line through their points.
                let guess = value_at(0, &[&dealt[0], &dealt[1]]).unwrap();
                for place in 0..32 {
                    one[usize::from(dealt[0].y.expose()[place])] += 1;
                    two[usize::from(guess.expose()[place])] += 1;
                    other[usize::from(dealt[0].y.expose()[place] ^ dealt[1].y.expose()[place])] +=
                        1;
                }
            }
            assert_uniform(&one, &format!("one share of {byte:#04x}"));
            assert_uniform(&two, &format!("two shares of {byte:#04x}"));
            assert_uniform(
                &other,
                &format!("the difference of two shares of {byte:#04x}"),
            );
            let equal = one[usize::from(byte)];
            assert!(
                (50..220).contains(&equal),
                "{equal} of 32,000 shares equal the byte {byte:#04x}; 125 are expected"
            );
        }
    }

    #[test]
    fn no_secret_is_dealt_the_same_way_twice() {
        let threshold = Threshold::new(2, 2).unwrap();
        let [a, b] = [(); 2].map(|()| deal(&secret(1), threshold).unwrap());
        assert!(!a[0].y.same(&b[0].y));
    }
}
