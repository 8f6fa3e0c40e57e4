//! What the disk said: a storage backend that passes everything on and remembers how it failed.
//!
//! redb tells that a commit failed; whether it may have happened depends on what failed and on what had
//! reached the disk before. The header lies at offset 0, is written during a commit only, and names the new
//! pages: until it is synced no crash can bring the transaction to life, for a page that could not be written
//! makes its checksums wrong.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::{BackendError, StorageBackend};

use crate::store::Refused;

/// What is known about the engine's failures since the last commit began.
#[derive(Debug, Default)]
pub(super) struct Watch {
    header_written: AtomicBool,
    header_synced: AtomicBool,
    sync_failed: AtomicBool,
    failed: Mutex<Option<ErrorKind>>,
}

/// How a failure is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Certainly nothing is applied.
    Refused(Refused),
    /// An `fsync` failed: what is durable is unknown, for ever.
    SyncFailed,
    /// Something else.
    Other,
}

impl Watch {
    /// A commit begins.
    pub(super) fn begin(&self) {
        self.header_written.store(false, Ordering::SeqCst);
        self.header_synced.store(false, Ordering::SeqCst);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Judges what failed since; a failed `fsync` is never forgotten.
    pub(super) fn verdict(&self) -> Verdict {
        if self.sync_failed.load(Ordering::SeqCst) {
            return Verdict::SyncFailed;
        }
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.and_then(refusal) {
            Some(refused) if !self.header_synced.load(Ordering::SeqCst) => {
                Verdict::Refused(refused)
            }
            _ => Verdict::Other,
        }
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
        match self.inner.sync_data() {
            Ok(()) => {
                if self.watch.header_written.load(Ordering::SeqCst) {
                    self.watch.header_synced.store(true, Ordering::SeqCst);
                }
                Ok(())
            }
            Err(error) => {
                self.watch.sync_failed.store(true, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 {
            self.watch.header_written.store(true, Ordering::SeqCst);
        }
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
