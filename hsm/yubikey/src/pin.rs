//! The PIN of one opened token: asked for once, tried once, kept until the token is let go.

use keyturn_hsm::{Prompt, Question, TokenError};
use keyturn_seal::SecretBytes;
use yubikey::YubiKey;

use crate::{
    find::serial,
    mishap::{in_use, mishap},
};

/// What is known of the PIN.
pub(crate) enum Pin {
    /// Nothing yet.
    Unasked,
    /// What the person gave.
    Given(SecretBytes),
    /// It was asked for, and it did not help.
    Refused(TokenError),
}

impl Pin {
    /// Gives the PIN to the token, asking the person first if nobody has.
    pub(crate) fn verify(
        &mut self,
        card: &mut YubiKey,
        ui: &mut dyn Prompt,
    ) -> Result<(), TokenError> {
        if matches!(self, Self::Unasked) {
            *self = match ask(card, ui) {
                Ok(pin) => Self::Given(pin),
                // The person was not asked: the token could not be.
                Err(error @ (TokenError::InUse | TokenError::Removed | TokenError::Failed(_))) => {
                    return Err(error);
                }
                Err(error) => Self::Refused(error),
            };
        }
        match self {
            Self::Refused(error) => Err(error.clone()),
            // Exposed to the token.
            Self::Given(pin) => match card.verify_pin(pin.expose()) {
                Ok(()) => Ok(()),
                Err(error) => {
                    let error = in_use(card, error);
                    if matches!(error, TokenError::WrongPin { .. } | TokenError::PinBlocked) {
                        *self = Self::Refused(error.clone());
                    }
                    Err(error)
                }
            },
            Self::Unasked => Err(TokenError::NotAnswered("no PIN")),
        }
    }
}

/// Asks the person, unless no answer could help.
fn ask(card: &mut YubiKey, ui: &mut dyn Prompt) -> Result<SecretBytes, TokenError> {
    let tries = card.get_pin_retries().map_err(mishap)?;
    if tries == 0 {
        return Err(TokenError::PinBlocked);
    }
    let pin = ui.ask(&Question::Pin {
        serial: serial(card),
        tries_left: Some(tries),
    })?;
    if is_well_formed(&pin) {
        Ok(pin)
    } else {
        Err(TokenError::PinFormat)
    }
}

/// Six to eight ASCII characters: anything else would cost a try for nothing.
pub(crate) fn is_well_formed(pin: &SecretBytes) -> bool {
    // Exposed to be measured.
    (6..=8).contains(&pin.len()) && pin.expose().iter().all(u8::is_ascii_graphic)
}
