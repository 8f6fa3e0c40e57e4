//! Other people's programs at the same token: age and rage with their plugin, Yubico's and `OpenSC`'s tools, openssl.
//!
//! `./dev interop` installs them, and runs this.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failed assumption fails the test; files and programs here are a test's"
)]

mod common;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use common::{Owner, PIN, card, enrolled};
use keyturn_hsm::Token as _;
use keyturn_seal::encrypt_to;
use keyturn_virtual_yubikey::{Desk, Firmware, TestPki, at_desk};

const TEXT: &[u8] = b"keyturn approval v1\nvault: vault.example.org/prod\n";
const SHARE: &[u8] = b"a share of a secret";
const SERIAL: u32 = 7_654_321;
/// Both implementations of age.
const PROGRAMS: [&str; 2] = ["age", "rage"];

/// Runs a program to its good end; what it printed on standard output.
fn run(folder: &Path, program: &str, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect(program);
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [&output.stdout, &output.stderr];
    let [told, more] = told.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let is_good = output.status.success();
    assert!(is_good, "{program} {args:?}: {told}{more}");
    told
}

/// A folder for a test's files; its own mount goes with the desk.
fn folder() -> &'static Path {
    let folder = Path::new("/run/desk/interop");
    fs::create_dir(folder).unwrap();
    folder
}

fn inserted(desk: &Desk, firmware: Firmware) -> keyturn_virtual_yubikey::Inserted {
    let card = card(SERIAL, firmware, &TestPki::new().unwrap());
    desk.insert(0, &card).unwrap()
}

/// age and rage ask for the PIN on the terminal.
fn on_a_terminal(folder: &Path, line: &str) -> String {
    let pin = [PIN, b"\n"].concat();
    run(folder, "script", &["-qec", line, "/dev/null"], &pin)
}

#[test]
fn age_and_rage_with_their_plugin_read_our_envelopes_and_write_theirs() {
    at_desk(1, |desk| {
        let _inserted = inserted(desk, (5, 4, 3));
        let folder = folder();
        let recipient = {
            let token = enrolled();
            let ours = encrypt_to(&[token.share_key().clone()], SHARE).unwrap();
            fs::write(folder.join("ours.age"), ours).unwrap();
            token.share_key().to_string()
        };
        let theirs = PROGRAMS.map(|program| {
            let out = format!("theirs-{program}.age");
            run(folder, program, &["-r", &recipient, "-o", &out], SHARE);
            fs::read(folder.join(out)).unwrap()
        });
        let opens = || {
            let (mut token, mut owner) = (enrolled(), Owner::who_knows(PIN));
            for opened in token.open_shares(&theirs.each_ref().map(Vec::as_slice), &mut owner) {
                assert_eq!(opened.unwrap().expose(), SHARE);
            }
            assert_eq!(owner.questions.len(), 1);
        };
        opens();

        // Retired slot 82 is the plugin's slot 1.
        let serial = SERIAL.to_string();
        let args = ["--identity", "--serial", &serial, "--slot", "1"];
        let identity = run(folder, "age-plugin-yubikey", &args, b"");
        assert!(identity.contains(&recipient), "{identity}");
        fs::write(folder.join("identity"), identity).unwrap();
        for program in PROGRAMS {
            // rage would rather ask in a window.
            let line =
                format!("PINENTRY_PROGRAM= {program} -d -i identity -o by-{program} ours.age");
            let told = on_a_terminal(folder, &line);
            let opened = fs::read(folder.join(format!("by-{program}")));
            assert_eq!(opened.ok().as_deref(), Some(SHARE), "{program}: {told}");
        }

        // The plugin leaves the PIN given; ours is asked for and taken all the same.
        opens();
    });
}

#[test]
fn tools_of_yubico_and_opensc_read_our_slots_and_openssl_our_signature() {
    at_desk(1, |desk| {
        let _inserted = inserted(desk, (5, 7, 4));
        let folder = folder();
        let signature = {
            let mut token = enrolled();
            token.sign(TEXT, &mut Owner::who_knows(PIN)).unwrap()
        };
        fs::write(folder.join("text"), TEXT).unwrap();
        fs::write(folder.join("signature"), signature).unwrap();

        let status = run(folder, "yubico-piv-tool", &["-a", "status"], b"");
        for want in [SERIAL.to_string().as_str(), "5.7.4", "Slot 9c:", "Slot 82:"] {
            assert!(status.contains(want), "{want}: {status}");
        }
        for (slot, file) in [("9c", "9c.pem"), ("82", "82.pem")] {
            let read = ["-a", "read-certificate", "-s", slot, "-o", file];
            run(folder, "yubico-piv-tool", &read, b"");
        }
        let key = ["x509", "-in", "9c.pem", "-noout", "-pubkey"];
        let key = run(folder, "openssl", &key, b"");
        fs::write(folder.join("key.pem"), key).unwrap();
        let verify = [
            "dgst",
            "-sha256",
            "-verify",
            "key.pem",
            "-signature",
            "signature",
            "text",
        ];
        assert!(run(folder, "openssl", &verify, b"").contains("Verified OK"));

        let listed = run(
            folder,
            "pkcs15-tool",
            &["--list-certificates", "--list-public-keys"],
            b"",
        );
        for want in ["SIGN", "EC"] {
            assert!(listed.contains(want), "{want}: {listed}");
        }
        let objects = run(
            folder,
            "pkcs11-tool",
            &["--list-objects", "--type", "cert"],
            b"",
        );
        assert!(
            objects.contains("Certificate for Digital Signature"),
            "{objects}"
        );
        let name = run(folder, "piv-tool", &["--name"], b"");
        assert!(name.contains("Personal Identity Verification"), "{name}");
    });
}
