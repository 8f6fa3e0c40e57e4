//! Where a secret goes that was delivered.

use std::{io::Write as _, path::PathBuf, process::Stdio};

use clap::Args;
use keyturn_seal::SecretBytes;

use crate::{
    home::place,
    refusal::Refusal,
    ui::{Ui, clip},
};

/// Where the secret goes.
#[derive(Debug, Clone, Default, Args)]
pub struct Sink {
    /// Write the secret to this file, which only you may read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exec", "raw"])]
    pub output: Option<PathBuf>,
    /// Run this command with the secret on its standard input
    #[arg(long, value_name = "COMMAND", conflicts_with = "raw")]
    pub exec: Option<String>,
    /// Print the bytes of the secret and nothing else; of a seed, itself and not its codes
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    /// Put the secret into your terminal's clipboard (OSC 52, also over ssh) instead of printing it
    #[arg(long, conflicts_with_all = ["output", "exec", "raw"])]
    pub clip: bool,
}

impl Sink {
    /// Whether the secret could be handed on, before it is asked for.
    pub fn ready(&self, ui: Ui) -> Result<(), Refusal> {
        // The parser does not see a flag of every command that stands before this one.
        if self.raw && ui.json() {
            return Err(Refusal::new(
                "malformed",
                "--raw prints bytes and nothing else, and --json a document",
                "leave one of them out",
            ));
        }
        if let Some(path) = &self.output {
            place(path)?;
        }
        if self.clip {
            clip::terminal()?;
        }
        Ok(())
    }
}

/// Runs a command with the secret on its standard input.
pub(super) fn run(command: &str, secret: &SecretBytes) -> Result<(), Refusal> {
    let failed = |why: &dyn std::fmt::Display| {
        Refusal::new(
            "file",
            format_args!("the command failed: {why}"),
            "the secret was delivered; get it again with `keyturn unseal --resume`",
        )
    };
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Exposed to the command that the person named; one that does not read is its own business.
        let _ = stdin.write_all(secret.expose());
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(&status))
    }
}
