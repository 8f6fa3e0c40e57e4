//! The daemon is killed in the middle of its work, again and again.
//!
//! # Invariants
//! 1. What was acknowledged before a kill is in the log after it: openings, approvals, definitions, deposits and
//!    check-ins; and what was deposited opens.
//! 2. The final log is consistent with every checkpoint that was ever handed out.
//! 3. Every secret that was handed out has its entries in the log, in their order; an auditor finds nothing.
//! 4. What a kill interrupted can be finished: no ceremony stays stuck.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use keyturn::verify::directory::{Anchor, Subject, verify};
use keyturn_audit::{entry::Entry, note::SignedCheckpoint, proof::Receipt};
use keyturn_proto::v1;
use keyturn_tests::{
    Outcome, keep,
    raw::{Founded, Line},
    story::{Asked, Ballot, SealedVersion, definition, release},
};
use keyturn_vault::{
    event::Event,
    jcs::Document as _,
    text::{CredentialLine, SubmitKey, Text as _},
};
use tokio::time::{sleep, timeout};

const ROUNDS: u64 = 50;
/// Ceremonies at once.
const WORKERS: usize = 3;
/// A call that a killed daemon does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"kept through every kill";
/// So many openings, check-ins and deposits are a load.
const ENOUGH: usize = 20;
/// Credentials that one request names at most.
const AT_ONCE: usize = 8;

/// What the daemon said that it did.
#[derive(Default)]
struct Acknowledged {
    receipts: Vec<v1::Receipt>,
    opened: BTreeSet<String>,
    approved: BTreeSet<(String, String)>,
    delivered: BTreeSet<String>,
    returned: BTreeSet<String>,
    deposited: Vec<CredentialLine>,
    checkpoints: Vec<SignedCheckpoint>,
}

impl Acknowledged {
    /// Openings, check-ins and deposits.
    fn done(&self) -> [usize; 3] {
        [
            self.delivered.len(),
            self.returned.len(),
            self.deposited.len(),
        ]
    }
}

/// A ceremony on its way; what a kill interrupts is taken up again.
struct Job {
    asked: Asked,
    ballots: BTreeMap<&'static str, Ballot>,
    /// The secret has come; what is returned is not handed out again.
    delivered: bool,
}

struct Load {
    vault: Founded,
    named: CredentialLine,
    jobs: Mutex<Vec<Job>>,
    acknowledged: Mutex<Acknowledged>,
}

type Lines = BTreeMap<&'static str, Line>;

impl Load {
    fn note<T>(&self, note: impl FnOnce(&mut Acknowledged) -> T) {
        let _ = note(&mut self.acknowledged.lock().unwrap());
    }

    async fn lines(&self) -> Outcome<Lines> {
        let mut lines = Lines::new();
        for name in ["alice", "olga", "bob", "carol"] {
            lines.insert(name, self.vault.line(name).await?);
        }
        Ok(lines)
    }

    /// Ceremonies, one after the other, until the daemon is gone.
    async fn work(&self, lines: &Lines) {
        loop {
            let job = self.jobs.lock().unwrap().pop();
            let mut job = match job {
                Some(job) => job,
                None => match self.new_job(lines).await {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            let done = timeout(PATIENCE, self.advance(lines, &mut job)).await;
            if !matches!(done, Ok(Ok(()))) {
                self.jobs.lock().unwrap().push(job);
                return;
            }
        }
    }

    /// Whether as much was done as makes this a load by its end.
    fn is_on_course(&self, round: u64) -> bool {
        let done = self.acknowledged.lock().unwrap().done();
        let part = usize::try_from(round + 1).unwrap() * ENOUGH;
        let rounds = usize::try_from(ROUNDS).unwrap();
        done.iter().all(|done| done * rounds >= part)
    }

    async fn new_job(&self, lines: &Lines) -> Outcome<Job> {
        let (facts, alice) = (&self.vault.facts, self.vault.who("alice")?);
        let named = vec![self.named.clone()];
        let asked = timeout(PATIENCE, Asked::new(facts, &lines["alice"], alice, named)).await??;
        Ok(Job {
            asked,
            ballots: BTreeMap::new(),
            delivered: false,
        })
    }

    /// From wherever it is to the check-in. Every call may have been made before.
    async fn advance(&self, lines: &Lines, job: &mut Job) -> Outcome<()> {
        if !job.delivered {
            self.deliver(lines, job).await?;
            job.delivered = true;
        }
        self.vault.check_in(&job.asked, Some(1)).await?;
        self.note(|said| said.returned.insert(job.asked.id()));
        Ok(())
    }

    /// From wherever it is to the secret.
    async fn deliver(&self, lines: &Lines, job: &mut Job) -> Outcome<()> {
        let (facts, id) = (&self.vault.facts, job.asked.id());
        let open = job.asked.open(self.vault.who("alice")?)?;
        let reply = lines["alice"].ceremonies().open(open).await?.into_inner();
        self.note(|said| said.opened.insert(id.clone()));
        for name in ["bob", "carol"] {
            if !job.ballots.contains_key(name) {
                let who = self.vault.who(name)?;
                let ballot = Ballot::new(facts, &lines[name], who, &id).await?;
                job.ballots.insert(name, ballot);
            }
            let ballot = job.ballots.get_mut(name).ok_or("no ballot")?;
            if let Some(key) = &reply.submit_key {
                ballot.submit_key = SubmitKey::parse(&key.text)?.submit_key.as_str().parse()?;
            }
            match lines[name].ceremonies().approve(ballot.call()?).await {
                Ok(_) => {
                    self.note(|said| said.approved.insert((id.clone(), name.to_owned())));
                }
                Err(status) => {
                    let code = status.metadata().get(keyturn_proto::CODE_TRAILER);
                    if code.is_none_or(|code| code != "decided") {
                        return Err(status.into());
                    }
                }
            }
        }
        let released = release(&lines["alice"], &id).await?;
        let released = released.map_err(|view| format!("ended in {:?}", view.state()))?;
        let secrets = job.asked.receive(facts, &released)?;
        assert_eq!(secrets, [SECRET]);
        self.note(|said| {
            said.delivered.insert(id);
            said.receipts.extend(
                [released.authorized, released.released]
                    .into_iter()
                    .flatten(),
            );
        });
        Ok(())
    }

    /// Credentials, deposits and checkpoints, until the daemon is gone.
    async fn watch(&self, lines: &Lines, round: u64) {
        for turn in 0_u32.. {
            let add = async {
                let olga = self.vault.who("olga")?;
                let (facts, path) = (&self.vault.facts, format!("round-{round}/{turn}"));
                let defined = definition(facts, &path)?;
                let definition = Some(olga.sign_document(defined.to_bytes()?)?);
                let add = v1::AddRequest { definition };
                let added = lines["olga"].credentials().add(add).await?.into_inner();
                self.note(|said| said.receipts.extend(added.defined));
                let sealed = SealedVersion::new(facts, &defined, 1, path.as_bytes())?;
                let (deposit, line) = (sealed.deposit(olga)?, sealed.line(&defined)?);
                let sealed = lines["olga"].credentials().deposit(deposit).await?;
                self.note(|said| {
                    said.receipts.extend(sealed.into_inner().sealed);
                    said.deposited.push(line);
                });
                let newest = lines["olga"].checkpoint(&self.vault.facts.vkey).await?;
                self.note(|said| said.checkpoints.push(newest));
                Outcome::Ok(())
            };
            if !matches!(timeout(PATIENCE, add).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// The checkpoint that a receipt leads to.
fn checkpoint_of(receipt: &v1::Receipt, load: &Load) -> SignedCheckpoint {
    let proof: Receipt = receipt.tlog_proof.parse().unwrap();
    proof
        .verify(&receipt.entry, &load.vault.facts.vkey)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", SECRET).await.unwrap();
    let mut load = Arc::new(Load {
        vault,
        named,
        jobs: Mutex::default(),
        acknowledged: Mutex::default(),
    });
    for round in 0..ROUNDS {
        let lines = Arc::new(load.lines().await.unwrap());
        let mut tasks = Vec::new();
        for _ in 0..WORKERS {
            let (load, lines) = (Arc::clone(&load), Arc::clone(&lines));
            tasks.push(tokio::spawn(async move { load.work(&lines).await }));
        }
        let (watcher, seen) = (Arc::clone(&load), Arc::clone(&lines));
        tasks.push(tokio::spawn(
            async move { watcher.watch(&seen, round).await },
        ));
        // Between the first call and a few whole ceremonies.
        sleep(Duration::from_millis(20 + round * 37 % 300)).await;
        // A slow machine needs longer for what makes it a load.
        for _ in 0..500 {
            if load.is_on_course(round) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let pid = i32::try_from(load.vault.world.pid().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        drop(lines);
        Arc::get_mut(&mut load)
            .unwrap()
            .vault
            .world
            .start()
            .unwrap();
    }

    // Invariant 4: what is left is finished.
    let lines = load.lines().await.unwrap();
    let left: Vec<Job> = std::mem::take(&mut *load.jobs.lock().unwrap());
    for mut job in left {
        load.advance(&lines, &mut job).await.unwrap();
    }
    // Invariant 1: what was deposited opens.
    let mut deposited = load.acknowledged.lock().unwrap().deposited.clone();
    deposited.sort_by(|one, two| one.path.cmp(&two.path));
    for named in deposited.chunks(AT_ONCE) {
        let (_, mut secrets) = load.vault.open(named.to_vec()).await.unwrap();
        secrets.sort();
        let want = named.iter().map(|line| line.path.as_str().as_bytes());
        assert!(secrets.iter().eq(want), "invariant 1: {named:?}");
    }
    let newest = lines["alice"]
        .checkpoint(&load.vault.facts.vkey)
        .await
        .unwrap();
    load.note(|said| said.checkpoints.push(newest));
    drop(lines);
    Arc::get_mut(&mut load).unwrap().vault.world.stop().unwrap();
    check(&load);
}

fn check(load: &Load) {
    let said = load.acknowledged.lock().unwrap();
    let facts = &load.vault.facts;
    let log = load.vault.world.log();
    let handed_out = said.checkpoints.iter().cloned();
    let proven = said
        .receipts
        .iter()
        .map(|receipt| checkpoint_of(receipt, load));
    let anchors: Vec<_> = handed_out
        .chain(proven)
        .map(|checkpoint| Anchor {
            name: format!("size {}", checkpoint.size()),
            checkpoint: checkpoint.checkpoint().clone(),
        })
        .collect();
    let count = anchors.len();
    let makers = keyturn_hsm::attestation::Anchors::yubico().unwrap();
    let subject = Subject {
        dir: &log,
        log: &facts.vkey,
        makers: &makers,
        genesis: Some(facts.reference.digest),
        saved: &anchors,
    };
    let report = verify(subject, |_, _| {}, |_, _| {}).unwrap();
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| &finding.what)
        .collect();
    assert!(findings.is_empty(), "invariant 3: {findings:?}");
    assert_eq!(report.anchors.len(), count + 2, "invariant 2");

    let entries = keep::entries(facts, &log).unwrap();
    for receipt in &said.receipts {
        let at = usize::try_from(receipt.n).unwrap();
        assert_eq!(
            entries[at],
            Entry::decode(&receipt.entry).unwrap(),
            "invariant 1"
        );
    }
    let mut in_log = Acknowledged::default();
    for entry in &entries {
        match Event::parse(&entry.kind, &entry.body).unwrap() {
            Event::CeremonyOpened { ceremony, .. } => {
                in_log.opened.insert(ceremony.to_string());
            }
            Event::CeremonyApproved { ceremony, .. } => {
                let who = entry.actor.split(' ').next().unwrap().to_owned();
                in_log.approved.insert((ceremony.to_string(), who));
            }
            Event::UnsealReleased { ceremony, .. } => {
                in_log.delivered.insert(ceremony.to_string());
            }
            Event::CheckoutReturned { ceremony, .. } => {
                in_log.returned.insert(ceremony.to_string());
            }
            _ => {}
        }
    }
    assert!(said.opened.is_subset(&in_log.opened), "invariant 1: opened");
    assert!(
        said.approved.is_subset(&in_log.approved),
        "invariant 1: approved"
    );
    assert!(
        said.delivered.is_subset(&in_log.delivered),
        "invariant 3: released"
    );
    assert!(
        said.returned.is_subset(&in_log.returned),
        "invariant 1: returned"
    );
    // It was a load: secrets were handed out and returned, others deposited, and many heads are held against the log.
    let done = said.done();
    assert!(
        done.iter().all(|done| *done >= ENOUGH) && count >= 100,
        "too little was done: {done:?} releases, check-ins and deposits, {count} heads"
    );
}
