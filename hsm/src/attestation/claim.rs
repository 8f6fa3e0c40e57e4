//! An attestation, held against what an enrolment or a charter says of a token.
//!
//! Daemon, client and auditor ask the same: is it true? Whether the truth is good enough (PIN, touch, firmware) is
//! the charter's policy to say, and judged where policies are.
//!
//! # Invariants
//! 1. What comes out is about the claimed keys on the claimed token, both made on it and unable to leave it.
//! 2. The approval key is in 9c, the only slot where PIN "always" is the standard's own rule; the share key is in a
//!    retired slot, which no other program uses to sign.

use std::ops::RangeInclusive;

use keyturn_seal::ShareKey;

use super::{Anchors, AttestationError, Bundle, Facts, Firmware, PinPolicy, TouchPolicy};
use crate::ApprovalKey;

/// The first firmware that EUCLEAK (YSA-2024-03) does not concern.
pub const EUCLEAK_FIXED: Firmware = Firmware(5, 7, 0);

/// PIV slot 9c, digital signature.
pub const SIGNATURE_SLOT: u8 = 0x9c;
/// The retired key management slots.
pub const RETIRED_SLOTS: RangeInclusive<u8> = 0x82..=0x95;

/// What is said of a token.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// Its approval key.
    pub approval: &'a ApprovalKey,
    /// Its share key.
    pub share: &'a ShareKey,
    /// The number printed on it.
    pub serial: u32,
}

/// What a document says of a token, as it is written there.
#[derive(Clone, Copy)]
pub struct Written<'a> {
    /// Its approval key, as DER.
    pub approval: &'a [u8],
    /// Its share key, as age writes it.
    pub share: &'a str,
    /// The number printed on it.
    pub serial: u32,
}

/// What its maker says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The approval key.
    pub approval: Facts,
    /// The share key.
    pub share: Facts,
}

/// Checks a stored object with an attestation against what a document says.
pub fn prove_object(
    object: &[u8],
    anchors: &Anchors,
    written: Written<'_>,
) -> Result<Proven, AttestationError> {
    let format = || AttestationError::Format;
    let text = std::str::from_utf8(object).map_err(|_| format())?;
    let approval = ApprovalKey::from_spki(written.approval).map_err(|_| format())?;
    let share = written.share.parse().map_err(|_| format())?;
    let claim = Claim {
        approval: &approval,
        share: &share,
        serial: written.serial,
    };
    prove(text, anchors, claim)
}

/// Checks an attestation in its stored form against a claim.
pub fn prove(text: &str, anchors: &Anchors, claim: Claim<'_>) -> Result<Proven, AttestationError> {
    let bundle = Bundle::parse(text)?;
    if bundle.share.is_none() {
        return Err(AttestationError::ShareNotAttested);
    }
    let attested = bundle.verify(anchors, claim.approval, claim.share)?;
    let share = attested.share.ok_or(AttestationError::ShareNotAttested)?;
    let approval = attested.approval;
    if approval.slot != SIGNATURE_SLOT {
        Err(AttestationError::ApprovalSlot(approval.slot))
    } else if !RETIRED_SLOTS.contains(&share.slot) {
        Err(AttestationError::ShareSlot(share.slot))
    } else if approval.serial != Some(claim.serial) {
        Err(AttestationError::Serial {
            attested: approval.serial,
            claimed: claim.serial,
        })
    } else {
        Ok(Proven { approval, share })
    }
}

impl Facts {
    /// PIN and touch policy, in the numbers that the certificate has.
    pub fn policy(&self) -> [u8; 2] {
        let pin = match self.pin {
            PinPolicy::Never => 1,
            PinPolicy::Once => 2,
            PinPolicy::Always => 3,
        };
        let touch = match self.touch {
            TouchPolicy::Never => 1,
            TouchPolicy::Always => 2,
            TouchPolicy::Cached => 3,
        };
        [pin, touch]
    }
}
