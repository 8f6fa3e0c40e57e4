//! What all parts of a running daemon share.

use crate::{clock::Clock, health::Health, metrics::Metrics, peers::Peers, tally::Tally};

/// What all parts of a running daemon share; clones are the same.
#[derive(Clone, Debug)]
pub struct Shell {
    /// The one clock.
    pub clock: Clock,
    /// The one set of counters.
    pub metrics: Metrics,
    /// Who is known.
    pub peers: Peers,
    /// Whether it serves.
    pub health: Health,
    /// Refusals that the log does not have yet.
    pub tally: Tally,
}
