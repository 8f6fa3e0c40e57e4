//! Data objects and certificates on the token (NIST SP 800-73-4, part 1).

use keyturn_hsm::TokenError;
use yubikey::{Certificate, Error, ObjectId, YubiKey, piv::SlotId};

use crate::{mishap::in_use, record::State};

/// Most bytes of a profile; an object of 3 kB fits on every YubiKey.
pub const PROFILE_MAX: usize = 3000;

/// Ours, in the range that YubiKeys leave to programs.
const RECORD: ObjectId = 0x005f_4b54;
const PROFILE: ObjectId = 0x005f_4b55;
/// The certificate of the attestation key, as the factory wrote it.
const ATTESTER: ObjectId = 0x005f_ff01;
/// Yubico's extension with a key's PIN and touch policy.
const POLICY: &str = "1.3.6.1.4.1.41482.3.8";
/// Inside an object: a certificate.
const CERTIFICATE: u8 = 0x70;

/// What enrolment left, if anything that we know.
pub(crate) fn state(card: &mut YubiKey) -> Result<Option<State>, TokenError> {
    let bytes = read(card, RECORD)?;
    Ok(bytes.and_then(|bytes| State::parse(std::str::from_utf8(&bytes).ok()?)))
}

/// Needs the management key.
pub(crate) fn set_state(card: &mut YubiKey, state: &State) -> Result<(), TokenError> {
    write(card, RECORD, state.to_text().into_bytes())
}

pub(crate) fn profile(card: &mut YubiKey) -> Result<Option<Vec<u8>>, TokenError> {
    read(card, PROFILE)
}

/// Needs the management key.
pub(crate) fn set_profile(card: &mut YubiKey, profile: &[u8]) -> Result<(), TokenError> {
    if profile.len() > PROFILE_MAX {
        return Err(TokenError::TooMuch("profile on the token"));
    }
    write(card, PROFILE, profile.to_vec())
}

/// DER of the certificate in slot f9.
pub(crate) fn attester(card: &mut YubiKey) -> Result<Vec<u8>, TokenError> {
    let object = read(card, ATTESTER)?.unwrap_or_default();
    value(&object, CERTIFICATE)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| TokenError::Failed("no attestation certificate on the token".to_owned()))
}

/// The uncompressed point of the key in a slot's certificate.
pub(crate) fn certified_key(card: &mut YubiKey, slot: SlotId) -> Option<Vec<u8>> {
    let certificate = Certificate::read(card, slot).ok()?;
    Some(
        certificate
            .subject_pki()
            .subject_public_key
            .as_bytes()?
            .to_vec(),
    )
}

/// The touch policy that a slot's certificate tells, in Yubico's numbers: attestations do, and age-plugin-yubikey's
/// certificates by the same extension.
pub(crate) fn certified_touch(card: &mut YubiKey, slot: SlotId) -> Option<u8> {
    let certificate = Certificate::read(card, slot).ok()?;
    let extensions = certificate.cert.tbs_certificate().extensions()?;
    let policy = extensions
        .iter()
        .find(|extension| extension.extn_id.to_string() == POLICY)?;
    match policy.extn_value.as_bytes() {
        [_, touch] => Some(*touch),
        _ => None,
    }
}

fn read(card: &mut YubiKey, id: ObjectId) -> Result<Option<Vec<u8>>, TokenError> {
    match card.fetch_object(id) {
        Ok(bytes) => Ok((!bytes.is_empty()).then(|| bytes.to_vec())),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(in_use(card, error)),
    }
}

fn write(card: &mut YubiKey, id: ObjectId, mut bytes: Vec<u8>) -> Result<(), TokenError> {
    card.save_object(id, &mut bytes)
        .map_err(|error| in_use(card, error))
}

/// The value of the first element, if it has this tag; lengths as in ISO 7816-4.
pub(crate) fn value(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (length, rest) = match bytes {
        [found, short @ 0..=0x7f, rest @ ..] if *found == tag => (usize::from(*short), rest),
        [found, 0x81, length, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x82, high, low, rest @ ..] if *found == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_out() {
        for (name, bytes, want) in [
            ("short", &[0x70, 2, 7, 8, 9][..], Some(&[7, 8][..])),
            ("one byte of length", &[0x70, 0x81, 1, 7], Some(&[7])),
            ("two bytes of length", &[0x70, 0x82, 0, 1, 7], Some(&[7])),
            ("another tag", &[0x71, 1, 7], None),
            ("cut", &[0x70, 3, 7], None),
            ("empty", &[], None),
        ] {
            assert_eq!(value(bytes, 0x70), want, "{name}");
        }
    }
}
