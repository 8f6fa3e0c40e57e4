//! How connectors reach a server: TLS by a file of roots, and files with their own credentials.

use std::{
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use zeroize::Zeroizing;

/// The largest file of a connector that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A TLS client that believes these roots, and shows this certificate where there is one.
pub(super) fn tls(roots: &Path, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let fault = |path: &Path, what: &str| format!("{}: {what}", path.display());
    let mut store = RootCertStore::empty();
    for root in certificates(roots)? {
        store
            .add(root)
            .map_err(|error| fault(roots, &error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(store);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let pem = secret_file(key)?;
            let private = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| fault(key, "there is no private key in it"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| fault(certificate, &error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |what: &str| format!("{}: {what}", path.display());
    let pem = read(path).map_err(|error| fault(&error.to_string()))?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| fault("it is not PEM"))?;
    if all.is_empty() {
        return Err(fault("there is no certificate in it"));
    }
    Ok(all)
}

/// What a file holds that not everybody may read, like a password or a key.
pub(super) fn secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let fault = |what: &str| format!("{}: {what}", path.display());
    let about = std::fs::metadata(path).map_err(|error| fault(&error.to_string()))?;
    if about.mode() & 0o007 != 0 {
        return Err(fault("everybody on this host may use it; chmod 0600 it"));
    }
    read(path).map_err(|error| fault(&error.to_string()))
}

/// The first line of such a file.
pub(super) fn password_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let content = secret_file(path)?;
    let line = content.split(|byte| *byte == b'\n').next();
    let line = line.filter(|line| !line.is_empty());
    line.map(|line| Zeroizing::new(line.to_vec()))
        .ok_or_else(|| format!("{}: its first line is empty", path.display()))
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_end(&mut content)?;
    Ok(content)
}
