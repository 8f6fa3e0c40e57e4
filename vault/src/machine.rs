//! What all machines share: the clocks they are given, and what a step answers.
//!
//! A machine takes itself, the time, what the verified documents say, and one event. It gives its
//! next state with an ordered list of effects, or a refusal. It has no clock, no randomness, no
//! cryptography and no I/O.
//!
//! # Invariants
//! 1. A refused event changes nothing: the state comes back as it went in.
//! 2. Time only ever counts forward: `ran` and `lived` never decrease, whatever the wall clock does.

use serde::{Deserialize, Serialize};

use crate::{refusal::Refusal, time::Time};

/// Milliseconds on one of the vault's own two clocks; comparable only with the same clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant and `span` later; far in the future at worst.
    #[must_use]
    pub fn after(self, span: u64) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// Milliseconds from `self` until `then`; 0 when it has passed.
    pub fn until(self, then: Self) -> u64 {
        then.0.saturating_sub(self.0)
    }
}

/// The clocks as read for one step.
///
/// `ran` counts running time of the vault since its founding: waiting times use it, so that an
/// outage cannot make anybody's waiting shorter. `lived` is `ran` and every positive downtime by
/// the wall clock: expiries and check-outs use it. Both are kept by the shell and stored each minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock; goes into log entries, decides nothing.
    pub wall: Time,
    /// Running time.
    pub ran: Millis,
    /// Running time and downtime.
    pub lived: Millis,
}

/// What a machine answers.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Step<M, E> {
    /// The next state; the old one, unchanged, when the event is refused.
    pub state: M,
    /// What to do, in this order; or why nothing is done.
    pub outcome: Result<Vec<E>, Refusal>,
}

impl<M, E> Step<M, E> {
    /// The event is taken: `state` follows, `effects` are to be carried out in order.
    pub fn take(state: M, effects: Vec<E>) -> Self {
        Self {
            state,
            outcome: Ok(effects),
        }
    }

    /// The event is refused.
    pub fn refuse(state: M, why: Refusal) -> Self {
        Self {
            state,
            outcome: Err(why),
        }
    }
}
