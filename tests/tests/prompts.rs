//! The questions that people answer at a terminal: on a real pseudo-terminal, made by `script(1)`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use keyturn_tests::{Program, World, harness::PASSPHRASE, raw::PEOPLE};

const PATIENCE: Duration = Duration::from_secs(30);
const NOT_CONFIRMED: i32 = 26;

/// A command on a terminal, and all that the terminal has shown.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<String>,
    shown: String,
}

impl Terminal {
    /// `keyturn` as this person, with nothing that could stand in for the person.
    fn keyturn(world: &World, person: &str, args: &str) -> Self {
        let program = Program::path("keyturn").unwrap();
        let home = world.home(person);
        let line = format!("'{}' --home '{}' {args}", program.display(), home.display());
        let mut command = Command::new("script");
        command.args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ]);
        command
            .current_dir(world.folder())
            .env("TERM", "dumb")
            .env("SHELL", "/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(got @ 1..) = stdout.read(&mut bytes) {
                let text = bytes.get(..got).unwrap_or_default();
                if sender
                    .send(String::from_utf8_lossy(text).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let keys = child.stdin.take().unwrap();
        Self {
            child,
            keys,
            screen,
            shown: String::new(),
        }
    }

    /// Waits for a question and types an answer.
    fn answer(&mut self, question: &str, answer: &str) {
        let from = self.shown.len();
        while !self
            .shown
            .get(from..)
            .unwrap_or_default()
            .contains(question)
        {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(text) => self.shown.push_str(&text),
                Err(error) => panic!("{question:?} was not asked: {error}\n{}", self.shown),
            }
        }
        // The terminal stops echoing before it asks, or just after.
        thread::sleep(Duration::from_millis(100));
        writeln!(self.keys, "{answer}").unwrap();
    }

    /// The exit code, and all that was shown.
    fn ends(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        drop(self.keys);
        self.shown.extend(self.screen);
        (status.code().unwrap_or(-1), self.shown)
    }
}

#[test]
fn people_enrol_join_and_approve_at_a_terminal() {
    let mut world = World::new().unwrap();
    std::fs::create_dir_all(world.folder().join("people")).unwrap();

    let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --out people/bob.enroll");
    enrol.answer("new passphrase", PASSPHRASE);
    enrol.answer("once more", "something else");
    let (code, shown) = enrol.ends();
    assert!(
        code != 0 && shown.contains("error:") && shown.contains("hint:"),
        "{shown}"
    );

    let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --out people/bob.enroll");
    enrol.answer("new passphrase", PASSPHRASE);
    enrol.answer("once more", PASSPHRASE);
    let (code, shown) = enrol.ends();
    assert_eq!(code, 0, "{shown}");
    assert!(
        !shown.contains(PASSPHRASE),
        "the passphrase was echoed:\n{shown}"
    );

    for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
        let out = format!("people/{name}.enroll");
        world
            .keyturn(name, ["enroll", name, "--out", &out])
            .unwrap()
            .ok()
            .unwrap();
    }
    let made = world.init(&PEOPLE, "").unwrap().json().unwrap();
    let digest = made
        .pointer("/charter/sha256")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    let words = made
        .pointer("/charter/words")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    world.start().unwrap();
    for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
        let welcome = format!("vault/welcome/{name}.welcome");
        let join = ["join", &welcome, "--yes-sha256", &digest];
        world.keyturn(name, join).unwrap().ok().unwrap();
    }

    let mut join = Terminal::keyturn(&world, "bob", "join vault/welcome/bob.welcome");
    join.answer("Type yes", "yes, I think");
    let (code, shown) = join.ends();
    assert_eq!(code, NOT_CONFIRMED, "{shown}");

    let mut join = Terminal::keyturn(&world, "bob", "join vault/welcome/bob.welcome");
    join.answer("Type yes", "yes");
    join.answer("passphrase", PASSPHRASE);
    let (code, shown) = join.ends();
    assert!(
        code == 0 && shown.contains(&words) && shown.contains("founded"),
        "{shown}"
    );

    let secret = world.folder().join("first");
    keyturn_tests::harness::write_private(&secret, b"hunter2").unwrap();
    let add =
        "credential add aws/1/root --kind text --group ops --policy default --secret-file first";
    world.keyturn("olga", add.split(' ')).unwrap().ok().unwrap();
    let ask = "unseal aws/1/root --reason down --no-wait";
    let ceremony = world
        .keyturn("alice", ask.split(' '))
        .unwrap()
        .ok()
        .unwrap()
        .stdout;
    let approve = format!("approve {} --no-wait", ceremony.trim());
    let mut wrong = Terminal::keyturn(&world, "bob", &approve);
    wrong.answer("passphrase", "not the passphrase");
    let (code, shown) = wrong.ends();
    assert!(code != 0 && shown.contains("passphrase"), "{shown}");
    let mut approved = Terminal::keyturn(&world, "bob", &approve);
    approved.answer("passphrase", PASSPHRASE);
    approved.answer("Type yes", "yes");
    let (code, shown) = approved.ends();
    assert!(code == 0 && shown.contains("approved"), "{shown}");
}
