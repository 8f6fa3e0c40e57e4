//! What the workshop does at targets with two slots, which make their keys themselves.
//!
//! The order of the steps is the machine's. Here is only how one of them is asked of the target, how
//! long a key that is not known everywhere yet is tried again, and how an old key is seen to be gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use keyturn_vault::{
    event::{Answer, Evidence, Maker},
    name::{KeyId, Line},
    reference::Version,
    rotation::{Event, Seen, Two},
    time::Span,
    world::VersionId,
};
use tokio::time::timeout;

use super::{Attempt, BUSY, Candidate, Failure, Order, Shape, Workshop, target};
use crate::{
    connector::{Created, Target, TwoSlot},
    owner::{Core, Needs, Txn, WeakOwner},
    sealing,
};

/// What is promised where no connector says.
pub(super) const NO_PROMISE: Two = Two {
    quota: 2,
    settle: Span::from_secs(15),
};
/// How often a new key is tried, and an old one looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// The promises of a connector.
pub(super) fn promises(connector: &dyn TwoSlot) -> Two {
    Two {
        quota: connector.quota(),
        settle: Span::from_secs(connector.settle().as_secs()),
    }
}

impl Workshop {
    /// The connector of a credential with two slots; the other kind is nobody's fault but the
    /// configuration's, and nothing was asked of the target.
    fn two(&self, order: &Order) -> Result<(Arc<dyn TwoSlot>, Target), Failure> {
        match self.connector(&order.definition) {
            Some(Shape::Two(two)) => Ok((two, target(&order.definition))),
            Some(Shape::One(_) | Shape::Hands(_)) => Err(Failure::Refused(
                "this credential's target has two slots, its connector one".to_owned(),
            )),
            None => Err(Failure::Refused(
                "this daemon has no such connector in its configuration".to_owned(),
            )),
        }
    }

    /// What a failure is to the machine; its words are for operators.
    fn failed(&self, order: &Order, failure: &Failure) -> Answer {
        self.blame(order.credential, failure.to_string());
        match failure {
            Failure::Refused(_) | Failure::Full(_) | Failure::Busy { .. } => Answer::Refused,
            Failure::Unknown(_) => Answer::Unclear,
        }
    }

    async fn keys(&self, order: &Order) -> Result<BTreeMap<KeyId, Seen>, Failure> {
        let (connector, target) = self.two(order)?;
        let keys = self
            .patiently(connector.deadline(), || connector.keys(&target))
            .await?;
        let seen = keys.into_iter().map(|key| {
            let seen = Seen {
                active: key.active,
                named: key.named,
            };
            (key.id, seen)
        });
        Ok(seen.collect())
    }

    /// Asks within a time, and again where the target is busy.
    async fn patiently<T, F>(
        &self,
        within: Duration,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let attempt = Attempt::within(0, within);
        loop {
            let left = attempt.left()?;
            let late = || Failure::Unknown(format!("no answer within {} s", within.as_secs()));
            let answer = timeout(left, ask()).await.map_err(|_| late())?;
            let (Err(Failure::Busy { after, .. }), Ok(left)) = (&answer, attempt.left()) else {
                return answer;
            };
            tokio::time::sleep(after.unwrap_or(BUSY).max(BUSY).min(left)).await;
        }
    }

    /// Looks at what is there, with a place for the attempt that follows.
    pub(super) async fn list(&self, owner: WeakOwner, order: Order, version: Version) {
        let id = VersionId {
            credential: order.credential,
            version,
        };
        if let Ok(permit) = Arc::clone(&self.0.permits).acquire_owned().await {
            let place = Candidate {
                secret: None,
                key: None,
                _permit: permit,
            };
            self.bench().insert(id, place);
        }
        let event = match self.keys(&order).await {
            Ok(keys) => Event::Listed(keys),
            Err(failure) => Event::NotListed(self.failed(&order, &failure)),
        };
        self.step(owner, order.credential, event).await;
    }

    /// Has the target make a key, and seals it.
    pub(super) async fn create(
        &self,
        owner: WeakOwner,
        order: Order,
        (version, within): (Version, Span),
    ) {
        let attempt = Attempt::within(version.number(), self.left(&order, within));
        let created = match self.two(&order) {
            Ok((connector, target)) => {
                let ask = || connector.create(&target, attempt);
                match attempt.left() {
                    Ok(left) => self.patiently(left, ask).await,
                    Err(late) => Err(late),
                }
            }
            Err(failure) => Err(failure),
        };
        match created {
            Err(failure) => {
                let answer = self.failed(&order, &failure);
                let event = Event::NotMade(answer);
                self.step(owner, order.credential, event).await;
            }
            Ok(created) => self.keep(owner, order, version, created).await,
        }
    }

    /// Seals a key that the target has made: it is on the bench before its version is committed.
    async fn keep(&self, owner: WeakOwner, order: Order, version: Version, created: Created) {
        let credential = order.credential;
        let id = VersionId {
            credential,
            version,
        };
        let Created { id: key, secret } = created;
        let node = self.0.node.clone();
        let (known, definition) = (Arc::clone(&order.known), order.definition.clone());
        let seal = move || {
            let made = (version, Maker::Rotation);
            let fresh = sealing::seal(&node, &known, &definition, made, &secret)?;
            Ok::<_, String>((secret, fresh))
        };
        let sealed = tokio::task::spawn_blocking(seal).await;
        let sealed = sealed.unwrap_or_else(|_| Err("sealing failed".to_owned()));
        let (secret, fresh) = match sealed {
            Ok(sealed) => sealed,
            Err(problem) => {
                self.blame(credential, problem);
                return self.step(owner, credential, Event::Unsealed(key)).await;
            }
        };
        if let Some(place) = self.bench().get_mut(&id) {
            place.secret = Some(Arc::new(secret));
            place.key = Some(key.clone());
        }
        let step = move |core: &mut Core, txn: &mut Txn| {
            core.key_made(txn, credential, key.clone(), fresh.clone())
        };
        if let Err(refused) = owner.insist(Needs::credentials([credential]), step).await {
            // The next look finds the key, and takes it for ours where it bears our name.
            tracing::warn!(%credential, %refused, "a sealed key was not taken");
            drop(self.bench().remove(&id));
        }
    }

    /// Uses a new key, again and again until all of the target must know it.
    pub(super) async fn use_key(&self, order: &Order, version: Version) -> Answer {
        let id = VersionId {
            credential: order.credential,
            version,
        };
        let place = |place: &Candidate| Some((place.secret.clone()?, place.key.clone()?));
        let candidate = self.bench().get(&id).and_then(place);
        let (connector, target) = match self.two(order) {
            Ok(two) => two,
            Err(failure) => return self.failed(order, &failure),
        };
        let Some((secret, key)) = candidate else {
            self.blame(order.credential, "the candidate is gone".to_owned());
            return Answer::Unclear;
        };
        let within = connector.deadline().saturating_add(connector.settle());
        let attempt = Attempt::within(version.number(), within);
        loop {
            let failure = match connector.test(&target, attempt, &key, &secret).await {
                Ok(()) => {
                    self.problems().remove(&order.credential);
                    return Answer::Done;
                }
                Err(failure) => failure,
            };
            let after = match &failure {
                Failure::Busy { after, .. } => after.unwrap_or(AGAIN).max(AGAIN),
                Failure::Refused(_) | Failure::Full(_) | Failure::Unknown(_) => AGAIN,
            };
            if !attempt.left().is_ok_and(|left| left > after) {
                return self.failed(order, &failure);
            }
            tokio::time::sleep(after).await;
        }
    }

    /// Has the target accept old keys no more, and looks until it shows so.
    pub(super) async fn deactivate(&self, order: &Order, keys: BTreeSet<KeyId>) -> Event {
        match self.end_keys(order, &keys).await {
            Ok(()) if keys.is_empty() => Event::SessionsEnded(Evidence::NotObservable),
            Ok(()) => {
                self.problems().remove(&order.credential);
                let names: Vec<_> = keys.iter().map(KeyId::as_str).collect();
                let line = format!("seen inactive or gone: {}", names.join(" "));
                let line = line.parse::<Line>();
                Event::SessionsEnded(line.map_or(Evidence::NotObservable, Evidence::Shown))
            }
            Err(failure) => Event::StillActive(self.failed(order, &failure)),
        }
    }

    async fn end_keys(&self, order: &Order, keys: &BTreeSet<KeyId>) -> Result<(), Failure> {
        let (connector, target) = self.two(order)?;
        for key in keys {
            let ask = || connector.deactivate(&target, key);
            self.patiently(connector.deadline(), ask).await?;
        }
        let settle = Attempt::within(0, connector.settle().max(AGAIN));
        loop {
            let seen = self.keys(order).await?;
            let active = |key: &&KeyId| seen.get(*key).is_some_and(|seen| seen.active);
            let Some(key) = keys.iter().find(active) else {
                return Ok(());
            };
            if settle.left().is_err() {
                return Err(Failure::Unknown(format!("{key} is still active")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Deletes a key.
    pub(super) async fn delete_key(&self, order: &Order, key: &KeyId) -> Answer {
        let _permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let deleted = match self.two(order) {
            Ok((connector, target)) => {
                let ask = || connector.delete(&target, key);
                self.patiently(connector.deadline(), ask).await
            }
            Err(failure) => Err(failure),
        };
        match deleted {
            Ok(()) => Answer::Done,
            Err(failure) => self.failed(order, &failure),
        }
    }
}
