//! Stories told with the command line alone: real keys, a real daemon, several people.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use keyturn_tests::{Outcome, Reply, World, program::finish};
use serde_json::Value;

const PATH: &str = "aws/prod/root";
const SECRET: &str = "hunter2 is not the password";

/// A founded vault: alice asks and operates, bob, carol and dan are custodians.
fn founded() -> Outcome<World> {
    let mut world = World::new()?;
    world.add_sink("copies")?;
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    world.found(&people)?;
    Ok(world)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn add(world: &World) -> Outcome<()> {
    add_at(world, PATH)
}

fn add_at(world: &World, path: &str) -> Outcome<()> {
    fs::write(world.folder().join("secret"), SECRET)?;
    let more = "--kind aws-root --group ops --policy default --secret-file secret";
    let add = ["credential", "add", path];
    let add = add.into_iter().chain(more.split(' '));
    world.keyturn("alice", add)?.ok()?;
    Ok(())
}

/// Asks for the credential and does not wait for the command to end.
fn ask(world: &World, more: &[&str]) -> Outcome<Child> {
    let args = ["unseal", PATH, "--reason", "nobody can sign in"];
    Ok(world.command("alice", args.iter().chain(more))?.spawn()?)
}

fn approve(world: &World, person: &str, digest: &str) -> Outcome<Reply> {
    world.keyturn(person, ["--yes-sha256", digest, "approve", "--no-wait"])
}

#[test]
fn two_custodians_open_it_and_everything_is_proven() {
    let world = founded().unwrap();
    add(&world).unwrap();
    let unseal = ask(&world, &["--ticket", "INC-1"]).unwrap();
    let (ceremony, digest) = world.waiting("dan").unwrap();
    let refuse = ["refuse", &ceremony, "--reason", "call me first"];
    world.keyturn("dan", refuse).unwrap().ok().unwrap();

    let told = approve(&world, "bob", &digest).unwrap().ok().unwrap();
    for line in [
        "alice",
        "nobody can sign in (INC-1)",
        "dan has refused: call me first",
    ] {
        assert!(told.stderr.contains(line), "{line}: {}", told.stderr);
    }
    let other = "0".repeat(64);
    let args = ["--yes-sha256", &other, "approve", &ceremony];
    world.keyturn("carol", args).unwrap().exits(26).unwrap();
    let args = ["--yes-sha256", &digest, "approve", &ceremony];
    let twice = world.keyturn("bob", args).unwrap().exits(36).unwrap();
    assert!(
        twice.stderr.contains("another custodian must"),
        "{}",
        twice.stderr
    );
    approve(&world, "carol", &digest).unwrap().ok().unwrap();

    let opened = finish(unseal).unwrap().ok().unwrap();
    assert_eq!(opened.stdout, format!("{SECRET}\n"));
    assert!(!opened.stderr.contains(SECRET));
    for entry in ["authorized", "released"] {
        let name = format!("receipts/{ceremony}-{entry}.tlog-proof");
        assert!(world.home("alice").join(name).is_file(), "{entry}");
    }

    let again = ["--json", "unseal", "--resume", &ceremony];
    let again = world.keyturn("alice", again).unwrap().ok().unwrap();
    assert_eq!(text(&again.json().unwrap()["secrets"][0]["secret"]), SECRET);
    let worked = format!("{PATH}=v1");
    let checkin = ["checkin", &ceremony, "--worked", &worked];
    world.keyturn("alice", checkin).unwrap().ok().unwrap();
    let again = ["unseal", "--resume", &ceremony];
    let gone = world.keyturn("alice", again).unwrap().exits(9).unwrap();
    assert_eq!(gone.stdout, "", "the key is gone after the check-in");

    let report = world.keyturn("alice", ["--json", "audit", "verify"]);
    let report = report.unwrap().ok().unwrap().json().unwrap();
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    assert_eq!(report["ceremonies"], 1);
    for file in files(&world.log()) {
        let bytes = fs::read(&file).unwrap();
        let found = bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        assert!(!found, "{}", file.display());
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn shares_in_flight_outlive_a_killed_daemon() {
    let mut world = founded().unwrap();
    add(&world).unwrap();
    let unseal = ask(&world, &[]).unwrap();
    let (ceremony, digest) = world.waiting("bob").unwrap();
    let args = ["--yes-sha256", &digest, "approve", &ceremony];
    let bob = world.command("bob", args).unwrap().spawn().unwrap();
    while text(
        &world
            .keyturn("carol", ["--json", "status"])
            .unwrap()
            .json()
            .unwrap()["waiting"][0]["voices"][0]["person"],
    ) != "bob"
    {
        thread::sleep(Duration::from_millis(50));
    }
    world.kill().unwrap();
    world.start().unwrap();
    approve(&world, "carol", &digest).unwrap().ok().unwrap();
    assert_eq!(
        finish(unseal).unwrap().ok().unwrap().stdout,
        format!("{SECRET}\n")
    );
    finish(bob).unwrap().ok().unwrap();
}

#[test]
fn custodians_open_it_without_the_vault() {
    let mut world = founded().unwrap();
    add(&world).unwrap();
    let export = ["credential", "export", PATH, "--to", "export"];
    world.keyturn("alice", export).unwrap().ok().unwrap();
    world.stop().unwrap();

    let request = [
        "--json",
        "recover",
        "request",
        PATH,
        "--export",
        "export",
        "--reason",
        "no vault",
        "--out",
        "request.json",
    ];
    let asked = world
        .keyturn("alice", request)
        .unwrap()
        .ok()
        .unwrap()
        .json()
        .unwrap();
    let digest = text(&asked["request_sha256"]);
    for person in ["bob", "dan"] {
        let out = format!("{person}.json");
        let share = [
            "--yes-sha256",
            &digest,
            "recover",
            "share",
            "request.json",
            "--export",
            "export",
            "--out",
            &out,
        ];
        world.keyturn(person, share).unwrap().ok().unwrap();
    }
    let open = |answers: &[&str]| {
        let args = ["recover", "open", "request.json", "--export", "export"];
        world.keyturn("alice", args.iter().chain(answers)).unwrap()
    };
    let mut answer: Value =
        serde_json::from_slice(&fs::read(world.folder().join("dan.json")).unwrap()).unwrap();
    let bobs: Value =
        serde_json::from_slice(&fs::read(world.folder().join("bob.json")).unwrap()).unwrap();
    answer["submission"] = bobs["submission"].clone();
    fs::write(world.folder().join("mixed.json"), answer.to_string()).unwrap();
    for (name, answers, exit) in [
        ("one custodian", vec!["bob.json"], 96),
        ("the same twice", vec!["bob.json", "bob.json"], 96),
        (
            "another's share under one's own approval",
            vec!["bob.json", "mixed.json"],
            41,
        ),
        ("no answer at all", vec!["request.json", "bob.json"], 27),
        ("two custodians", vec!["bob.json", "dan.json"], 0),
    ] {
        let reply = open(&answers);
        assert_eq!(reply.code, exit, "{name}: {}", reply.stderr);
        assert_eq!(reply.stdout == format!("{SECRET}\n"), exit == 0, "{name}");
    }
    world.start().unwrap();
    let import = ["recover", "import", asked["ceremony"].as_str().unwrap()];
    world.keyturn("alice", import).unwrap().ok().unwrap();
    world
        .keyturn("alice", ["audit", "verify"])
        .unwrap()
        .ok()
        .unwrap();
}

#[test]
fn a_sink_alone_and_a_quorum_open_it() {
    let mut world = founded().unwrap();
    add(&world).unwrap();
    // Stopping, the daemon brings its places up to date.
    world.stop().unwrap();
    fs::remove_dir_all(world.vault()).unwrap();
    let run = |person: &str, line: &str| {
        let reply = world.keyturn(person, line.split(' ')).unwrap();
        reply.ok().unwrap().stdout
    };
    let request =
        format!("--json recover request {PATH} --export copies --reason fire --out r.json");
    let asked: Value = serde_json::from_str(&run("alice", &request)).unwrap();
    let digest = text(&asked["request_sha256"]);
    for person in ["carol", "dan"] {
        let share = format!(
            "--yes-sha256 {digest} recover share r.json --export copies --out {person}.json"
        );
        run(person, &share);
    }
    let open = "recover open r.json --export copies carol.json dan.json";
    assert_eq!(run("alice", open), format!("{SECRET}\n"));
}

#[test]
fn what_is_wrong_is_told_with_a_code_of_its_own() {
    let world = founded().unwrap();
    add(&world).unwrap();
    for (name, person, line, exit) in [
        ("no home", "nobody", "status", 25),
        (
            "no such path",
            "alice",
            "unseal aws/prod/none --reason x",
            9,
        ),
        ("not a path", "alice", "unseal root --reason x", 2),
        ("no reason", "alice", "unseal aws/prod/root", 2),
        (
            "not a requester",
            "bob",
            "unseal aws/prod/root --reason x --no-wait",
            30,
        ),
        (
            "not an operator",
            "bob",
            "credential add a/b --kind text --group ops --policy default --no-secret",
            7,
        ),
        (
            "no such group",
            "alice",
            "credential add a/b --kind text --group none --policy default --no-secret",
            11,
        ),
        (
            "the path is taken",
            "alice",
            "credential add aws/prod/root --kind text --group ops --policy default --no-secret",
            90,
        ),
        ("nothing waits", "bob", "approve", 9),
        (
            "no such ceremony",
            "bob",
            "approve 01ARZ3NDEKTSV4RRFFQ69G5FAV",
            9,
        ),
        (
            "not a canary",
            "alice",
            "drill aws/prod/root --reason x",
            61,
        ),
        (
            "no such scenario",
            "alice",
            "unseal aws/prod/root --reason x --scenario none",
            59,
        ),
        ("no such file", "alice", "join none.welcome", 27),
        ("no share", "alice", "confirm aws/prod/root", 33),
        ("a second home in one", "bob", "enroll bob", 10),
    ] {
        let reply = world.keyturn(person, line.split(' ')).unwrap();
        assert_eq!(reply.code, exit, "{name}: {}", reply.stderr);
        if exit > 2 {
            let lines: Vec<_> = reply.stderr.lines().collect();
            assert!(
                lines.iter().any(|line| line.starts_with("error: ")),
                "{name}: {lines:?}"
            );
            assert!(
                lines.iter().any(|line| line.starts_with("hint: ")),
                "{name}: {lines:?}"
            );
            assert_eq!(reply.stdout, "", "{name}");
        }
    }
    world
        .keyturn("bob", ["confirm", PATH])
        .unwrap()
        .ok()
        .unwrap();
    world.keyturn("bob", ["heartbeat"]).unwrap().ok().unwrap();
    world.keyturn("alice", ["doctor"]).unwrap().ok().unwrap();
    world
        .keyturn("alice", ["audit", "verify"])
        .unwrap()
        .ok()
        .unwrap();
}

/// `audit watch` as it runs.
struct Watch {
    child: Child,
    sizes: Receiver<u64>,
    seen: u64,
}

impl Watch {
    fn start(world: &World, person: &str) -> Outcome<Self> {
        let mut child = world
            .command(person, ["--json", "audit", "watch"])?
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let (sender, sizes) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let shown: Value = serde_json::from_str(&line).unwrap();
                let _ = sender.send(shown["size"].as_u64().unwrap());
            }
        });
        let mut watch = Self {
            child,
            sizes,
            seen: 0,
        };
        watch.next()?;
        Ok(watch)
    }

    /// One more checkpoint, which is higher.
    fn next(&mut self) -> Outcome<()> {
        let size = self.sizes.recv_timeout(Duration::from_mins(1))?;
        assert!(size > self.seen, "{size} after {}", self.seen);
        self.seen = size;
        Ok(())
    }

    /// Everything that somebody else sees now is seen here, too.
    fn sees_everything(&mut self, world: &World) -> Outcome<()> {
        let newest = world.keyturn("alice", ["--json", "audit", "checkpoint"])?;
        let newest = newest.ok()?.json()?["size"].as_u64().ok_or("no size")?;
        while self.seen < newest {
            self.next()?;
        }
        Ok(())
    }
}

#[test]
fn a_watch_goes_on_over_restarts_misses_nothing_and_says_when_the_log_went_back() {
    let mut world = World::new().unwrap();
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    world.found(&people).unwrap();
    world.stop().unwrap();
    let (data, old) = (world.vault().join("data"), world.folder().join("old"));
    let copied = Command::new("cp").arg("-a").args([&data, &old]).status();
    assert!(copied.unwrap().success());
    world.start().unwrap();

    let mut watch = Watch::start(&world, "dan").unwrap();
    add_at(&world, "watched/0").unwrap();
    watch.sees_everything(&world).unwrap();
    for path in ["watched/1", "watched/2"] {
        world.kill().unwrap();
        world.start().unwrap();
        // While the watch may still be waiting to try again.
        add_at(&world, path).unwrap();
        watch.sees_everything(&world).unwrap();
    }

    // A log that is shorter now, and that nothing beside the daemon remembers.
    world.kill().unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&old, &data).unwrap();
    world.start().unwrap();
    let ended = finish(watch.child).unwrap().exits(20).unwrap();
    assert!(
        ended
            .stderr
            .contains("the connection is lost; trying again"),
        "{}",
        ended.stderr
    );
    assert!(watch.sizes.recv().is_err(), "nothing more was shown");
}
