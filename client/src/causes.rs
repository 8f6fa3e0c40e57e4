//! Errors and texts from outside, as a person reads them.
//!
//! # Invariants
//! 1. Nothing steers the terminal: no cursor is moved, no text reordered.
//! 2. Nothing fills the screen.

/// The longest text from outside that is shown, in characters.
pub const MAX_TEXT: usize = 2_000;

/// An error with its causes, in one line that cannot steer the terminal.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    tame(&line)
}

/// A text from outside, tamed (invariants 1 and 2).
pub fn tame(text: &str) -> String {
    let plain = |c: char| {
        let steers = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || steers {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().take(MAX_TEXT).map(plain).collect()
}
