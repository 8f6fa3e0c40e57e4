//! A large vault: what an unseal costs as the log grows; how fast a daemon starts, and what it holds in memory.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    daemon::{Daemon, mib},
    figures::{Section, Times, instant, time},
    log,
    place::{Place, race},
    unseal::go,
};
use keyturn_audit::tree::Edge;
use keyturn_tests::{Outcome, Program, World};
use keyturnd::{
    rows::ENTRY_FORMAT,
    store::{Name, Outcome as Stored, RedbStore, Store as _, Txn},
};

/// Entries of the log at which an unseal is measured.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, log::ENTRIES];
/// Rounds of unseals at each size.
const ROUNDS: usize = 6;
/// Credentials of a large vault.
const CREDENTIALS: usize = 10_000;
/// Starts that are measured.
const STARTS: usize = 7;
/// Times that `status` is asked for after the first.
const STATUS: usize = 50;
/// Entries of one transaction.
const CHUNK: u64 = 2_000;
/// How long a daemon runs before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// Both tables.
pub(crate) async fn measure() -> Outcome<Vec<Section>> {
    let mut place = Place::new().await?;
    let mut growth = Section::new(
        "An unseal as the log grows",
        "One connection; second approval sent → secret received.",
        &["entries", "p50", "p99", "÷ at 1,000"],
    );
    let mut base = None;
    for size in SIZES {
        (place, ()) = place
            .stopped(async |vault| fill(&vault, size).await)
            .await?;
        place.published(size).await?;
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            let ready = place.prepare(1).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            times.extend(&race(ready, go).await?.0);
        }
        let base = base.get_or_insert(times.p50()).as_secs_f64();
        growth.row([
            crate::figures::count(f64::from(u32::try_from(size)?)),
            time(times.p50()),
            time(times.p99()),
            format!("{:.2}", times.p50().as_secs_f64() / base),
        ]);
    }
    place.credentials(CREDENTIALS).await?;
    place.published(log::ENTRIES).await?;
    (place, ()) = place.stopped(async |_| Ok(())).await?;
    let status = place.status(STATUS).await?;
    let world = place.halt()?;
    Ok(vec![growth, starts(&world, &status)?])
}

/// Brings the log of a stopped vault to this many entries.
async fn fill(vault: &Path, size: u64) -> Outcome<()> {
    let store = RedbStore::open(&vault.join("data/store.redb"))?;
    let head = store.get(&Name::Head.key()).await?;
    let mut edge = match head {
        Some((bytes, _)) => Edge::from_bytes(&bytes)?,
        None => Edge::new(),
    };
    while edge.size() < size {
        let from = edge.size();
        let entries = (from..(from + CHUNK).min(size)).map(log::entry);
        let entries = entries.collect::<Outcome<Vec<_>>>()?;
        edge = edge.append(&entries)?.into_edge();
        let mut txn = Txn::new().put(Name::Head.key(), edge.to_bytes());
        for (n, entry) in (from..).zip(entries) {
            txn = txn.put(
                Name::Entry(n).key(),
                [&[ENTRY_FORMAT], entry.as_slice()].concat(),
            );
        }
        if !matches!(store.txn(txn).await?, Stored::Committed(_)) {
            return Err("the store refused entries".into());
        }
    }
    store.close().await;
    Ok(())
}

/// Starts the daemon several times, each time after a clean stop.
fn starts(world: &World, (first, later): &(Times, Times)) -> Outcome<Section> {
    let mut section = Section::new(
        "A vault with 10,000 credentials and over 1,000,000 entries",
        "After a clean stop; from `execve` until a connection is accepted, by which time the vault is open. Memory is the \
         resident set, three seconds after the start and at its highest. The first `status` after a start reads every \
         credential; a later one those that have changed.",
        &["", "p50", "worst"],
    );
    let (mut took, mut resident, mut highest) = (Times::default(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = instant();
        let mut command = Command::new(Program::path("keyturnd")?);
        command.args(["run", "--config"]);
        let daemon = Daemon::start(command, world)?;
        took.push(begun.elapsed());
        std::thread::sleep(SETTLE);
        resident.push(daemon.memory("VmRSS:")?);
        highest.push(daemon.memory("VmHWM:")?);
    }
    section.row([
        "start".to_owned(),
        time(took.p50()),
        time(took.percentile(100)),
    ]);
    for (name, times) in [("first status", first), ("later status", later)] {
        section.row([
            name.to_owned(),
            time(times.p50()),
            time(times.percentile(100)),
        ]);
    }
    for (name, mut kib) in [("memory", resident), ("memory, highest", highest)] {
        kib.sort_unstable();
        let [half, last] =
            [kib.get(kib.len() / 2), kib.last()].map(|kib| kib.copied().unwrap_or(0));
        section.row([name.to_owned(), mib(half), mib(last)]);
    }
    Ok(section)
}
