//! A story told aloud: every command is shown with what it printed, and must end as told.

use std::{
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

/// The world, and those who listen.
pub struct Stage {
    /// The vault and its people.
    pub world: World,
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

fn indented(text: &str) -> Outcome<()> {
    text.lines()
        .try_for_each(|line| tell(&format!("    {line}")))
}

impl Stage {
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
        indented(&reply.stderr)?;
        indented(&reply.stdout)?;
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
        indented(&reply.stdout)?;
        reply.exits(code)
    }
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
        indented(&reply.stdout)?;
        reply.ok()
    }
}
