//! A stand-in for Yubico's hierarchies, with their names, depth and extensions.
//!
//! Before firmware 5.7.4: root → f9 → attestation. From then on: root → intermediate → PIV attestation → f9 →
//! attestation, where only the last two are on the token.

use p256::{PublicKey, elliptic_curve::sec1::ToSec1Point as _};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, Error, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use sha2::{Digest as _, Sha256};

use crate::Firmware;

/// The first firmware under the hierarchy of 2024.
const NEW_HIERARCHY: Firmware = (5, 7, 4);
/// Yubico's arc for facts about a key; one number follows.
const ARC: [u64; 8] = [1, 3, 6, 1, 4, 1, 41482, 3];
const USB_A_KEYCHAIN: u8 = 1;

/// Roots and intermediates; one for all tokens of a test.
pub struct TestPki {
    old_root: Authority,
    new_root: Authority,
    intermediate: Authority,
    attestation: Authority,
}

/// Somebody who issues certificates.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
    pem: String,
    der: Vec<u8>,
}

/// A token's attestation key with its certificate.
pub(crate) struct Attester(Authority);

/// What a made-up attestation is to say of a key.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The PIV slot.
    pub slot: u8,
    /// The point, in either form of SEC 1.
    pub point: &'a [u8],
    /// The serial number.
    pub serial: u32,
    /// PIN and touch policy, in Yubico's numbers.
    pub policy: [u8; 2],
}

/// What an attestation tells about a key.
pub(crate) struct Facts<'a> {
    pub(crate) slot: u8,
    pub(crate) point: &'a [u8],
    pub(crate) firmware: Firmware,
    pub(crate) serial: u32,
    pub(crate) policy: [u8; 2],
}

impl TestPki {
    /// Makes both hierarchies.
    pub fn new() -> Result<Self, Error> {
        let new_root = Authority::issue("Test Attestation Root 1", 3, &[], None)?;
        let name = "Test Attestation Intermediate A 1";
        let intermediate = Authority::issue(name, 2, &[], Some(&new_root))?;
        let name = "Test PIV Attestation A 1";
        let attestation = Authority::issue(name, 1, &[], Some(&intermediate))?;
        let old_root = Authority::issue("Test PIV Root CA Serial 1", 1, &[], None)?;
        Ok(Self {
            old_root,
            new_root,
            intermediate,
            attestation,
        })
    }

    /// Roots and intermediates, as a verifier is given them.
    pub fn anchors_pem(&self) -> String {
        [
            &self.old_root,
            &self.new_root,
            &self.intermediate,
            &self.attestation,
        ]
        .map(|authority| authority.pem.as_str())
        .concat()
    }

    /// SHA-256 of the root certificates, as a verifier pins them.
    pub fn pins(&self) -> [[u8; 32]; 2] {
        [&self.old_root, &self.new_root].map(|root| Sha256::digest(&root.der).into())
    }

    /// The same as a file that names its pins.
    pub fn anchors_file(&self) -> String {
        let pins = self.pins();
        let pins = pins.map(|pin| format!("pinned: {}\n", hex::encode(pin)));
        pins.concat() + &self.anchors_pem()
    }

    /// Attestations of keys that are on no token: DER of one leaf each, and of the f9 certificate that made them.
    pub fn attest(&self, firmware: Firmware, keys: &[Said<'_>]) -> Result<Vec<Vec<u8>>, Error> {
        let attester = self.attester(firmware)?;
        let leaf = |said: &Said<'_>| {
            let point = PublicKey::from_sec1_bytes(said.point);
            let point = point.map_err(|_| Error::CouldNotParseKeyPair)?;
            attester.attest(&Facts {
                slot: said.slot,
                point: point.to_sec1_point(false).as_bytes(),
                firmware,
                serial: said.serial,
                policy: said.policy,
            })
        };
        let mut made = keys.iter().map(leaf).collect::<Result<Vec<_>, _>>()?;
        made.push(attester.certificate().to_vec());
        Ok(made)
    }

    pub(crate) fn attester(&self, firmware: Firmware) -> Result<Attester, Error> {
        let (major, minor, patch) = firmware;
        let facts = [(3, vec![major, minor, patch])];
        let (name, issuer) = if firmware >= NEW_HIERARCHY {
            ("YubiKey PIV Attestation", &self.attestation)
        } else {
            ("Yubico PIV Attestation", &self.old_root)
        };
        Authority::issue(name, 0, &facts, Some(issuer)).map(Attester)
    }
}

impl Authority {
    fn issue(
        name: &str,
        path_len: u8,
        facts: &[(u64, Vec<u8>)],
        by: Option<&Self>,
    ) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, facts);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
        let cert = match by {
            None => params.self_signed(&key)?,
            Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, &by.key))?,
        };
        Ok(Self {
            key,
            params,
            pem: cert.pem(),
            der: cert.der().to_vec(),
        })
    }
}

impl Attester {
    /// DER of the certificate in slot f9.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.0.der
    }

    /// DER of a certificate for a key that was made on the token.
    pub(crate) fn attest(&self, facts: &Facts<'_>) -> Result<Vec<u8>, Error> {
        let (major, minor, patch) = facts.firmware;
        let extensions = [
            (3, vec![major, minor, patch]),
            (7, integer(facts.serial)),
            (8, facts.policy.to_vec()),
            (9, vec![USB_A_KEYCHAIN]),
        ];
        let params = params(
            &format!("YubiKey PIV Attestation {:x}", facts.slot),
            &extensions,
        );
        let issuer = Issuer::from_params(&self.0.params, &self.0.key);
        Ok(params
            .signed_by(&Point(facts.point), &issuer)?
            .der()
            .to_vec())
    }
}

/// DER of a certificate as age-plugin-yubikey writes it for a key of its own. It signs with that key; nobody looks.
pub(crate) fn identity(point: &[u8], policy: [u8; 2]) -> Result<Vec<u8>, Error> {
    let name = "age identity";
    let issuer = Authority::issue(name, 0, &[], None)?;
    let issuer = Issuer::from_params(&issuer.params, &issuer.key);
    let params = params(name, &[(8, policy.to_vec())]);
    Ok(params.signed_by(&Point(point), &issuer)?.der().to_vec())
}

/// A public key of which only the point is known.
struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn params(name: &str, facts: &[(u64, Vec<u8>)]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    for (number, value) in facts {
        let oid: Vec<u64> = ARC.iter().chain([number]).copied().collect();
        let extension = CustomExtension::from_oid_content(&oid, value.clone());
        params.custom_extensions.push(extension);
    }
    params
}

/// DER INTEGER.
fn integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(3);
    let digits = bytes.get(zeros..).unwrap_or_default();
    let sign = digits.first().is_some_and(|byte| byte & 0x80 != 0);
    let body = [if sign { &[0][..] } else { &[] }, digits].concat();
    crate::tlv::tlv(2, &body)
}
