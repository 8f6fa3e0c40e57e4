//! The one clock of the daemon.
//!
//! Two times are told: what the wall clock says, which entries carry and which may jump, and the
//! running time, which only grows while the daemon runs, and by which it waits. Tests hold a clock of
//! their own and move both by hand.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use keyturn_vault::time::Time;
use tokio::sync::watch;

/// A clock; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    ByHand(Arc<watch::Sender<Reading>>),
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Time,
    running: Duration,
}

impl Clock {
    /// The clock of the system; running time begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one home of the system's clocks"
    )]
    pub fn system() -> Self {
        Self(Source::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands still until it is moved.
    pub fn by_hand(wall: Time) -> Self {
        let reading = Reading {
            wall,
            running: Duration::ZERO,
        };
        Self(Source::ByHand(Arc::new(watch::Sender::new(reading))))
    }

    /// What the wall clock says; a system clock before 1970 says 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one home of the system's clocks"
    )]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                Time::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Source::ByHand(reading) => reading.borrow().wall,
        }
    }

    /// How long this clock has run; never goes back.
    pub fn running(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::ByHand(reading) => reading.borrow().running,
        }
    }

    /// Waits until the running time has grown by `span`.
    pub async fn sleep(&self, span: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(span).await,
            Source::ByHand(reading) => {
                let until = self.running().saturating_add(span);
                // The sender lives as long as this clock: waiting cannot fail.
                drop(
                    reading
                        .subscribe()
                        .wait_for(|now| now.running >= until)
                        .await,
                );
            }
        }
    }

    /// Lets time go by, on the wall and running. Only on a clock by hand; a system clock stays as it is.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.turn(|reading| Reading {
            wall: Time::from_ms(reading.wall.ms().saturating_add(ms)),
            running: reading.running.saturating_add(span),
        });
    }

    /// Sets the wall clock alone, forward or back, as an administrator or NTP would.
    pub fn jump(&self, wall: Time) {
        self.turn(|reading| Reading { wall, ..reading });
    }

    fn turn(&self, change: impl FnOnce(Reading) -> Reading) {
        if let Source::ByHand(reading) = &self.0 {
            reading.send_modify(|now| *now = change(*now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = Time::from_ms(1_700_000_000_000);

    #[test]
    fn the_system_clock_goes_on() {
        let clock = Clock::system();
        assert!(clock.now() > NOON);
        let before = clock.running();
        clock.advance(Duration::from_hours(1));
        assert!(clock.running() >= before && clock.running() < Duration::from_mins(1));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_has_run_and_not_when_it_jumped() {
        let clock = Clock::by_hand(NOON);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        clock.jump(Time::from_ms(NOON.ms() + 3_600_000));
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(
            !sleeper.is_finished(),
            "9 seconds and a jump are not 10 seconds"
        );
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now().ms(), NOON.ms() + 3_610_000);
        assert_eq!(clock.running(), Duration::from_secs(10));
    }
}
