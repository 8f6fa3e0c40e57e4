//! What a YubiKey says of its own keys, and whether to believe it.
//!
//! A key in a PIV slot is attested by the token's attestation key (slot f9), whose certificate Yubico issued at the
//! factory. A [`Bundle`] is what enrolment stores: the attestation of the approval key, that of the share key, and
//! the f9 certificate, as one PEM file that `openssl` reads too. Checking is the daemon's and the auditor's work; it
//! needs no token and no clock.
//!
//! # Invariants
//! 1. A chain is exactly: leaf, f9, one of the [`Anchors`]. The token supplies the first two and nothing else, so a
//!    key in an ordinary slot of a genuine YubiKey cannot attest.
//! 2. An attestation counts only for the key that was enrolled.
//! 3. Validity periods are not judged: Yubico's end in 2052 or never, and auditors judge years later.
//! 4. A fact that is not in the certificate is absent, never assumed.

mod anchors;
mod cert;
mod claim;

use std::{fmt, str::FromStr};

use der::oid::ObjectIdentifier;
use keyturn_seal::{ShareKey, piv::PivKey};
use thiserror::Error;

use crate::{ApprovalKey, pem};
use cert::Cert;

pub use anchors::{
    ANCHORS_FILE_MAX, ANCHORS_MAX, Anchors, AnchorsError, Fingerprint, YUBICO_ROOTS,
};
pub use claim::{
    Claim, EUCLEAK_FIXED, Proven, RETIRED_SLOTS, SIGNATURE_SLOT, Written, prove, prove_object,
};

/// Longest bundle, in bytes.
pub const BUNDLE_MAX: usize = 16 * 1024;

/// Yubico's arc for facts about a key.
const FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.3");
const SERIAL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.7");
const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.8");
const FORM_FACTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.9");

/// The subjects of f9 certificates: before firmware 5.7.4, and from then on.
const F9_SUBJECTS: [&str; 2] = ["CN=Yubico PIV Attestation", "CN=YubiKey PIV Attestation"];
/// How the subject of a leaf begins; the slot in hexadecimal follows.
const LEAF_SUBJECT: &str = "CN=YubiKey PIV Attestation ";

/// Why an attestation is not believed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttestationError {
    /// Not a PEM file of two or three certificates.
    #[error("not an attestation file: two or three PEM certificates of at most {BUNDLE_MAX} bytes")]
    Format,
    /// The f9 certificate was not issued under a pinned root.
    #[error("the attestation certificate of the token was not issued under a trusted root")]
    Untrusted,
    /// The f9 certificate is some other certificate of the issuer.
    #[error("{0} is not the attestation certificate of a YubiKey")]
    NotAttester(String),
    /// The leaf was not signed by the f9 key.
    #[error("the attestation was not made by the token's attestation key")]
    Forged,
    /// A fact is missing or unreadable.
    #[error("the attestation does not tell the {0}")]
    Missing(&'static str),
    /// The attested key is another than the enrolled one.
    #[error("the attested {0} key is not the enrolled one")]
    OtherKey(&'static str),
    /// The two attestations come from different tokens.
    #[error("approval and share key are not on the same token")]
    TwoTokens,
    /// The share key was not made on the token, or nobody asked it.
    #[error("the share key is not attested: it was not made on the token")]
    ShareNotAttested,
    /// The approval key is not in slot 9c.
    #[error("the approval key is in slot {0:02x}, not in 9c")]
    ApprovalSlot(u8),
    /// The share key is not in a retired slot.
    #[error("the share key is in slot {0:02x}, not in a retired one (82 to 95)")]
    ShareSlot(u8),
    /// The token is another one, or does not tell its number.
    #[error("the attested serial number is {}, not {claimed}", attested.map_or_else(|| "not told".to_owned(), |serial| serial.to_string()))]
    Serial {
        /// What the token says.
        attested: Option<u32>,
        /// What was said of it.
        claimed: u32,
    },
}

/// When the token asks for the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once a session.
    Once,
    /// Before each use.
    Always,
}

/// When the token asks for a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// One touch lasts for 15 seconds.
    Cached,
    /// Before each use.
    Always,
}

/// The firmware's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firmware(pub u8, pub u8, pub u8);

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Firmware {
    type Err = AttestationError;

    /// `5.7`, `5.7.1`.
    fn from_str(text: &str) -> Result<Self, AttestationError> {
        let numbers: Result<Vec<u8>, _> = text.split('.').map(u8::from_str).collect();
        match numbers.as_deref() {
            Ok([major, minor]) => Ok(Self(*major, *minor, 0)),
            Ok([major, minor, patch]) => Ok(Self(*major, *minor, *patch)),
            _ => Err(AttestationError::Missing("firmware")),
        }
    }
}

/// What the token is built like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormFactor(pub u8);

impl fmt::Display for FormFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & 0x0f {
            1 => "USB-A keychain",
            2 => "USB-A nano",
            3 => "USB-C keychain",
            4 => "USB-C nano",
            5 => "USB-C and Lightning",
            6 => "USB-A Bio",
            7 => "USB-C Bio",
            _ => "unknown form",
        })?;
        if self.0 & 0x80 == 0 {
            Ok(())
        } else {
            f.write_str(", FIPS")
        }
    }
}

/// What the token says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The PIV slot, like 0x9c.
    pub slot: u8,
    /// DER of the attested key's `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// The serial number, where the token shows it.
    pub serial: Option<u32>,
    /// The firmware.
    pub firmware: Firmware,
    /// When the PIN is asked for.
    pub pin: PinPolicy,
    /// When a touch is asked for.
    pub touch: TouchPolicy,
    /// The form factor, where it is told (firmware 5 and later).
    pub form_factor: Option<FormFactor>,
    /// The root under which the token was made.
    pub root: Fingerprint,
}

/// What the token says of the enrolled keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Of the approval key.
    pub approval: Facts,
    /// Of the share key, where it is on the token.
    pub share: Option<Facts>,
}

/// The certificates of one token, as stored with its enrolment.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// DER of the attestation of the approval key.
    pub approval: Vec<u8>,
    /// DER of the attestation of the share key.
    pub share: Option<Vec<u8>>,
    /// DER of the certificate in slot f9.
    pub f9: Vec<u8>,
}

impl Bundle {
    /// Reads the stored form.
    pub fn parse(text: &str) -> Result<Self, AttestationError> {
        if text.len() > BUNDLE_MAX {
            return Err(AttestationError::Format);
        }
        let blocks = pem::decode_all("CERTIFICATE", text, 3).ok_or(AttestationError::Format)?;
        let bundle = match <[Vec<u8>; 3]>::try_from(blocks) {
            Ok([approval, share, f9]) => Self {
                approval,
                share: Some(share),
                f9,
            },
            Err(two) => match <[Vec<u8>; 2]>::try_from(two) {
                Ok([approval, f9]) => Self {
                    approval,
                    share: None,
                    f9,
                },
                Err(_) => return Err(AttestationError::Format),
            },
        };
        // One spelling only: the digest of the file stands in the charter.
        if bundle.to_pem() == text {
            Ok(bundle)
        } else {
            Err(AttestationError::Format)
        }
    }

    /// The stored form: PEM of the approval leaf, the share leaf, f9.
    pub fn to_pem(&self) -> String {
        let share = self
            .share
            .as_deref()
            .map(|der| pem::encode("CERTIFICATE", der))
            .unwrap_or_default();
        let [approval, f9] = [&self.approval, &self.f9].map(|der| pem::encode("CERTIFICATE", der));
        [approval, share, f9].concat()
    }

    /// Checks the chains and reads the facts, without asking which keys were enrolled.
    pub fn facts(&self, anchors: &Anchors) -> Result<Attested, AttestationError> {
        let f9 = Cert::parse(&self.f9).ok_or(AttestationError::Format)?;
        let root = anchors.issuer_of(&f9).ok_or(AttestationError::Untrusted)?;
        if !F9_SUBJECTS.contains(&f9.subject().as_str()) || f9.is_ca() == Some(false) {
            return Err(AttestationError::NotAttester(f9.subject()));
        }
        let approval = facts(&self.approval, &f9, root)?;
        let share = self
            .share
            .as_deref()
            .map(|der| facts(der, &f9, root))
            .transpose()?;
        if share
            .as_ref()
            .is_some_and(|share| share.serial != approval.serial)
        {
            return Err(AttestationError::TwoTokens);
        }
        Ok(Attested { approval, share })
    }

    /// Checks the chains, and that the attested keys are the enrolled ones. A share key that is not on the token
    /// (`age1…`) is not attested.
    pub fn verify(
        &self,
        anchors: &Anchors,
        approval: &ApprovalKey,
        share: &ShareKey,
    ) -> Result<Attested, AttestationError> {
        let attested = self.facts(anchors)?;
        if attested.approval.spki != approval.spki() {
            return Err(AttestationError::OtherKey("approval"));
        }
        let is_share = match (&attested.share, share) {
            (None, ShareKey::X25519(_)) => true,
            (Some(facts), ShareKey::Piv(key)) => piv_key(&facts.spki).as_ref() == Some(key),
            (None, ShareKey::Piv(_)) | (Some(_), ShareKey::X25519(_)) => false,
        };
        if is_share {
            Ok(attested)
        } else {
            Err(AttestationError::OtherKey("share"))
        }
    }
}

/// Checks one leaf and reads it.
fn facts(der: &[u8], f9: &Cert, root: Fingerprint) -> Result<Facts, AttestationError> {
    let leaf = Cert::parse(der).ok_or(AttestationError::Format)?;
    if !leaf.is_issued_by(f9) || leaf.is_ca() == Some(true) {
        return Err(AttestationError::Forged);
    }
    let subject = leaf.subject();
    let slot = subject
        .strip_prefix(LEAF_SUBJECT)
        .and_then(|slot| u8::from_str_radix(slot, 16).ok());
    let firmware = match leaf.extension(FIRMWARE) {
        Some([major, minor, patch]) => Firmware(*major, *minor, *patch),
        _ => return Err(AttestationError::Missing("firmware")),
    };
    let (pin, touch) = match leaf.extension(POLICY) {
        Some([pin, touch]) => (pin_policy(*pin)?, touch_policy(*touch)?),
        _ => return Err(AttestationError::Missing("PIN and touch policy")),
    };
    let serial = match leaf.extension(SERIAL) {
        None => None,
        Some(raw) => Some(serial_number(raw).ok_or(AttestationError::Missing("serial number"))?),
    };
    let form_factor = match leaf.extension(FORM_FACTOR) {
        Some([byte]) => Some(FormFactor(*byte)),
        _ => None,
    };
    Ok(Facts {
        slot: slot.ok_or(AttestationError::Missing("slot"))?,
        spki: leaf.spki().to_vec(),
        serial,
        firmware,
        pin,
        touch,
        form_factor,
        root,
    })
}

/// An INTEGER of at most 32 bits; zeros before it are no lie, so they are taken.
fn serial_number(raw: &[u8]) -> Option<u32> {
    let [0x02, len, digits @ ..] = raw else {
        return None;
    };
    if usize::from(*len) != digits.len() || digits.first()? & 0x80 != 0 {
        return None;
    }
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let significant = digits.get(zeros..)?;
    let mut bytes = [0; 4];
    bytes
        .get_mut(4_usize.checked_sub(significant.len())?..)?
        .copy_from_slice(significant);
    Some(u32::from_be_bytes(bytes))
}

fn pin_policy(byte: u8) -> Result<PinPolicy, AttestationError> {
    match byte {
        1 => Ok(PinPolicy::Never),
        2 => Ok(PinPolicy::Once),
        3 => Ok(PinPolicy::Always),
        _ => Err(AttestationError::Missing("PIN policy")),
    }
}

fn touch_policy(byte: u8) -> Result<TouchPolicy, AttestationError> {
    match byte {
        1 => Ok(TouchPolicy::Never),
        2 => Ok(TouchPolicy::Always),
        3 => Ok(TouchPolicy::Cached),
        _ => Err(AttestationError::Missing("touch policy")),
    }
}

/// The share key with this P-256 `SubjectPublicKeyInfo`.
fn piv_key(spki: &[u8]) -> Option<PivKey> {
    PivKey::from_sec1(ApprovalKey::from_spki(spki).ok()?.point())
}

#[cfg(test)]
mod tests;
