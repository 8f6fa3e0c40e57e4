//! Files that people carry to each other before there is a connection: an enrolment, a welcome.
//!
//! They are plain JSON, for mail and memory sticks. Nothing in them is believed: an enrolment is
//! signed by the key that it names, and a welcome is checked by the six words of its charter.
//!
//! # Invariants
//! 1. A file of one kind is none of another: `format` names the kind; other fields are refused.
//! 2. A welcome holds the very charter whose digest it names, an enrolment the very attestation.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::charter::{Charter, MAX_CHARTER_BYTES};
use crate::digest::Digest;
use crate::id::PersonId;
use crate::jcs::{Document as _, JcsError};
use crate::key::VerifierKey;
use crate::name::Origin;
use crate::reference::CharterRef;
use crate::text::{Enrol, SignedText};

/// The largest file, in bytes: a charter in base64 and something beside it.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The largest attestation, in bytes.
pub const MAX_ATTESTATION_BYTES: usize = 16 * 1024;
/// The most endpoints, and the most pins of a welcome.
pub const MAX_ENDPOINTS: usize = 16;
/// The largest encrypted nonce, in bytes.
pub const MAX_NONCE_BYTES: usize = 4 * 1024;

/// Why a file is not one of these.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// Too many bytes.
    #[error("the file has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this kind.
    #[error("this is not {0}")]
    Form(&'static str, #[source] serde_json::Error),
    /// Too many items, or one is too long.
    #[error("the file has too many or too long {0}")]
    Bound(&'static str),
    /// The charter cannot be read.
    #[error("the charter in the file cannot be read")]
    Charter(#[source] JcsError),
    /// The charter is not the one that the file names.
    #[error("the charter in the file is not the one that it names")]
    OtherCharter,
    /// The attestation is not the one that the signed enrolment names.
    #[error("the attestation in the file is not the one that the enrolment was signed with")]
    OtherAttestation,
}

/// The kind of an enrolment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolmentFormat {
    /// The first.
    #[default]
    #[serde(rename = "keyturn enrolment v1")]
    V1,
}

/// `NAME.enroll`: what a person gives to whoever founds the vault or invites them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentFile {
    /// The kind of this file.
    pub format: EnrolmentFormat,
    /// `keyturn enrol v1`, signed by the approval key that it names.
    pub enrol: SignedText,
    /// The object that the enrolment's `attestation:` line names: the token's certificates, PEM; none
    /// for a key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<String>,
}

impl EnrolmentFile {
    /// Reads a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let file: Self = read(bytes, "an enrolment file (NAME.enroll)")?;
        let attestation = file.attestation.as_ref().map_or(0, String::len);
        if attestation > MAX_ATTESTATION_BYTES {
            return Err(FileError::Bound("certificates"));
        }
        Ok(file)
    }

    /// The attestation, which must be the one that the signed enrolment names (invariant 2).
    pub fn attestation(&self, enrol: &Enrol) -> Result<Option<&str>, FileError> {
        let found = self.attestation.as_deref();
        if found.map(|text| Digest::of(text.as_bytes())) == enrol.attestation {
            Ok(found)
        } else {
            Err(FileError::OtherAttestation)
        }
    }

    /// The file, for people to look into.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        write(self, "an enrolment file")
    }
}

/// The kind of a welcome file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WelcomeFormat {
    /// The first.
    #[default]
    #[serde(rename = "keyturn welcome v1")]
    V1,
}

/// `NAME.welcome`: where the vault is, how to know it, and a challenge for one person's share key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The kind of this file.
    pub format: WelcomeFormat,
    /// The vault.
    pub origin: Origin,
    /// Where it can be reached: host and port.
    pub endpoints: Vec<String>,
    /// The SHA-256 of its nodes' public keys, which TLS proves.
    pub server_pins: Vec<Digest>,
    /// The key that signs its log.
    pub vkey: VerifierKey,
    /// The first charter.
    pub genesis: CharterRef,
    /// The charter in force, for somebody who joins later; none for a founder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<CharterRef>,
    /// The bytes of the first charter.
    pub charter: Blob,
    /// Whom it is for.
    pub person: PersonId,
    /// An age file for the share key: the 64 hexadecimal digits of a [`Salt`](crate::digest::Salt).
    pub nonce: Blob,
    /// The digest of the enrolment text that it answers.
    pub enrolment: Digest,
}

impl Welcome {
    /// Reads a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let file: Self = read(bytes, "a welcome file (NAME.welcome)")?;
        file.check()?;
        Ok(file)
    }

    /// The file, for people to look into.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        self.check()?;
        write(self, "a welcome file")
    }

    /// The first charter, valid or not: whoever joins checks that.
    pub fn charter(&self) -> Result<Charter, FileError> {
        let charter = Charter::from_bytes(&self.charter.0).map_err(FileError::Charter)?;
        let found = CharterRef {
            index: charter.index,
            digest: Digest::of(&self.charter.0),
        };
        // Invariant 2.
        if found == self.genesis && charter.index == 1 && charter.origin == self.origin {
            Ok(charter)
        } else {
            Err(FileError::OtherCharter)
        }
    }

    fn check(&self) -> Result<(), FileError> {
        if !(1..=MAX_ENDPOINTS).contains(&self.endpoints.len()) {
            return Err(FileError::Bound("endpoints"));
        }
        if !(1..=MAX_ENDPOINTS).contains(&self.server_pins.len()) {
            return Err(FileError::Bound("server_pins"));
        }
        if self.nonce.0.len() > MAX_NONCE_BYTES || self.charter.0.len() > MAX_CHARTER_BYTES {
            return Err(FileError::Bound("bytes"));
        }
        self.charter().map(drop)
    }
}

/// Bytes; in JSON standard base64 with padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8], kind: &'static str) -> Result<T, FileError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    serde_json::from_slice(bytes).map_err(|error| FileError::Form(kind, error))
}

fn write<T: Serialize>(file: &T, kind: &'static str) -> Result<Vec<u8>, FileError> {
    let mut bytes =
        serde_json::to_vec_pretty(file).map_err(|error| FileError::Form(kind, error))?;
    bytes.push(b'\n');
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reference::Signer;

    fn enrolment() -> Value {
        let file = EnrolmentFile {
            format: EnrolmentFormat::V1,
            enrol: SignedText {
                text: "keyturn enrol v1\n".to_owned(),
                signature: vec![1, 2],
                signer: Signer::Token("01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()),
            },
            attestation: None,
        };
        let bytes = file.to_bytes().unwrap();
        assert_eq!(EnrolmentFile::from_bytes(&bytes).unwrap(), file);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn an_enrolment_file_is_only_that() {
        for (name, key, value, good) in [
            ("as it is", "format", json!("keyturn enrolment v1"), true),
            ("another kind", "format", json!("keyturn welcome v1"), false),
            ("another field", "extra", json!(1), false),
            ("certificates", "attestation", json!("PEM"), true),
            ("a list of them", "attestation", json!(["PEM"]), false),
            (
                "too long",
                "attestation",
                json!("x".repeat(MAX_ATTESTATION_BYTES + 1)),
                false,
            ),
        ] {
            let mut file = enrolment();
            file[key] = value;
            let read = EnrolmentFile::from_bytes(file.to_string().as_bytes());
            assert_eq!(read.is_ok(), good, "invariant 1: {name}");
        }
        let long = vec![b' '; MAX_FILE_BYTES + 1];
        assert!(matches!(
            EnrolmentFile::from_bytes(&long),
            Err(FileError::TooLarge)
        ));
    }

    #[test]
    fn an_enrolment_holds_the_attestation_it_names() {
        let text = include_str!("../testdata/valid/enrol.yubikey.txt");
        let signed: Enrol = crate::text::Text::parse(text).unwrap();
        for (name, named, given, good) in [
            ("none at all", None, None, true),
            ("the one", Some(Digest::of(b"PEM")), Some("PEM"), true),
            ("another", Some(Digest::of(b"PEM")), Some("OTHER"), false),
            ("lost", Some(Digest::of(b"PEM")), None, false),
            ("not signed for", None, Some("PEM"), false),
        ] {
            let file = EnrolmentFile {
                attestation: given.map(str::to_owned),
                ..serde_json::from_value(enrolment()).unwrap()
            };
            let enrol = Enrol {
                attestation: named,
                ..signed.clone()
            };
            let found = file.attestation(&enrol);
            assert_eq!(found.is_ok(), good, "invariant 2: {name}");
            assert_eq!(found.ok().flatten(), given.filter(|_| good), "{name}");
        }
    }

    #[test]
    fn a_welcome_holds_the_charter_it_names() {
        let bytes = include_bytes!("../testdata/valid/charter.first.json").to_vec();
        let charter = Charter::from_bytes(&bytes).unwrap();
        let welcome = Welcome {
            format: WelcomeFormat::V1,
            origin: charter.origin.clone(),
            endpoints: vec!["127.0.0.1:7400".to_owned()],
            server_pins: vec![Digest::of(b"key")],
            vkey: charter.log_key.clone(),
            genesis: charter.reference().unwrap(),
            in_force: None,
            charter: Blob(bytes.clone()),
            person: charter.persons[0].id,
            nonce: Blob(b"age".to_vec()),
            enrolment: Digest::of(b"enrolment"),
        };
        let written = welcome.to_bytes().unwrap();
        assert_eq!(Welcome::from_bytes(&written).unwrap(), welcome);
        let file: Value = serde_json::from_slice(&written).unwrap();
        let second = include_bytes!("../testdata/valid/charter.second.json").to_vec();
        for (name, key, value) in [
            ("another kind", "format", json!("keyturn enrolment v1")),
            ("another field", "extra", json!(1)),
            ("nowhere", "endpoints", json!([])),
            ("nobody", "server_pins", json!([])),
            (
                "too many pins",
                "server_pins",
                json!(vec![Digest::of(b""); 17]),
            ),
            ("another charter", "charter", json!(Blob(second))),
            ("no charter", "charter", json!("AQID")),
            (
                "another digest",
                "genesis",
                json!({"index": 1, "digest": Digest::of(b"")}),
            ),
            (
                "another number",
                "genesis",
                json!({"index": 2, "digest": Digest::of(&bytes)}),
            ),
            ("another vault", "origin", json!("vault.example.com/other")),
        ] {
            let mut file = file.clone();
            file[key] = value;
            let read = Welcome::from_bytes(file.to_string().as_bytes());
            assert!(read.is_err(), "invariants 1 and 2: {name}");
        }
    }
}
