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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ShareIdentity, piv::SoftwareKey};
    use age_core::format::{FileKey, Stanza};
    use std::collections::HashSet;

    #[test]
    fn every_recipient_opens() {
        let (one, two) = (
            ShareIdentity::generate().unwrap(),
            ShareIdentity::generate().unwrap(),
        );
        let card = SoftwareKey::generate().unwrap();
        let keys = [
            one.share_key(),
            ShareKey::Piv(card.public()),
            two.share_key(),
        ];
        for length in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let plaintext = vec![0x5a; length];
            let file = encrypt_to(&keys, &plaintext).unwrap();
            let identities: [&dyn Identity; 3] = [&one, &two, &card];
            for identity in identities {
                assert_eq!(
                    decrypt_with(identity, &file, length).unwrap().expose(),
                    plaintext,
                    "{length}"
                );
            }
            let stranger = ShareIdentity::generate().unwrap();
            assert_eq!(
                decrypt_with(&stranger, &file, length).err(),
                Some(DecryptError::NotForThisKey),
                "{length}"
            );
        }
    }

    #[test]
    fn the_number_of_recipients_is_bounded() {
        let key = ShareIdentity::generate().unwrap().share_key();
        let card = ShareKey::Piv(SoftwareKey::generate().unwrap().public());
        for (count, want) in [
            (0, false),
            (1, true),
            (MAX_RECIPIENTS, true),
            (MAX_RECIPIENTS + 1, false),
        ] {
            for key in [&key, &card] {
                let file = encrypt_to(&vec![key.clone(); count], b"x");
                assert_eq!(file.is_ok(), want, "{count}");
            }
        }
        // Invariant 1: the longest header that is written is read.
        let identity = ShareIdentity::generate().unwrap();
        let mut keys = vec![card; MAX_RECIPIENTS - 1];
        keys.push(identity.share_key());
        assert_eq!(
            decrypt_with(&identity, &encrypt_to(&keys, b"x").unwrap(), 1)
                .unwrap()
                .expose(),
            b"x"
        );
    }

    #[test]
    fn what_is_no_file_for_this_key_is_refused() {
        let identity = ShareIdentity::generate().unwrap();
        let file = encrypt_to(&[identity.share_key()], b"plaintext").unwrap();
        let altered = |at: usize| {
            let mut file = file.clone();
            file[at] ^= 1;
            file
        };
        let with_header =
            |lines: &str| [b"age-encryption.org/v1\n", lines.as_bytes(), b"--- AAAA\n"].concat();
        let scrypt = with_header(
            "-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
        );
        for (name, file, want) in [
            ("empty", vec![], DecryptError::NotAge),
            ("text", b"hello".to_vec(), DecryptError::NotAge),
            (
                "age v2",
                [b"age-encryption.org/v2\n", &file[22..]].concat(),
                DecryptError::NotAge,
            ),
            (
                "armoured",
                b"-----BEGIN AGE ENCRYPTED FILE-----\n".to_vec(),
                DecryptError::NotAge,
            ),
            (
                "endless header",
                with_header(&"-> a b\nAAAA\n".repeat(341)),
                DecryptError::NotAge,
            ),
            ("a passphrase's", scrypt, DecryptError::NotAge),
            (
                "last byte altered",
                altered(file.len() - 1),
                DecryptError::Damaged,
            ),
            (
                "nonce altered",
                altered(file.len() - 30),
                DecryptError::Damaged,
            ),
            (
                "cut",
                file[..file.len() - 1].to_vec(),
                DecryptError::Damaged,
            ),
            (
                "something follows",
                [&file[..], b"x"].concat(),
                DecryptError::Damaged,
            ),
            (
                "too long inside",
                encrypt_to(&[identity.share_key()], &[0; 101]).unwrap(),
                DecryptError::TooLong(0),
            ),
            (
                "too long",
                vec![0; longest(100) + 1],
                DecryptError::TooLong(0),
            ),
        ] {
            let error = decrypt_with(&identity, &file, 100).err();
            let want = if let DecryptError::TooLong(_) = want {
                DecryptError::TooLong(file.len())
            } else {
                want
            };
            assert_eq!(error, Some(want), "{name}");
        }
    }

    /// Adds stanzas for nobody.
    struct Crowd(usize, ShareKey);

    impl Recipient for Crowd {
        fn wrap_file_key(
            &self,
            file_key: &FileKey,
        ) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
            let (mut stanzas, labels) = self.1.wrap_file_key(file_key)?;
            let nobody = || Stanza {
                tag: "nobody".to_owned(),
                args: vec![],
                body: vec![0; 32],
            };
            stanzas.extend(std::iter::repeat_with(nobody).take(self.0));
            Ok((stanzas, labels))
        }
    }

    /// Invariant 1: a well-formed file, refused for its header alone.
    #[test]
    fn long_headers_are_refused() {
        let identity = ShareIdentity::generate().unwrap();
        for (others, want) in [(0, Ok(1)), (50, Ok(1)), (100, Err(DecryptError::NotAge))] {
            let crowd = Crowd(others, identity.share_key());
            let file = age::encrypt(&crowd, b"x").unwrap();
            let opened = decrypt_with(&identity, &file, 100_000).map(|plaintext| plaintext.len());
            assert_eq!(opened, want, "{others} others, {} bytes", file.len());
        }
    }
}
