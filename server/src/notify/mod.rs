//! Notices: telling people, by a program or a webhook, what they should know or do.
//!
//! A notice is a row of the outbox, written in the transaction that makes it true. A task for each
//! notifier delivers its rows in their order and deletes what was taken. What cannot be delivered stays
//! as undelivered, where `status` and the metrics show it.
//!
//! | module | job |
//! | --- | --- |
//! | [`channel`] | one delivery: a program, or a webhook |
//! | [`worker`] | deliveries in order, and again |
//!
//! # Invariants
//! 1. A notice carries names, ids, paths, counts and times: no secret, no share, no text of details.
//! 2. Each is delivered at least once, with an id that is the same every time, or shown as undelivered.
//! 3. Nothing in the vault ever waits for a notifier, and none makes it grow without a bound.

pub mod channel;
pub mod worker;

mod webhook;

pub use self::channel::{Channel, Failure};

use std::collections::BTreeMap;

use keyturn_vault::name::Origin;
use tokio::{sync::watch, task::JoinHandle};

use self::worker::Worker;
use crate::{
    clock::Clock,
    config,
    mode::Mode,
    notice::{Filter, Kind, Notice, Severity},
    owner::Owner,
};

/// Somebody to tell.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// Its name in the configuration.
    pub name: String,
    /// What it wants to hear.
    pub filter: Filter,
    /// How it is told.
    pub channel: Channel,
}

/// The notifiers of a configuration.
pub fn notifiers(config: &BTreeMap<config::Label, config::Notify>) -> Vec<Notifier> {
    let notifier = |(name, notify): (&config::Label, &config::Notify)| Notifier {
        name: name.as_ref().to_owned(),
        filter: notify.filter(),
        channel: Channel::of(notify),
    };
    config.iter().map(notifier).collect()
}

/// Their names, and what each wants to hear.
pub fn routes(notifiers: &[Notifier]) -> Vec<(String, Filter)> {
    let route = |one: &Notifier| (one.name.clone(), one.filter.clone());
    notifiers.iter().map(route).collect()
}

/// Starts a task for each; they end with the owner, or when they are aborted. That the vault is in restore mode
/// is told at once: its store takes no row.
pub fn start(
    notifiers: Vec<Notifier>,
    owner: &Owner,
    posted: &watch::Receiver<u64>,
    clock: &Clock,
    (mode, vault): (&watch::Receiver<Mode>, &Origin),
) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    if !mode.borrow().serves() {
        let kind = (Kind::RestoreMode, Severity::Alert);
        for notifier in notifiers
            .iter()
            .filter(|one| one.filter.takes(kind.0, kind.1))
        {
            let time = clock.now();
            let mut notice = Notice::new(vault.clone(), time, kind.0, kind.1);
            notice.id = format!("{vault}/restore-{}", time.ms());
            let (name, channel) = (notifier.name.clone(), notifier.channel.clone());
            let told = worker::directly(name, channel, notice.bounded(), clock.clone());
            tasks.push(tokio::spawn(told));
        }
    }
    let start = |notifier: Notifier| {
        let worker = Worker {
            name: notifier.name,
            channel: notifier.channel,
            owner: owner.downgrade(),
            posted: posted.clone(),
            clock: clock.clone(),
            mode: mode.clone(),
        };
        tokio::spawn(worker.run())
    };
    tasks.extend(notifiers.into_iter().map(start));
    tasks
}
