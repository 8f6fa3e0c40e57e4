//! Sealing: secrets that only a quorum of custodians can open.
//!
//! A secret becomes an [age] file, encrypted to an identity that exists only while it is sealed. The identity's 32 bytes
//! are split k-of-n (Shamir), and each share is encrypted to its custodian's tokens. All that is kept are public
//! documents: the ciphertext, an envelope per custodian and a commitment per share.
//!
//! ```text
//!            secret ──age──► ciphertext          one age file, one recipient per group
//!                    ▲
//!   fresh identity ──┤                           32 bytes, in memory only
//!                    └─split─► share 1..n ──age──► envelope 1..n     one age file per custodian, to all its tokens
//!                                     └──SHA-256─► commitment 1..n
//! ```
//!
//! ```
//! use keyturn_seal::{Binding, Holder, HolderToken, Roster, Secret, SecretBytes, ShareIdentity, open, seal};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = [ShareIdentity::generate()?, ShareIdentity::generate()?, ShareIdentity::generate()?];
//! let holders = ["bob", "carol", "dan"].iter().zip(&keys).map(|(person, key)| Holder {
//!     person: (*person).to_owned(),
//!     tokens: vec![HolderToken { id: format!("token-of-{person}"), key: key.share_key() }],
//! });
//! let binding = Binding::new("vault.example.org/prod", "01HZXW3VJ0E0N7Q7D1Y8K2M4TA", 7)?;
//! let roster = Roster::new("ops", 2, holders.collect())?;
//! let sealed = seal(&SecretBytes::from(b"correct horse".to_vec()), &binding, &[roster])?;
//!
//! // Later: two custodians open their envelopes; whoever combines the shares opens the ciphertext.
//! let sharing = sealed.groups[0].sharing(&binding)?;
//! let bob = sharing.open_envelope(1, &sealed.groups[0].shares[0].envelope, &keys[0])?;
//! let dan = sharing.open_envelope(3, &sealed.groups[0].shares[2].envelope, &keys[2])?;
//! let combined = sharing.combine(&[&bob, &dan])?;
//! assert!(combined.inconsistent.is_empty());
//! let secret = open(&sealed.ciphertext, &combined.identity, &binding)?;
//! assert_eq!(secret.expose(), b"correct horse");
//! # Ok(()) }
//! ```
//!
//! # Invariants
//! 1. No secret is ever split twice: every sealing makes fresh identities.
//! 2. A share enters [`Sharing::combine`] only after its commitment was checked; a [`ValidShare`] cannot be wrong.
//! 3. Every share and payload names the vault, credential and version that it is for, and is refused for another.
//! 4. Whoever holds fewer than k shares knows nothing of the secret.
//! 5. Whatever this crate writes, stock tools open: `age`, `argon2`, `sha256sum` and the arithmetic in [`shamir`].
//! 6. Secrets live in [`Secret`] and [`SecretBytes`], which are wiped; no error holds one.
//!
//! Sizes are bounded before anything is parsed. This crate does no I/O.
//!
//! [age]: https://age-encryption.org/v1

pub mod alloc;
pub mod binding;
pub mod commitment;
pub mod envelope;
pub mod file;
#[doc(hidden)]
pub mod fuzz;
pub mod key;
pub mod keyfile;
pub mod payload;
pub mod piv;
pub mod release;
pub mod roster;
pub mod seal;
pub mod secret;
pub mod shamir;
pub mod sharing;
pub mod submission;
mod text;

/// What opens age files: a [`ShareIdentity`], a [`piv::SoftwareKey`], or what a token implements itself.
pub use age::Identity;

pub use crate::{
    binding::{Binding, BindingError},
    commitment::commitment,
    envelope::EnvelopeError,
    file::{DecryptError, EncryptError, decrypt_with, encrypt_to},
    key::{KeyError, ShareIdentity, ShareKey},
    keyfile::{KeyFile, KeyFileError},
    payload::{MAX_SECRET_BYTES, OpenError, PayloadError, deliver, open},
    release::{Release, ReleaseError, Released},
    roster::{Holder, HolderToken, MAX_TOKENS, Roster, RosterError},
    seal::{SealError, Sealed, SealedGroup, SealedShare, seal},
    secret::{NoEntropy, Secret, SecretBytes},
    shamir::{MAX_HOLDERS, MIN_QUORUM, Threshold, ThresholdError},
    sharing::{CombineError, Combined, ShareError, Sharing, SharingError, ValidShare},
    submission::{Submission, SubmissionError, SubmittedShare},
    text::TextError,
};

/// The SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
