//! The tokens of a profile, and random values.
//!
//! # Invariants
//! 1. A token is used only while it has the keys that were enrolled.
//! 2. Of several tokens of a person the first that is at hand is used; a text names the one that signs it.

#[cfg(feature = "yubikey")]
pub mod yubikey;

use std::{fmt, str::FromStr};

use keyturn_hsm::{Prompt, Token, TokenError, software::SoftwareToken};
use keyturn_vault::{
    digest::Salt,
    reference::{Signer, TokenKind, TokenRef},
    text::{SignedText, Text},
};
use thiserror::Error;

use crate::{
    home::{Enrolled, Home, Profile},
    refusal::Refusal,
};

/// The key file of a software token.
pub const KEY_FILE: &str = "token.key";

/// The largest key file, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Which token somebody means; written `software`, `yubikey`, `yubikey:12345678`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The key file.
    Software,
    /// A YubiKey, by its serial number where there are several.
    Yubikey(Option<u32>),
}

/// Not a kind of token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("write software, yubikey, or yubikey:SERIAL")]
pub struct NoSuchToken;

impl FromStr for Wanted {
    type Err = NoSuchToken;

    fn from_str(text: &str) -> Result<Self, NoSuchToken> {
        match text.split_once(':') {
            None if text == "software" => Ok(Self::Software),
            None if text == "yubikey" => Ok(Self::Yubikey(None)),
            Some(("yubikey", serial)) => {
                let serial = serial.parse().map_err(|_| NoSuchToken)?;
                Ok(Self::Yubikey(Some(serial)))
            }
            _ => Err(NoSuchToken),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software => f.write_str("software"),
            Self::Yubikey(None) => f.write_str("yubikey"),
            Self::Yubikey(Some(serial)) => write!(f, "yubikey:{serial}"),
        }
    }
}

impl Wanted {
    /// Whether this token can be meant.
    pub fn fits(self, token: TokenRef) -> bool {
        match self {
            Self::Software => token.kind == TokenKind::Software,
            Self::Yubikey(serial) => {
                token.kind == TokenKind::Yubikey && (serial.is_none() || serial == token.serial)
            }
        }
    }
}

/// A token that was opened: it asks for no passphrase again.
pub struct Opened {
    /// The token.
    pub token: Box<dyn Token>,
    reference: TokenRef,
}

/// Opens a token of a profile; asks for its passphrase or, later, its PIN.
pub fn open(
    home: &Home,
    profile: &Profile,
    wanted: Option<Wanted>,
    ui: &mut dyn Prompt,
) -> Result<Opened, Refusal> {
    let mut mine = profile.tokens();
    if let Some(wanted) = wanted {
        mine.retain(|enrolled| wanted.fits(enrolled.token));
    }
    let chosen = choose(&mine).ok_or_else(|| {
        let mine: Vec<String> = profile.tokens().iter().map(name).collect();
        Refusal::new(
            "wrong-token",
            format_args!("this is not a token of yours; you have {}", mine.join(", ")),
            "leave out --token, or name one of these",
        )
    })?;
    open_enrolled(home, chosen, ui)
}

/// Opens this token of a profile.
pub fn open_enrolled(
    home: &Home,
    enrolled: &Enrolled,
    ui: &mut dyn Prompt,
) -> Result<Opened, Refusal> {
    let token: Box<dyn Token> = match enrolled.token.kind {
        TokenKind::Software => {
            let path = home.path(KEY_FILE);
            let file = keyturn_hsm::private::read(&path)?;
            if u64::try_from(file.len()).unwrap_or(u64::MAX) > MAX_KEY_FILE {
                return Err(TokenError::KeyFile("it is too long".to_owned()).into());
            }
            Box::new(SoftwareToken::open(&file, ui)?)
        }
        TokenKind::Yubikey => hardware(enrolled)?,
    };
    Ok(Opened {
        token,
        reference: enrolled.token,
    })
}

#[cfg(feature = "yubikey")]
fn hardware(enrolled: &Enrolled) -> Result<Box<dyn Token>, Refusal> {
    yubikey::open(enrolled)
}

#[cfg(not(feature = "yubikey"))]
fn hardware(_: &Enrolled) -> Result<Box<dyn Token>, Refusal> {
    Err(no_yubikey())
}

/// Invariant 2: what is at hand, otherwise the first, which then says what is missing.
fn choose(mine: &[Enrolled]) -> Option<&Enrolled> {
    let at_hand = |enrolled: &&Enrolled| match enrolled.token.kind {
        TokenKind::Software => true,
        TokenKind::Yubikey => enrolled.token.serial.is_some_and(is_inserted),
    };
    match mine {
        [] => None,
        [only] => Some(only),
        [first, ..] => Some(mine.iter().find(at_hand).unwrap_or(first)),
    }
}

/// The enrolled YubiKey that is inserted, for somebody without a profile; none where there is none.
pub fn inserted(wanted: Option<Wanted>) -> Result<Option<Box<dyn Token>>, Refusal> {
    match wanted {
        Some(Wanted::Software) => Ok(None),
        Some(Wanted::Yubikey(serial)) => only_inserted(serial),
        None => only_inserted(None),
    }
}

#[cfg(feature = "yubikey")]
fn only_inserted(serial: Option<u32>) -> Result<Option<Box<dyn Token>>, Refusal> {
    yubikey::inserted(serial)
}

#[cfg(not(feature = "yubikey"))]
fn only_inserted(_: Option<u32>) -> Result<Option<Box<dyn Token>>, Refusal> {
    Ok(None)
}

#[cfg(feature = "yubikey")]
fn is_inserted(serial: u32) -> bool {
    keyturn_yubikey::list().is_ok_and(|found| found.iter().any(|one| one.serial == serial))
}

#[cfg(not(feature = "yubikey"))]
fn is_inserted(_: u32) -> bool {
    false
}

/// How `--token` names it.
fn name(enrolled: &Enrolled) -> String {
    match enrolled.token.kind {
        TokenKind::Software => Wanted::Software,
        TokenKind::Yubikey => Wanted::Yubikey(enrolled.token.serial),
    }
    .to_string()
}

/// This build has no YubiKeys.
#[cfg(not(feature = "yubikey"))]
pub fn no_yubikey() -> Refusal {
    Refusal::new(
        "no-smart-card-service",
        "this keyturn was built without YubiKeys",
        "install the build with the feature `yubikey`, which needs pcscd",
    )
}

impl Opened {
    /// A token that is open already.
    pub fn new(token: Box<dyn Token>, reference: TokenRef) -> Self {
        Self { token, reference }
    }

    /// The token as texts name it.
    pub fn reference(&self) -> TokenRef {
        self.reference
    }

    /// Signs a text that goes together.
    pub fn sign<T: Text>(&mut self, text: &T, ui: &mut dyn Prompt) -> Result<SignedText, Refusal> {
        text.check().map_err(|error| malformed(&error))?;
        let text = text.to_text();
        let signature = self.token.sign(text.as_bytes(), ui)?;
        Ok(SignedText {
            text,
            signature,
            signer: Signer::Token(self.reference.id),
        })
    }
}

/// A text whose lines do not go together.
pub fn malformed(error: &keyturn_vault::text::TextError) -> Refusal {
    Refusal::new(
        "malformed",
        crate::causes::told(error),
        "nothing was sent; change what you asked for",
    )
}

/// 32 random bytes.
pub fn salt() -> Result<Salt, Refusal> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Salt(bytes))
}

/// Ten random bytes, for an id.
pub fn random() -> Result<[u8; 10], Refusal> {
    let mut bytes = [0; 10];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    getrandom::fill(bytes).map_err(|_| {
        Refusal::new(
            "no-entropy",
            "the system's random number generator failed",
            "do not use this computer",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_tokens_are_read() {
        for (text, want) in [
            ("software", Some(Wanted::Software)),
            ("yubikey", Some(Wanted::Yubikey(None))),
            ("yubikey:12345678", Some(Wanted::Yubikey(Some(12_345_678)))),
            ("yubikey:", None),
            ("yubikey:-1", None),
            ("software:1", None),
            ("YubiKey", None),
            ("", None),
        ] {
            let read = text.parse::<Wanted>().ok();
            assert_eq!(read, want, "{text}");
            if let Some(read) = read {
                assert_eq!(read.to_string(), text);
            }
        }
    }
}
