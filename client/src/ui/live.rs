//! A few lines on the terminal that are drawn anew while something is awaited.
//!
//! Only carriage return, "up" and "erase line" are used, so it works over ssh and in a multiplexer.
//! Where standard error is no terminal, each changed state is one more line instead.

use std::io::{self, Write as _};

use super::{Ui, columns, width};

/// The block of lines that is redrawn.
pub struct Live {
    ui: Ui,
    drawn: Vec<String>,
}

impl Live {
    /// Nothing drawn yet.
    pub fn new(ui: Ui) -> Self {
        Self {
            ui,
            drawn: Vec::new(),
        }
    }

    /// Shows these lines in place of the last ones. `ticking` lines (a countdown) are left out where
    /// nothing can be redrawn, or every second would be a line.
    pub fn show(&mut self, lines: &[String], ticking: &[String]) {
        if !self.ui.live() {
            for line in lines.iter().filter(|line| !self.drawn.contains(line)) {
                self.ui.note(line);
            }
            self.drawn = lines.to_vec();
            return;
        }
        let all: Vec<String> = lines.iter().chain(ticking).cloned().collect();
        if all == self.drawn {
            return;
        }
        let mut text = String::new();
        let columns = columns();
        for _ in 0..self.drawn.iter().map(|line| rows(line, columns)).sum() {
            text.push_str("\u{1b}[1A\r\u{1b}[2K");
        }
        for line in &all {
            text.push_str(line);
            text.push('\n');
        }
        // A terminal that is gone needs no picture.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        self.drawn = all;
    }
}

/// The rows that a line takes on a terminal: one that is too long goes on in the next.
fn rows(line: &str, columns: Option<usize>) -> usize {
    columns.map_or(1, |columns| width(line).div_ceil(columns).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_takes_more_rows() {
        for (line, columns, want) in [
            ("", Some(4), 1),
            ("four", Some(4), 1),
            ("fives", Some(4), 2),
            ("\u{1b}[31mfour\u{1b}[0m", Some(4), 1),
            ("nine char", Some(4), 3),
            ("nobody knows how wide", None, 1),
        ] {
            assert_eq!(rows(line, columns), want, "{line}");
        }
    }
}
