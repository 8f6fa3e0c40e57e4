//! age files, as [the age specification] has them: the one place that encrypts and decrypts.
//!
//! # Invariants
//! 1. Sizes are checked before anything is parsed: the whole file against what it may hold, the header against 4 KiB. The
//!    age library reads a header again from its start at each line, so an unbounded one would cost quadratic time.
//! 2. A plaintext is written into one allocation that never grows.
//!
//! [the age specification]: https://age-encryption.org/v1

use std::io::{Read as _, Write as _};

use age::{Decryptor, Encryptor, Identity, Recipient};
use thiserror::Error;

use crate::{SecretBytes, ShareKey};

/// The longest header of an age file that is read.
pub const MAX_HEADER_BYTES: usize = 4096;
/// The most recipients that a file is encrypted to; their stanzas fit into the longest header.
pub const MAX_RECIPIENTS: usize = 16;

/// Nonce, then a tag per chunk of 64 KiB.
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const CHUNK_BYTES: usize = 64 * 1024;
/// What precedes the header's last line.
const HEADER_END: &[u8] = b"\n--- ";

/// Why nothing was encrypted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// None, or more than [`MAX_RECIPIENTS`].
    #[error("{0} recipients; an age file needs 1 to {MAX_RECIPIENTS}")]
    Recipients(usize),
    /// The age library failed.
    #[error("age cannot encrypt; check that the system gives random numbers")]
    Age(#[source] Box<age::EncryptError>),
    /// Writing into memory failed.
    #[error("age cannot write its output")]
    Write(#[source] std::io::Error),
}

/// Why nothing was decrypted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecryptError {
    /// Longer than what it may hold.
    #[error(
        "the file has {0} bytes, more than such a file can have; check that it is the right one"
    )]
    TooLong(usize),
    /// No age file.
    #[error("this is not an age file, or its header was altered; fetch it again")]
    NotAge,
    /// Encrypted to other keys.
    #[error(
        "the file is not encrypted to this key; use the token or key file that it was sealed to"
    )]
    NotForThisKey,
    /// Fails authentication.
    #[error("the file was altered or cut, or the key could not be used; fetch it again")]
    Damaged,
}

/// Encrypts `plaintext` into one age file that each of `keys` opens.
pub fn encrypt_to(keys: &[ShareKey], plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
    if keys.is_empty() || keys.len() > MAX_RECIPIENTS {
        return Err(EncryptError::Recipients(keys.len()));
    }
    let recipients = keys.iter().map(|key| -> &dyn Recipient { key });
    let encryptor =
        Encryptor::with_recipients(recipients).map_err(|error| EncryptError::Age(error.into()))?;
    let mut file = Vec::with_capacity(longest(plaintext.len()));
    let mut writer = encryptor
        .wrap_output(&mut file)
        .map_err(EncryptError::Write)?;
    writer.write_all(plaintext).map_err(EncryptError::Write)?;
    writer.finish().map_err(EncryptError::Write)?;
    Ok(file)
}

/// Decrypts an age file of at most `max` bytes of plaintext with `identity`.
pub fn decrypt_with(
    identity: &dyn Identity,
    file: &[u8],
    max: usize,
) -> Result<SecretBytes, DecryptError> {
    if file.len() > longest(max) {
        return Err(DecryptError::TooLong(file.len()));
    }
    let head = file.get(..MAX_HEADER_BYTES).unwrap_or(file);
    if !head
        .windows(HEADER_END.len())
        .any(|bytes| bytes == HEADER_END)
    {
        return Err(DecryptError::NotAge);
    }
    let decryptor = Decryptor::new_buffered(file).map_err(|_| DecryptError::NotAge)?;
    let reader = decryptor
        .decrypt(std::iter::once(identity))
        .map_err(|error| {
            if matches!(error, age::DecryptError::NoMatchingKeys) {
                DecryptError::NotForThisKey
            } else {
                DecryptError::Damaged
            }
        })?;
    let mut plaintext = Vec::with_capacity(file.len());
    let read = reader
        .take(u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1))
        .read_to_end(&mut plaintext);
    let plaintext = SecretBytes::from(plaintext);
    match read {
        Err(_) => Err(DecryptError::Damaged),
        Ok(_) if plaintext.len() > max => Err(DecryptError::TooLong(file.len())),
        Ok(_) => Ok(plaintext),
    }
}

/// The most bytes that a file with `plaintext` bytes can have.
fn longest(plaintext: usize) -> usize {
    let chunks = plaintext.div_ceil(CHUNK_BYTES).max(1);
    plaintext
        .saturating_add(chunks.saturating_mul(TAG_BYTES))
        .saturating_add(MAX_HEADER_BYTES)
        .saturating_add(NONCE_BYTES)
}
