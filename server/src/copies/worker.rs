//! Brings one place up to date and keeps it so.
//!
//! The order for each piece of the log: what its entries name is copied, then the entries, and at the
//! end the checkpoint. Whatever happens in between, the next start begins where the copy of the log ends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use keyturn_audit::{entry::Entry, note::SignedCheckpoint, publish::PublishError};
use keyturn_vault::{
    charter::Charter,
    definition::Definition,
    digest::Digest,
    event::Event,
    id::CredentialId,
    jcs::Document as _,
    layout::{File, SealedVersion},
    manifest::Manifest,
    reference::Version,
    text::{self, Purpose, Text as _},
    world::VersionId,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Status,
    history::{self, HistoryError},
    sink::{Fixed, Sink, SinkError},
};
use crate::{
    refusal::Refused,
    rows::{self, document, object, read},
    store::{KeyRange, Name, Store, StoreError},
    telemetry::whole,
};

/// Entries that are copied in one piece.
const PIECE: usize = 256;
/// The first wait after a failure; it doubles with every one that ran out.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, and the longest while a rotation waits too.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
const LONGEST_WAIT_ASKED: Duration = Duration::from_secs(5);

/// A rotation that waits for a version.
pub struct Request {
    pub(super) credential: CredentialId,
    pub(super) version: Version,
    /// Answered when the version is there; dropped by a caller that has gone.
    pub(super) reply: oneshot::Sender<()>,
}

/// Why a place is not up to date.
#[derive(Debug, Error)]
enum CopyError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("a row of the store cannot be read")]
    Row(#[from] Refused),
    #[error("entry {0} is not in the store, or not one that this daemon knows")]
    Entry(u64),
    #[error(
        "version {1} of {0} in the store is not what its manifest lists; restore it from another copy"
    )]
    Version(CredentialId, u64),
    #[error(
        "it holds {there} entries of the log and the store {here}: was the store set back? the next start compares them"
    )]
    Ahead { there: u64, here: u64 },
    #[error(
        "the copy of the log there is of another history, of {0} entries; nothing is written there"
    )]
    Forked(u64),
}

impl CopyError {
    /// Whether the log there is not the store's.
    const fn is_foreign(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Forked(_) => true,
            Self::Sink(SinkError::Log(error)) => {
                matches!(error, PublishError::Mismatch { .. } | PublishError::Head(_))
            }
            Self::Sink(_) | Self::Store(_) | Self::Row(_) | Self::Entry(_) | Self::Version(..) => {
                false
            }
        }
    }
}

impl From<HistoryError> for CopyError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Sink(error) => Self::Sink(error),
            HistoryError::Store(error) => Self::Row(error),
        }
    }
}

/// Brings a place up to a checkpoint once; says why not.
pub(crate) async fn fill(
    sink: Box<dyn Sink>,
    store: &Arc<dyn Store>,
    newest: &SignedCheckpoint,
) -> Result<(), String> {
    let status = watch::Sender::new(Status::default());
    let worker = &mut Worker::new(sink, Arc::clone(store), status);
    worker.catch_up(newest).await.map_err(|error| whole(&error))
}

/// The task of one place.
pub(super) struct Worker {
    sink: Box<dyn Sink>,
    store: Arc<dyn Store>,
    status: watch::Sender<Status>,
    waiting: Vec<Request>,
    wait: Duration,
    /// Whether the log there was seen to be the store's, since the last failure.
    ours: bool,
}

impl Worker {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        store: Arc<dyn Store>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            sink,
            store,
            status,
            waiting: Vec::new(),
            wait: FIRST_WAIT,
            ours: false,
        }
    }

    /// Runs until the publisher ends.
    pub(super) async fn run(
        mut self,
        mut newest: watch::Receiver<Option<SignedCheckpoint>>,
        mut requests: mpsc::Receiver<Request>,
    ) {
        loop {
            let checkpoint = newest.borrow_and_update().clone();
            let outcome = self.turn(checkpoint.as_ref()).await;
            let failed = outcome.is_err();
            // It may be another medium when it is back.
            self.ours &= !failed;
            self.report(checkpoint.as_ref(), outcome);
            let longest = if self.waiting.is_empty() {
                LONGEST_WAIT
            } else {
                LONGEST_WAIT_ASKED
            };
            let wait = self.wait.min(longest);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.waiting.push(request),
                    // Nobody can ask any more; what is published still goes on.
                    None => if newest.changed().await.is_err() { return },
                },
                changed = newest.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait), if failed => {
                    self.wait = wait.saturating_mul(2);
                }
            }
            while let Ok(request) = requests.try_recv() {
                self.waiting.push(request);
            }
        }
    }

    /// What rotations wait for first, then the log with all that it names. A place that knows more than
    /// the store is told first: nothing there may be written over.
    async fn turn(&mut self, newest: Option<&SignedCheckpoint>) -> Result<(), CopyError> {
        let Some(newest) = newest else { return Ok(()) };
        self.begins(newest).await?;
        let mut unanswered = Vec::new();
        let mut problem = None;
        for request in std::mem::take(&mut self.waiting) {
            if request.reply.is_closed() {
                continue;
            }
            match self.version(request.credential, request.version).await {
                // A caller that has gone meanwhile needs no answer; what is not there gets none.
                Ok(true) => drop(request.reply.send(())),
                Ok(false) => drop(request),
                Err(error) => {
                    problem = Some(error);
                    unanswered.push(request);
                }
            }
        }
        self.waiting = unanswered;
        if let Some(problem) = problem {
            return Err(problem);
        }
        self.catch_up(newest).await
    }

    /// Entries that the place has. One with another log is left alone, unless that log was given up.
    async fn begins(&mut self, newest: &SignedCheckpoint) -> Result<u64, CopyError> {
        let (there, here) = (self.sink.log_size().await?, newest.size());
        self.status.send_modify(|status| status.size = there);
        let (sink, store) = (self.sink.as_ref(), self.store.as_ref());
        let last = there.checked_sub(1).filter(|_| !self.ours || there > here);
        let Some(last) = last else { return Ok(there) };
        self.ours = there <= here && history::same(sink, store, last).await?;
        if self.ours {
            return Ok(there);
        }
        if let Some(ceremony) = history::given_up(sink, store, there).await? {
            sink.begin_anew(ceremony).await?;
            tracing::warn!(sink = %sink.name(), %ceremony, "the log there was given up and is moved aside");
            return Ok(0);
        }
        Err(if there > here {
            CopyError::Ahead { there, here }
        } else {
            CopyError::Forked(there)
        })
    }

    async fn catch_up(&mut self, newest: &SignedCheckpoint) -> Result<(), CopyError> {
        let here = newest.size();
        let mut from = self.begins(newest).await?;
        if from == 0 {
            self.sink.put(vec![File::readme()]).await?;
        }
        while from < here {
            let range = KeyRange::entries(from, here);
            let page = self.store.range(&range, PIECE).await?;
            let mut entries = Vec::with_capacity(page.rows.len());
            for row in &page.rows {
                let (_, bytes) = row.value.split_first().ok_or(CopyError::Entry(from))?;
                self.entry(from, bytes).await?;
                entries.push(bytes.to_vec());
                from = from.saturating_add(1);
            }
            if entries.is_empty() {
                return Err(CopyError::Entry(from));
            }
            let last = (from >= here).then(|| newest.clone());
            self.sink.append(entries, last).await?;
            self.status.send_modify(|status| {
                status.size = from;
                status.behind = here.saturating_sub(from);
            });
        }
        let aside = self.sink.aside().await?;
        self.status.send_if_modified(|status| {
            let changed = status.aside != aside;
            status.aside = aside;
            changed
        });
        Ok(())
    }

    /// Copies all that an entry names (invariant 2).
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other kinds of entries name nothing that is copied"
    )]
    async fn entry(&self, n: u64, bytes: &[u8]) -> Result<(), CopyError> {
        let entry = Entry::decode(bytes).map_err(|_| CopyError::Entry(n))?;
        let event = Event::parse(&entry.kind, &entry.body).map_err(|_| CopyError::Entry(n))?;
        match event {
            Event::VersionSealed {
                version, manifest, ..
            }
            | Event::VersionRecovered {
                version, manifest, ..
            } => {
                if self.version(version.credential, version.version).await? {
                    return Ok(());
                }
                // It is destroyed; whoever follows the log wants its manifest all the same.
                match self.object(manifest).await {
                    Err(CopyError::Row(Refused::Row)) => Ok(()),
                    other => other,
                }
            }
            Event::VersionDestroyed { version } => self.destroyed(version).await,
            Event::CeremonyOpened { request, .. } => {
                let request =
                    text::Request::parse(&request.text).map_err(|_| CopyError::Entry(n))?;
                match request.purpose {
                    Purpose::AcceptRestore(accepted) => self.object(accepted.documents).await,
                    _ => Ok(()),
                }
            }
            Event::CredentialDefined { definition, .. } => self.object(definition).await,
            Event::VaultFounded { charter, .. } | Event::CharterInForce { charter, .. } => {
                self.charter(charter.digest).await
            }
            _ => Ok(()),
        }
    }

    async fn object(&self, digest: Digest) -> Result<(), CopyError> {
        let bytes = object(self.store.as_ref(), digest).await?;
        Ok(self.sink.put(vec![File::object(bytes)]).await?)
    }

    async fn charter(&self, digest: Digest) -> Result<(), CopyError> {
        let bytes = object(self.store.as_ref(), digest).await?;
        let charter = Charter::from_bytes(&bytes).map_err(|_| Refused::Row)?;
        let tokens = charter.persons.iter().flat_map(|person| &person.tokens);
        let attested: BTreeSet<_> = tokens
            .filter_map(|token| Some(token.attestation.as_ref()?.object))
            .collect();
        for attestation in attested {
            self.object(attestation).await?;
        }
        Ok(self.sink.put(vec![File::object(bytes)]).await?)
    }

    /// Copies a version, or sees that it is there; false when the store has no such version (any more).
    async fn version(&self, credential: CredentialId, version: Version) -> Result<bool, CopyError> {
        let Some(sealed) = load(self.store.as_ref(), credential, version).await? else {
            return Ok(false);
        };
        let files = sealed
            .files()
            .map_err(|_| CopyError::Version(credential, version.number()))?;
        self.sink.put(files).await?;
        Ok(true)
    }

    async fn destroyed(&self, id: VersionId) -> Result<(), CopyError> {
        let VersionId {
            credential,
            version,
        } = id;
        let store = self.store.as_ref();
        let row: Option<rows::Credential> =
            read(store, &Name::Credential(credential).key()).await?;
        let Some(state) = row.and_then(|mut row| row.versions.remove(&version)) else {
            return Ok(());
        };
        let manifest = document::<Manifest>(store, state.manifest).await.ok();
        let fixed = Fixed {
            credential,
            version,
            manifest: state.manifest,
            payload: manifest.map(|manifest| manifest.ciphertext),
        };
        Ok(self.sink.remove(fixed).await?)
    }

    fn report(&mut self, newest: Option<&SignedCheckpoint>, outcome: Result<(), CopyError>) {
        let before = self.status.borrow().clone();
        let mut now = Status {
            reachable: true,
            complete: outcome.is_ok(),
            problem: None,
            foreign: outcome.as_ref().is_err_and(CopyError::is_foreign),
            behind: 0,
            ..before.clone()
        };
        match outcome {
            Ok(()) => self.wait = FIRST_WAIT,
            Err(error) => {
                now.reachable = !matches!(
                    error,
                    CopyError::Sink(
                        SinkError::Away(_)
                            | SinkError::Io { .. }
                            | SinkError::ReadBack(_)
                            | SinkError::Log(
                                PublishError::Failed { .. } | PublishError::Unsynced { .. }
                            )
                    )
                );
                let size = newest.map_or(0, SignedCheckpoint::size);
                now.behind = size.saturating_sub(before.size);
                now.problem = Some(whole(&error));
            }
        }
        if before.problem != now.problem {
            let (name, problem) = (&now.name, now.problem.as_deref());
            if let Some(problem) = problem {
                tracing::warn!(sink = %name, problem, "a copy is not up to date");
            } else {
                tracing::info!(sink = %name, "the copy is up to date");
            }
        }
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}

/// A version as it is in the store, checked against its manifest; none when it was destroyed.
pub async fn load(
    store: &dyn Store,
    credential: CredentialId,
    version: Version,
) -> Result<Option<SealedVersion>, Refused> {
    let row: Option<rows::Credential> = read(store, &Name::Credential(credential).key()).await?;
    let Some(state) = row.and_then(|mut row| row.versions.remove(&version)) else {
        return Ok(None);
    };
    let key = Name::Version(credential, version.number()).key();
    let Some(blob) = read::<rows::Blob>(store, &key).await? else {
        return Ok(None);
    };
    let manifest: Manifest = document(store, state.manifest).await?;
    let definition: Definition = document(store, manifest.definition).await?;
    let envelopes = blob.envelopes.into_iter().map(|share| share.envelope);
    Ok(Some(SealedVersion {
        definition,
        manifest,
        signature: blob.signature,
        payload: blob.ciphertext,
        envelopes: envelopes.collect(),
    }))
}
