//! Share keys: what envelopes are encrypted to, and what opens them.
//!
//! # Invariants
//! 1. A key has one spelling: parsing refuses what it would not print.
//! 2. No X25519 key of low order is accepted. Its shared secret is zero for everybody, and the age library aborts on it, so a
//!    requester could stop a daemon with one.

use std::{collections::HashSet, fmt, str::FromStr};

use age::{EncryptError, Recipient, x25519};
use age_core::{
    format::{FileKey, Stanza},
    primitives::{bech32_decode, bech32_encode_to_fmt},
    secrecy::ExposeSecret as _,
};
use bech32::Hrp;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{NoEntropy, Secret, SecretBytes, piv::PivKey};

/// Keys are shorter than this.
const MAX_KEY_CHARS: usize = 120;
const X25519_PREFIX: Hrp = Hrp::parse_unchecked("age");
const PIV_PREFIX: Hrp = Hrp::parse_unchecked("age1yubikey");
const IDENTITY_PREFIX: Hrp = Hrp::parse_unchecked("age-secret-key-");

/// The u-coordinates of low order on Curve25519 (RFC 7748, section 6.1, and the non-canonical spellings), little-endian.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    low_order(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    low_order(0xec, 0xff, 0x7f),
    low_order(0xed, 0xff, 0x7f),
    low_order(0xee, 0xff, 0x7f),
];

const fn low_order(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// A public key that shares and payloads are encrypted to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ShareKey {
    /// `age1…`: of a key file, a ceremony, a requester.
    X25519(x25519::Recipient),
    /// `age1yubikey1…`: P-256 in a PIV slot.
    Piv(PivKey),
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Neither kind, or not as it is printed.
    #[error(
        "this is not a share key; it begins with age1 or age1yubikey1, in lower case, and must be whole"
    )]
    Key,
    /// A point that makes everything readable.
    #[error("this key encrypts for everybody; make a new one")]
    Weak,
    /// No identity.
    #[error(
        "this is not an age identity; it begins with AGE-SECRET-KEY-1, in upper case, and must be whole"
    )]
    Identity,
}

impl FromStr for ShareKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_KEY_CHARS {
            return Err(KeyError::Key);
        }
        let key = bech32_decode(
            text,
            |_| KeyError::Key,
            |_| Ok(()),
            |prefix, bytes| {
                let bytes: Vec<u8> = bytes.collect();
                if prefix == PIV_PREFIX {
                    PivKey::from_sec1(&bytes)
                        .map(Self::Piv)
                        .ok_or(KeyError::Key)
                } else if prefix == X25519_PREFIX && is_low_order(&bytes) {
                    Err(KeyError::Weak)
                } else {
                    text.parse().map(Self::X25519).map_err(|_| KeyError::Key)
                }
            },
        )?;
        if key.to_string() == text {
            Ok(key)
        } else {
            Err(KeyError::Key)
        }
    }
}

/// RFC 7748 ignores the highest bit, so it is ignored here.
fn is_low_order(point: &[u8]) -> bool {
    LOW_ORDER.iter().any(|low| {
        point.len() == low.len()
            && point
                .iter()
                .zip(low)
                .enumerate()
                .all(|(at, (a, b))| if at == 31 { a & 0x7f == *b } else { a == b })
    })
}

impl fmt::Display for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X25519(key) => key.fmt(f),
            Self::Piv(key) => bech32_encode_to_fmt(f, PIV_PREFIX, key.compressed()),
        }
    }
}

impl Recipient for ShareKey {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        match self {
            Self::X25519(key) => key.wrap_file_key(file_key),
            Self::Piv(key) => {
                let stanza = crate::piv::wrap(key, file_key)
                    .map_err(|error| EncryptError::Io(std::io::Error::other(error)))?;
                Ok((vec![stanza], HashSet::new()))
            }
        }
    }
}

/// An age X25519 identity: of a sealing, a key file, a ceremony's submit key, a requester's delivery.
pub struct ShareIdentity(Box<x25519::Identity>);

impl ShareIdentity {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoEntropy> {
        Ok(Self::from_secret(&Secret::random()?))
    }

    /// The identity with these 32 bytes; any 32 bytes are one.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the text parsed here was encoded from 32 bytes two lines above"
    )]
    pub fn from_secret(secret: &Secret<32>) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_CHARS));
        // Exposed to age, which takes an identity as text only.
        bech32_encode_to_fmt(&mut *text, IDENTITY_PREFIX, secret.expose())
            .expect("a String takes every text");
        text.make_ascii_uppercase();
        Self(Box::new(
            text.parse().expect("age parses what its own encoder wrote"),
        ))
    }

    /// Parses `AGE-SECRET-KEY-1…` as it is printed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_KEY_CHARS {
            return Err(KeyError::Identity);
        }
        let identity = Self(Box::new(text.parse().map_err(|_| KeyError::Identity)?));
        // The reader accepts lower case also.
        if identity.0.to_string().expose_secret() == text {
            Ok(identity)
        } else {
            Err(KeyError::Identity)
        }
    }

    /// `AGE-SECRET-KEY-1…`, to be kept encrypted.
    pub fn to_text(&self) -> SecretBytes {
        SecretBytes::from_slice(self.0.to_string().expose_secret().as_bytes())
    }

    /// The public key.
    pub fn share_key(&self) -> ShareKey {
        ShareKey::X25519(self.0.to_public())
    }
}

impl age::Identity for ShareIdentity {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        self.0.unwrap_stanza(stanza)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use age_core::primitives::bech32_encode;

    /// From age's own tests, and from the documentation of age-plugin-yubikey.
    const AGE: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const AGE_SECRET: &str =
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    const YUBIKEY: &str = "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt";

    #[test]
    fn keys_have_one_spelling() {
        let ShareKey::Piv(yubikey) = YUBIKEY.parse().unwrap() else {
            panic!("a PIV key")
        };
        let uncompressed = bech32_encode(PIV_PREFIX, &yubikey.uncompressed().unwrap());
        let off_curve = bech32_encode(PIV_PREFIX, &[&[2][..], &[0xff; 32]].concat());
        let short = bech32_encode(X25519_PREFIX, &[9; 31]);
        let other = bech32_encode(Hrp::parse_unchecked("age1tag"), &[2; 33]);
        for (name, text, want) in [
            ("age", AGE, Ok(())),
            ("YubiKey", YUBIKEY, Ok(())),
            ("upper case", &AGE.to_uppercase(), Err(KeyError::Key)),
            ("mixed case", &AGE.replacen('t', "T", 1), Err(KeyError::Key)),
            (
                "one letter altered",
                &AGE.replacen("t7", "t8", 1),
                Err(KeyError::Key),
            ),
            ("cut", &AGE[..61], Err(KeyError::Key)),
            ("space at the end", &format!("{AGE} "), Err(KeyError::Key)),
            ("line end", &format!("{AGE}\n"), Err(KeyError::Key)),
            ("an identity", AGE_SECRET, Err(KeyError::Key)),
            ("another plug-in", &other, Err(KeyError::Key)),
            ("31 bytes", &short, Err(KeyError::Key)),
            ("not on the curve", &off_curve, Err(KeyError::Key)),
            ("uncompressed", &uncompressed, Err(KeyError::Key)),
            ("ssh", "ssh-ed25519 AAAA", Err(KeyError::Key)),
            ("empty", "", Err(KeyError::Key)),
            ("long", &"age1".repeat(1000), Err(KeyError::Key)),
        ] {
            let parsed = text.parse::<ShareKey>();
            assert_eq!(
                parsed.as_ref().map(|_| ()).map_err(|error| *error),
                want,
                "{name}"
            );
            if let Ok(key) = parsed {
                assert_eq!(key.to_string(), text, "{name}");
            }
        }
    }

    /// Invariant 2, with Curve25519 itself as the judge.
    #[test]
    fn keys_of_low_order_are_refused() {
        for (place, point) in LOW_ORDER.iter().enumerate() {
            let shared = x25519_dalek::x25519([0x77; 32], *point);
            assert_eq!(shared, [0; 32], "point {place} is of low order");
            for high_bit in [0, 0x80] {
                let mut point = *point;
                point[31] |= high_bit;
                let text = bech32_encode(X25519_PREFIX, &point);
                assert_eq!(
                    text.parse::<ShareKey>(),
                    Err(KeyError::Weak),
                    "point {place}"
                );
            }
        }
    }

    #[test]
    fn identities_have_one_spelling() {
        for (name, text, want) in [
            ("age", AGE_SECRET, true),
            ("lower case", &AGE_SECRET.to_lowercase(), false),
            ("cut", &AGE_SECRET[..70], false),
            ("a key", AGE, false),
            ("line end", &format!("{AGE_SECRET}\n"), false),
            ("empty", "", false),
        ] {
            let parsed = ShareIdentity::parse(text);
            assert_eq!(parsed.is_ok(), want, "{name}");
            if let Ok(identity) = parsed {
                assert_eq!(identity.to_text().expose(), text.as_bytes(), "{name}");
                assert_eq!(identity.share_key().to_string(), AGE, "{name}");
            }
        }
    }

    #[test]
    fn any_32_bytes_are_an_identity() {
        for byte in [0x00, 0x01, 0x80, 0xff] {
            let identity = ShareIdentity::from_secret(&Secret::from_slice(&[byte; 32]).unwrap());
            let file = crate::encrypt_to(&[identity.share_key()], b"x").unwrap();
            assert_eq!(
                crate::decrypt_with(&identity, &file, 1).unwrap().expose(),
                b"x",
                "{byte}"
            );
        }
    }
}
