//! What the disk said: a storage backend that passes everything on and remembers how it failed.
//!
//! redb tells that something failed. Whether the store may go on depends on how: after a failed `fsync` nobody
//! knows what the file holds; after anything else it is opened anew, and the journal has what it may lack.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::{BackendError, StorageBackend};

use crate::store::Refused;

/// What is known about the engine's failures since it was opened.
#[derive(Debug, Default)]
pub(super) struct Watch {
    sync_failed: AtomicBool,
    failed: Mutex<Option<ErrorKind>>,
}

/// How a failure is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The disk takes nothing for now.
    Refused(Refused),
    /// An `fsync` failed: what is durable is unknown, for ever.
    SyncFailed,
    /// Something else.
    Other,
}

impl Watch {
    /// Whether anything failed: redb does nothing more then, and is opened anew.
    pub(super) fn failed(&self) -> bool {
        self.sync_failed.load(Ordering::SeqCst) || self.kind().is_some()
    }

    /// Judges what failed.
    pub(super) fn verdict(&self) -> Verdict {
        if self.sync_failed.load(Ordering::SeqCst) {
            return Verdict::SyncFailed;
        }
        self.kind()
            .and_then(refusal)
            .map_or(Verdict::Other, Verdict::Refused)
    }

    fn kind(&self) -> Option<ErrorKind> {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some(error.kind());
        })
    }
}

/// Kinds of failure that leave the disk as it was.
pub(super) fn refusal(kind: ErrorKind) -> Option<Refused> {
    if matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    ) {
        Some(Refused::NoSpace)
    } else if kind == ErrorKind::ReadOnlyFilesystem {
        Some(Refused::ReadOnly)
    } else {
        None
    }
}

/// The backend with its [`Watch`].
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    watch: Arc<Watch>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn StorageBackend>, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.watch.note(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.note(self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner
            .sync_data()
            .inspect_err(|_| self.watch.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch.note(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
