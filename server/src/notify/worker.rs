//! Deliveries to one notifier: in order, again until they are taken, and given up in the end.

use std::time::Duration;

use tokio::sync::watch;

use super::{Channel, Failure};
use crate::{
    clock::Clock,
    mode::Mode,
    notice::Notice,
    owner::{Core, Needs, Txn, WeakOwner, outbox::Fate},
};

/// The first wait after a failure; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// The task of one notifier.
pub struct Worker {
    /// Its name.
    pub name: String,
    /// How it is told.
    pub channel: Channel,
    /// Where notices come from, and where it is reported what became of them.
    pub owner: WeakOwner,
    /// Grows when there is more.
    pub posted: watch::Receiver<u64>,
    /// The clock.
    pub clock: Clock,
    /// In restore mode nothing is written, so nothing is delivered from the outbox.
    pub mode: watch::Receiver<Mode>,
}

impl Worker {
    /// Runs until the daemon stops.
    pub async fn run(mut self) {
        let mut failures = 0_u32;
        if self.mode.wait_for(Mode::serves).await.is_err() {
            return;
        }
        loop {
            self.posted.mark_unchanged();
            let name = self.name.clone();
            let next = move |core: &mut Core, _: &mut Txn| Ok(core.next_letter(&name));
            let Ok(next) = self.owner.insist(Needs::nothing(), next).await else {
                return;
            };
            let Some((seq, notice)) = next else {
                if self.posted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let fate = match self.channel.send(&notice).await {
                Ok(()) => Fate::Delivered,
                Err(Failure::Later(why)) => Fate::Failed(why),
                Err(Failure::Never(why)) => Fate::Undelivered(why),
            };
            let failed = matches!(fate, Fate::Failed(_));
            let settle =
                move |core: &mut Core, txn: &mut Txn| core.settle_letter(txn, seq, fate.clone());
            if self.owner.insist(Needs::nothing(), settle).await.is_err() {
                return;
            }
            failures = if failed {
                failures.saturating_add(1)
            } else {
                0
            };
            if failed {
                self.clock.sleep(wait(failures, jitter())).await;
            }
        }
    }
}

/// Tells of what the store cannot be asked to keep: past the outbox, until it is taken or the daemon stops.
pub async fn directly(name: String, channel: Channel, notice: Notice, clock: Clock) {
    let mut failures = 0_u32;
    while let Err(problem) = channel.send(&notice).await {
        tracing::warn!(notifier = %name, %problem, "a notice was not taken");
        if matches!(problem, Failure::Never(_)) {
            return;
        }
        failures = failures.saturating_add(1);
        clock.sleep(wait(failures, jitter())).await;
    }
}

/// The wait after so many failures: from half of its length to the whole, by chance.
fn wait(failures: u32, jitter: u8) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let longest = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
    let part = longest.saturating_mul(u32::from(jitter)).checked_div(510);
    longest
        .checked_div(2)
        .unwrap_or_default()
        .saturating_add(part.unwrap_or_default())
}

fn jitter() -> u8 {
    let mut byte = [0];
    // Without chance all wait alike, and no worse.
    let _ = getrandom::fill(&mut byte);
    let [byte] = byte;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds() {
        for (failures, jitter, want_ms) in [
            (1, 0, 500),
            (1, u8::MAX, 1000),
            (2, 0, 1000),
            (5, u8::MAX, 16_000),
            (9, u8::MAX, 256_000),
            (10, u8::MAX, 300_000),
            (40, 0, 150_000),
            (u32::MAX, u8::MAX, 300_000),
        ] {
            let want = Duration::from_millis(want_ms);
            assert_eq!(wait(failures, jitter), want, "{failures} {jitter}");
        }
    }
}
