//! `keyturn completions`, `man` and `exit-codes`: the command line about itself.

use std::{
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use clap_complete::Shell;
use serde_json::{Map, Value};

use super::{Context, file_error};
use crate::{
    refusal::{EXITS, Refusal},
    ui::table,
};

/// Shell completions on standard output.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut line: clap::Command) -> Result<(), Refusal> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut line, "keyturn", &mut script);
        Ok(io::stdout().write_all(&script)?)
    }
}

/// A manual page for each command.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder that gets them
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(self, mut line: clap::Command) -> Result<(), Refusal> {
        line.build();
        page(&self.dir, &line, "keyturn")
    }
}

fn page(dir: &std::path::Path, command: &clap::Command, name: &str) -> Result<(), Refusal> {
    let path = dir.join(format!("{name}.1"));
    let fail = |error: io::Error| file_error(&path, &error);
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title))
        .render(&mut File::create(&path).map_err(fail)?)
        .map_err(fail)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(dir, sub, &format!("{name}-{}", sub.get_name()))?;
    }
    Ok(())
}

/// Every refusal with its exit code.
#[derive(Debug, Args)]
pub struct ExitCodes {}

impl ExitCodes {
    pub(crate) fn run(context: &Context) -> Result<(), Refusal> {
        let document: Map<String, Value> = EXITS
            .iter()
            .map(|(code, exit)| ((*code).to_owned(), Value::from(*exit)))
            .collect();
        let rows = || {
            EXITS
                .iter()
                .map(|(code, exit)| vec![exit.to_string(), (*code).to_owned()])
                .collect::<Vec<_>>()
        };
        Ok(context.ui.result(&document, || table(&rows()))?)
    }
}
