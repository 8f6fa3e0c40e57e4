//! Which YubiKeys are inserted, and the one that is meant.

use keyturn_hsm::{TokenError, attestation::Firmware};
use pcsc::Disposition;
use yubikey::{Context, Error, YubiKey};

use crate::mishap::mishap;

/// An inserted YubiKey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The serial number.
    pub serial: u32,
    /// The firmware.
    pub firmware: Firmware,
}

/// The YubiKeys that are inserted and not held by another program.
pub fn list() -> Result<Vec<Found>, TokenError> {
    let (cards, _) = look()?;
    let found = cards.iter().map(|card| Found {
        serial: serial(card),
        firmware: firmware(card),
    });
    let found = found.collect();
    cards.into_iter().for_each(leave);
    Ok(found)
}

/// Opens the YubiKey with this serial number, or the only one.
pub(crate) fn open(wanted: Option<u32>) -> Result<YubiKey, TokenError> {
    let (mut cards, is_one_held) = look()?;
    let found: Vec<u32> = cards.iter().map(serial).collect();
    let at = match wanted {
        Some(wanted) => found.iter().position(|serial| *serial == wanted),
        None => (found.len() == 1).then_some(0),
    };
    let chosen = at.map(|at| cards.swap_remove(at));
    cards.into_iter().for_each(leave);
    chosen.ok_or(match wanted {
        None if found.len() > 1 => TokenError::SeveralTokens { found },
        _ if is_one_held => TokenError::InUse,
        Some(wanted) if !found.is_empty() => TokenError::WrongToken { wanted, found },
        _ => TokenError::NoToken,
    })
}

/// Opens all; and whether one could not be, because another program holds it.
fn look() -> Result<(Vec<YubiKey>, bool), TokenError> {
    let mut context = Context::open().map_err(mishap)?;
    let mut cards = Vec::new();
    let mut is_one_held = false;
    let readers = context.iter().map_err(mishap)?;
    if readers.len() == 0 {
        return Err(TokenError::NoReader);
    }
    for reader in readers {
        match reader.open() {
            Ok(card) => cards.push(card),
            Err(Error::PcscError {
                inner: Some(pcsc::Error::SharingViolation),
            }) => is_one_held = true,
            // An empty reader, or a card that is no YubiKey.
            Err(_) => {}
        }
    }
    Ok((cards, is_one_held))
}

/// Lets go of a token without a reset, which would make it forget a PIN that another program gave.
pub(crate) fn leave(card: YubiKey) {
    // It was not ours to begin with: an error changes nothing.
    let _ = card.disconnect(Disposition::LeaveCard);
}

pub(crate) fn serial(card: &YubiKey) -> u32 {
    card.serial().into()
}

pub(crate) fn firmware(card: &YubiKey) -> Firmware {
    let version = card.version();
    Firmware(version.major, version.minor, version.patch)
}
