//! Which slots an enrolment writes, and where a share key that another program made is.
//!
//! Identities of age-plugin-yubikey are P-256 keys in retired slots with a certificate of their own: the recipient
//! `age1yubikey1…` is the key, so it names the slot.

use keyturn_hsm::{TokenError, attestation::TouchPolicy};
use keyturn_seal::piv::PivKey;
use yubikey::{
    Certificate, Error, YubiKey,
    piv::{self, SlotId},
};

use crate::{
    enrol::Enrolment,
    mishap::in_use,
    object,
    record::{Made, ShareSlot, State},
};

/// What is done about the share key.
pub(crate) enum Plan {
    /// It is made in this slot.
    Make(ShareSlot),
    /// It is there.
    Use(Found),
}

/// A share key that another program made.
pub(crate) struct Found {
    pub(crate) key: PivKey,
    pub(crate) slot: ShareSlot,
    pub(crate) touch: TouchPolicy,
}

/// What the enrolment may do; an error if a slot is taken.
pub(crate) fn plan(
    card: &mut YubiKey,
    wanted: &Enrolment,
    state: Option<&State>,
) -> Result<Plan, TokenError> {
    // An enrolment that was begun had found its slots free, or given up.
    let is_ours = matches!(state, Some(State::Begun(_))) || wanted.overwrite;
    if !is_ours && is_taken(card, SlotId::Signature)? {
        return Err(TokenError::SlotOccupied {
            slot: "9c".to_owned(),
        });
    }
    match &wanted.share {
        Some(key) => find(card, key).map(Plan::Use),
        None => choose(card, wanted, state).map(Plan::Make),
    }
}

/// The slot for a new share key.
fn choose(
    card: &mut YubiKey,
    wanted: &Enrolment,
    state: Option<&State>,
) -> Result<ShareSlot, TokenError> {
    let own = match state {
        Some(State::Begun(slot)) => *slot,
        Some(State::Enrolled(record)) => (record.made == Made::Both).then_some(record.slot),
        None => None,
    };
    match (wanted.slot, own) {
        (Some(slot), own) if own == Some(slot) || wanted.overwrite => Ok(slot),
        (Some(slot), _) => free(card, slot)?.ok_or(TokenError::SlotOccupied {
            slot: slot.to_string(),
        }),
        (None, Some(own)) => Ok(own),
        (None, None) => {
            for slot in ShareSlot::all() {
                if let Some(slot) = free(card, slot)? {
                    return Ok(slot);
                }
            }
            Err(TokenError::SlotOccupied {
                slot: "82 to 95".to_owned(),
            })
        }
    }
}

fn free(card: &mut YubiKey, slot: ShareSlot) -> Result<Option<ShareSlot>, TokenError> {
    let id = slot.id().ok_or(TokenError::NotEnrolled)?;
    Ok((!is_taken(card, id)?).then_some(slot))
}

/// Whether a slot has a certificate, a key that can be attested, or (firmware 5.3) any key.
fn is_taken(card: &mut YubiKey, slot: SlotId) -> Result<bool, TokenError> {
    if Certificate::read(card, slot).is_ok() || piv::attest(card, slot).is_ok() {
        return Ok(true);
    }
    match piv::metadata(card, slot) {
        Ok(_) => Ok(true),
        Err(Error::NotFound | Error::NotSupported) => Ok(false),
        Err(error) => Err(in_use(card, error)),
    }
}

/// The retired slot whose certificate has this key.
fn find(card: &mut YubiKey, key: &PivKey) -> Result<Found, TokenError> {
    for slot in ShareSlot::all() {
        let id = slot.id().ok_or(TokenError::NotEnrolled)?;
        let certified = object::certified_key(card, id);
        if certified
            .and_then(|point| PivKey::from_sec1(&point))
            .as_ref()
            == Some(key)
        {
            return Ok(Found {
                key: key.clone(),
                slot,
                touch: touch(card, id)?,
            });
        }
    }
    // A token that was pulled out meanwhile has other troubles.
    Err(object::state(card).err().unwrap_or(TokenError::NoSuchKey))
}

/// When a key asks for a touch, as the token tells (firmware 5.3), or as its certificate does; if neither does, each
/// time: then more touches are announced than come.
fn touch(card: &mut YubiKey, slot: SlotId) -> Result<TouchPolicy, TokenError> {
    let told = match piv::metadata(card, slot) {
        Ok(metadata) => metadata.policy.map(|(_, touch)| u8::from(touch)),
        Err(Error::NotSupported) => object::certified_touch(card, slot),
        Err(error) => return Err(in_use(card, error)),
    };
    Ok(match told {
        Some(1) => TouchPolicy::Never,
        Some(3) => TouchPolicy::Cached,
        _ => TouchPolicy::Always,
    })
}
