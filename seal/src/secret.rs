//! Values that must not be seen: boxed, wiped when dropped, compared in constant time.
//!
//! Boxed, because a value that moves leaves copies on the stack. What libraries copy besides is wiped by
//! [`crate::alloc::Wiping`] in the programs that install it.
//!
//! # Invariants
//! 1. Neither type can be printed, cloned, serialised or compared with `==`:
//!
//! ```compile_fail
//! fn prints<T: std::fmt::Debug>() {}
//! prints::<keyturn_seal::Secret<32>>();
//! ```
//! ```compile_fail
//! fn copies<T: Clone>() {}
//! copies::<keyturn_seal::SecretBytes>();
//! ```
//! ```compile_fail
//! fn compares<T: PartialEq>() {}
//! compares::<keyturn_seal::SecretBytes>();
//! ```
//! 2. Bytes are written in place and never grow, so no allocation with a part of them is left behind.

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// The system's generator failed; nothing may be sealed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "the system gives no random numbers; check that getrandom(2) or /dev/urandom is allowed here"
)]
pub struct NoEntropy(#[source] pub(crate) getrandom::Error);

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Fresh bytes of the system's generator.
    pub fn random() -> Result<Self, NoEntropy> {
        let mut secret = Self::zero();
        getrandom::fill(secret.0.as_mut_slice()).map_err(NoEntropy)?;
        Ok(secret)
    }

    /// A copy of `bytes`, which the caller wipes; `None` unless there are exactly `N`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == N).then(|| {
            let mut secret = Self::zero();
            secret.0.copy_from_slice(bytes);
            secret
        })
    }

    /// The bytes. Each use says why.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_ref()).into()
    }

    pub(crate) fn zero() -> Self {
        Self(Box::new([0; N]))
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Secret bytes of any number.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// A copy of `bytes`, which the caller wipes.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes. Each use says why.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without its first `count` bytes, in the same allocation.
    pub(crate) fn without_first(mut self, count: usize) -> Self {
        let count = count.min(self.0.len());
        self.0.drain(..count);
        self
    }

    /// Compares in constant time; the lengths are not secret.
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<Vec<u8>> for SecretBytes {
    /// Takes the bytes over without copying; they are wiped with it.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<String> for SecretBytes {
    /// Takes the text over without copying; it is wiped with it.
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_contents_and_lengths() {
        for (name, a, b, want) in [
            ("the same", &b"abc"[..], &b"abc"[..], true),
            ("last byte", b"abc", b"abd", false),
            ("prefix", b"abc", b"ab", false),
            ("both empty", b"", b"", true),
        ] {
            let (a, b) = (SecretBytes::from_slice(a), SecretBytes::from_slice(b));
            assert_eq!(a.same(&b), want, "{name}");
        }
        let [a, b] = [[1; 32], [2; 32]].map(|bytes| Secret::<32>::from_slice(&bytes).unwrap());
        assert!(a.same(&a) && !a.same(&b));
    }

    #[test]
    fn has_exactly_n_bytes() {
        for (length, want) in [(0, false), (31, false), (32, true), (33, false)] {
            assert_eq!(
                Secret::<32>::from_slice(&vec![0; length]).is_some(),
                want,
                "{length}"
            );
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (a, b) = (
            Secret::<32>::random().unwrap(),
            Secret::<32>::random().unwrap(),
        );
        assert!(!a.same(&b) && !a.same(&Secret::zero()));
    }

    #[test]
    fn taking_over_does_not_copy() {
        let bytes = vec![7; 100];
        let before = bytes.as_ptr();
        assert_eq!(SecretBytes::from(bytes).expose().as_ptr(), before);
    }
}
