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
