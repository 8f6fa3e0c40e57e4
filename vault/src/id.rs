//! Identifiers: ULIDs that are given once and never change.
//!
//! Names are for people and may change; rules, rosters and references compare ids. An id is never
//! made here: time and random bytes come from outside.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use ulid::Ulid;

pub use crate::name::GroupName;
use crate::time::Time;

/// An id that is not a ULID in its one canonical spelling.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not an id: write the 26 characters of a ULID in upper case")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// Written as the 26 upper-case Crockford characters of a ULID.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// An id from the time at which it is made and ten random bytes.
            pub const fn from_parts(time: Time, random: [u8; 10]) -> Self {
                let [a, b, c, d, e, f, g, h, i, j] = random;
                let random = u128::from_be_bytes([0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h, i, j]);
                Self(Ulid::from_parts(time.ms(), random))
            }

            /// An id from its 16 bytes, as a store key holds them.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }

            /// The 16 bytes, big-endian: their order is the ids' order.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                canonical(text).map(Self).ok_or(IdError)
            }
        }

        crate::jcs::as_string!($name);
    )*};
}

/// The ULID of this spelling, if it is the canonical one (upper case, no overflow).
fn canonical(text: &str) -> Option<Ulid> {
    let ulid = Ulid::from_string(text).ok()?;
    let mut spelling = [0; ulid::ULID_LEN];
    (ulid.array_to_str(&mut spelling) == text).then_some(ulid)
}

ids! {
    /// A person.
    PersonId;
    /// A token of a person: a `YubiKey` or a software key file.
    TokenId;
    /// A device of a person: the key with which a computer speaks to the daemon.
    DeviceId;
    /// A credential, for ever bound to its path.
    CredentialId;
    /// A ceremony: one request that needs a quorum; made by the requester.
    CeremonyId;
    /// A node: one machine that runs the daemon.
    NodeId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = PersonId::from_parts(Time::from_ms(1_469_922_850_259), [7; 10]);
        let text = id.to_string();
        assert_eq!(text, "01ARZ3NDEK0W3GE1R70W3GE1R7");
        assert_eq!(PersonId::from_bytes(id.to_bytes()), id);
        for (name, text, want) in [
            ("canonical", text.clone(), Ok(id)),
            ("lower case", text.to_lowercase(), Err(IdError)),
            ("too short", text[1..].to_owned(), Err(IdError)),
            ("too long", format!("{text}0"), Err(IdError)),
            ("overflow", format!("8{}", &text[1..]), Err(IdError)),
            (
                "a letter that Crockford leaves out",
                text.replace('W', "U"),
                Err(IdError),
            ),
            ("empty", String::new(), Err(IdError)),
        ] {
            assert_eq!(text.parse::<PersonId>(), want, "{name}");
        }
    }
}
