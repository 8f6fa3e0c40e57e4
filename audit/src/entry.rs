//! The envelope of a log entry.
//!
//! ```json
//! {"actor":"alice","body":{},"charter":1,"n":0,"time":"2026-11-21T02:17:00.123Z","type":"alive","v":1}
//! ```
//!
//! An entry is canonical JSON (RFC 8785), because its bytes are hashed into the tree: two spellings of one
//! statement would be two leaves. Bodies are opaque, but their JSON is held to the same rules.
//!
//! # Invariants
//! 1. Decoded bytes are the bytes that [`Entry::encode`] gives for the result: no duplicate key, no white
//!    space, no other order or escape passes.
//! 2. Numbers are integers that every JSON reader represents exactly (|x| ≤ 2^53 - 1); `1.0`, `1e3` and `-0`
//!    are refused.
//! 3. Keys are printable ASCII: they sort alike as UTF-8 and as UTF-16, which RFC 8785 asks for.
//! 4. What can be encoded can be decoded: both sides share one check of size, depth, numbers and keys.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Longest entry in bytes: what the 16-bit length in an entry bundle can say.
pub const MAX_ENTRY_BYTES: usize = 65_535;
/// Deepest nesting of arrays and objects in a body.
pub const MAX_DEPTH: usize = 32;
/// Largest integer (in absolute value) in an entry: 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Longest actor in bytes.
pub const MAX_ACTOR_BYTES: usize = 500;
/// Longest type in bytes.
pub const MAX_KIND_BYTES: usize = 64;

/// Room for most entries, so that they are written into one piece of memory.
const USUAL_BYTES: usize = 2048;

/// The version that every entry carries in `v`.
const VERSION: u64 = 1;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, from 0.
    pub n: u64,
    /// When the writer's clock says that it happened: `2026-11-21T02:17:00.123Z`.
    pub time: String,
    /// Index of the charter in force.
    pub charter: u64,
    /// Who did it.
    pub actor: String,
    /// What happened, like `unseal.authorized`; `type` in JSON.
    pub kind: String,
    /// The statement itself: an object, opaque here.
    pub body: Value,
}

/// Why an entry cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// More than [`MAX_ENTRY_BYTES`].
    #[error("an entry has at most {MAX_ENTRY_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Not JSON, or not of the envelope's shape.
    #[error("not an entry of the log")]
    Shape(#[source] serde_json::Error),
    /// The same statement in another spelling, or with a duplicate key.
    #[error("the entry is not in canonical form (RFC 8785)")]
    NotCanonical,
    /// `v` says that another program wrote it.
    #[error("entries of version {0} are not known to this program; use a newer one")]
    Version(u64),
    /// A field does not have its form.
    #[error("`{0}` does not have its form")]
    Field(&'static str),
    /// A number in the body is not an integer within ±(2^53 - 1).
    #[error("numbers in an entry are integers within ±(2^53 - 1)")]
    Number,
    /// A key in the body is empty or not printable ASCII.
    #[error("keys in an entry are printable ASCII")]
    Key,
    /// The body nests deeper than [`MAX_DEPTH`].
    #[error("an entry nests at most {MAX_DEPTH} levels deep")]
    Depth,
}

/// The envelope as it is written: fields in the order of their JSON names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<S, B> {
    actor: S,
    body: B,
    charter: u64,
    n: u64,
    time: S,
    #[serde(rename = "type")]
    kind: S,
    v: u64,
}

impl Entry {
    /// The bytes that are hashed, stored and published.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, &self.envelope()).map_err(EntryError::Shape)?;
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads an entry and refuses every spelling but the one that [`Entry::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong(bytes.len()));
        }
        let read: Envelope<String, Value> =
            serde_json::from_slice(bytes).map_err(EntryError::Shape)?;
        if read.v != VERSION {
            return Err(EntryError::Version(read.v));
        }
        let entry = Self {
            n: read.n,
            time: read.time,
            charter: read.charter,
            actor: read.actor,
            kind: read.kind,
            body: read.body,
        };
        entry.check()?;
        let mut rest = Remaining(bytes);
        serde_json::to_writer(&mut rest, &entry.envelope())
            .map_err(|_| EntryError::NotCanonical)?;
        if rest.0.is_empty() {
            Ok(entry)
        } else {
            Err(EntryError::NotCanonical)
        }
    }

    fn envelope(&self) -> Envelope<&str, &Value> {
        Envelope {
            actor: &self.actor,
            body: &self.body,
            charter: self.charter,
            n: self.n,
            time: &self.time,
            kind: &self.kind,
            v: VERSION,
        }
    }

    /// Everything that must hold of an entry besides its spelling.
    fn check(&self) -> Result<(), EntryError> {
        for (form, field) in [
            (is_actor(&self.actor), "actor"),
            (self.body.is_object(), "body"),
            (self.charter <= MAX_INTEGER, "charter"),
            (self.n <= MAX_INTEGER, "n"),
            (is_time(&self.time), "time"),
            (is_kind(&self.kind), "type"),
        ] {
            if !form {
                return Err(EntryError::Field(field));
            }
        }
        check_value(&self.body, MAX_DEPTH)
    }
}

fn is_actor(actor: &str) -> bool {
    (1..=MAX_ACTOR_BYTES).contains(&actor.len()) && !actor.chars().any(char::is_control)
}

fn is_kind(kind: &str) -> bool {
    kind.len() <= MAX_KIND_BYTES
        && kind.starts_with(|first: char| first.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ` with every part in its range; whether the day exists is not asked here.
fn is_time(time: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let text = time.as_bytes();
    let number = |part: std::ops::Range<usize>| time.get(part).and_then(|t| t.parse::<u8>().ok());
    text.len() == form.len()
        && text.iter().zip(form).all(|(have, want)| match want {
            b'd' => have.is_ascii_digit(),
            _ => have == want,
        })
        && [
            (5..7, 1, 12),
            (8..10, 1, 31),
            (11..13, 0, 23),
            (14..16, 0, 59),
            (17..19, 0, 59),
        ]
        .into_iter()
        .all(|(part, low, high)| number(part).is_some_and(|n| (low..=high).contains(&n)))
}

fn check_value(value: &Value, depth: usize) -> Result<(), EntryError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let size = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            match size {
                Some(size) if size <= MAX_INTEGER => Ok(()),
                _ => Err(EntryError::Number),
            }
        }
        Value::Array(items) => {
            let depth = depth.checked_sub(1).ok_or(EntryError::Depth)?;
            items.iter().try_for_each(|item| check_value(item, depth))
        }
        Value::Object(members) => {
            let depth = depth.checked_sub(1).ok_or(EntryError::Depth)?;
            let mut before = "";
            for (key, member) in members {
                if key.is_empty() || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                    return Err(EntryError::Key);
                }
                // A map that keeps insertion order must not change the bytes unnoticed.
                if key.as_str() <= before {
                    return Err(EntryError::NotCanonical);
                }
                before = key;
                check_value(member, depth)?;
            }
            Ok(())
        }
    }
}

/// A writer that compares instead of storing: what is left of the expected bytes.
struct Remaining<'a>(&'a [u8]);

impl io::Write for Remaining<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.strip_prefix(bytes) {
            Some(rest) => {
                self.0 = rest;
                Ok(bytes.len())
            }
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = r#"{"actor":"alice 01HY","body":{"a":1,"b":["é",-2,null,true],"c":{"d":""}},"charter":12,"n":7,"time":"2026-11-21T02:17:00.123Z","type":"unseal.authorized","v":1}"#;

    fn entry(body: Value) -> Entry {
        Entry {
            n: 7,
            time: "2026-11-21T02:17:00.123Z".into(),
            charter: 12,
            actor: "alice 01HY".into(),
            kind: "unseal.authorized".into(),
            body,
        }
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn reads_and_writes_the_same_bytes() {
        let want = entry(json!({"c": {"d": ""}, "b": ["é", -2, null, true], "a": 1}));
        assert_eq!(want.encode().unwrap(), GOOD.as_bytes());
        assert_eq!(Entry::decode(GOOD.as_bytes()).unwrap(), want);
    }

    #[test]
    fn strings_are_escaped_as_rfc_8785_says() {
        let text = "\u{8}\t\n\u{c}\r\u{1}\u{1f}\"\\/\u{7f}\u{20ac}\u{1f600}";
        let bytes = entry(json!({ "s": text })).encode().unwrap();
        let want = r#"{"s":"\b\t\n\f\r\u0001\u001f\"\\/"#.to_owned() + "\u{7f}\u{20ac}\u{1f600}\"}";
        assert!(String::from_utf8(bytes).unwrap().contains(&want));
    }

    #[test]
    fn refuses_other_spellings_of_the_same_statement() {
        // Invariants 1 and 2.
        for (name, from, to) in [
            ("white space", r#""n":7"#, r#""n": 7"#),
            ("line end after it", r#""v":1}"#, "\"v\":1}\n"),
            ("something after it", r#""v":1}"#, r#""v":1}{}"#),
            ("byte order mark", r#"{"actor""#, "\u{feff}{\"actor\""),
            ("key twice in the envelope", r#""n":7"#, r#""n":7,"n":7"#),
            ("key twice in the body", r#""a":1"#, r#""a":2,"a":1"#),
            ("key twice, deep", r#""d":"""#, r#""d":"","d":"""#),
            ("other order", r#""a":1,"b""#, r#""b":1,"a""#),
            (
                "other order in the envelope",
                r#""charter":12,"n":7"#,
                r#""n":7,"charter":12"#,
            ),
            ("escaped letter", "é", r"\u00e9"),
            ("escaped slash", r#""d":"""#, r#""d":"\/""#),
            ("upper-case escape", r#""d":"""#, r#""d":"\u001F""#),
            ("lone surrogate", r#""d":"""#, r#""d":"\ud800""#),
            ("raw control character", r#""d":"""#, "\"d\":\"\u{1}\""),
            ("fraction", r#""a":1"#, r#""a":1.0"#),
            ("exponent", r#""a":1"#, r#""a":1e3"#),
            ("negative zero", r#""a":1"#, r#""a":-0"#),
            ("leading zero", r#""a":1"#, r#""a":01"#),
            ("plus", r#""a":1"#, r#""a":+1"#),
            ("2^53", r#""a":1"#, r#""a":9007199254740992"#),
            ("-2^53", r#""a":1"#, r#""a":-9007199254740992"#),
            ("beyond 64 bits", r#""a":1"#, r#""a":18446744073709551616"#),
            ("unknown field", r#""v":1"#, r#""v":1,"w":1"#),
            ("missing field", r#""n":7,"#, ""),
            ("other version", r#""v":1"#, r#""v":2"#),
            ("negative n", r#""n":7"#, r#""n":-7"#),
            ("n as a float", r#""n":7"#, r#""n":7.0"#),
            ("n of 2^53", r#""n":7"#, r#""n":9007199254740992"#),
            (
                "charter of 2^53",
                r#""charter":12"#,
                r#""charter":9007199254740992"#,
            ),
            ("key with a look-alike", r#""a":1"#, "\"\u{430}\":1"),
            ("empty key", r#""a":1"#, r#""":1"#),
            (
                "body not an object",
                r#"{"d":""}}"#,
                r#"{"d":""}},"body":[]"#,
            ),
            ("empty actor", "alice 01HY", ""),
            ("actor with a line end", "alice ", r"alice\n"),
            ("type in capitals", "unseal.", "Unseal."),
            ("empty type", "unseal.authorized", ""),
            ("type beginning with a dot", "unseal.", "."),
            ("time without milliseconds", ".123Z", "Z"),
            ("time with an offset", ".123Z", ".12+1"),
            ("month 13", "-11-", "-13-"),
            ("day 0", "-21T", "-00T"),
            ("hour 24", "T02", "T24"),
            ("minute 60", ":17:", ":60:"),
            ("second 60", ":00.", ":60."),
            ("time in other digits", "2026", "２026"),
            ("cut short", r#","v":1}"#, r#","v":1"#),
        ] {
            let changed = GOOD.replacen(from, to, 1);
            assert_ne!(changed, GOOD, "{name}");
            assert!(Entry::decode(changed.as_bytes()).is_err(), "{name}");
        }
        assert!(Entry::decode(b"\xff").is_err());
    }

    #[test]
    fn refuses_to_write_what_it_would_not_read() {
        // Invariants 3 and 4.
        let long = "x".repeat(MAX_ENTRY_BYTES);
        for (name, body, ok) in [
            ("largest integer", json!({ "a": MAX_INTEGER }), true),
            (
                "smallest integer",
                json!({"a": -9_007_199_254_740_991_i64}),
                true,
            ),
            ("integer too large", json!({"a": MAX_INTEGER + 1}), false),
            ("fraction", json!({"a": 0.5}), false),
            ("whole float", json!({"a": 2.0}), false),
            ("smallest i64", json!({ "a": i64::MIN }), false),
            ("deepest", nested(MAX_DEPTH), true),
            ("too deep", nested(MAX_DEPTH + 1), false),
            ("not an object", json!([]), false),
            ("key of another script", json!({"ключ": 1}), false),
            ("too long", json!({ "a": long }), false),
        ] {
            let encoded = entry(body).encode();
            assert_eq!(encoded.is_ok(), ok, "{name}");
            if let Ok(bytes) = encoded {
                assert!(Entry::decode(&bytes).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn the_longest_entry_has_exactly_the_bound() {
        let room = MAX_ENTRY_BYTES - entry(json!({"a": ""})).encode().unwrap().len();
        let longest = entry(json!({"a": "x".repeat(room)})).encode().unwrap();
        assert_eq!(longest.len(), MAX_ENTRY_BYTES);
        assert!(Entry::decode(&longest).is_ok());
        let over = entry(json!({"a": "x".repeat(room + 1)})).encode();
        assert!(matches!(over, Err(EntryError::TooLong(65_536))));
        let read = Entry::decode(&[longest.as_slice(), b" "].concat());
        assert!(matches!(read, Err(EntryError::TooLong(65_536))));
    }
}
