//! The command line of `keyturnd`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use keyturn_vault::digest::Digest;

use crate::{config::DEFAULT_PATH, init::Request, restore};

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
    /// Make a new vault: keys, store, configuration, and a welcome file for every founder.
    Init(InitArgs),
    /// Write a backup into a folder, now, and verify it; the daemon may run.
    Backup {
        /// Where to; a backup that is there is brought up to date.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a vault from a backup or a place for copies; a quorum then accepts it.
    Restore(RestoreArgs),
    /// Serve until SIGTERM or SIGINT.
    Run,
    /// Tell a notifier of the configuration something, to see whether it works.
    Notify {
        /// The notifier.
        #[arg(long, value_name = "NAME")]
        test: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say whether `run` would start: the file, the keys, the folders. Changes nothing.
    CheckConfig {
        /// Ask the targets too: whether the connectors' own credentials work.
        #[arg(long)]
        live: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What a new vault is.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where its files go; must be empty.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Its name, like vault.example.org/prod.
    #[arg(long)]
    pub origin: String,
    /// Where it listens; may be said several times.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub listen: Vec<SocketAddr>,
    /// How people reach it, if not by these addresses; may be said several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: Vec<String>,
    /// The file that names persons, groups and policies.
    #[arg(long, value_name = "FILE")]
    pub founding: PathBuf,
    /// A folder on another disk or host where sealed versions, documents and the log are copied; may be
    /// said several times. Rotations wait for one copy.
    #[arg(long, value_name = "DIR")]
    pub sink: Vec<PathBuf>,
    /// A folder on another disk or host that keeps the newest head of the log.
    #[arg(long, value_name = "DIR")]
    pub head_copy: Option<PathBuf>,
    /// The roots of attestations, if tokens are not Yubico's: PEM, and a line `pinned: SHA-256` for each root.
    #[arg(long, value_name = "FILE")]
    pub attestation_roots: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is restored, and to where.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A backup, or a place for copies; only read.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Where the vault's files go; must be empty.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The SHA-256 of charter 1, as custodians have it.
    #[arg(long, value_name = "SHA256")]
    pub genesis: Digest,
    /// Where it listens; may be said several times.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub listen: Vec<SocketAddr>,
    /// The old log key, if it is not lost.
    #[arg(long, value_name = "FILE")]
    pub log_key: Option<PathBuf>,
    /// The old node key, if it is not lost.
    #[arg(long, value_name = "FILE")]
    pub node_key: Option<PathBuf>,
    /// A place for copies of the new vault, on another disk or host; may be said several times.
    #[arg(long, value_name = "DIR")]
    pub sink: Vec<PathBuf>,
    /// Where a copy of the log's head goes, on another disk or host.
    #[arg(long, value_name = "DIR")]
    pub head_copy: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl RestoreArgs {
    /// The same, as `restore` takes it.
    pub fn request(&self) -> restore::Request {
        restore::Request {
            from: self.from.clone(),
            dir: self.dir.clone(),
            genesis: self.genesis,
            listen: self.listen.clone(),
            log_key: self.log_key.clone(),
            node_key: self.node_key.clone(),
            sinks: self.sink.clone(),
            head_copy: self.head_copy.clone(),
        }
    }
}

impl InitArgs {
    /// The same, as `init` takes it.
    pub fn request(&self) -> Request {
        Request {
            dir: self.dir.clone(),
            origin: self.origin.clone(),
            listen: self.listen.clone(),
            endpoints: self.endpoint.clone(),
            founding: self.founding.clone(),
            sinks: self.sink.clone(),
            head_copy: self.head_copy.clone(),
            attestation_roots: self.attestation_roots.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["keyturnd", "check-config", "--config", "/k.toml"]).unwrap();
        assert!(matches!(
            cli.command,
            Command::CheckConfig {
                live: false,
                json: false
            }
        ));
        assert_eq!(cli.config, PathBuf::from("/k.toml"));
    }
}
