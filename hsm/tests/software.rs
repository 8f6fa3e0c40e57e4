//! Key files: held to what every token must do, and to what stock tools make of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed assumption fails the test"
)]

use std::{fs, path::Path, process::Command};

use keyturn_hsm::{
    ApprovalKey, Token, TokenError,
    conformance::{self, Failure, Person, Subject},
    software::SoftwareToken,
};
use keyturn_seal::{KeyFile, SecretBytes, ShareIdentity, keyfile::Cost};

const PASSPHRASE: &[u8] = b"four custodians and a teapot";

fn create() -> (Vec<u8>, SoftwareToken) {
    SoftwareToken::create(&SecretBytes::from_slice(PASSPHRASE), Cost::RECOMMENDED).unwrap()
}

#[test]
fn key_files_conform() {
    let (file, _) = create();
    conformance::run(&mut Subject {
        open: &mut |ui| Ok(Box::new(SoftwareToken::open(&file, ui)?)),
        secret: PASSPHRASE,
        wrong: b"five custodians",
    })
    .unwrap();
}

/// The suite itself: tokens that break a rule fail the check with its name.
#[test]
fn the_suite_notices_what_it_is_there_for() {
    type Fault = fn(&mut Faulty);
    let (file, _) = create();
    let faults: [(&str, Fault, &str); 4] = [
        (
            "signs another text",
            |t| t.text = Some(b"other"),
            "a signature holds for its text only",
        ),
        (
            "reverses the shares",
            |t| t.reversed = true,
            "shares come back in order, within the budget",
        ),
        (
            "asks again",
            |t| t.asks_again = true,
            "a signature holds for its text only",
        ),
        (
            "asks for touches unannounced",
            |t| t.touches = true,
            "a signature holds for its text only",
        ),
    ];
    for (name, fault, check) in faults {
        let failed = conformance::run(&mut Subject {
            open: &mut |ui| {
                let mut token = Faulty {
                    inner: SoftwareToken::open(&file, ui)?,
                    text: None,
                    reversed: false,
                    asks_again: false,
                    touches: false,
                };
                fault(&mut token);
                Ok(Box::new(token))
            },
            secret: PASSPHRASE,
            wrong: b"five custodians",
        });
        assert!(
            matches!(failed, Err(Failure { check: c, .. }) if c == check),
            "{name}: {failed:?}"
        );
    }
}

struct Faulty {
    inner: SoftwareToken,
    text: Option<&'static [u8]>,
    reversed: bool,
    asks_again: bool,
    touches: bool,
}

impl Token for Faulty {
    fn describe(&self) -> keyturn_hsm::TokenInfo {
        self.inner.describe()
    }

    fn share_key(&self) -> &keyturn_seal::ShareKey {
        self.inner.share_key()
    }

    fn approval_key(&self) -> &ApprovalKey {
        self.inner.approval_key()
    }

    fn open_shares(
        &mut self,
        files: &[&[u8]],
        ui: &mut dyn keyturn_hsm::Prompt,
    ) -> Vec<Result<SecretBytes, TokenError>> {
        let mut opened = self.inner.open_shares(files, ui);
        if self.reversed {
            opened.reverse();
        }
        opened
    }

    fn sign(
        &mut self,
        text: &[u8],
        ui: &mut dyn keyturn_hsm::Prompt,
    ) -> Result<Vec<u8>, TokenError> {
        if self.asks_again {
            ui.ask(&keyturn_hsm::Question::Passphrase)?;
        }
        if self.touches {
            let purpose = keyturn_hsm::Purpose::Sign;
            ui.notice(&keyturn_hsm::Notice::Touch {
                serial: 1,
                purpose,
                seconds: 15,
            });
            ui.notice(&keyturn_hsm::Notice::TouchOver);
        }
        self.inner.sign(self.text.unwrap_or(text), ui)
    }
}

#[test]
fn damaged_key_files_are_told_from_wrong_passphrases() {
    let (file, _) = create();
    let mut altered = file.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut short = file.clone();
    short.pop();
    let passphrase = SecretBytes::from_slice(PASSPHRASE);
    let strange = KeyFile {
        identity: ShareIdentity::generate().unwrap(),
        approval_key: String::from(
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .into(),
    };
    let strange = strange.seal(&passphrase, Cost::RECOMMENDED).unwrap();
    for (name, file, secret, want) in [
        ("wrong passphrase", &file, &b"wrong"[..], "wrong-passphrase"),
        ("empty passphrase", &file, b"", "wrong-passphrase"),
        ("altered", &altered, PASSPHRASE, "key-file-damaged"),
        ("cut short", &short, PASSPHRASE, "key-file-damaged"),
        (
            "not a key file",
            &b"keyturn key v2\n".to_vec(),
            PASSPHRASE,
            "key-file-damaged",
        ),
        (
            "too long",
            &vec![b'x'; 1 << 20],
            PASSPHRASE,
            "key-file-damaged",
        ),
        (
            "no approval key inside",
            &strange,
            PASSPHRASE,
            "key-file-damaged",
        ),
    ] {
        let got = SoftwareToken::open(file, &mut Person::who_answers(secret)).err();
        assert_eq!(got.map(|error| error.code()), Some(want), "{name}");
    }
}

fn openssl_accepts(folder: &Path, key: &ApprovalKey, text: &[u8], signature: &[u8]) -> bool {
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .unwrap();
        path
    };
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(file("key.pem", key.to_pem().as_bytes()))
        .arg("-signature")
        .arg(file("signature.der", signature))
        .arg(file("statement.txt", text))
        .output()
        .expect("openssl is installed");
    output.status.success()
}

#[test]
fn openssl_accepts_what_we_sign_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut token) = create();
    let text = b"keyturn approval v1\nvault: vault.example.org/prod\n";
    let signature = token.sign(text, &mut Person::absent()).unwrap();
    let other = create().1;
    let key = token.approval_key();
    for (name, key, text, signature, want) in [
        ("as signed", key, &text[..], &signature[..], true),
        (
            "another text",
            key,
            b"keyturn approval v1\n",
            &signature,
            false,
        ),
        ("another key", other.approval_key(), text, &signature, false),
        (
            "a cut signature",
            key,
            text,
            &signature[..signature.len() - 1],
            false,
        ),
    ] {
        assert_eq!(
            openssl_accepts(folder.path(), key, text, signature),
            want,
            "openssl: {name}"
        );
        assert_eq!(key.verify(text, signature).is_ok(), want, "we: {name}");
    }
}

#[test]
fn openssl_reads_the_approval_key_of_a_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = create();
    let inside = KeyFile::open(&file, &SecretBytes::from_slice(PASSPHRASE)).unwrap();
    let path = folder.path().join("approval.pem");
    fs::File::create(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, inside.approval_key.expose()))
        .unwrap();
    let output = Command::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        token.approval_key().to_pem()
    );
}
