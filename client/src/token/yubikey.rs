//! YubiKeys: opening the enrolled one, and making the keys of a new one.

use keyturn_hsm::{
    ApprovalKey, Token, TokenError,
    attestation::{Bundle, EUCLEAK_FIXED, TouchPolicy},
};
use keyturn_seal::{ShareKey, piv::PivKey};
use keyturn_yubikey::{Enrolment, YubiKeyToken, enrol, record::ShareSlot};

use crate::{
    home::{Enrolled, TokenKeys},
    refusal::Refusal,
    ui::{Ui, prompt::Person},
};

/// The slot of the approval key, as errors name it.
const IN_9C: &str = "9c";

/// What somebody wants of the keys that are made.
#[derive(Clone, Debug)]
pub struct Making {
    /// The YubiKey; none for the only one.
    pub serial: Option<u32>,
    /// The share key, if another program made it.
    pub share: Option<PivKey>,
    /// The retired slot of a new share key; none for the first free one.
    pub slot: Option<u8>,
    /// Touch for each share, not once in 15 seconds.
    pub touch_always: bool,
    /// Keys that are there may be overwritten.
    pub overwrite: bool,
}

/// A YubiKey that was just enrolled.
pub struct Made {
    /// The token, which knows its PIN already where it was asked for.
    pub token: YubiKeyToken,
    /// The attestation of its keys, where it has one.
    pub attestation: Option<Bundle>,
}

/// Opens the YubiKey that was enrolled, if it still has those keys.
pub(super) fn open(enrolled: &Enrolled) -> Result<Box<dyn Token>, Refusal> {
    let serial = enrolled.token.serial;
    let token = match &enrolled.keys {
        Some(keys) => {
            let (approval, share) = native(keys).ok_or(TokenError::Replaced)?;
            YubiKeyToken::open_enrolled(serial, &approval, &share)?
        }
        None => YubiKeyToken::open(serial)?,
    };
    Ok(Box::new(token))
}

/// The enrolled YubiKey that is inserted, by its serial number where there are several.
pub fn at_hand(serial: Option<u32>) -> Result<Box<dyn Token>, TokenError> {
    Ok(Box::new(YubiKeyToken::open(serial)?))
}

/// The YubiKeys that are inserted, told.
pub fn readers() -> Result<String, TokenError> {
    let found = keyturn_yubikey::list()?;
    let told: Vec<String> = found
        .iter()
        .map(|one| format!("YubiKey {}, firmware {}", one.serial, one.firmware))
        .collect();
    if told.is_empty() {
        Err(TokenError::NoToken)
    } else {
        Ok(told.join("; "))
    }
}

/// The enrolled YubiKey that is inserted; none where there is none.
pub(super) fn inserted(serial: Option<u32>) -> Result<Option<Box<dyn Token>>, Refusal> {
    use TokenError::{NoReader, NoService, NoToken, NotEnrolled};
    match at_hand(serial) {
        Ok(token) => Ok(Some(token)),
        Err(NoService | NoReader | NoToken | NotEnrolled) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn native(keys: &TokenKeys) -> Option<(ApprovalKey, ShareKey)> {
    let approval = ApprovalKey::from_spki(keys.approval.as_der()).ok()?;
    Some((approval, keys.share.as_str().parse().ok()?))
}

/// Makes the keys, telling first what will be done, and asking before anything is overwritten. A token that is
/// enrolled already keeps its keys, unless they are to be overwritten.
pub fn make(wanted: &Making, ui: Ui, person: &mut Person) -> Result<Made, Refusal> {
    let mut token = if wanted.overwrite {
        begin(wanted, ui, person)?
    } else {
        match YubiKeyToken::open(wanted.serial) {
            Ok(token) if wanted.share.as_ref().is_some_and(|key| !has(&token, key)) => {
                drop(token);
                begin(wanted, ui, person)?
            }
            Ok(token) => {
                ui.note(format_args!(
                    "{} was enrolled before; its keys stay as they are (--overwrite makes new ones)",
                    token.describe()
                ));
                token
            }
            Err(TokenError::NotEnrolled) => begin(wanted, ui, person)?,
            Err(error) => return Err(error.into()),
        }
    };
    if let Some(firmware) = token.describe().firmware
        && firmware < EUCLEAK_FIXED
    {
        ui.warn(format_args!(
            "firmware {firmware}: who has this YubiKey in hands for a while can copy its keys (EUCLEAK, YSA-2024-03); firmware {EUCLEAK_FIXED} and newer is not concerned"
        ));
    }
    let attestation = match token.attest() {
        Ok(Some(Bundle { share: None, .. })) => {
            ui.warn(
                "the share key was imported, not made on this YubiKey: copies of it may exist, and nobody attests it; policies that require attestation do not accept this token",
            );
            None
        }
        Ok(attestation) => attestation,
        Err(TokenError::Failed(why)) => {
            ui.warn(format_args!(
                "this token attests nothing ({why}); policies that require attestation do not accept it"
            ));
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Made { token, attestation })
}

fn has(token: &YubiKeyToken, key: &PivKey) -> bool {
    matches!(token.share_key(), ShareKey::Piv(own) if own == key)
}

fn begin(wanted: &Making, ui: Ui, person: &mut Person) -> Result<YubiKeyToken, Refusal> {
    let slot = wanted.slot.map(|number| {
        ShareSlot::new(number).ok_or(TokenError::SlotOccupied {
            slot: format!("{number:02x}"),
        })
    });
    let mut enrolment = Enrolment {
        serial: wanted.serial,
        share: wanted.share.clone(),
        slot: slot.transpose()?,
        touch: if wanted.touch_always {
            TouchPolicy::Always
        } else {
            TouchPolicy::Cached
        },
        overwrite: wanted.overwrite,
    };
    ui.note(explained(&enrolment));
    match enrol(&enrolment, person) {
        Err(TokenError::SlotOccupied { slot })
            if !wanted.overwrite && (slot == IN_9C || enrolment.slot.is_some()) =>
        {
            ui.warn(format_args!("slot {slot} holds a key already"));
            let named = enrolment.slot.map(|slot| format!(" and slot {slot}"));
            person.overwrite(&format!("slot 9c{}", named.unwrap_or_default()))?;
            enrolment.overwrite = true;
            Ok(enrol(&enrolment, person)?)
        }
        made => Ok(made?),
    }
}

/// What is about to be done to the token.
fn explained(enrolment: &Enrolment) -> String {
    let share = explained_share(enrolment);
    format!(
        "On the YubiKey:\n  PIN, PUK and management key  replaced where they are those of every new YubiKey\n  approval key in slot 9c      asks for PIN and touch each time\n  share key {share}\n  other slots                  stay as they are\nIf it is interrupted, insert the YubiKey again and run the same command: it goes on. Nothing is lost before; to undo\nit all, also what others keep there: ykman piv reset."
    )
}

fn explained_share(enrolment: &Enrolment) -> String {
    if enrolment.share.is_some() {
        return "of another program   used as it is, with the PIN and touch that it asks for"
            .to_owned();
    }
    let slot = enrolment.slot.map_or_else(
        || "a retired slot".to_owned(),
        |slot| format!("slot {slot}"),
    );
    let touch = if enrolment.touch == TouchPolicy::Always {
        "a touch for each share"
    } else {
        "a touch, which lasts for 15 seconds"
    };
    format!("in {slot:<16}asks for the PIN once and {touch}")
}

/// The public keys as documents carry them.
pub fn keys(token: &dyn Token) -> Option<TokenKeys> {
    use keyturn_vault::key::PublicKey;
    Some(TokenKeys {
        approval: PublicKey::from_der(token.approval_key().spki()).ok()?,
        share: token.share_key().to_string().parse().ok()?,
    })
}
