//! The outbox: notices that are true and not delivered yet.
//!
//! # Invariants
//! 1. A notice is a row in the transaction that makes it true; with no notifier that wants it there is none.
//! 2. Sequence numbers never return, also over a restart, so a notice's id is its own.
//! 3. Each notifier has at most [`MAX_WAITING`] that wait and [`MAX_UNDELIVERED`] that were given up; what is
//!    dropped for that is counted and told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use keyturn_proto::v1;
use keyturn_vault::time::Span;
use tokio::sync::watch;

use super::{
    core::Core,
    txn::{After, Txn},
};
use crate::{
    metrics::Metrics,
    notice::{Filter, Kind, Notice, Severity},
    refusal::Refused,
    rows::{self, read},
    store::{self, Name, Store},
};

/// Notices that wait for one notifier at most; beyond it the oldest is given up.
pub const MAX_WAITING: usize = 512;
/// Undelivered notices of one notifier that are kept to be looked at.
pub const MAX_UNDELIVERED: usize = 64;
/// A notice that was not taken in this time is undelivered.
pub const GIVE_UP_AFTER: Span = Span::from_hours(24);

/// What became of a delivery.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It was taken.
    Delivered,
    /// It was not, and is tried again unless its time is over.
    Failed(String),
    /// It never will be.
    Undelivered(String),
}

/// What waits for notifiers.
pub struct Outbox {
    routes: Vec<(String, Filter)>,
    next: u64,
    letters: BTreeMap<u64, Arc<rows::Letter>>,
    counts: HashMap<String, Counts>,
    posted: watch::Sender<u64>,
    metrics: Metrics,
}

/// How a notifier is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notices that wait.
    pub waiting: usize,
    /// Notices that were given up.
    pub undelivered: usize,
    /// Notices that were dropped to make room, since the start.
    pub dropped: u64,
    /// What the last try failed with, until one succeeds.
    pub problem: Option<String>,
}

impl Outbox {
    /// An outbox for notifiers of these names, and what each wants to hear; empty until it is loaded.
    pub fn new(routes: Vec<(String, Filter)>, metrics: Metrics) -> Self {
        let counts = routes
            .iter()
            .map(|(name, _)| (name.clone(), Counts::default()));
        Self {
            counts: counts.collect(),
            routes,
            next: 0,
            letters: BTreeMap::new(),
            posted: watch::Sender::new(0),
            metrics,
        }
    }

    /// Grows when there is more to deliver.
    pub fn posted(&self) -> watch::Receiver<u64> {
        self.posted.subscribe()
    }

    pub(super) fn wanted(&self, kind: Kind, severity: Severity) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|(_, filter)| filter.takes(kind, severity))
    }

    fn insert(&mut self, seq: u64, letter: Arc<rows::Letter>) {
        self.remove(seq);
        self.count(&letter, 1);
        self.letters.insert(seq, letter);
    }

    fn remove(&mut self, seq: u64) -> Option<Arc<rows::Letter>> {
        let letter = self.letters.remove(&seq)?;
        self.count(&letter, -1);
        Some(letter)
    }

    fn count(&mut self, letter: &rows::Letter, by: isize) {
        let counts = self.counts.entry(letter.to.clone()).or_default();
        let (number, name, help) = if letter.undelivered.is_some() {
            (
                &mut counts.undelivered,
                "keyturn_notices_undelivered",
                "Notices that were given up, by notifier.",
            )
        } else {
            (
                &mut counts.waiting,
                "keyturn_notices_waiting",
                "Notices that wait for their delivery, by notifier.",
            )
        };
        *number = number.saturating_add_signed(by);
        let gauge = self.metrics.gauge(name, help, &[("notifier", &letter.to)]);
        gauge.set(i64::try_from(*number).unwrap_or(i64::MAX));
    }

    /// The oldest of a notifier that waits, or was given up.
    fn oldest(&self, to: &str, undelivered: bool) -> Option<(u64, &Arc<rows::Letter>)> {
        let mut letters = self.letters.iter();
        let of =
            |letter: &rows::Letter| letter.to == to && letter.undelivered.is_some() == undelivered;
        letters
            .find(|(_, letter)| of(letter))
            .map(|(seq, letter)| (*seq, letter))
    }
}

impl Core {
    /// Loads what was not delivered; what is for a notifier that is gone from the configuration stays,
    /// within its bounds, and is shown.
    pub(super) async fn load_outbox(&mut self, store: &dyn Store) -> Result<(), Refused> {
        let stored: Option<rows::Outbox> = read(store, &Name::OutboxNext.key()).await?;
        self.outbox.next = stored.unwrap_or_default().next;
        let mut next = Some(store::KeyRange::family(store::key::Family::Outbox));
        while let Some(range) = next {
            let page = store.range(&range, store::MAX_PAGE_ROWS).await?;
            for row in &page.rows {
                if let Some(Name::Outbox(seq)) = row.key.name() {
                    let letter: rows::Letter = rows::decode(&row.value)?;
                    self.outbox.insert(seq, Arc::new(letter));
                }
            }
            next = page.rest;
        }
        Ok(())
    }

    /// Invariant 1.
    pub(super) fn post(&mut self, txn: &mut Txn, notice: &Notice) -> Result<(), Refused> {
        let takes = |(_, filter): &&(String, Filter)| filter.takes(notice.kind, notice.severity);
        let routes = self.outbox.routes.iter().filter(takes);
        let to: Vec<_> = routes.map(|(name, _)| name.clone()).collect();
        for to in to {
            let waiting = self
                .outbox
                .counts
                .get(&to)
                .map_or(0, |counts| counts.waiting);
            if waiting >= MAX_WAITING
                && let Some((oldest, _)) = self.outbox.oldest(&to, false)
            {
                self.drop_letter(txn, oldest);
            }
            let seq = self.outbox.next;
            let next = seq.saturating_add(1);
            self.outbox.next = next;
            let mut notice = notice.clone();
            notice.id = format!("{}/{seq}-{}", notice.vault, notice.time.ms());
            let letter = rows::Letter {
                to,
                posted: self.now().lived,
                undelivered: None,
                notice,
            };
            txn.put(
                Name::OutboxNext.key(),
                rows::encode(&rows::Outbox { next })?,
            );
            self.put_letter(txn, seq, letter)?;
        }
        txn.after.push(After::Posted);
        Ok(())
    }

    fn put_letter(&mut self, txn: &mut Txn, seq: u64, letter: rows::Letter) -> Result<(), Refused> {
        txn.put(Name::Outbox(seq).key(), rows::encode(&letter)?);
        let before = self.outbox.letters.get(&seq).map(Arc::clone);
        self.outbox.insert(seq, Arc::new(letter));
        txn.remember(move |core| match before {
            Some(before) => core.outbox.insert(seq, before),
            None => drop(core.outbox.remove(seq)),
        });
        Ok(())
    }

    fn delete_letter(&mut self, txn: &mut Txn, seq: u64) {
        if let Some(letter) = self.outbox.remove(seq) {
            txn.delete(Name::Outbox(seq).key());
            txn.remember(move |core| core.outbox.insert(seq, letter));
        }
    }

    /// Makes room; invariant 3.
    fn drop_letter(&mut self, txn: &mut Txn, seq: u64) {
        if let Some(letter) = self.outbox.letters.get(&seq) {
            tracing::warn!(notifier = %letter.to, id = %letter.notice.id, "a notice was dropped to make room");
            let counts = self.outbox.counts.entry(letter.to.clone()).or_default();
            counts.dropped = counts.dropped.saturating_add(1);
        }
        self.delete_letter(txn, seq);
    }

    /// What a notifier is to be told next.
    pub fn next_letter(&self, to: &str) -> Option<(u64, Notice)> {
        let (seq, letter) = self.outbox.oldest(to, false)?;
        Some((seq, letter.notice.clone()))
    }

    /// What became of a delivery.
    pub fn settle_letter(&mut self, txn: &mut Txn, seq: u64, fate: Fate) -> Result<(), Refused> {
        let Some(letter) = self.outbox.letters.get(&seq).map(Arc::clone) else {
            return Ok(());
        };
        let over = letter.posted.until(self.now().lived) >= GIVE_UP_AFTER.ms();
        let (outcome, problem) = match fate {
            Fate::Delivered => ("delivered", None),
            Fate::Failed(why) if !over => ("failed", Some(why)),
            Fate::Failed(why) | Fate::Undelivered(why) => ("undelivered", Some(why)),
        };
        let labels = [("notifier", letter.to.as_str()), ("outcome", outcome)];
        let help = "Tries to deliver a notice, by notifier and outcome.";
        self.outbox
            .metrics
            .counter("keyturn_notice_tries_total", help, &labels)
            .one();
        let counts = self.outbox.counts.entry(letter.to.clone()).or_default();
        if let Some(problem) = &problem
            && counts.problem.as_ref() != Some(problem)
        {
            tracing::warn!(notifier = %letter.to, %problem, "a notice was not taken");
        }
        counts.problem.clone_from(&problem);
        match (outcome, problem) {
            ("undelivered", Some(problem)) => {
                if counts.undelivered >= MAX_UNDELIVERED
                    && let Some((oldest, _)) = self.outbox.oldest(&letter.to, true)
                {
                    self.drop_letter(txn, oldest);
                }
                let mut letter = rows::Letter::clone(&letter);
                letter.undelivered = Some(rows::Undelivered {
                    since: self.now().wall,
                    problem,
                });
                self.put_letter(txn, seq, letter)?;
            }
            ("delivered", _) => self.delete_letter(txn, seq),
            _ => {}
        }
        Ok(())
    }

    /// After a commit: there is more to deliver.
    pub(super) fn posted(&self) {
        self.outbox
            .posted
            .send_modify(|posted| *posted = posted.wrapping_add(1));
    }

    /// How the notifiers are doing, by name.
    pub fn notifiers(&self) -> BTreeMap<String, Counts> {
        let counts = self.outbox.counts.iter();
        counts
            .map(|(name, counts)| (name.clone(), counts.clone()))
            .collect()
    }

    /// What a person should know of the notifiers.
    pub fn notifier_findings(&self) -> Vec<v1::Finding> {
        let finding =
            |severity: v1::Severity, code: &str, message: String, hint: &str| v1::Finding {
                severity: severity.into(),
                code: code.to_owned(),
                message,
                hint: hint.to_owned(),
            };
        let mut findings = Vec::new();
        for (name, counts) in self.notifiers() {
            if counts.undelivered > 0 || counts.dropped > 0 {
                findings.push(finding(
                    v1::Severity::Problem,
                    "notices-undelivered",
                    format!(
                        "notifier {name}: {} notices were given up and {} dropped",
                        counts.undelivered, counts.dropped
                    ),
                    "people were not told; `keyturn audit watch` tells what happened",
                ));
            }
            if let Some(problem) = counts.problem {
                findings.push(finding(
                    v1::Severity::Warning,
                    "notifier-failing",
                    format!(
                        "notifier {name}: {} notices wait: {problem}",
                        counts.waiting
                    ),
                    "see `keyturnd notify --test NAME` on the daemon's host",
                ));
            }
        }
        findings
    }
}
