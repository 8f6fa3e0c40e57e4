//! `kind = "ldap"`: how this host reaches a directory.

use serde::Deserialize;

use super::{SecretRules, postgres::pair};
use crate::config::{AbsolutePath, HostName, Within};

/// Entries of one directory, by their passwords.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ldap {
    /// A host name or address.
    pub host: HostName,
    /// Its port; absent: 636, or 389 with `start-tls`.
    #[serde(default)]
    port: Option<Within<1, 65_535, 636>>,
    /// How TLS begins.
    #[serde(default)]
    pub security: Security,
    /// Who is believed about the server, PEM.
    pub roots: AbsolutePath,
    /// The entry that the connector signs in as; absent: its certificate says who it is (SASL EXTERNAL).
    #[serde(default)]
    pub bind_dn: Option<String>,
    /// A file with that entry's password.
    #[serde(default)]
    pub password_file: Option<AbsolutePath>,
    /// A certificate of the connector, PEM.
    #[serde(default)]
    pub certificate: Option<AbsolutePath>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<AbsolutePath>,
    /// The time of one call.
    #[serde(default)]
    pub deadline_secs: Within<2, 300, 15>,
    /// What new passwords look like.
    #[serde(default)]
    pub rules: SecretRules,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// At once.
    #[default]
    Ldaps,
    /// By a request, on the port for LDAP in clear.
    StartTls,
}

impl Ldap {
    pub(super) fn check(&self) -> Result<(), String> {
        pair(self.certificate.as_ref(), self.key.as_ref())?;
        if self.bind_dn.is_some() != self.password_file.is_some() {
            return Err("`bind_dn` and `password_file` go together".to_owned());
        }
        if self.bind_dn.is_some() == self.certificate.is_some() {
            let how = "`bind_dn` and `password_file`, or `certificate` and `key`";
            return Err(format!("say as whom to sign in: {how}"));
        }
        Ok(())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let usual = match self.security {
            Security::Ldaps => 636,
            Security::StartTls => 389,
        };
        let port = self.port.map(|port| u16::try_from(port.value()));
        port.and_then(Result::ok).unwrap_or(usual)
    }
}
