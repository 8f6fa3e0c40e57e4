//! Files written once, by the first version, must open for ever.

use std::{fs, path::PathBuf};

use keyturn_seal::{
    Binding, KeyFile, Secret, ShareIdentity, ShareKey, Sharing, Submission, decrypt_with, open,
    piv::SoftwareKey,
};
use serde_json::Value;

use crate::{
    hex,
    stock_tools::{Folder, ORACLE, run},
};

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/golden")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn facts() -> Value {
    serde_json::from_slice(&file("facts.json")).unwrap()
}

fn text<'a>(facts: &'a Value, name: &str) -> &'a str {
    facts[name]
        .as_str()
        .unwrap_or_else(|| panic!("facts.json has no {name}"))
}

fn number(facts: &Value, name: &str) -> u8 {
    facts[name]
        .as_u64()
        .and_then(|number| number.try_into().ok())
        .unwrap()
}

fn bytes(facts: &Value, name: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text(facts, name)).unwrap()
}

fn identity(facts: &Value, name: &str) -> ShareIdentity {
    ShareIdentity::parse(text(facts, name)).unwrap()
}

fn list<'a>(facts: &'a Value, name: &str) -> &'a [Value] {
    facts[name].as_array().unwrap()
}

fn binding(facts: &Value) -> Binding {
    Binding::new(
        text(facts, "origin"),
        text(facts, "credential"),
        facts["version"].as_u64().unwrap(),
    )
    .unwrap()
}

#[test]
fn the_sealed_secret_opens() {
    let facts = facts();
    let card =
        SoftwareKey::from_secret(&Secret::from_slice(&bytes(&facts["piv"], "scalar")).unwrap())
            .unwrap();
    for group in list(&facts, "groups") {
        let shares = list(group, "shares");
        let commitments = shares
            .iter()
            .map(|share| bytes(share, "commitment").try_into().unwrap())
            .collect();
        let (name, k) = (text(group, "group"), number(group, "k"));
        let sharing = Sharing::new(binding(&facts), name, k, commitments).unwrap();
        assert_eq!(sharing.threshold().n(), number(group, "n"), "{name}");
        let valid: Vec<_> = (1..)
            .zip(shares)
            .map(|(x, share)| {
                let envelope = file(&format!("{name}-{x}.age"));
                let opened = sharing
                    .open_envelope(x, &envelope, &identity(share, "identity"))
                    .unwrap();
                assert_eq!(
                    hex(opened.secret().expose()),
                    text(share, "share"),
                    "{name} {x}"
                );
                opened
            })
            .collect();
        let quorum: Vec<_> = valid.iter().rev().take(k.into()).collect();
        let combined = sharing.combine(&quorum).unwrap();
        assert_eq!(combined.inconsistent, [0; 0], "{name}");
        let secret = open(&file("secret.age"), &combined.identity, &binding(&facts)).unwrap();
        assert_eq!(secret.expose(), bytes(&facts, "secret"), "{name}");
        if name == "ops" {
            sharing
                .open_envelope(1, &file("ops-1.age"), &card)
                .expect("the first custodian's card opens as well");
        }
    }
}

#[test]
fn the_oracle_computes_the_same() {
    let facts = facts();
    for group in list(&facts, "groups") {
        let folder = Folder::new();
        let shares: Vec<String> = list(group, "shares")
            .iter()
            .map(|share| {
                let name = format!("{}-{}", text(group, "group"), number(share, "x"));
                let opened = decrypt_with(
                    &identity(share, "identity"),
                    &file(&format!("{name}.age")),
                    2048,
                )
                .unwrap();
                folder.write(&name, opened.expose())
            })
            .collect();
        let shares: Vec<&str> = shares.iter().map(String::as_str).collect();
        let lines = run(
            "python3",
            &[&[ORACLE, "commitment"], &shares[..]].concat(),
            b"",
        );
        let want: Vec<_> = list(group, "shares")
            .iter()
            .map(|share| text(share, "commitment"))
            .collect();
        assert_eq!(
            String::from_utf8(lines)
                .unwrap()
                .lines()
                .collect::<Vec<_>>(),
            want
        );
        let combined = run(
            "python3",
            &[&[ORACLE, "combine"], &shares[..]].concat(),
            b"",
        );
        let combined =
            ShareIdentity::parse(String::from_utf8(combined).unwrap().trim_end()).unwrap();
        assert!(open(&file("secret.age"), &combined, &binding(&facts)).is_ok());
    }
}

#[test]
fn the_delivery_opens() {
    let facts = facts();
    let secret = open(
        &file("delivery.age"),
        &identity(&facts, "requester"),
        &binding(&facts),
    )
    .unwrap();
    assert_eq!(secret.expose(), bytes(&facts, "secret"));
}

#[test]
fn the_submission_opens() {
    let facts = facts();
    let (ceremony, person) = ("01JD8Q6J4Y1W7R0K5T3N9B2XCE", "person-2");
    let key = identity(&facts, "submit_key");
    let opened =
        Submission::open(&file("submission.age"), &key, &[0xa5; 32], ceremony, person).unwrap();
    let shares: Vec<_> = opened
        .shares
        .iter()
        .map(|share| {
            (
                share.credential.as_str(),
                share.version,
                share.group.as_str(),
                share.x,
                share.share.expose()[0],
            )
        })
        .collect();
    let credential = text(&facts, "credential");
    assert_eq!(
        shares,
        [(credential, 7, "ops", 2, 2), (credential, 6, "ops", 3, 3)]
    );
}

#[test]
fn the_key_file_opens() {
    let facts = facts();
    let opened = KeyFile::open(
        &file("bob.key"),
        &text(&facts, "passphrase").to_owned().into(),
    )
    .unwrap();
    assert_eq!(
        opened.identity.to_text().expose(),
        text(&facts, "bob").as_bytes()
    );
    assert_eq!(
        opened.approval_key.expose(),
        include_bytes!("../../testdata/approval-key.pem")
    );
}

/// `piv-p256.age` was written by age with age-plugin-yubikey 0.5.1.
#[test]
fn a_file_of_age_plugin_yubikey_opens() {
    let facts = facts();
    let card =
        SoftwareKey::from_secret(&Secret::from_slice(&bytes(&facts["piv"], "scalar")).unwrap())
            .unwrap();
    assert_eq!(
        ShareKey::Piv(card.public()).to_string(),
        text(&facts["piv"], "key")
    );
    let opened = decrypt_with(&card, &file("piv-p256.age"), 100).unwrap();
    assert_eq!(opened.expose(), b"from age-plugin-yubikey 0.5.1");
}
