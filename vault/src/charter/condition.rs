//! Conditions of a policy: firmware, hours, networks. Each has one spelling.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reference::ReferenceError;
use crate::time::{Time, decimal};

/// The firmware of a token, written `5.7.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Firmware {
    /// The first number.
    pub major: u8,
    /// The second number.
    pub minor: u8,
    /// The third number.
    pub patch: u8,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Firmware {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let numbers: Vec<u8> = text
                .split('.')
                .map(|part| decimal(part).and_then(|number| u8::try_from(number).ok()))
                .collect::<Option<_>>()?;
            let [major, minor, patch] = <[u8; 3]>::try_from(numbers).ok()?;
            Some(Self {
                major,
                minor,
                patch,
            })
        };
        read().ok_or(ReferenceError("a firmware version like 5.7.1"))
    }
}

crate::jcs::as_string!(Firmware);

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the days need no words")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// The days from Monday on.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    /// The day, in UTC, of a time.
    pub fn of(time: Time) -> Self {
        // 1970-01-01 was a Thursday.
        let day = (time.ms() / 86_400_000).wrapping_add(3) % 7;
        let index = usize::try_from(day).unwrap_or(0);
        Self::ALL.get(index).copied().unwrap_or(Self::Mon)
    }
}

/// Some hours of some days, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// On which days.
    pub days: BTreeSet<Weekday>,
    /// From this hour on, 0 to 23.
    pub from_hour: u8,
    /// Until this hour begins, 1 to 24, later than `from_hour`.
    pub until_hour: u8,
}

impl Hours {
    /// Do they contain this time?
    pub fn contain(&self, time: Time) -> bool {
        let hour = time.ms() / 3_600_000 % 24;
        self.days.contains(&Weekday::of(time))
            && (u64::from(self.from_hour)..u64::from(self.until_hour)).contains(&hour)
    }
}

/// Addresses with a common prefix (CIDR), written `192.0.2.0/24` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// An address as 128 bits, the four bytes of IPv4 first, and how many of them count.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The first `prefix` of 128 bits.
fn masked(bits: u128, prefix: u8) -> u128 {
    let rest = 128_u32.saturating_sub(u32::from(prefix));
    bits.checked_shr(rest)
        .and_then(|high| high.checked_shl(rest))
        .unwrap_or(0)
}

impl Network {
    /// Is the address in it? An IPv4 address mapped into IPv6 is judged as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let (network, address) = match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                (bits(self.address).0, bits(address).0)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        masked(address, self.prefix) == network
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix = u8::try_from(decimal(prefix)?).ok()?;
            let (bits, width) = bits(address);
            let network = Self { address, prefix };
            // Bits beyond the prefix are 0, and there is one spelling: addresses are compared as
            // IPv4 where they are mapped into IPv6.
            let plain = address.to_canonical() == address && network.to_string() == text;
            (plain && prefix <= width && masked(bits, prefix) == bits).then_some(network)
        };
        read().ok_or(ReferenceError(
            "a network like 192.0.2.0/24 or 2001:db8::/32",
        ))
    }
}

crate::jcs::as_string!(Network);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling_and_contain_their_addresses() {
        for (text, address, want) in [
            ("192.0.2.0/24", "192.0.2.255", Some(true)),
            ("192.0.2.0/24", "192.0.3.0", Some(false)),
            ("192.0.2.0/24", "::ffff:192.0.2.1", Some(true)),
            ("0.0.0.0/0", "198.51.100.1", Some(true)),
            ("0.0.0.0/0", "2001:db8::1", Some(false)),
            ("192.0.2.7/32", "192.0.2.7", Some(true)),
            ("2001:db8::/32", "2001:db8:1::1", Some(true)),
            ("2001:db8::/32", "2001:db9::1", Some(false)),
            ("::/0", "::1", Some(true)),
            ("192.0.2.1/24", "192.0.2.1", None),
            ("192.0.2.0/33", "192.0.2.1", None),
            ("192.0.2.0/024", "192.0.2.1", None),
            ("2001:DB8::/32", "::1", None),
            ("::ffff:192.0.2.0/120", "192.0.2.1", None),
            ("192.0.2.0", "::1", None),
        ] {
            let network = text.parse::<Network>().ok();
            assert_eq!(
                network.map(|network| network.contains(address.parse().unwrap())),
                want,
                "{text} {address}"
            );
        }
    }

    #[test]
    fn hours_are_of_days_in_utc() {
        let office = Hours {
            days: BTreeSet::from([Weekday::Fri, Weekday::Sat]),
            from_hour: 8,
            until_hour: 18,
        };
        for (time, want) in [
            ("2026-11-21T08:00:00.000Z", true), // a Saturday
            ("2026-11-21T17:59:59.999Z", true),
            ("2026-11-21T18:00:00.000Z", false),
            ("2026-11-21T07:59:59.999Z", false),
            ("2026-11-22T12:00:00.000Z", false),
            ("2026-11-20T12:00:00.000Z", true),
        ] {
            assert_eq!(office.contain(time.parse().unwrap()), want, "{time}");
        }
    }
}
