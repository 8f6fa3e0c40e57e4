//! The transcripts of `docs/CUSTODIAN.md` are what a custodian with a YubiKey sees.
//!
//! A block ```` ```console NAME ```` holds commands and what they print. They are run in the order of the page, each
//! name with what has to happen around it. `…` alone in a line stands for any lines, within a line for any text.

use std::{fmt::Write as _, fs};

use keyturn_tests::{
    Outcome,
    raw::PEOPLE,
    tokens::{BOB, Held, PIN, PUK, insert, text},
};
use keyturn_tests::{World, harness::write_private};
use keyturn_virtual_yubikey::{Desk, TestPki, Touch, at_desk};

const PAGE: &str = include_str!("../../docs/CUSTODIAN.md");

/// A command, and the lines that it prints.
type Command = (&'static str, Vec<&'static str>);

/// The blocks in the order of the page: name, then commands with their output.
fn blocks() -> Vec<(&'static str, Vec<Command>)> {
    let mut blocks = Vec::new();
    for part in PAGE.split("```console ").skip(1) {
        let (name, rest) = part.split_once('\n').unwrap_or((part, ""));
        let body = rest.split("```").next().unwrap_or_default();
        let mut commands: Vec<Command> = Vec::new();
        for line in body.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command, Vec::new()));
            } else if let Some((_, output)) = commands.last_mut() {
                output.push(line);
            }
        }
        blocks.push((name, commands));
    }
    blocks
}

/// Whether these lines are those of the page.
fn matches(want: &[&str], got: &[&str]) -> bool {
    match (want, got) {
        ([], []) => true,
        (["…", rest @ ..], _) => {
            (0..=got.len()).any(|skip| got.get(skip..).is_some_and(|got| matches(rest, got)))
        }
        ([first, rest @ ..], [line, more @ ..]) => line_matches(first, line) && matches(rest, more),
        ([_, ..], []) | ([], [_, ..]) => false,
    }
}

fn line_matches(want: &str, got: &str) -> bool {
    let mut parts = want.split('…');
    let Some(mut rest) = parts.next().and_then(|first| got.strip_prefix(first)) else {
        return false;
    };
    let mut is_open = false;
    for part in parts {
        is_open = true;
        match rest.find(part) {
            Some(at) => {
                rest = rest
                    .get(at.saturating_add(part.len())..)
                    .unwrap_or_default();
            }
            None => return false,
        }
    }
    rest.is_empty() || (is_open && want.ends_with('…'))
}

/// A vault of which bob's page is read; his spare and the spares of others are away.
struct Page {
    world: World,
    bob: Held,
    ceremony: String,
    digest: String,
    said: String,
}

/// The words of a command line; single quotes keep spaces.
fn words(line: &str) -> Vec<&str> {
    let quoted = line.split('\'').enumerate();
    let parts = quoted.flat_map(|(at, part)| {
        if at % 2 == 1 {
            vec![part]
        } else {
            part.split_whitespace().collect()
        }
    });
    parts.collect()
}

impl Page {
    fn new(desk: &Desk) -> Outcome<Self> {
        let pki = TestPki::new()?;
        let bob = insert(desk, 0, BOB, (5, 7, 4), &pki)?;
        let world = World::new()?;
        world.believe(&pki.anchors_file())?;
        fs::create_dir_all(world.folder().join("people"))?;
        world.tell_pin("bob", PIN, PUK)?;
        Ok(Self {
            world,
            bob,
            ceremony: String::new(),
            digest: String::new(),
            said: String::new(),
        })
    }

    /// Runs the commands of a block and compares what they print.
    fn run(&mut self, name: &str, commands: &[Command]) -> Outcome<()> {
        for (command, want) in commands {
            let mut args = words(command);
            args.remove(0);
            for word in args.iter_mut().filter(|word| word.ends_with('…')) {
                *word = &self.ceremony;
            }
            if args.first() == Some(&"enroll") {
                args.extend(["--puk-fd", "4"]);
            }
            if ["join", "approve", "refuse"].contains(args.first().unwrap_or(&"")) {
                args.extend(["--yes-sha256", &self.digest]);
            }
            let reply = self.world.keyturn("bob", args)?;
            let all = format!("{}{}", reply.stderr, reply.stdout);
            let got: Vec<&str> = all.lines().collect();
            if !matches(want, &got) {
                writeln!(self.said, "--- {name}: $ {command}\n{all}")?;
            }
        }
        Ok(())
    }

    /// The others enrol, and the vault is founded.
    fn found(&mut self) -> Outcome<()> {
        let from = self.world.folder().join("bob.enroll");
        fs::rename(from, self.world.folder().join("people/bob.enroll"))?;
        for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
            let out = format!("people/{name}.enroll");
            self.world
                .keyturn(name, ["enroll", name, "--out", &out])?
                .ok()?;
        }
        let made = self.world.init(&PEOPLE, "")?.json()?;
        self.digest = made
            .pointer("/charter/sha256")
            .map(text)
            .unwrap_or_default();
        self.world.start()?;
        for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
            let welcome = self.world.welcome(name).display().to_string();
            self.world
                .keyturn(name, ["join", &welcome, "--yes-sha256", &self.digest])?
                .ok()?;
        }
        fs::copy(
            self.world.welcome("bob"),
            self.world.folder().join("bob.welcome"),
        )?;
        Ok(())
    }

    /// Alice asks for a credential; it is the only one that waits for bob.
    fn ask(&mut self) -> Outcome<()> {
        let secret = self.world.folder().join("secret");
        if !secret.exists() {
            write_private(&secret, b"hunter2")?;
            let add = "credential add aws/prod/root --kind text --group ops --policy default --secret-file secret";
            self.world.keyturn("olga", add.split(' '))?.ok()?;
        }
        let ask = "unseal aws/prod/root --reason down --ticket INC-7 --no-wait";
        let asked = self.world.keyturn("alice", ask.split(' '))?.ok()?.stdout;
        let status = self
            .world
            .keyturn("bob", ["--json", "status"])?
            .ok()?
            .json()?;
        let waiting = status
            .get("waiting")
            .and_then(|all| all.as_array())
            .cloned();
        let waiting = waiting.unwrap_or_default();
        let of = |name: &str| {
            waiting
                .iter()
                .find(|one| one.get("ceremony").map(text).as_deref() == Some(asked.trim()))
                .and_then(|one| one.get(name).map(text))
        };
        self.digest = of("request_sha256").ok_or("it does not wait for bob")?;
        asked.trim().clone_into(&mut self.ceremony);
        Ok(())
    }
}

#[test]
fn the_page_shows_what_a_custodian_sees() {
    at_desk(1, |desk| {
        let mut page = Page::new(desk).expect("a desk");
        let blocks = blocks();
        let names: Vec<_> = blocks.iter().map(|(name, _)| *name).collect();
        let mut story = || -> Outcome<()> {
            for (name, commands) in &blocks {
                match *name {
                    "join" => page.found()?,
                    "approve" | "refuse" => page.ask()?,
                    "touch" => page.bob.card.touch_next([Touch::Never]),
                    "wrong-pin" => page.world.tell_pin("bob", "999999", PUK)?,
                    "away" => page.bob.pull()?,
                    _ => {}
                }
                page.run(name, commands)?;
                if *name == "wrong-pin" {
                    page.world.tell_pin("bob", PIN, PUK)?;
                }
                if *name == "away" {
                    page.bob.put_back(desk)?;
                }
            }
            Ok(())
        };
        story().expect("the page's story");
        assert!(
            page.said.is_empty(),
            "the page shows something else than:\n{}",
            page.said
        );
        for name in [
            "enrol",
            "rehearse",
            "join",
            "approve",
            "refuse",
            "touch",
            "wrong-pin",
            "away",
            "heartbeat",
        ] {
            assert!(names.contains(&name), "the page has no {name}");
        }
    });
}

#[test]
fn lines_are_compared_as_the_page_says() {
    for (want, got, good) in [
        ("as it is", "as it is", true),
        ("as it is", "as it is not", false),
        ("from … to …", "from here to there", true),
        ("… s)", "(it waits 15 s)", true),
        ("(… s)", "(it waits 15 s) more", false),
        ("…", "", true),
    ] {
        assert_eq!(line_matches(want, got), good, "{want}: {got}");
    }
    assert!(matches(&["a", "…", "d"], &["a", "b", "c", "d"]));
    assert!(!matches(&["a", "…", "d"], &["a", "b", "c"]));
}
