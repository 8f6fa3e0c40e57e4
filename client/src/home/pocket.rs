//! The compact profile: what a token carries, so that its owner can approve on a computer that knows nothing of the
//! vault.
//!
//! It names no secret. Whoever can write to the token can alter it, so that it is a pin to be checked: charters are
//! walked from its genesis digest, the log must continue its checkpoint, and people compare the six words.
//!
//! # Invariants
//! 1. It is at most [`POCKET_MAX`] bytes: what the vault can be known by stays, further addresses go.

use keyturn_vault::{
    digest::Digest,
    id::PersonId,
    name::PersonName,
    reference::{CharterRef, PersonRef, TokenRef},
};
use serde::{Deserialize, Serialize};

use super::{
    Vault,
    profile::{Enrolled, by_text},
};

/// Most bytes of a compact profile.
pub const POCKET_MAX: usize = 3000;

/// The type of a compact profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PocketFormat {
    /// The first.
    #[default]
    #[serde(rename = "keyturn pocket profile v1")]
    V1,
}

/// What a token carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pocket {
    /// The type.
    pub format: PocketFormat,
    /// Whose token it is.
    pub person: PersonId,
    /// What people call them.
    pub name: PersonName,
    /// The token, as texts name it.
    #[serde(with = "by_text")]
    pub token: TokenRef,
    /// The digest of its enrolment text.
    pub enrolment: Digest,
    /// The vault.
    pub vault: Vault,
    /// The newest charter that was verified when this was written.
    pub charter: CharterRef,
    /// The newest checkpoint, without cosignatures; none before the vault was founded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

impl Pocket {
    /// For this token of this person.
    pub fn new(
        person: PersonRef,
        mine: &Enrolled,
        vault: Vault,
        charter: CharterRef,
        checkpoint: Option<&str>,
    ) -> Self {
        let own = format!("— {} ", vault.origin);
        Self {
            format: PocketFormat::V1,
            person: person.id,
            name: person.name,
            token: mine.token,
            enrolment: mine.enrolment,
            vault,
            charter,
            checkpoint: checkpoint.and_then(|note| own_signature_only(note, &own)),
        }
    }

    /// As it is written to the token (invariant 1).
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut pocket = self.clone();
        loop {
            let bytes = serde_json::to_vec(&pocket).ok()?;
            if bytes.len() <= POCKET_MAX {
                return Some(bytes);
            }
            if pocket.vault.endpoints.len() <= 1 {
                return None;
            }
            pocket.vault.endpoints.pop();
        }
    }

    /// Reads what a token carries.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let pocket = serde_json::from_slice(bytes).ok();
        pocket.filter(|_| bytes.len() <= POCKET_MAX)
    }
}

/// A note with the log's own signature, without those of witnesses.
fn own_signature_only(note: &str, own: &str) -> Option<String> {
    let (text, signatures) = note.split_once("\n\n")?;
    let signature = signatures.lines().find(|line| line.starts_with(own))?;
    Some(format!("{text}\n\n{signature}\n"))
}

#[cfg(test)]
mod tests {
    use keyturn_audit::note::LogKey;

    use super::*;
    use crate::home::Profile;

    fn pocket(endpoints: usize) -> Pocket {
        let profile: Profile = serde_json::from_str(
            r#"{"format":"keyturn profile v1","person":"01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"bob",
            "token":"01ARZ3NDEKTSV4RRFFQ69G5FAW yubikey 7","device":"01ARZ3NDEKTSV4RRFFQ69G5FAX",
            "enrolment":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
        )
        .unwrap();
        let key = LogKey::generate("vault.example.org/prod").unwrap();
        let mine = profile.tokens().remove(0);
        let vault = Vault {
            origin: "vault.example.org/prod".parse().unwrap(),
            endpoints: (0..endpoints)
                .map(|i| format!("{i:0>60}.example.org:7443"))
                .collect(),
            server_pins: vec![mine.enrolment; 3],
            vkey: key.vkey().to_string().parse().unwrap(),
            genesis: mine.enrolment,
        };
        let charter = CharterRef {
            index: 1,
            digest: mine.enrolment,
        };
        let note = key.sign(9, [7; 32]).unwrap().note().to_string();
        let witnessed = format!("{note}— witness.example.org/w {}\n", "A".repeat(100));
        Pocket::new(profile.reference(), &mine, vault, charter, Some(&witnessed))
    }

    #[test]
    fn it_fits_on_a_token_and_comes_back() {
        for (endpoints, kept) in [(1, 1), (8, 8), (100, 20)] {
            let written = pocket(endpoints);
            let bytes = written.to_bytes().unwrap();
            assert!(bytes.len() <= POCKET_MAX, "invariant 1");
            let read = Pocket::from_bytes(&bytes).unwrap();
            assert!(
                read.vault.endpoints.len() >= kept.min(8),
                "{endpoints}: {}",
                read.vault.endpoints.len()
            );
            let note = read.checkpoint.clone().unwrap();
            assert!(!note.contains("witness"), "{note}");
            assert_eq!(
                (read.charter, read.vault.genesis),
                (written.charter, written.vault.genesis)
            );
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = pocket(1).to_bytes().unwrap();
        let text = String::from_utf8(good).unwrap();
        for (name, text) in [
            ("empty", String::new()),
            ("another kind", text.replace("pocket profile", "profile")),
            ("a field more", text.replacen('{', r#"{"extra":1,"#, 1)),
            ("too long", format!("{text}{}", " ".repeat(POCKET_MAX))),
        ] {
            assert_eq!(Pocket::from_bytes(text.as_bytes()), None, "{name}");
        }
    }
}
