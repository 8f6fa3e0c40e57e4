//! Keys: the log's signing key, and the verifying keys (*vkeys*) of logs and witnesses.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::{AsBigEndian, Curve25519SeedBin},
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Checkpoint, Note, Signature, SignedCheckpoint, is_key_name};
use crate::tree::{Hash, MAX_SIZE};

/// What a verifying key signs; its type byte in C2SP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Checkpoints of its log (0x01).
    Log,
    /// Cosignatures with a time, `cosignature/v1` (0x04).
    Witness,
}

impl Use {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is empty, too long, or has a space, a `+` or a control character.
    #[error("a key name has no spaces, `+` or control characters and at most 255 bytes")]
    Name,
    /// Not `<name>+<id>+<key>`, or the id does not belong to name and key.
    #[error("not a verifying key of the form `<name>+<id>+<key>`")]
    Vkey,
    /// Neither Ed25519 nor `cosignature/v1`.
    #[error("keys of this kind are not known; use an Ed25519 key")]
    Kind,
    /// No tree is that large.
    #[error("a log has at most 2^53 - 1 entries")]
    Size,
    /// The cryptographic library refuses.
    #[error("the cryptographic library refuses the key")]
    Crypto,
}

/// A verifying key with the name and use that its id binds.
#[derive(Clone)]
pub struct Vkey {
    name: String,
    id: [u8; 4],
    signs: Use,
    public: [u8; 32],
    parsed: ParsedPublicKey,
}

impl Vkey {
    /// The Ed25519 key of a log or witness.
    pub fn new(name: &str, signs: Use, public: [u8; 32]) -> Result<Self, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Name);
        }
        let parsed = ParsedPublicKey::new(&ED25519, public).map_err(|_| KeyError::Crypto)?;
        let digest: [u8; 32] = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', signs.byte()])
            .chain_update(public)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Ok(Self {
            name: name.to_owned(),
            id: [a, b, c, d],
            signs,
            public,
            parsed,
        })
    }

    /// The key's name; of a log's key, the origin of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id, which stands before each of its signatures.
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// What the key signs.
    pub fn signs(&self) -> Use {
        self.signs
    }

    /// The Ed25519 public key (RFC 8032).
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for Vkey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.signs, &self.public) == (&other.name, other.signs, &other.public)
    }
}

impl Eq for Vkey {}

impl fmt::Debug for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vkey({self})")
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64.encode([&[self.signs.byte()], self.public.as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.id))
    }
}

impl FromStr for Vkey {
    type Err = KeyError;

    fn from_str(vkey: &str) -> Result<Self, KeyError> {
        let (name, rest) = vkey.split_once('+').ok_or(KeyError::Vkey)?;
        let (_, key) = rest.split_once('+').ok_or(KeyError::Vkey)?;
        let key = BASE64.decode(key).map_err(|_| KeyError::Vkey)?;
        let (kind, public) = key.split_first().ok_or(KeyError::Vkey)?;
        let signs = match kind {
            1 => Use::Log,
            4 => Use::Witness,
            _ => return Err(KeyError::Kind),
        };
        let parsed = Self::new(name, signs, public.try_into().map_err(|_| KeyError::Vkey)?)?;
        // The id is part of what is printed: it must be the right one, in lower case.
        if parsed.to_string() == vkey {
            Ok(parsed)
        } else {
            Err(KeyError::Vkey)
        }
    }
}

/// The key that signs the checkpoints of one log. It never leaves the daemon but as its seed.
pub struct LogKey {
    pair: Ed25519KeyPair,
    vkey: Vkey,
}

impl LogKey {
    /// A new key for the log with this origin.
    pub fn generate(origin: &str) -> Result<Self, KeyError> {
        Self::new(
            origin,
            Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?,
        )
    }

    /// The key with this seed (the private key of RFC 8032).
    pub fn from_seed(origin: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Crypto)?;
        Self::new(origin, pair)
    }

    fn new(origin: &str, pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Crypto)?;
        Ok(Self {
            vkey: Vkey::new(origin, Use::Log, public)?,
            pair,
        })
    }

    /// The seed, to be kept in a file of mode 0600 outside of store and backups; wiped when dropped.
    pub fn to_seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let seed = self.pair.seed().map_err(|_| KeyError::Crypto)?;
        let bytes: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| KeyError::Crypto)?;
        let mut copy = Zeroizing::new([0; 32]);
        let bytes: &[u8; 32] = bytes.as_ref().try_into().map_err(|_| KeyError::Crypto)?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// The key by which others check what this one signs.
    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// Signs a checkpoint of the log. To be called with a committed head only.
    pub fn sign(&self, size: u64, root: Hash) -> Result<SignedCheckpoint, KeyError> {
        if size > MAX_SIZE {
            return Err(KeyError::Size);
        }
        let checkpoint = Checkpoint {
            origin: self.vkey.name.clone(),
            size,
            root,
        };
        let text = checkpoint.to_string();
        let bytes = self
            .pair
            .try_sign(text.as_bytes())
            .map_err(|_| KeyError::Crypto)?;
        let signature = Signature {
            name: self.vkey.name.clone(),
            id: self.vkey.id,
            bytes: bytes.as_ref().to_vec(),
        };
        Ok(SignedCheckpoint::signed(
            checkpoint,
            Note::new(text, signature),
        ))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.vkey)
    }
}
