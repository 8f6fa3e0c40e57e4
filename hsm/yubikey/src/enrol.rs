//! Enrolment on the token: new PIN, PUK and management key where they are the factory's, then the two keys.
//!
//! # Invariants
//! 1. Only slots that were free, or that the person gave up, are written. Which these are is on the token before the
//!    first of them is, so that an interrupted enrolment knows them again.
//! 2. The management key is kept under the PIN *before* it takes force: at no moment does nobody know it.
//! 3. The record that makes the token an enrolled one is written last.
//! 4. A share key that another program made is used where it is: its slot is never written, neither now nor by an
//!    enrolment that is resumed or made anew.
//! 5. On firmware before 5.3 the token does not tell whether the PIN is the factory's. It is tried only while all
//!    tries are left, and the person's own PIN gives that try back. The PUK is changed before the PIN, so that a
//!    factory PIN means that the PUK was not looked at yet.

use getrandom::SysRng;
use keyturn_hsm::{
    ApprovalKey, Prompt, Question, TokenError,
    attestation::{Firmware, TouchPolicy},
};
use keyturn_seal::{SecretBytes, ShareKey, piv::PivKey};
use yubikey::{
    Certificate, Error, MgmKey, PinPolicy, YubiKey,
    certificate::CertInfo,
    piv::{self, AlgorithmId, ManagementSlotId, SlotId},
};
use zeroize::Zeroizing;

use crate::{
    YubiKeyToken,
    find::{self, firmware, serial},
    mishap::{in_use, mishap},
    object,
    pin::{Pin, is_well_formed, tries},
    record::{Made, Record, ShareSlot, State},
    slots::{Plan, plan},
};

/// The first firmware that attests.
const MIN_FIRMWARE: Firmware = Firmware(4, 3, 0);
const FACTORY_PIN: &[u8] = b"123456";
const FACTORY_PUK: &[u8] = b"12345678";
/// Tries of a token that nobody has mistyped a PIN on.
const ALL_TRIES: u8 = 3;
/// Where a management key under the PIN is kept, as Yubico's tools do: 88 { 89 { key } }.
const PRINTED: u32 = 0x005f_c109;
const PROTECTED: u8 = 0x88;
const MANAGEMENT_KEY: u8 = 0x89;

/// What is wanted of an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The YubiKey's serial number; none if it is the only one.
    pub serial: Option<u32>,
    /// The share key that another program made in a retired slot; none to make one.
    pub share: Option<PivKey>,
    /// The retired slot of a new share key; none for the first free one.
    pub slot: Option<ShareSlot>,
    /// When a new share key asks for a touch.
    pub touch: TouchPolicy,
    /// Keys in slot 9c and in the named slot may be overwritten, as may the keys of an earlier enrolment.
    pub overwrite: bool,
}

impl Default for Enrolment {
    fn default() -> Self {
        Self {
            serial: None,
            share: None,
            slot: None,
            touch: TouchPolicy::Cached,
            overwrite: false,
        }
    }
}

/// Makes the keys on the token. A token that is enrolled already is returned as it is, unless it may be overwritten;
/// an enrolment that was interrupted is finished.
pub fn enrol(wanted: &Enrolment, ui: &mut dyn Prompt) -> Result<YubiKeyToken, TokenError> {
    let mut card = find::open(wanted.serial)?;
    if firmware(&card) < MIN_FIRMWARE {
        return Err(TokenError::Firmware(firmware(&card).to_string()));
    }
    let state = object::state(&mut card)?;
    if let (Some(State::Enrolled(record)), false) = (&state, wanted.overwrite)
        && wanted.share.as_ref().is_none_or(|key| record.is_share(key))
    {
        return YubiKeyToken::new(card, Record::clone(record), Pin::Unasked);
    }
    let plan = plan(&mut card, wanted, state.as_ref())?;
    let pin = secure(&mut card, ui)?;
    let written = match &plan {
        Plan::Make(slot) => Some(*slot),
        Plan::Use(_) => None,
    };
    object::set_state(&mut card, &State::Begun(written))?;
    let record = make_keys(&mut card, plan, wanted.touch)?;
    object::set_state(&mut card, &State::Enrolled(Box::new(record.clone())))?;
    YubiKeyToken::new(card, record, Pin::Given(pin))
}

/// Replaces what every new token has. The PIN is given to the token, the management key proven.
fn secure(card: &mut YubiKey, ui: &mut dyn Prompt) -> Result<SecretBytes, TokenError> {
    let is_factory_pin =
        is_factory(card, ManagementSlotId::Pin)?.map_or_else(|| try_factory_pin(card), Ok)?;
    let is_factory_puk = is_factory(card, ManagementSlotId::Puk)?.unwrap_or(is_factory_pin);
    let serial = serial(card);
    let new_pin = if is_factory_pin {
        Some(choice(
            ui,
            &Question::NewPin { serial },
            FACTORY_PIN,
            "PIN",
        )?)
    } else {
        None
    };
    if is_factory_puk {
        let new_puk = choice(ui, &Question::NewPuk { serial }, FACTORY_PUK, "PUK")?;
        // Exposed to the token.
        match card.change_puk(FACTORY_PUK, new_puk.expose()) {
            Ok(()) => {}
            // Firmware before 5.3, and an interruption after this step: it is another already.
            Err(Error::WrongPin { .. }) if firmware(card) < Firmware(5, 3, 0) => {}
            Err(error) => return Err(in_use(card, error)),
        }
    }
    let mut pin = match new_pin {
        Some(pin) => {
            // Exposed to the token.
            card.change_pin(FACTORY_PIN, pin.expose())
                .map_err(|error| in_use(card, error))?;
            Pin::Given(pin)
        }
        None => Pin::Unasked,
    };
    pin.verify(card, ui)?;
    protect(card)?;
    match pin {
        Pin::Given(pin) => Ok(pin),
        Pin::Refused(error) => Err(error),
        Pin::Unasked => Err(TokenError::NotAnswered("no PIN".into())),
    }
}

/// What the token tells of a PIN, PUK or management key; `None` before firmware 5.3.
fn is_factory(card: &mut YubiKey, reference: ManagementSlotId) -> Result<Option<bool>, TokenError> {
    if firmware(card) < Firmware(5, 3, 0) {
        return Ok(None);
    }
    let metadata = piv::metadata(card, SlotId::Management(reference));
    metadata
        .map(|metadata| metadata.default)
        .map_err(|error| in_use(card, error))
}

/// Invariant 5.
fn try_factory_pin(card: &mut YubiKey) -> Result<bool, TokenError> {
    let tries = tries(card).map_err(mishap)?;
    if tries.is_some_and(|left| left < ALL_TRIES) {
        return Ok(false);
    }
    match card.verify_pin(FACTORY_PIN) {
        Ok(()) => Ok(true),
        Err(Error::WrongPin { .. }) => Ok(false),
        Err(error) => Err(in_use(card, error)),
    }
}

/// A new PIN or PUK, which must be another than the factory's.
fn choice(
    ui: &mut dyn Prompt,
    question: &Question,
    factory: &[u8],
    name: &'static str,
) -> Result<SecretBytes, TokenError> {
    let chosen = ui.ask(question)?;
    // Exposed to be compared with what everybody knows.
    if chosen.expose() == factory {
        Err(TokenError::FactoryDefault(name))
    } else if is_well_formed(&chosen) {
        Ok(chosen)
    } else {
        Err(TokenError::PinFormat)
    }
}

/// Proves the management key that is kept under the PIN.
pub(crate) fn authenticate(card: &mut YubiKey) -> Result<(), TokenError> {
    let kept = MgmKey::get_protected(card).map_err(|_| TokenError::ManagementKey)?;
    card.authenticate(&kept)
        .map_err(|_| TokenError::ManagementKey)
}

/// Proves the management key, after replacing the factory's by one of its own under the PIN.
fn protect(card: &mut YubiKey) -> Result<(), TokenError> {
    if authenticate(card).is_ok() {
        return Ok(());
    }
    let factory = MgmKey::get_default(card).map_err(mishap)?;
    card.authenticate(&factory).map_err(|error| {
        let error = in_use(card, error);
        if matches!(error, TokenError::Failed(_)) {
            TokenError::ManagementKey
        } else {
            error
        }
    })?;
    // There is one already if an interruption came between keeping it and giving it force.
    let new = if let Some(kept) = kept(card)? {
        kept
    } else {
        let new = MgmKey::generate_for(card, &mut SysRng).map_err(mishap)?;
        keep(card, &new)?;
        new
    };
    new.set_protected(card).map_err(|error| in_use(card, error))
}

/// The key that is kept under the PIN; an error if that object is another program's.
fn kept(card: &mut YubiKey) -> Result<Option<MgmKey>, TokenError> {
    match card.fetch_object(PRINTED) {
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(in_use(card, error)),
        Ok(object) if object.is_empty() => Ok(None),
        Ok(object) if object::value(&object, PROTECTED).is_some() => {
            Ok(MgmKey::get_protected(card).ok())
        }
        Ok(_) => Err(TokenError::Failed(
            "the printed information on this token is another program's".to_owned(),
        )),
    }
}

fn keep(card: &mut YubiKey, key: &MgmKey) -> Result<(), TokenError> {
    let key: &[u8] = key.as_ref();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).map_err(|_| TokenError::ManagementKey);
    let inner = Zeroizing::new([&[MANAGEMENT_KEY, length(key)?], key].concat());
    let mut object = Zeroizing::new([&[PROTECTED, length(&inner)?], inner.as_slice()].concat());
    card.save_object(PRINTED, &mut object)
        .map_err(|error| in_use(card, error))
}

/// Makes the keys, and leaves their attestations in the slots' certificates, where other tools look.
fn make_keys(card: &mut YubiKey, plan: Plan, touch: TouchPolicy) -> Result<Record, TokenError> {
    let always = yubikey::TouchPolicy::Always;
    let strange = || TokenError::Failed("the token made a key that is none".to_owned());
    let approval = make(card, SlotId::Signature, PinPolicy::Always, always)?;
    let approval = ApprovalKey::from_point(&approval).map_err(|_| strange())?;
    let (share, slot, touch, made) = match plan {
        Plan::Use(found) => (found.key, found.slot, found.touch, Made::Approval),
        Plan::Make(slot) => {
            let share_slot = slot.id().ok_or(TokenError::NotEnrolled)?;
            let touches = match touch {
                TouchPolicy::Never => yubikey::TouchPolicy::Never,
                TouchPolicy::Cached => yubikey::TouchPolicy::Cached,
                TouchPolicy::Always => always,
            };
            let point = make(card, share_slot, PinPolicy::Once, touches)?;
            let key = PivKey::from_sec1(&point).ok_or_else(strange)?;
            (key, slot, touch, Made::Both)
        }
    };
    Ok(Record {
        approval,
        share: ShareKey::Piv(share),
        slot,
        touch,
        made,
    })
}

/// Makes a key; the uncompressed point.
fn make(
    card: &mut YubiKey,
    slot: SlotId,
    pin: PinPolicy,
    touch: yubikey::TouchPolicy,
) -> Result<Vec<u8>, TokenError> {
    let spki = piv::generate(card, slot, AlgorithmId::EccP256, pin, touch);
    let spki = spki.map_err(|error| in_use(card, error))?;
    let leaf = piv::attest(card, slot).map_err(|error| in_use(card, error))?;
    let certificate = Certificate::from_bytes(leaf).map_err(mishap)?;
    certificate
        .write(card, slot, CertInfo::Uncompressed)
        .map_err(|error| in_use(card, error))?;
    Ok(spki.subject_public_key.raw_bytes().to_vec())
}
