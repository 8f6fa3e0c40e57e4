//! What is allowed in a charter, and should be told loudly.

use std::fmt;

use crate::charter::{Charter, Firmware, Role, Weak};
use crate::id::GroupName;
use crate::name::PersonName;
use crate::reference::TokenKind;

/// Firmware below this can be cloned by somebody who holds the token (EUCLEAK, YSA-2024-03).
pub const CLONABLE_BELOW: Firmware = Firmware {
    major: 5,
    minor: 7,
    patch: 0,
};

/// Something that works, and may be regretted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A group whose quorum is everybody.
    NoSpare(GroupName),
    /// A custodian of one token only.
    OneToken(PersonName),
    /// A custodian whose keys are in a file.
    Software(PersonName),
    /// A hardware token whose maker nobody asked.
    Unattested(PersonName),
    /// A hardware token that can be cloned.
    Clonable(PersonName, Firmware),
    /// A token that holds shares and does not meet a policy.
    Weak(Weak),
    /// Nobody can ask for anything.
    NoRequester,
    /// Nobody reads the log by duty.
    NoAuditor,
    /// Nobody else sees the log's checkpoints.
    NoWitness,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpare(group) => write!(
                f,
                "group {group} needs everybody: one lost token closes its credentials for ever"
            ),
            Self::OneToken(person) => write!(f, "{person} has no spare token"),
            Self::Software(person) => write!(f, "{person} has a key file, which can be copied"),
            Self::Unattested(person) => write!(f, "{person} has a token that nobody attests"),
            Self::Clonable(person, firmware) => write!(
                f,
                "{person} has a token with firmware {firmware}; below {CLONABLE_BELOW} it can be \
                 cloned by whoever holds it (EUCLEAK)"
            ),
            Self::Weak(weak) => write!(f, "{weak}"),
            Self::NoRequester => f.write_str("nobody is a requester: nothing can be opened"),
            Self::NoAuditor => f.write_str("nobody is an auditor"),
            Self::NoWitness => f.write_str(
                "there is no witness: only saved checkpoints show a log that was rewritten",
            ),
        }
    }
}

impl Charter {
    /// What is allowed here, and should be told loudly.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let no_spare = self
            .groups
            .iter()
            .filter(|group| usize::from(group.k) >= group.n());
        warnings.extend(no_spare.map(|group| Warning::NoSpare(group.name.clone())));
        for person in self
            .persons
            .iter()
            .filter(|person| person.has(Role::Custodian))
        {
            let name = || person.name.clone();
            if person.tokens.len() == 1 {
                warnings.push(Warning::OneToken(name()));
            }
            for token in &person.tokens {
                match (token.kind, &token.attestation) {
                    (TokenKind::Software, _) => warnings.push(Warning::Software(name())),
                    (TokenKind::Yubikey, None) => warnings.push(Warning::Unattested(name())),
                    (TokenKind::Yubikey, Some(facts)) if facts.firmware < CLONABLE_BELOW => {
                        warnings.push(Warning::Clonable(name(), facts.firmware));
                    }
                    (TokenKind::Yubikey, Some(_)) => {}
                }
            }
        }
        warnings.extend(self.weak_tokens().into_iter().map(Warning::Weak));
        let nobody = |role| !self.persons.iter().any(|person| person.has(role));
        let general = [
            (nobody(Role::Requester), Warning::NoRequester),
            (nobody(Role::Auditor), Warning::NoAuditor),
            (self.witnesses.is_empty(), Warning::NoWitness),
        ];
        warnings.extend(
            general
                .into_iter()
                .filter(|(given, _)| *given)
                .map(|(_, warning)| warning),
        );
        warnings
    }
}
