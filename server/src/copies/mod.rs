//! Copies: sealed versions, documents and the log, on other mounts, in `recover` format.
//!
//! Each place has a task of its own behind the owner. What it still lacks is derived, never kept: the
//! copy of the log that lies there says how far it has come, and the store says what follows. So a place
//! that was away, filled up or swapped for an empty one catches up by itself, and a crash forgets nothing.
//! A place alone and a quorum open everything in it, with this program or by hand.
//!
//! | module | job |
//! | --- | --- |
//! | [`sink`] | what a place must do; the folder |
//! | [`worker`] | brings one place up to date |
//! | `history` | whether the log that lies there is the store's, or one that was given up |
//! | [`head`] | the copy of the log's head, and what it says about the store at a start |
//!
//! # Invariants
//! 1. No ceremony waits for a place. Only a rotation does, before it changes its target, with a deadline.
//! 2. An entry is in a place's copy of the log only after all that it names was copied there.
//! 3. A place that holds another log, or more of it than the store, is not written to, and is reported.
//!    Only a log that a quorum gave up in a restore is moved aside there, and then the place begins anew.

pub mod head;
pub(crate) mod history;
pub mod sink;
pub mod worker;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use keyturn_audit::note::{OpenError, SignedCheckpoint, Vkey};
use keyturn_vault::{charter::Chain, id::CredentialId, reference::Version};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    sink::{Directory, Sink},
    worker::{Request, Worker},
};
use crate::{
    config,
    mode::{self, Mode},
    store::Store,
};

/// Requests of rotations that wait for one place at most.
const QUEUE: usize = 1024;

/// The keys that a log has had, the present one first: what lies in a place from before a restore may be
/// signed by an earlier one.
#[derive(Clone, Debug)]
pub struct LogKeys {
    present: Vkey,
    former: Vec<Vkey>,
}

impl LogKeys {
    /// The present key, and those that charters have named.
    pub fn of(present: &Vkey, chain: &Chain) -> Self {
        let mut former: Vec<Vkey> = Vec::new();
        for charter in chain.all() {
            if let Ok(key) = charter.log_key.as_str().parse::<Vkey>()
                && key.to_string() != present.to_string()
                && former
                    .iter()
                    .all(|known| known.to_string() != key.to_string())
            {
                former.push(key);
            }
        }
        Self {
            present: present.clone(),
            former,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Vkey> {
        std::iter::once(&self.present).chain(&self.former)
    }

    /// Opens a checkpoint that one of them has signed.
    pub fn open(&self, text: &str) -> Result<SignedCheckpoint, OpenError> {
        let opened = SignedCheckpoint::open(text, &self.present);
        opened.or_else(|error| {
            let mut former = self.former.iter();
            former
                .find_map(|key| SignedCheckpoint::open(text, key).ok())
                .ok_or(error)
        })
    }
}

impl From<Vkey> for LogKeys {
    fn from(present: Vkey) -> Self {
        Self {
            present,
            former: Vec::new(),
        }
    }
}

/// How a place is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, which operators are shown"
)]
pub struct Status {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it took the last thing it was given.
    pub reachable: bool,
    /// Whether everything published so far is there.
    pub complete: bool,
    /// Entries that its copy of the log has, as last seen; all that they name is there too.
    pub size: u64,
    /// Entries that it lacks.
    pub behind: u64,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// Whether it holds more of the log than the store, or another log.
    pub foreign: bool,
    /// Versions of another history that lie there, set aside.
    pub aside: usize,
    /// Whether it is on the same disk as the data, and so no copy at all when that disk is lost.
    pub same_disk: bool,
}

/// All places; clones are the same.
#[derive(Clone, Default)]
pub struct Copies {
    places: Arc<[Place]>,
}

struct Place {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
}

impl Copies {
    /// Starts a task for each place, which begins when the vault goes on. They end when the publisher does and `newest` is closed.
    pub fn start(
        sinks: Vec<(Box<dyn Sink>, bool)>,
        store: &Arc<dyn Store>,
        newest: &watch::Receiver<Option<SignedCheckpoint>>,
        mode: &watch::Receiver<Mode>,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let (mut places, mut tasks) = (Vec::new(), Vec::new());
        for (sink, same_disk) in sinks {
            let (requests, queue) = mpsc::channel(QUEUE);
            let name = sink.name().to_owned();
            let status = watch::Sender::new(Status {
                name,
                same_disk,
                ..Status::default()
            });
            places.push(Place {
                requests,
                status: status.subscribe(),
            });
            let worker = Worker::new(sink, Arc::clone(store), status);
            let (newest, mut mode) = (newest.clone(), mode.clone());
            tasks.push(tokio::spawn(async move {
                if mode::served(&mut mode).await {
                    worker.run(newest, queue).await;
                }
            }));
        }
        let places = places.into();
        (Self { places }, tasks)
    }

    /// Waits until at least `min` places hold this version, each having read it back. False when that is
    /// not so after `patience`, or cannot be: the rotation then does not begin.
    pub async fn wait(
        &self,
        credential: CredentialId,
        version: Version,
        min: usize,
        patience: Duration,
    ) -> bool {
        let mut held = 0_usize;
        if held >= min {
            return true;
        }
        let (done, mut answers) = mpsc::channel(self.places.len().max(1));
        for place in self.places.iter() {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                credential,
                version,
                reply,
            };
            if place.requests.try_send(request).is_ok() {
                let done = done.clone();
                tokio::spawn(async move {
                    // A place that gave up, or a caller that has gone, needs no word.
                    if answer.await.is_ok() {
                        let _ = done.send(()).await;
                    }
                });
            }
        }
        drop(done);
        let enough = async {
            while answers.recv().await.is_some() {
                held = held.saturating_add(1);
                if held >= min {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(patience, enough)
            .await
            .unwrap_or(false)
    }

    /// What is wrong with the places, for an operator; empty where nothing is known to be.
    pub fn problems(&self) -> String {
        let status = self.status().into_iter();
        let problems = status.filter_map(|one| Some(format!("{}: {}", one.name, one.problem?)));
        problems.collect::<Vec<_>>().join("; ")
    }

    /// How many places that answer hold all that an entry names.
    pub fn of_entry(&self, entry: u64) -> usize {
        let status = self.status().into_iter();
        status
            .filter(|one| one.reachable && one.size > entry)
            .count()
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How all places are doing.
    pub fn status(&self) -> Vec<Status> {
        let places = self.places.iter();
        places.map(|place| place.status.borrow().clone()).collect()
    }

    /// The places, to be told when one changes.
    pub fn follow(&self) -> Vec<watch::Receiver<Status>> {
        let places = self.places.iter();
        places.map(|place| place.status.clone()).collect()
    }
}

/// The places of a configuration, and whether each is on the same disk as the data.
pub fn sinks(config: &config::Copies, data: &Path, keys: &LogKeys) -> Vec<(Box<dyn Sink>, bool)> {
    let places = config.sinks.iter();
    places
        .map(|sink| {
            let place = Directory::new(sink.name(), sink.path(), keys.clone());
            let sink_box: Box<dyn Sink> = Box::new(place);
            (sink_box, same_disk(sink.path(), data))
        })
        .collect()
}

/// Whether two folders are on one file system; unknown is no.
fn same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    device(one).is_some() && device(one) == device(other)
}
