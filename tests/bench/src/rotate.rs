//! Rotating a whole vault after an incident: how long it takes beside what the target alone costs, and
//! what an unseal costs meanwhile.

use std::{io::Read as _, path::Path, process::Command, sync::Arc, time::Duration};

use keyturn_proto::v1;
use keyturn_tests::{Outcome, inside::Inside, slow::Slow, story::definition};
use keyturn_vault::jcs::Document as _;
use keyturnd::{
    clock::Clock,
    config::Config,
    connector::{Connectors, Shape},
};

use crate::{
    daemon::mib,
    figures::{Section, Times, count, instant, time},
    place::{Place, ROTATED, race},
    unseal::go,
};

/// The argument by which this program is the daemon.
pub(crate) const SERVE: &str = "rotate-daemon";
/// Credentials that are rotated, where nothing else is said.
pub(crate) const CREDENTIALS: usize = 10_000;
/// What each call to the target takes.
const ANSWERS_IN: Duration = Duration::from_millis(50);
/// Calls of a rotation that has a place: the secret is set, and tried.
const CALLS: u32 = 2;
/// Between two rounds of unseals meanwhile: what is opened stays checked out, and is not what is measured here.
const PAUSE: Duration = Duration::from_secs(4);
/// Rounds of unseals before.
const ROUNDS: usize = 3;
/// What the configuration says where it says nothing.
const CONCURRENT: u32 = 8;
/// A rotation that takes longer than this is a failure of the daemon.
const PATIENCE: Duration = Duration::from_hours(2);

/// The table.
pub(crate) async fn measure(credentials: usize) -> Outcome<Section> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SERVE);
    let (mut place, daemon) = Place::new().await?.served(command).await?;
    place.rotated_by("slow", credentials).await?;
    place.published(1).await?;
    let mut before = Times::default();
    for _ in 0..ROUNDS {
        before.extend(&race(place.prepare(1).await?, go).await?.0);
    }
    let resident = daemon.memory("VmRSS:")?;

    let many = u32::try_from(credentials)?;
    let floor = ANSWERS_IN * CALLS * many / CONCURRENT;
    let begun = instant();
    ask(&place, credentials).await?;
    let asked = begun.elapsed();
    let mut meanwhile = Times::default();
    let (mut highest, mut half) = (daemon.memory("VmRSS:")?, resident);
    let mut logged = Times::default();
    let (mut stop, mut stood) = (None, Duration::ZERO);
    loop {
        let left = left(&place).await?;
        if left == 0 {
            break;
        }
        meanwhile.extend(&race(place.prepare(1).await?, go).await?.0);
        highest = highest.max(daemon.memory("VmRSS:")?);
        logged.push(entry(&place, logged.count()).await?);
        // Half-way it is stopped, and goes on when nothing runs any more.
        if stop.is_none() && left <= credentials / 2 {
            half = daemon.memory("VmRSS:")?;
            let stopping = instant();
            stop = Some(stopped(&place).await?);
            stood = stopping.elapsed();
        }
        tokio::time::sleep(PAUSE.min(floor / 20)).await;
        if begun.elapsed() > PATIENCE {
            return Err("the rotations do not end".into());
        }
    }
    let took = begun.elapsed().saturating_sub(stood);
    let at_end = daemon.memory("VmRSS:")?;
    let said = daemon.end()?;
    let (set, busiest) = said.trim().split_once(' ').ok_or("it said nothing")?;
    let (set, busiest): (usize, u32) = (set.parse()?, busiest.parse()?);
    if set < credentials || busiest > CONCURRENT {
        return Err(format!("{set} of {many} were set, {busiest} at once").into());
    }
    let mut section = Section::new(
        "Rotating after an incident",
        format!(
            "{} credentials whose target answers every call in 50 ms, {CONCURRENT} at once, as the configuration has it. The floor is \
             what the target alone costs: credentials × {CALLS} calls (set, sign in) × 50 ms ÷ {CONCURRENT}; ending sessions and \
             evidence come on top and hold no place. Daemon and target are one process, people and the measuring another; memory is \
             the daemon's resident set. One connection requests, approves and opens every few seconds meanwhile. Half-way all is paused and \
             resumed; that time does not count.",
            count(f64::from(many))
        ),
        &["", "", "÷ floor"],
    );
    let ratio = |took: Duration| format!("{:.2}", took.as_secs_f64() / floor.as_secs_f64());
    let empty = String::new;
    for (name, value, ratio) in [
        ("floor", time(floor), ratio(floor)),
        ("all rotated", time(took), ratio(took)),
        ("all made due", time(asked), empty()),
        ("unseal before, p50", time(before.p50()), empty()),
        ("unseal meanwhile, p50", time(meanwhile.p50()), empty()),
        ("unseal meanwhile, p99", time(meanwhile.p99()), empty()),
        (
            "an entry in the log meanwhile, p50",
            time(logged.p50()),
            empty(),
        ),
        (
            "stopped half-way: until nothing runs",
            time(stop.unwrap_or_default()),
            empty(),
        ),
        ("memory before", mib(resident), empty()),
        ("memory half-way", mib(half), empty()),
        ("memory meanwhile, highest", mib(highest), empty()),
        ("memory at the end", mib(at_end), empty()),
    ] {
        section.row([name.to_owned(), value, ratio]);
    }
    Ok(section)
}

/// Serves a vault whose credentials are at a slow target, until its input ends; then says how many credentials the
/// target took a secret for, and how many calls it had at once.
pub(crate) fn serve(config: &Path) -> Outcome<()> {
    // As many threads as `keyturnd` has.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores + 1)
        .enable_all()
        .build()?;
    let config = Config::load(config)?;
    let target = Arc::new(Slow::new(ANSWERS_IN));
    let connectors = Connectors::default().with("slow", Shape::One(Arc::<Slow>::clone(&target)));
    let inside = runtime.block_on(Inside::serving(config, connectors, Clock::system()))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.block_on(inside.stop())?;
    println!("{} {}", target.rotated(), target.busiest());
    Ok(())
}

/// Makes all due, as `keyturn rotate now --all` does.
async fn ask(place: &Place, credentials: usize) -> Outcome<()> {
    let (mut after, mut made) = (String::new(), 0);
    loop {
        let request = v1::RotateNowRequest {
            r#match: format!("{ROTATED}**"),
            reason: "bench".to_owned(),
            page: Some(v1::PageRequest { size: 0, after }),
            ..v1::RotateNowRequest::default()
        };
        let reply = place
            .operator()
            .rotations()
            .now(request)
            .await?
            .into_inner();
        made += reply.made_due;
        after = reply.next_page;
        if after.is_empty() {
            break;
        }
    }
    if made == u64::try_from(credentials)? {
        Ok(())
    } else {
        Err(format!("{made} of {credentials} were made due").into())
    }
}

/// Adds a credential without a version: one entry in the log; gives how long that took.
async fn entry(place: &Place, number: usize) -> Outcome<Duration> {
    let definition = definition(&place.vault.facts, &format!("log/{number}"))?;
    let olga = place.vault.who("olga")?;
    let definition = Some(olga.sign_document(definition.to_bytes()?)?);
    let begun = instant();
    let add = v1::AddRequest { definition };
    place.operator().credentials().add(add).await?;
    Ok(begun.elapsed())
}

/// Pauses everything, waits until nothing runs, and lets it go on; gives how long it took to stand still.
async fn stopped(place: &Place) -> Outcome<Duration> {
    let pause = |for_secs| v1::PauseRequest {
        for_secs,
        credentials: Vec::new(),
    };
    let begun = instant();
    place.operator().rotations().pause(pause(3600)).await?;
    let running = async || {
        let status = place.operator().status().await?;
        Outcome::Ok(status.rotations.unwrap_or_default().running)
    };
    while running().await? > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    place.operator().rotations().pause(pause(0)).await?;
    Ok(took)
}

/// How many are not rotated yet.
async fn left(place: &Place) -> Outcome<usize> {
    let status = place.operator().status().await?;
    let counts = status.rotations.unwrap_or_default();
    if counts.needs_operator > 0 || counts.backing_off > 0 {
        return Err(format!("rotations failed: {counts:?}").into());
    }
    // Those of `bench/` that were opened have no connector and wait for people.
    Ok(usize::try_from(
        counts.due + counts.running - counts.manual,
    )?)
}
