//! `keyturnd`, the daemon.

#![forbid(unsafe_code)]

use std::{io, path::Path, process::ExitCode};

use clap::Parser as _;
use keyturn_seal::alloc::Wiping;
use keyturnd::{
    backup, check,
    cli::{Cli, Command, InitArgs, RestoreArgs},
    clock::Clock,
    init, restore,
    run::{self, RunError},
    telemetry,
};

/// Libraries copy secrets; what they free is wiped.
#[global_allocator]
static ALLOCATOR: Wiping = Wiping::SYSTEM;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run => run::run(&cli.config),
        Command::CheckConfig { live, json } => return check_config(&cli, live, json),
        Command::Notify { ref test, json } => return notify(&cli, test, json),
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
    let founded = init::init(&request.request(), &Clock::system());
    for warning in founded.iter().flat_map(|made| &made.warnings) {
        line(io::stderr(), &format!("warning: {warning}"));
    }
    let shown = |made: init::Made| shown(request.json, &made.json(), &made);
    answer(founded, shown, |error| error.hint())
}

/// Sends a test notice, past the outbox.
fn notify(cli: &Cli, name: &str, json: bool) -> ExitCode {
    match run::notify_test(&cli.config, name) {
        Ok(id) => {
            let value = serde_json::json!({ "notifier": name, "notice": id });
            let told = format!("{name}: took the notice {id}");
            line(io::stdout(), &shown(json, &value, &told));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn backed_up(cli: &Cli, to: &Path, json: bool) -> ExitCode {
    let shown = |made: backup::Made| shown(json, &made.json(), &made.line());
    answer(backup::backup(&cli.config, to), shown, |error| error.hint())
}

fn restored(request: &RestoreArgs) -> ExitCode {
    let restored = restore::restore(&request.request(), &Clock::system());
    let shown = |made: restore::Made| shown(request.json, &made.json(), &made);
    answer(restored, shown, |error| error.hint())
}

/// What was made, for programs or for people.
fn shown(json: bool, value: &serde_json::Value, made: &impl std::fmt::Display) -> String {
    if json {
        value.to_string()
    } else {
        made.to_string()
    }
}

/// Says what was made; or why nothing was, and what to do next.
fn answer<T, E: std::error::Error>(
    outcome: Result<T, E>,
    shown: impl FnOnce(T) -> String,
    hint: impl FnOnce(&E) -> &str,
) -> ExitCode {
    match outcome {
        Ok(made) => {
            line(io::stdout(), &shown(made));
            ExitCode::SUCCESS
        }
        Err(error) => {
            line(
                io::stderr(),
                &format!("error: {}", telemetry::whole(&error)),
            );
            line(io::stderr(), &format!("hint: {}", hint(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Problems are told on standard error either way, as everywhere.
fn check_config(cli: &Cli, live: bool, json: bool) -> ExitCode {
    let found = if live {
        check::check_config_live(&cli.config)
    } else {
        check::check_config(&cli.config)
    };
    if json {
        line(io::stdout(), &found.json(&cli.config).to_string());
    } else {
        for good in &found.good {
            line(io::stdout(), good);
        }
    }
    for warning in &found.warnings {
        line(io::stderr(), &format!("warning: {warning}"));
    }
    for error in &found.errors {
        tell(error);
    }
    if let Some(first) = found.errors.first() {
        return ExitCode::from(first.exit());
    }
    if !json {
        line(io::stdout(), &format!("{}: good", cli.config.display()));
    }
    ExitCode::SUCCESS
}

/// The error, what it comes from, and what to do next.
fn tell(error: &RunError) {
    line(io::stderr(), &format!("error: {}", telemetry::whole(error)));
    line(io::stderr(), &format!("hint: {}", error.hint()));
}

fn line(mut to: impl io::Write, text: &str) {
    // Nobody reads it: there is no better place to say so.
    let _ = writeln!(to, "{text}");
}
