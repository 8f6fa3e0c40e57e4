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
pub(crate) mod device;
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

use std::{
    io,
    path::{Path, PathBuf},
};

use keyturn_vault::{
    digest::Digest,
    reference::Signer,
    text::{SignedText, Text},
};

use crate::{
    home::{Home, Profile},
    refusal::Refusal,
    session::Session,
    token::{self, Opened, Wanted},
    ui::{
        Ui,
        prompt::{Person, Sources},
    },
};
use clap::Args;

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
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
    /// By the flags; `plain` is without colour.
    pub fn new(global: Global, plain: bool) -> Result<Self, Refusal> {
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

/// Standard output is gone. Whoever closed it, like `head`, has seen enough and is told nothing.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::unread();
        }
        Self::new(
            "file",
            format_args!("cannot write the result: {error}"),
            "it took effect; see `keyturn status`",
        )
    }
}

/// A file that the person named cannot be used.
pub fn file_error(path: &Path, error: &dyn std::error::Error) -> Refusal {
    let message = format!("{}: {}", path.display(), crate::causes::told(error));
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
