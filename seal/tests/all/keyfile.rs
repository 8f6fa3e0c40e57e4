use keyturn_seal::{
    DecryptError, KeyFile, KeyFileError, SecretBytes, ShareIdentity,
    keyfile::{Cost, MAX_FILE_BYTES},
};

const PEM: &str = include_str!("../../testdata/approval-key.pem");
const PASSPHRASE: &str = "battery staple";

fn passphrase(text: &str) -> SecretBytes {
    text.to_owned().into()
}

fn with(pem: &str) -> KeyFile {
    KeyFile {
        identity: ShareIdentity::generate().unwrap(),
        approval_key: pem.to_owned().into(),
    }
}

/// What an error is, without its contents.
fn told<T>(result: Result<T, KeyFileError>) -> String {
    result
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn opens_with_its_passphrase_only() {
    let written = with(PEM);
    let file = written
        .seal(&passphrase(PASSPHRASE), Cost::RECOMMENDED)
        .unwrap();
    let read = KeyFile::open(&file, &passphrase(PASSPHRASE)).unwrap();
    assert!(read.approval_key.same(&written.approval_key));
    assert!(read.identity.to_text().same(&written.identity.to_text()));
    let wrong = KeyFileError::WrongPassphrase(DecryptError::NotForThisKey).to_string();
    for (name, typed, want) in [
        ("another", "battery stable", &wrong),
        ("another case", "Battery staple", &wrong),
        ("space at the end", "battery staple ", &wrong),
        ("none", "", &KeyFileError::Passphrase.to_string()),
        (
            "too long",
            &"x".repeat(128),
            &KeyFileError::Passphrase.to_string(),
        ),
    ] {
        assert_eq!(
            &told(KeyFile::open(&file, &passphrase(typed))),
            want,
            "{name}"
        );
    }
    let again = written
        .seal(&passphrase(PASSPHRASE), Cost::RECOMMENDED)
        .unwrap();
    assert_ne!(file[..100], again[..100], "the salt is fresh");
}

/// Every line of the file, altered. What Argon2 would be asked for is bounded before it is asked.
#[test]
fn every_line_is_checked() {
    let file = with(PEM)
        .seal(&passphrase(PASSPHRASE), Cost::RECOMMENDED)
        .unwrap();
    let end = file.windows(4).position(|bytes| bytes == b"age-").unwrap();
    let (lines, sealed) = file.split_at(end);
    let lines = std::str::from_utf8(lines).unwrap();
    let salt = &lines[lines.find("salt: ").unwrap() + 6..][..32];
    let other = if salt.starts_with('0') { "1" } else { "0" };
    let other = format!("{other}{}", &salt[1..]);
    let cost = |memory_kib, passes, lanes| {
        KeyFileError::Cost {
            memory_kib,
            passes,
            lanes,
        }
        .to_string()
    };
    let header = "this is not a key file".to_owned();
    let wrong = KeyFileError::WrongPassphrase(DecryptError::NotForThisKey).to_string();
    for (name, from, to, want) in [
        ("as written", "", "", String::new()),
        ("another m", "m=65536", "m=65537", wrong.clone()),
        ("another t", "t=3", "t=4", wrong.clone()),
        ("another p", "p=4", "p=3", wrong.clone()),
        ("another salt", salt, &other, wrong),
        ("m too small", "m=65536", "m=65535", cost(65535, 3, 4)),
        ("m too large", "m=65536", "m=1048577", cost(1_048_577, 3, 4)),
        (
            "m beyond 32 bits",
            "m=65536",
            "m=4294967296",
            header.clone(),
        ),
        ("t too small", "t=3", "t=2", cost(65536, 2, 4)),
        ("t too large", "t=3", "t=17", cost(65536, 17, 4)),
        ("p = 0", "p=4", "p=0", header.clone()),
        ("p too large", "p=4", "p=9", cost(65536, 3, 9)),
        ("exchanged", "m=65536 t=3", "t=3 m=65536", header.clone()),
        ("one more", "p=4", "p=4 v=19", header.clone()),
        ("zeros before", "t=3", "t=03", header.clone()),
        ("another derivation", "argon2id", "argon2i", header.clone()),
        ("another type", "key v1", "key v2", header.clone()),
        (
            "salt in upper case",
            salt,
            "ABCDEFABCDEFABCDEFABCDEFABCDEFAB",
            header.clone(),
        ),
        ("salt cut", salt, &salt[1..], header.clone()),
        ("salt too long", salt, &format!("{salt}00"), header.clone()),
        ("Windows line end", "v1\n", "v1\r\n", header.clone()),
        ("no salt", "salt: ", "pepper: ", header.clone()),
    ] {
        let altered = [lines.replacen(from, to, 1).as_bytes(), sealed].concat();
        assert!(from.is_empty() || altered != file, "{name} alters nothing");
        assert_eq!(
            told(KeyFile::open(&altered, &passphrase(PASSPHRASE))),
            want,
            "{name}"
        );
    }
    let damaged = KeyFileError::Damaged(DecryptError::Damaged).to_string();
    let not_age = KeyFileError::Damaged(DecryptError::NotAge).to_string();
    for (name, file, want) in [
        ("empty", vec![], header.clone()),
        ("only the lines", lines.as_bytes().to_vec(), not_age),
        ("cut", file[..file.len() - 1].to_vec(), damaged.clone()),
        ("something follows", [&file[..], b"\n"].concat(), damaged),
        ("an age file", sealed.to_vec(), header),
        (
            "oversized",
            vec![b'x'; MAX_FILE_BYTES + 1],
            KeyFileError::TooLong(MAX_FILE_BYTES + 1).to_string(),
        ),
    ] {
        assert_eq!(
            told(KeyFile::open(&file, &passphrase(PASSPHRASE))),
            want,
            "{name}"
        );
    }
}

#[test]
fn costs_are_bounded() {
    for (name, memory_kib, passes, lanes, want) in [
        ("recommended", 65536, 3, 4, true),
        ("least", 65536, 3, 1, true),
        ("most", 1_048_576, 16, 8, true),
        ("too little memory", 65535, 3, 4, false),
        ("too much memory", 1_048_577, 3, 4, false),
        ("too few passes", 65536, 2, 4, false),
        ("too many passes", 65536, 17, 4, false),
        ("no lane", 65536, 3, 0, false),
        ("too many lanes", 65536, 3, 9, false),
    ] {
        assert_eq!(Cost::new(memory_kib, passes, lanes).is_ok(), want, "{name}");
    }
    assert_eq!(Cost::new(65536, 3, 4).unwrap(), Cost::RECOMMENDED);
}

#[test]
fn approval_keys_are_one_pem_block() {
    let line = "A".repeat(64);
    let block =
        |lines: &str| format!("-----BEGIN PRIVATE KEY-----\n{lines}-----END PRIVATE KEY-----\n");
    for (name, pem, want) in [
        ("of OpenSSL", PEM.to_owned(), true),
        ("one line", block("AAAA\n"), true),
        ("longest", block(&format!("{line}\n").repeat(62)), true),
        ("too long", block(&format!("{line}\n").repeat(63)), false),
        ("empty", String::new(), false),
        ("empty block", block(""), false),
        ("no line end", PEM.trim_end().to_owned(), false),
        ("two blocks", PEM.repeat(2), false),
        ("text before", format!("key\n{PEM}"), false),
        ("text after", format!("{PEM}\n"), false),
        ("an EC key", PEM.replace("PRIVATE", "EC PRIVATE"), false),
        ("a public key", PEM.replace("PRIVATE", "PUBLIC"), false),
        ("long line", block(&format!("{line}A\n")), false),
        ("empty line", block("AAAA\n\nAAAA\n"), false),
        ("Windows line ends", PEM.replace('\n', "\r\n"), false),
        ("not base64", block("AA-A\n"), false),
    ] {
        let sealed = with(&pem).seal(&passphrase(PASSPHRASE), Cost::RECOMMENDED);
        assert_eq!(
            told(sealed),
            if want {
                String::new()
            } else {
                KeyFileError::ApprovalKey.to_string()
            },
            "{name}"
        );
    }
}
