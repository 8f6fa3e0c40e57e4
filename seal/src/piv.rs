//! The `piv-p256` stanza of [age-plugin-yubikey], in-process: files for a YubiKey without a plugin, and the other way round.
//!
//! A stanza is `-> piv-p256 TAG EPHEMERAL`, then the file key encrypted with ChaCha20-Poly1305 under
//! HKDF-SHA256(salt = ephemeral ‖ recipient, info = `piv-p256`, ikm = x-coordinate of the ECDH). TAG is the first 4 bytes of the
//! recipient's SHA-256; points are compressed (SEC 1, 33 bytes); both are base64 without padding.
//!
//! The private operation is the caller's: a card's GENERAL AUTHENTICATE, or a [`SoftwareKey`].
//!
//! # Invariants
//! 1. The card is asked at most once per file, with a point that lies on the curve: a file cannot make it ask for many touches.
//! 2. What the card answered is not lost in age's errors: [`CardError`] keeps it.
//!
//! [age-plugin-yubikey]: https://github.com/str4d/age-plugin-yubikey

use std::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
};

use age::Identity;
use age_core::{
    format::{FILE_KEY_BYTES, FileKey, Stanza},
    primitives::{aead_decrypt, aead_encrypt, hkdf},
    secrecy::ExposeSecret as _,
};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use getrandom::SysRng;
use p256::{
    PublicKey,
    ecdh::{EphemeralSecret, diffie_hellman},
    elliptic_curve::{Generate as _, sec1::ToSec1Point as _},
};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{DecryptError, NoEntropy, Secret, SecretBytes, ShareKey, decrypt_with, sha256};

/// The stanza's type, and the label of its key derivation.
const NAME: &str = "piv-p256";
const BODY_BYTES: usize = FILE_KEY_BYTES + 16;

/// An uncompressed point (SEC 1): 0x04, x, y. Cards want it so.
pub type Point = [u8; 65];

/// A public key in a PIV slot.
#[derive(Clone, PartialEq, Eq)]
pub struct PivKey {
    point: PublicKey,
    compressed: [u8; 33],
}

impl PivKey {
    /// A point on P-256, compressed or not; `None` for anything else.
    pub fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let point = PublicKey::from_sec1_bytes(bytes).ok()?;
        let compressed = point.to_sec1_point(true).as_bytes().try_into().ok()?;
        Some(Self { point, compressed })
    }

    /// The compressed point (SEC 1).
    pub fn compressed(&self) -> &[u8; 33] {
        &self.compressed
    }

    /// The uncompressed point; `None` cannot happen.
    pub(crate) fn uncompressed(&self) -> Option<Point> {
        self.point.to_sec1_point(false).as_bytes().try_into().ok()
    }

    /// What stanzas name the key by.
    pub fn tag(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&self.compressed);
        [a, b, c, d]
    }
}

impl Hash for PivKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.compressed.hash(state);
    }
}

impl fmt::Debug for PivKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ShareKey::Piv(self.clone()))
    }
}

/// Wraps a file key for `key`.
pub fn wrap(key: &PivKey, file_key: &FileKey) -> Result<Stanza, NoEntropy> {
    let ephemeral = EphemeralSecret::try_generate_from_rng(&mut SysRng).map_err(NoEntropy)?;
    let public = ephemeral.public_key().to_sec1_point(true);
    let shared = ephemeral.diffie_hellman(&key.point);
    let wrapping = wrapping_key(public.as_bytes(), key, shared.raw_secret_bytes());
    Ok(Stanza {
        tag: NAME.to_owned(),
        args: vec![BASE64.encode(key.tag()), BASE64.encode(public.as_bytes())],
        body: aead_encrypt(&wrapping, file_key.expose_secret()),
    })
}

/// Why a stanza for this key did not open.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CardError<E> {
    /// The card, or what stands for it, answered this.
    #[error("the token did not compute the shared key")]
    Card(#[source] E),
    /// The file.
    #[error("the token's answer does not open the file")]
    File(#[source] DecryptError),
}

/// Unwraps the file key in a stanza, with the card's `ecdh`; `None` if the stanza is for another key.
pub fn unwrap<E>(
    key: &PivKey,
    stanza: &Stanza,
    ecdh: impl FnOnce(&Point) -> Result<Secret<32>, E>,
) -> Option<Result<FileKey, CardError<E>>> {
    match stanza.args.as_slice() {
        [tag, ephemeral] if stanza.tag == NAME && *tag == BASE64.encode(key.tag()) => {
            Some(unwrap_ours(key, ephemeral, &stanza.body, ecdh))
        }
        _ => None,
    }
}

fn unwrap_ours<E>(
    key: &PivKey,
    ephemeral: &str,
    body: &[u8],
    ecdh: impl FnOnce(&Point) -> Result<Secret<32>, E>,
) -> Result<FileKey, CardError<E>> {
    const DAMAGED: DecryptError = DecryptError::Damaged;
    let point = BASE64
        .decode(ephemeral)
        .ok()
        .as_deref()
        .and_then(PivKey::from_sec1);
    let point = point
        .filter(|point| BASE64.encode(point.compressed) == ephemeral && body.len() == BODY_BYTES);
    let point = point.ok_or(CardError::File(DAMAGED))?;
    let uncompressed = point.uncompressed().ok_or(CardError::File(DAMAGED))?;
    let shared = ecdh(&uncompressed).map_err(CardError::Card)?;
    // Exposed to the key derivation.
    let wrapping = wrapping_key(&point.compressed, key, shared.expose());
    let mut bytes =
        aead_decrypt(&wrapping, FILE_KEY_BYTES, body).map_err(|_| CardError::File(DAMAGED))?;
    let file_key = FileKey::init_with_mut(|file_key| file_key.copy_from_slice(&bytes));
    bytes.zeroize();
    Ok(file_key)
}

fn wrapping_key(ephemeral: &[u8], key: &PivKey, shared: &[u8]) -> Zeroizing<[u8; 32]> {
    let salt = [ephemeral, &key.compressed].concat();
    Zeroizing::new(hkdf(&salt, NAME.as_bytes(), shared))
}

/// Decrypts an age file of at most `max` bytes of plaintext with the card's `ecdh`, which is asked at most once.
pub fn decrypt<E>(
    key: &PivKey,
    file: &[u8],
    max: usize,
    ecdh: impl FnOnce(&Point) -> Result<Secret<32>, E>,
) -> Result<SecretBytes, CardError<E>> {
    let card = Card {
        key,
        ecdh: RefCell::new(Some(ecdh)),
        failure: RefCell::new(None),
    };
    let decrypted = decrypt_with(&card, file, max);
    match (decrypted, card.failure.into_inner()) {
        (Ok(plaintext), _) => Ok(plaintext),
        (Err(_), Some(error)) => Err(CardError::Card(error)),
        (Err(error), None) => Err(CardError::File(error)),
    }
}

/// Makes a card's operation, used once, an age identity.
struct Card<'a, F, E> {
    key: &'a PivKey,
    ecdh: RefCell<Option<F>>,
    failure: RefCell<Option<E>>,
}

impl<E, F: FnOnce(&Point) -> Result<Secret<32>, E>> Identity for Card<'_, F, E> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        let ecdh = self.ecdh.borrow_mut();
        let unwrapped = unwrap(self.key, stanza, |point| ask(ecdh, point))?;
        Some(unwrapped.map_err(|error| {
            if let CardError::Card(Some(error)) = error {
                self.failure.replace(Some(error));
            }
            age::DecryptError::DecryptionFailed
        }))
    }
}

/// Asks the card unless it was asked before.
fn ask<E, F: FnOnce(&Point) -> Result<Secret<32>, E>>(
    mut ecdh: std::cell::RefMut<'_, Option<F>>,
    point: &Point,
) -> Result<Secret<32>, Option<E>> {
    let ecdh = ecdh.take().ok_or(None)?;
    ecdh(point).map_err(Some)
}

/// A P-256 key in memory, which does what a card does: for tests, and for a virtual card.
pub struct SoftwareKey(p256::SecretKey);

impl SoftwareKey {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoEntropy> {
        p256::SecretKey::try_generate_from_rng(&mut SysRng)
            .map(Self)
            .map_err(NoEntropy)
    }

    /// The key with this scalar (big-endian); `None` if it is zero or not below the order.
    pub fn from_secret(scalar: &Secret<32>) -> Option<Self> {
        p256::SecretKey::from_slice(scalar.expose()).ok().map(Self)
    }

    /// The public key.
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "a public key is a point on the curve"
    )]
    pub fn public(&self) -> PivKey {
        PivKey::from_sec1(&self.0.public_key().to_sec1_bytes())
            .expect("a public key is a point on the curve")
    }

    /// The x-coordinate of this key times `point`; `None` if that is not on the curve.
    pub fn ecdh(&self, point: &Point) -> Option<Secret<32>> {
        let point = PublicKey::from_sec1_bytes(point).ok()?;
        Secret::from_slice(
            diffie_hellman(self.0.to_nonzero_scalar(), point.as_affine()).raw_secret_bytes(),
        )
    }
}

impl Identity for SoftwareKey {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        let unwrapped = unwrap(&self.public(), stanza, |point| self.ecdh(point).ok_or(()))?;
        Some(unwrapped.map_err(|_| age::DecryptError::DecryptionFailed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ShareIdentity, encrypt_to};
    use std::cell::Cell;

    fn stanza(key: &SoftwareKey) -> Stanza {
        wrap(&key.public(), &FileKey::new(Box::new([7; 16]))).unwrap()
    }

    #[test]
    fn the_card_is_asked_once_with_a_point() {
        let key = SoftwareKey::generate().unwrap();
        let stranger = SoftwareKey::generate().unwrap();
        let public = ShareKey::Piv(key.public());
        let other = ShareIdentity::generate().unwrap().share_key();
        for (name, to, asked, opens) in [
            ("for the card", vec![public.clone()], 1, true),
            (
                "for others too",
                vec![
                    other.clone(),
                    ShareKey::Piv(stranger.public()),
                    public.clone(),
                ],
                1,
                true,
            ),
            (
                "several stanzas for the card",
                vec![public.clone(); 5],
                1,
                true,
            ),
            (
                "for others only",
                vec![other, ShareKey::Piv(stranger.public())],
                0,
                false,
            ),
        ] {
            let calls = Cell::new(0);
            let file = encrypt_to(&to, b"share").unwrap();
            let opened = decrypt(&key.public(), &file, 100, |point| {
                calls.set(calls.get() + 1);
                assert_eq!(point[0], 4, "uncompressed");
                key.ecdh(point).ok_or("no point")
            });
            assert_eq!(opened.is_ok(), opens, "{name}");
            assert_eq!(calls.get(), asked, "{name}");
        }
    }

    #[test]
    fn what_the_card_answers_is_kept() {
        let key = SoftwareKey::generate().unwrap();
        let file = encrypt_to(&[ShareKey::Piv(key.public())], b"share").unwrap();
        let failed = decrypt(&key.public(), &file, 100, |_| Err("touch timed out")).err();
        assert_eq!(failed, Some(CardError::Card("touch timed out")));
        let wrong = decrypt(&key.public(), &file, 100, |_| {
            Secret::random().map_err(|_| "no entropy")
        })
        .err();
        assert_eq!(wrong, Some(CardError::File(DecryptError::Damaged)));
    }

    #[test]
    fn altered_stanzas_are_refused_before_the_card_is_asked() {
        let key = SoftwareKey::generate().unwrap();
        let uncompressed = SoftwareKey::generate()
            .unwrap()
            .0
            .public_key()
            .to_sec1_point(false);
        let set = |change: &dyn Fn(&mut Stanza)| {
            let mut stanza = stanza(&key);
            change(&mut stanza);
            stanza
        };
        let ours = Some(Err(CardError::<()>::File(DecryptError::Damaged)));
        for (name, stanza, want) in [
            (
                "another type",
                set(&|stanza| stanza.tag = "X25519".into()),
                None,
            ),
            (
                "another tag",
                set(&|stanza| stanza.args[0] = "AAAAAA".into()),
                None,
            ),
            ("no point", set(&|stanza| drop(stanza.args.pop())), None),
            (
                "something follows",
                set(&|stanza| stanza.args.push("x".into())),
                None,
            ),
            (
                "not base64",
                set(&|stanza| stanza.args[1] = "!".into()),
                ours,
            ),
            ("padded", set(&|stanza| stanza.args[1].push('=')), ours),
            (
                "not on the curve",
                set(&|stanza| stanza.args[1] = BASE64.encode([&[2][..], &[0xff; 32]].concat())),
                ours,
            ),
            (
                "at infinity",
                set(&|stanza| stanza.args[1] = BASE64.encode([0])),
                ours,
            ),
            (
                "uncompressed",
                set(&|stanza| stanza.args[1] = BASE64.encode(uncompressed.as_bytes())),
                ours,
            ),
            (
                "short body",
                set(&|stanza| stanza.body.truncate(BODY_BYTES - 1)),
                ours,
            ),
            ("long body", set(&|stanza| stanza.body.push(0)), ours),
        ] {
            let unwrapped = unwrap(&key.public(), &stanza, |_| {
                panic!("{name}: the card was asked")
            });
            assert_eq!(
                unwrapped.map(|unwrapped| unwrapped.map(|_| ())),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn altered_bodies_and_points_do_not_open() {
        let key = SoftwareKey::generate().unwrap();
        let mut body = stanza(&key);
        body.body[0] ^= 1;
        let mut point = stanza(&key);
        point.args[1] = stanza(&key).args[1].clone();
        for (name, stanza) in [("body", body), ("another's point", point)] {
            let unwrapped =
                unwrap(&key.public(), &stanza, |point| key.ecdh(point).ok_or(())).unwrap();
            assert_eq!(
                unwrapped.err(),
                Some(CardError::File(DecryptError::Damaged)),
                "{name}"
            );
        }
        let unwrapped = unwrap(&key.public(), &stanza(&key), |point| {
            key.ecdh(point).ok_or(())
        })
        .unwrap();
        assert_eq!(unwrapped.ok().unwrap().expose_secret(), &[7; 16]);
    }
}
