//! Everything that can go wrong between a person and a token, each told apart.
//!
//! The texts are read at two in the morning: `Display` says what happened, [`TokenError::hint`] what to do
//! about it, [`TokenError::code`] is the stable name that scripts and exit codes go by.

use keyturn_seal::DecryptError;
use thiserror::Error;

/// Why a token did not do what it was asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// The smart-card service does not answer.
    #[error("the smart-card service (pcscd) is not running")]
    NoService,
    /// The service runs, but has no reader.
    #[error("no smart-card reader and no YubiKey is connected")]
    NoReader,
    /// There are readers, but no key in them.
    #[error("no YubiKey is inserted")]
    NoToken,
    /// Keys are inserted, but not the one that is wanted.
    #[error("YubiKey {wanted} is not inserted; found {}", serials(found))]
    WrongToken {
        /// The serial number that is needed.
        wanted: u32,
        /// The serial numbers that are there.
        found: Vec<u32>,
    },
    /// Several keys are inserted and nothing says which one is meant.
    #[error("several YubiKeys are inserted: {}", serials(found))]
    SeveralTokens {
        /// The serial numbers that are there.
        found: Vec<u32>,
    },
    /// Another program has exclusive access.
    #[error("another program is using the YubiKey")]
    InUse,
    /// The PIN was wrong; the token counted it.
    #[error("wrong PIN; {tries_left} {} left", if *tries_left == 1 { "try" } else { "tries" })]
    WrongPin {
        /// Tries until the PIN is blocked.
        tries_left: u8,
    },
    /// Too many wrong PINs.
    #[error("the PIN is blocked")]
    PinBlocked,
    /// Not a PIN that a token could have: the token was not asked.
    #[error("a PIN has 6 to 8 characters of ASCII")]
    PinFormat,
    /// The PIN, PUK or management key is the one that every new token has.
    #[error("the {0} is still the one that every new YubiKey has")]
    FactoryDefault(&'static str),
    /// The management key of the token is neither the factory's nor kept under its PIN.
    #[error("the management key of this YubiKey is not known")]
    ManagementKey,
    /// A slot that enrolment needs holds a key already.
    #[error("slot {slot} holds a key already")]
    SlotOccupied {
        /// The slot's name as Yubico writes it, in hexadecimal.
        slot: String,
    },
    /// No retired slot has the share key that somebody named.
    #[error("no slot from 82 to 95 of this YubiKey has that share key")]
    NoSuchKey,
    /// The person did not touch the token in time.
    #[error("the YubiKey was not touched in time; nothing was signed or opened")]
    TouchNotGiven,
    /// The token was pulled out while it was needed.
    #[error("the YubiKey was pulled out")]
    Removed,
    /// The token has our slots, but other keys in them than were enrolled.
    #[error("the keys on this YubiKey are not the enrolled ones")]
    Replaced,
    /// The token has nothing of ours in the slots we look at.
    #[error("this YubiKey has no keyturn keys")]
    NotEnrolled,
    /// The applet is too old for what we need.
    #[error("firmware {0} of this YubiKey is too old")]
    Firmware(String),
    /// The passphrase does not open the key file.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The key file cannot be read.
    #[error("the key file is damaged: {0}")]
    KeyFile(String),
    /// The person gave no answer, or there is nobody to ask.
    #[error("no answer was given: {0}")]
    NotAnswered(String),
    /// The age file is not encrypted to this token's share key.
    #[error("the share is not encrypted to this token")]
    NotForThisToken,
    /// The age file is damaged or longer than any share.
    #[error("the encrypted share is damaged")]
    ShareDamaged,
    /// More than any ceremony needs.
    #[error("too much for one command: {0}")]
    TooMuch(&'static str),
    /// The token did something that it never should.
    #[error("the token failed: {0}")]
    Failed(String),
}

impl TokenError {
    /// What a share that does not decrypt means to its holder.
    pub fn of_share(error: DecryptError) -> Self {
        if error == DecryptError::NotForThisKey {
            Self::NotForThisToken
        } else {
            Self::ShareDamaged
        }
    }

    /// The stable name, for scripts and exit codes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoService => "no-smart-card-service",
            Self::NoReader => "no-reader",
            Self::NoToken => "no-token",
            Self::WrongToken { .. } => "wrong-token",
            Self::SeveralTokens { .. } => "several-tokens",
            Self::InUse => "token-in-use",
            Self::WrongPin { .. } => "wrong-pin",
            Self::PinBlocked => "pin-blocked",
            Self::PinFormat => "pin-format",
            Self::FactoryDefault(_) => "factory-default",
            Self::ManagementKey => "management-key",
            Self::SlotOccupied { .. } => "slot-occupied",
            Self::NoSuchKey => "no-such-key",
            Self::TouchNotGiven => "touch-not-given",
            Self::Removed => "token-removed",
            Self::Replaced => "token-replaced",
            Self::NotEnrolled => "token-not-enrolled",
            Self::Firmware(_) => "firmware-too-old",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::KeyFile(_) => "key-file-damaged",
            Self::NotAnswered(_) => "not-answered",
            Self::NotForThisToken => "not-for-this-token",
            Self::ShareDamaged => "share-damaged",
            Self::TooMuch(_) => "too-much",
            Self::Failed(_) => "token-failed",
        }
    }

    /// What the person can do now.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoService => {
                "start it: sudo systemctl start pcscd.socket (Debian package: pcscd)"
            }
            Self::NoReader | Self::NoToken => "insert your YubiKey and try again",
            Self::WrongToken { .. } => {
                "insert the YubiKey with that serial number; it is printed on its back"
            }
            Self::SeveralTokens { .. } => "remove the others, or name one: --token yubikey:SERIAL",
            Self::InUse => {
                "close the other program (often gpg-agent: gpgconf --kill scdaemon) and try again"
            }
            Self::WrongPin { .. } => {
                "try again; it is the PIN of the PIV application, not of FIDO or OpenPGP"
            }
            Self::PinBlocked => "unblock it with the PUK: ykman piv access unblock-pin",
            Self::PinFormat => "no try was used up; enter the PIN of the PIV application",
            Self::FactoryDefault(_) => "let enroll change it, or change it with ykman piv access",
            Self::ManagementKey => {
                "give the one you chose, or reset the PIV application: ykman piv reset"
            }
            Self::SlotOccupied { .. } => {
                "use another YubiKey, another slot (--slot), or say that the key may be overwritten (--overwrite)"
            }
            Self::NoSuchKey => {
                "insert the YubiKey that has it; age-plugin-yubikey --list shows which keys it has"
            }
            Self::TouchNotGiven => "run the command again and touch the YubiKey while it blinks",
            Self::Removed => "insert it again and run the command again; nothing was sent",
            Self::Replaced => "use the YubiKey you enrolled, or enrol this one as another token",
            Self::NotEnrolled => {
                "use the YubiKey you enrolled, or enrol this one: keyturn enroll --token yubikey"
            }
            Self::Firmware(_) => "use a YubiKey with firmware 4.3 or newer",
            Self::WrongPassphrase => {
                "try again; the passphrase was chosen when the key file was made"
            }
            Self::KeyFile(_) => "use your copy of the key file, or your spare token",
            Self::NotAnswered(_) => {
                "answer on a terminal, or look at what --passphrase-file, --passphrase-fd or --pin-fd names"
            }
            Self::NotForThisToken => "use the token that the manifest names for you",
            Self::ShareDamaged => {
                "others may still open it; report it and have the credential resealed"
            }
            Self::TooMuch(_) => "ask for fewer credentials in one request",
            Self::Failed(_) => {
                "pull the token out, insert it again and try again; keyturn doctor says more"
            }
        }
    }

    /// Whether the same command can succeed when it is simply tried again.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::NoService
                | Self::NoReader
                | Self::NoToken
                | Self::WrongToken { .. }
                | Self::SeveralTokens { .. }
                | Self::InUse
                | Self::WrongPin { .. }
                | Self::PinFormat
                | Self::TouchNotGiven
                | Self::Removed
                | Self::WrongPassphrase
                | Self::NotAnswered(_)
        )
    }
}

fn serials(found: &[u32]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let all: Vec<String> = found.iter().map(u32::to_string).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn every() -> Vec<TokenError> {
        vec![
            TokenError::NoService,
            TokenError::NoReader,
            TokenError::NoToken,
            TokenError::WrongToken {
                wanted: 7,
                found: vec![8, 9],
            },
            TokenError::SeveralTokens { found: vec![8, 9] },
            TokenError::InUse,
            TokenError::WrongPin { tries_left: 2 },
            TokenError::PinBlocked,
            TokenError::PinFormat,
            TokenError::FactoryDefault("PIN"),
            TokenError::ManagementKey,
            TokenError::SlotOccupied { slot: "9c".into() },
            TokenError::NoSuchKey,
            TokenError::TouchNotGiven,
            TokenError::Removed,
            TokenError::Replaced,
            TokenError::NotEnrolled,
            TokenError::Firmware("3.1.0".into()),
            TokenError::WrongPassphrase,
            TokenError::KeyFile("empty".into()),
            TokenError::NotAnswered("no terminal".into()),
            TokenError::NotForThisToken,
            TokenError::ShareDamaged,
            TokenError::TooMuch("shares at once"),
            TokenError::Failed("6f00".into()),
        ]
    }

    #[test]
    fn every_mishap_has_its_own_code_and_a_hint() {
        let codes: BTreeSet<&str> = every().iter().map(TokenError::code).collect();
        assert_eq!(codes.len(), every().len(), "codes are pairwise different");
        for error in every() {
            assert!(
                error
                    .code()
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-'),
                "{error}"
            );
            assert!(error.hint().len() > 10, "{error}");
            assert!(!error.to_string().ends_with('.'), "{error}");
        }
    }

    #[test]
    fn tries_are_counted_in_words() {
        assert_eq!(
            TokenError::WrongPin { tries_left: 1 }.to_string(),
            "wrong PIN; 1 try left"
        );
        assert_eq!(
            TokenError::WrongPin { tries_left: 2 }.to_string(),
            "wrong PIN; 2 tries left"
        );
        assert_eq!(
            TokenError::WrongToken {
                wanted: 7,
                found: vec![]
            }
            .to_string(),
            "YubiKey 7 is not inserted; found none"
        );
    }
}
