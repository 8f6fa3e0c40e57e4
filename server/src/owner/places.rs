//! What the vault's log says of a place for copies: that it went, came, or caught up; and what people are told
//! at once, because the only copy of a secret may be at stake.
//!
//! # Invariants
//! 1. A place makes at most one entry in [`BETWEEN`], however often it comes and goes.
//! 2. What is logged last is how the place is, once that is so for [`STEADY`].

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{Core, Needs, Txn, WeakOwner};
use crate::{
    copies::Status,
    notice::{Kind, Severity},
};

/// A place must be so for this long before it is logged.
pub const STEADY: Duration = Duration::from_secs(10);
/// The shortest time between two entries about one place.
pub const BETWEEN: Duration = Duration::from_mins(10);

/// Logs what becomes of a place, until it is no longer watched or the daemon stops.
pub async fn log(place: watch::Receiver<Status>, owner: WeakOwner) {
    let name = place.borrow().name.clone();
    let mut settled = Settled::of(place);
    while let Some(complete) = settled.next().await {
        let name = name.clone();
        let step = move |core: &mut Core, txn: &mut Txn| core.copies_changed(txn, &name, complete);
        if owner.insist(Needs::nothing(), step).await.is_err() {
            return;
        }
    }
}

/// Tells people when a place holds another history, until it is no longer watched or the daemon stops.
pub async fn alarm(mut place: watch::Receiver<Status>, owner: WeakOwner) {
    let mut known = Alarming::default();
    loop {
        let (name, seen) = {
            let status = place.borrow_and_update();
            (status.name.clone(), Alarming::of(&status))
        };
        for told in seen.beyond(known) {
            let name = name.clone();
            let step =
                move |core: &mut Core, txn: &mut Txn| core.tell_of_place(txn, told, Some(&name));
            if owner.insist(Needs::nothing(), step).await.is_err() {
                return;
            }
        }
        known = seen;
        if place.changed().await.is_err() {
            return;
        }
    }
}

/// What of a place's state people are told at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Alarming {
    foreign: bool,
    aside: usize,
}

impl Alarming {
    fn of(status: &Status) -> Self {
        Self {
            foreign: status.foreign,
            aside: status.aside,
        }
    }

    /// What is worse than before.
    fn beyond(self, before: Self) -> impl Iterator<Item = (Kind, Severity)> {
        let foreign = self.foreign && !before.foreign;
        let aside = self.aside > before.aside;
        let foreign = foreign.then_some((Kind::CopiesForeign, Severity::Alert));
        let aside = aside.then_some((Kind::CopiesAside, Severity::Alert));
        foreign.into_iter().chain(aside)
    }
}

/// What a place settles on, one after the other.
struct Settled {
    place: watch::Receiver<Status>,
    told: Option<bool>,
    /// When it was last told.
    at: Option<Instant>,
}

impl Settled {
    fn of(place: watch::Receiver<Status>) -> Self {
        Self {
            place,
            told: None,
            at: None,
        }
    }

    /// Whether it is complete, when that has become another; none when the place is no longer watched.
    async fn next(&mut self) -> Option<bool> {
        loop {
            let complete = self.place.borrow_and_update().complete;
            let since = self.at.map_or(Duration::MAX, |at| at.elapsed());
            let wait = STEADY.max(BETWEEN.saturating_sub(since));
            let pending = self.told != Some(complete);
            let place = &mut self.place;
            let gone = async move {
                let changed = place.wait_for(|status| status.complete != complete).await;
                changed.is_err()
            };
            tokio::select! {
                gone = gone => if gone {
                    return None;
                },
                () = tokio::time::sleep(wait), if pending => {
                    self.told = Some(complete);
                    self.at = Some(Instant::now());
                    return Some(complete);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn people_are_told_of_what_became_worse_and_once() {
        let state = |foreign, aside| Alarming { foreign, aside };
        for (before, now, want) in [
            (state(false, 0), state(false, 0), &[][..]),
            (state(false, 0), state(true, 0), &[Kind::CopiesForeign]),
            (state(true, 0), state(true, 0), &[]),
            (state(true, 0), state(false, 2), &[Kind::CopiesAside]),
            (state(false, 2), state(false, 1), &[]),
            (
                state(false, 1),
                state(true, 2),
                &[Kind::CopiesForeign, Kind::CopiesAside],
            ),
        ] {
            let told: Vec<_> = now.beyond(before).map(|(kind, _)| kind).collect();
            assert_eq!(told, want, "{before:?} {now:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flapping_place_makes_few_entries_and_the_last_is_true() {
        let place = watch::Sender::new(Status::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let mut settled = Settled::of(place.subscribe());
        let task = tokio::spawn(async move {
            while let Some(complete) = settled.next().await {
                log.lock().unwrap().push(complete);
            }
        });
        let becomes = async |complete: bool, after: Duration| {
            place.send_modify(|status| status.complete = complete);
            tokio::time::sleep(after).await;
        };
        becomes(true, 2 * STEADY).await;
        assert_eq!(*told.lock().unwrap(), [true]);
        for _ in 0..1000 {
            becomes(false, STEADY / 2).await;
            becomes(true, STEADY / 2).await;
        }
        assert_eq!(*told.lock().unwrap(), [true], "never steady");
        for _ in 0..30 {
            becomes(false, 2 * STEADY).await;
            becomes(true, 2 * STEADY).await;
        }
        // Twenty minutes of coming and going.
        assert!(told.lock().unwrap().len() <= 3, "invariant 1");
        becomes(false, 2 * BETWEEN).await;
        assert_eq!(told.lock().unwrap().last(), Some(&false), "invariant 2");
        drop(place);
        task.await.unwrap();
    }
}
