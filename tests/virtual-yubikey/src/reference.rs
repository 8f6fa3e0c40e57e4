//! PIN and PUK: eight bytes, compared, counted, blocked.

use crate::apdu::{Status, status};

/// Tries of a new token.
const TRIES: u8 = 3;

/// A PIN or a PUK with its counter.
pub(crate) struct Reference {
    value: [u8; 8],
    factory: [u8; 8],
    tries: u8,
    max: u8,
}

impl Reference {
    pub(crate) fn new(factory: [u8; 8]) -> Self {
        Self {
            value: factory,
            factory,
            tries: TRIES,
            max: TRIES,
        }
    }

    /// Compares; a wrong one costs a try.
    pub(crate) fn check(&mut self, given: &[u8]) -> Result<(), Status> {
        if self.tries == 0 {
            return Err(status::BLOCKED);
        }
        if given == self.value {
            self.tries = self.max;
            return Ok(());
        }
        self.tries = self.tries.saturating_sub(1);
        Err(if self.tries == 0 {
            status::BLOCKED
        } else {
            status::tries(self.tries)
        })
    }

    /// Takes a new value and gives back all tries.
    pub(crate) fn set(&mut self, value: [u8; 8]) {
        self.value = value;
        self.tries = self.max;
    }

    /// Sets the counter's start, which also brings back the factory's value.
    pub(crate) fn set_max(&mut self, max: u8) {
        *self = Self {
            value: self.factory,
            factory: self.factory,
            tries: max,
            max,
        };
    }

    pub(crate) fn reset(&mut self) {
        self.set_max(TRIES);
    }

    pub(crate) fn tries(&self) -> u8 {
        self.tries
    }

    pub(crate) fn max(&self) -> u8 {
        self.max
    }

    pub(crate) fn is_factory(&self) -> bool {
        self.value == self.factory
    }
}
