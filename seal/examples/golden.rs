//! Writes one of everything this crate writes into a folder: `cargo run -p keyturn-seal --example golden -- FOLDER`.
//!
//! `testdata/golden` was written so, once. What is in it must open for ever; a change of a format needs a new folder beside it.

#![expect(
    clippy::expect_used,
    reason = "run by hand; stops at the first failure"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the files are new, and checked in after a look"
)]

use std::{error::Error, fs, path::PathBuf};

use keyturn_seal::{
    Binding, Holder, HolderToken, KeyFile, Roster, Secret, SecretBytes, ShareIdentity, ShareKey,
    Submission, SubmittedShare, deliver, keyfile::Cost, piv::SoftwareKey, seal,
};
use serde_json::{Value, json};

const SECRET: &[u8] = b"correct\n\nhorse\xff\0";
const PASSPHRASE: &str = "battery staple";
const APPROVAL_KEY: &str = include_str!("../testdata/approval-key.pem");

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: golden FOLDER"));
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes);
    let binding = Binding::new("vault.example.org/prod", "01HZXW3VJ0E0N7Q7D1Y8K2M4TA", 7)?;
    let secret = SecretBytes::from_slice(SECRET);

    let scalar = Secret::random()?;
    let card = SoftwareKey::from_secret(&scalar).expect("below the order");
    let keys = (0..7)
        .map(|_| ShareIdentity::generate())
        .collect::<Result<Vec<_>, _>>()?;
    let (ops, board) = keys.split_at(3);
    let rosters = [
        Roster::new("ops", 2, holders(ops, Some(&card)))?,
        Roster::new("board", 3, holders(board, None))?,
    ];
    let sealed = seal(&secret, &binding, &rosters)?;
    write("secret.age", &sealed.ciphertext)?;

    let mut groups = Vec::new();
    for (group, keys) in sealed.groups.iter().zip([ops, board]) {
        let mut shares = Vec::new();
        for (share, key) in group.shares.iter().zip(keys) {
            let valid = group
                .sharing(&binding)?
                .open_envelope(share.x, &share.envelope, key)?;
            write(&format!("{}-{}.age", group.group, share.x), &share.envelope)?;
            shares.push(json!({
                "person": share.person, "x": share.x, "identity": text(key), "commitment": hex(&share.commitment),
                "share": hex(valid.secret().expose()),
            }));
        }
        groups.push(json!({ "group": group.group, "k": group.k, "n": group.n, "shares": shares }));
    }

    let requester = ShareIdentity::generate()?;
    write(
        "delivery.age",
        &deliver(&secret, &binding, &requester.share_key())?,
    )?;
    let submit_key = ShareIdentity::generate()?;
    write(
        "submission.age",
        &submission(&binding).encrypt(&submit_key.share_key())?,
    )?;
    let bob = KeyFile {
        identity: ShareIdentity::generate()?,
        approval_key: APPROVAL_KEY.to_owned().into(),
    };
    write(
        "bob.key",
        &bob.seal(&PASSPHRASE.to_owned().into(), Cost::RECOMMENDED)?,
    )?;

    let facts: Value = json!({
        "origin": binding.origin(), "credential": binding.credential(), "version": binding.version(),
        "secret": hex(SECRET), "groups": groups, "requester": text(&requester), "submit_key": text(&submit_key),
        "passphrase": PASSPHRASE, "bob": text(&bob.identity),
        "piv": { "scalar": hex(scalar.expose()), "key": ShareKey::Piv(card.public()).to_string() },
    });
    write("facts.json", format!("{facts:#}\n").as_bytes())?;
    Ok(())
}

/// Custodians with a key each; the first has a card as well.
fn holders(keys: &[ShareIdentity], card: Option<&SoftwareKey>) -> Vec<Holder> {
    let mut holders: Vec<Holder> = (1..)
        .zip(keys)
        .map(|(x, key)| Holder {
            person: format!("person-{x}"),
            tokens: vec![HolderToken {
                id: format!("token-{x}"),
                key: key.share_key(),
            }],
        })
        .collect();
    if let (Some(first), Some(card)) = (holders.first_mut(), card) {
        first.tokens.push(HolderToken {
            id: "card-1".to_owned(),
            key: ShareKey::Piv(card.public()),
        });
    }
    holders
}

fn submission(binding: &Binding) -> Submission {
    let share = |version, x| SubmittedShare {
        credential: binding.credential().to_owned(),
        version,
        group: "ops".to_owned(),
        x,
        share: Secret::from_slice(&[x; 32]).expect("32 bytes"),
    };
    Submission {
        approval_sha256: [0xa5; 32],
        ceremony: "01JD8Q6J4Y1W7R0K5T3N9B2XCE".to_owned(),
        person: "person-2".to_owned(),
        shares: vec![share(7, 2), share(6, 3)],
    }
}

fn text(identity: &ShareIdentity) -> String {
    String::from_utf8_lossy(identity.to_text().expose()).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}
