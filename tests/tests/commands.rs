//! Every command there is: with `--json` it prints JSON and nothing else on standard output, without a terminal
//! it draws nothing, and it has a manual page and completions.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{collections::BTreeSet, fs, process::Child};

use clap::CommandFactory as _;
use keyturn::cli::Cli;
use keyturn_tests::{Outcome, Reply, World, program::finish, terminal::Terminal};
use serde_json::{Deserializer, Value};

const PATH: &str = "aws/1/root";
const RECORD: &str =
    "time,credential,who,event\n2020-01-01T00:00:00Z,aws/1/root,198.51.100.7,ConsoleLogin\n";

/// Commands whose output is for another program, and no document.
const OTHER: [&str; 2] = ["completions", "man"];

/// The story, and the commands that it has told.
struct Story {
    world: World,
    told: BTreeSet<String>,
}

/// The words of a command line that name the command.
fn command(line: &str) -> String {
    let cli = Cli::command();
    let mut words = line.split(' ').filter(|word| !word.starts_with('-'));
    let first = words.next().unwrap();
    let group = cli.find_subcommand(first).unwrap();
    if group.has_subcommands() {
        format!("{first} {}", words.next().unwrap())
    } else {
        first.to_owned()
    }
}

/// All there are, in the words of a command line.
fn commands() -> BTreeSet<String> {
    let cli = Cli::command();
    let mut all = BTreeSet::new();
    for first in cli.get_subcommands() {
        let inside: Vec<_> = first.get_subcommands().collect();
        if inside.is_empty() {
            all.insert(first.get_name().to_owned());
        }
        for second in inside {
            all.insert(format!("{} {}", first.get_name(), second.get_name()));
        }
    }
    all
}

/// The documents of a reply: JSON and nothing else, and nothing drawn anywhere.
fn documents(line: &str, reply: &Reply) -> Vec<Value> {
    let documents = Deserializer::from_str(&reply.stdout).into_iter::<Value>();
    let documents: Result<Vec<_>, _> = documents.collect();
    let documents = documents.unwrap_or_else(|error| panic!("{line}: {error}\n{}", reply.stdout));
    let drawn = reply.stdout.contains('\u{1b}') || reply.stderr.contains('\u{1b}');
    assert!(!drawn, "{line} draws without a terminal: {}", reply.stderr);
    documents
}

impl Story {
    /// A command with `--json` that ends with this code; where it is done, its first document.
    fn tell(&mut self, person: &str, line: &str, code: i32) -> Value {
        let args = ["--json"].into_iter().chain(line.split(' '));
        let reply = self.world.keyturn(person, args).unwrap();
        self.heard(line, &reply, code)
    }

    fn heard(&mut self, line: &str, reply: &Reply, code: i32) -> Value {
        assert_eq!(reply.code, code, "{line}: {}", reply.stderr);
        self.told.insert(command(line));
        let documents = documents(line, reply);
        // Findings are a result; what is refused has none.
        let has = code == 0 || code == 98;
        assert_eq!(!documents.is_empty(), has, "{line}: {}", reply.stdout);
        documents.into_iter().next().unwrap_or_default()
    }

    /// A command that waits for others.
    fn begin(&self, person: &str, line: &str) -> Child {
        let args = ["--json"].into_iter().chain(line.split(' '));
        self.world.command(person, args).unwrap().spawn().unwrap()
    }

    /// The request that waits for somebody.
    fn waiting(&mut self, person: &str) -> (String, String) {
        for _ in 0..200 {
            let status = self.tell(person, "status", 0);
            if let Some(first) = status.pointer("/waiting/0") {
                return (text(first, "/ceremony"), text(first, "/request_sha256"));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("nothing waits for {person}");
    }

    /// Two custodians agree to what waits for them; gives its ceremony.
    fn agree(&mut self) -> String {
        let mut ceremony = String::new();
        for person in ["bob", "carol"] {
            let (id, digest) = self.waiting(person);
            let line = format!("approve {id} --no-wait --yes-sha256 {digest}");
            self.tell(person, &line, 0);
            ceremony = id;
        }
        ceremony
    }
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// A vault of alice, who asks and operates, and of three custodians.
fn founded() -> Outcome<Story> {
    let mut story = Story {
        world: World::new()?,
        told: BTreeSet::new(),
    };
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator", "auditor"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    fs::create_dir_all(story.world.folder().join("people"))?;
    for (name, _) in people {
        let line = format!("enroll {name} --out people/{name}.enroll");
        story.tell(name, &line, 0);
    }
    story.world.init(&people, "")?;
    story.world.start()?;
    let welcome: Value = serde_json::from_slice(&fs::read(story.world.welcome("bob"))?)?;
    let genesis = text(&welcome, "/genesis/digest");
    for (name, _) in people {
        let line = format!("join vault/welcome/{name}.welcome --yes-sha256 {genesis}");
        story.tell(name, &line, 0);
    }
    fs::write(story.world.folder().join("secret"), "hunter2")?;
    fs::write(story.world.folder().join("uses.csv"), RECORD)?;
    Ok(story)
}

#[test]
fn every_command_prints_json() {
    let mut story = founded().unwrap();
    let add = "--group ops --policy default";
    story.tell(
        "alice",
        &format!("credential add {PATH} --kind text {add} --secret-file secret"),
        0,
    );
    story.tell(
        "alice",
        &format!("credential add drill/1 --kind text --canary {add} --secret-file secret"),
        0,
    );
    for line in [
        "credential list",
        "credential show aws/1/root",
        "credential history aws/1/root",
        "credential export aws/1/root --to export",
        "charter show",
        "doctor",
        "rotate list",
        "rotate list --all",
        "rotate show aws/1/root",
        "audit checkpoint",
        "audit proof 0",
        "audit export log",
        "audit verify",
        "audit report",
        "audit watch --count 1",
        "review",
        "exit-codes",
    ] {
        story.tell("alice", line, 0);
    }
    let mut charter = story.tell("alice", "charter show", 0);
    let file = story.world.folder().join("charter.json");
    fs::write(&file, charter.to_string()).unwrap();
    story.tell("alice", "charter diff charter.json", 0);
    let propose = "charter propose charter.json --reason x --no-wait";
    story.tell("alice", propose, 84);
    charter["policies"][0]["check_out_secs"] = serde_json::json!(60);
    fs::write(&file, charter.to_string()).unwrap();
    let proposed = story.tell("alice", propose, 0);
    let withdraw = format!("withdraw {}", text(&proposed, "/ceremony"));
    story.tell("alice", &withdraw, 0);
    for line in ["confirm aws/1/root", "heartbeat"] {
        story.tell("bob", line, 0);
    }

    let unseal = story.begin("alice", "unseal aws/1/root --reason down --check-out 2h");
    let (ceremony, digest) = story.waiting("dan");
    story.tell(
        "dan",
        &format!("refuse {ceremony} --reason no --yes-sha256 {digest}"),
        0,
    );
    story.tell(
        "dan",
        &format!("retract {ceremony} --yes-sha256 {digest}"),
        0,
    );
    assert_eq!(story.agree(), ceremony);
    let opened = finish(unseal).unwrap();
    let opened = story.heard("unseal", &opened, 0);
    assert_eq!(text(&opened, "/secrets/0/secret"), "hunter2");
    story.tell(
        "alice",
        &format!("extend {ceremony} --by 1h --reason more --no-wait"),
        0,
    );
    story.agree();
    story.tell("dan", &format!("review {ceremony} --in-order"), 0);
    story.tell(
        "alice",
        &format!("checkin {ceremony} --worked aws/1/root=v1"),
        0,
    );
    story.tell(
        "alice",
        &format!("erase {ceremony} --reason names --no-wait"),
        0,
    );
    story.agree();
    let drill = story.begin("alice", "drill drill/1 --reason practice");
    story.agree();
    let drill = finish(drill).unwrap();
    story.heard("drill", &drill, 0);
    let given_up = story.tell("alice", "unseal drill/1 --reason down --no-wait", 0);
    story.tell(
        "alice",
        &format!("withdraw {}", text(&given_up, "/ceremony")),
        0,
    );

    story.tell(
        "alice",
        "credential deposit aws/1/root --secret-file secret",
        0,
    );
    story.tell("alice", "reshare aws/** --reason x", 0);
    let shown = story.tell("alice", "credential show aws/1/root", 0);
    let mut definition = shown.get("definition").cloned().unwrap();
    definition["metadata"] = serde_json::json!({"account": "7"});
    fs::write(
        story.world.folder().join("definition.json"),
        definition.to_string(),
    )
    .unwrap();
    story.tell(
        "alice",
        "credential change aws/1/root definition.json --reason x --no-wait",
        0,
    );
    story.agree();
    let enrolled = story.tell("erin", "enroll erin --out erin.enroll", 0);
    let digest = text(&enrolled, "/enrolment");
    story.tell(
        "alice",
        &format!("charter invite erin.enroll --yes-sha256 {digest}"),
        0,
    );

    story.tell("alice", "rotate complete aws/1/root v2", 0);
    // Without a connector nothing of this can be done; it is refused, and standard output stays empty.
    for line in [
        "rotate now aws/1/root --reason x",
        "rotate retry aws/1/root",
        "rotate claim aws/1/root v1 KEY",
        "rotate resume aws/1/root",
        "credential adopt aws/1/root",
    ] {
        let args = ["--json"].into_iter().chain(line.split(' '));
        let reply = story.world.keyturn("alice", args).unwrap();
        assert!(reply.code > 2, "{line}: {}", reply.stderr);
        story.heard(line, &reply, reply.code);
    }
    story.tell("alice", "rotate pause aws/1/root --for 1h", 0);
    story.tell("alice", "audit reconcile uses.csv", 98);
    story.tell("bob", "accept-restore", 0);

    story.tell("alice", "credential export aws/1/root --to copy", 0);
    let asked = story.tell(
        "alice",
        "recover request aws/1/root --export copy --reason x --out r.json",
        0,
    );
    for person in ["bob", "carol"] {
        let line = format!(
            "recover share r.json --export copy --out {person}.json --yes-sha256 {}",
            text(&asked, "/request_sha256")
        );
        story.tell(person, &line, 0);
    }
    let opened = story.tell(
        "alice",
        "recover open r.json --export copy bob.json carol.json",
        0,
    );
    assert_eq!(text(&opened, "/secrets/0/secret"), "hunter2");
    story.tell(
        "alice",
        &format!("recover import {}", text(&asked, "/ceremony")),
        0,
    );

    let mut missing = commands();
    missing.retain(|command| !story.told.contains(command) && !OTHER.contains(&command.as_str()));
    assert!(missing.is_empty(), "nobody has tried {missing:?}");
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let story = founded().unwrap();
    story.world.keyturn("alice", format!("credential add {PATH} --kind text --group ops --policy default --secret-file secret").split(' ')).unwrap().ok().unwrap();
    let ask = "unseal aws/1/root --reason down --no-wait";
    story
        .world
        .keyturn("alice", ask.split(' '))
        .unwrap()
        .ok()
        .unwrap();
    for (name, before, colour) in [
        ("a terminal", "", true),
        ("one that wants none", "NO_COLOR=1", false),
    ] {
        let (code, shown) = Terminal::with(&story.world, "bob", before, "status")
            .unwrap()
            .ends()
            .unwrap();
        assert_eq!(code, 0, "{name}: {shown}");
        assert!(shown.contains("Waiting for you"), "{name}: {shown}");
        assert_eq!(shown.contains('\u{1b}'), colour, "{name}: {shown:?}");
    }
}

#[test]
fn every_command_has_a_page_and_completions() {
    let world = World::new().unwrap();
    let run = |line: &str| {
        world
            .keyturn("nobody", line.split(' '))
            .unwrap()
            .ok()
            .unwrap()
    };
    fs::create_dir(world.folder().join("man")).unwrap();
    run("man man");
    let scripts: Vec<_> = ["bash", "zsh", "fish"]
        .map(|shell| run(&format!("completions {shell}")).stdout)
        .to_vec();
    let cli = Cli::command();
    let shown = |name: &str| {
        cli.find_subcommand(name)
            .is_some_and(|found| !found.is_hide_set())
    };
    let (mut pages, mut seen) = (0, 0);
    for command in commands() {
        let first = command.split(' ').next().unwrap();
        for script in &scripts {
            let last = command.split(' ').next_back().unwrap();
            assert!(script.contains(last), "no completion of {command}");
            seen += 1;
        }
        if shown(first) {
            let page = world
                .folder()
                .join("man")
                .join(format!("keyturn-{}.1", command.replace(' ', "-")));
            let page =
                fs::read_to_string(&page).unwrap_or_else(|_| panic!("{command} has no page"));
            assert!(
                page.contains("NAME") && page.contains("json"),
                "{command}: {page}"
            );
            pages += 1;
        }
    }
    assert!(
        pages > 40 && seen > 120,
        "{pages} pages, {seen} completions"
    );
}
