//! Values of a configuration that cannot be wrong.

use std::{
    borrow::Borrow,
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

/// A whole number from `MIN` to `MAX`, or `DEFAULT` where the file does not say.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Within<const MIN: u32, const MAX: u32, const DEFAULT: u32>(u32);

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> Within<MIN, MAX, DEFAULT> {
    /// The number, if it is in bounds.
    pub fn new(value: u32) -> Option<Self> {
        (MIN..=MAX).contains(&value).then_some(Self(value))
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The number, as a length.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// So many seconds.
    pub fn secs(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    /// The number, where `MIN` is above 0.
    pub fn positive(self) -> NonZeroU32 {
        NonZeroU32::new(self.0).unwrap_or(NonZeroU32::MIN)
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> Default for Within<MIN, MAX, DEFAULT> {
    fn default() -> Self {
        const { assert!(MIN <= DEFAULT && DEFAULT <= MAX) };
        Self(DEFAULT)
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> TryFrom<i64>
    for Within<MIN, MAX, DEFAULT>
{
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        u32::try_from(value)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| format!("{value} is out of bounds: write {MIN} to {MAX}"))
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> fmt::Debug for Within<MIN, MAX, DEFAULT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A path from the root, without `.` and `..`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        use std::path::Component::{CurDir, ParentDir};
        if !path.is_absolute() {
            return Err(format!("`{}` must begin with `/`", path.display()));
        }
        if path
            .components()
            .any(|part| matches!(part, CurDir | ParentDir))
        {
            return Err(format!("`{}` must be written without `..`", path.display()));
        }
        Ok(Self(path))
    }
}

/// The name of a host in DNS, or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
        if (1..=253).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Self(name))
        } else {
            Err(format!(
                "{name:?} is not a host; write a name or an address"
            ))
        }
    }
}

/// One to eight socket addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<SocketAddr>")]
pub struct Addresses(Vec<SocketAddr>);

impl Addresses {
    /// The addresses; at least one.
    pub fn all(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl TryFrom<Vec<SocketAddr>> for Addresses {
    type Error = String;

    fn try_from(addresses: Vec<SocketAddr>) -> Result<Self, String> {
        if addresses.is_empty() || addresses.len() > 8 {
            return Err("name 1 to 8 addresses, like [\"0.0.0.0:7400\"]".to_owned());
        }
        Ok(Self(addresses))
    }
}

/// A socket address on this host alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SocketAddr")]
pub struct Loopback(SocketAddr);

impl Loopback {
    /// The address.
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for Loopback {
    type Error = String;

    fn try_from(address: SocketAddr) -> Result<Self, String> {
        if address.ip().is_loopback() {
            Ok(Self(address))
        } else {
            Err(format!(
                "{address} can be reached from elsewhere and metrics ask nobody who they are: \
                 write an address like 127.0.0.1:7401"
            ))
        }
    }
}

/// A short name for definitions, logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Label(String);

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Self(name))
        } else {
            Err(format!("`{name}` must be 1 to 32 of a-z, 0-9 and `-`"))
        }
    }
}

/// An `http` or `https` URL without a user and without a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as they were written, for the header `Host`.
    pub authority: String,
    /// Path and query; begins with `/`.
    pub path: String,
}

impl TryFrom<String> for WebUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}`: write a URL like https://hooks.example.org/keyturn");
        let url: http::Uri = text.parse().map_err(|_| wrong())?;
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = url.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(wrong());
        }
        let host = authority.host();
        Ok(Self {
            tls,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: url
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}
