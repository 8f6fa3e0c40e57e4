//! Payloads: the secret itself, with the names of what it is for.
//!
//! What a ciphertext decrypts to begins with lines that say what it is; after an empty line follows the secret, byte by byte:
//!
//! ```text
//! keyturn secret v1
//! origin: vault.example.org/prod
//! credential: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA
//! version: 7
//!
//! correct horse
//! ```
//! A release is delivered in the same form, encrypted to the requester's key, so [`open`] reads both and the requester too
//! sees that it is the credential that was asked for.
//!
//! # Invariants
//! 1. A secret has 1 to 65,536 bytes, is sealed as it is, and comes out as it went in.
//! 2. It comes out only if origin, credential and version are those asked for.

use age::Identity;
use thiserror::Error;

use crate::{
    Binding, DecryptError, EncryptError, SecretBytes, ShareKey, TextError,
    binding::Field,
    decrypt_with, encrypt_to,
    text::{Reader, Writer},
};

/// The longest secret.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// The lines before the secret have two names of at most 500 bytes.
const MAX_HEADER_BYTES: usize = 1200;
const KIND: &str = "keyturn secret v1";

/// Why a secret was not encrypted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Nothing to seal.
    #[error("the secret is empty; nothing was sealed")]
    Empty,
    /// More than [`MAX_SECRET_BYTES`].
    #[error("the secret has {0} bytes; at most {MAX_SECRET_BYTES} can be sealed")]
    TooLong(usize),
    /// age failed.
    #[error("the secret cannot be encrypted")]
    Encrypt(#[source] EncryptError),
}

/// Why a ciphertext or a delivery gives no secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// It does not decrypt.
    #[error("the sealed secret does not open with this key")]
    Decrypt(#[source] DecryptError),
    /// It holds something else.
    #[error("what was decrypted is not a sealed secret")]
    Text(#[source] TextError),
    /// It is another's.
    #[error(
        "the sealed secret is for another {0} than was asked for; do not use it, and report this"
    )]
    Another(Field),
    /// It has no bytes.
    #[error("the sealed secret is empty; use an earlier version")]
    Empty,
}

/// Decrypts a ciphertext with the combined identity, or a delivery with the requester's.
pub fn open(
    ciphertext: &[u8],
    identity: &dyn Identity,
    binding: &Binding,
) -> Result<SecretBytes, OpenError> {
    let max = MAX_SECRET_BYTES.saturating_add(MAX_HEADER_BYTES);
    let payload = decrypt_with(identity, ciphertext, max).map_err(OpenError::Decrypt)?;
    read(payload, binding)
}

/// Encrypts an opened secret to the requester.
pub fn deliver(
    secret: &SecretBytes,
    binding: &Binding,
    to: &ShareKey,
) -> Result<Vec<u8>, PayloadError> {
    encrypt(secret, binding, std::slice::from_ref(to))
}

pub(crate) fn encrypt(
    secret: &SecretBytes,
    binding: &Binding,
    to: &[ShareKey],
) -> Result<Vec<u8>, PayloadError> {
    if secret.is_empty() {
        return Err(PayloadError::Empty);
    }
    if secret.len() > MAX_SECRET_BYTES {
        return Err(PayloadError::TooLong(secret.len()));
    }
    let payload = text(secret, binding);
    // Exposed to be encrypted.
    encrypt_to(to, payload.expose()).map_err(PayloadError::Encrypt)
}

/// What is encrypted.
pub(crate) fn text(secret: &SecretBytes, binding: &Binding) -> SecretBytes {
    let header = binding.write(Writer::new(KIND)).finish();
    let length = header.len().saturating_add(1).saturating_add(secret.len());
    let mut payload = Vec::with_capacity(length);
    payload.extend_from_slice(header.expose());
    payload.push(b'\n');
    // Exposed to its encryption; the vector has room for all of it.
    payload.extend_from_slice(secret.expose());
    payload.into()
}

/// Reads what was decrypted.
pub(crate) fn read(payload: SecretBytes, binding: &Binding) -> Result<SecretBytes, OpenError> {
    // Exposed to its parser. The header ends before the first empty line.
    let bytes = payload.expose();
    let end = bytes
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .and_then(|at| at.checked_add(1));
    let header = end.and_then(|end| bytes.get(..end)).unwrap_or_default();
    let mut header = Reader::new(KIND, header).map_err(OpenError::Text)?;
    let another = binding.check(&mut header).map_err(OpenError::Text)?;
    header.end().map_err(OpenError::Text)?;
    if let Some(field) = another {
        return Err(OpenError::Another(field));
    }
    let secret = payload.without_first(end.unwrap_or_default().saturating_add(1));
    if secret.is_empty() {
        Err(OpenError::Empty)
    } else {
        Ok(secret)
    }
}
