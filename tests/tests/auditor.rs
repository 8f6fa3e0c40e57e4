//! What `docs/AUDITOR.md` tells an auditor to type, typed.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use keyturn_tests::{Outcome, World, program::finish};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/AUDITOR.md");
const PATH: &str = "aws/prod/root";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A vault in which alice opened a credential, dan having refused; alice is back.
fn told() -> Outcome<(World, String)> {
    let mut world = World::new()?;
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator", "auditor"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    let genesis = world.found(&people)?;
    fs::write(world.folder().join("secret"), "hunter2")?;
    let add = "credential add aws/prod/root --kind aws-root --group ops --policy default --secret-file secret";
    world.keyturn("alice", add.split(' '))?.ok()?;
    let unseal = [
        "unseal",
        PATH,
        "--reason",
        "the identity provider is down",
        "--ticket",
        "INC-7",
        "--check-out",
        "1h",
    ];
    let child = world.command("alice", unseal)?.spawn()?;
    let (ceremony, digest) = world.waiting("dan")?;
    let refuse = [
        "--yes-sha256",
        &digest,
        "refuse",
        &ceremony,
        "--reason",
        "nobody called me",
    ];
    world.keyturn("dan", refuse)?.ok()?;
    for person in ["bob", "carol"] {
        let approve = ["--yes-sha256", &digest, "approve", &ceremony, "--no-wait"];
        world.keyturn(person, approve)?.ok()?;
    }
    finish(child)?.ok()?;
    world.keyturn("alice", ["checkin", &ceremony])?.ok()?;
    Ok((world, genesis))
}

/// The blocks of the page that a shell takes.
fn steps() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("\n```").next().unwrap())
        .collect()
}

fn run(step: &str, folder: &Path) -> Outcome<Output> {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", step]);
    Ok(bash.current_dir(folder).output()?)
}

#[test]
fn the_page_is_typed() {
    let (world, genesis) = told().unwrap();
    world
        .keyturn("alice", ["audit", "export", "log"])
        .unwrap()
        .ok()
        .unwrap();
    let log = world.folder().join("log");
    let count = |folder: &str| fs::read_dir(log.join(folder)).unwrap().count();
    assert_eq!(count("details"), 2, "alice's reason and dan's");
    let steps = steps();
    assert!(steps.len() >= 6, "{steps:?}");
    let mut last = String::new();
    for step in &steps {
        let done = run(step, &log).unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{step}\n{said}");
        last = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    }
    assert_eq!(last, genesis, "the last step tells the first charter");
    let statements = fs::read_dir(world.folder().join("work/statements")).unwrap();
    assert!(
        statements.count() >= 3 * 5,
        "a request, three statements, a check-in"
    );

    // With the program, by somebody who is nobody here.
    let dir = ["--dir", "log", "--vkey", "log/vkey", "--genesis", &genesis];
    let audit = |args: &[&str]| {
        let args: Vec<_> = ["--json", "audit"]
            .iter()
            .chain(args)
            .chain(&dir)
            .copied()
            .collect();
        world.keyturn("auditor", args).unwrap()
    };
    let verified = audit(&["verify"]).ok().unwrap().json().unwrap();
    assert_eq!(verified["findings"], serde_json::json!([]));
    assert_eq!(verified["details"]["checked"], 2);
    let report = audit(&["report"]).ok().unwrap().json().unwrap();
    let case = &report["requests"][0];
    assert_eq!(case["reason"], "the identity provider is down");
    assert_eq!(case["ticket"], "INC-7");
    assert_eq!(case["outcome"], "released");
    let said = case["said"].as_array().unwrap().iter();
    let said: Vec<_> = said.map(|said| text(&said["decision"])).collect();
    assert_eq!(said, ["refuse", "approve", "approve"]);
    assert!(
        case["returned"].is_object() && case["owed"][0] == PATH,
        "{case}"
    );
    let later = audit(&["report", "--from", "2100-01-01T00:00:00Z"])
        .ok()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(later["requests"], serde_json::json!([]));

    let at = text(&case["authorized"]["time"]);
    let uses = world.folder().join("uses.csv");
    let record =
        |line: &str| fs::write(&uses, format!("time,credential,who,event\n{line}\n")).unwrap();
    record(&format!("{at},{PATH},198.51.100.7,ConsoleLogin"));
    let file = uses.display().to_string();
    audit(&["reconcile", &file]).ok().unwrap();
    record(&format!(
        "2020-01-01T00:00:00Z,{PATH},198.51.100.7,ConsoleLogin"
    ));
    let found = audit(&["reconcile", &file])
        .exits(98)
        .unwrap()
        .json()
        .unwrap();
    let codes = found["result"].as_array().unwrap().iter();
    let codes: Vec<_> = codes.map(|said| text(&said["code"])).collect();
    assert_eq!(codes, ["no-check-out", "not-used"]);

    // What is not as it was does not pass by hand either.
    let tiles = log.join("tile/entries/000.p");
    let bundle = fs::read_dir(tiles).unwrap().next().unwrap().unwrap().path();
    let object = fs::read_dir(log.join("objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let words = fs::read_dir(log.join("details"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for file in [bundle, log.join("checkpoint"), object, words] {
        let whole = fs::read(&file).unwrap();
        let mut changed = whole.clone();
        // Of a checkpoint the text counts, and it comes first.
        let place = changed.len() / 8;
        changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
        fs::write(&file, changed).unwrap();
        let failed = steps
            .iter()
            .filter(|step| !run(step, &log).unwrap().status.success());
        assert!(
            failed.count() >= 1,
            "{} was changed, and passes",
            file.display()
        );
        fs::write(&file, whole).unwrap();
    }
}
