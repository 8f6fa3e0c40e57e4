//! What commits cost, for Prometheus.

use std::time::Duration;

use crate::metrics::{Counter, Histogram, Metrics};

/// What commits cost.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    commits: Counter,
    steps: Counter,
    took: Histogram,
}

impl Meter {
    /// Counts into these metrics.
    pub fn of(metrics: &Metrics) -> Self {
        Self {
            commits: metrics.counter(
                "keyturn_commits_total",
                "Transactions that were committed.",
                &[],
            ),
            steps: metrics.counter(
                "keyturn_committed_steps_total",
                "Steps in them: by the number of commits, the size of a batch.",
                &[],
            ),
            took: metrics.histogram("keyturn_commit_seconds", "Time of a commit.", &[]),
        }
    }

    /// A batch was committed.
    pub fn committed(&self, steps: usize, took: Duration) {
        self.commits.one();
        self.steps.add(u64::try_from(steps).unwrap_or(u64::MAX));
        self.took.observe(took);
    }
}
