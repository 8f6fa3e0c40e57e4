//! The certificates that attestation chains end in.
//!
//! # Invariants
//! 1. A root counts only if its SHA-256 fingerprint is pinned; a file alone makes nobody trusted.
//! 2. An intermediate counts only if a chain of signatures leads to such a root; intermediates are never taken
//!    from the token.

use std::fmt;

use thiserror::Error;

use super::cert::Cert;
use crate::pem;

/// SHA-256 of a root certificate's DER.
pub type Fingerprint = [u8; 32];

/// Most certificates in a file of anchors.
pub const ANCHORS_MAX: usize = 64;
/// Longest file of anchors, in bytes.
pub const ANCHORS_FILE_MAX: usize = 256 * 1024;
/// How a line begins that pins a root of the same file.
const PINNED: &str = "pinned: ";

/// Yubico's PIV roots: `PIV Root CA Serial 263751` (firmware before 5.7.4), `U2F Root CA Serial 457200631` (some
/// YubiKey 4) and `Attestation Root 1` (from 5.7.4).
pub const YUBICO_ROOTS: [Fingerprint; 3] = [
    [
        0x63, 0xec, 0xe9, 0x14, 0xe5, 0x4d, 0xd8, 0x79, 0x15, 0xf3, 0x40, 0x33, 0xc8, 0x5a, 0xf4,
        0xc0, 0x69, 0x6b, 0xa1, 0x51, 0x2f, 0x8a, 0xdd, 0x66, 0xce, 0xd7, 0x38, 0x33, 0x12, 0x07,
        0xb5, 0x46,
    ],
    [
        0x0f, 0xa1, 0x38, 0x6f, 0x80, 0xeb, 0x87, 0x13, 0x26, 0x3a, 0xe5, 0xc1, 0xd8, 0x4d, 0xeb,
        0x45, 0x5b, 0xdf, 0x08, 0xae, 0xa5, 0x0a, 0xb0, 0x55, 0x03, 0xce, 0xfe, 0xe8, 0x2b, 0x09,
        0x2d, 0x42,
    ],
    [
        0x62, 0x76, 0x0c, 0x6a, 0x6e, 0xf9, 0x16, 0x79, 0xf4, 0x54, 0xc8, 0x90, 0x2b, 0x80, 0xfd,
        0x00, 0x98, 0x25, 0xb3, 0xf2, 0x5d, 0xa9, 0x0f, 0x1f, 0xba, 0xce, 0x2e, 0xc6, 0x58, 0x6c,
        0xd5, 0xa8,
    ],
];

const YUBICO_PEM: &str = include_str!("yubico.pem");

/// Why a file of anchors cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnchorsError {
    /// Not PEM, or too much of it.
    #[error("not a PEM file of at most {ANCHORS_MAX} certificates")]
    Pem,
    /// A block is no certificate that we can read.
    #[error("certificate {0} of the file cannot be read")]
    Certificate(usize),
    /// A root's fingerprint is not pinned.
    #[error(
        "root certificate {0} is not pinned; compare its SHA-256 with the one that its maker publishes, and write `{PINNED}{1}` above it"
    )]
    NotPinned(String, String),
    /// A pin is no fingerprint.
    #[error("`{PINNED}{0}` is not a SHA-256 of 64 lower-case hexadecimal digits")]
    Pin(String),
    /// Too long a file.
    #[error("the file is longer than {ANCHORS_FILE_MAX} bytes")]
    Long,
    /// No chain leads from an intermediate to a pinned root.
    #[error("certificate {0} does not lead to a pinned root")]
    Dangling(String),
    /// Nothing is left to trust.
    #[error("the file has no root certificate")]
    Empty,
}

/// Pinned roots and the intermediates below them.
#[derive(Clone)]
pub struct Anchors {
    trusted: Vec<(Cert, Fingerprint)>,
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = self.trusted.iter().map(|(_, fingerprint)| fingerprint);
        f.debug_list().entries(roots).finish()
    }
}

impl Anchors {
    /// Yubico's own, both hierarchies.
    pub fn yubico() -> Result<Self, AnchorsError> {
        Self::parse(YUBICO_PEM, &YUBICO_ROOTS)
    }

    /// Nobody: every attestation is untrusted.
    pub fn nobody() -> Self {
        Self {
            trusted: Vec::new(),
        }
    }

    /// Reads a file: PEM of roots and intermediates in any order, and a line `pinned: SHA-256` for each root, which
    /// somebody wrote who compared it with what the root's owner publishes.
    pub fn from_file(text: &str) -> Result<Self, AnchorsError> {
        if text.len() > ANCHORS_FILE_MAX {
            return Err(AnchorsError::Long);
        }
        let pins = text.lines().filter_map(|line| line.strip_prefix(PINNED));
        let fingerprint = |pin: &str| {
            let bytes = hex::decode(pin)
                .ok()
                .filter(|bytes| hex::encode(bytes) == pin);
            bytes
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| AnchorsError::Pin(pin.to_owned()))
        };
        let pins: Vec<Fingerprint> = pins.map(fingerprint).collect::<Result<_, _>>()?;
        Self::parse(text, &pins)
    }

    /// The fingerprints of the roots.
    pub fn roots(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        let roots = self
            .trusted
            .iter()
            .filter(|(cert, _)| cert.is_self_issued());
        roots.map(|(_, root)| *root)
    }

    /// Reads roots and intermediates, in any order, from PEM.
    pub fn parse(text: &str, pinned: &[Fingerprint]) -> Result<Self, AnchorsError> {
        let blocks = pem::decode_all("CERTIFICATE", text, ANCHORS_MAX).ok_or(AnchorsError::Pem)?;
        let mut trusted = Vec::new();
        let mut waiting = Vec::new();
        for (index, der) in blocks.iter().enumerate() {
            let cert =
                Cert::parse(der).ok_or(AnchorsError::Certificate(index.saturating_add(1)))?;
            if !cert.is_self_issued() {
                waiting.push(cert);
            } else if !pinned.contains(&cert.fingerprint) {
                return Err(AnchorsError::NotPinned(
                    cert.subject(),
                    hex::encode(cert.fingerprint),
                ));
            } else if !cert.is_issued_by(&cert) || cert.is_ca() != Some(true) {
                return Err(AnchorsError::Dangling(cert.subject()));
            } else {
                let root = cert.fingerprint;
                trusted.push((cert, root));
            }
        }
        if trusted.is_empty() {
            return Err(AnchorsError::Empty);
        }
        let mut anchors = Self { trusted };
        anchors.adopt(waiting)?;
        Ok(anchors)
    }

    /// Takes in intermediates from the top down, until none is left.
    fn adopt(&mut self, mut waiting: Vec<Cert>) -> Result<(), AnchorsError> {
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for cert in waiting {
                match self.issuer_of(&cert) {
                    Some(root) if cert.is_ca() == Some(true) => self.trusted.push((cert, root)),
                    _ => later.push(cert),
                }
            }
            if later.len() == before {
                let name = later.first().map(Cert::subject).unwrap_or_default();
                return Err(AnchorsError::Dangling(name));
            }
            waiting = later;
        }
        Ok(())
    }

    /// The fingerprint of the root under which `cert` was issued.
    pub(super) fn issuer_of(&self, cert: &Cert) -> Option<Fingerprint> {
        self.trusted
            .iter()
            .find(|(anchor, _)| cert.is_issued_by(anchor))
            .map(|(_, root)| *root)
    }
}
