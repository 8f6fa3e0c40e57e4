use keyturn_seal::{
    MAX_SECRET_BYTES, OpenError, PayloadError, SecretBytes, ShareIdentity, TextError,
    binding::Field, deliver, encrypt_to, open,
};

use crate::binding;

#[test]
fn a_secret_comes_out_as_it_went_in() {
    let key = ShareIdentity::generate().unwrap();
    for (name, secret) in [
        ("one byte", vec![0]),
        ("a line", b"password\n".to_vec()),
        ("empty lines", b"\n\n\n\n".to_vec()),
        ("not text", (0..=255).collect()),
        (
            "like a payload",
            b"keyturn secret v1\norigin: x\n\n".to_vec(),
        ),
        ("the longest", vec![0xff; MAX_SECRET_BYTES]),
    ] {
        let delivered = deliver(
            &SecretBytes::from_slice(&secret),
            &binding(),
            &key.share_key(),
        )
        .unwrap();
        assert_eq!(
            open(&delivered, &key, &binding()).unwrap().expose(),
            secret,
            "{name}"
        );
    }
    for (name, length) in [("empty", 0), ("too long", MAX_SECRET_BYTES + 1)] {
        let refused = deliver(&vec![1; length].into(), &binding(), &key.share_key()).unwrap_err();
        let want = if length == 0 {
            PayloadError::Empty
        } else {
            PayloadError::TooLong(length)
        };
        assert_eq!(refused.to_string(), want.to_string(), "{name}");
    }
}

#[test]
fn every_line_is_checked() {
    const LINES: &str = "keyturn secret v1\norigin: vault.example.org/prod\ncredential: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA\nversion: 7\n";
    let key = ShareIdentity::generate().unwrap();
    let line = |name| Err(OpenError::Text(TextError::Line(name)));
    let kind = Err(OpenError::Text(TextError::Type("keyturn secret v1")));
    for (name, from, to, want) in [
        ("as written", "", "", Ok(())),
        (
            "another vault",
            "org/prod",
            "org/test",
            Err(OpenError::Another(Field::Origin)),
        ),
        (
            "another credential",
            "01HZ",
            "01J0",
            Err(OpenError::Another(Field::Credential)),
        ),
        (
            "another version",
            "version: 7",
            "version: 6",
            Err(OpenError::Another(Field::Version)),
        ),
        ("version 0", "version: 7", "version: 0", line("version")),
        ("no version", "version: 7\n", "", line("version")),
        ("lines exchanged", "origin", "credential", line("origin")),
        (
            "one more line",
            "version: 7\n",
            "version: 7\nnote: x\n",
            Err(OpenError::Text(TextError::Extra)),
        ),
        ("another type", "secret v1", "share v1", kind),
        ("no empty line", "\n", " ", kind),
    ] {
        let header = LINES.replacen(from, to, if from == "\n" { usize::MAX } else { 1 });
        let payload = format!("{header}{}the secret", if from == "\n" { "" } else { "\n" });
        let file = encrypt_to(&[key.share_key()], payload.as_bytes()).unwrap();
        assert_eq!(open(&file, &key, &binding()).map(|_| ()), want, "{name}");
    }
    let empty = encrypt_to(&[key.share_key()], format!("{LINES}\n").as_bytes()).unwrap();
    assert_eq!(open(&empty, &key, &binding()).err(), Some(OpenError::Empty));
}
