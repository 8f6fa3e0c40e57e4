//! The little of X.509 (RFC 5280) that an attestation chain needs.
//!
//! # Invariants
//! 1. The signature is checked over the bytes as they came, never over a re-encoding.
//! 2. Only algorithms that Yubico signs with, or that a test hierarchy does, are known: RSA PKCS#1 v1.5 with 2048
//!    bits or more and ECDSA on P-256 and P-384, all with SHA-2.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use der::{Decode as _, Encode as _, Header, Reader as _, SliceReader, oid::ObjectIdentifier};
use sha2::{Digest as _, Sha256};
use x509_cert::{Certificate, der::oid::db::rfc5912, ext::pkix::BasicConstraints};

/// Longest certificate that is looked at, in bytes; Yubico's are under 1 KiB.
pub(super) const CERT_MAX: usize = 4096;

/// A certificate with what is needed of it at hand.
#[derive(Clone)]
pub(super) struct Cert {
    parsed: Certificate,
    tbs: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: Vec<u8>,
    pub(super) fingerprint: [u8; 32],
}

impl Cert {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > CERT_MAX {
            return None;
        }
        let parsed = Certificate::from_der(bytes).ok()?;
        let tbs = parsed.tbs_certificate();
        let (subject, issuer) = (tbs.subject().to_der().ok()?, tbs.issuer().to_der().ok()?);
        let spki = tbs.subject_public_key_info().to_der().ok()?;
        let fingerprint = Sha256::digest(bytes).into();
        Some(Self {
            tbs: raw_tbs(bytes)?,
            parsed,
            subject,
            issuer,
            spki,
            fingerprint,
        })
    }

    /// The subject as text, like `CN=Yubico PIV Attestation`.
    pub(super) fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// What basic constraints say; `None` without the extension, as in some certificates of old firmware.
    pub(super) fn is_ca(&self) -> Option<bool> {
        let raw = self.extension(ObjectIdentifier::new_unwrap("2.5.29.19"))?;
        BasicConstraints::from_der(raw)
            .ok()
            .map(|constraints| constraints.ca)
    }

    /// The value of an extension; `None` if it is absent or there twice.
    pub(super) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let all = self.parsed.tbs_certificate().extensions()?;
        let mut found = all.iter().filter(|extension| extension.extn_id == oid);
        let value = found.next()?.extn_value.as_bytes();
        found.next().is_none().then_some(value)
    }

    /// Whether `parent` issued this certificate: by name and by signature.
    pub(super) fn is_issued_by(&self, parent: &Self) -> bool {
        self.issuer == parent.subject && self.is_signed_by(parent).is_some()
    }

    fn is_signed_by(&self, parent: &Self) -> Option<()> {
        let outer = self.parsed.signature_algorithm();
        if outer != self.parsed.tbs_certificate().signature() {
            return None;
        }
        let key = parent.parsed.tbs_certificate().subject_public_key_info();
        let algorithm: &'static dyn VerificationAlgorithm = match (key.algorithm.oid, outer.oid) {
            (rfc5912::RSA_ENCRYPTION, rfc5912::SHA_256_WITH_RSA_ENCRYPTION) => {
                &RSA_PKCS1_2048_8192_SHA256
            }
            (rfc5912::RSA_ENCRYPTION, rfc5912::SHA_512_WITH_RSA_ENCRYPTION) => {
                &RSA_PKCS1_2048_8192_SHA512
            }
            (rfc5912::ID_EC_PUBLIC_KEY, rfc5912::ECDSA_WITH_SHA_256) => &ECDSA_P256_SHA256_ASN1,
            (rfc5912::ID_EC_PUBLIC_KEY, rfc5912::ECDSA_WITH_SHA_384) => &ECDSA_P384_SHA384_ASN1,
            _ => return None,
        };
        UnparsedPublicKey::new(algorithm, &parent.spki)
            .verify(&self.tbs, self.parsed.signature().as_bytes()?)
            .ok()
    }
}

/// The first element of the outer sequence, as it came.
fn raw_tbs(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    Header::decode(&mut reader).ok()?;
    reader.tlv_bytes().ok().map(<[u8]>::to_vec)
}
