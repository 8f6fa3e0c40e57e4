//! Pages of the documentation whose transcripts are run: a block ```` ```console NAME ```` holds commands, each behind
//! `$ ` or `person$ `, and what they print.
//!
//! What differs from run to run has a name in brackets there: `[id]`, `[time]`, `[left]`, `[digest]`, `[words]`,
//! `[key]`, `[vkey]`, `[n]`. `…` stands for any text within a line, and alone in a line for any lines. With
//! `KEYTURN_WRITE_PAGES` in the environment (`./dev pages`) a transcript that is no longer so is written into the page instead of told.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{Outcome, harness::write_private};

/// The list from which the six words come.
const WORDS: &str = include_str!("../../vault/src/words.txt");
/// Times, as the programs print them.
const TIME: &str = "0000-00-00T00:00:00";
/// Times for people: local, and UTC behind them.
const LONG_TIME: &str = "0000-00-00 00:00:00";

/// A command of a page, and the lines that it prints there.
#[derive(Clone, Debug)]
pub struct Step {
    /// The block's name.
    pub block: String,
    /// Whose command it is; empty where the page is of one person.
    pub person: String,
    /// The command line.
    pub command: String,
    want: Vec<String>,
    /// Which line of the page the command is.
    line: usize,
}

impl Step {
    /// The words of the command; single quotes keep spaces.
    pub fn words(&self) -> Vec<String> {
        let quoted = self.command.split('\'').enumerate();
        let parts = quoted.flat_map(|(at, part)| {
            if at % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        });
        parts.collect()
    }
}

/// A page while it is run.
pub struct Page {
    path: PathBuf,
    text: String,
    /// The steps that printed something else, with what they printed.
    other: Vec<(Step, Vec<String>)>,
    /// What is replaced before anything is compared.
    places: Vec<(String, String)>,
}

impl Page {
    /// Reads `docs/NAME`.
    pub fn read(name: &str) -> Outcome<Self> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name);
        let text = std::fs::read_to_string(&path)?;
        Ok(Self {
            path,
            text,
            other: Vec::new(),
            places: Vec::new(),
        })
    }

    /// From now on this text of the machine is shown as that one of the page.
    pub fn place(&mut self, here: impl Into<String>, shown: &str) {
        self.places.push((here.into(), shown.to_owned()));
    }

    /// The content of the first block in this language.
    pub fn block(&self, language: &str) -> Option<&str> {
        let start = format!("```{language}\n");
        let (_, rest) = self.text.split_once(&start)?;
        rest.split("```").next()
    }

    /// All commands, in the order of the page.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut block = None;
        for (line, text) in self.text.lines().enumerate() {
            if let Some(name) = text.strip_prefix("```console ") {
                block = Some(name.to_owned());
            } else if text.starts_with("```") {
                block = None;
            } else if let Some(block) = &block {
                if let Some((person, command)) = prompt(text) {
                    steps.push(Step {
                        block: block.clone(),
                        person: person.to_owned(),
                        command: command.to_owned(),
                        want: Vec::new(),
                        line,
                    });
                } else if let Some(step) = steps.last_mut() {
                    step.want.push(text.to_owned());
                }
            }
        }
        steps
    }

    /// The names of the blocks.
    pub fn blocks(&self) -> BTreeSet<String> {
        self.steps().into_iter().map(|step| step.block).collect()
    }

    /// Compares what a step printed with the page.
    pub fn printed(&mut self, step: &Step, all: &str) {
        let mut all = all.to_owned();
        for (here, shown) in &self.places {
            all = all.replace(here, shown);
        }
        let got: Vec<String> = all.lines().map(named).collect();
        if !matches(&step.want, &got) {
            self.other.push((step.clone(), got));
        }
    }

    /// Fails when something was printed that is not so on the page, or, where that is asked for, writes it there.
    pub fn done(self) -> Outcome<()> {
        if self.other.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<String> = self.text.lines().map(str::to_owned).collect();
        let mut said = String::new();
        let mut other = self.other;
        other.sort_by_key(|(step, _)| std::cmp::Reverse(step.line));
        for (step, got) in other {
            said = format!(
                "--- {}: $ {}\n{}\n{said}",
                step.block,
                step.command,
                got.join("\n")
            );
            let from = step.line.saturating_add(1);
            lines.splice(from..from.saturating_add(step.want.len()), got);
        }
        if std::env::var_os("KEYTURN_WRITE_PAGES").is_none() {
            let page = self.path.display();
            return Err(format!(
                "{page} shows something else (./dev pages writes it) than:\n{said}"
            )
            .into());
        }
        lines.push(String::new());
        Ok(write_private(&self.path, lines.join("\n").as_bytes())?)
    }
}

/// Whose command this line is, and the command.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (person, command) = line.split_once("$ ")?;
    person
        .chars()
        .all(|c| c.is_ascii_lowercase())
        .then_some((person, command))
}

/// A line with names for what differs from run to run.
fn named(line: &str) -> String {
    let mut rest = line;
    let mut out = String::new();
    while let Some(first) = rest.chars().next() {
        let word = &rest
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let timed = rest
            .get(..TIME.len())
            .filter(|text| is_like(text, TIME) || is_like(text, LONG_TIME));
        let (taken, name) = if let Some((taken, name)) = counted(rest, &out) {
            (taken, Some(name))
        } else if let Some(time) = timed {
            // Fractions of a second, and Z where it is UTC.
            let more = rest.get(time.len()..).unwrap_or_default();
            let end = |c: char| !(c.is_ascii_digit() || c == '.' || c == 'Z');
            let zone = more.find(end).unwrap_or(more.len());
            (time.len().saturating_add(zone), Some("[time]"))
        } else if let Some(words) = six_words(rest) {
            (words, Some("[words]"))
        } else if word.is_empty() {
            (first.len_utf8(), None)
        } else {
            (word.len(), name_of(word))
        };
        out.push_str(name.unwrap_or_else(|| rest.get(..taken).unwrap_or_default()));
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

/// What is counted or computed: the length of what is left of a countdown, of a number of entries, of a log's key.
fn counted(rest: &str, before: &str) -> Option<(usize, &'static str)> {
    let end = |c: char| !c.is_ascii_digit();
    let digits = rest.find(end).unwrap_or(rest.len());
    let after = rest.get(digits..).unwrap_or_default();
    let is_inside = before.ends_with(|c: char| c.is_ascii_alphanumeric());
    if before.trim() == "vkey" && !rest.starts_with(' ') {
        return Some((rest.len(), "[vkey]"));
    }
    if digits == 0 || is_inside {
        return None;
    }
    if after.starts_with(" entries") || before == "log: " {
        return Some((digits, "[n]"));
    }
    let like = |pattern: &str| {
        let text = after.get(..pattern.len());
        text.is_some_and(|text| is_like(text, pattern))
            .then_some((digits.saturating_add(pattern.len()), "[left]"))
    };
    like("h 00m").or_else(|| like("m 00s"))
}

fn name_of(word: &str) -> Option<&'static str> {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if word.len() == 64 && word.chars().all(hex) {
        Some("[digest]")
    } else if word.len() == 26 && word.starts_with("01") {
        Some("[id]")
    } else if word.len() > 50 && word.starts_with("age1") {
        Some("[key]")
    } else {
        None
    }
}

/// The digits of `text` stand where those of the pattern do.
fn is_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, like)| {
            if like == '0' {
                c.is_ascii_digit()
            } else {
                c == like
            }
        })
}

/// The length of six words of the list that end the line.
fn six_words(rest: &str) -> Option<usize> {
    let words: Vec<_> = rest.split(' ').collect();
    let known = |word: &&str| WORDS.lines().any(|known| known == *word);
    (words.len() == 6 && words.iter().all(known)).then_some(rest.len())
}

/// Whether these lines are those of the page.
fn matches(want: &[String], got: &[String]) -> bool {
    match (want, got) {
        ([], []) => true,
        ([any, rest @ ..], _) if any == "…" => {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(matches(&lines("a … d"), &lines("a b c d")));
        assert!(!matches(&lines("a … d"), &lines("a b c")));
    }

    #[test]
    fn what_differs_has_a_name() {
        let digest = "0af1".repeat(16);
        for (line, want) in [
            ("at 2026-11-21T08:31:20Z, log", "at [time], log"),
            ("16  2026-11-21T08:31:20.599Z  done", "16  [time]  done"),
            ("until 2026-11-21 09:31:20 UTC", "until [time] UTC"),
            ("ceremony  01M7YKPF4ZWTCXTTZVQWWJGVNQ", "ceremony  [id]"),
            (
                "six words dinner impulse spoon innocent carbon kingdom",
                "six words [words]",
            ),
            ("  vkey    vault.example.org/prod+1+A/=", "  vkey    [vkey]"),
            ("3h 59m left, 9m 05s of 2h", "[left] left, [left] of 2h"),
            ("log: 3 (of 14 entries)", "log: [n] (of [n] entries)"),
            ("nothing — differs … here", "nothing — differs … here"),
        ] {
            assert_eq!(named(line), want);
        }
        assert_eq!(named(&format!("({digest})")), "([digest])");
    }
}
