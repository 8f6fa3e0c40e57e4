//! Makes the golden log: a small vault's beginning, the same bytes every time.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use keyturn_audit::{
    entry::Entry,
    note::{LogKey, Use, Vkey},
    proof::Receipt,
    publish::{Dir, Disk, Os, Publisher},
    tile::TileNodes,
    tree::{Edge, inclusion},
};
use serde_json::{Value, json};

/// How many entries the log has, and how many it had at the saved checkpoint.
pub(crate) const SIZES: [u64; 2] = [5, 260];
/// The entry that the receipt is for.
pub(crate) const RECEIPT: u64 = 258;

fn body(n: u64) -> Value {
    match n % 5 {
        0 => json!({}),
        1 => json!({"reason": "IdP down, nobody can sign in — \"at all\"", "share": n}),
        2 => json!({"a": [1, -2, 9_007_199_254_740_991_u64], "A": {"z": null, "aa": true}, "_": n}),
        3 => {
            json!({"text": "keyturn request v1\nvault: vault.example.org/prod\n\u{1}\u{7f}\\/€😀"})
        }
        _ => json!({"nested": {"nested": {"nested": [[[]], {}]}}, "n": n.to_string()}),
    }
}

fn entry(n: u64) -> Vec<u8> {
    let entry = Entry {
        n,
        time: format!("2026-11-21T{:02}:{:02}:00.123Z", n / 60 % 24, n % 60),
        charter: 1,
        actor: match n % 3 {
            0 => "alice",
            1 => "bob",
            _ => "node 01HX0000000000000000000000",
        }
        .into(),
        kind: if n.is_multiple_of(2) {
            "alive"
        } else {
            "version.sealed"
        }
        .into(),
        body: body(n),
    };
    entry.encode().expect("golden entries are valid")
}

/// Writes the log and what belongs to it below this directory.
pub(crate) fn make(root: &Path) {
    let key = LogKey::from_seed("vault.example.org/prod", &[7; 32]).expect("a good name");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes");
    let public = pair.public_key().as_ref().try_into().expect("32 bytes");
    let witness = Vkey::new("witness.example/w1", Use::Witness, public).expect("a good name");
    let entries: Vec<_> = (0..SIZES[1]).map(entry).collect();
    let dir = Dir::new(root.join("log"));
    let mut publisher = Publisher::open(dir.clone(), key.vkey()).expect("an empty directory");
    let mut edge = Edge::new();
    let mut checkpoints = Vec::new();
    for size in SIZES {
        let new: Vec<_> = (edge.size()..size).map(entry).collect();
        edge = edge.append(&new).expect("room").into_edge();
        let mut signed = key.sign(size, edge.root()).expect("a key that signs");
        let time = 1_795_227_420_u64 + size;
        let text = format!("cosignature/v1\ntime {time}\n{}", signed.note().text());
        let value = [&time.to_be_bytes(), pair.sign(text.as_bytes()).as_ref()].concat();
        let line = line(&witness, &value);
        signed.cosign(&line, &witness).expect("an honest witness");
        publisher
            .object(format!("document {size}").as_bytes())
            .expect("room");
        publisher.append(&new).expect("room");
        publisher.publish(&signed).expect("room");
        checkpoints.push(signed);
    }
    let proof = inclusion(&TileNodes::new(&dir, SIZES[1]), RECEIPT, SIZES[1]).expect("whole tiles");
    let receipt = Receipt::new(RECEIPT, proof, &checkpoints[1]);
    for (name, bytes) in [
        ("log.vkey", format!("{}\n", key.vkey()).into_bytes()),
        ("witness.vkey", format!("{witness}\n").into_bytes()),
        (
            "saved-checkpoint",
            checkpoints[0].note().to_string().into_bytes(),
        ),
        ("receipt.tlog-proof", receipt.to_string().into_bytes()),
        ("entry.json", entries[258].clone()),
        ("edge", edge.to_bytes()),
    ] {
        Os.write(&root.join(name), &bytes).expect("room");
    }
    std::fs::remove_dir(root.join("log/.tmp")).expect("no temporary file is left");
}

/// A signature line as C2SP writes it.
fn line(key: &Vkey, signature: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let value = STANDARD.encode([&key.id(), signature].concat());
    format!("\u{2014} {} {value}", key.name())
}
