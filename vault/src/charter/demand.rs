//! What policies demand of tokens, judged by the facts that a charter has of them.
//!
//! That the facts are true is for whoever has the maker's roots to check ([`Check::Attestation`]).
//! Here is only asked whether they are enough: by the quorum, for an approval; by a change of the
//! charter, for a token that comes to hold shares; by warnings, for those that hold some already.
//!
//! # Invariants
//! 1. A token that begins to hold shares meets every policy of its charter: shares of whatever policy
//!    may be sealed to it.
//! 2. A policy that becomes stricter turns no token away that held shares before: it is told, and a
//!    request may waive the rule.
//!
//! [`Check::Attestation`]: crate::check::Check::Attestation

use std::fmt;

use crate::charter::{
    Attestation, Charter, Firmware, PinPolicy, Policy, SlotFacts, Token, TouchPolicy, Waiver,
};
use crate::digest::Digest;
use crate::id::TokenId;
use crate::name::{PersonName, PolicyName};
use crate::reference::TokenKind;

/// What a policy demands and a token lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The keys are in a file.
    KeyFile,
    /// Its maker was not asked about it.
    Attestation,
    /// The approval key does not ask for the PIN each time.
    ApprovalPin,
    /// The approval key does not ask for a touch each time.
    ApprovalTouch,
    /// The share key never asks for the PIN.
    SharePin,
    /// The share key never asks for a touch.
    ShareTouch,
    /// Its firmware is older than the policy allows, or not attested.
    Firmware {
        /// What it has.
        has: Option<Firmware>,
        /// The oldest that will do.
        minimum: Firmware,
    },
}

impl Lack {
    /// The rule that is broken, as requests waive it.
    pub fn waiver(self) -> Waiver {
        match self {
            Self::Firmware { .. } => Waiver::Firmware,
            Self::KeyFile
            | Self::Attestation
            | Self::ApprovalPin
            | Self::ApprovalTouch
            | Self::SharePin
            | Self::ShareTouch => Waiver::Attestation,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile => f.write_str("its keys are in a file, which nobody attests"),
            Self::Attestation => {
                f.write_str("it is not attested; a key that was imported never is")
            }
            Self::ApprovalPin => f.write_str("its approval key does not ask for the PIN each time"),
            Self::ApprovalTouch => {
                f.write_str("its approval key does not ask for a touch each time")
            }
            Self::SharePin => f.write_str("its share key never asks for the PIN"),
            Self::ShareTouch => f.write_str("its share key never asks for a touch"),
            Self::Firmware {
                has: Some(has),
                minimum,
            } => write!(f, "its firmware {has} is older than {minimum}"),
            Self::Firmware { has: None, minimum } => {
                write!(f, "nobody attests that its firmware is {minimum} or later")
            }
        }
    }
}

/// A token that does not meet a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weak {
    /// Whose it is.
    pub person: PersonName,
    /// Which one.
    pub token: TokenId,
    /// The policy.
    pub policy: PolicyName,
    /// What it lacks.
    pub lack: Lack,
}

impl fmt::Display for Weak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            person,
            token,
            policy,
            lack,
        } = self;
        write!(
            f,
            "{person}'s token {token} does not meet policy {policy}: {lack}"
        )
    }
}

impl Attestation {
    /// The facts of an attestation. PIN and touch policy are in the maker's numbers: PIN 1 never, 2 once,
    /// 3 always; touch 1 never, 2 always, 3 cached. Nothing for other numbers.
    pub fn of(
        object: Digest,
        firmware: (u8, u8, u8),
        approval: [u8; 2],
        share: [u8; 2],
    ) -> Option<Self> {
        let (major, minor, patch) = firmware;
        Some(Self {
            object,
            firmware: Firmware {
                major,
                minor,
                patch,
            },
            approval: SlotFacts::of(approval)?,
            share: SlotFacts::of(share)?,
        })
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = |name, SlotFacts { pin, touch }: &SlotFacts| {
            let pin = match pin {
                PinPolicy::Never => "never",
                PinPolicy::Once => "once",
                PinPolicy::Always => "always",
            };
            let touch = match touch {
                TouchPolicy::Never => "never",
                TouchPolicy::Cached => "cached",
                TouchPolicy::Always => "always",
            };
            format!("{name} key PIN {pin} touch {touch}")
        };
        let [approval, share] = [slot("approval", &self.approval), slot("share", &self.share)];
        write!(f, "firmware {}, {approval}, {share}", self.firmware)
    }
}

impl SlotFacts {
    fn of([pin, touch]: [u8; 2]) -> Option<Self> {
        let pin = match pin {
            1 => PinPolicy::Never,
            2 => PinPolicy::Once,
            3 => PinPolicy::Always,
            _ => return None,
        };
        let touch = match touch {
            1 => TouchPolicy::Never,
            2 => TouchPolicy::Always,
            3 => TouchPolicy::Cached,
            _ => return None,
        };
        Some(Self { pin, touch })
    }
}

impl Policy {
    /// What this token lacks; nothing for one that will do.
    pub fn lacks(&self, token: &Token) -> Vec<Lack> {
        let facts = token.attestation.as_ref();
        let mut lacks = Vec::new();
        if self.require_attestation {
            lacks.extend(unguarded(token.kind, facts));
        }
        let has = facts.map(|facts| facts.firmware);
        let old = |minimum: &Firmware| has.is_none_or(|has| has < *minimum);
        if let Some(minimum) = self.minimum_firmware.filter(old) {
            lacks.push(Lack::Firmware { has, minimum });
        }
        lacks
    }
}

/// How the keys are not guarded as `require_attestation` wants it.
fn unguarded(kind: TokenKind, facts: Option<&Attestation>) -> Vec<Lack> {
    let Some(Attestation {
        approval, share, ..
    }) = facts
    else {
        return match kind {
            TokenKind::Software => vec![Lack::KeyFile],
            TokenKind::Yubikey => vec![Lack::Attestation],
        };
    };
    [
        (approval.pin < PinPolicy::Always, Lack::ApprovalPin),
        (approval.touch < TouchPolicy::Always, Lack::ApprovalTouch),
        (share.pin < PinPolicy::Once, Lack::SharePin),
        (share.touch < TouchPolicy::Cached, Lack::ShareTouch),
    ]
    .into_iter()
    .filter_map(|(given, lack)| given.then_some(lack))
    .collect()
}

impl Charter {
    /// What the policies would say of a token if it were to hold shares.
    pub fn lacks(&self, token: &Token) -> Vec<String> {
        let told = |policy: &Policy| {
            let lacks = policy.lacks(token).into_iter();
            let name = policy.name.clone();
            lacks
                .map(move |lack| format!("policy {name}: {lack}"))
                .collect::<Vec<_>>()
        };
        self.policies.iter().flat_map(told).collect()
    }

    /// Tokens of groups' members that do not meet a policy.
    pub fn weak_tokens(&self) -> Vec<Weak> {
        self.weak(|_, _| true)
    }

    /// The same for those that begin to hold shares with this charter (invariant 1).
    pub fn new_weak_tokens(&self, old: Option<&Self>) -> Vec<Weak> {
        let held = |person: &super::Person, token: &Token| {
            let same = |before: &super::Person| before.tokens.contains(token);
            old.is_some_and(|old| old.seats(person.id) && old.person(person.id).is_some_and(same))
        };
        self.weak(|person, token| !held(person, token))
    }

    fn weak(&self, which: impl Fn(&super::Person, &Token) -> bool) -> Vec<Weak> {
        let members = self.persons.iter().filter(|person| self.seats(person.id));
        let tokens =
            members.flat_map(|person| person.tokens.iter().map(move |token| (person, token)));
        let mut weak = Vec::new();
        for (person, token) in tokens.filter(|(person, token)| which(person, token)) {
            // Without any facts one sentence says it all.
            let most = if token.attestation.is_some() {
                usize::MAX
            } else {
                1
            };
            for policy in &self.policies {
                let lacks = policy.lacks(token).into_iter().take(most);
                weak.extend(lacks.map(|lack| Weak {
                    person: person.name.clone(),
                    token: token.id,
                    policy: policy.name.clone(),
                    lack,
                }));
            }
        }
        weak
    }

    /// Whether somebody is a member of a group.
    fn seats(&self, person: crate::id::PersonId) -> bool {
        self.groups
            .iter()
            .any(|group| group.members.contains(&person))
    }
}
