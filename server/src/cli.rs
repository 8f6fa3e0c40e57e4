//! The command line of `keyturnd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::DEFAULT_PATH;

/// The daemon of a two-person sealed-credential vault.
#[derive(Debug, Parser)]
#[command(name = "keyturnd", version, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run,
    /// Say whether `run` would start: the file, the keys, the folders. Changes nothing.
    CheckConfig,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["keyturnd", "check-config", "--config", "/k.toml"]).unwrap();
        assert!(matches!(cli.command, Command::CheckConfig));
        assert_eq!(cli.config, PathBuf::from("/k.toml"));
    }
}
