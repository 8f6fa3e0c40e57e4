//! A vault that changes, by the command line alone: people come, credentials follow, texts go.

#![expect(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{collections::BTreeSet, fs};

use keyturn_tests::{Outcome, World, program::finish};
use serde_json::{Value, json};

const PATH: &str = "aws/prod/root";
const SECRET: &str = "hunter2 is not the password";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A founded vault with one credential: alice asks and operates, the others are custodians.
fn founded() -> Outcome<World> {
    let mut world = World::new()?;
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator", "auditor"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    world.found(&people)?;
    fs::write(world.folder().join("secret"), SECRET)?;
    let add = "credential add aws/prod/root --kind aws-root --group ops --policy default --secret-file secret";
    world.keyturn("alice", add.split(' '))?.ok()?;
    Ok(world)
}

/// Runs a command of alice that succeeds, for its JSON.
fn alice(world: &World, args: &[&str]) -> Outcome<Value> {
    let args = ["--json"].iter().chain(args);
    world.keyturn("alice", args)?.ok()?.json()
}

/// Two custodians agree to the request that waits for them; gives its ceremony.
fn agreed(world: &World, people: [&str; 2]) -> Outcome<String> {
    let mut ceremony = String::new();
    for person in people {
        let (id, digest) = world.waiting(person)?;
        let args = ["--yes-sha256", &digest, "approve", &id, "--no-wait"];
        world.keyturn(person, args)?.ok()?;
        ceremony = id;
    }
    Ok(ceremony)
}

/// Runs a command of alice to which two custodians agree while it waits.
fn decided(world: &World, people: [&str; 2], args: &[&str]) -> Outcome<String> {
    let child = world.command("alice", args)?.spawn()?;
    let ceremony = agreed(world, people)?;
    finish(child)?.ok()?;
    Ok(ceremony)
}

/// What `audit verify` finds wrong.
fn findings(world: &World) -> Outcome<Value> {
    Ok(alice(world, &["audit", "verify"])?["findings"].clone())
}

/// Erin enrols, is invited, joins, and becomes a custodian by charter 2.
fn erin_joins(world: &World) -> Outcome<()> {
    let enrolled = ["--json", "enroll", "erin", "--out", "erin.enroll"];
    let enrolled = world.keyturn("erin", enrolled)?.ok()?.json()?;
    let enrolment = text(&enrolled["enrolment"]);
    let other = "0".repeat(64);
    let blind = ["--yes-sha256", &other, "charter", "invite", "erin.enroll"];
    world.keyturn("alice", blind)?.exits(26)?;
    let invite = [
        "--yes-sha256",
        &enrolment,
        "charter",
        "invite",
        "erin.enroll",
    ];
    world.keyturn("bob", invite)?.exits(7)?;
    let invited = alice(world, &invite)?;

    let mut charter = alice(world, &["charter", "show"])?;
    let genesis = text(&alice(world, &["status"])?["charter_sha256"]);
    let mut erin = invited["person"].clone();
    erin["roles"] = json!(["custodian"]);
    charter["groups"][0]["members"]
        .as_array_mut()
        .ok_or("no members")?
        .push(erin["id"].clone());
    charter["persons"]
        .as_array_mut()
        .ok_or("no persons")?
        .push(erin);
    charter["joins"] = json!([enrolment]);
    let file = world.folder().join("charter.json");
    fs::write(&file, charter.to_string())?;
    let propose = [
        "charter",
        "propose",
        "charter.json",
        "--reason",
        "erin helps",
    ];
    world.keyturn("alice", propose)?.exits(86)?;

    let join = ["--json", "--yes-sha256", &genesis, "join", "erin.welcome"];
    let joined = world.keyturn("erin", join)?.ok()?.json()?;
    charter["joins"] = json!([joined["join"]]);
    fs::write(&file, charter.to_string())?;
    decided(world, ["bob", "carol"], &propose)?;
    Ok(())
}

#[test]
fn a_fourth_custodian_joins() {
    let world = founded().unwrap();
    erin_joins(&world).unwrap();
    for person in ["alice", "bob", "erin"] {
        let show = ["--json", "charter", "show"];
        let shown = world.keyturn(person, show).unwrap().ok().unwrap();
        let shown = shown.json().unwrap();
        assert_eq!(shown["index"], 2, "{person}");
        assert_eq!(shown["persons"].as_array().unwrap().len(), 5, "{person}");
        world.keyturn(person, ["status"]).unwrap().ok().unwrap();
    }
    assert_eq!(findings(&world).unwrap(), json!([]));
}

#[test]
fn what_is_sealed_follows_the_charter() {
    let world = founded().unwrap();
    erin_joins(&world).unwrap();
    let reshare = ["reshare", "aws/**", "--reason", "erin helps"];
    decided(&world, ["bob", "dan"], &reshare).unwrap();
    let shown = alice(&world, &["credential", "show", PATH]).unwrap();
    let holders: Vec<_> = shown["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["holders"].as_array().unwrap().len())
        .collect();
    assert_eq!(holders.iter().max(), Some(&4), "{shown}");
    assert_eq!(holders.iter().min(), Some(&3), "the old version stays");
    let again = alice(&world, &reshare).unwrap();
    assert_eq!(again["paths"], json!([]), "nothing is left to do");
    assert_eq!(findings(&world).unwrap(), json!([]));
}

#[test]
fn check_outs_grow() {
    let world = founded().unwrap();
    let unseal = ["unseal", PATH, "--reason", "down", "--check-out", "1h"];
    let opened = decided(&world, ["bob", "carol"], &unseal).unwrap();
    let ends = |by: &str| {
        let extend = [
            "--json",
            "extend",
            &opened,
            "--by",
            by,
            "--reason",
            "still down",
        ];
        let child = world.command("alice", extend).unwrap().spawn().unwrap();
        let (id, _) = world.waiting("dan").unwrap();
        let other = "0".repeat(64);
        let look = ["--yes-sha256", &other, "approve", &id];
        let seen = world.keyturn("dan", look).unwrap().exits(26).unwrap();
        let what = format!("{opened}: unseal {PATH} (v1), asked for by alice: down\n");
        assert!(seen.stderr.contains(&what), "{}", seen.stderr);
        agreed(&world, ["bob", "dan"]).unwrap();
        finish(child).unwrap().ok().unwrap();
        let shown = alice(&world, &["credential", "show", PATH]).unwrap();
        shown["checkout_ends_ms"].as_u64().unwrap()
    };
    let (first, second) = (ends("30m"), ends("90m"));
    let longer = (second - first).abs_diff(90 * 60 * 1000);
    assert!(longer < 2_000, "a stamp has whole seconds: {longer}");
    let extend = ["extend", &opened, "--by", "0s", "--reason", "no longer"];
    world.keyturn("alice", extend).unwrap().exits(69).unwrap();
    assert_eq!(findings(&world).unwrap(), json!([]));
}

#[test]
fn texts_go() {
    let world = founded().unwrap();
    let unseal = ["unseal", PATH, "--reason", "down", "--check-out", "1h"];
    let opened = decided(&world, ["bob", "carol"], &unseal).unwrap();
    let erase = ["erase", &opened, "--reason", "it names a person"];
    decided(&world, ["carol", "dan"], &erase).unwrap();
    let looked = ["--json", "review", &opened];
    let looked = world.keyturn("dan", looked).unwrap().ok().unwrap();
    assert_eq!(looked.json().unwrap()["details"], Value::Null);

    assert_eq!(findings(&world).unwrap(), json!([]));
}

#[test]
fn those_without_a_part_in_it_review() {
    let world = founded().unwrap();
    let ask = ["unseal", PATH, "--reason", "down", "--no-wait"];
    let open = world.keyturn("alice", ask).unwrap().ok().unwrap().stdout;
    let early = ["review", open.trim(), "--in-order"];
    world.keyturn("dan", early).unwrap().exits(48).unwrap();
    let (_, digest) = world.waiting("dan").unwrap();
    let refuse = ["refuse", open.trim(), "--reason", "nobody called me"];
    let refuse = ["--yes-sha256", &digest].into_iter().chain(refuse);
    world.keyturn("dan", refuse).unwrap().ok().unwrap();
    let opened = agreed(&world, ["bob", "carol"]).unwrap();
    assert_eq!(opened, open.trim());
    for (name, person, args, exit) in [
        ("she asked", "alice", vec!["--in-order"], 217),
        ("he approved", "bob", vec!["--in-order"], 217),
        ("no words", "dan", vec!["--questioned"], 2),
        ("a note alone", "dan", vec!["--note", "hm"], 11),
        (
            "both",
            "dan",
            vec!["--in-order", "--questioned", "--note", "x"],
            2,
        ),
        (
            "he refused",
            "dan",
            vec!["--questioned", "--note", "why at night?"],
            0,
        ),
        ("and later", "dan", vec!["--in-order"], 0),
    ] {
        let args = ["review", &opened].into_iter().chain(args);
        let done = world.keyturn(person, args).unwrap();
        assert_eq!(done.code, exit, "{name}: {}", done.stderr);
    }
    let looked = alice(&world, &["review", &opened]).unwrap();
    let outcomes = looked["reviews"].as_array().unwrap().iter();
    let outcomes: Vec<_> = outcomes
        .map(|review| (&review["questioned"], &review["note"]))
        .collect();
    let words = json!("why at night?");
    assert_eq!(
        outcomes,
        [(&json!(true), &words), (&json!(false), &Value::Null)]
    );
    assert_eq!(looked["said"][0]["reason"], "nobody called me");

    let history = alice(&world, &["credential", "history", PATH]).unwrap();
    let kinds = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(&entry["type"]));
    let kinds: BTreeSet<_> = kinds.collect();
    for kind in [
        "ceremony.opened",
        "ceremony.approved",
        "ceremony.refused",
        "ceremony.reviewed",
    ] {
        assert!(
            kinds.contains(kind),
            "{kind} is not in the history: {kinds:?}"
        );
    }
    let report = alice(&world, &["audit", "report"]).unwrap();
    let case = &report["requests"][0];
    let outcomes: Vec<_> = [0, 1]
        .map(|n| text(&case["reviews"][n]["outcome"]))
        .to_vec();
    assert_eq!(outcomes, ["questioned", "in order"]);
    assert_eq!(case["agreed"], json!(["bob", "carol"]));

    // Their words can go; that they were said, and by whom, stays.
    for of in ["dan", "dan"] {
        let erase = [
            "erase",
            &opened,
            "--said-by",
            of,
            "--reason",
            "it names a person",
        ];
        decided(&world, ["bob", "carol"], &erase).unwrap();
    }
    let nothing = ["erase", &opened, "--said-by", "dan", "--reason", "again"];
    world.keyturn("alice", nothing).unwrap().exits(9).unwrap();
    let looked = alice(&world, &["review", &opened]).unwrap();
    assert_eq!(looked["reviews"][0]["note"], Value::Null);
    assert_eq!(looked["said"][0]["reason"], Value::Null);
    let verified = alice(&world, &["audit", "verify"]).unwrap();
    assert_eq!(verified["findings"], json!([]));
    assert_eq!(verified["details"]["erased"], 2);
    assert_eq!(verified["details"]["absent"], 0);
}

#[test]
fn definitions_change() {
    let world = founded().unwrap();
    let shown = alice(&world, &["credential", "show", PATH]).unwrap();
    let mut definition = shown["definition"].clone();
    definition["metadata"]["account"] = json!("123456789012");
    let file = world.folder().join("definition.json");
    fs::write(&file, definition.to_string()).unwrap();
    let change = [
        "credential",
        "change",
        PATH,
        "definition.json",
        "--reason",
        "say whose it is",
    ];
    decided(&world, ["bob", "carol"], &change).unwrap();
    let shown = alice(&world, &["credential", "show", PATH]).unwrap();
    assert_eq!(shown["metadata"]["account"], "123456789012");
    definition["path"] = json!("aws/prod/other");
    fs::write(&file, definition.to_string()).unwrap();
    world.keyturn("alice", change).unwrap().exits(92).unwrap();
    assert_eq!(findings(&world).unwrap(), json!([]));
}
