//! Certificates of servers and clients for tests, under a root of their own.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::harness::{Outcome, write_private};

/// Writes a file that everybody may read.
pub(crate) fn readable(path: &Path, text: &str) -> Outcome<()> {
    write_private(path, text.as_bytes())?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o644),
    )?)
}

/// Makes `roots.pem`, `server.crt` and `server.key` for this host, and `certified.crt` and `certified.key` for a client.
pub(crate) fn make(folder: &Path) -> Outcome<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "root of a test");
    let key = KeyPair::generate()?;
    let root = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    readable(&folder.join("roots.pem"), &root.pem())?;
    for (file, names) in [
        ("server", &["localhost", "127.0.0.1"][..]),
        ("certified", &["certified"]),
    ] {
        let key = KeyPair::generate()?;
        let name = names.first().copied().unwrap_or_default();
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer)?;
        readable(&folder.join(format!("{file}.crt")), &certificate.pem())?;
        let path = folder.join(format!("{file}.key"));
        write_private(&path, key.serialize_pem().as_bytes())?;
    }
    Ok(())
}
