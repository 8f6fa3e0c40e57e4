//! Submissions: the shares that a custodian sends with an approval, encrypted to the ceremony's submit key.
//!
//! ```text
//! keyturn submission v1
//! approval-sha256: 64 hexadecimal digits
//! ceremony: 01JD8Q6J4Y1W7R0K5T3N9B2XCE
//! person: 01HX6Y0B3M8Z5V2Q9D4F7K1TRA
//! shares: 1
//! share: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA v7 ops x2 64 hexadecimal digits
//! ```
//! A `share` line names credential, version, group and custodian number.
//!
//! # Invariants
//! 1. A submission is for one approval, ceremony and person; [`Submission::open`] refuses it for another.
//! 2. It has 1 to 64 shares, at most one per credential, version and group.
//! 3. A submitted share proves nothing yet: [`crate::Sharing::verify`] does.

use age::Identity;
use thiserror::Error;

use crate::{
    DecryptError, EncryptError, Secret, SecretBytes, ShareKey, TextError, decrypt_with, encrypt_to,
    text::{Reader, Writer, digest, is_name, number, secret},
};

/// The most shares in one submission.
pub const MAX_SHARES: usize = 64;
/// The most bytes a submission decrypts to: four lines and the shares, with names of at most 500 bytes.
pub const MAX_PLAINTEXT_BYTES: usize = 80 * 1024;

const KIND: &str = "keyturn submission v1";

/// Shares for one approval.
pub struct Submission {
    /// The SHA-256 of the approval's text.
    pub approval_sha256: [u8; 32],
    /// The ceremony's id.
    pub ceremony: String,
    /// The custodian's id.
    pub person: String,
    /// The shares.
    pub shares: Vec<SubmittedShare>,
}

/// One share, not yet checked.
pub struct SubmittedShare {
    /// The credential's id.
    pub credential: String,
    /// The version.
    pub version: u64,
    /// The group that it was dealt to.
    pub group: String,
    /// The custodian's number there.
    pub x: u8,
    /// The share.
    pub share: Secret<32>,
}

/// Why a submission was not made or not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubmissionError {
    /// No share, or more than [`MAX_SHARES`].
    #[error("{0} shares; a submission has 1 to {MAX_SHARES}")]
    Count(usize),
    /// Two shares for one version and group.
    #[error(
        "a credential's version is named twice for one group; a custodian submits one share of it"
    )]
    Repeated,
    /// An id or group is no name, or a version or x is zero.
    #[error("a `{0}` to submit is not well-formed; take it from the request and the manifest")]
    Name(&'static str),
    /// age failed.
    #[error("the submission cannot be encrypted")]
    Encrypt(#[source] EncryptError),
    /// It does not decrypt.
    #[error(
        "the submission is not for the ceremony's submit key; send the shares again (approve --resend)"
    )]
    Decrypt(#[source] DecryptError),
    /// It holds something else.
    #[error(
        "the submission is malformed; send the shares again with the same version of the program"
    )]
    Text(#[source] TextError),
    /// It belongs to another approval, ceremony or person.
    #[error(
        "the submission is for another {0}; send the shares again with the approval of this ceremony"
    )]
    Another(&'static str),
}

impl Submission {
    /// Encrypts to the ceremony's submit key.
    pub fn encrypt(&self, to: &ShareKey) -> Result<Vec<u8>, SubmissionError> {
        self.check()?;
        // Exposed to be encrypted.
        let text = self.text();
        encrypt_to(std::slice::from_ref(to), text.expose()).map_err(SubmissionError::Encrypt)
    }

    /// Decrypts with the ceremony's submit key, and checks whose it is.
    pub fn open(
        file: &[u8],
        submit_key: &dyn Identity,
        approval_sha256: &[u8; 32],
        ceremony: &str,
        person: &str,
    ) -> Result<Self, SubmissionError> {
        let text = decrypt_with(submit_key, file, MAX_PLAINTEXT_BYTES)
            .map_err(SubmissionError::Decrypt)?;
        // Exposed to its parser.
        let submission = Self::parse(text.expose())?;
        for (same, what) in [
            (submission.ceremony == ceremony, "ceremony"),
            (submission.person == person, "person"),
            (submission.approval_sha256 == *approval_sha256, "approval"),
        ] {
            if !same {
                return Err(SubmissionError::Another(what));
            }
        }
        Ok(submission)
    }

    /// What is encrypted.
    pub(crate) fn text(&self) -> SecretBytes {
        let mut text = Writer::new(KIND)
            .hex("approval-sha256", "", &self.approval_sha256)
            .line("ceremony", &self.ceremony)
            .line("person", &self.person)
            .line("shares", &self.shares.len().to_string());
        for share in &self.shares {
            let SubmittedShare {
                credential,
                version,
                group,
                x,
                share,
            } = share;
            // Exposed to its encryption.
            text = text.hex(
                "share",
                &format!("{credential} v{version} {group} x{x} "),
                share.expose(),
            );
        }
        text.finish()
    }

    /// Reads what was decrypted.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SubmissionError> {
        let submission = Self::read(bytes).map_err(SubmissionError::Text)?;
        submission.check()?;
        Ok(submission)
    }

    fn read(bytes: &[u8]) -> Result<Self, TextError> {
        let mut text = Reader::new(KIND, bytes)?;
        let approval_sha256 = text.parse("approval-sha256", digest)?;
        let ceremony = text.name("ceremony")?.to_owned();
        let person = text.name("person")?.to_owned();
        let count = text.parse("shares", |count| {
            number(count).filter(|count| *count <= MAX_SHARES)
        })?;
        let mut shares = Vec::with_capacity(count);
        for _ in 0..count {
            shares.push(text.parse("share", SubmittedShare::parse)?);
        }
        text.end()?;
        Ok(Self {
            approval_sha256,
            ceremony,
            person,
            shares,
        })
    }

    fn check(&self) -> Result<(), SubmissionError> {
        if !(1..=MAX_SHARES).contains(&self.shares.len()) {
            return Err(SubmissionError::Count(self.shares.len()));
        }
        for (well, what) in [
            (is_name(&self.ceremony), "ceremony"),
            (is_name(&self.person), "person"),
        ] {
            if !well {
                return Err(SubmissionError::Name(what));
            }
        }
        for (place, share) in self.shares.iter().enumerate() {
            let well = is_name(&share.credential)
                && is_name(&share.group)
                && share.version > 0
                && share.x > 0;
            if !well {
                return Err(SubmissionError::Name("share"));
            }
            if self
                .shares
                .iter()
                .take(place)
                .any(|earlier| earlier.place() == share.place())
            {
                return Err(SubmissionError::Repeated);
            }
        }
        Ok(())
    }
}

impl SubmittedShare {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let share = Self {
            credential: words.next()?.to_owned(),
            version: number(words.next()?.strip_prefix('v')?)?,
            group: words.next()?.to_owned(),
            x: number(words.next()?.strip_prefix('x')?)?,
            share: secret(words.next()?)?,
        };
        words.next().is_none().then_some(share)
    }

    fn place(&self) -> (&str, u64, &str) {
        (&self.credential, self.version, &self.group)
    }
}
