//! Where each thing is kept: one typed name for each kind of row.
//!
//! A key is a family (`entry/`), then its parts. Integers are eight bytes, big-endian, so that the order of
//! keys is the order of numbers; digests are their 32 bytes and ids their 16, which sort by time.
//! No family is the beginning of another, and the parts have fixed widths but for one, so each key has one name.
//!
//! # Invariants
//!
//! 1. `key.name()` gives back the name that made the key, and keys of different names differ.
//! 2. Within a family keys sort as their parts do.

use std::fmt;

use keyturn_vault::digest::Digest;
use keyturn_vault::id::{CeremonyId, CredentialId, NodeId};
use keyturn_vault::time::Time;
use ulid::Ulid;

/// The bytes that name a row. Made by [`Name::key`], or read back from a store or a backup.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key as it was read from a backup; daemons make theirs with [`Name::key`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What is kept there, or `None` for a key that no [`Name`] makes.
    pub fn name(&self) -> Option<Name<'_>> {
        Name::parse(&self.0)
    }

    /// The first key after this one.
    pub(super) fn successor(&self) -> Self {
        let mut bytes = self.0.clone();
        bytes.push(0);
        Self(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => name.fmt(f),
            None => self.0.escape_ascii().fmt(f),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is kept in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// `meta/format`: which daemon can read the rows.
    Format,
    /// `meta/probe`: written to see whether the store takes changes.
    Probe,
    /// `meta/vault`: which vault this is, and its charter in force.
    Vault,
    /// `meta/clock`: the vault's own clocks.
    Clock,
    /// `meta/proposals`: which documents were proposed.
    Proposals,
    /// `meta/outbox`: the number of the next notice.
    OutboxNext,
    /// `meta/restore`: what was restored and is not accepted yet.
    Restore,
    /// `head`: size, root and right edge of the log.
    Head,
    /// `entry/<n>`: an entry of the log.
    Entry(u64),
    /// `object/<sha256>`: a document.
    Object(Digest),
    /// `proposal/<sha256>`: a document that was proposed and that no request has named yet.
    Proposal(Digest),
    /// `credential/<id>`: a credential and its definition.
    Credential(CredentialId),
    /// `path/<path>`: the credential to which a path is bound for ever.
    Path(&'a str),
    /// `version/<credential>/<v>`: one sealed value.
    Version(CredentialId, u64),
    /// `ceremony/<id>`: a ceremony.
    Ceremony(CeremonyId),
    /// `checkout/<credential>`: who has it out.
    Checkout(CredentialId),
    /// `job/<credential>`: where its rotation stands.
    Job(CredentialId),
    /// `due/<time>/<kind>/<id>`: what the clock will bring.
    Due {
        /// When.
        at: Time,
        /// What becomes due.
        kind: &'a str,
        /// The 16 bytes of the id of the ceremony or credential.
        id: [u8; 16],
    },
    /// `details/<ceremony>`: the erasable text of a request.
    Details(CeremonyId),
    /// `outbox/<seq>`: a notice that still has to be sent.
    Outbox(u64),
    /// `node/<id>`: what a node of the vault knows about itself.
    Node(NodeId),
}

/// The first part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the family of the name it is called after"
)]
pub enum Family {
    Meta,
    Head,
    Entry,
    Object,
    Proposal,
    Credential,
    Path,
    Version,
    Ceremony,
    Checkout,
    Job,
    Due,
    Details,
    Outbox,
    Node,
}

impl Family {
    const ALL: [Self; 15] = [
        Self::Meta,
        Self::Head,
        Self::Entry,
        Self::Object,
        Self::Proposal,
        Self::Credential,
        Self::Path,
        Self::Version,
        Self::Ceremony,
        Self::Checkout,
        Self::Job,
        Self::Due,
        Self::Details,
        Self::Outbox,
        Self::Node,
    ];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Meta => "meta/",
            Self::Head => "head",
            Self::Entry => "entry/",
            Self::Object => "object/",
            Self::Proposal => "proposal/",
            Self::Credential => "credential/",
            Self::Path => "path/",
            Self::Version => "version/",
            Self::Ceremony => "ceremony/",
            Self::Checkout => "checkout/",
            Self::Job => "job/",
            Self::Due => "due/",
            Self::Details => "details/",
            Self::Outbox => "outbox/",
            Self::Node => "node/",
        }
    }
}

impl<'a> Name<'a> {
    /// The key of the row.
    pub fn key(&self) -> Key {
        let mut bytes = self.family().prefix().as_bytes().to_vec();
        match self {
            Self::Format => bytes.extend(b"format"),
            Self::Probe => bytes.extend(b"probe"),
            Self::Vault => bytes.extend(b"vault"),
            Self::Clock => bytes.extend(b"clock"),
            Self::Proposals => bytes.extend(b"proposals"),
            Self::OutboxNext => bytes.extend(b"outbox"),
            Self::Restore => bytes.extend(b"restore"),
            Self::Head => {}
            Self::Entry(n) | Self::Outbox(n) => bytes.extend(n.to_be_bytes()),
            Self::Object(digest) | Self::Proposal(digest) => bytes.extend(digest.as_bytes()),
            Self::Path(path) => bytes.extend(path.as_bytes()),
            Self::Credential(id) | Self::Checkout(id) | Self::Job(id) => {
                bytes.extend(id.to_bytes());
            }
            Self::Ceremony(id) | Self::Details(id) => bytes.extend(id.to_bytes()),
            Self::Node(id) => bytes.extend(id.to_bytes()),
            Self::Version(credential, version) => {
                bytes.extend(credential.to_bytes());
                bytes.push(b'/');
                bytes.extend(version.to_be_bytes());
            }
            Self::Due { at, kind, id } => {
                bytes.extend(at.ms().to_be_bytes());
                bytes.extend(format!("/{kind}/").bytes());
                bytes.extend(id);
            }
        }
        Key(bytes)
    }

    /// The family it belongs to.
    pub const fn family(&self) -> Family {
        match self {
            Self::Format
            | Self::Probe
            | Self::Vault
            | Self::Clock
            | Self::Restore
            | Self::Proposals
            | Self::OutboxNext => Family::Meta,
            Self::Head => Family::Head,
            Self::Entry(_) => Family::Entry,
            Self::Object(_) => Family::Object,
            Self::Proposal(_) => Family::Proposal,
            Self::Credential(_) => Family::Credential,
            Self::Path(_) => Family::Path,
            Self::Version(..) => Family::Version,
            Self::Ceremony(_) => Family::Ceremony,
            Self::Checkout(_) => Family::Checkout,
            Self::Job(_) => Family::Job,
            Self::Due { .. } => Family::Due,
            Self::Details(_) => Family::Details,
            Self::Outbox(_) => Family::Outbox,
            Self::Node(_) => Family::Node,
        }
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (family, rest) = Family::ALL.into_iter().find_map(|family| {
            let rest = bytes.strip_prefix(family.prefix().as_bytes())?;
            Some((family, rest))
        })?;
        Some(match family {
            Family::Meta if rest == b"format" => Self::Format,
            Family::Meta if rest == b"probe" => Self::Probe,
            Family::Meta if rest == b"vault" => Self::Vault,
            Family::Meta if rest == b"clock" => Self::Clock,
            Family::Meta if rest == b"proposals" => Self::Proposals,
            Family::Meta if rest == b"outbox" => Self::OutboxNext,
            Family::Meta if rest == b"restore" => Self::Restore,
            Family::Head if rest.is_empty() => Self::Head,
            Family::Meta | Family::Head => return None,
            Family::Entry => Self::Entry(number(rest)?),
            Family::Object => Self::Object(Digest(rest.try_into().ok()?)),
            Family::Proposal => Self::Proposal(Digest(rest.try_into().ok()?)),
            Family::Credential => Self::Credential(CredentialId::from_bytes(id(rest)?)),
            Family::Path => Self::Path(str::from_utf8(rest).ok()?),
            Family::Version => {
                let (credential, version) = rest.split_last_chunk::<8>()?;
                let credential = id(credential.strip_suffix(b"/")?)?;
                let version = u64::from_be_bytes(*version);
                Self::Version(CredentialId::from_bytes(credential), version)
            }
            Family::Ceremony => Self::Ceremony(CeremonyId::from_bytes(id(rest)?)),
            Family::Checkout => Self::Checkout(CredentialId::from_bytes(id(rest)?)),
            Family::Job => Self::Job(CredentialId::from_bytes(id(rest)?)),
            Family::Due => {
                let (at, rest) = rest.split_first_chunk::<8>()?;
                let (rest, id) = rest.split_last_chunk::<16>()?;
                let kind = rest.strip_prefix(b"/")?.strip_suffix(b"/")?;
                Self::Due {
                    at: Time::from_ms(u64::from_be_bytes(*at)),
                    kind: str::from_utf8(kind).ok()?,
                    id: *id,
                }
            }
            Family::Details => Self::Details(CeremonyId::from_bytes(id(rest)?)),
            Family::Outbox => Self::Outbox(number(rest)?),
            Family::Node => Self::Node(NodeId::from_bytes(id(rest)?)),
        })
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family().prefix())?;
        match self {
            Self::Format => f.write_str("format"),
            Self::Probe => f.write_str("probe"),
            Self::Vault => f.write_str("vault"),
            Self::Clock => f.write_str("clock"),
            Self::Proposals => f.write_str("proposals"),
            Self::OutboxNext => f.write_str("outbox"),
            Self::Restore => f.write_str("restore"),
            Self::Head => Ok(()),
            Self::Entry(n) | Self::Outbox(n) => write!(f, "{n}"),
            Self::Object(digest) | Self::Proposal(digest) => digest.fmt(f),
            Self::Path(path) => f.write_str(path),
            Self::Credential(id) | Self::Checkout(id) | Self::Job(id) => id.fmt(f),
            Self::Ceremony(id) | Self::Details(id) => id.fmt(f),
            Self::Node(id) => id.fmt(f),
            Self::Version(credential, version) => write!(f, "{credential}/{version}"),
            Self::Due { at, kind, id } => {
                write!(f, "{}/{kind}/{}", at.ms(), Ulid::from_bytes(*id))
            }
        }
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn id(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

/// Keys from `start`, up to but without `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub(super) start: Key,
    pub(super) end: Option<Key>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self::prefix(Vec::new())
    }

    /// All rows of a family.
    pub fn family(family: Family) -> Self {
        Self::prefix(family.prefix())
    }

    /// Log entries from number `from`, up to but without `to`.
    pub fn entries(from: u64, to: u64) -> Self {
        Self {
            start: Name::Entry(from).key(),
            end: Some(Name::Entry(to).key()),
        }
    }

    /// All versions of a credential.
    pub fn versions(credential: CredentialId) -> Self {
        let family = Family::Version.prefix().as_bytes();
        Self::prefix([family, &credential.to_bytes()].concat())
    }

    /// What is due at `now` or before, the oldest first.
    pub fn due(now: Time) -> Self {
        let all = Self::family(Family::Due);
        let Some(after) = now.ms().checked_add(1) else {
            return all;
        };
        let family = Family::Due.prefix().as_bytes();
        Self {
            end: Some(Key([family, &after.to_be_bytes()].concat())),
            ..all
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        let end = loop {
            match end.pop() {
                None => break None,
                Some(u8::MAX) => {}
                Some(last) => {
                    end.push(last.saturating_add(1));
                    break Some(Key(end));
                }
            }
        };
        Self {
            start: Key(start),
            end,
        }
    }

    /// Whether the key is in the range.
    pub fn contains(&self, key: &Key) -> bool {
        self.start <= *key && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// The range without `key` and everything after it.
    #[must_use]
    pub fn before(&self, key: &Key) -> Self {
        Self {
            start: self.start.clone(),
            end: Some(key.clone()),
        }
    }

    /// The range without everything up to and with `key`.
    #[must_use]
    pub fn after(&self, key: &Key) -> Self {
        Self {
            start: key.successor(),
            end: self.end.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    const CREDENTIAL: CredentialId = CredentialId::from_bytes(ID);
    const CEREMONY: CeremonyId = CeremonyId::from_bytes(ID);

    fn due(ms: u64, kind: &str) -> Name<'_> {
        Name::Due {
            at: Time::from_ms(ms),
            kind,
            id: ID,
        }
    }

    fn all_names() -> Vec<(&'static str, Name<'static>)> {
        vec![
            ("meta/format", Name::Format),
            ("meta/probe", Name::Probe),
            ("head", Name::Head),
            ("entry/513", Name::Entry(513)),
            ("object/0505", Name::Object(Digest([5; 32]))),
            ("proposal/0505", Name::Proposal(Digest([5; 32]))),
            ("meta/proposals", Name::Proposals),
            ("meta/outbox", Name::OutboxNext),
            ("credential/01", Name::Credential(CREDENTIAL)),
            ("path/aws/123/root", Name::Path("aws/123/root")),
            ("version/01", Name::Version(CREDENTIAL, 7)),
            ("ceremony/01", Name::Ceremony(CEREMONY)),
            ("checkout/01", Name::Checkout(CREDENTIAL)),
            ("job/01", Name::Job(CREDENTIAL)),
            ("due/7/ceremony/01", due(7, "ceremony")),
            ("details/01", Name::Details(CEREMONY)),
            ("outbox/9", Name::Outbox(9)),
            ("node/01", Name::Node(NodeId::from_bytes(ID))),
        ]
    }

    /// Invariant 1.
    #[test]
    fn a_key_has_the_name_that_made_it() {
        let names = all_names();
        for (shown, name) in &names {
            let key = name.key();
            assert_eq!(key.name(), Some(*name), "{shown}");
            assert!(key.to_string().starts_with(shown), "{key} {shown}");
            assert!(KeyRange::family(name.family()).contains(&key), "{shown}");
            let within = |family: &&Family| KeyRange::family(**family).contains(&key);
            assert_eq!(Family::ALL.iter().filter(within).count(), 1, "{shown}");
            let mut others = names.iter().filter(|(_, other)| other != name);
            assert!(others.all(|(_, other)| other.key() != key), "{shown}");
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        for (name, want) in [
            (Name::Format, [b"meta/format".as_slice(), b"", b""].concat()),
            (
                Name::Entry(513),
                [b"entry/".as_slice(), &[0, 0, 0, 0, 0, 0, 2, 1]].concat(),
            ),
            (
                Name::Object(Digest([5; 32])),
                [b"object/".as_slice(), &[5; 32]].concat(),
            ),
            (
                Name::Ceremony(CEREMONY),
                [b"ceremony/", ID.as_slice()].concat(),
            ),
            (
                Name::Version(CREDENTIAL, 7),
                [b"version/", ID.as_slice(), b"/\0\0\0\0\0\0\0\x07"].concat(),
            ),
            (
                due(258, "checkout"),
                [b"due/\0\0\0\0\0\0\x01\x02/checkout/", ID.as_slice()].concat(),
            ),
        ] {
            assert_eq!(name.key().as_bytes(), want, "{name}");
        }
    }

    #[test]
    fn a_key_that_no_name_makes_has_none() {
        for (why, bytes) in [
            ("empty", b"".as_slice()),
            ("no family", b"other/1"),
            ("more than the head", b"head/1"),
            ("unknown meta", b"meta/x"),
            ("short number", b"entry/1234567"),
            ("long number", b"entry/123456789"),
            ("short digest", b"object/12"),
            ("short id", b"job/123456789012345"),
            ("long id", b"job/12345678901234567"),
            ("not UTF-8", b"path/\xff"),
            ("no version", b"version/1234567890123456"),
            ("no slash", b"version/1234567890123456.12345678"),
            ("no kind", b"due/12345678/1234567890123456"),
        ] {
            assert_eq!(Key::from_bytes(bytes).name(), None, "{why}");
        }
    }

    /// Invariant 2.
    #[test]
    fn keys_sort_as_their_parts() {
        let version = |number| Name::Version(CREDENTIAL, number);
        for (why, first, second) in [
            ("one byte", Name::Entry(1), Name::Entry(2)),
            ("a carry", Name::Entry(255), Name::Entry(256)),
            ("the last", Name::Entry(u64::MAX - 1), Name::Entry(u64::MAX)),
            ("versions", version(9), version(10)),
            ("time before kind", due(1, "z"), due(2, "a")),
        ] {
            assert!(first.key() < second.key(), "{why}");
        }
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let entries = KeyRange::entries(2, 4);
        let versions = KeyRange::versions(CREDENTIAL);
        let other = CredentialId::from_bytes([1; 16]);
        let end = Time::from_ms(u64::MAX);
        let now = KeyRange::due(Time::from_ms(9));
        for (why, range, name, want) in [
            ("before", &entries, Name::Entry(1), false),
            ("first", &entries, Name::Entry(2), true),
            ("last", &entries, Name::Entry(3), true),
            ("end", &entries, Name::Entry(4), false),
            (
                "a version",
                &versions,
                Name::Version(CREDENTIAL, u64::MAX),
                true,
            ),
            ("other's version", &versions, Name::Version(other, 1), false),
            ("due now", &now, due(9, "job"), true),
            ("due later", &now, due(10, "job"), false),
            (
                "due at the end of time",
                &KeyRange::due(end),
                due(u64::MAX, "job"),
                true,
            ),
            ("not due", &KeyRange::due(end), Name::Entry(1), false),
            ("everything", &KeyRange::all(), Name::Head, true),
        ] {
            assert_eq!(range.contains(&name.key()), want, "{why}");
        }
        let high = KeyRange::prefix([b'a', 0xff]);
        assert_eq!(high.end, Some(Key::from_bytes(*b"b")));
        assert_eq!(KeyRange::prefix([0xff]).end, None);
    }
}
