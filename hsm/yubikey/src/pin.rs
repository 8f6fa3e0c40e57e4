//! The PIN of one opened token: asked for once, tried once, kept until the token is let go.

use keyturn_hsm::{Prompt, Question, TokenError};
use keyturn_seal::SecretBytes;
use yubikey::{Error, YubiKey};

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
            Self::Unasked => Err(TokenError::NotAnswered("no PIN".into())),
        }
    }
}

/// Asks the person, unless no answer could help.
fn ask(card: &mut YubiKey, ui: &mut dyn Prompt) -> Result<SecretBytes, TokenError> {
    let tries_left = tries(card).map_err(mishap)?;
    if tries_left == Some(0) {
        return Err(TokenError::PinBlocked);
    }
    let pin = ui.ask(&Question::Pin {
        serial: serial(card),
        tries_left,
    })?;
    if is_well_formed(&pin) {
        Ok(pin)
    } else {
        Err(TokenError::PinFormat)
    }
}

/// Tries left; none while another program's PIN is still given, for then the token does not tell, and all are left.
///
/// `yubikey` says zero for both. It selects the application once more before it asks, but by SP 800-73-4 (part 2,
/// 3.1.1) that changes nothing if the application was selected: age's plugin, for one, leaves the PIN given.
pub(crate) fn tries(card: &mut YubiKey) -> Result<Option<u8>, Error> {
    match card.get_pin_retries()? {
        0 => match card.verify_pin(&[]) {
            Ok(()) => Ok(None),
            Err(Error::WrongPin { .. } | Error::PinLocked) => Ok(Some(0)),
            Err(error) => Err(error),
        },
        left => Ok(Some(left)),
    }
}

/// Six to eight ASCII characters: anything else would cost a try for nothing.
pub(crate) fn is_well_formed(pin: &SecretBytes) -> bool {
    // Exposed to be measured.
    (6..=8).contains(&pin.len()) && pin.expose().iter().all(u8::is_ascii_graphic)
}
