//! Where a vault may be reached.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

/// Where a vault listens when an address names no port.
pub const DEFAULT_PORT: u16 = 7400;

/// Where a vault may be reached: `vault.example.org`, `192.0.2.7:7400`, `[2001:db8::1]:7400`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Not an address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not an address: write HOST:PORT, like vault.example.org:7400 or [2001:db8::1]:7400")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bare = |host: &str| Self {
            host: host.to_owned(),
            port: DEFAULT_PORT,
        };
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(bare(&ip.to_string()));
        }
        let mut address = match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() => Self {
                host: host.to_owned(),
                port: port.parse().map_err(|_| AddressError)?,
            },
            Some(_) => return Err(AddressError),
            None => bare(text),
        };
        if let Some(ip) = address
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            let ip: Ipv6Addr = ip.parse().map_err(|_| AddressError)?;
            address.host = ip.to_string();
        } else if !is_host(&address.host) {
            return Err(AddressError);
        }
        if address.port == 0 {
            Err(AddressError)
        } else {
            Ok(address)
        }
    }
}

fn is_host(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (1..=253).contains(&host.len()) && host.bytes().all(plain)
}

impl Address {
    /// A name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, want) in [
            ("vault.example.org", Some("vault.example.org:7400")),
            ("vault.example.org:443", Some("vault.example.org:443")),
            ("192.0.2.7", Some("192.0.2.7:7400")),
            ("192.0.2.7:1", Some("192.0.2.7:1")),
            ("2001:db8::1", Some("[2001:db8::1]:7400")),
            ("[2001:db8::1]:7", Some("[2001:db8::1]:7")),
            ("", None),
            (":7400", None),
            ("host:", None),
            ("host:0", None),
            ("host:65536", None),
            ("https://host:7400", None),
            ("[host]:7400", None),
            ("ho st:7400", None),
            ("h\u{f6}st:7400", None),
        ] {
            let address = text.parse::<Address>();
            assert_eq!(
                address.as_ref().ok().map(ToString::to_string).as_deref(),
                want,
                "{text}"
            );
        }
    }
}
