//! The workshop: what rotations do outside the store, for the slots' machines, which decide.
//!
//! Each effect of a slot becomes a task; what comes of it goes back to the owner as a step. A secret
//! that is being rolled is here, in memory only, from its sealing until its slot says `Forget`; with
//! it goes the permit that bounds how many rotations run at once, first come, first served.
//!
//! # Invariants
//! 1. Nothing here decides: a result is reported, and the slot's machine says what follows.
//! 2. A secret is handed to its connector only after the version that holds it is sealed and committed.
//! 3. At most `rotation.concurrent` secrets are here.
//! 4. No message of a target reaches the log; the last one is shown to operators.

mod hands;
mod keys;
mod probe;
mod target;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use keyturn_seal::SecretBytes;
use keyturn_vault::{
    charter::Charter,
    definition::Definition,
    digest::Digest,
    event::{Answer, Evidence, Maker},
    id::CredentialId,
    name::{KeyId, Line},
    reference::Version,
    refusal::Refusal,
    rotation::{Effect, Event, Two},
    time::Span,
    world::VersionId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::probe::Look;
use self::target::target;
use crate::{
    chain::Known,
    clock::Clock,
    connector::{self, Attempt, Connectors, Failure, Shape},
    copies::Copies,
    identity::Node,
    owner::{Core, Needs, Txn, WeakOwner, ceremony::DAEMON},
    refusal::Refused,
    sealing,
};

/// The time of a call where no connector says.
const DEADLINE: Span = Span::from_secs(60);
/// The shortest wait for a target that is busy.
const BUSY: Duration = Duration::from_millis(500);
/// A rotation waits this long for copies before it says so; then it waits on.
const COPY_PATIENCE: Duration = Duration::from_secs(5);
const COPY_AGAIN: Duration = Duration::from_secs(2);
/// Failures that are remembered for operators.
const MAX_PROBLEMS: usize = 1000;

/// The workshop; clones are the same one.
#[derive(Clone)]
pub struct Workshop(Arc<Inner>);

struct Inner {
    connectors: Connectors,
    node: Node,
    clock: Clock,
    concurrent: usize,
    permits: Arc<Semaphore>,
    /// The places for copies, and how many the configuration wants at least; set once, before the owner runs.
    copies: OnceLock<(Copies, usize)>,
    bench: Mutex<HashMap<VersionId, Candidate>>,
    problems: Mutex<BTreeMap<CredentialId, String>>,
}

/// A secret that is being rolled.
struct Candidate {
    /// None before a target with two slots has made it.
    secret: Option<Arc<SecretBytes>>,
    /// What such a target calls it.
    key: Option<KeyId>,
    _permit: OwnedSemaphorePermit,
}

/// What a connector promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Whether a fence at the target stops a late writer.
    pub fence: bool,
    /// How long a call takes at most.
    pub deadline: Span,
    /// What is promised of a target with two slots.
    pub two: Two,
}

/// An effect of a slot, with the documents in force when it was committed.
pub struct Order {
    /// The credential.
    pub credential: CredentialId,
    /// Its definition.
    pub definition: Arc<Definition>,
    /// The digest of the definition.
    pub digest: Digest,
    /// The charter.
    pub known: Arc<Known>,
    /// The effect.
    pub effect: Effect,
    /// When it was committed, in running time: a process that was stopped in between is late.
    pub issued: Duration,
}

impl Workshop {
    /// A workshop where `concurrent` rotations run at once.
    pub fn new(connectors: Connectors, node: Node, clock: Clock, concurrent: usize) -> Self {
        Self(Arc::new(Inner {
            connectors,
            node,
            clock,
            concurrent,
            permits: Arc::new(Semaphore::new(concurrent)),
            copies: OnceLock::new(),
            bench: Mutex::default(),
            problems: Mutex::default(),
        }))
    }

    /// Where versions are copied to before they are used, and to how many places at least. Said once.
    pub fn copy_to(&self, copies: Copies, min: usize) {
        let _ = self.0.copies.set((copies, min));
    }

    /// How many copies a rotation of this credential waits for.
    pub fn copies_wanted(&self, charter: &Charter, definition: &Definition) -> usize {
        let min = self.0.copies.get().map_or(0, |(_, min)| *min);
        let policy = charter.policy_for(definition);
        min.max(policy.map_or(0, |policy| policy.copies_min.into()))
    }

    /// How many places hold the version that this entry sealed.
    pub fn copies_of(&self, entry: u64) -> usize {
        let copies = self.0.copies.get();
        copies.map_or(0, |(copies, _)| copies.of_entry(entry))
    }

    /// How many rotations run at once.
    pub fn concurrent(&self) -> usize {
        self.0.concurrent
    }

    /// Whether one more could begin at once.
    pub fn has_room(&self) -> bool {
        self.0.permits.available_permits() > 0
    }

    /// The node that signs what is sealed here.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// What the connector of a credential promises.
    pub fn target(&self, definition: &Definition) -> Promises {
        self.connector(definition).map_or(
            Promises {
                fence: false,
                deadline: DEADLINE,
                two: keys::NO_PROMISE,
            },
            |shape| {
                let connector = shape.connector();
                Promises {
                    fence: connector.about().fence,
                    deadline: Span::from_secs(connector.deadline().as_secs().max(1)),
                    two: shape.two().map_or(keys::NO_PROMISE, keys::promises),
                }
            },
        )
    }

    /// What last went wrong, for operators.
    pub fn problem(&self, credential: CredentialId) -> Option<String> {
        self.problems().get(&credential).cloned()
    }

    /// Carries an effect out; what comes of it is stepped.
    pub fn take(&self, owner: WeakOwner, order: Order) {
        let workshop = self.clone();
        match &order.effect {
            Effect::Forget(version) => {
                let version = VersionId {
                    credential: order.credential,
                    version: *version,
                };
                drop(self.bench().remove(&version));
            }
            Effect::Roll(_)
            | Effect::Copy(_)
            | Effect::Apply(..)
            | Effect::Test(_)
            | Effect::EndSessions(..)
            | Effect::List(_)
            | Effect::Create(..)
            | Effect::Deactivate(..)
            | Effect::DeleteKey(_) => {
                tokio::spawn(async move { workshop.carry_out(owner, order).await });
            }
            Effect::Log(_) | Effect::Changed | Effect::Notify(_) | Effect::Delete(_) => {}
        }
    }

    async fn carry_out(&self, owner: WeakOwner, order: Order) {
        match order.effect.clone() {
            Effect::Roll(version) => self.roll(owner, order, version).await,
            Effect::Copy(version) => self.copy(owner, &order, version).await,
            Effect::Apply(version, within) => {
                let answer = self.ask(&order, version, Some(within)).await;
                self.step(owner, order.credential, Event::Applied(answer))
                    .await;
            }
            Effect::Test(version) => {
                let answer = if order.definition.kind.two_slots() {
                    self.use_key(&order, version).await
                } else {
                    self.ask(&order, version, None).await
                };
                self.step(owner, order.credential, Event::Tested(answer))
                    .await;
            }
            Effect::EndSessions(_, grace) => {
                self.0.clock.sleep(Duration::from_millis(grace.ms())).await;
                let evidence = self.end_sessions(&order).await;
                let event = Event::SessionsEnded(evidence);
                self.step(owner, order.credential, event).await;
            }
            Effect::List(version) => self.list(owner, order, version).await,
            Effect::Create(version, within) => self.create(owner, order, (version, within)).await,
            Effect::Deactivate(_, keys, grace) => {
                self.0.clock.sleep(Duration::from_millis(grace.ms())).await;
                let event = self.deactivate(&order, keys).await;
                self.step(owner, order.credential, event).await;
            }
            Effect::DeleteKey(key) => {
                let answer = self.delete_key(&order, &key).await;
                let event = Event::KeyDeleted(answer);
                self.step(owner, order.credential, event).await;
            }
            Effect::Log(_)
            | Effect::Changed
            | Effect::Notify(_)
            | Effect::Delete(_)
            | Effect::Forget(_) => {}
        }
    }

    /// Makes a secret and seals it; it is on the bench before the version is committed.
    async fn roll(&self, owner: WeakOwner, order: Order, version: Version) {
        let credential = order.credential;
        // The semaphore is never closed; without a permit there is nothing to do but try later.
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.ok();
        let secret = self.secret(&order.definition).await;
        let node = self.0.node.clone();
        let make = move || {
            let secret = secret?;
            let fresh = sealing::seal(
                &node,
                &order.known,
                &order.definition,
                (version, Maker::Rotation),
                &secret,
            )?;
            Ok::<_, String>((secret, fresh))
        };
        let made = tokio::task::spawn_blocking(make).await;
        let made = made.unwrap_or_else(|_| Err("sealing failed".to_owned()));
        let id = VersionId {
            credential,
            version,
        };
        let fresh = match (made, permit) {
            (Ok((secret, fresh)), Some(permit)) => {
                let candidate = Candidate {
                    secret: Some(Arc::new(secret)),
                    key: None,
                    _permit: permit,
                };
                self.bench().insert(id, candidate);
                Some(fresh)
            }
            (Ok(_), None) => None,
            (Err(problem), _) => {
                self.blame(credential, problem);
                None
            }
        };
        let step =
            move |core: &mut Core, txn: &mut Txn| core.rolled(txn, credential, fresh.clone());
        if let Err(refused) = owner.insist(Needs::credentials([credential]), step).await {
            tracing::warn!(%credential, %refused, "a sealed version was not taken");
            drop(self.bench().remove(&id));
            self.step(owner, credential, Event::NotSealed).await;
        }
    }

    /// Waits for the copies of a version that is being rolled.
    async fn copy(&self, owner: WeakOwner, order: &Order, version: Version) {
        let id = VersionId {
            credential: order.credential,
            version,
        };
        let wanted = self.copies_wanted(&order.known.charter, &order.definition);
        let copies = self.0.copies.get().map(|(copies, _)| copies);
        let copies = copies.cloned().unwrap_or_default();
        self.problems().remove(&order.credential);
        // Only a rotation waits; a deposit is copied behind its answer.
        while self.bench().contains_key(&id) && owner.upgrade().is_some() {
            let wait = copies.wait(order.credential, version, wanted, COPY_PATIENCE);
            if wait.await {
                self.problems().remove(&order.credential);
                self.step(owner, order.credential, Event::Copied).await;
                return;
            }
            self.blame(order.credential, lacking(&copies, wanted));
            // Not by the clock of the vault: places are outside.
            tokio::time::sleep(COPY_AGAIN).await;
        }
    }

    /// Asks the target to take a version, or whether it has it.
    async fn ask(&self, order: &Order, version: Version, apply: Option<Span>) -> Answer {
        let id = VersionId {
            credential: order.credential,
            version,
        };
        let secret = self.bench().get(&id).and_then(|one| one.secret.clone());
        let shape = self.connector(&order.definition);
        let connector = shape.as_ref().and_then(Shape::one);
        let (Some(secret), Some(connector)) = (secret, connector) else {
            // Nothing was asked of the target; but an earlier call may have been.
            self.blame(
                order.credential,
                "the candidate or its connector is gone".to_owned(),
            );
            return Answer::Unclear;
        };
        let (target, deadline) = (
            target(&order.definition),
            apply.map_or_else(|| connector.deadline(), |within| self.left(order, within)),
        );
        let attempt = Attempt::within(version.number(), deadline);
        let answer = loop {
            let answer = if apply.is_some() {
                connector.apply(&target, attempt, &secret).await
            } else {
                connector.test(&target, attempt, &secret).await
            };
            match (&answer, attempt.left()) {
                (Err(Failure::Busy { after, .. }), Ok(left)) => {
                    let pause = after.unwrap_or(BUSY).max(BUSY).min(left);
                    self.0.clock.sleep(pause).await;
                }
                _ => break answer,
            }
        };
        match answer {
            Ok(()) => {
                self.problems().remove(&order.credential);
                Answer::Done
            }
            Err(failure) => {
                self.blame(order.credential, failure.to_string());
                match failure {
                    Failure::Refused(_) | Failure::Full(_) | Failure::Busy { .. } => {
                        Answer::Refused
                    }
                    Failure::Unknown(_) => Answer::Unclear,
                }
            }
        }
    }

    /// What is left of the time for a call; a process that was stopped since is late, and the machine
    /// has counted that time as over.
    fn left(&self, order: &Order, within: Span) -> Duration {
        let gone = self.0.clock.running().saturating_sub(order.issued);
        Duration::from_millis(within.ms()).saturating_sub(gone)
    }

    async fn end_sessions(&self, order: &Order) -> Evidence {
        let shape = self.connector(&order.definition);
        let Some(connector) = shape.as_ref().and_then(Shape::one) else {
            return Evidence::NotObservable;
        };
        let target = target(&order.definition);
        if let Err(failure) = connector.end_sessions(&target).await {
            self.blame(
                order.credential,
                format!("old sessions were not ended: {failure}"),
            );
        }
        match connector.evidence(&target).await {
            Ok(connector::Evidence::Shown(line)) => line
                .parse::<Line>()
                .map_or(Evidence::NotObservable, Evidence::Shown),
            Ok(connector::Evidence::NotObservable) => Evidence::NotObservable,
            Err(failure) => {
                self.blame(order.credential, format!("no evidence: {failure}"));
                Evidence::NotObservable
            }
        }
    }

    async fn step(&self, owner: WeakOwner, credential: CredentialId, event: Event) {
        // What has no time of its own in the machine must not be waited for without end.
        let instead = if matches!(event, Event::Listed(_)) {
            Some(Event::NotListed(Answer::Unclear))
        } else {
            let deleted = matches!(event, Event::KeyDeleted(Answer::Done));
            deleted.then_some(Event::KeyDeleted(Answer::Unclear))
        };
        for event in [Some(event), instead].into_iter().flatten() {
            let step = move |core: &mut Core, txn: &mut Txn| {
                core.step_slot(txn, credential, event.clone(), DAEMON)
            };
            match owner.insist(Needs::credentials([credential]), step).await {
                // An answer that comes when its time is over, or when the daemon stops, tells nothing new.
                Ok(()) | Err(Refused::Vault(Refusal::NotRunning) | Refused::Stopping) => return,
                Err(refused) => {
                    tracing::warn!(%credential, %refused, "a step of a rotation was not taken");
                }
            }
        }
    }

    fn connector(&self, definition: &Definition) -> Option<Shape> {
        self.0
            .connectors
            .named(definition.connector.as_ref()?.name.as_str())
    }

    fn blame(&self, credential: CredentialId, problem: String) {
        let mut problems = self.problems();
        if problems.get(&credential) == Some(&problem) {
            return;
        }
        tracing::warn!(%credential, problem, "rotation");
        if problems.len() >= MAX_PROBLEMS {
            problems.pop_first();
        }
        problems.insert(credential, problem);
    }

    fn bench(&self) -> MutexGuard<'_, HashMap<VersionId, Candidate>> {
        self.0.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<CredentialId, String>> {
        self.0
            .problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn lacking(copies: &Copies, wanted: usize) -> String {
    let mut said = format!(
        "the new version waits for {wanted} copies; the target is not changed before (places for copies: {})",
        copies.len()
    );
    let problems = copies.problems();
    if !problems.is_empty() {
        said = format!("{said}: {problems}");
    }
    said
}
