//! Entries with their proofs, and checkpoints that only ever continue each other.

use keyturn_audit::{
    entry::Entry,
    note::{SignedCheckpoint, Vkey},
    proof::Receipt,
    tree::verify_consistency,
};
use keyturn_proto::v1;
use keyturn_vault::{event::Event, key::VerifierKey, reference::Head};

use super::{VerifyError, wire};

/// An entry that is proven to be in the log.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its number.
    pub n: u64,
    /// Its bytes, as the leaf hashes them.
    pub bytes: Vec<u8>,
    /// What it says.
    pub event: Event,
    /// When, by the daemon's clock.
    pub time: String,
    /// The charter in force, as the entry says.
    pub charter: u64,
    /// The receipt, as it is kept.
    pub receipt: String,
    /// The checkpoint that the receipt leads to.
    pub checkpoint: SignedCheckpoint,
}

/// The key of the log.
pub fn vkey(key: &VerifierKey) -> Result<Vkey, VerifyError> {
    key.as_str().parse().map_err(|_| VerifyError::Vkey)
}

/// Reads a checkpoint.
pub fn checkpoint(note: &str, log: &Vkey) -> Result<SignedCheckpoint, VerifyError> {
    SignedCheckpoint::open(note, log).map_err(VerifyError::Checkpoint)
}

/// Verifies a receipt.
pub fn receipt(receipt: Option<v1::Receipt>, log: &Vkey) -> Result<Proven, VerifyError> {
    let v1::Receipt {
        n,
        entry: bytes,
        tlog_proof,
    } = wire::required(receipt, "a receipt")?;
    let proof: Receipt = tlog_proof.parse().map_err(VerifyError::Receipt)?;
    let checkpoint = proof
        .verify(&bytes, log)
        .map_err(|source| VerifyError::NotIncluded { n, source })?;
    let entry = Entry::decode(&bytes).map_err(|source| VerifyError::Entry { n, source })?;
    if entry.n != n || proof.index() != n {
        return Err(VerifyError::Other {
            what: format!("entry {n}"),
            by: "its receipt",
        });
    }
    let event = Event::parse(&entry.kind, &entry.body)
        .map_err(|source| VerifyError::Event { n, source })?;
    Ok(Proven {
        n,
        bytes,
        event,
        time: entry.time,
        charter: entry.charter,
        receipt: tlog_proof,
        checkpoint,
    })
}

/// Checks that `new` continues `old`; both are signed by the log.
pub fn continues(
    old: &SignedCheckpoint,
    new: &SignedCheckpoint,
    proof: &[[u8; 32]],
) -> Result<(), VerifyError> {
    leads(head(old), new, proof)
}

/// Checks that a head that somebody vouches for leads to `new`.
pub fn leads(old: Head, new: &SignedCheckpoint, proof: &[[u8; 32]]) -> Result<(), VerifyError> {
    if new.size() < old.size {
        return Err(VerifyError::Shrank {
            now: new.size(),
            before: old.size,
        });
    }
    let (before, after) = ((old.size, &old.root.0), (new.size(), new.root()));
    verify_consistency(before, after, proof).map_err(|source| VerifyError::Forked {
        before: old.size,
        source,
    })
}

/// A checkpoint as signed texts name the log.
pub fn head(checkpoint: &SignedCheckpoint) -> Head {
    Head {
        size: checkpoint.size(),
        root: keyturn_vault::digest::Digest(*checkpoint.root()),
    }
}

#[cfg(test)]
mod tests {
    use keyturn_audit::{note::LogKey, tree::Edge};

    use super::*;

    const ORIGIN: &str = "vault.example.org/prod";

    fn entry(n: u64, kind: &str) -> Vec<u8> {
        let entry = Entry {
            n,
            time: "2026-11-21T02:17:00.123Z".to_owned(),
            charter: 1,
            actor: "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
            kind: kind.to_owned(),
            body: serde_json::json!({}),
        };
        entry.encode().unwrap()
    }

    #[test]
    fn a_receipt_proves_its_entry_and_nothing_else() {
        let key = LogKey::generate(ORIGIN).unwrap();
        let entries = [
            entry(0, "alive"),
            entry(1, "alive"),
            entry(2, "odd"),
            entry(7, "alive"),
        ];
        let batch = Edge::new().append(&entries).unwrap();
        let signed = key.sign(4, batch.edge().root()).unwrap();
        let proof =
            |index| Receipt::new(index, batch.inclusion(index).unwrap(), &signed).to_string();
        let stranger = LogKey::generate(ORIGIN).unwrap();
        for (name, n, bytes, at, log, good) in [
            ("as it is", 1, 1, 1, &key, true),
            ("another entry", 1, 0, 1, &key, false),
            ("another number", 0, 1, 1, &key, false),
            ("another log's key", 1, 1, 1, &stranger, false),
            ("an entry of an unknown kind", 2, 2, 2, &key, false),
            ("an entry that claims another place", 3, 3, 3, &key, false),
        ] {
            let sent = v1::Receipt {
                n,
                entry: entries[bytes].clone(),
                tlog_proof: proof(at),
            };
            assert_eq!(receipt(Some(sent), log.vkey()).is_ok(), good, "{name}");
        }
        assert!(receipt(None, key.vkey()).is_err());
    }

    #[test]
    fn checkpoints_only_continue_each_other() {
        let key = LogKey::generate(ORIGIN).unwrap();
        let mut edge = Edge::new()
            .append(&[entry(0, "alive")])
            .unwrap()
            .into_edge();
        let first = key.sign(edge.size(), edge.root()).unwrap();
        let batch = edge
            .append(&[entry(1, "alive"), entry(2, "alive")])
            .unwrap();
        let proof = batch.consistency().unwrap();
        edge = batch.into_edge();
        let second = key.sign(edge.size(), edge.root()).unwrap();
        let fork = key.sign(3, [7; 32]).unwrap();
        for (name, old, new, code) in [
            ("longer", &first, &second, None),
            ("the same", &second, &second, None),
            ("shorter", &second, &first, Some("head-mismatch")),
            (
                "another log of the same length",
                &second,
                &fork,
                Some("head-mismatch"),
            ),
            ("a longer other log", &first, &fork, Some("head-mismatch")),
        ] {
            let proof: &[[u8; 32]] = if old.size() == new.size() {
                &[]
            } else {
                &proof
            };
            let found = continues(old, new, proof).err().map(|error| error.code());
            assert_eq!(found, code, "{name}");
        }
    }
}
