//! What the daemon tells of its own running: structured lines on standard error.
//!
//! # Invariants
//! 1. No secret is ever a field: types that hold one have no `Debug` and no `Display`.
//! 2. What comes from outside cannot bring control characters of a terminal into a line.

use std::{error::Error, io::Write};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel, Telemetry};

/// Begins to tell, on standard error, for the rest of the program; the first call counts.
pub fn begin(telemetry: &Telemetry) {
    // A second call in one process (a test) keeps the first one's.
    drop(subscriber(telemetry, std::io::stderr).try_init());
}

/// The lines of one configuration, into a writer.
fn subscriber<W>(telemetry: &Telemetry, to: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a, Writer: Write> + Send + Sync + 'static,
{
    let level = match telemetry.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // Libraries below tell things at `debug` that are of no use to an operator.
    let targets = tracing_subscriber::filter::Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        // What the SDK of AWS has to say comes back as the failure of a call, without its requests.
        .with_target("aws_", LevelFilter::OFF)
        .with_target("keyturnd", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(to);
    let registry = tracing_subscriber::registry().with(targets);
    match telemetry.format {
        LogFormat::Text => Box::new(registry.with(lines.with_ansi(false).with_target(false))),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    }
}

/// An error with everything that it comes from.
pub fn whole(error: &dyn Error) -> String {
    let mut whole = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        whole.push_str(": ");
        whole.push_str(&error.to_string());
        cause = error.source();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn told(format: LogFormat, level: LogLevel) -> String {
        let page = Page::default();
        let to = page.clone();
        let lines = subscriber(&Telemetry { format, level }, move || to.clone());
        tracing::subscriber::with_default(lines, || {
            tracing::info!(peer = "2001:db8::1", "a line");
            tracing::debug!("a detail with \x1b[31mcolour");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_look_as_configured() {
        let json = told(LogFormat::Json, LogLevel::Info);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["peer"], "2001:db8::1");
        assert_eq!(line["level"], "INFO");

        let plain = told(LogFormat::Text, LogLevel::Info);
        assert!(
            plain.contains(" INFO a line peer=\"2001:db8::1\"") && plain.lines().count() == 1,
            "{plain}"
        );
        let detailed = told(LogFormat::Text, LogLevel::Debug);
        assert!(
            detailed.contains("a detail") && !detailed.contains('\x1b'),
            "invariant 2: {detailed:?}"
        );
        assert_eq!(told(LogFormat::Text, LogLevel::Warn), "");
    }
}
