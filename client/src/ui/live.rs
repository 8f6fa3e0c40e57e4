//! A few lines on the terminal that are drawn anew while something is awaited.
//!
//! Only carriage return, "up" and "erase line" are used, so it works over ssh and in a multiplexer.
//! Where standard error is no terminal, each changed state is one more line instead.

use std::io::{self, Write as _};

use super::Ui;

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
        for _ in &self.drawn {
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
