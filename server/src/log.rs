//! The log as a directory: a task behind the owner writes what was committed.
//!
//! Objects first, then tiles, then the checkpoint, as `keyturn_audit::publish` explains. Everything here
//! is derived from the store and can be made again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keyturn_audit::{
    note::{LogKey, SignedCheckpoint},
    publish::{Dir, PublishError, Publisher},
};
use keyturn_vault::digest::Digest;
use tokio::sync::watch;

use crate::mode::{self, Mode};
use crate::store::{KeyRange, MAX_PAGE_ROWS, Name, Store, StoreError, key::Family};

/// Entries that come within this time are published together.
pub const COALESCE: Duration = Duration::from_millis(100);
/// Documents that are published together; each has up to a mebibyte.
const AT_ONCE: usize = 64;
/// A reader waits this long for what is committed to be published.
const PATIENCE: Duration = Duration::from_secs(10);

/// Documents that were committed and are not published yet; clones are the same.
pub type Objects = Arc<Mutex<Vec<Digest>>>;

/// The log as others can read it; clones are the same.
#[derive(Clone)]
pub struct Published {
    dir: Dir,
    newest: watch::Receiver<Option<SignedCheckpoint>>,
    heads: watch::Receiver<u64>,
}

impl Published {
    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The newest checkpoint that is published.
    pub fn newest(&self) -> Option<SignedCheckpoint> {
        self.newest.borrow().clone()
    }

    /// How many entries are committed.
    pub fn committed(&self) -> u64 {
        *self.heads.borrow()
    }

    /// The newest checkpoint over all that is committed now: nobody who has a receipt gets an older one. What is
    /// published, when publishing stands still; none when nothing is committed.
    pub async fn current(&self) -> Option<SignedCheckpoint> {
        let size = self.committed();
        if size == 0 {
            return None;
        }
        let reached = tokio::time::timeout(PATIENCE, self.reaching(size)).await;
        reached.unwrap_or_else(|_| self.newest())
    }

    /// Waits for a checkpoint over at least `size` entries; none when the daemon stops first.
    pub async fn reaching(&self, size: u64) -> Option<SignedCheckpoint> {
        let mut newest = self.newest.clone();
        let reached = newest
            .wait_for(|newest| newest.as_ref().is_some_and(|newest| newest.size() >= size))
            .await;
        reached.ok().and_then(|reached| reached.clone())
    }

    /// The checkpoints as they come.
    pub fn follow(&self) -> watch::Receiver<Option<SignedCheckpoint>> {
        self.newest.clone()
    }
}

/// The task that publishes.
pub struct Printer {
    publisher: Publisher,
    store: Arc<dyn Store>,
    key: Arc<LogKey>,
    newest: watch::Sender<Option<SignedCheckpoint>>,
    heads: watch::Receiver<u64>,
    objects: Objects,
    /// After an unclean stop nobody knows which documents were published: all are looked at once.
    all_objects: bool,
}

/// Why publishing stands still; the log itself is not touched by it.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The directory.
    #[error("the log's directory cannot be written")]
    Publish(#[from] PublishError),
    /// The store.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// The store has no such entry.
    #[error("entry {0} is not in the store")]
    Missing(u64),
    /// The key.
    #[error("the log key cannot sign")]
    Key,
}

impl Printer {
    /// Over what is published already. What does not fit the key or the tiles is made anew.
    pub fn open(
        dir: Dir,
        store: Arc<dyn Store>,
        key: Arc<LogKey>,
        objects: Objects,
        heads: watch::Receiver<u64>,
    ) -> (Self, Published) {
        let publisher = Publisher::open(dir.clone(), key.vkey()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the published log is made anew from the store");
            Publisher::rebuild(dir.clone())
        });
        let newest = watch::Sender::new(publisher.published().cloned());
        let published = Published {
            dir,
            newest: newest.subscribe(),
            heads: heads.clone(),
        };
        (
            Self {
                publisher,
                store,
                key,
                newest,
                heads,
                objects,
                all_objects: true,
            },
            published,
        )
    }

    /// Publishes whenever the log has grown, until the owner is gone; nothing in restore mode.
    pub async fn run(mut self, mut mode: watch::Receiver<Mode>) {
        if !mode::served(&mut mode).await {
            return;
        }
        loop {
            let size = *self.heads.borrow_and_update();
            if let Err(error) = self.catch_up(size).await {
                tracing::error!(%error, "the log is not published; trying again");
                tokio::time::sleep(Duration::from_secs(5)).await;
                continue;
            }
            if self.heads.changed().await.is_err() {
                // The last commits of a graceful stop are published too.
                let size = *self.heads.borrow();
                if let Err(error) = self.catch_up(size).await {
                    tracing::error!(%error, "the log is not published; the next start does it");
                }
                return;
            }
            tokio::time::sleep(COALESCE).await;
        }
    }

    /// Publishes everything up to `size` entries.
    pub async fn catch_up(&mut self, size: u64) -> Result<(), PrintError> {
        if size == 0
            || self
                .newest
                .borrow()
                .as_ref()
                .is_some_and(|newest| newest.size() >= size)
        {
            return Ok(());
        }
        self.objects().await?;
        while self.publisher.size() < size {
            let from = self.publisher.size();
            let page = self
                .store
                .range(&KeyRange::entries(from, size), MAX_PAGE_ROWS)
                .await?;
            if page.rows.is_empty() {
                return Err(PrintError::Missing(from));
            }
            let entries: Vec<&[u8]> = page
                .rows
                .iter()
                .filter_map(|row| row.value.split_first().map(|(_, rest)| rest))
                .collect();
            self.publisher.append(&entries)?;
        }
        let edge = self.publisher.edge();
        let checkpoint = self
            .key
            .sign(edge.size(), edge.root())
            .map_err(|_| PrintError::Key)?;
        self.publisher.publish(&checkpoint)?;
        self.newest.send_replace(Some(checkpoint));
        Ok(())
    }

    /// Writes the documents that are not there yet.
    async fn objects(&mut self) -> Result<(), PrintError> {
        if std::mem::take(&mut self.all_objects) {
            return self.every_object().await;
        }
        let new: Vec<Digest> =
            std::mem::take(&mut *self.objects.lock().unwrap_or_else(PoisonError::into_inner));
        for some in new.chunks(AT_ONCE) {
            let mut documents = Vec::with_capacity(some.len());
            for digest in some {
                if let Some((mut bytes, _)) = self.store.get(&Name::Object(*digest).key()).await?
                    && !bytes.is_empty()
                {
                    documents.push(bytes.split_off(1));
                }
            }
            self.publisher.objects(&documents)?;
        }
        Ok(())
    }

    async fn every_object(&mut self) -> Result<(), PrintError> {
        let mut next = Some(KeyRange::family(Family::Object));
        while let Some(range) = next {
            let page = self.store.range(&range, MAX_PAGE_ROWS).await?;
            let lacking = page.rows.iter().filter_map(|row| {
                let Name::Object(digest) = row.key.name()? else {
                    return None;
                };
                let (_, bytes) = row.value.split_first()?;
                (!self.publisher.has_object(&digest.0, bytes.len())).then_some(bytes)
            });
            let lacking: Vec<_> = lacking.collect();
            self.publisher.objects(&lacking)?;
            next = page.rest;
        }
        Ok(())
    }
}
