use super::*;
use crate::{note::LogKey, tree::Edge};

fn log() -> (LogKey, Vec<Vec<u8>>, SignedCheckpoint, Vec<Receipt>) {
    let key = LogKey::from_seed("vault.example.org/prod", &[7; 32]).unwrap();
    let entries: Vec<_> = (0..11).map(|n| format!("entry {n}").into_bytes()).collect();
    let batch = Edge::new().append(&entries).unwrap();
    let signed = key.sign(batch.edge().size(), batch.edge().root()).unwrap();
    let receipts = (0..11)
        .map(|n| Receipt::new(n, batch.inclusion(n).unwrap(), &signed))
        .collect();
    (key, entries, signed, receipts)
}

#[test]
fn a_receipt_proves_its_entry_and_no_other() {
    // Invariant 1.
    let (key, entries, signed, receipts) = log();
    for (n, receipt) in receipts.iter().enumerate() {
        let read: Receipt = receipt.to_string().parse().unwrap();
        assert_eq!(read, *receipt);
        assert_eq!(read.verify(&entries[n], key.vkey()).as_ref(), Ok(&signed));
        for (other, entry) in entries.iter().enumerate().filter(|(other, _)| *other != n) {
            let want = Err(VerifyError::Inclusion(ProofError::Root));
            assert_eq!(read.verify(entry, key.vkey()), want, "{other} for {n}");
        }
    }
    let stranger = LogKey::from_seed("vault.example.org/prod", &[8; 32]).unwrap();
    let want = Err(VerifyError::Checkpoint(OpenError::Unsigned));
    assert_eq!(receipts[3].verify(&entries[3], stranger.vkey()), want);
}

#[test]
fn every_changed_byte_of_a_receipt_is_refused() {
    let (key, entries, _, receipts) = log();
    let text = receipts[6].to_string();
    let mut tried = 0;
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            let verified = changed
                .parse::<Receipt>()
                .is_ok_and(|r| r.verify(&entries[6], key.vkey()).is_ok());
            assert!(!verified, "{changed}");
            tried += 1;
        }
    }
    assert!(tried > 2_000);
}

#[test]
fn extra_data_is_kept_and_ignored() {
    // Invariant 2.
    let (key, entries, _, receipts) = log();
    let text = receipts[2]
        .to_string()
        .replacen("index", "extra aGVsbG8=\nindex", 1);
    let read: Receipt = text.parse().unwrap();
    assert_eq!(read.to_string(), text);
    assert!(read.verify(&entries[2], key.vkey()).is_ok());
}

#[test]
fn receipts_have_one_form() {
    let (_, _, _, receipts) = log();
    let good = receipts[6].to_string();
    let hash = format!("{}\n", BASE64.encode([1; 32]));
    let extra = format!(
        "extra {}\nindex",
        BASE64.encode(vec![0; MAX_EXTRA_BYTES + 1])
    );
    for (name, from, to, want) in [
        ("another version", "@v1", "@v2", ReceiptError::Header),
        ("no index", "index 6\n", "", ReceiptError::Index),
        (
            "index with a leading zero",
            "index 6",
            "index 06",
            ReceiptError::Index,
        ),
        (
            "index with a plus",
            "index 6",
            "index +6",
            ReceiptError::Index,
        ),
        (
            "index beyond every log",
            "index 6",
            "index 9007199254740991",
            ReceiptError::Index,
        ),
        (
            "empty extra data",
            "index",
            "extra \nindex",
            ReceiptError::Extra,
        ),
        (
            "extra data not base64",
            "index",
            "extra !\nindex",
            ReceiptError::Extra,
        ),
        (
            "too much extra data",
            "index",
            extra.as_str(),
            ReceiptError::Extra,
        ),
        (
            "extra data twice",
            "index",
            "extra AA==\nextra AA==\nindex",
            ReceiptError::Index,
        ),
        (
            "extra data after the index",
            "6\n",
            "6\nextra AA==\n",
            ReceiptError::Proof,
        ),
        ("a short hash", "6\n", "6\nAA==\n", ReceiptError::Proof),
        (
            "too many hashes",
            "6\n",
            &format!("6\n{}", hash.repeat(MAX_PROOF)),
            ReceiptError::Proof,
        ),
        ("no checkpoint", "\n\nvault", "\nvault", ReceiptError::Proof),
        (
            "a damaged checkpoint",
            "—",
            "-",
            ReceiptError::Note(NoteError::Signature),
        ),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{name}");
        assert_eq!(changed.parse::<Receipt>(), Err(want), "{name}");
    }
    let long = format!("{good}{}", "x".repeat(MAX_RECEIPT_BYTES));
    assert_eq!(long.parse::<Receipt>(), Err(ReceiptError::TooLong));
}
