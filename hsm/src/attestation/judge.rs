//! Facts against what a policy demands.
//!
//! Both daemon and auditor judge; neither locks anybody out by itself. What does not meet a policy that became
//! stricter is listed, and the caller decides.

use std::fmt;

use super::{Attested, Firmware, PinPolicy, TouchPolicy};

/// The first firmware that EUCLEAK (YSA-2024-03) does not concern.
pub const EUCLEAK_FIXED: Firmware = Firmware(5, 7, 0);

/// PIV slot 9c, digital signature: the only one where PIN "always" is the standard's own rule.
pub const SIGNATURE_SLOT: u8 = 0x9c;

/// What a policy demands of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The oldest firmware that will do.
    pub min_firmware: Option<Firmware>,
    /// The approval key asks for the PIN each time, the share key at least once.
    pub pin: bool,
    /// The approval key asks for a touch each time, the share key at least a cached one.
    pub touch: bool,
    /// The serial number that the charter has.
    pub serial: Option<u32>,
}

impl Default for Requirement {
    fn default() -> Self {
        Self {
            min_firmware: None,
            pin: true,
            touch: true,
            serial: None,
        }
    }
}

/// A demand that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmet {
    /// The approval key is not in slot 9c.
    Slot(u8),
    /// The firmware is older than the policy allows.
    Firmware(Firmware),
    /// The approval key does not ask for the PIN each time.
    ApprovalPin,
    /// The approval key does not ask for a touch each time.
    ApprovalTouch,
    /// The share key never asks for the PIN.
    SharePin,
    /// The share key never asks for a touch.
    ShareTouch,
    /// The serial number is another than the charter's, or is not told.
    Serial(Option<u32>),
}

impl Unmet {
    /// The stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Slot(_) => "attested-slot",
            Self::Firmware(_) => "attested-firmware",
            Self::ApprovalPin => "attested-approval-pin",
            Self::ApprovalTouch => "attested-approval-touch",
            Self::SharePin => "attested-share-pin",
            Self::ShareTouch => "attested-share-touch",
            Self::Serial(_) => "attested-serial",
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "the approval key is in slot {slot:02x}, not 9c"),
            Self::Firmware(version) => {
                write!(f, "firmware {version} is older than the policy allows")
            }
            Self::ApprovalPin => f.write_str("the approval key does not ask for the PIN each time"),
            Self::ApprovalTouch => {
                f.write_str("the approval key does not ask for a touch each time")
            }
            Self::SharePin => f.write_str("the share key never asks for the PIN"),
            Self::ShareTouch => f.write_str("the share key never asks for a touch"),
            Self::Serial(Some(serial)) => write!(
                f,
                "the attested serial number is {serial}, not the enrolled one"
            ),
            Self::Serial(None) => f.write_str("the token does not tell its serial number"),
        }
    }
}

/// What somebody should know, though no policy forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The keys can be copied by somebody who holds and opens the token.
    Eucleak(Firmware),
}

impl Warning {
    /// The stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Eucleak(_) => "eucleak",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eucleak(version) => write!(
                f,
                "firmware {version}: with the token in hand and a laboratory, its keys can be copied \
                 (EUCLEAK, YSA-2024-03); firmware {EUCLEAK_FIXED} and later are not concerned"
            ),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Demands that are not met; empty if the token will do.
    pub unmet: Vec<Unmet>,
    /// What to tell anyway.
    pub warnings: Vec<Warning>,
}

/// Holds the facts against the demands.
pub fn judge(attested: &Attested, required: &Requirement) -> Judgement {
    let Attested { approval, share } = attested;
    let share_pin = share
        .as_ref()
        .is_none_or(|facts| facts.pin >= PinPolicy::Once);
    let share_touch = share
        .as_ref()
        .is_none_or(|facts| facts.touch >= TouchPolicy::Cached);
    let too_old = required
        .min_firmware
        .is_some_and(|oldest| approval.firmware < oldest);
    let other_serial = required
        .serial
        .is_some_and(|serial| approval.serial != Some(serial));
    let unmet = [
        (approval.slot != SIGNATURE_SLOT, Unmet::Slot(approval.slot)),
        (too_old, Unmet::Firmware(approval.firmware)),
        (
            required.pin && approval.pin != PinPolicy::Always,
            Unmet::ApprovalPin,
        ),
        (
            required.touch && approval.touch != TouchPolicy::Always,
            Unmet::ApprovalTouch,
        ),
        (required.pin && !share_pin, Unmet::SharePin),
        (required.touch && !share_touch, Unmet::ShareTouch),
        (other_serial, Unmet::Serial(approval.serial)),
    ];
    let warnings =
        (approval.firmware < EUCLEAK_FIXED).then_some(Warning::Eucleak(approval.firmware));
    Judgement {
        unmet: unmet
            .into_iter()
            .filter_map(|(is_unmet, what)| is_unmet.then_some(what))
            .collect(),
        warnings: warnings.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::Facts;

    fn good() -> Facts {
        Facts {
            slot: 0x9c,
            spki: vec![],
            serial: Some(1234),
            firmware: Firmware(5, 7, 4),
            pin: PinPolicy::Always,
            touch: TouchPolicy::Always,
            form_factor: None,
            root: [0; 32],
        }
    }

    fn share() -> Facts {
        Facts {
            slot: 0x82,
            pin: PinPolicy::Once,
            touch: TouchPolicy::Cached,
            ..good()
        }
    }

    #[test]
    fn each_demand_is_judged_by_itself() {
        let strict = Requirement {
            min_firmware: Some(Firmware(5, 2, 0)),
            serial: Some(1234),
            ..Requirement::default()
        };
        let old = Firmware(4, 3, 5);
        for (name, approval, share, want) in [
            ("all as it should be", good(), Some(share()), vec![]),
            ("share key elsewhere", good(), None, vec![]),
            (
                "approval key in 9a",
                Facts {
                    slot: 0x9a,
                    ..good()
                },
                None,
                vec![Unmet::Slot(0x9a)],
            ),
            (
                "old firmware",
                Facts {
                    firmware: old,
                    ..good()
                },
                None,
                vec![Unmet::Firmware(old)],
            ),
            (
                "PIN once",
                Facts {
                    pin: PinPolicy::Once,
                    ..good()
                },
                None,
                vec![Unmet::ApprovalPin],
            ),
            (
                "touch cached",
                Facts {
                    touch: TouchPolicy::Cached,
                    ..good()
                },
                None,
                vec![Unmet::ApprovalTouch],
            ),
            (
                "no PIN",
                good(),
                Some(Facts {
                    pin: PinPolicy::Never,
                    ..share()
                }),
                vec![Unmet::SharePin],
            ),
            (
                "no touch",
                good(),
                Some(Facts {
                    touch: TouchPolicy::Never,
                    ..share()
                }),
                vec![Unmet::ShareTouch],
            ),
            (
                "other serial",
                Facts {
                    serial: Some(1),
                    ..good()
                },
                None,
                vec![Unmet::Serial(Some(1))],
            ),
            (
                "no serial",
                Facts {
                    serial: None,
                    ..good()
                },
                None,
                vec![Unmet::Serial(None)],
            ),
        ] {
            assert_eq!(
                judge(&Attested { approval, share }, &strict).unmet,
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn firmware_before_5_7_is_warned_about() {
        for (firmware, warned) in [
            (Firmware(5, 6, 255), true),
            (Firmware(5, 7, 0), false),
            (Firmware(5, 7, 4), false),
        ] {
            let attested = Attested {
                approval: Facts { firmware, ..good() },
                share: None,
            };
            let judgement = judge(&attested, &Requirement::default());
            assert_eq!(
                judgement.warnings,
                warned
                    .then_some(Warning::Eucleak(firmware))
                    .into_iter()
                    .collect::<Vec<_>>()
            );
            assert_eq!(judgement.unmet, []);
        }
    }
}
