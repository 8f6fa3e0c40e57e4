//! Keys of devices and nodes: P-256, in a file of their owner alone, with a self-signed certificate.
//!
//! TLS pins the key, never the certificate: [`Certificate::pin`] is the SHA-256 of its public key. No
//! authority signs anything, no name is compared, and validity is a matter of warnings only.
//!
//! # Invariants
//! 1. The certificate in a file is one of the key in it.
//! 2. Certificates with any other key than P-256 are refused: nothing else signs in keyturn.

use std::path::{Path, PathBuf};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use der::{Decode as _, Encode as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    approval::ApprovalKey,
    pem,
    private::{self, FileError},
};

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";
const SECOND_BLOCK: &str = "-----BEGIN CERTIFICATE-----";

/// The largest certificate that is looked at, in bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Why a device key or certificate cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{} is not a P-256 key and its certificate in PEM", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file holds a key and a certificate of another one (invariant 1).
    #[error("{} holds a certificate of another key", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that is not X.509 with a P-256 key (invariant 2).
    #[error("not an X.509 certificate with a P-256 key")]
    Certificate,
    /// No key could be made or used.
    #[error("the cryptographic library refused to work")]
    Library,
}

/// A private key and the certificate that shows its public key.
pub struct DeviceKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    certificate: Vec<u8>,
    public: ApprovalKey,
}

impl DeviceKey {
    /// A new key, in memory only, with a certificate for this name, which is for display.
    pub fn generate(name: &str) -> Result<Self, DeviceError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| DeviceError::Library)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| DeviceError::Library)?;
        let certificate = self_signed(&pair, name).ok_or(DeviceError::Library)?;
        Self::assemble(Zeroizing::new(pkcs8.as_ref().to_vec()), certificate)
            .ok_or(DeviceError::Library)
    }

    /// A new key in a new file.
    pub fn create(path: &Path, name: &str) -> Result<Self, DeviceError> {
        let key = Self::generate(name)?;
        private::create(path, key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// The key in a file.
    pub fn load(path: &Path) -> Result<Self, DeviceError> {
        let format = || DeviceError::Format {
            path: path.to_owned(),
        };
        let bytes = private::read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| format())?;
        let second = text.find(SECOND_BLOCK).ok_or_else(format)?;
        let (first, second) = text.split_at_checked(second).ok_or_else(format)?;
        let [pkcs8] = only(KEY, first).ok_or_else(format)?;
        let pkcs8 = Zeroizing::new(pkcs8);
        let [certificate] = only(CERTIFICATE, second).ok_or_else(format)?;
        let shown = Certificate::parse(&certificate).map_err(|_| format())?;
        let key = Self::assemble(pkcs8, certificate).ok_or_else(format)?;
        if shown.key != key.public {
            return Err(DeviceError::Mismatch {
                path: path.to_owned(),
            });
        }
        Ok(key)
    }

    /// The key and its certificate, as [`DeviceKey::load`] reads them.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(pem::encode(KEY, &self.pkcs8));
        text.push_str(&pem::encode(CERTIFICATE, &self.certificate));
        text
    }

    /// The private key, PKCS#8 DER: for the TLS library alone.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The public key.
    pub const fn public(&self) -> &ApprovalKey {
        &self.public
    }

    /// SHA-256 of the public key's DER: what others pin.
    pub fn pin(&self) -> [u8; 32] {
        pin(&self.public)
    }

    /// Signs a text: ECDSA over SHA-256, DER.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text)
            .map_err(|_| DeviceError::Library)?;
        Ok(signature.as_ref().to_vec())
    }

    fn assemble(pkcs8: Zeroizing<Vec<u8>>, certificate: Vec<u8>) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).ok()?;
        let public = ApprovalKey::from_point(pair.public_key().as_ref()).ok()?;
        Some(Self {
            pair,
            pkcs8,
            certificate,
            public,
        })
    }
}

/// What a peer's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its public key.
    pub key: ApprovalKey,
    /// SHA-256 of the public key's DER.
    pub pin: [u8; 32],
    /// Seconds since 1970: valid from here …
    pub not_before: u64,
    /// … to here.
    pub not_after: u64,
}

impl Certificate {
    /// Reads a certificate. Nobody's signature on it is checked: the pin is what counts.
    pub fn parse(der: &[u8]) -> Result<Self, DeviceError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(DeviceError::Certificate);
        }
        let certificate =
            x509_cert::Certificate::from_der(der).map_err(|_| DeviceError::Certificate)?;
        let facts = certificate.tbs_certificate();
        let spki = facts
            .subject_public_key_info()
            .to_der()
            .map_err(|_| DeviceError::Certificate)?;
        let key = ApprovalKey::from_spki(&spki).map_err(|_| DeviceError::Certificate)?;
        let validity = facts.validity();
        Ok(Self {
            pin: pin(&key),
            key,
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
        })
    }

    /// A sentence for a warning when the certificate is not valid now (seconds since 1970).
    pub fn complaint(&self, now: u64) -> Option<&'static str> {
        if now < self.not_before {
            Some(
                "its certificate is not valid yet: one of the clocks is wrong; the pinned key counts",
            )
        } else if now > self.not_after {
            Some("its certificate has expired; the pinned key counts")
        } else {
            None
        }
    }
}

/// SHA-256 of the public key's DER.
pub fn pin(key: &ApprovalKey) -> [u8; 32] {
    Sha256::digest(key.spki()).into()
}

fn only(label: &str, text: &str) -> Option<[Vec<u8>; 1]> {
    pem::decode_all(label, text, 1)?.try_into().ok()
}

/// Valid from 1975 to 4096: what ends a key's use is the charter.
fn self_signed(pair: &EcdsaKeyPair, name: &str) -> Option<Vec<u8>> {
    let mut facts = rcgen::CertificateParams::default();
    facts.distinguished_name = rcgen::DistinguishedName::new();
    facts
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    Some(facts.self_signed(&Signing(pair)).ok()?.der().to_vec())
}

/// A key pair as the certificate library wants to see it.
struct Signing<'a>(&'a EcdsaKeyPair);

impl rcgen::PublicKeyData for Signing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Signing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.pem");
        let made = DeviceKey::create(&path, "alice's laptop").unwrap();
        let read = DeviceKey::load(&path).unwrap();
        assert_eq!(read.pin(), made.pin());
        assert_eq!(read.certificate(), made.certificate());
        let signature = read.sign(b"a text\n").unwrap();
        assert_eq!(made.public().verify(b"a text\n", &signature), Ok(()));

        let shown = Certificate::parse(made.certificate()).unwrap();
        assert_eq!((&shown.key, shown.pin), (made.public(), made.pin()));
        assert_eq!(shown.complaint(1_800_000_000), None);
        assert!(
            shown
                .complaint(shown.not_after + 1)
                .is_some_and(|text| text.contains("expired"))
        );
        assert!(
            shown
                .complaint(0)
                .is_some_and(|text| text.contains("clock"))
        );
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (
            DeviceKey::generate("one").unwrap(),
            DeviceKey::generate("two").unwrap(),
        );
        let (one, two) = (one.to_pem(), two.to_pem());
        let (key, _) = one.split_once(SECOND_BLOCK).unwrap();
        let (_, certificate) = two.split_once(SECOND_BLOCK).unwrap();
        for (name, text, want) in [
            (
                "mixed",
                format!("{key}{SECOND_BLOCK}{certificate}"),
                "another key",
            ),
            (
                "no key",
                format!("{SECOND_BLOCK}{certificate}"),
                "is not a P-256 key",
            ),
            ("no certificate", key.to_owned(), "is not a P-256 key"),
            ("two keys", format!("{key}{}", &*one), "is not a P-256 key"),
            ("text", "hello".to_owned(), "is not a P-256 key"),
            ("nothing", String::new(), "is not a P-256 key"),
        ] {
            let path = folder.path().join(name);
            private::create(&path, text.as_bytes()).unwrap();
            let error = DeviceKey::load(&path).err().expect(name);
            assert!(error.to_string().contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn certificates_with_other_keys_are_refused() {
        for (name, algorithm) in [
            ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("Ed25519", &rcgen::PKCS_ED25519),
        ] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::default()
                .self_signed(&pair)
                .unwrap();
            let parsed = Certificate::parse(certificate.der());
            assert!(
                matches!(parsed, Err(DeviceError::Certificate)),
                "invariant 2: {name}"
            );
        }
        assert!(
            Certificate::parse(b"").is_err() && Certificate::parse(&vec![0x30; 20_000]).is_err()
        );
    }
}
