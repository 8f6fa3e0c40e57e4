//! What the token's and the reader's errors mean to the person.

use keyturn_hsm::TokenError;
use pcsc::Error as Pcsc;
use yubikey::{Error, YubiKey};

/// The meaning of an error where nothing more is known.
pub(crate) fn mishap(error: Error) -> TokenError {
    if let Error::PcscError { inner: Some(error) } = error {
        of_reader(error)
    } else if let Error::WrongPin {
        tries: tries_left @ 1..,
    } = error
    {
        TokenError::WrongPin { tries_left }
    } else if matches!(error, Error::WrongPin { .. } | Error::PinLocked) {
        TokenError::PinBlocked
    } else {
        TokenError::Failed(error.to_string())
    }
}

/// The meaning of an error while the token was used: where it says little, the token is asked whether it is there.
pub(crate) fn in_use(card: &mut YubiKey, error: Error) -> TokenError {
    match (mishap(error), card.get_pin_retries()) {
        (TokenError::Failed(_), Err(second)) => mishap(second),
        (first, _) => first,
    }
}

fn of_reader(error: Pcsc) -> TokenError {
    const SERVICE: [Pcsc; 4] = [
        Pcsc::NoService,
        Pcsc::ServiceStopped,
        Pcsc::ServerTooBusy,
        Pcsc::InvalidHandle,
    ];
    const REMOVED: [Pcsc; 8] = [
        Pcsc::NoSmartcard,
        Pcsc::RemovedCard,
        Pcsc::NotTransacted,
        Pcsc::UnpoweredCard,
        Pcsc::UnresponsiveCard,
        Pcsc::ReaderUnavailable,
        Pcsc::UnknownReader,
        Pcsc::CommDataLost,
    ];
    if SERVICE.contains(&error) {
        TokenError::NoService
    } else if REMOVED.contains(&error) {
        TokenError::Removed
    } else if error == Pcsc::NoReadersAvailable {
        TokenError::NoReader
    } else if matches!(error, Pcsc::SharingViolation | Pcsc::ResetCard) {
        // Held by another program, or reset by one, which makes the token forget the PIN.
        TokenError::InUse
    } else {
        TokenError::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mishap_has_its_meaning() {
        let pcsc = |error| Error::PcscError { inner: Some(error) };
        for (error, want) in [
            (Error::WrongPin { tries: 2 }, "wrong-pin"),
            (Error::WrongPin { tries: 0 }, "pin-blocked"),
            (Error::PinLocked, "pin-blocked"),
            (pcsc(Pcsc::NoService), "no-smart-card-service"),
            (pcsc(Pcsc::NoReadersAvailable), "no-reader"),
            (pcsc(Pcsc::SharingViolation), "token-in-use"),
            (pcsc(Pcsc::ResetCard), "token-in-use"),
            (pcsc(Pcsc::RemovedCard), "token-removed"),
            (pcsc(Pcsc::NotTransacted), "token-removed"),
            (pcsc(Pcsc::CardUnsupported), "token-failed"),
            (Error::GenericError, "token-failed"),
        ] {
            assert_eq!(mishap(error).code(), want, "{error:?}");
        }
    }
}
