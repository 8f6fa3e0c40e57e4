//! The chain of charters, from the genesis digest that daemons and clients have pinned.
//!
//! Structure only: whether a change was agreed to is the business of the `change` machine and of
//! the signatures in the log.
//!
//! # Invariants
//! 1. Charter 1 has the pinned digest; every later one names its predecessor's digest and origin.
//! 2. An id that ever named a key of a token, a device or a node never names another, and a token
//!    or device never changes its owner.
//! 3. A charter names as many joins as it adds tokens.
//! 4. What a restore puts in force changes the newest charter's log key and nodes, and nothing else;
//!    the charter as it was before verifies what was signed before.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::charter::{Charter, CharterError};
use crate::digest::Digest;
use crate::jcs::{Document as _, JcsError};
use crate::reference::CharterRef;
use crate::restore::RestoreDocument;

/// Why a charter does not follow another.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not a charter.
    #[error("the charter cannot be read")]
    Jcs(#[source] JcsError),
    /// Not valid by itself.
    #[error("the charter is not valid")]
    Invalid(#[source] CharterError),
    /// The first charter is not the pinned one.
    #[error("the first charter is {found}, and {pinned} is pinned")]
    Genesis {
        /// What it is.
        found: Digest,
        /// What it should be.
        pinned: Digest,
    },
    /// Another vault's charter.
    #[error("the charter is of another vault")]
    Origin,
    /// Not the next number.
    #[error("the charter has number {found}; the next one is {next}")]
    Index {
        /// Its number.
        found: u64,
        /// The number it should have.
        next: u64,
    },
    /// Another predecessor: a fork, or a change whose base is no longer in force.
    #[error("the charter does not name the one in force as its previous one")]
    Previous,
    /// An id names another key, or another owner's token or device, than before.
    #[error("the id {id} has named another key or another person's before; give a new id")]
    IdReused {
        /// The id.
        id: String,
    },
    /// Not one join for each new token.
    #[error("the charter adds {tokens} tokens and names {joins} joins; each new token has one")]
    Joins {
        /// Tokens that it adds.
        tokens: usize,
        /// Joins that it names.
        joins: usize,
    },
}

/// What an id stands for, for ever: the owner and the key.
type Meanings = BTreeMap<String, String>;

/// Charters 1 to the newest.
#[derive(Clone, Debug)]
pub struct Chain {
    charters: Vec<(Digest, Charter)>,
    /// Charters as they were before a restore gave them other keys, oldest first.
    former: Vec<(CharterRef, Charter)>,
    meanings: Meanings,
}

impl Chain {
    /// Begins with the bytes of charter 1, whose digest is pinned.
    pub fn begin(bytes: &[u8], pinned: Digest) -> Result<Self, ChainError> {
        let found = Digest::of(bytes);
        if found != pinned {
            return Err(ChainError::Genesis { found, pinned });
        }
        let charter = read(bytes)?;
        if charter.index != 1 {
            return Err(ChainError::Index {
                found: charter.index,
                next: 1,
            });
        }
        let meanings = meanings(&charter).collect();
        Ok(Self {
            charters: vec![(found, charter)],
            former: Vec::new(),
            meanings,
        })
    }

    /// Adds the bytes of the next charter. On an error nothing changes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ChainError> {
        let charter = read(bytes)?;
        if let Some((digest, newest)) = self.charters.last() {
            charter.follows(newest, *digest)?;
        }
        for (id, meaning) in meanings(&charter) {
            if self
                .meanings
                .get(&id)
                .is_some_and(|known| *known != meaning)
            {
                return Err(ChainError::IdReused { id });
            }
        }
        self.meanings.extend(meanings(&charter));
        self.charters.push((Digest::of(bytes), charter));
        Ok(())
    }

    /// Puts the keys of an accepted restore in force (invariant 4). On an error nothing changes.
    pub fn restore(&mut self, document: &RestoreDocument) -> Result<(), ChainError> {
        let Some((digest, newest)) = self.charters.last_mut() else {
            return Err(ChainError::Previous);
        };
        if document.origin != newest.origin {
            return Err(ChainError::Origin);
        }
        let newest_ref = reference(*digest, newest);
        if document.charter != newest_ref {
            return Err(ChainError::Previous);
        }
        if let Some(node) = &document.node {
            let (id, meaning) = (node.id.to_string(), node.key.to_string());
            if self.meanings.contains_key(&id) {
                return Err(ChainError::IdReused { id });
            }
            self.meanings.insert(id, meaning);
        }
        let restored = document.applied_to(newest);
        self.former
            .push((newest_ref, std::mem::replace(newest, restored)));
        Ok(())
    }

    /// The charter of this reference: as it is now, then as it was before each restore.
    pub fn meant(&self, wanted: CharterRef) -> impl Iterator<Item = &Charter> {
        let before = self.former.iter().rev();
        let before = before.filter(move |(found, _)| *found == wanted);
        self.find(&wanted)
            .into_iter()
            .chain(before.map(|(_, charter)| charter))
    }

    /// Every charter that was ever in force, newest first.
    pub fn all(&self) -> impl Iterator<Item = &Charter> {
        let references = self.charters.iter().rev();
        references.flat_map(|(digest, charter)| self.meant(reference(*digest, charter)))
    }

    /// The digest of charter 1.
    pub fn genesis(&self) -> Option<Digest> {
        self.charters.first().map(|(digest, _)| *digest)
    }

    /// The newest charter.
    pub fn newest(&self) -> Option<(CharterRef, &Charter)> {
        self.charters
            .last()
            .map(|(digest, charter)| (reference(*digest, charter), charter))
    }

    /// The charter of this number.
    pub fn at(&self, index: u64) -> Option<(CharterRef, &Charter)> {
        let place = usize::try_from(index.checked_sub(1)?).ok()?;
        self.charters
            .get(place)
            .map(|(digest, charter)| (reference(*digest, charter), charter))
    }

    /// The charter of this reference, if it is in the chain.
    pub fn find(&self, wanted: &CharterRef) -> Option<&Charter> {
        self.at(wanted.index)
            .filter(|(found, _)| found == wanted)
            .map(|(_, charter)| charter)
    }
}

impl Charter {
    /// Does it follow `old`, whose bytes have this digest? Both are valid by themselves.
    pub fn follows(&self, old: &Self, digest: Digest) -> Result<(), ChainError> {
        if self.origin != old.origin {
            return Err(ChainError::Origin);
        }
        let next = old.index.saturating_add(1);
        if self.index != next {
            return Err(ChainError::Index {
                found: self.index,
                next,
            });
        }
        if self.previous != Some(digest) {
            return Err(ChainError::Previous);
        }
        let before: Meanings = meanings(old).collect();
        for (id, meaning) in meanings(self) {
            if before.get(&id).is_some_and(|known| *known != meaning) {
                return Err(ChainError::IdReused { id });
            }
        }
        let tokens = self.persons.iter().flat_map(|person| &person.tokens);
        let added = tokens
            .filter(|token| old.person_of_token(token.id).is_none())
            .count();
        if added != self.joins.len() {
            return Err(ChainError::Joins {
                tokens: added,
                joins: self.joins.len(),
            });
        }
        Ok(())
    }

    /// Whether it says anything else than the charter before it.
    pub fn changes(&self, old: &Self) -> bool {
        let renewed = Self {
            index: old.index,
            previous: old.previous,
            joins: old.joins.clone(),
            restored: old.restored,
            ..self.clone()
        };
        renewed != *old
    }

    /// The digest of its document, and its number; a restore changes neither.
    pub fn reference(&self) -> Result<CharterRef, JcsError> {
        let digest = match self.restored {
            Some(digest) => digest,
            None => Digest::of(&self.to_bytes()?),
        };
        Ok(reference(digest, self))
    }
}

fn reference(digest: Digest, charter: &Charter) -> CharterRef {
    CharterRef {
        index: charter.index,
        digest,
    }
}

fn read(bytes: &[u8]) -> Result<Charter, ChainError> {
    let charter = Charter::from_bytes(bytes).map_err(ChainError::Jcs)?;
    charter.validate().map_err(ChainError::Invalid)?;
    Ok(charter)
}

/// What each id of tokens, devices and nodes stands for.
fn meanings(charter: &Charter) -> impl Iterator<Item = (String, String)> {
    let tokens = charter.persons.iter().flat_map(|person| {
        person.tokens.iter().map(|token| {
            let keys = (&token.approval_key, &token.share_key);
            (
                token.id.to_string(),
                format!("{} {} {} {}", person.id, token.reference(), keys.0, keys.1),
            )
        })
    });
    let devices = charter.persons.iter().flat_map(|person| {
        person.devices.iter().map(|device| {
            (
                device.id.to_string(),
                format!("{} {}", person.id, device.key),
            )
        })
    });
    let nodes = charter
        .nodes
        .iter()
        .map(|node| (node.id.to_string(), node.key.to_string()));
    tokens.chain(devices).chain(nodes)
}
