//! What a ceremony releases: the opened secrets of all versions in one age file for the requester.
//!
//! ```text
//! keyturn release v1
//! origin: vault.example.org/prod
//! ceremony: 01JD…
//! secret: 01HZ… 7 24
//! secret: 01J0… 1 32
//! (an empty line, then the secrets' bytes, one after the other)
//! ```
//!
//! Each `secret:` line has the credential's id, the version, and the number of bytes.

use age::Identity;
use thiserror::Error;

use crate::{
    DecryptError, EncryptError, MAX_SECRET_BYTES, SecretBytes, ShareKey, decrypt_with, encrypt_to,
    file::MAX_HEADER_BYTES,
    text::{Reader, TextError, Writer, is_name, number},
};

const KIND: &str = "keyturn release v1";
/// The most secrets of one release.
pub const MAX_SECRETS: usize = 32;

/// The secrets that one ceremony opened.
pub struct Release {
    /// The vault's name.
    pub origin: String,
    /// The ceremony's id.
    pub ceremony: String,
    /// What was opened, in the order of the request.
    pub secrets: Vec<Released>,
}

/// One opened secret.
pub struct Released {
    /// The credential's id.
    pub credential: String,
    /// The version.
    pub version: u64,
    /// The secret: 1 to 65,536 bytes.
    pub secret: SecretBytes,
}

/// Why a release was not made or cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No secret, too many, or one of a wrong size.
    #[error("a release has 1 to {MAX_SECRETS} secrets of 1 to {MAX_SECRET_BYTES} bytes")]
    Size,
    /// An id is no name.
    #[error("a `{0}` of a release is not well-formed")]
    Name(&'static str),
    /// age failed.
    #[error("the release cannot be encrypted")]
    Encrypt(#[source] EncryptError),
    /// It does not decrypt.
    #[error("the release is not for this key; fetch it where the request was made")]
    Decrypt(#[source] DecryptError),
    /// It holds something else.
    #[error("what was decrypted is not a release")]
    Text(#[source] TextError),
    /// It is another's.
    #[error("the release is of another {0} than was asked for; do not use it, and report this")]
    Another(&'static str),
}

impl Release {
    /// Encrypts to the requester.
    pub fn encrypt(&self, to: &ShareKey) -> Result<Vec<u8>, ReleaseError> {
        let fits = |secret: &Released| (1..=MAX_SECRET_BYTES).contains(&secret.secret.len());
        if !(1..=MAX_SECRETS).contains(&self.secrets.len()) || !self.secrets.iter().all(fits) {
            return Err(ReleaseError::Size);
        }
        let named = |name, value: &str| {
            if is_name(value) {
                Ok(())
            } else {
                Err(ReleaseError::Name(name))
            }
        };
        named("origin", &self.origin)?;
        named("ceremony", &self.ceremony)?;
        let mut header = Writer::new(KIND)
            .line("origin", &self.origin)
            .line("ceremony", &self.ceremony);
        let mut length = 0_usize;
        for Released {
            credential,
            version,
            secret,
        } in &self.secrets
        {
            named("credential", credential)?;
            header = header.line(
                "secret",
                &format!("{credential} {version} {}", secret.len()),
            );
            length = length.saturating_add(secret.len());
        }
        let header = header.finish();
        let mut text = Vec::with_capacity(header.len().saturating_add(1).saturating_add(length));
        text.extend_from_slice(header.expose());
        text.push(b'\n');
        for released in &self.secrets {
            // Exposed to be encrypted; the vector has room for all of it.
            text.extend_from_slice(released.secret.expose());
        }
        let text = SecretBytes::from(text);
        encrypt_to(std::slice::from_ref(to), text.expose()).map_err(ReleaseError::Encrypt)
    }

    /// Decrypts a release of this vault and ceremony.
    pub fn open(
        ciphertext: &[u8],
        identity: &dyn Identity,
        origin: &str,
        ceremony: &str,
    ) -> Result<Self, ReleaseError> {
        let max = MAX_SECRETS
            .saturating_mul(MAX_SECRET_BYTES)
            .saturating_add(MAX_HEADER_BYTES);
        let text = decrypt_with(identity, ciphertext, max).map_err(ReleaseError::Decrypt)?;
        let release = Self::read(text.expose()).map_err(ReleaseError::Text)?;
        if release.origin != origin {
            return Err(ReleaseError::Another("vault"));
        }
        if release.ceremony != ceremony {
            return Err(ReleaseError::Another("ceremony"));
        }
        Ok(release)
    }

    pub(crate) fn read(text: &[u8]) -> Result<Self, TextError> {
        let end = text
            .windows(2)
            .position(|pair| pair == b"\n\n")
            .and_then(|at| at.checked_add(1));
        let (header, rest) = end
            .and_then(|end| text.split_at_checked(end))
            .unwrap_or_default();
        let mut rest = rest.get(1..).unwrap_or_default();
        let mut header = Reader::new(KIND, header)?;
        let origin = header.name("origin")?.to_owned();
        let ceremony = header.name("ceremony")?.to_owned();
        let mut secrets = Vec::new();
        while !header.is_empty() {
            let (credential, version, length) = header.parse("secret", secret_line)?;
            let (secret, tail) = rest
                .split_at_checked(length)
                .ok_or(TextError::Line("secret"))?;
            rest = tail;
            if secrets.len() >= MAX_SECRETS {
                return Err(TextError::Extra);
            }
            let secret = SecretBytes::from_slice(secret);
            secrets.push(Released {
                credential: credential.to_owned(),
                version,
                secret,
            });
        }
        if secrets.is_empty() {
            return Err(TextError::Line("secret"));
        }
        if rest.is_empty() {
            Ok(Self {
                origin,
                ceremony,
                secrets,
            })
        } else {
            Err(TextError::Extra)
        }
    }
}

fn secret_line(value: &str) -> Option<(&str, u64, usize)> {
    let mut parts = value.split(' ');
    let (credential, version, length) = (parts.next()?, parts.next()?, parts.next()?);
    let length = number::<usize>(length).filter(|length| *length <= MAX_SECRET_BYTES)?;
    (is_name(credential) && parts.next().is_none()).then_some((
        credential,
        number(version)?,
        length,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShareIdentity;

    fn release() -> Release {
        let one = |credential: &str, version, secret: &[u8]| Released {
            credential: credential.to_owned(),
            version,
            secret: SecretBytes::from_slice(secret),
        };
        Release {
            origin: "vault.example.org/prod".into(),
            ceremony: "01JD".into(),
            secrets: vec![
                one("01HZ", 7, b"hunter2\n\nsecret: 1"),
                one("01J0", 1, &[0, 10, 10, 255]),
            ],
        }
    }

    #[test]
    fn what_is_released_arrives() {
        let identity = ShareIdentity::generate().unwrap();
        let file = release().encrypt(&identity.share_key()).unwrap();
        let got = Release::open(&file, &identity, "vault.example.org/prod", "01JD").unwrap();
        let seen: Vec<_> = got
            .secrets
            .iter()
            .map(|s| (s.credential.as_str(), s.version, s.secret.expose().to_vec()))
            .collect();
        assert_eq!(
            seen,
            [
                ("01HZ", 7, b"hunter2\n\nsecret: 1".to_vec()),
                ("01J0", 1, vec![0, 10, 10, 255])
            ]
        );
        for (origin, ceremony, want) in [
            ("vault.example.org/test", "01JD", "vault"),
            ("vault.example.org/prod", "01JE", "ceremony"),
        ] {
            let refused = Release::open(&file, &identity, origin, ceremony).err();
            assert!(
                matches!(refused, Some(ReleaseError::Another(what)) if what == want),
                "another {want}"
            );
        }
    }

    #[test]
    fn malformed_releases_are_refused() {
        use TextError::{Extra, Line, Type};
        for (name, text, want) in [
            ("no header", &b"abc"[..], Type(KIND)),
            (
                "no secret",
                b"keyturn release v1\norigin: o\nceremony: c\n\n",
                Line("secret"),
            ),
            (
                "cut secret",
                b"keyturn release v1\norigin: o\nceremony: c\nsecret: 01 1 3\n\nab",
                Line("secret"),
            ),
            (
                "too much",
                b"keyturn release v1\norigin: o\nceremony: c\nsecret: 01 1 3\n\nabcd",
                Extra,
            ),
            (
                "length with a zero",
                b"keyturn release v1\norigin: o\nceremony: c\nsecret: 01 1 03\n\nabc",
                Line("secret"),
            ),
            (
                "version 0",
                b"keyturn release v1\norigin: o\nceremony: c\nsecret: 01 0 3\n\nabc",
                Line("secret"),
            ),
            (
                "four parts",
                b"keyturn release v1\norigin: o\nceremony: c\nsecret: 01 1 3 4\n\nabc",
                Line("secret"),
            ),
        ] {
            assert_eq!(Release::read(text).err(), Some(want), "{name}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let to = ShareIdentity::generate().unwrap().share_key();
        let with = |count: usize, bytes: usize| Release {
            secrets: (0..count)
                .map(|_| Released {
                    credential: "c".into(),
                    version: 1,
                    secret: SecretBytes::from_slice(&vec![1; bytes]),
                })
                .collect(),
            ..release()
        };
        for (name, release, fits) in [
            ("none", with(0, 1), false),
            ("an empty one", with(1, 0), false),
            ("the most", with(MAX_SECRETS, 100), true),
            ("one more", with(MAX_SECRETS + 1, 100), false),
            ("the longest", with(1, MAX_SECRET_BYTES), true),
            ("longer", with(1, MAX_SECRET_BYTES + 1), false),
        ] {
            assert_eq!(release.encrypt(&to).is_ok(), fits, "{name}");
        }
    }
}
