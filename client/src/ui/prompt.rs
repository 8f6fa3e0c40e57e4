//! Questions to the person, and what answers them in scripts.
//!
//! # Invariants
//! 1. A question goes to the terminal, never to standard output or error, and its answer never comes
//!    from standard input: that may be the secret.
//! 2. What must be confirmed is confirmed by its digest: a script says `--yes-sha256` of the very text
//!    that was shown, so that "yes" to one text is never "yes" to another.
//! 3. What was typed before a question was there agrees to nothing.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use keyturn_hsm::{
    TokenError,
    prompt::{Notice, Prompt, Question},
};
use keyturn_seal::secret::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Ui, pinentry, touch::Countdown};
use crate::{causes::told, refusal::Refusal};

/// Shortest new passphrase, in characters: with the key file it is one of two factors (NIST SP 800-63B-4, 3.1.1.2).
pub const MIN_PASSPHRASE: usize = 8;
/// Longest passphrase or PIN that is read, in bytes.
pub const MAX_SECRET: u64 = 1024;

/// Where answers come from when there is nobody at a terminal.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file descriptor with the passphrase of key files.
    pub passphrase_fd: Option<i32>,
    /// A 0600 file with the passphrase of key files.
    pub passphrase_file: Option<PathBuf>,
    /// A file descriptor with the PIN.
    pub pin_fd: Option<i32>,
    /// A file descriptor with a new PUK.
    pub puk_fd: Option<i32>,
    /// A program that asks for PINs and passphrases.
    pub pinentry: Option<PathBuf>,
    /// SHA-256 of a text that may be signed or accepted without a question.
    pub yes_sha256: Vec<String>,
}

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum PromptError {
    /// There is no terminal to ask on.
    #[error("there is no terminal to ask on")]
    NoTerminal,
    /// The person said no.
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    /// The digest given does not belong to what was shown.
    #[error("--yes-sha256 names another text than this one ({0})")]
    OtherText(String),
    /// A secret's file may be read by others.
    #[error("{} may be read by others; run `chmod 600` on it", .0.display())]
    Open(PathBuf),
    /// The program that asks was closed.
    #[error("{} gave no answer", .0.display())]
    Closed(PathBuf),
    /// A secret that was chosen was not typed twice alike.
    #[error("the two were not the same")]
    NotTheSame,
    /// A new passphrase is too short.
    #[error("a new passphrase has at least {MIN_PASSPHRASE} characters")]
    Short,
    /// A secret is too long or empty.
    #[error("a secret of 1 to {MAX_SECRET} bytes was expected")]
    Size,
    /// A file or the terminal failed.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl PromptError {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoTerminal | Self::Size | Self::Short | Self::Closed(_) | Self::NotTheSame => {
                "not-answered"
            }
            Self::NotConfirmed | Self::OtherText(_) => "not-confirmed",
            Self::Open(_) | Self::Read { .. } => "file",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoTerminal => {
                "run it in a terminal; or give --yes-sha256 with the digest of what is shown, and --passphrase-file, --passphrase-fd or --pin-fd for secrets"
            }
            Self::NotConfirmed => "nothing was signed or sent; run it again when you are sure",
            Self::OtherText(_) => "look at what is shown; then give its digest",
            Self::Open(_) => "if nobody else has read it; otherwise choose another secret",
            Self::Closed(_) => "run it again and answer, or give --pin-fd",
            Self::NotTheSame => "nothing was changed; run it again",
            Self::Short => {
                "nothing was changed; choose several words that nobody else puts together"
            }
            Self::Size => "check the file or the descriptor",
            Self::Read { .. } => "check the path and whose it is",
        }
    }
}

impl From<PromptError> for Refusal {
    fn from(error: PromptError) -> Self {
        Self::new(error.code(), told(&error), error.hint())
    }
}

/// The person at the terminal, or the flags that stand in.
#[derive(Debug)]
pub struct Person {
    ui: Ui,
    sources: Sources,
    countdown: Option<Countdown>,
}

impl Person {
    /// With these flags.
    pub fn new(ui: Ui, sources: Sources) -> Self {
        Self {
            ui,
            sources,
            countdown: None,
        }
    }

    /// A new PUK comes from this file descriptor.
    pub fn with_puk_fd(&mut self, fd: Option<i32>) {
        self.sources.puk_fd = fd;
    }

    /// The program that asks, where one was named.
    pub fn pinentry(&self) -> Option<PathBuf> {
        self.sources.pinentry.clone()
    }

    /// Asks whether keys on a token may be overwritten. There is no flag that says yes to a slot nobody looked at.
    pub fn overwrite(&self, what: &str) -> Result<(), PromptError> {
        if !self.sources.yes_sha256.is_empty() {
            return Err(PromptError::NotConfirmed);
        }
        let question = format!(
            "There is a key of another program, or of an earlier enrolment. Overwrite {what}? Type yes: "
        );
        if self.line(&question)?.trim() == "yes" {
            Ok(())
        } else {
            Err(PromptError::NotConfirmed)
        }
    }

    /// Asks whether the text of this digest is meant. The person types `yes`.
    pub fn confirm(&self, question: &str, sha256: &str) -> Result<(), PromptError> {
        if !self.sources.yes_sha256.is_empty() {
            let named = self
                .sources
                .yes_sha256
                .iter()
                .any(|digest| digest == sha256);
            return if named {
                Ok(())
            } else {
                Err(PromptError::OtherText(sha256.to_owned()))
            };
        }
        let answer = self.line(&format!("{question} Type yes: "))?;
        if answer.trim() == "yes" {
            Ok(())
        } else {
            Err(PromptError::NotConfirmed)
        }
    }

    /// As [`Self::confirm`], for what nobody may agree to by habit: the fingerprint is typed.
    pub fn confirm_typed(&self, question: &str, sha256: &str) -> Result<(), PromptError> {
        if !self.sources.yes_sha256.is_empty() {
            return self.confirm(question, sha256);
        }
        let answer = self.line(&format!(
            "{question} Type the first 16 characters of its SHA-256, as another custodian reads them to you: "
        ))?;
        if answer.trim().len() == 16 && sha256.starts_with(answer.trim()) {
            Ok(())
        } else {
            Err(PromptError::NotConfirmed)
        }
    }

    /// Asks for a line on the terminal.
    pub fn line(&self, question: &str) -> Result<String, PromptError> {
        let mut tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|_| PromptError::NoTerminal)?;
        let read = |source| PromptError::Read {
            what: "the terminal".to_owned(),
            source,
        };
        // Invariant 3. Where it cannot be done, this is no terminal that somebody types ahead on.
        let _ = rustix::termios::tcflush(&tty, rustix::termios::QueueSelector::IFlush);
        tty.write_all(question.as_bytes()).map_err(read)?;
        let mut line = String::new();
        BufReader::new(tty.take(MAX_SECRET))
            .read_line(&mut line)
            .map_err(read)?;
        Ok(line)
    }

    /// A secret: from the descriptor, the file, another program, or the terminal without echo.
    pub fn secret(
        &self,
        question: &str,
        fd: Option<i32>,
        file: Option<&Path>,
    ) -> Result<SecretBytes, PromptError> {
        let bytes = match (fd, file, &self.sources.pinentry) {
            (Some(fd), _, _) => read_descriptor(fd)?,
            (None, Some(path), _) => read_private(path)?,
            (None, None, Some(program)) => pinentry::ask(program, question)
                .map_err(|source| PromptError::Read {
                    what: program.display().to_string(),
                    source,
                })?
                .ok_or_else(|| PromptError::Closed(program.clone()))?,
            (None, None, None) => {
                let typed = rpassword::prompt_password(format!("{question}: "))
                    .map_err(|_| PromptError::NoTerminal)?;
                Zeroizing::new(typed.into_bytes())
            }
        };
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if line.is_empty() {
            Err(PromptError::Size)
        } else {
            Ok(SecretBytes::from_slice(line))
        }
    }

    /// A new secret: asked for twice where a person types it.
    pub fn new_secret(
        &self,
        question: &str,
        fd: Option<i32>,
        file: Option<&Path>,
    ) -> Result<SecretBytes, PromptError> {
        let first = self.secret(question, fd, file)?;
        if fd.is_some() || file.is_some() {
            return Ok(first);
        }
        let again = self.secret("the same once more", None, None)?;
        if first.same(&again) {
            Ok(first)
        } else {
            Err(PromptError::NotTheSame)
        }
    }

    /// A new passphrase: asked twice at a terminal.
    pub fn new_passphrase(&self) -> Result<SecretBytes, PromptError> {
        let new = self.new_secret(
            "new passphrase of the key file",
            self.sources.passphrase_fd,
            self.sources.passphrase_file.as_deref(),
        )?;
        // Exposed to be counted.
        let text = std::str::from_utf8(new.expose());
        let characters = text.map_or(new.len(), |text| text.chars().count());
        if characters < MIN_PASSPHRASE {
            return Err(PromptError::Short);
        }
        Ok(new)
    }

    /// The answer to a token's question.
    fn answer(&self, question: &Question) -> Result<SecretBytes, PromptError> {
        let asked = question.to_string();
        match question {
            Question::Passphrase => self.secret(
                &asked,
                self.sources.passphrase_fd,
                self.sources.passphrase_file.as_deref(),
            ),
            Question::NewPin { .. } => self.new_secret(&asked, self.sources.pin_fd, None),
            Question::NewPuk { .. } => self.new_secret(&asked, self.sources.puk_fd, None),
            Question::Pin { .. } | _ => self.secret(&asked, self.sources.pin_fd, None),
        }
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    use std::os::unix::fs::PermissionsExt as _;
    let read = |source| PromptError::Read {
        what: path.display().to_string(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.permissions().mode() & 0o077 != 0 {
        return Err(PromptError::Open(path.to_owned()));
    }
    bounded(file).map_err(read)?.ok_or(PromptError::Size)
}

fn read_descriptor(fd: i32) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    let read = |source| PromptError::Read {
        what: format!("file descriptor {fd}"),
        source,
    };
    let file = File::open(format!("/dev/fd/{fd}")).map_err(read)?;
    bounded(file).map_err(read)?.ok_or(PromptError::Size)
}

fn bounded(file: File) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Room for all at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(MAX_SECRET)
            .unwrap_or(usize::MAX)
            .saturating_add(2),
    ));
    file.take(MAX_SECRET.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(u64::try_from(bytes.len())
        .is_ok_and(|len| len <= MAX_SECRET)
        .then_some(bytes))
}

impl Prompt for Person {
    fn ask(&mut self, question: &Question) -> Result<SecretBytes, TokenError> {
        self.answer(question)
            .map_err(|error| TokenError::NotAnswered(told(&error)))
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Ahead(budget) if budget.touches > 0 => {
                self.ui.note(format_args!("this needs {budget}"));
            }
            Notice::Touch {
                serial,
                purpose,
                seconds,
            } => {
                self.countdown = Some(Countdown::start(self.ui, *serial, *purpose, *seconds));
            }
            Notice::TouchOver => self.countdown = None,
            Notice::Ahead(_) | _ => {}
        }
    }
}
