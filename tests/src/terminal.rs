//! `keyturn` on a pseudo-terminal, made by `script(1)`, and the person who types there.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{Outcome, Program, World};

const PATIENCE: Duration = Duration::from_secs(30);

/// A command on a terminal, and all that the terminal has shown.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<String>,
    shown: String,
    /// How far what was shown has been looked for already.
    seen: usize,
}

impl Terminal {
    /// `keyturn` as this person, with nothing that could stand in for the person.
    pub fn keyturn(world: &World, person: &str, args: &str) -> Outcome<Self> {
        Self::with(world, person, "", args)
    }

    /// The same, with these words of a shell before the command: variables of its environment.
    pub fn with(world: &World, person: &str, before: &str, args: &str) -> Outcome<Self> {
        let program = Program::path("keyturn")?;
        let home = world.home(person);
        // In the shell's place: what is typed to interrupt it interrupts nothing else.
        let line = format!(
            "{before} exec '{}' --home '{}' {args}",
            program.display(),
            home.display()
        );
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
        let mut child = command.spawn()?;
        let mut stdout = child.stdout.take().ok_or("no standard output")?;
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
        let keys = child.stdin.take().ok_or("no standard input")?;
        Ok(Self {
            child,
            keys,
            screen,
            shown: String::new(),
            seen: 0,
        })
    }

    /// Waits until this is shown, after what was looked for before.
    pub fn shows(&mut self, what: &str) -> Outcome<()> {
        loop {
            let new = self.shown.get(self.seen..).unwrap_or_default();
            if let Some(at) = new.find(what) {
                self.seen = self.seen.saturating_add(at).saturating_add(what.len());
                return Ok(());
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(text) => self.shown.push_str(&text),
                Err(error) => {
                    return Err(format!("{what:?} was not shown: {error}\n{}", self.shown).into());
                }
            }
        }
    }

    /// Waits for a question and types an answer.
    pub fn answer(&mut self, question: &str, answer: &str) -> Outcome<()> {
        self.shows(question)?;
        // The terminal stops echoing before it asks, or just after.
        thread::sleep(Duration::from_millis(100));
        writeln!(self.keys, "{answer}")?;
        Ok(())
    }

    /// Presses these keys.
    pub fn types(&mut self, keys: &str) -> Outcome<()> {
        write!(self.keys, "{keys}")?;
        Ok(self.keys.flush()?)
    }

    /// The exit code, and all that was shown.
    pub fn ends(mut self) -> Outcome<(i32, String)> {
        let status = self.child.wait()?;
        drop(self.keys);
        self.shown.extend(self.screen);
        Ok((status.code().unwrap_or(-1), self.shown))
    }
}
