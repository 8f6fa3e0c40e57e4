//! The command line as it is parsed: flags that every command has, and the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use keyturn_vault::digest::Digest;

use crate::{command, token::Wanted};

/// Break-glass credentials that open only when two custodians agree.
#[derive(Debug, Parser)]
#[command(
    name = "keyturn",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Without a command: what waits for you.\nExit codes: 0 done, 2 wrong command line, otherwise one for each kind of refusal (keyturn exit-codes)."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; nothing shows what waits for you.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The folder with your profile and keys [default: ~/.keyturn]
    #[arg(long, global = true, env = "KEYTURN_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Read the passphrase of the key file from this file descriptor
    #[arg(
        long,
        global = true,
        value_name = "N",
        conflicts_with = "passphrase_file"
    )]
    pub passphrase_fd: Option<i32>,
    /// Read the passphrase of the key file from this file, which only you may read
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the PIN of the YubiKey from this file descriptor
    #[arg(long, global = true, value_name = "N")]
    pub pin_fd: Option<i32>,
    /// Ask for PINs and passphrases by this program, which speaks the protocol of pinentry
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub pinentry: Option<PathBuf>,
    /// Which of your tokens: software, yubikey, or yubikey:SERIAL
    #[arg(long, global = true, value_name = "KIND")]
    pub token: Option<Wanted>,
    /// Believe the roots in this file about tokens [default: attestation-roots.pem in the home, or Yubico's]
    #[arg(long, global = true, value_name = "FILE")]
    pub attestation_roots: Option<PathBuf>,
    /// Agree to the text with this SHA-256 without a question
    #[arg(long, global = true, value_name = "DIGEST", value_parser = digest)]
    pub yes_sha256: Vec<String>,
}

/// A digest, as it was typed.
fn digest(text: &str) -> Result<String, &'static str> {
    let digest: Result<Digest, _> = text.parse();
    let told = "write the SHA-256 as 64 hexadecimal digits in lower case";
    digest.map(|_| text.to_owned()).map_err(|_| told)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make your keys, and the file that a vault's founder or operator needs
    Enroll(command::enroll::Enroll),
    /// Join a vault with the welcome file made for you
    Join(command::join::Join),
    /// What waits for you, and how the vault is
    Status(command::status::Status),
    /// Who may do what: show it, see what a change would do, propose one, invite somebody
    #[command(subcommand)]
    Charter(command::charter::Charter),
    /// Credentials: add, deposit, change, list, show, export
    #[command(subcommand)]
    Credential(command::credential::Credential),
    /// Ask for credentials, and get them when enough custodians agree
    Unseal(command::unseal::Unseal),
    /// Agree to a request, with your token and your share
    Approve(command::approve::Approve),
    /// Refuse a request, with a reason; it blocks nobody
    Refuse(command::refuse::Refuse),
    /// Take back what you said to a request
    Retract(command::refuse::Retract),
    /// Give up a request of yours
    Withdraw(command::refuse::Withdraw),
    /// Return what you checked out, and say what worked
    Checkin(command::checkin::Checkin),
    /// Look at a decided request afterwards, and say what you think of it
    Review(command::review::Review),
    /// Try whether your shares of a credential can be read
    Confirm(command::confirm::Confirm),
    /// Show that you and your token are there
    Heartbeat(command::confirm::Heartbeat),
    /// Ask for a longer check-out
    Extend(command::extend::Extend),
    /// Ask that the details of a request be erased
    Erase(command::erase::Erase),
    /// Seal credentials anew to those who hold shares by the charter in force
    Reshare(command::reshare::Reshare),
    /// Accept what was restored: a lost log, or lost keys
    AcceptRestore(command::restore::AcceptRestore),
    /// Rotations: list, hurry, retry, complete, pause
    #[command(subcommand)]
    Rotate(command::rotate::Rotate),
    /// The log: verify, watch, prove, export
    #[command(subcommand)]
    Audit(command::audit::Audit),
    /// Open a credential without the vault, by files between custodians
    #[command(subcommand)]
    Recover(command::recover::Recover),
    /// Practise: as unseal, with canaries only
    Drill(command::unseal::Unseal),
    /// Look at the whole way, from your keys to the vault's log
    Doctor(command::doctor::Doctor),
    /// Shell completions
    #[command(hide = true)]
    Completions(command::manual::Completions),
    /// Manual pages
    #[command(hide = true)]
    Man(command::manual::Man),
    /// Every refusal with its exit code
    #[command(hide = true)]
    ExitCodes(command::manual::ExitCodes),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_read() {
        for (line, good) in [
            ("keyturn", true),
            ("keyturn status --json", true),
            ("keyturn --json status", true),
            ("keyturn enroll bob", true),
            ("keyturn enroll bob --token yubikey", true),
            ("keyturn enroll bob --token yubikey:12345678 --spare", true),
            ("keyturn enroll bob --token yubikey:bob", false),
            ("keyturn enroll bob --token hardware", false),
            (
                "keyturn enroll bob --token yubikey --slot 95 --touch always",
                true,
            ),
            ("keyturn enroll bob --token yubikey --slot 9c", false),
            ("keyturn approve --token yubikey:7", true),
            ("keyturn join bob.welcome", true),
            ("keyturn join --device", true),
            ("keyturn join --device --name bob-desk", true),
            ("keyturn join bob.welcome --name bob-desk", false),
            ("keyturn join", false),
            ("keyturn unseal aws/prod/root --reason down", true),
            ("keyturn unseal --resume 01ARZ3NDEKTSV4RRFFQ69G5FAV", true),
            ("keyturn unseal", false),
            ("keyturn reshare aws/** --reason left", true),
            (
                "keyturn extend 01ARZ3NDEKTSV4RRFFQ69G5FAV --by 2h --reason more",
                true,
            ),
            (
                "keyturn extend 01ARZ3NDEKTSV4RRFFQ69G5FAV --reason more",
                false,
            ),
            ("keyturn erase 01ARZ3NDEKTSV4RRFFQ69G5FAV", false),
            ("keyturn unseal aws/prod/root", false),
            ("keyturn unseal nopath --reason down", false),
            ("keyturn approve", true),
            ("keyturn review", true),
            ("keyturn review 01ARZ3NDEKTSV4RRFFQ69G5FAV --in-order", true),
            (
                "keyturn review 01ARZ3NDEKTSV4RRFFQ69G5FAV --questioned",
                false,
            ),
            ("keyturn review --in-order", false),
            ("keyturn refuse 01ARZ3NDEKTSV4RRFFQ69G5FAV", false),
            (
                "keyturn checkin 01ARZ3NDEKTSV4RRFFQ69G5FAV --worked aws/prod/root=v2",
                true,
            ),
            (
                "keyturn --passphrase-fd 3 --passphrase-file f status",
                false,
            ),
            (
                "keyturn credential add aws/prod/root --kind text --group ops --policy standard",
                true,
            ),
            (
                "keyturn credential add aws/prod/root --kind nonsense --group ops --policy standard",
                false,
            ),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), good, "{line}");
        }
    }
}
