//! TLS 1.3, mutual, without authorities: keys are pinned, certificates only carry them.
//!
//! # Invariants
//! 1. A peer has proved that it holds the private key of its pin.
//! 2. No session is resumed and no early data is taken: every connection proves it anew.
//! 3. Names, validity and whoever signed a certificate decide nothing; the charter does.

use std::sync::Arc;

use keyturn_hsm::device::{Certificate, DeviceKey};
use keyturn_vault::{digest::Digest, key::PublicKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::peers::Peers;

/// The protocol spoken inside (RFC 7301).
const HTTP2: &[u8] = b"h2";

/// What a server needs for its handshakes. With `strangers` a device that no charter knows gets as far
/// as a refusal that it can read.
pub fn server(key: &DeviceKey, peers: Peers, strangers: bool) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(Pinned {
        peers,
        strangers,
        provider: Arc::clone(&provider),
    });
    let chain = vec![CertificateDer::from(key.certificate().to_vec())];
    let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private.into())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// X25519MLKEM768 first, so that what is recorded today stays shut when quantum computers come.
pub(crate) fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// The pin and the public key of a certificate.
pub fn pinned(certificate: &Certificate) -> Option<(Digest, PublicKey)> {
    let key = PublicKey::from_der(certificate.key.spki()).ok()?;
    Some((key.pin(), key))
}

#[derive(Debug)]
struct Pinned {
    peers: Peers,
    strangers: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let encoding = || Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        let certificate = Certificate::parse(end_entity).map_err(|_| encoding())?;
        let (pin, _) = pinned(&certificate).ok_or_else(encoding)?;
        if self.strangers || self.peers.knows(&pin) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure,
        ))
    }

    /// There is no TLS 1.2 here (invariant 1).
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
