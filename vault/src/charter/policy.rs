//! Policies, scenarios, and the rules in them that a request may waive.
//!
//! Absolute are the quorum, distinct persons and keys, and the roster: no policy speaks of them.
//! Everything here can be left out of a draft and has a default; a charter's bytes have it all.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::charter::condition::{Firmware, Hours, Network};
use crate::name::{Name, PolicyName, ScenarioName};
use crate::reference::ReferenceError;
use crate::time::{Span, Time};

/// The longest of a policy's spans but the maximum age.
pub const MAX_WAIT: Span = Span::from_days(400);
/// The longest wait for cosignatures.
pub const MAX_COSIGNATURE_WAIT: Span = Span::from_secs(60);
/// The most copies that a rotation can wait for.
pub const MAX_COPIES: u8 = 8;
/// The most hours, networks and notices of a policy, each.
pub const MAX_LISTED: usize = 32;

/// Rules for the credentials whose definitions name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// How long an open request waits for its quorum and shares, if it asks for no less.
    #[serde(default = "valid_for")]
    pub valid_for_secs: Span,
    /// How long after the quorum nothing is opened yet, so that somebody can object; 0 for at once.
    #[serde(default)]
    pub waiting_secs: Span,
    /// How long a check-out lasts when the request does not say.
    #[serde(default = "check_out")]
    pub check_out_secs: Span,
    /// The longest check-out that a request may ask for.
    #[serde(default = "check_out_max")]
    pub check_out_max_secs: Span,
    /// The longest check-out with all its extensions.
    #[serde(default = "extend_max")]
    pub extend_max_secs: Span,
    /// How long sessions opened with the old secret go on after a rotation.
    #[serde(default)]
    pub grace_secs: Span,
    /// How long a retired version can still be opened before it is destroyed.
    #[serde(default = "quarantine")]
    pub quarantine_secs: Span,
    /// The age at which a secret is rotated though nobody used it; 0 for never.
    #[serde(default = "rotate_max_age")]
    pub rotate_max_age_secs: Span,
    /// Must approvals come from tokens whose maker attests them?
    #[serde(default = "yes")]
    pub require_attestation: bool,
    /// The oldest firmware of a token that approves; none for any.
    #[serde(default)]
    pub minimum_firmware: Option<Firmware>,
    /// Must approvals come from different devices, none of them the requester's?
    #[serde(default)]
    pub different_devices: bool,
    /// May the requester be one of those who approve?
    #[serde(default)]
    pub requester_may_approve: bool,
    /// When credentials may be opened; empty for always.
    #[serde(default)]
    pub hours: Vec<Hours>,
    /// From where requests and approvals may come; empty for everywhere.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// How many witnesses' cosignatures are wanted before a release; 0 for none.
    #[serde(default)]
    pub cosignatures: u8,
    /// How long a release waits for them; it never waits longer.
    #[serde(default = "cosignature_wait")]
    pub cosignature_wait_secs: Span,
    /// Who is told about ceremonies: names of notices in the daemons' configuration.
    #[serde(default)]
    pub notices: BTreeSet<Name>,
    /// How many copies of a new version must exist before rotation changes the target, if the daemon's
    /// configuration asks for fewer.
    #[serde(default)]
    pub copies_min: u8,
}

const fn valid_for() -> Span {
    Span::from_hours(4)
}
const fn check_out() -> Span {
    Span::from_hours(2)
}
const fn check_out_max() -> Span {
    Span::from_hours(12)
}
const fn extend_max() -> Span {
    Span::from_days(3)
}
const fn quarantine() -> Span {
    Span::from_days(7)
}
const fn rotate_max_age() -> Span {
    Span::from_days(90)
}
const fn cosignature_wait() -> Span {
    Span::from_secs(5)
}
const fn yes() -> bool {
    true
}

impl Policy {
    /// The policy of this name with nothing but defaults.
    pub fn named(name: PolicyName) -> Self {
        Self {
            name,
            valid_for_secs: valid_for(),
            waiting_secs: Span::ZERO,
            check_out_secs: check_out(),
            check_out_max_secs: check_out_max(),
            extend_max_secs: extend_max(),
            grace_secs: Span::ZERO,
            quarantine_secs: quarantine(),
            rotate_max_age_secs: rotate_max_age(),
            require_attestation: yes(),
            minimum_firmware: None,
            different_devices: false,
            requester_may_approve: false,
            hours: Vec::new(),
            networks: Vec::new(),
            cosignatures: 0,
            cosignature_wait_secs: cosignature_wait(),
            notices: BTreeSet::new(),
            copies_min: 0,
        }
    }

    /// This policy as a scenario changes it.
    #[must_use]
    pub fn under(&self, scenario: &Scenario) -> Self {
        let mut policy = self.clone();
        policy.waiting_secs = scenario.waiting_secs.unwrap_or(policy.waiting_secs);
        policy.valid_for_secs = scenario.valid_for_secs.unwrap_or(policy.valid_for_secs);
        policy.check_out_secs = scenario.check_out_secs.unwrap_or(policy.check_out_secs);
        policy.check_out_max_secs = scenario
            .check_out_max_secs
            .unwrap_or(policy.check_out_max_secs);
        policy.cosignatures = scenario.cosignatures.unwrap_or(policy.cosignatures);
        policy.notices.extend(scenario.notices.iter().cloned());
        policy
    }

    /// Do the hours of this policy allow this time?
    pub fn open_at(&self, time: Time) -> bool {
        self.hours.is_empty() || self.hours.iter().any(|hours| hours.contain(time))
    }

    /// Do the networks of this policy allow this address?
    pub fn open_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty()
            || self
                .networks
                .iter()
                .any(|network| network.contains(address))
    }
}

/// A named emergency, which changes rules of the policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: ScenarioName,
    /// Replaces the policy's waiting time; none leaves it.
    #[serde(default)]
    pub waiting_secs: Option<Span>,
    /// Replaces the policy's validity; none leaves it.
    #[serde(default)]
    pub valid_for_secs: Option<Span>,
    /// Replaces the policy's check-out; none leaves it.
    #[serde(default)]
    pub check_out_secs: Option<Span>,
    /// Replaces the policy's longest check-out; none leaves it.
    #[serde(default)]
    pub check_out_max_secs: Option<Span>,
    /// Replaces the number of cosignatures wanted; none leaves it.
    #[serde(default)]
    pub cosignatures: Option<u8>,
    /// Must the request name a ticket?
    #[serde(default)]
    pub require_ticket: bool,
    /// Who is told beside those whom the policy names.
    #[serde(default)]
    pub notices: BTreeSet<Name>,
}

impl Scenario {
    /// The scenario of this name that changes nothing yet.
    pub fn named(name: ScenarioName) -> Self {
        Self {
            name,
            waiting_secs: None,
            valid_for_secs: None,
            check_out_secs: None,
            check_out_max_secs: None,
            cosignatures: None,
            require_ticket: false,
            notices: BTreeSet::new(),
        }
    }
}

/// A rule that a `waive:` line of a request may set aside, seen and signed by all who approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiver {
    /// Approvals by tokens that nobody attests.
    Attestation,
    /// A second check-out beside an ongoing one.
    CheckOut,
    /// Approvals from one device.
    Devices,
    /// Approvals by tokens with older firmware.
    Firmware,
    /// Opening outside the policy's hours.
    Hours,
    /// Requests and approvals from other networks.
    Networks,
    /// An approval by the requester.
    Requester,
    /// A quorum that is not of every team.
    Teams,
    /// A scenario's ticket.
    Ticket,
}

impl Waiver {
    /// All of them, in the order in which a `waive:` line lists them.
    pub const ALL: [Self; 9] = [
        Self::Attestation,
        Self::CheckOut,
        Self::Devices,
        Self::Firmware,
        Self::Hours,
        Self::Networks,
        Self::Requester,
        Self::Teams,
        Self::Ticket,
    ];

    /// Its name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestation => "attestation",
            Self::CheckOut => "check-out",
            Self::Devices => "devices",
            Self::Firmware => "firmware",
            Self::Hours => "hours",
            Self::Networks => "networks",
            Self::Requester => "requester",
            Self::Teams => "teams",
            Self::Ticket => "ticket",
        }
    }
}

impl fmt::Display for Waiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Waiver {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|waiver| waiver.name() == text);
        known.ok_or(ReferenceError("the name of a rule that can be waived"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waivers_are_listed_in_order() {
        assert!(
            Waiver::ALL
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[0].name() < pair[1].name())
        );
    }

    #[test]
    fn defaults_of_drafts_are_the_documented_ones() {
        let draft: Policy = serde_json::from_str(r#"{"name":"standard"}"#).unwrap();
        assert_eq!(draft, Policy::named("standard".parse().unwrap()));
        let scenario: Scenario = serde_json::from_str(r#"{"name":"fire"}"#).unwrap();
        assert_eq!(scenario, Scenario::named("fire".parse().unwrap()));
    }
}
