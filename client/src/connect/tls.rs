//! TLS 1.3 with this device's key, to a server whose key is pinned.
//!
//! # Invariants
//! 1. A handshake succeeds only with a server that holds the private key of a pin.
//! 2. No session is resumed and no early data is sent: every connection proves it anew.

use std::sync::Arc;

use keyturn_hsm::device::{Certificate, DeviceKey};
use keyturn_vault::digest::Digest;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use thiserror::Error;

/// What a client needs for its handshakes.
pub(super) fn config(pins: Vec<Digest>, device: &DeviceKey) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(Pinned {
        pins,
        provider: Arc::clone(&provider),
    });
    let chain = vec![CertificateDer::from(device.certificate().to_vec())];
    let private = PrivatePkcs8KeyDer::from(device.pkcs8().to_vec());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, private.into())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// X25519MLKEM768 first, so that what is recorded today stays shut when quantum computers come.
fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// The server proved a key that is not pinned.
#[derive(Debug, Error)]
#[error("the server's key is {0}")]
pub(super) struct WrongKey(pub(super) Digest);

#[derive(Debug)]
struct Pinned {
    pins: Vec<Digest>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = Certificate::parse(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let pin = Digest(certificate.pin);
        if self.pins.contains(&pin) {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = OtherError(Arc::new(WrongKey(pin)));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(
            wrong,
        )))
    }

    /// There is no TLS 1.2 here.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
