//! From the second approval to the secret, beside the floor, in one run.

use std::time::Duration;

use keyturn_tests::Outcome;

use crate::{
    figures::{Section, Times, count, rate, time},
    floor::{self, Disk, Floor},
    place::{DEPTH, LANES, Place, Ready, race},
};

/// Rounds of [`DEPTH`] with one connection.
const ROUNDS_ALONE: usize = 24;
/// Rounds of [`DEPTH`] in each of [`LANES`] connections.
const ROUNDS_TOGETHER: usize = 6;

/// Times of one contender.
#[derive(Default)]
struct Score {
    times: Times,
    took: Duration,
}

impl Score {
    fn add(&mut self, (times, took): (Times, Duration)) {
        self.times.extend(&times);
        self.took += took;
    }

    fn rate(&self) -> f64 {
        rate(self.times.count(), self.took)
    }
}

/// One release, timed.
pub(crate) async fn go(ready: Ready) -> Result<Duration, String> {
    ready.go().await.map(|unsealed| unsealed.took)
}

/// The table.
pub(crate) async fn measure() -> Outcome<Vec<Section>> {
    let mut place = Place::new().await?;
    // Warms up, and shows how long the daemon's entries are.
    let mut like = None;
    for ready in place.prepare(1).await?.into_iter().flatten() {
        like = Some(ready.go().await?.release);
    }
    let like = like.ok_or("nothing is ready")?;
    let mut section = Section::new(
        "An unseal: second approval sent → secret received",
        "Daemon and floor are processes of their own; approval and submission were signed and encrypted before. \
         The floor does the same unavoidable work straight through, with no state: once with two commits of redb, once with two plain `fdatasync`. Ratios are to the floor with redb. \
         Rounds of daemon and floors alternate.",
        &[
            "",
            "p50",
            "p99",
            "per second",
            "p50 ÷ floor",
            "throughput ÷ floor",
        ],
    );
    for (lanes, rounds, name) in [
        (1, ROUNDS_ALONE, "1 connection"),
        (LANES, ROUNDS_TOGETHER, "8 connections"),
    ] {
        let (aside, dir) = (lanes > 1, tempfile::tempdir()?);
        let mut redb = Floor::new(Disk::Redb, aside, dir.path(), &like).await?;
        let mut plain = Floor::new(Disk::Plain, aside, dir.path(), &like).await?;
        let (mut daemon, mut on_redb, mut on_plain) = <(Score, Score, Score)>::default();
        for _ in 0..rounds {
            let ready = place.prepare(lanes).await?;
            // What was prepared is published by now, so that no round pays for it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            daemon.add(race(ready, go).await?);
            on_redb.add(race(redb.prepare(lanes, DEPTH).await?, floor::go).await?);
            on_plain.add(race(plain.prepare(lanes, DEPTH).await?, floor::go).await?);
        }
        let base = (on_redb.times.p50(), on_redb.rate());
        for (who, score) in [
            ("keyturnd", daemon),
            ("floor, redb", on_redb),
            ("floor, fdatasync", on_plain),
        ] {
            section.row([
                format!("{name}: {who}"),
                time(score.times.p50()),
                time(score.times.p99()),
                count(score.rate()),
                format!(
                    "{:.2}",
                    score.times.p50().as_secs_f64() / base.0.as_secs_f64()
                ),
                format!("{:.2}", score.rate() / base.1),
            ]);
        }
    }
    Ok(vec![section])
}
