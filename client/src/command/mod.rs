//! The commands: one file for each.
//!
//! A command reads its arguments, asks a [`Session`], and hands one result to the
//! [`Ui`]. What goes wrong is a [`Refusal`] with an exit code of its own.

pub mod adopt;
pub mod approve;
pub mod audit;
pub mod case;
pub mod charter;
pub mod check_old;
pub mod checkin;
mod codes;
pub mod confirm;
pub mod copy;
pub mod credential;
pub mod decide;
pub mod deposit;
mod device;
pub mod doctor;
pub mod enroll;
pub mod erase;
pub mod export;
pub mod extend;
pub mod follow;
pub mod invite;
pub mod join;
pub mod manual;
pub mod open;
pub mod recover;
pub mod redefine;
pub mod refuse;
pub mod release;
pub mod reshare;
pub mod restore;
mod restore_case;
pub mod review;
pub mod rotate;
pub mod rotate_now;
pub mod show;
pub mod sink;
pub mod status;
pub mod unseal;

use std::{io, path::Path};

use keyturn_vault::{
    reference::Signer,
    text::{Purpose, SignedText, Text},
};

use crate::{
    cli::{Cli, Command, Global},
    home::{Home, Profile},
    refusal::Refusal,
    session::Session,
    token::{self, Opened, Wanted},
    ui::{
        Ui,
        prompt::{Person, Sources},
    },
};

/// What every command works with.
pub struct Context {
    /// The two streams.
    pub ui: Ui,
    /// Who answers questions.
    pub person: Person,
    /// The folder of the person.
    pub home: Home,
    /// Which token is meant, where somebody said so.
    pub wanted: Option<Wanted>,
    /// A token that is open already, so that nobody enters a PIN twice.
    held: Option<Opened>,
    /// The home of a computer that is used for one command; it goes with it.
    borrowed: Option<tempfile::TempDir>,
}

impl Context {
    fn new(global: Global, plain: bool) -> Result<Self, Refusal> {
        let ui = Ui::new(global.json, plain);
        let home = global
            .home
            .or_else(|| std::env::home_dir().map(|home| home.join(".keyturn")));
        let nowhere = || {
            Refusal::new(
                "no-profile",
                "there is no home folder",
                "name one with --home",
            )
        };
        let home = Home::at(home.ok_or_else(nowhere)?);
        // A home that cannot be read is told of by the command that needs it.
        let configured = home.profile().ok().and_then(|profile| profile.pinentry);
        let sources = Sources {
            passphrase_fd: global.passphrase_fd,
            passphrase_file: global.passphrase_file,
            pin_fd: global.pin_fd,
            puk_fd: None,
            pinentry: global.pinentry.or(configured),
            yes_sha256: global.yes_sha256,
        };
        Ok(Self {
            ui,
            person: Person::new(ui, sources),
            home: home.believing(global.attestation_roots),
            wanted: global.token,
            held: None,
            borrowed: None,
        })
    }

    /// Opens one of the person's tokens.
    pub fn token(&mut self, profile: &Profile) -> Result<Opened, Refusal> {
        match self.held.take() {
            Some(held) => Ok(held),
            None => token::open(&self.home, profile, self.wanted, &mut self.person),
        }
    }

    /// Signs a text with the key of this computer where the charter has it, else with a token of the person.
    pub fn sign<T: Text>(&mut self, session: &Session, text: &T) -> Result<SignedText, Refusal> {
        text.check().map_err(|error| token::malformed(&error))?;
        let text = text.to_text();
        let (signer, signature) = self.sign_bytes(session, text.as_bytes())?;
        Ok(SignedText {
            text,
            signature,
            signer,
        })
    }

    /// The same for the bytes of a document.
    pub fn sign_bytes(
        &mut self,
        session: &Session,
        bytes: &[u8],
    ) -> Result<(Signer, Vec<u8>), Refusal> {
        if session.is_in_charter()? {
            let signature = session.device.sign(bytes)?;
            return Ok((Signer::Device(session.profile.device), signature));
        }
        let mut opened = self.token(&session.profile)?;
        let signature = opened.token.sign(bytes, &mut self.person);
        let signer = Signer::Token(opened.reference().id);
        // Kept, so that a command asks for the PIN once.
        self.held = Some(opened);
        Ok((signer, signature?))
    }

    /// Connects, with charter and log up to date.
    pub async fn session(&self) -> Result<Session, Refusal> {
        Session::open(&self.home, self.ui).await
    }
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
            ui.fail(&refusal, hint);
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
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::ExitCodes(_) => manual::ExitCodes::run(&context),
    }
}

/// Standard output is gone.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::new(
            "file",
            format_args!("cannot write the result: {error}"),
            "it took effect; see `keyturn status`",
        )
    }
}

/// A file that the person named cannot be used.
pub fn file_error(path: &Path, error: &dyn std::error::Error) -> Refusal {
    let message = format!("{}: {}", path.display(), crate::refusal::told(error));
    Refusal::new("file", message, "check the path and what is in it")
}

/// Reads a file that the person named.
pub fn read_named(path: &Path, max: u64) -> Result<Vec<u8>, Refusal> {
    let found = crate::home::read_file(path, max)?;
    found.ok_or_else(|| {
        Refusal::new(
            "file",
            format_args!("there is no file {}", path.display()),
            "check the path",
        )
    })
}
