//! What people see: data on standard output, everything else on standard error, questions on the
//! terminal only.
//!
//! # Invariants
//! 1. With `--json`, standard output holds exactly one JSON document (or one per line where a
//!    command follows something), and nothing else.
//! 2. Colour and cursor movement go to a terminal only, and never when `NO_COLOR` is set.
//! 3. Text that came from elsewhere is shown without control characters: nobody's reason moves the
//!    cursor of a custodian.

pub mod clip;
pub mod live;
pub mod pinentry;
pub mod prompt;
pub mod touch;

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use serde::Serialize;

/// How a stretch of text looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// What matters most.
    Bold,
    /// What helps only the curious.
    Dim,
    /// It went well.
    Good,
    /// It wants attention.
    Warn,
    /// It went wrong.
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }
}

/// The two streams of a command.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about two streams"
)]
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    json: bool,
    colour_out: bool,
    colour_err: bool,
    live: bool,
    screen: bool,
}

impl Ui {
    /// For this process: `json` as the flag says, `plain` when the environment asks for no colour.
    pub fn new(json: bool, plain: bool) -> Self {
        Self {
            json,
            colour_out: !plain && !json && io::stdout().is_terminal(),
            colour_err: !plain && io::stderr().is_terminal(),
            live: io::stderr().is_terminal(),
            screen: !json && io::stdout().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether standard error is a terminal on which lines can be redrawn.
    pub fn live(&self) -> bool {
        self.live
    }

    /// Whether results are read from a terminal, by somebody who sees it change.
    pub fn screen(&self) -> bool {
        self.screen
    }

    /// The result of a command: the document with `--json`, otherwise the text.
    pub fn result(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, document)?;
            return writeln!(out);
        }
        let text = text();
        out.write_all(text.as_bytes())?;
        if text.is_empty() || text.ends_with('\n') {
            Ok(())
        } else {
            writeln!(out)
        }
    }

    /// Bytes of a result as they are, for secrets.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// A line on standard error.
    pub fn note(&self, line: impl Display) {
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// How far something is, in one line of a terminal that the next call writes over; an empty one removes it.
    pub fn progress(&self, line: impl Display) {
        if self.live {
            let mut err = io::stderr().lock();
            // Nobody is left to be told when standard error is gone.
            let _ = write!(err, "\r\u{1b}[2K{}", fit(&line.to_string(), columns()));
            let _ = err.flush();
        }
    }

    /// `warning: …` on standard error.
    pub fn warn(&self, line: impl Display) {
        self.note(format_args!(
            "{} {line}",
            self.paint_err(Style::Warn, "warning:")
        ));
    }

    /// `error: …` and `hint: …` on standard error.
    pub fn fail(&self, error: impl Display, hint: Option<&str>) {
        self.note(format_args!(
            "{} {error}",
            self.paint_err(Style::Bad, "error:")
        ));
        if let Some(hint) = hint {
            self.note(format_args!(
                "{} {hint}",
                self.paint_err(Style::Dim, "hint:")
            ));
        }
    }

    /// Text in a style, for standard output.
    pub fn paint(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_out, style, text)
    }

    /// Text in a style, for standard error.
    pub fn paint_err(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_err, style, text)
    }
}

fn paint(colour: bool, style: Style, text: impl Display) -> String {
    if colour {
        format!("\u{1b}[{}m{text}\u{1b}[0m", style.code())
    } else {
        text.to_string()
    }
}

/// Text from elsewhere, fit for a terminal: control and format characters become `\u{…}`; line feeds
/// stay.
pub fn clean(text: &str) -> String {
    let shown = |c: char| c == '\n' || !(c.is_control() || is_format(c));
    text.chars()
        .flat_map(|c| {
            if shown(c) {
                vec![c]
            } else {
                c.escape_unicode().collect()
            }
        })
        .collect()
}

/// Characters that are not drawn but change how others are: bidirectional marks, joiners, tags.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Columns of text, aligned to their widest cell, two spaces between.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(|cell| width(cell))
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, wide) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                wide.saturating_sub(width(cell)).saturating_add(2),
            ));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// How wide the terminal is on which lines are redrawn; none where there is none, or it does not say.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// As much of a line as fits in one row, so that it can be drawn anew; its styles stay.
fn fit(line: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return line.to_owned();
    };
    let (mut inside, mut shown) = (false, 0_usize);
    line.chars()
        .filter(|c| {
            let style = inside || *c == '\u{1b}';
            inside = style && *c != 'm';
            shown = shown.saturating_add(usize::from(!style));
            style || shown <= columns
        })
        .collect()
}

/// Characters a cell takes on the screen, styles left out.
fn width(cell: &str) -> usize {
    let mut inside = false;
    cell.chars()
        .filter(|c| {
            let counts = !inside && *c != '\u{1b}';
            inside = (inside && *c != 'm') || *c == '\u{1b}';
            counts
        })
        .count()
}

/// A number of things, as people say it.
pub fn several(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// Seconds as people read a countdown: `3h 59m`, `12m 05s`, `45s`.
pub fn countdown(secs: u64) -> String {
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m {s:02}s"),
        _ => format!("{h}h {m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_draw() {
        for (from, to) in [
            ("plain é 中", "plain é 中"),
            ("two\nlines", "two\nlines"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("tab\tcr\r", "tab\\u{9}cr\\u{d}"),
        ] {
            assert_eq!(clean(from), to);
        }
    }

    #[test]
    fn tables_align_whatever_their_style() {
        let rows = [
            vec!["\u{1b}[1ma\u{1b}[0m".into(), "b".into()],
            vec!["long".into(), String::new()],
        ];
        assert_eq!(table(&rows), "\u{1b}[1ma\u{1b}[0m     b\nlong\n");
    }

    #[test]
    fn what_is_redrawn_fits_in_one_row() {
        for (line, columns, want) in [
            ("short", Some(10), "short"),
            ("too long", Some(3), "too"),
            (
                "\u{1b}[1mtoo\u{1b}[0m long",
                Some(2),
                "\u{1b}[1mto\u{1b}[0m",
            ),
            ("nobody knows", None, "nobody knows"),
        ] {
            assert_eq!(fit(line, columns), want, "{line}");
        }
    }

    #[test]
    fn countdowns_read_well() {
        for (secs, want) in [
            (0, "0s"),
            (59, "59s"),
            (65, "1m 05s"),
            (3600, "1h 00m"),
            (14_399, "3h 59m"),
        ] {
            assert_eq!(countdown(secs), want);
        }
    }
}
