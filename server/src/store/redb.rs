//! The embedded engine: redb, one file, written by whoever has a transaction and read by a thread of its own.
//!
//! Reads run on one thread of the store's own over redb's snapshots and never wait for a commit; on tokio's
//! blocking threads a backup of a million rows left 70 MiB more with the allocator. A transaction is committed on
//! the thread that brings it, which blocks until it is durable: the daemon has one task that writes, and to hand
//! its commits to another thread and back cost 85 µs of every one, about as much as the commit itself.
//!
//! What makes a commit durable is a record in a journal beside the file, one write and one `fsync`. The file follows
//! when somebody looks, or is `FOLLOW` of them behind: then with all of them in one step of redb, each row once. It
//! is made durable when the journal is full. An opened file first takes from the journal what it has not.
//!
//! Its own durable commits are redb's one-phase kind: new pages, then a header with two slots whose checksums decide
//! after a crash, then one `fsync`. The second phase would guard against somebody who both chooses our bytes so that
//! xxh3 collides and orders the disk's writes during a crash. What is read back is checked anyway: against the
//! log's tree, manifests and signatures, never by trusting a row.
//!
//! # Invariants, beside those of [`super`]
//!
//! 1. A store file appears under its name only when it is whole: made beside it with its journal, the journal
//!    renamed before it, directory synced.
//! 2. A failure before a transaction is in the journal is `NotApplied`; so is one for want of space or on a read-only
//!    file system while it is written there, for then the record is not whole. Another failure of the journal, and
//!    every failed `fsync`, is `Indeterminate`, and so is everything after it.
//! 3. Whoever looks sees everything that was answered before: the file is brought forward first.
//! 4. When the engine fails, also for who only looks, the next transaction opens it anew from its file and the
//!    journal, and its revision must be the last one that is durable.
//! 5. A file that is older than its journal, or has another store's, is not opened.
//! 6. One process has the store; a second is told so.

mod engine;
mod journal;
mod watch;
mod writer;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use ::redb::{Error, StorageBackend};
use async_trait::async_trait;
use thiserror::Error as ThisError;
use tokio::sync::{mpsc, oneshot};

use self::engine::{Engine, Source, View, journal_of, open_error, open_io};
use self::writer::Writer;
use super::space::Room;
use super::{
    FormatError, Key, KeyRange, Limits, Outcome, Page, Refused, Rev, Row, Snapshot, Store,
    StoreError, Txn,
};

/// Memory for pages of the file; half of it at most holds pages that wait to be written.
pub const CACHE_BYTES: usize = 8 << 20;

/// So much of the journal is filled before the file is made durable.
pub const JOURNAL_BYTES: u64 = journal::BYTES;

/// What one transaction may hold.
pub const LIMITS: Limits = Limits {
    operations: 4_096,
    bytes: 8 << 20,
};

/// So many transactions the file may be behind the journal before the reader brings it there unasked.
const FOLLOW: usize = 32;

/// Reads that may wait for the reader before callers do.
const QUEUE_READS: usize = 1_024;

/// The beginning of every redb file.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// Why a store was not opened or made. The caller adds its path.
#[derive(Debug, ThisError)]
pub enum OpenError {
    /// There is none.
    #[error(
        "there is no store; `keyturnd init` founds a vault, `keyturnd restore` brings one back"
    )]
    Missing,
    /// There is one where a new one should be made.
    #[error("there is a store already; choose another directory, or remove it if it is not needed")]
    Exists,
    /// Another process has it.
    #[error("another process has the store open; stop the other keyturnd first")]
    InUse,
    /// It is something else, or newer than this daemon.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What it holds contradicts itself.
    #[error("the store is damaged ({0}); keep a copy and restore a backup")]
    Damaged(String),
    /// It refuses for now; try again later.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The system does not let it be read or written.
    #[error("the store cannot be opened")]
    Io(#[source] io::Error),
    /// Its disk failed to make changes durable. Abort the process before trying again.
    #[error("the store's disk failed to make changes durable; check it, then start anew")]
    SyncFailed,
}

/// What the threads of one store share. Only the writer changes the state.
struct Shared {
    source: Source,
    state: RwLock<State>,
}

enum State {
    Open(Engine),
    /// Refuses, and may be opened again.
    Closed(Refused),
    /// Closed for good.
    Shut,
    /// Nobody knows what is durable, and why: nothing is tried any more.
    Unknown(String),
}

impl Shared {
    // The process aborts on a panic, so a lock that was poisoned is never seen.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn behind(&self) -> usize {
        match &*self.read() {
            State::Open(engine) => engine.behind(),
            State::Closed(_) | State::Shut | State::Unknown(_) => 0,
        }
    }

    fn view(&self) -> Result<View, StoreError> {
        match &*self.read() {
            State::Open(engine) => engine.view().map_err(|error| unreadable(&error)),
            State::Closed(refused) => Err(StoreError::NotApplied(refused.clone())),
            State::Shut => Err(stopping()),
            State::Unknown(why) => Err(StoreError::Indeterminate(why.clone())),
        }
    }

    /// Closes the file, unless nobody knows what it holds.
    fn shut(&self) {
        let mut state = self.write();
        if !matches!(*state, State::Unknown(_)) {
            *state = State::Shut;
        }
    }
}

fn unreadable(error: &Error) -> StoreError {
    StoreError::NotApplied(Refused::Unavailable(error.to_string()))
}

type ReadJob = Box<dyn FnOnce(&Shared) + Send>;

/// A store in one redb file. Dropping it closes the file cleanly.
pub struct RedbStore {
    shared: Arc<Shared>,
    writer: Mutex<Writer>,
    reads: mpsc::Sender<ReadJob>,
}

impl RedbStore {
    /// Makes a new, empty store at `path`, readable by its owner only. Blocks.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        if path.try_exists().map_err(open_io)? {
            return Err(OpenError::Exists);
        }
        let mut beside = OsString::from(path);
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(open_io(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(&beside).map_err(open_io)?;
        drop(Engine::open(&Source::file(beside.clone()))?);
        file.sync_all().map_err(|_| OpenError::SyncFailed)?;
        fs::rename(journal_of(&beside), journal_of(path)).map_err(open_io)?;
        fs::rename(&beside, path).map_err(open_io)?;
        sync_directory(path)?;
        Self::open(path)
    }

    /// Opens the store at `path`. Blocks: under a millisecond after a clean stop, about half a second for each
    /// million rows after a crash.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut magic = Vec::new();
        File::open(path)
            .and_then(|file| file.take(9).read_to_end(&mut magic))
            .map_err(open_io)?;
        if magic != MAGIC {
            return Err(FormatError::Foreign.into());
        }
        Self::start(Source::file(path.to_owned()))
    }

    /// A store over other storage than files: the rows, and the journal. Empty rows become a new store. They are
    /// called again when the engine has to be opened anew.
    pub fn with_backend(
        rows: impl Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
        journal: impl Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let room = Room {
            free_bytes: u64::MAX,
            read_only: false,
        };
        Self::start(Source {
            rows: Box::new(rows),
            journal: Box::new(move |_| journal()),
            room: Box::new(move || Ok(room)),
        })
    }

    fn start(source: Source) -> Result<Self, OpenError> {
        let engine = Engine::open(&source)?;
        let last = engine.view().map_err(open_error)?.rev;
        let shared = Arc::new(Shared {
            source,
            state: RwLock::new(State::Open(engine)),
        });
        let writer = Mutex::new(Writer::new(shared.clone(), last));
        let (reads, mut queue) = mpsc::channel::<ReadJob>(QUEUE_READS);
        let readers = shared.clone();
        let reader = thread::Builder::new().name("store-reader".into());
        let read = reader.spawn(move || {
            while let Some(read) = queue.blocking_recv() {
                read(&readers);
            }
        });
        read.map_err(OpenError::Io)?;
        Ok(Self {
            shared,
            writer,
            reads,
        })
    }

    /// Closes the file, so that it opens quickly the next time; whoever still has the store is refused.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // It fails only when the runtime ends at this moment, which drops the store all the same.
        let _ = tokio::task::spawn_blocking(move || shared.shut()).await;
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

#[async_trait]
impl Store for RedbStore {
    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn get(&self, key: &Key) -> Result<Option<(Vec<u8>, Rev)>, StoreError> {
        let key = key.clone();
        let row = move |shared: &Shared| read_with(&shared.view()?, |view| view.row(&key));
        let row = read_on(&self.reads, row).await?;
        Ok(row.map(|row| (row.value, row.rev)))
    }

    async fn range(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError> {
        let range = range.clone();
        let page =
            move |shared: &Shared| read_with(&shared.view()?, |view| view.page(&range, limit));
        read_on(&self.reads, page).await
    }

    async fn range_back(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError> {
        let range = range.clone();
        let page =
            move |shared: &Shared| read_with(&shared.view()?, |view| view.page_back(&range, limit));
        read_on(&self.reads, page).await
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check(LIMITS).map_err(StoreError::Invalid)?;
        let outcome = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(txn)?;
        if self.shared.behind() >= FOLLOW {
            // A failure is told to whoever reads next; a reader with a full queue does it by itself.
            let follow: ReadJob = Box::new(|shared| drop(shared.view()));
            drop(self.reads.try_send(follow));
        }
        Ok(outcome)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let view = read_on(&self.reads, Shared::view).await?;
        Ok(Box::new(RedbSnapshot {
            view: Arc::new(view),
            rest: Some(KeyRange::all()),
            reads: self.reads.downgrade(),
        }))
    }
}

struct RedbSnapshot {
    view: Arc<View>,
    rest: Option<KeyRange>,
    /// Weak: a snapshot that is kept does not keep the reader.
    reads: mpsc::WeakSender<ReadJob>,
}

#[async_trait]
impl Snapshot for RedbSnapshot {
    fn rev(&self) -> Rev {
        self.view.rev
    }

    async fn next(&mut self) -> Result<Vec<Row>, StoreError> {
        let Some(range) = self.rest.clone() else {
            return Ok(Vec::new());
        };
        let view = self.view.clone();
        let page = move |_: &Shared| read_with(&view, |view| view.page(&range, usize::MAX));
        let reads = self.reads.upgrade().ok_or_else(stopping)?;
        let page = read_on(&reads, page).await?;
        self.rest = page.rest;
        Ok(page.rows)
    }
}

/// Reads on the reader's thread.
async fn read_on<T: Send + 'static>(
    reads: &mpsc::Sender<ReadJob>,
    read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let read: ReadJob = Box::new(move |shared| {
        // Who has stopped waiting needs no answer.
        let _ = reply.send(read(shared));
    });
    reads.send(read).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

fn read_with<T>(
    view: &View,
    read: impl FnOnce(&View) -> Result<T, Error>,
) -> Result<T, StoreError> {
    read(view).map_err(|error| unreadable(&error))
}

fn stopping() -> StoreError {
    StoreError::NotApplied(Refused::Unavailable("it is stopping".into()))
}

fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(parent).map_err(open_io)?;
    directory.sync_all().map_err(|_| OpenError::SyncFailed)
}

#[cfg(test)]
mod tests;
