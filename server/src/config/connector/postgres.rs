//! `kind = "postgres"`: how this host reaches a server of PostgreSQL.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SecretRules;
use crate::config::{AbsolutePath, HostName, Within};

/// Roles of one server, by their passwords.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// A host name or address, or the folder of the server's socket.
    pub host: Host,
    /// Its port; with a socket, the number at the end of its name.
    #[serde(default)]
    pub port: Within<1, 65_535, 5432>,
    /// The database with the schema `keyturn`.
    #[serde(default = "postgres")]
    pub database: String,
    /// The role that the connector signs in as.
    #[serde(default = "keyturn")]
    pub user: String,
    /// A file with that role's password; absent: the server knows the connector by its user on this host (`peer`)
    /// or by its certificate.
    #[serde(default)]
    pub password_file: Option<AbsolutePath>,
    /// Who is believed about the server, PEM. Needed for a host, as there is no sign-in without TLS.
    #[serde(default)]
    pub roots: Option<AbsolutePath>,
    /// A certificate of that role, PEM.
    #[serde(default)]
    pub certificate: Option<AbsolutePath>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<AbsolutePath>,
    /// How often a password is hashed for its verifier.
    #[serde(default)]
    pub iterations: Within<4096, 100_000, 4096>,
    /// The time of one call.
    #[serde(default)]
    pub deadline_secs: Within<2, 300, 15>,
    /// What new passwords look like.
    #[serde(default)]
    pub rules: SecretRules,
}

fn postgres() -> String {
    "postgres".to_owned()
}

fn keyturn() -> String {
    "keyturn".to_owned()
}

impl Postgres {
    pub(super) fn check(&self) -> Result<(), String> {
        if matches!(self.host, Host::Name(_)) && self.roots.is_none() {
            return Err("`roots` is missing: a host is reached by TLS only".to_owned());
        }
        pair(self.certificate.as_ref(), self.key.as_ref())
    }
}

/// A certificate has a key, and a key a certificate.
pub(super) fn pair<T>(certificate: Option<&T>, key: Option<&T>) -> Result<(), String> {
    if certificate.is_some() == key.is_some() {
        return Ok(());
    }
    Err("`certificate` and `key` go together".to_owned())
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Host {
    /// A name or an address.
    Name(HostName),
    /// The folder of a socket.
    Folder(PathBuf),
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(host: String) -> Result<Self, String> {
        if Path::new(&host).is_absolute() {
            return Ok(Self::Folder(host.into()));
        }
        host.try_into().map(Self::Name)
    }
}
