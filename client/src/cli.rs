//! The command line: what may be typed, and the command that it runs.

use clap::{CommandFactory, Parser, Subcommand};
use keyturn_vault::text::Purpose;

use crate::{
    command::{self, Context, Global, device, manual, status},
    refusal::Refusal,
    ui::Ui,
};

/// Break-glass credentials that open only when two custodians agree.
#[derive(Debug, Parser)]
#[command(
    name = "keyturn",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Without a command: what waits for you.\nAlso: keyturn completions SHELL, keyturn man DIR, keyturn exit-codes.\nExit codes: 0 done, 2 wrong command line, otherwise one for each kind of refusal (keyturn exit-codes)."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; nothing shows what waits for you.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make your keys, and the file that a vault's founder or operator needs
    Enroll(command::enroll::Enroll),
    /// Join a vault with the welcome file made for you
    Join(command::join::Join),
    /// What waits for you, and how the vault is
    Status(status::Status),
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
    Completions(manual::Completions),
    /// Manual pages
    #[command(hide = true)]
    Man(manual::Man),
    /// Every refusal with its exit code
    #[command(hide = true)]
    ExitCodes(manual::ExitCodes),
}

/// Runs a command to its end; gives the exit code.
pub async fn run(cli: Cli, plain: bool) -> u8 {
    let Cli { global, command } = cli;
    let ui = Ui::new(global.json, plain);
    let result = match Context::new(global, plain) {
        // On the heap: the commands' states are large.
        Ok(context) => Box::pin(dispatch(command, context)).await,
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok(()) => 0,
        Err(refusal) => {
            let hint = Some(refusal.hint.as_str()).filter(|hint| !hint.is_empty());
            if !refusal.is_unread() {
                ui.fail(&refusal, hint);
            }
            refusal.exit()
        }
    }
}

/// What a custodian does on a borrowed computer: look, agree or not, show signs of life.
fn may_borrow(command: Option<&Command>) -> bool {
    matches!(
        command,
        None | Some(
            Command::Status(_)
                | Command::Approve(_)
                | Command::Refuse(_)
                | Command::Retract(_)
                | Command::Confirm(_)
                | Command::Heartbeat(_)
        )
    )
}

async fn dispatch(command: Option<Command>, mut context: Context) -> Result<(), Refusal> {
    if may_borrow(command.as_ref()) {
        context = device::borrow(context).await?;
    }
    let Some(command) = command else {
        return status::Status::default().run(context).await;
    };
    match command {
        Command::Enroll(command) => command.run(context),
        Command::Join(command) => command.run(context).await,
        Command::Status(command) => command.run(context).await,
        Command::Charter(command) => command.run(context).await,
        Command::Credential(command) => command.run(context).await,
        Command::Unseal(command) => command.run(context).await,
        Command::Approve(command) => command.run(context).await,
        Command::Refuse(command) => command.run(context).await,
        Command::Retract(command) => command.run(context).await,
        Command::Withdraw(command) => command.run(context).await,
        Command::Review(command) => command.run(context).await,
        Command::Checkin(command) => command.run(context).await,
        Command::Confirm(command) => command.run(context).await,
        Command::Heartbeat(command) => command.run(context).await,
        Command::Extend(command) => command.run(context).await,
        Command::Erase(command) => command.run(context).await,
        Command::Reshare(command) => command.run(context).await,
        Command::AcceptRestore(command) => command.run(context).await,
        Command::Rotate(command) => command.run(context).await,
        Command::Audit(command) => command.run(context).await,
        Command::Recover(command) => command.run(context).await,
        Command::Drill(command) => command.run_as(context, Purpose::Drill).await,
        Command::Doctor(command) => command.run(context).await,
        Command::Completions(command) => command.run(Cli::command()),
        Command::Man(command) => command.run(Cli::command()),
        Command::ExitCodes(_) => manual::ExitCodes::run(&context),
    }
}

#[cfg(test)]
mod tests {
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
