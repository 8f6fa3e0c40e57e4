//! Whom to seal to: a group's custodians and their tokens, as the caller took them from a verified charter.

use std::collections::HashSet;

use thiserror::Error;

use crate::{ShareKey, Threshold, ThresholdError, text::is_name};

/// The most tokens of one custodian.
pub const MAX_TOKENS: usize = 4;

/// A custodian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The person's id.
    pub person: String,
    /// The person's active tokens: 1 to 4.
    pub tokens: Vec<HolderToken>,
}

/// A custodian's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderToken {
    /// The token's id.
    pub id: String,
    /// The key that envelopes are encrypted to.
    pub key: ShareKey,
}

/// A group: k of its custodians, all different and with different keys. Custodian x is the x-th, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    group: String,
    threshold: Threshold,
    holders: Vec<Holder>,
}

/// Why a group cannot be sealed to. Persons and tokens are named by their ids.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RosterError {
    /// The group's name, or an id.
    #[error("{0:?} is not a name; use 1 to 500 printable ASCII characters and no space")]
    Name(String),
    /// k of n.
    #[error("the group's quorum is not possible")]
    Threshold(#[source] ThresholdError),
    /// No token, or more than [`MAX_TOKENS`].
    #[error("custodian {person} has {count} active tokens; 1 to {MAX_TOKENS} are needed")]
    Tokens {
        /// The custodian.
        person: String,
        /// How many.
        count: usize,
    },
    /// Two shares for one person.
    #[error("custodian {0} is named twice")]
    SamePerson(String),
    /// Two custodians (or tokens) with one key would be one.
    #[error("the share key of token {0} is another token's also; each token needs its own")]
    SameKey(String),
}

impl Roster {
    /// Parses a group.
    pub fn new(group: &str, k: u8, holders: Vec<Holder>) -> Result<Self, RosterError> {
        let threshold = Threshold::new(k, holders.len()).map_err(RosterError::Threshold)?;
        let (mut persons, mut keys) = (HashSet::new(), HashSet::new());
        named(group)?;
        for holder in &holders {
            named(&holder.person)?;
            if !(1..=MAX_TOKENS).contains(&holder.tokens.len()) {
                return Err(RosterError::Tokens {
                    person: holder.person.clone(),
                    count: holder.tokens.len(),
                });
            }
            if !persons.insert(&holder.person) {
                return Err(RosterError::SamePerson(holder.person.clone()));
            }
            for token in &holder.tokens {
                named(&token.id)?;
                if !keys.insert(&token.key) {
                    return Err(RosterError::SameKey(token.id.clone()));
                }
            }
        }
        Ok(Self {
            group: group.to_owned(),
            threshold,
            holders,
        })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// k of n.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The custodians; the first is x = 1.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }
}

fn named(name: &str) -> Result<(), RosterError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(RosterError::Name(name.chars().take(80).collect()))
    }
}
