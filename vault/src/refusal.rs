//! Why a machine refuses an event: one list, with stable codes and a way out for each.
//!
//! The code is what clients, exit codes and the log know; neither code nor meaning ever changes.
//! `hint()` says what to do next. The table below is the one that `docs/REFUSALS.md` shows.
//!
//! # Invariants
//! 1. Codes are unique, short, and made of lower-case letters and `-`.
//! 2. A refusal changes nothing and names no secret, no share and no free text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

macro_rules! refusals {
    ($($name:ident $code:literal $why:literal $hint:literal)*) => {
        /// Why an event is refused.
        #[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $(#[doc = concat!("`", $code, "`: ", $why, ".")] #[error($why)] $name,)*
        }

        impl Refusal {
            /// Every refusal, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name, as in the log and in `--json`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What to do next.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

refusals! {
    // Who
    NotRequester "not-requester" "this person is not a requester" "ask somebody with the role requester, or propose a charter that gives it"
    NotYours "not-yours" "only the requester of this ceremony may do this" "ask the requester"
    NotCustodian "not-custodian" "this person is not a custodian of a group that is asked" "see `keyturn status` for the custodians of the group"
    NotHolder "not-holder" "this custodian holds no share of what is asked" "another custodian must approve; reshare to include this one"
    UnknownToken "unknown-token" "the charter in force does not have this token with this approval key" "sign with an active token"
    NotOperator "not-operator" "this person is not an operator" "ask somebody with the role operator"
    // Approving
    SameCustodian "same-custodian" "this custodian has already approved; another custodian must" "ask another custodian to approve"
    SameToken "same-token" "another approval was made with this token or approval key" "sign with a token of your own"
    NotApproved "not-approved" "this custodian has no such approval or refusal here" "see the ceremony; approve first"
    SpentApproval "spent-approval" "this text no longer stands" "sign anew"
    WrongLines "wrong-lines" "the approval does not have one line for each version of the request" "approve again with this program"
    WrongShare "wrong-share" "this share is not the one that was sealed for this custodian" "check that this token belongs to this vault; then `keyturn doctor`"
    NotPromised "not-promised" "the approval does not name this share" "withdraw the approval and approve again"
    WrongRequest "wrong-request" "this was signed for another request" "look at the ceremony again and sign what is shown"
    RuleBroken "rule-broken" "a rule of the group forbids this approval here" "follow the rule, or make a request with a `waive:` line for it"
    // When
    Waiting "waiting" "the waiting time is not over; shares are taken after it" "stay connected, or come back when it is over"
    TooLate "too-late" "the time of this ceremony is over" "make a new request"
    Decided "decided" "this ceremony is already decided" "see its outcome; make a new request if needed"
    NotNow "not-now" "the ceremony is not in a state for this" "see `keyturn status`"
    NothingToFetch "nothing-to-fetch" "the released secret is no longer kept" "make a new request"
    // Opening a request
    TooManyOpen "too-many-open" "this requester has as many open requests as allowed" "withdraw one, or wait until it ends"
    KnownCeremony "known-ceremony" "this ceremony exists already" "make a new request"
    NotLive "not-live" "the request does not name every live version, as they are now" "make the request again"
    UnknownVersion "unknown-version" "a version of the request does not exist, or its manifest is another" "make the request again"
    Destroyed "destroyed" "a version of the request is destroyed" "leave it out"
    Unopenable "unopenable" "no version of the request that is current or proven can ever reach a quorum" "see `keyturn credential show`"
    UnknownCredential "unknown-credential" "there is no such credential" "see `keyturn credential list`"
    OldCharter "old-charter" "the request names another charter than the one in force" "make the request again"
    NoSuchGroup "no-such-group" "the request names a group to which the credential is not sealed" "name the group or the fallback group of the credential"
    NoSuchScenario "no-such-scenario" "the charter has no such scenario" "see `keyturn charter show`"
    NoTicket "no-ticket" "the scenario wants a ticket" "name it with `--ticket`, or add `waive: ticket`"
    NotCanary "not-canary" "a drill may open only canaries" "request an unseal, or name a canary"
    CheckedOut "checked-out" "somebody else has this credential checked out" "wait for the check-in, or add `waive: check-out`"
    CheckOutTooLong "check-out-too-long" "the check-out is longer than the policy allows" "ask for a shorter one; extend it later"
    ValidTooLong "valid-too-long" "the request is valid for longer than the policy allows" "ask for a shorter time"
    NotWaivable "not-waivable" "this rule cannot be waived" "leave the `waive:` line out"
    TooManyLines "too-many-lines" "the request has too many credentials or versions" "split it"
    WrongSubject "wrong-subject" "subject and purpose do not fit together" "make the request again"
    // Reviewing
    NotReviewer "not-reviewer" "this person is neither an auditor nor a member of the governing group" "ask an auditor"
    TookPart "took-part" "this person asked for it or approved it, and does not review it" "let somebody review it who had no part in it"
    // Check-outs
    NotOut "not-out" "this check-out has ended" "request the credential again"
    NotLonger "not-longer" "the new end is not later than the old one" "ask for a later end"
    NotDelivered "not-delivered" "this version was not delivered in this check-out" "name the version that worked"
    // Versions and rotation
    NextVersion "next-version" "the version does not follow the newest one" "seal again with the next number"
    Unproven "unproven" "this person already has an unproven version of this credential" "let it be proven by a login first: open it and `checkin --worked`"
    TooManyLive "too-many-live" "the credential already has four live versions" "open it, log in, and `checkin --worked` with the version that works"
    WrongRoster "wrong-roster" "the version is not sealed to the charter in force" "fetch the newest charter and seal again"
    Rotating "rotating" "a rotation is running" "wait for it; see `keyturn rotate list`"
    NotRunning "not-running" "no rotation step of this kind is running" "see `keyturn rotate list`"
    JustRotated "just-rotated" "the credential was rotated within the last hour" "wait, so that open requests can be approved"
    NotPaused "not-paused" "nothing is paused" "see `keyturn rotate list`"
    NotClaimable "not-claimable" "there is no such version, or it or the key is spoken for" "see `keyturn credential show` and the keys at the target"
    NotStuck "not-stuck" "the rotation does not need an operator" "see `keyturn rotate list`"
    NothingOwed "nothing-owed" "no rotation is owed that this version ends" "name the version that was deposited since; where none is owed, `keyturn credential deposit` is enough"
    NoConnector "no-connector" "the credential has no connector" "change it at the target and deposit the new secret"
    HasConnector "has-connector" "the credential has a connector, which rotates it" "see `keyturn rotate list`"
    SamePerson "same-person" "whoever deposited this version does not complete it" "let another operator look at the target, and complete it"
    NotPromotable "not-promotable" "this version is not a live one" "name a live version"
    // Charter and definitions
    Stale "stale" "the change was made for a charter or definition that is no longer in force" "propose it again"
    BrokenCharter "broken-charter" "the proposed charter breaks a rule of charters" "see the finding of `keyturn charter diff`"
    BrokenDefinition "broken-definition" "the proposed definition breaks a rule of definitions" "see the finding of `keyturn credential show`"
    NothingChanges "nothing-changes" "the proposal changes nothing" "change what `keyturn charter show --json` or `keyturn credential show --json` gives, and propose that"
    TooFewHolders "too-few-holders" "a live version would keep fewer holders than its quorum" "reshare first, or keep enough holders"
    NotJoined "not-joined" "the charter has a token that never joined" "let its owner run `keyturn join` first"
    WeakToken "weak-token" "a token that would hold shares does not meet a policy of the charter" "see `keyturn charter diff`; enrol a token that meets it, or change the policy in the same charter"
    PathTaken "path-taken" "this path belongs to another credential for ever" "choose another path"
    NotFounded "not-founded" "not every founder has joined" "let every founder run `keyturn join`"
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

/// A code that no refusal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the code of a refusal; a newer program may know it")
    }
}

impl std::error::Error for UnknownCode {}

impl FromStr for Refusal {
    type Err = UnknownCode;

    fn from_str(code: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|refusal| refusal.code() == code)
            .ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Refusal;

    #[test]
    fn codes_are_unique_and_plain_and_read_back() {
        let mut seen = BTreeSet::new();
        for refusal in Refusal::ALL {
            let code = refusal.code();
            assert!(seen.insert(code), "invariant 1: {code} twice");
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "invariant 1: {code}"
            );
            assert_eq!(code.parse(), Ok(*refusal), "{code}");
            assert!(
                !refusal.hint().is_empty() && !refusal.to_string().ends_with('.'),
                "{code}"
            );
        }
    }
}
