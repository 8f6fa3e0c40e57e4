//! `keyturnd`, the daemon.

#![forbid(unsafe_code)]

use std::{error::Error, io, process::ExitCode};

use clap::Parser as _;
use keyturnd::{
    cli::{Cli, Command},
    run::{self, RunError},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run => run::run(&cli.config),
        Command::CheckConfig => return check_config(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn check_config(cli: &Cli) -> ExitCode {
    let found = run::check_config(&cli.config);
    for warning in found.warnings {
        line(io::stderr(), &format!("warning: {warning}"));
    }
    for error in &found.errors {
        tell(error);
    }
    if let Some(first) = found.errors.first() {
        return ExitCode::from(first.exit());
    }
    line(io::stdout(), &format!("{}: good", cli.config.display()));
    ExitCode::SUCCESS
}

/// The error, what it comes from, and what to do next.
fn tell(error: &RunError) {
    let mut whole = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        whole.push_str(": ");
        whole.push_str(&error.to_string());
        cause = error.source();
    }
    line(io::stderr(), &format!("error: {whole}"));
    line(io::stderr(), &format!("hint: {}", error.hint()));
}

fn line(mut to: impl io::Write, text: &str) {
    // Nobody reads it: there is no better place to say so.
    let _ = writeln!(to, "{text}");
}
