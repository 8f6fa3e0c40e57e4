//! A target that takes its time and counts, for many rotations at once.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyturn_seal::SecretBytes;
use keyturnd::{
    connector::{About, Attempt, Connector, Evidence, Failure, OneSlot, Target},
    generate::{Rules, RulesError},
};
use tonic::async_trait;

/// It answers every call after a while, and holds nothing.
#[derive(Default)]
pub struct Slow {
    answers_in: Duration,
    /// The path of a credential that it never takes a secret for.
    refuses: Option<String>,
    set: Mutex<BTreeSet<String>>,
    calls: AtomicUsize,
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

impl Slow {
    /// One that answers after so long.
    pub fn new(answers_in: Duration) -> Self {
        Self {
            answers_in,
            ..Self::default()
        }
    }

    /// It never takes a secret for this path.
    #[must_use]
    pub fn refusing(mut self, path: &str) -> Self {
        self.refuses = Some(path.to_owned());
        self
    }

    /// How many credentials have a new secret.
    pub fn rotated(&self) -> usize {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.len()
    }

    /// How many secrets were set.
    pub fn sets(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many calls it had at once, at most.
    pub fn busiest(&self) -> usize {
        self.busiest.load(Ordering::SeqCst)
    }

    async fn answer(&self) {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.busiest.fetch_max(busy, Ordering::SeqCst);
        tokio::time::sleep(self.answers_in).await;
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
        Duration::from_mins(1)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok("nobody".to_owned())
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

    async fn apply(&self, target: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        self.answer().await;
        if self.refuses.as_ref() == Some(&target.path) {
            return Err(Failure::Refused("not this one".to_owned()));
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.insert(target.path.clone());
        Ok(())
    }

    async fn test(&self, _: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        self.answer().await;
        Ok(())
    }

    async fn end_sessions(&self, _: &Target) -> Result<(), Failure> {
        tokio::time::sleep(self.answers_in).await;
        Ok(())
    }

    async fn evidence(&self, _: &Target) -> Result<Evidence, Failure> {
        tokio::time::sleep(self.answers_in).await;
        Ok(Evidence::NotObservable)
    }
}
