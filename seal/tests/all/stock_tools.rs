//! Lib invariant 5: Debian's tools and a page of arithmetic open what we write, and we open what they write.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use keyturn_seal::{
    KeyFile, SecretBytes, ShareIdentity, Submission, decrypt_with, encrypt_to, keyfile::Cost,
};
use tempfile::TempDir;

use crate::{Case, binding, hex, secret};

pub(crate) const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/oracle.py");
const PEM: &str = include_str!("../../testdata/approval-key.pem");

/// Runs a tool with `input`; gives what it prints.
pub(crate) fn run(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{tool}: {error}; hint: apt-get install age argon2 openssl python3")
        });
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8(output).unwrap().trim_end().to_owned()
}

/// Files for tools to read.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn identity(&self, name: &str, identity: &ShareIdentity) -> String {
        self.write(name, identity.to_text().expose())
    }
}

#[test]
fn age_and_a_page_of_arithmetic_open_a_sealed_secret() {
    let case = Case::new(&binding(), &[(2, 3), (3, 5)]);
    for (group, xs) in [(0, &[3, 1][..]), (1, &[2, 5, 4])] {
        let folder = Folder::new();
        let shares: Vec<String> = xs
            .iter()
            .map(|x| {
                let place = usize::from(*x) - 1;
                let key = folder.identity("key", &case.keys[group][place]);
                let envelope = &case.sealed.groups[group].shares[place].envelope;
                folder.write(
                    &format!("share-{x}"),
                    &run("age", &["-d", "-i", &key], envelope),
                )
            })
            .collect();
        let shares: Vec<&str> = shares.iter().map(String::as_str).collect();

        let commitments = text(run(
            "python3",
            &[&[ORACLE, "commitment"], &shares[..]].concat(),
            b"",
        ));
        let want: Vec<_> = xs
            .iter()
            .map(|x| hex(case.share(group, *x).commitment()))
            .collect();
        assert_eq!(
            commitments.lines().collect::<Vec<_>>(),
            want,
            "group {group}"
        );

        let other = text(run(
            "python3",
            &[&[ORACLE, "share", "1"], &shares[..]].concat(),
            b"",
        ));
        assert_eq!(
            other,
            hex(case.share(group, 1).secret().expose()),
            "group {group}"
        );

        let identity = run(
            "python3",
            &[&[ORACLE, "combine"], &shares[..]].concat(),
            b"",
        );
        let identity = folder.write("identity", &identity);
        let payload = run("age", &["-d", "-i", &identity], &case.sealed.ciphertext);
        let secret_part = payload.windows(2).position(|pair| pair == b"\n\n").unwrap() + 2;
        assert_eq!(&payload[secret_part..], secret().expose(), "group {group}");
    }
}

#[test]
fn argon2_and_age_open_a_key_file() {
    for (name, cost, passphrase) in [
        ("recommended", Cost::RECOMMENDED, "battery staple"),
        (
            "most lanes, more passes",
            Cost::new(65537, 4, 8).unwrap(),
            "pässword \u{1f511}",
        ),
        ("longest passphrase", Cost::RECOMMENDED, &"p".repeat(127)),
    ] {
        let written = KeyFile {
            identity: ShareIdentity::generate().unwrap(),
            approval_key: PEM.to_owned().into(),
        };
        let file = written.seal(&passphrase.to_owned().into(), cost).unwrap();

        // By hand, from the documentation.
        let lines: Vec<&[u8]> = file.splitn(4, |byte| *byte == b'\n').collect();
        let [kind, argon2, salt, sealed] = lines[..] else {
            panic!("three lines and a file")
        };
        let line = |bytes| std::str::from_utf8(bytes).unwrap();
        assert_eq!(line(kind), "keyturn key v1");
        let numbers: Vec<&str> = line(argon2)
            .strip_prefix("argon2id: ")
            .unwrap()
            .split(' ')
            .collect();
        let [m, t, p] = [0, 1, 2].map(|place| &numbers[place][2..]);
        let salt = line(salt).strip_prefix("salt: ").unwrap();
        let arguments = [salt, "-id", "-t", t, "-k", m, "-p", p, "-l", "32", "-r"];
        let key = text(run("argon2", &arguments, passphrase.as_bytes()));

        let folder = Folder::new();
        let identity = folder.write(
            "identity",
            &run("python3", &[ORACLE, "identity", &key], b""),
        );
        let contents = run("age", &["-d", "-i", &identity], sealed);
        let want = [written.identity.to_text().expose(), b"\n", PEM.as_bytes()].concat();
        assert_eq!(contents, want, "{name}");

        // OpenSSL skips the line before the PEM; age takes the line alone.
        let contents = folder.write("contents", &contents);
        assert_eq!(
            run("openssl", &["pkey", "-in", &contents], b""),
            PEM.as_bytes(),
            "{name}"
        );
    }
}

#[test]
fn age_opens_deliveries_and_submissions() {
    let folder = Folder::new();
    let requester = ShareIdentity::generate().unwrap();
    let key = folder.identity("requester", &requester);
    let delivered = keyturn_seal::deliver(&secret(), &binding(), &requester.share_key()).unwrap();
    assert_eq!(
        text(run("age", &["-d", "-i", &key], &delivered)),
        "keyturn secret v1\norigin: vault.example.org/prod\ncredential: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA\nversion: 7\n\n\
         correct horse"
    );
    let submission = Submission {
        approval_sha256: [1; 32],
        ceremony: "c".into(),
        person: "bob".into(),
        shares: vec![keyturn_seal::SubmittedShare {
            credential: "aws".into(),
            version: 7,
            group: "ops".into(),
            x: 2,
            share: keyturn_seal::Secret::from_slice(&[2; 32]).unwrap(),
        }],
    };
    let submitted = submission.encrypt(&requester.share_key()).unwrap();
    assert_eq!(
        text(run("age", &["-d", "-i", &key], &submitted)),
        format!(
            "keyturn submission v1\napproval-sha256: {}\nceremony: c\nperson: bob\nshares: 1\nshare: aws v7 ops x2 {}",
            "01".repeat(32),
            "02".repeat(32)
        )
    );
}

#[test]
fn we_open_what_age_writes() {
    let identity = ShareIdentity::generate().unwrap();
    let key = identity.share_key().to_string();
    for (name, length) in [
        ("nothing", 0),
        ("a chunk", 65536),
        ("a chunk and a byte", 65537),
    ] {
        let plaintext = vec![7; length];
        let file = run("age", &["-r", &key], &plaintext);
        assert_eq!(
            decrypt_with(&identity, &file, length).unwrap().expose(),
            plaintext,
            "{name}"
        );
    }
    let folder = Folder::new();
    let path = folder.identity("identity", &identity);
    assert_eq!(
        text(run("age-keygen", &["-y", &path], b"")),
        key,
        "age-keygen reads our identity"
    );
    let generated = PathBuf::from(folder.write("unused", b"")).with_file_name("generated");
    run("age-keygen", &["-o", generated.to_str().unwrap()], b"");
    let generated = fs::read_to_string(generated).unwrap();
    let ours = ShareIdentity::parse(generated.lines().last().unwrap()).unwrap();
    let file = encrypt_to(&[ours.share_key()], b"x").unwrap();
    assert!(
        decrypt_with(&ours, &file, 1)
            .unwrap()
            .same(&SecretBytes::from_slice(b"x")),
        "we read age-keygen's"
    );
}

/// The oracle is strict too, or it would prove little.
#[test]
fn the_oracle_refuses_what_is_no_quorum() {
    let case = Case::new(&binding(), &[(2, 2)]);
    let folder = Folder::new();
    let share = |x: u8| {
        let place = usize::from(x) - 1;
        let envelope = &case.sealed.groups[0].shares[place].envelope;
        decrypt_with(&case.keys[0][place], envelope, 2048)
            .unwrap()
            .expose()
            .to_vec()
    };
    let (one, two) = (folder.write("1", &share(1)), folder.write("2", &share(2)));
    let other = String::from_utf8(share(2))
        .unwrap()
        .replace("version: 7", "version: 8");
    let other = folder.write("other", other.as_bytes());
    let altered = folder.write("altered", &[&share(2)[..], b"\n"].concat());
    for (name, shares, want) in [
        ("a quorum", vec![&one, &two], true),
        ("one", vec![&one], false),
        ("the same twice", vec![&one, &one], false),
        ("of another version", vec![&one, &other], false),
        ("altered", vec![&one, &altered], false),
    ] {
        let output = Command::new("python3")
            .args([ORACLE, "combine"])
            .args(shares)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), want, "{name}");
    }
}
