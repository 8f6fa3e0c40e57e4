//! Key files: a custodian's software token, opened by a passphrase.
//!
//! Three lines of text, then a stock age file:
//!
//! ```text
//! keyturn key v1
//! argon2id: m=65536 t=3 p=4
//! salt: 32 hexadecimal digits
//! age-encryption.org/v1 …
//! ```
//! The age file is encrypted to the X25519 identity whose 32 bytes are Argon2id's raw output (RFC 9106, version 0x13): m in KiB, t
//! passes, p lanes; the salt is the 32 characters as they stand; the passphrase is the bytes as typed. Inside is the age
//! identity on one line, then the approval key as PEM (PKCS#8). So without this program:
//!
//! ```text
//! printf %s "$PASSPHRASE" | argon2 "$SALT" -id -t 3 -k 65536 -p 4 -l 32 -r      # 32 bytes in hexadecimal
//! # in bech32 with the prefix age-secret-key-, in upper case, they are the identity for
//! tail -n +4 bob.key | age -d -i identity.txt
//! ```
//!
//! # Invariants
//! 1. Before anything is computed: 64 MiB ≤ m ≤ 1 GiB, 3 ≤ t ≤ 16, 1 ≤ p ≤ 8. A file can neither be weak nor stop a machine.
//! 2. A passphrase has at most 127 bytes, which is what Debian's `argon2` reads.
//! 3. What opens has one spelling, so a file is what was written, or refused.

use std::fmt;

use argon2::{Algorithm, Argon2, Version};
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::{
    DecryptError, EncryptError, KeyError, NoEntropy, Secret, SecretBytes, ShareIdentity, TextError,
    decrypt_with, encrypt_to,
    text::{Reader, Writer},
};

/// The longest key file.
pub const MAX_FILE_BYTES: usize = 16 * 1024;
/// The longest passphrase.
pub const MAX_PASSPHRASE_BYTES: usize = 127;
/// The longest approval key (PEM).
pub const MAX_APPROVAL_KEY_BYTES: usize = 4096;

const KIND: &str = "keyturn key v1";
const MAX_CONTENTS_BYTES: usize = 4400;
const SALT_CHARS: usize = 32;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const PEM_END: &str = "-----END PRIVATE KEY-----\n";
const PEM_LINE_CHARS: usize = 64;

/// A software token's keys.
pub struct KeyFile {
    /// Opens envelopes.
    pub identity: ShareIdentity,
    /// Signs approvals: PKCS#8 in PEM, opaque here.
    pub approval_key: SecretBytes,
}

/// How hard a passphrase is to guess (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Why a key file was not written or not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Empty or longer than [`MAX_PASSPHRASE_BYTES`].
    #[error("a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes")]
    Passphrase,
    /// Longer than [`MAX_FILE_BYTES`].
    #[error(
        "the file has {0} bytes, more than a key file can have; check that it is the right one"
    )]
    TooLong(usize),
    /// The lines before the age file.
    #[error("this is not a key file")]
    Header(#[source] TextError),
    /// Argon2's parameters are out of bounds.
    #[error(
        "the key file wants m={memory_kib} KiB t={passes} p={lanes}; m must be 65536 to 1048576, t 3 to 16, p 1 to 8"
    )]
    Cost {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// Argon2 failed.
    #[error("the passphrase's key cannot be computed; check that {0} KiB of memory are free")]
    Argon2(u32),
    /// The passphrase, or the file.
    #[error(
        "the passphrase is wrong, or the key file was altered; try again, then use a copy of the file"
    )]
    WrongPassphrase(#[source] DecryptError),
    /// The age file: whatever the passphrase is, this file does not open.
    #[error("the key file is cut short or altered; use a copy of the file")]
    Damaged(#[source] DecryptError),
    /// What is inside.
    #[error("the key file does not hold an age identity and an approval key")]
    Contents,
    /// The age identity inside.
    #[error("the key file's age identity is damaged; use a copy of the file")]
    Identity(#[source] KeyError),
    /// The approval key to write.
    #[error(
        "the approval key is not a private key in PEM (PKCS#8) of at most {MAX_APPROVAL_KEY_BYTES} bytes"
    )]
    ApprovalKey,
    /// No salt.
    #[error("no salt can be made")]
    NoEntropy(#[source] NoEntropy),
    /// age failed.
    #[error("the key file cannot be encrypted")]
    Encrypt(#[source] EncryptError),
}

impl Cost {
    /// The second recommended parameters of RFC 9106: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };

    /// m (64 MiB to 1 GiB, in KiB), t (3 to 16), p (1 to 8).
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, KeyFileError> {
        let bounded = (64 * 1024..=1024 * 1024).contains(&memory_kib)
            && (3..=16).contains(&passes)
            && (1..=8).contains(&lanes);
        if bounded {
            Ok(Self {
                memory_kib,
                passes,
                lanes,
            })
        } else {
            Err(KeyFileError::Cost {
                memory_kib,
                passes,
                lanes,
            })
        }
    }

    /// Argon2id's output as an age identity.
    fn derive(self, passphrase: &SecretBytes, salt: &str) -> Result<ShareIdentity, KeyFileError> {
        if !(1..=MAX_PASSPHRASE_BYTES).contains(&passphrase.len()) {
            return Err(KeyFileError::Passphrase);
        }
        let failed = |_| KeyFileError::Argon2(self.memory_kib);
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(failed)?;
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(params.block_count())
            .map_err(|_| KeyFileError::Argon2(self.memory_kib))?;
        memory.resize(params.block_count(), argon2::Block::new());
        let mut output = Secret::<32>::zero();
        // Exposed to the key derivation.
        let derived = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                passphrase.expose(),
                salt.as_bytes(),
                output.expose_mut(),
                &mut memory,
            );
        // The last blocks are what the output is the digest of.
        memory.iter_mut().for_each(argon2::Block::zeroize);
        derived.map_err(failed)?;
        Ok(ShareIdentity::from_secret(&output))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "m={} t={} p={}",
            self.memory_kib, self.passes, self.lanes
        )
    }
}

impl KeyFile {
    /// Encrypts under a passphrase, with a fresh salt. Takes as long as [`KeyFile::open`]: about 0.1 s by [`Cost::RECOMMENDED`].
    pub fn seal(&self, passphrase: &SecretBytes, cost: Cost) -> Result<Vec<u8>, KeyFileError> {
        // Exposed to be encrypted.
        let pem = self.approval_key.expose();
        if !is_private_key_pem(pem) {
            return Err(KeyFileError::ApprovalKey);
        }
        let salt = Secret::<{ SALT_CHARS / 2 }>::random().map_err(KeyFileError::NoEntropy)?;
        let salt = base16ct::lower::encode_string(salt.expose());
        let contents = self.contents();
        let key = cost.derive(passphrase, &salt)?.share_key();
        let sealed = encrypt_to(&[key], contents.expose()).map_err(KeyFileError::Encrypt)?;
        Ok(Header {
            cost,
            salt: &salt,
            sealed: &sealed,
        }
        .file())
    }

    /// Opens with the passphrase.
    pub fn open(file: &[u8], passphrase: &SecretBytes) -> Result<Self, KeyFileError> {
        if file.len() > MAX_FILE_BYTES {
            return Err(KeyFileError::TooLong(file.len()));
        }
        let Header { cost, salt, sealed } = Header::parse(file)?;
        let identity = cost.derive(passphrase, salt)?;
        let contents =
            decrypt_with(&identity, sealed, MAX_CONTENTS_BYTES).map_err(|error| match error {
                DecryptError::NotForThisKey => KeyFileError::WrongPassphrase(error),
                // Seen before a key is tried, or after the right one was found.
                DecryptError::TooLong(_) | DecryptError::NotAge | DecryptError::Damaged => {
                    KeyFileError::Damaged(error)
                }
            })?;
        // Exposed to its parser.
        Self::parse(contents.expose())
    }

    /// What is encrypted.
    pub(crate) fn contents(&self) -> SecretBytes {
        let (identity, pem) = (self.identity.to_text(), self.approval_key.expose());
        let mut contents =
            Vec::with_capacity(identity.len().saturating_add(1).saturating_add(pem.len()));
        contents.extend_from_slice(identity.expose());
        contents.push(b'\n');
        contents.extend_from_slice(pem);
        contents.into()
    }

    /// Reads what was decrypted.
    pub(crate) fn parse(contents: &[u8]) -> Result<Self, KeyFileError> {
        let text = std::str::from_utf8(contents).map_err(|_| KeyFileError::Contents)?;
        let (identity, pem) = text.split_once('\n').ok_or(KeyFileError::Contents)?;
        let identity = ShareIdentity::parse(identity).map_err(KeyFileError::Identity)?;
        if !is_private_key_pem(pem.as_bytes()) {
            return Err(KeyFileError::Contents);
        }
        Ok(Self {
            identity,
            approval_key: SecretBytes::from_slice(pem.as_bytes()),
        })
    }
}

/// The lines before the age file.
pub(crate) struct Header<'a> {
    pub(crate) cost: Cost,
    pub(crate) salt: &'a str,
    pub(crate) sealed: &'a [u8],
}

impl<'a> Header<'a> {
    /// The whole file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let lines = Writer::new(KIND)
            .line("argon2id", &self.cost.to_string())
            .line("salt", self.salt)
            .finish();
        [lines.expose(), self.sealed].concat()
    }

    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, KeyFileError> {
        let end = file
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(2);
        let end = end.map_or(file.len(), |(at, _)| at.saturating_add(1));
        let (lines, sealed) = file.split_at_checked(end).unwrap_or((file, &[]));
        let (numbers, salt) = Self::lines(lines).map_err(KeyFileError::Header)?;
        let [memory_kib, passes, lanes] = numbers;
        Ok(Self {
            cost: Cost::new(memory_kib, passes, lanes)?,
            salt,
            sealed,
        })
    }

    fn lines(lines: &'a [u8]) -> Result<([u32; 3], &'a str), TextError> {
        let mut text = Reader::new(KIND, lines)?;
        let numbers = text.parse("argon2id", |value| {
            let mut words = value.split(' ');
            let mut number = |name| crate::text::number(words.next()?.strip_prefix(name)?);
            let numbers = [number("m=")?, number("t=")?, number("p=")?];
            words.next().is_none().then_some(numbers)
        })?;
        let is_salt = |salt: &str| {
            salt.len() == SALT_CHARS
                && salt
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let salt = text.parse("salt", |value| is_salt(value).then_some(value))?;
        text.end()?;
        Ok((numbers, salt))
    }
}

/// One PEM block (RFC 7468, strict) labelled `PRIVATE KEY`; what it holds is its user's to parse.
fn is_private_key_pem(pem: &[u8]) -> bool {
    let body = std::str::from_utf8(pem)
        .ok()
        .and_then(|pem| pem.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END));
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    body.is_some_and(|body| {
        pem.len() <= MAX_APPROVAL_KEY_BYTES
            && body.ends_with('\n')
            && body.lines().all(|line| {
                (1..=PEM_LINE_CHARS).contains(&line.len()) && line.bytes().all(is_base64)
            })
    })
}
