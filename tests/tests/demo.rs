//! The demo runs to its end, and others than keyturn verify what it keeps.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use keyturn_tests::{Program, harness::write_private};
use rustix::process::{Pid, Signal, kill_process};

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

/// Runs a command; whether it succeeded, and all it said.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn verified(folder: &Path, text: &str) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature.der",
        text,
    ]);
    run(openssl.current_dir(folder)).0
}

#[test]
fn openssl_and_another_program_verify_what_the_demo_keeps() {
    let kept = tempfile::tempdir().unwrap();
    let demo = Program::path("demo").unwrap();
    let (good, said) = run(Command::new(&demo).arg("--keep").arg(kept.path()));
    assert!(good, "{said}");
    assert!(!said.contains("(killed after"), "{said}");

    let approvals = folders(&kept.path().join("approvals"));
    let requests = folders(&kept.path().join("requests"));
    assert_eq!((approvals.len(), requests.len()), (4, 2), "{said}");
    for folder in approvals.iter().chain(&requests) {
        assert!(verified(folder, "statement.txt"), "{}", folder.display());
        let text = fs::read_to_string(folder.join("statement.txt")).unwrap();
        write_private(
            &folder.join("other.txt"),
            text.replacen('0', "1", 1).as_bytes(),
        )
        .unwrap();
        assert!(
            !verified(folder, "other.txt"),
            "a changed text: {}",
            folder.display()
        );
    }

    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit/testdata/check_log.py");
    let receipts = folders(&kept.path().join("receipts"));
    let proofs: Vec<_> = receipts
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "tlog-proof"))
        .collect();
    assert!(proofs.len() >= 2, "{said}");
    for proof in proofs {
        let mut python = Command::new("python3");
        python
            .arg(&checker)
            .arg(kept.path().join("log"))
            .arg(kept.path().join("vkey"));
        python
            .arg("--receipt")
            .arg(proof)
            .arg("--entry")
            .arg(proof.with_extension("entry.json"));
        let (good, said) = run(&mut python);
        assert!(good, "{}: {said}", proof.display());
    }
    let keys = kept.path().join("keys");
    assert_eq!(folders(&keys).len(), 4, "three key files and the note");

    let (good, said) = run(Command::new(&demo).arg("--keep").arg(kept.path()));
    assert!(!good && said.contains("is not empty"), "{said}");
}

#[test]
fn the_demo_rotates_a_role_of_postgresql() {
    let demo = Program::path("demo").unwrap();
    let (good, said) = run(Command::new(&demo).arg("--postgres"));
    assert!(good, "{said}");
    for word in [
        "The target is PostgreSQL ",
        "password authentication failed",
        "Everything is as it should be.",
    ] {
        assert!(said.contains(word), "{word:?} was not told:\n{said}");
    }
}

#[test]
fn the_demo_runs_with_yubikeys_through_the_real_stack() {
    let demo = Program::path("demo").unwrap();
    let (good, said) = run(Command::new(&demo).arg("--yubikey"));
    assert!(good, "{said}");
    for word in [
        "(YubiKey 10000001 blinks; bob touches it)",
        "(YubiKey 10000002 blinks; dan does not touch it)",
        "touch your YubiKey 10000001 now to open your shares",
        "Everything is as it should be.",
    ] {
        assert!(said.contains(word), "{word:?} was not told:\n{said}");
    }
}

#[test]
fn a_held_demo_that_is_interrupted_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = Command::new(Program::path("demo").unwrap())
        .arg("--hold")
        .env("TMPDIR", place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut line = || lines.next().map(Result::unwrap);
    while !line().unwrap().starts_with("cd ") {}
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert!(demo.wait().unwrap().success());
    let left = folders(place.path());
    assert!(left.is_empty(), "{left:?}");
    // The daemon would hold the pipe open.
    while line().is_some() {}
}
