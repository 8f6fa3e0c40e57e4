//! Watching a ceremony: states as they come, the submit key, and at last the release.
//!
//! # Invariants
//! 1. A watcher is told nothing that is not durable: it sees what the owner shows after a commit.
//! 2. The release goes to the requester only; handing it out again is logged first.

use std::{sync::Arc, time::Duration};

use keyturn_proto::v1::{self, watch_reply::What};
use keyturn_vault::{
    ceremony::{End, Event, State},
    id::{CeremonyId, PersonId},
};
use tonic::Status;

use super::{ceremony::Service, convert};
use crate::owner::{
    Needs,
    core::{Core, Seen},
};

/// A watcher hears something at least this often.
const ALIVE: Duration = Duration::from_secs(15);

/// One watcher of one ceremony, until it is over, the watcher is gone, or the daemon stops.
pub(super) struct Watcher {
    pub(super) service: Service,
    pub(super) id: CeremonyId,
    pub(super) caller: PersonId,
    pub(super) sender: tokio::sync::mpsc::Sender<Result<v1::WatchReply, Status>>,
    pub(super) with_release: bool,
}

impl Watcher {
    /// Tells until there is nothing more to tell.
    pub(super) async fn run(
        self,
        mut seen: tokio::sync::watch::Receiver<Arc<Seen>>,
        mut revision: u64,
    ) {
        let mut stop = self.service.0.stop.clone();
        let mut submit_key = Vec::new();
        loop {
            let now = Arc::clone(&seen.borrow_and_update());
            if self
                .tell(&now, &mut revision, &mut submit_key)
                .await
                .is_none()
            {
                return;
            }
            let alive = tokio::select! {
                changed = seen.changed() => if changed.is_err() { return } else { false },
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.sender.closed() => return,
                () = tokio::time::sleep(ALIVE) => true,
            };
            if alive && self.alive().await.is_none() {
                return;
            }
        }
    }

    /// Sends what is new; none when there is nothing more to wait for.
    async fn tell(&self, now: &Seen, revision: &mut u64, submit_key: &mut Vec<u8>) -> Option<()> {
        let over = now.state.is_final();
        if now.opens && !over {
            let desk = match self.service.0.desks.of(self.id) {
                // Told of, and forgotten since: the ceremony is over, which is shown next.
                None if !submit_key.is_empty() => None,
                // Over since what is told here was seen: the end is shown next.
                None => self.service.0.desk(self.id).await.ok(),
                desk => desk,
            };
            if let Some(desk) = desk.filter(|desk| *submit_key != desk.submit_key_sha256.0) {
                *submit_key = desk.submit_key_sha256.0.to_vec();
                self.send(What::SubmitKey(convert::wire_text(&desk.submit_key)))
                    .await?;
            }
        }
        if now.view.revision > *revision || *revision == 0 {
            *revision = now.view.revision.max(1);
            self.send(What::Ceremony(now.view.clone())).await?;
        }
        if !over {
            return Some(());
        }
        if self.with_release && now.state == State::Ended(End::Released { kept: true }) {
            self.send(What::Release(self.release(now).await?)).await?;
        }
        None
    }

    /// The release with its receipts: at hand when it was just made, otherwise fetched and logged.
    async fn release(&self, now: &Seen) -> Option<v1::Release> {
        if let Some(release) = &now.release {
            return Some(v1::Release::clone(release));
        }
        let (id, caller) = (self.id, self.caller);
        let step = move |core: &mut Core, txn: &mut _| {
            let actor = core
                .reference(caller)
                .map(|person| person.to_string())
                .unwrap_or_default();
            core.step_ceremony(txn, id, Event::Fetch(caller), &actor)?;
            core.fetched(id)
        };
        let (live, _) = self
            .service
            .0
            .owner
            .ask(Needs::ceremony(id), step)
            .await
            .ok()?;
        self.service.release(live).await.ok()
    }

    async fn alive(&self) -> Option<()> {
        let view = self.service.view(self.id).await.ok()?;
        self.send(What::Alive(v1::Alive {
            left_secs: view.left_secs,
            waiting_secs: view.waiting_secs,
        }))
        .await
    }

    async fn send(&self, what: What) -> Option<()> {
        self.sender
            .send(Ok(v1::WatchReply { what: Some(what) }))
            .await
            .ok()
    }
}
