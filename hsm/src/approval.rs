//! Approval keys and the signatures of persons and nodes: ECDSA on P-256 over SHA-256.
//!
//! What is checked here is exactly what an auditor checks with
//! `openssl dgst -sha256 -verify key.pem -signature signature.der statement.txt`.
//!
//! # Invariants
//! 1. An [`ApprovalKey`] is a point on P-256, held in the one encoding that we accept: a `SubjectPublicKeyInfo`
//!    with the named curve and the uncompressed point, 91 bytes. Equal keys are equal bytes.
//! 2. A signature is strict DER (X.690): one byte changed, added or spelled otherwise is refused. Tokens do not
//!    normalise `s`, so two signatures can exist for one text; a signature is never used as an identity.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey, UnparsedPublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use crate::pem;

/// Length of the accepted `SubjectPublicKeyInfo`, in bytes.
pub const SPKI_LEN: usize = 91;
/// Length of an uncompressed point, in bytes.
pub const POINT_LEN: usize = 65;
/// Longest DER signature: two integers of 33 bytes.
pub const SIGNATURE_MAX: usize = 72;

/// RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 65 bytes }.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why bytes are not an approval key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the one encoding we accept.
    #[error("not a P-256 public key as an uncompressed SubjectPublicKeyInfo of 91 bytes")]
    Encoding,
    /// The encoding is right, the point is none of the curve's.
    #[error("the public key is not a point on P-256")]
    Point,
}

/// A signature that does not hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the signature is not one of this key over this text")]
pub struct BadSignature;

/// The public key of a person's token or device, or of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalKey([u8; SPKI_LEN]);

impl ApprovalKey {
    /// Parses the DER of a `SubjectPublicKeyInfo`.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; SPKI_LEN] = spki.try_into().map_err(|_| KeyError::Encoding)?;
        let point = bytes.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Encoding)?;
        if point.first() != Some(&0x04) {
            return Err(KeyError::Encoding);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| KeyError::Point)?;
        Ok(Self(bytes))
    }

    /// Makes the key from an uncompressed SEC 1 point of 65 bytes.
    pub fn from_point(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != POINT_LEN {
            return Err(KeyError::Encoding);
        }
        Self::from_spki(&[SPKI_PREFIX.as_slice(), point].concat())
    }

    /// The DER of the `SubjectPublicKeyInfo`, 91 bytes.
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// The uncompressed SEC 1 point, 65 bytes.
    pub fn point(&self) -> &[u8] {
        self.0.strip_prefix(&SPKI_PREFIX).unwrap_or_default()
    }

    /// The key as `openssl` reads it.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.0)
    }

    /// Checks a DER signature over `text`.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if signature.len() > SIGNATURE_MAX {
            return Err(BadSignature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point())
            .verify(text, signature)
            .map_err(|_| BadSignature)
    }
}

/// Checks a signature by the key's `SubjectPublicKeyInfo`.
pub fn verify(spki: &[u8], text: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    ApprovalKey::from_spki(spki)
        .map_err(|_| BadSignature)?
        .verify(text, signature)
}

/// Standard base64 of the `SubjectPublicKeyInfo`, as in the charter.
impl fmt::Display for ApprovalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ApprovalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApprovalKey({self})")
    }
}

impl FromStr for ApprovalKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let spki = BASE64_STANDARD
            .decode(text)
            .map_err(|_| KeyError::Encoding)?;
        Self::from_spki(&spki)
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "numbers of the tests' own choice"
)]
mod tests {
    use super::*;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
    };

    const TEXT: &[u8] = b"keyturn approval v1\n";

    fn pair() -> (EcdsaKeyPair, ApprovalKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let key = ApprovalKey::from_point(pair.public_key().as_ref()).unwrap();
        (pair, key)
    }

    /// (r, s) of a DER signature, without leading zeros.
    fn numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let r_len = usize::from(der[3]);
        let strip = |n: &[u8]| n.iter().copied().skip_while(|b| *b == 0).collect();
        (strip(&der[4..4 + r_len]), strip(&der[6 + r_len..]))
    }

    /// Puts a signature together, with as many zeros before `r` as told.
    fn der(r: &[u8], s: &[u8], zeros: usize) -> Vec<u8> {
        let int = |n: &[u8], zeros: usize| {
            let pad = usize::from(n[0] & 0x80 != 0) + zeros;
            let body = [vec![0; pad], n.to_vec()].concat();
            [vec![0x02, u8::try_from(body.len()).unwrap()], body].concat()
        };
        let body = [int(r, zeros), int(s, 0)].concat();
        [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
    }

    /// n - s, for the group order n of P-256.
    fn complement(s: &[u8]) -> Vec<u8> {
        let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
            .unwrap();
        let mut borrow = 0i16;
        let mut out = vec![0u8; 32];
        let padded = [vec![0; 32 - s.len()], s.to_vec()].concat();
        for i in (0..32).rev() {
            let d = i16::from(order[i]) - i16::from(padded[i]) - borrow;
            borrow = i16::from(d < 0);
            out[i] = u8::try_from(d.rem_euclid(256)).unwrap();
        }
        out.into_iter().skip_while(|b| *b == 0).collect()
    }

    #[test]
    fn signatures_are_taken_in_one_spelling_only() {
        let (_, other) = pair();
        let (pair, key) = pair();
        let good = pair
            .sign(&SystemRandom::new(), TEXT)
            .unwrap()
            .as_ref()
            .to_vec();
        let (r, s) = numbers(&good);
        assert_eq!(der(&r, &s, 0), good, "the helper spells as the signer does");
        let long_length = [vec![0x30, 0x81, good[1]], good[2..].to_vec()].concat();
        let trailing = [good.clone(), vec![0]].concat();
        let negative = {
            let mut n = der(&r, &s, 0);
            n[4] |= 0x80;
            n
        };
        let raw = [r.clone(), s.clone()].concat();
        for (name, signature, want) in [
            ("as signed", good.clone(), true),
            (
                "n - s is as valid, as it is for openssl",
                der(&r, &complement(&s), 0),
                true,
            ),
            ("a zero too many", der(&r, &s, 1), false),
            ("length in the long form", long_length, false),
            ("a byte behind", trailing, false),
            ("last byte missing", good[..good.len() - 1].to_vec(), false),
            ("another r", negative, false),
            ("raw r and s", raw, false),
            ("r and s exchanged", der(&s, &r, 0), false),
            ("empty", vec![], false),
            ("longer than any", vec![0x30; 4096], false),
        ] {
            assert_eq!(key.verify(TEXT, &signature).is_ok(), want, "{name}");
            assert_eq!(verify(key.spki(), TEXT, &signature).is_ok(), want, "{name}");
        }
        assert!(
            key.verify(b"keyturn approval v2\n", &good).is_err(),
            "another text"
        );
        assert!(other.verify(TEXT, &good).is_err(), "another key");
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_refused() {
        let (pair, key) = pair();
        let good = pair
            .sign(&SystemRandom::new(), TEXT)
            .unwrap()
            .as_ref()
            .to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.verify(TEXT, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn keys_are_taken_in_one_encoding_only() {
        let (_, key) = pair();
        let spki = key.spki().to_vec();
        assert_eq!(spki.len(), SPKI_LEN);
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(ApprovalKey::from_point(key.point()), Ok(key.clone()));
        let compressed = [vec![2 | (key.point()[64] & 1)], key.point()[1..33].to_vec()].concat();
        let off_curve = {
            let mut bytes = spki.clone();
            bytes[90] ^= 1;
            bytes
        };
        let p384 = {
            let mut bytes = spki.clone();
            bytes[22] = 0x22;
            bytes
        };
        let hybrid = {
            let mut bytes = spki.clone();
            bytes[26] = 0x06 | (bytes[90] & 1);
            bytes
        };
        let zero = [SPKI_PREFIX.to_vec(), vec![4], vec![0; 64]].concat();
        for (name, bytes, want) in [
            ("as it is", spki.clone(), Ok(key.clone())),
            (
                "a byte behind",
                [spki.clone(), vec![0]].concat(),
                Err(KeyError::Encoding),
            ),
            ("short", spki[..90].to_vec(), Err(KeyError::Encoding)),
            ("empty", vec![], Err(KeyError::Encoding)),
            ("another curve", p384, Err(KeyError::Encoding)),
            ("hybrid point", hybrid, Err(KeyError::Encoding)),
            ("not on the curve", off_curve, Err(KeyError::Point)),
            ("zero point", zero, Err(KeyError::Point)),
        ] {
            assert_eq!(ApprovalKey::from_spki(&bytes), want, "{name}");
        }
        assert_eq!(
            ApprovalKey::from_point(&compressed),
            Err(KeyError::Encoding),
            "compressed"
        );
        assert_eq!("not base64".parse::<ApprovalKey>(), Err(KeyError::Encoding));
    }
}
