//! A large vault: what an unseal costs as the log grows; how fast a daemon starts, and what it holds in memory.

use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use keyturn_audit::tree::Edge;
use keyturn_tests::{Outcome, Program, World};
use keyturnd::{
    rows::ENTRY_FORMAT,
    store::{Name, Outcome as Stored, RedbStore, Store as _, Txn},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    figures::{Section, Times, instant, time},
    log,
    place::{Place, race},
    unseal::go,
};

/// Entries of the log at which an unseal is measured.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, log::ENTRIES];
/// Rounds of unseals at each size.
const ROUNDS: usize = 6;
/// Credentials of a large vault.
const CREDENTIALS: usize = 10_000;
/// Starts that are measured.
const STARTS: usize = 7;
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
    let world = place.halt()?;
    Ok(vec![growth, starts(&world)?])
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
fn starts(world: &World) -> Outcome<Section> {
    let mut section = Section::new(
        "A vault with 10,000 credentials and over 1,000,000 entries",
        "After a clean stop; from `execve` until a connection is accepted, by which time the vault is open. Memory is the \
         resident set, three seconds after the start and at its highest.",
        &["", "p50", "worst"],
    );
    let (mut took, mut resident, mut highest) = (Times::default(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = instant();
        let mut daemon = Daemon::start(world)?;
        while TcpStream::connect(daemon.address).is_err() {
            if daemon.child.try_wait()?.is_some() {
                return Err("the daemon ended".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
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
    for (name, mut kib) in [("memory", resident), ("memory, highest", highest)] {
        kib.sort_unstable();
        let mib = |kib: Option<&u32>| {
            format!("{:.1} MiB", kib.map_or(0.0, |kib| f64::from(*kib) / 1024.0))
        };
        section.row([
            name.to_owned(),
            mib(kib.get(kib.len() / 2)),
            mib(kib.last()),
        ]);
    }
    Ok(section)
}

/// A daemon that is stopped when this is dropped.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start(world: &World) -> Outcome<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(world.folder().join("keyturnd.log"))?;
        let mut command = Command::new(Program::path("keyturnd")?);
        command
            .arg("run")
            .arg("--config")
            .arg(world.vault().join("keyturnd.toml"));
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self {
            child: command.spawn()?,
            address: world.address(),
        })
    }

    /// A figure of `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> Outcome<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.ok_or("no such figure")?.parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Already gone is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
