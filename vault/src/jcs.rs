//! Documents as canonical JSON (RFC 8785, JCS), and only that.
//!
//! # Invariants
//! 1. A value has one encoding: keys sorted, no white space, integers only (0 to 2^53 − 1).
//! 2. What [`decode`] accepts, [`encode`] writes again byte for byte; so duplicate keys, unknown
//!    fields, other orders and other spellings of a value are refused.
//!
//! JCS sorts keys by UTF-16 code units and `serde_json` by UTF-8 bytes. The two differ only beyond
//! ASCII, and keys of documents are ASCII: a key that is not is refused on both ways.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// The largest integer that every JSON reader keeps exact (RFC 7493).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why bytes are not a document.
#[derive(Debug, Error)]
pub enum JcsError {
    /// More bytes than this kind of document may have.
    #[error("the document has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes that it has.
        size: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// Not JSON, or not this kind of document.
    #[error("the document cannot be read")]
    Json(#[source] serde_json::Error),
    /// JSON of this kind, but not in its canonical form.
    #[error("the document is not in canonical form (RFC 8785); encode it again")]
    NotCanonical,
    /// A fraction, a negative number or one above 2^53 − 1.
    #[error("the document has a number that is not an integer from 0 to 2^53 − 1")]
    Number,
    /// A key beyond ASCII.
    #[error("the document has a key that is not ASCII")]
    Key,
}

impl JcsError {
    /// A stable code for the kind of error; `docs/FORMATS.md` lists them.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "size",
            Self::Json(_) | Self::NotCanonical | Self::Number | Self::Key => "form",
        }
    }
}

/// A document: a type with a bound on its size.
pub trait Document: Serialize + DeserializeOwned {
    /// The largest encoding, in bytes.
    const MAX_BYTES: usize;

    /// The canonical bytes, whose SHA-256 names the document and which are signed.
    fn to_bytes(&self) -> Result<Vec<u8>, JcsError> {
        encode(self, Self::MAX_BYTES)
    }

    /// Reads canonical bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, JcsError> {
        decode(bytes, Self::MAX_BYTES)
    }

    /// Reads what a person wrote: any order and white space, and defaults for what is left out.
    fn from_draft(bytes: &[u8]) -> Result<Self, JcsError> {
        let document: Self = bounded(bytes, Self::MAX_BYTES)?;
        document.to_bytes()?;
        Ok(document)
    }
}

/// The canonical encoding of a value, at most `max` bytes.
pub fn encode<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, JcsError> {
    let value = serde_json::to_value(value).map_err(JcsError::Json)?;
    check(&value)?;
    let bytes = serde_json::to_vec(&value).map_err(JcsError::Json)?;
    if bytes.len() > max {
        return Err(JcsError::TooLarge {
            size: bytes.len(),
            max,
        });
    }
    Ok(bytes)
}

/// Reads a canonical encoding of at most `max` bytes.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, JcsError> {
    let value: T = bounded(bytes, max)?;
    if encode(&value, max)? == bytes {
        Ok(value)
    } else {
        Err(JcsError::NotCanonical)
    }
}

fn bounded<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, JcsError> {
    if bytes.len() > max {
        return Err(JcsError::TooLarge {
            size: bytes.len(),
            max,
        });
    }
    serde_json::from_slice(bytes).map_err(JcsError::Json)
}

fn check(value: &Value) -> Result<(), JcsError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => match number.as_u64() {
            Some(0..=MAX_INTEGER) => Ok(()),
            Some(_) | None => Err(JcsError::Number),
        },
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            if key.is_ascii() {
                check(value)
            } else {
                Err(JcsError::Key)
            }
        }),
    }
}

/// Writes a type in JSON as the string that its `Display` gives and its `FromStr` reads.
macro_rules! as_string {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_string;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encodings_are_canonical() {
        for (name, value, want) in [
            (
                "keys ascend",
                json!({"b": 1, "a": {"d": null, "c": true}}),
                r#"{"a":{"c":true,"d":null},"b":1}"#,
            ),
            (
                "shortest escapes",
                json!("\u{8}\t\n\u{c}\r\u{1f}\"\\/ü\u{7f}"),
                "\"\\b\\t\\n\\f\\r\\u001f\\\"\\\\/ü\u{7f}\"",
            ),
            (
                "the largest integer",
                json!(9_007_199_254_740_991_u64),
                "9007199254740991",
            ),
        ] {
            assert_eq!(encode(&value, 100).unwrap(), want.as_bytes(), "{name}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for (name, bytes, code) in [
            ("a larger integer", "9007199254740992", "form"),
            ("a negative integer", "-1", "form"),
            ("a fraction", "0.5", "form"),
            ("white space", "[1, 2]", "form"),
            ("a duplicate key", r#"{"a":1,"a":1}"#, "form"),
            ("keys that descend", r#"{"b":1,"a":1}"#, "form"),
            ("a key beyond ASCII", r#"{"ä":1}"#, "form"),
            ("a longer escape", r#""\u0061""#, "form"),
            ("something behind", "1 1", "form"),
            ("nothing", "", "form"),
            ("too much", "\"0123456789012345678901234567890\"", "size"),
        ] {
            let read = decode::<Value>(bytes.as_bytes(), 32);
            assert_eq!(read.unwrap_err().code(), code, "{name}");
        }
    }
}
