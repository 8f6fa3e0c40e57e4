//! Public keys as documents and texts carry them.
//!
//! Nothing is computed with keys here; their encodings are checked, so that one key has one
//! spelling and comparing spellings compares keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::digest::Digest;
use crate::name::Origin;

/// Why something is not a public key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A P-256 public key was expected.
    #[error("not a P-256 public key (base64 of the 91 bytes of its SubjectPublicKeyInfo)")]
    Public,
    /// An age recipient was expected.
    #[error("not a share key (an age recipient, age1… or age1yubikey1…, in lower case)")]
    Share,
    /// A note verifier key was expected.
    #[error("not a verifier key (NAME+HASH+BASE64 as in C2SP signed-note)")]
    Verifier,
}

/// What precedes the 64 bytes of an uncompressed point in a P-256 `SubjectPublicKeyInfo` (RFC 5480).
const SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of a P-256 `SubjectPublicKeyInfo`.
pub const SPKI_BYTES: usize = 91;

/// A P-256 public key that verifies signatures of a token, a device or a node: 91 bytes of
/// `SubjectPublicKeyInfo`, written in base64. That the point is on the curve is seen when it is used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Box<[u8]>);

impl PublicKey {
    /// The key of these DER bytes.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() == SPKI_BYTES && der.starts_with(&SPKI_PREFIX) {
            Ok(Self(der.into()))
        } else {
            Err(KeyError::Public)
        }
    }

    /// The DER bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of the DER bytes, by which TLS certificates are pinned.
    pub fn pin(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let der = STANDARD.decode(text).map_err(|_| KeyError::Public)?;
        Self::from_der(&der)
    }
}

/// A key to which shares and secrets are encrypted: an age recipient, `age1…` (X25519) or
/// `age1yubikey1…` (P-256 in a PIV slot).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareKey(Box<str>);

impl ShareKey {
    /// The recipient as age writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it an X25519 recipient, which every age program knows?
    pub fn is_native(&self) -> bool {
        bech32("age", 32, &self.0).is_some()
    }
}

impl fmt::Display for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShareKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let native = bech32("age", 32, text).is_some();
        let yubikey =
            || bech32("age1yubikey", 33, text).is_some_and(|first| matches!(first, 2 | 3));
        if native || yubikey() {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::Share)
        }
    }
}

const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The first byte of a Bech32 text (BIP-173, without its bound on length) with this prefix and this
/// number of bytes; `None` where it is not one in lower case.
fn bech32(prefix: &str, bytes: usize, text: &str) -> Option<u8> {
    let data = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let values: Vec<u8> = data
        .bytes()
        .map(|byte| BECH32.iter().position(|known| *known == byte))
        .map(|value| u8::try_from(value?).ok())
        .collect::<Option<_>>()?;
    let bits = bytes.checked_mul(8)?;
    let symbols = bits.div_ceil(5);
    let padding = symbols.checked_mul(5)?.checked_sub(bits)?;
    let last = values.get(symbols.checked_sub(1)?)?;
    let unused = u8::try_from(
        1_u32
            .checked_shl(u32::try_from(padding).ok()?)?
            .checked_sub(1)?,
    )
    .ok()?;
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let sum = high
        .chain([0])
        .chain(low)
        .chain(values.iter().copied())
        .fold(1, polymod);
    let whole = values.len() == symbols.checked_add(6)? && sum == 1 && last & unused == 0;
    let (first, second) = (values.first()?, values.get(1)?);
    whole.then_some((first << 3) | (second >> 2))
}

/// One step of the checksum of BIP-173.
fn polymod(sum: u32, value: u8) -> u32 {
    let generator = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let shifted = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
    generator
        .iter()
        .zip(25..)
        .fold(shifted, |sum_now, (term, bit)| {
            if sum >> bit & 1 == 1 {
                sum_now ^ term
            } else {
                sum_now
            }
        })
}

/// What a verifier key signs (C2SP signed-note, tlog-cosignature).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierKind {
    /// Checkpoints of a log (Ed25519, algorithm byte 0x01).
    Log,
    /// Timestamped cosignatures of a witness (Ed25519, algorithm byte 0x04).
    Witness,
}

/// A verifier key of a log or a witness, `NAME+HASH+BASE64`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifierKey(Box<str>);

impl VerifierKey {
    /// The key as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the log or witness.
    pub fn name(&self) -> &str {
        self.0.split('+').next().unwrap_or("")
    }

    /// What the key signs.
    pub fn kind(&self) -> VerifierKind {
        // Parsed: the only other algorithm byte is the one of a log.
        match verifier(&self.0) {
            Some(VerifierKind::Witness) => VerifierKind::Witness,
            Some(VerifierKind::Log) | None => VerifierKind::Log,
        }
    }

    /// The SHA-256 of the key as it is written: its fingerprint.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

fn verifier(text: &str) -> Option<VerifierKind> {
    let (name, rest) = text.split_once('+')?;
    let (hash, key) = rest.split_once('+')?;
    // Names of logs and witnesses are written as origins here.
    name.parse::<Origin>().ok()?;
    let key = STANDARD.decode(key).ok()?;
    let kind = match (key.first()?, key.len()) {
        (0x01, 33) => VerifierKind::Log,
        (0x04, 33) => VerifierKind::Witness,
        _ => return None,
    };
    let hashed = Digest::of(&[name.as_bytes(), b"\n", &key].concat()).to_string();
    (hashed.get(..8)? == hash).then_some(kind)
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        verifier(text)
            .map(|_| Self(text.into()))
            .ok_or(KeyError::Verifier)
    }
}

macro_rules! key {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        crate::jcs::as_string!($name);
    )*};
}

key!(PublicKey ShareKey VerifierKey);

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const YUBIKEY: &str = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
    const WITNESS: &str =
        "witness.example.org+f9c1d0d5+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn share_keys_have_one_spelling() {
        let changed = NATIVE.replace("ql3z", "ql3y");
        for (text, want) in [
            (NATIVE, Ok(())),
            (YUBIKEY, Ok(())),
            (&NATIVE.to_uppercase(), Err(KeyError::Share)),
            (&changed, Err(KeyError::Share)),
            (&NATIVE[..61], Err(KeyError::Share)),
            (&format!("{NATIVE}q"), Err(KeyError::Share)),
            (&YUBIKEY.replace("yubikey", "yubikez"), Err(KeyError::Share)),
            ("AGE-SECRET-KEY-1", Err(KeyError::Share)),
            ("age1", Err(KeyError::Share)),
            ("", Err(KeyError::Share)),
        ] {
            assert_eq!(text.parse::<ShareKey>().map(drop), want, "{text}");
        }
        assert!(NATIVE.parse::<ShareKey>().unwrap().is_native());
        assert!(!YUBIKEY.parse::<ShareKey>().unwrap().is_native());
    }

    #[test]
    fn public_keys_are_p_256() {
        let der = [SPKI_PREFIX.as_slice(), &[7; 64]].concat();
        let key = PublicKey::from_der(&der).unwrap();
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(key.pin(), Digest::of(&der));
        for (name, der) in [
            ("too short", der[..90].to_vec()),
            ("too long", [&der[..], &[0]].concat()),
            (
                "another curve",
                [&[0x30, 0x59, 0x30, 0x14], &der[4..]].concat(),
            ),
            (
                "a compressed point",
                [&der[..26], &[2], &der[27..]].concat(),
            ),
        ] {
            assert_eq!(
                PublicKey::from_der(&der).map(drop),
                Err(KeyError::Public),
                "{name}"
            );
        }
    }

    #[test]
    fn verifier_keys_bind_their_name() {
        // The example of C2SP signed-note.
        let log = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(
            log.parse::<VerifierKey>().map(drop),
            Err(KeyError::Verifier),
            "names are lower case here"
        );
        let made = |name: &str, algorithm: u8, length: usize| {
            let key = [&[algorithm], vec![9; length].as_slice()].concat();
            let hash = Digest::of(&[name.as_bytes(), b"\n", &key].concat()).to_string();
            format!("{name}+{}+{}", &hash[..8], STANDARD.encode(key))
        };
        let good = made("vault.example.org/prod", 1, 32);
        for (name, text, want) in [
            ("log", good.clone(), Some(VerifierKind::Log)),
            (
                "witness",
                made("witness.example.org", 4, 32),
                Some(VerifierKind::Witness),
            ),
            ("another algorithm", made("w", 2, 32), None),
            ("a short key", made("w", 1, 31), None),
            ("another name", good.replace("prod", "test"), None),
            ("wrong hash", WITNESS.to_owned(), None),
            ("no key", "w+00000000".to_owned(), None),
        ] {
            assert_eq!(
                text.parse::<VerifierKey>().ok().map(|key| key.kind()),
                want,
                "{name}"
            );
        }
    }
}
