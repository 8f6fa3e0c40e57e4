//! A story told aloud: every command is shown with what it printed, and must end as told.

use std::{
    cell::RefCell,
    collections::HashSet,
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Write as _},
    process::Child,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{
    harness::{Outcome, World},
    program::{Reply, finish},
};

/// A command that runs beside the story is waited for this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// More lines than these in a row are not shown a second time.
const OFTEN: usize = 8;

/// The world, and those who listen.
pub struct Stage {
    /// The vault and its people.
    pub world: World,
    /// Lines that were shown.
    shown: RefCell<HashSet<String>>,
}

/// Prints a line on standard output.
pub fn tell(text: &str) -> Outcome<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a heading.
pub fn chapter(text: &str) -> Outcome<()> {
    tell(&format!("\n== {text}"))
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{argument}'")
    }
}

/// The command as a person types it.
pub fn shown(person: &str, program: &str, args: &[&str]) -> String {
    let args = args.iter().map(|argument| quoted(argument));
    let words: Vec<String> = std::iter::once(program.to_owned()).chain(args).collect();
    format!("\n{person}$ {}", words.join(" "))
}

impl Stage {
    /// Before this world.
    pub fn new(world: World) -> Self {
        Self {
            world,
            shown: RefCell::default(),
        }
    }

    /// Shows what a command printed; of much that was shown before, only how much.
    fn indented(&self, text: &str) -> Outcome<()> {
        let mut known = Vec::new();
        for line in text.lines() {
            if self.shown.borrow().contains(line) {
                known.push(line);
                continue;
            }
            again(&mut known)?;
            tell(&format!("    {line}"))?;
            self.shown.borrow_mut().insert(line.to_owned());
        }
        again(&mut known)
    }

    /// Runs `keyturn` as a person; it must succeed.
    pub fn keyturn(&self, person: &str, args: &[&str]) -> Outcome<Reply> {
        self.ends(person, args, 0)
    }

    /// Runs `keyturn` as a person; it must be refused with this exit code and say this word.
    pub fn refused(&self, person: &str, args: &[&str], code: i32, word: &str) -> Outcome<()> {
        says(&self.ends(person, args, code)?, word)
    }

    fn ends(&self, person: &str, args: &[&str], code: i32) -> Outcome<Reply> {
        tell(&shown(person, "keyturn", args))?;
        let reply = self.world.keyturn(person, args)?;
        self.indented(&reply.stderr)?;
        self.indented(&reply.stdout)?;
        if reply.code != 0 {
            tell(&format!("    (exit code {})", reply.code))?;
        }
        reply.exits(code)
    }

    /// Starts `keyturn` as a person and goes on.
    pub fn begin(&self, person: &str, args: &[&str]) -> Outcome<Running> {
        tell(&shown(person, "keyturn", args))?;
        let mut child = self.world.command(person, args)?.spawn()?;
        let (sender, lines) = channel();
        let stderr = child.stderr.take().ok_or("no standard error")?;
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, lines })
    }

    /// Runs another program of this build; it must end with this exit code.
    pub fn program(&self, name: &str, args: &[&OsStr], input: &[u8], code: i32) -> Outcome<Reply> {
        let said: Vec<String> = args
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        tell(&shown("world", name, &said))?;
        let reply = self.world.program(name, args, input)?;
        self.indented(&reply.stdout)?;
        reply.exits(code)
    }
}

/// Shows lines that were shown before, or how many they are.
fn again(known: &mut Vec<&str>) -> Outcome<()> {
    let lines = std::mem::take(known);
    if lines.len() > OFTEN {
        return tell(&format!("    … {} lines as before", lines.len()));
    }
    lines
        .iter()
        .try_for_each(|line| tell(&format!("    {line}")))
}

/// The reply says this.
pub fn says(reply: &Reply, word: &str) -> Outcome<()> {
    if reply.stdout.contains(word) || reply.stderr.contains(word) {
        return Ok(());
    }
    Err(format!("{word:?} was not said:\n{}{}", reply.stdout, reply.stderr).into())
}

/// A command that runs beside the story.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Shows what it tells until a line begins with `start`; gives the rest of that line.
    pub fn told(&self, start: &str) -> Outcome<String> {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .map_err(|_| format!("nothing was told about {start:?}"))?;
            tell(&format!("    {line}"))?;
            if let Some(rest) = line.trim_start().strip_prefix(start) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Shows the rest; it must succeed.
    pub fn ends(self) -> Outcome<Reply> {
        let reply = finish(self.child)?;
        for line in self.lines {
            tell(&format!("    {line}"))?;
        }
        reply
            .stdout
            .lines()
            .try_for_each(|line| tell(&format!("    {line}")))?;
        reply.ok()
    }
}
