//! `keyturnd`, the daemon.

#![forbid(unsafe_code)]

use std::{io, path::Path, process::ExitCode};

use clap::Parser as _;
use keyturn_seal::alloc::Wiping;
use keyturnd::{
    backup,
    cli::{Cli, Command, InitArgs, RestoreArgs},
    clock::Clock,
    init, restore,
    run::{self, RunError},
};

/// Libraries copy secrets; what they free is wiped.
#[global_allocator]
static ALLOCATOR: Wiping = Wiping::SYSTEM;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run => run::run(&cli.config),
        Command::CheckConfig { live } => return check_config(&cli, live),
        Command::Notify { ref test } => return notify(&cli, test),
        Command::Init(request) => return found(&request),
        Command::Backup { ref to, json } => return backed_up(&cli, to, json),
        Command::Restore(request) => return restored(&request),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn found(request: &InitArgs) -> ExitCode {
    match init::init(&request.request(), &Clock::system()) {
        Ok(made) => {
            for warning in &made.warnings {
                line(io::stderr(), &format!("warning: {warning}"));
            }
            if request.json {
                line(io::stdout(), &made.json().to_string());
            } else {
                line(io::stdout(), &made.to_string());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            line(io::stderr(), &format!("error: {}", run::whole(&error)));
            line(
                io::stderr(),
                "hint: docs/OPERATIONS.md shows a founding from beginning to end",
            );
            ExitCode::FAILURE
        }
    }
}

/// Sends a test notice, past the outbox.
fn notify(cli: &Cli, name: &str) -> ExitCode {
    match run::notify_test(&cli.config, name) {
        Ok(id) => {
            line(io::stdout(), &format!("{name}: took the notice {id}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn backed_up(cli: &Cli, to: &Path, json: bool) -> ExitCode {
    match backup::backup(&cli.config, to) {
        Ok(made) => {
            let told = if json {
                made.json().to_string()
            } else {
                made.line()
            };
            line(io::stdout(), &told);
            ExitCode::SUCCESS
        }
        Err(error) => {
            line(io::stderr(), &format!("error: {}", run::whole(&error)));
            line(io::stderr(), &format!("hint: {}", error.hint()));
            ExitCode::FAILURE
        }
    }
}

fn restored(request: &RestoreArgs) -> ExitCode {
    match restore::restore(&request.request(), &Clock::system()) {
        Ok(made) => {
            let told = if request.json {
                made.json().to_string()
            } else {
                made.to_string()
            };
            line(io::stdout(), &told);
            ExitCode::SUCCESS
        }
        Err(error) => {
            line(io::stderr(), &format!("error: {}", run::whole(&error)));
            line(io::stderr(), &format!("hint: {}", error.hint()));
            ExitCode::FAILURE
        }
    }
}

fn check_config(cli: &Cli, live: bool) -> ExitCode {
    let found = if live {
        run::check_config_live(&cli.config)
    } else {
        run::check_config(&cli.config)
    };
    for good in found.good {
        line(io::stdout(), &good);
    }
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
    line(io::stderr(), &format!("error: {}", run::whole(error)));
    line(io::stderr(), &format!("hint: {}", error.hint()));
}

fn line(mut to: impl io::Write, text: &str) {
    // Nobody reads it: there is no better place to say so.
    let _ = writeln!(to, "{text}");
}
