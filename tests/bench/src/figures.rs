//! Times taken, their medians and tails, and the tables that show them.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

/// The time now, to measure by.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement has a clock of its own"
)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Times of one kind of work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds all of another.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend(&others.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of the work (in percent) took at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(place).copied().unwrap_or_default()
    }

    /// The median.
    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// What only one in a hundred exceeds.
    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }
}

/// Microseconds or milliseconds, three digits.
pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..1e1 => format!("{micros:.2} µs"),
        1e1..1e3 => format!("{micros:.0} µs"),
        1e3..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many of something there are in a second.
pub(crate) fn rate(number: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// A section of the report: a heading, words about it, a table.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    heading: &'static str,
    words: String,
    rows: Vec<Vec<String>>,
}

impl Section {
    /// A section whose table has these columns.
    pub(crate) fn new(heading: &'static str, words: impl Into<String>, columns: &[&str]) -> Self {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let rule = columns.iter().map(|_| "---".to_owned()).collect();
        Self {
            heading,
            words: words.into(),
            rows: vec![columns, rule],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The section in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.heading, self.words.trim());
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}
