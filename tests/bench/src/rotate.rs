//! Rotating a whole vault after an incident: how long it takes beside what the target alone costs, and
//! what an unseal costs meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use keyturn_proto::v1;
use keyturn_seal::SecretBytes;
use keyturn_tests::Outcome;
use keyturnd::connector::{
    About, Attempt, Connector, Connectors, Evidence, Failure, OneSlot, Rules, RulesError, Shape,
    Target,
};
use tonic::async_trait;

use crate::{
    figures::{Section, Times, count, instant, time},
    place::{Place, ROTATED, race},
    unseal::go,
};

/// Credentials that are rotated, where nothing else is said.
pub(crate) const CREDENTIALS: usize = 10_000;
/// What each call to the target takes.
const ANSWERS_IN: Duration = Duration::from_millis(50);
/// Calls of a rotation that has a place: the secret is set, and tried.
const CALLS: u32 = 2;
/// Rounds of unseals before.
const ROUNDS: usize = 3;
/// What the configuration says where it says nothing.
const CONCURRENT: u32 = 8;
/// A rotation that takes longer than this is a failure of the daemon.
const PATIENCE: Duration = Duration::from_hours(2);

/// A target that answers after [`ANSWERS_IN`] and holds nothing.
#[derive(Default)]
struct Slow {
    set: AtomicU32,
    busy: AtomicU32,
    busiest: AtomicU32,
}

impl Slow {
    async fn answer(&self) {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.busiest.fetch_max(busy, Ordering::SeqCst);
        tokio::time::sleep(ANSWERS_IN).await;
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Connector for Slow {
    fn about(&self) -> About {
        About {
            kind: "slow",
            fence: false,
            rights: &[],
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok("the bench".to_owned())
    }

    async fn check(&self, _: &Target) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl OneSlot for Slow {
    fn rules(&self, _: &Target) -> Result<Rules, RulesError> {
        Ok(Rules::default())
    }

    async fn apply(&self, _: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        self.answer().await;
        self.set.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn test(&self, _: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        self.answer().await;
        Ok(())
    }

    async fn end_sessions(&self, _: &Target) -> Result<(), Failure> {
        tokio::time::sleep(ANSWERS_IN).await;
        Ok(())
    }

    async fn evidence(&self, _: &Target) -> Result<Evidence, Failure> {
        tokio::time::sleep(ANSWERS_IN).await;
        Ok(Evidence::NotObservable)
    }
}

/// The table.
pub(crate) async fn measure(credentials: usize) -> Outcome<Section> {
    let target = Arc::new(Slow::default());
    let connectors = Connectors::default().with("slow", Shape::One(Arc::<Slow>::clone(&target)));
    let (mut place, inside) = Place::new().await?.inside(connectors).await?;
    place.rotated_by("slow", credentials).await?;
    place.published(1).await?;
    let mut before = Times::default();
    for _ in 0..ROUNDS {
        before.extend(&race(place.prepare(1).await?, go).await?.0);
    }
    let resident = memory("VmRSS:")?;

    let begun = instant();
    ask(&place, credentials).await?;
    let asked = begun.elapsed();
    let mut meanwhile = Times::default();
    let mut highest = memory("VmRSS:")?;
    while !done(&place).await? {
        meanwhile.extend(&race(place.prepare(1).await?, go).await?.0);
        highest = highest.max(memory("VmRSS:")?);
        if begun.elapsed() > PATIENCE {
            return Err("the rotations do not end".into());
        }
    }
    let took = begun.elapsed();
    let set = target.set.load(Ordering::SeqCst);
    let busiest = target.busiest.load(Ordering::SeqCst);
    inside.stop().await?;
    let many = u32::try_from(credentials)?;
    if set < many || busiest > CONCURRENT {
        return Err(format!("{set} of {many} were set, {busiest} at once").into());
    }
    let floor = ANSWERS_IN * CALLS * many / CONCURRENT;
    let mut section = Section::new(
        "Rotating after an incident",
        format!(
            "{} credentials whose target answers every call in 50 ms, {CONCURRENT} at once, as the configuration has it. The floor is \
             what the target alone costs: credentials × {CALLS} calls (set, sign in) × 50 ms ÷ {CONCURRENT}; ending sessions and \
             evidence come on top and hold no place. Daemon, target, people and the measuring are one process here; memory is \
             its resident set. One connection goes on requesting, approving and opening meanwhile.",
            count(f64::from(many))
        ),
        &["", "", "÷ floor"],
    );
    let ratio = |took: Duration| format!("{:.2}", took.as_secs_f64() / floor.as_secs_f64());
    let empty = String::new;
    let mib = |kib: u32| format!("{:.1} MiB", f64::from(kib) / 1024.0);
    for (name, value, ratio) in [
        ("floor", time(floor), ratio(floor)),
        ("all rotated", time(took), ratio(took)),
        ("all made due", time(asked), empty()),
        ("unseal before, p50", time(before.p50()), empty()),
        ("unseal meanwhile, p50", time(meanwhile.p50()), empty()),
        ("unseal meanwhile, p99", time(meanwhile.p99()), empty()),
        ("memory before", mib(resident), empty()),
        ("memory meanwhile, highest", mib(highest), empty()),
    ] {
        section.row([name.to_owned(), value, ratio]);
    }
    Ok(section)
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

/// Whether all are.
async fn done(place: &Place) -> Outcome<bool> {
    let status = place.operator().status().await?;
    let counts = status.rotations.unwrap_or_default();
    if counts.needs_operator > 0 || counts.backing_off > 0 {
        return Err(format!("rotations failed: {counts:?}").into());
    }
    // Those of `bench/` that were opened have no connector and wait for people.
    Ok(counts.due == counts.manual && counts.running == 0)
}

/// A figure of this process, in KiB.
fn memory(name: &str) -> Outcome<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no such figure")?.parse()?)
}
