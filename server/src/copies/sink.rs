//! A place for copies: what it must be able to do, and the folder that can.
//!
//! # Invariants
//! 1. A file has its name only when it is whole and durable, and was read back as it was written.
//! 2. What lies there already with the same bytes is left alone; with others it is replaced, and said.
//! 3. The folder itself is never made: an absent mount must not be mistaken for an empty place.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use keyturn_audit::{
    note::{SignedCheckpoint, Vkey},
    publish::{Dir, Disk, Os, PublishError, Publisher},
};
use keyturn_vault::{
    id::CredentialId,
    layout::{File, Part, Place},
    reference::Version,
};
use thiserror::Error;

/// The largest file that is read from a place, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Why a place did not take or give something.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The folder is not there.
    #[error("{} is not there; is it mounted?", .0.display())]
    Away(PathBuf),
    /// The system says no.
    #[error("cannot {task} {}", path.display())]
    Io {
        /// What was tried.
        task: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else came back than was written.
    #[error("{} reads back as something else; the medium is failing", .0.display())]
    ReadBack(PathBuf),
    /// The log there cannot be continued.
    #[error("the copy of the log cannot be continued")]
    Log(#[source] PublishError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// A place for copies. Each call may take long; none is needed for a ceremony.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Makes these files durable, in this order.
    async fn put(&self, files: Vec<File>) -> Result<(), SinkError>;

    /// Deletes a version that the vault has destroyed; the manifest goes first.
    async fn remove(&self, credential: CredentialId, version: Version) -> Result<(), SinkError>;

    /// How many entries the copy of the log has.
    async fn log_size(&self) -> Result<u64, SinkError>;

    /// Continues the copy of the log; with a checkpoint over exactly its entries it is published.
    async fn append(
        &self,
        entries: Vec<Vec<u8>>,
        checkpoint: Option<SignedCheckpoint>,
    ) -> Result<(), SinkError>;
}

/// A folder on another mount.
pub struct Directory<D: Disk = Os> {
    name: String,
    inner: Arc<Inner<D>>,
}

struct Inner<D: Disk> {
    root: PathBuf,
    disk: D,
    vkey: Vkey,
    /// Opened when it is first needed; made anew after every failure.
    log: Mutex<Option<Publisher<D>>>,
}

impl Directory {
    /// A folder that exists, for the log of this key.
    pub fn new(name: &str, root: &Path, vkey: Vkey) -> Self {
        Self::on(Os, name, root, vkey)
    }
}

impl<D: Disk + Clone + Send + Sync + 'static> Directory<D> {
    /// A folder of another disk; tests bring one that fails.
    pub fn on(disk: D, name: &str, root: &Path, vkey: Vkey) -> Self {
        let inner = Inner {
            root: root.to_owned(),
            disk,
            vkey,
            log: Mutex::new(None),
        };
        Self {
            name: name.to_owned(),
            inner: Arc::new(inner),
        }
    }

    /// Runs on a thread where waiting harms nobody.
    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner<D>) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError>
    where
        Publisher<D>: Send,
    {
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            inner.present()?;
            act(&inner)
        });
        task.await.map_err(|_| SinkError::Stopping)?
    }
}

#[async_trait]
impl<D: Disk + Clone + Send + Sync + 'static> Sink for Directory<D> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, files: Vec<File>) -> Result<(), SinkError> {
        self.run(move |inner| files.iter().try_for_each(|file| inner.put(file)))
            .await
    }

    async fn remove(&self, credential: CredentialId, version: Version) -> Result<(), SinkError> {
        self.run(move |inner| inner.remove(credential, version))
            .await
    }

    async fn log_size(&self) -> Result<u64, SinkError> {
        self.run(|inner| inner.log(|log| Ok(log.size()))).await
    }

    async fn append(
        &self,
        entries: Vec<Vec<u8>>,
        checkpoint: Option<SignedCheckpoint>,
    ) -> Result<(), SinkError> {
        self.run(move |inner| {
            inner.log(|log| {
                log.append(&entries)?;
                checkpoint.map_or(Ok(()), |checkpoint| log.publish(&checkpoint))
            })
        })
        .await
    }
}

impl<D: Disk + Clone> Inner<D> {
    /// Invariant 3.
    fn present(&self) -> Result<(), SinkError> {
        match self.disk.list(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SinkError::Away(self.root.clone()))
            }
            Err(error) => Err(failed("list", &self.root, error)),
            Ok(_) => Ok(()),
        }
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.root.join(place.to_string())
    }

    fn put(&self, file: &File) -> Result<(), SinkError> {
        let path = self.path(&file.place);
        match self.disk.read(&path, file.bytes.len()) {
            Ok(bytes) if bytes == file.bytes => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => {
                tracing::warn!(path = %path.display(), "a copy is not as it was written; writing it anew");
            }
        }
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        self.make_dirs(&folder)?;
        let temporary = path.with_extension("new");
        let disk = &self.disk;
        let written = disk
            .write(&temporary, &file.bytes)
            .map_err(|source| failed("write", &temporary, source))?;
        disk.sync(&written)
            .map_err(|source| failed("make durable", &temporary, source))?;
        disk.rename(&temporary, &path)
            .map_err(|source| failed("rename to", &path, source))?;
        disk.sync_dir(&folder)
            .map_err(|source| failed("make durable", &folder, source))?;
        match disk.read(&path, file.bytes.len()) {
            Ok(bytes) if bytes == file.bytes => Ok(()),
            Ok(_) => Err(SinkError::ReadBack(path)),
            Err(source) => Err(failed("read back", &path, source)),
        }
    }

    /// Makes folders below the root, each durable in its parent.
    fn make_dirs(&self, folder: &Path) -> Result<(), SinkError> {
        let below = folder.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let mut parent = self.root.clone();
        for part in below.components() {
            let next = parent.join(part);
            let made = self.disk.make_dir(&next);
            if made.map_err(|source| failed("make", &next, source))? {
                let synced = self.disk.sync_dir(&parent);
                synced.map_err(|source| failed("make durable", &parent, source))?;
            }
            parent = next;
        }
        Ok(())
    }

    fn remove(&self, credential: CredentialId, version: Version) -> Result<(), SinkError> {
        let manifest = self.path(&Place::Version(credential, version, Part::Manifest));
        let folder = manifest.parent().unwrap_or(&self.root).to_owned();
        let names = match self.disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(|source| failed("list", &folder, source))?,
        };
        let others = names.iter().map(|name| folder.join(name));
        for path in std::iter::once(manifest.clone()).chain(others) {
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path, error));
                }
                _ => {}
            }
        }
        let gone = self.disk.remove_dir(&folder);
        gone.map_err(|source| failed("remove", &folder, source))?;
        let parent = folder.parent().unwrap_or(&self.root);
        let synced = self.disk.sync_dir(parent);
        synced.map_err(|source| failed("make durable", parent, source))
    }

    fn log<T>(
        &self,
        act: impl FnOnce(&mut Publisher<D>) -> Result<T, PublishError>,
    ) -> Result<T, SinkError> {
        // The process aborts on a panic, so a poisoned lock is never seen.
        let mut held = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = if let Some(log) = held.take() {
            log
        } else {
            let dir = Dir::on(self.disk.clone(), &self.root);
            Publisher::open(dir, &self.vkey).map_err(SinkError::Log)?
        };
        let done = act(&mut log).map_err(SinkError::Log)?;
        *held = Some(log);
        Ok(done)
    }
}

/// Reads a file of a folder in the `recover` format.
pub fn read(root: &Path, place: &Place, limit: usize) -> io::Result<Vec<u8>> {
    Os.read(&root.join(place.to_string()), limit.min(MAX_FILE_BYTES))
}

fn failed(task: &'static str, path: &Path, source: io::Error) -> SinkError {
    SinkError::Io {
        task,
        path: path.to_owned(),
        source,
    }
}
