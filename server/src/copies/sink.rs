//! A place for copies: what it must be able to do, and the folder that can.
//!
//! # Invariants
//! 1. A file has its name only when it is whole and durable, and was read back as it was written.
//! 2. What lies there already with the same bytes is left alone; with others it is replaced, and said.
//! 3. The folder itself is never made: an absent mount must not be mistaken for an empty place.
//! 4. What another history left under a version's number is neither replaced nor deleted: it may be the
//!    secret that a target has now. It is moved to [`ASIDE`], where `keyturn recover` opens it (`aside.rs`).

mod aside;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use keyturn_audit::{
    note::SignedCheckpoint,
    publish::{Dir, Disk, Os, PublishError, Publisher},
    tile::{Content, TilePath, WIDTH, hashes},
    tree::Hash,
    verify::HeadError,
};
use keyturn_vault::{
    digest::Digest,
    id::{CeremonyId, CredentialId},
    layout::{File, Part, Place},
    reference::Version,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::LogKeys;

/// The largest file that is read from a place, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The folder of versions that are of another history; each number in it is a tree of its own.
pub const ASIDE: &str = "set-aside";

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
    /// Something of another history is in the way, and there is no room beside it.
    #[error("{} is full; look at what is in it, and then move it away", .0.display())]
    Aside(PathBuf),
    /// The log there cannot be continued.
    #[error("the copy of the log cannot be continued")]
    Log(#[source] PublishError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// A version as the log has it: what tells its folder from that of another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// The credential.
    pub credential: CredentialId,
    /// The version.
    pub version: Version,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The digest of its sealed secret, where the manifest is known.
    pub payload: Option<Digest>,
}

/// A place for copies. Each call may take long; none is needed for a ceremony.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Makes these files durable, in this order; those of a version come together (invariant 4).
    async fn put(&self, files: Vec<File>) -> Result<(), SinkError>;

    /// Deletes a version that the vault has destroyed; the manifest goes first (invariant 4).
    async fn remove(&self, version: Fixed) -> Result<(), SinkError>;

    /// How many versions of another history lie in [`ASIDE`].
    async fn aside(&self) -> Result<usize, SinkError>;

    /// How many entries the copy of the log has.
    async fn log_size(&self) -> Result<u64, SinkError>;

    /// The hash of a published entry in the copy of the log; none where it has no such entry, or cannot say.
    async fn leaf(&self, n: u64) -> Result<Option<Hash>, SinkError>;

    /// Moves the copy of the log aside, which this ceremony gave up; the next one begins at its first entry.
    async fn begin_anew(&self, ceremony: CeremonyId) -> Result<(), SinkError>;

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
    keys: LogKeys,
    /// Opened when it is first needed; made anew after every failure.
    log: Mutex<Option<Publisher<D>>>,
}

impl Directory {
    /// A folder that exists, for the log of these keys.
    pub fn new(name: &str, root: &Path, keys: impl Into<LogKeys>) -> Self {
        Self::on(Os, name, root, keys)
    }
}

impl<D: Disk + Clone + Send + Sync + 'static> Directory<D> {
    /// A folder of another disk; tests bring one that fails.
    pub fn on(disk: D, name: &str, root: &Path, keys: impl Into<LogKeys>) -> Self {
        let inner = Inner {
            root: root.to_owned(),
            disk,
            keys: keys.into(),
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
        self.run(move |inner| {
            for version in fixed(&files) {
                inner.clear(&version)?;
            }
            files.iter().try_for_each(|file| inner.put(file))
        })
        .await
    }

    async fn remove(&self, version: Fixed) -> Result<(), SinkError> {
        self.run(move |inner| inner.remove(&version)).await
    }

    async fn aside(&self) -> Result<usize, SinkError> {
        self.run(Inner::aside).await
    }

    async fn log_size(&self) -> Result<u64, SinkError> {
        self.run(|inner| inner.log(|log| Ok(log.size()))).await
    }

    async fn leaf(&self, n: u64) -> Result<Option<Hash>, SinkError> {
        self.run(move |inner| inner.leaf(n)).await
    }

    async fn begin_anew(&self, ceremony: CeremonyId) -> Result<(), SinkError> {
        self.run(move |inner| inner.begin_anew(ceremony)).await
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
        self.write(&path, &file.bytes)
    }

    /// Invariant 1.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        self.make_dirs(&folder)?;
        let temporary = path.with_extension("new");
        let disk = &self.disk;
        let written = disk
            .write(&temporary, bytes)
            .map_err(|source| failed("write", &temporary, source))?;
        disk.sync(&written)
            .map_err(|source| failed("make durable", &temporary, source))?;
        disk.rename(&temporary, path)
            .map_err(|source| failed("rename to", path, source))?;
        disk.sync_dir(&folder)
            .map_err(|source| failed("make durable", &folder, source))?;
        match disk.read(path, bytes.len()) {
            Ok(there) if there == bytes => Ok(()),
            Ok(_) => Err(SinkError::ReadBack(path.to_owned())),
            Err(source) => Err(failed("read back", path, source)),
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

    /// The names in a folder; none where there is no folder.
    fn names(&self, folder: &Path) -> Result<Vec<String>, SinkError> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|source| failed("list", folder, source)),
        }
    }

    fn folder(&self, version: &Fixed) -> PathBuf {
        let credential = format!("credentials/{}", version.credential);
        self.root.join(credential).join(version.version.to_string())
    }

    fn remove(&self, version: &Fixed) -> Result<(), SinkError> {
        let folder = self.folder(version);
        let manifest = folder.join(Part::Manifest.to_string());
        let names = match self.disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(|source| failed("list", &folder, source))?,
        };
        if self.foreign(version) {
            return self.clear(version);
        }
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
        let mut log = match held.take() {
            Some(log) => log,
            None => self.open_log()?,
        };
        let done = act(&mut log).map_err(SinkError::Log)?;
        *held = Some(log);
        Ok(done)
    }
}

impl<D: Disk + Clone> Inner<D> {
    /// Opens the copy of the log, whichever of the log's keys signed it last.
    fn open_log(&self) -> Result<Publisher<D>, SinkError> {
        self.finish_moving()?;
        let dir = Dir::on(self.disk.clone(), &self.root);
        let mut refused = None;
        for key in self.keys.iter() {
            match Publisher::open(dir.clone(), key) {
                Err(error @ PublishError::Head(HeadError::Open(_))) => {
                    refused.get_or_insert(error);
                }
                opened => return opened.map_err(SinkError::Log),
            }
        }
        let none = || PublishError::Head(HeadError::Read(io::ErrorKind::NotFound.into()));
        Err(SinkError::Log(refused.unwrap_or_else(none)))
    }

    fn leaf(&self, n: u64) -> Result<Option<Hash>, SinkError> {
        let size = self.log(|log| Ok(log.published().map_or(0, SignedCheckpoint::size)))?;
        let width = u64::from(WIDTH);
        let tile = n.checked_div(width).filter(|_| n < size);
        let path = tile.and_then(|tile| TilePath::new(Content::Hashes(0), tile, size));
        let Some(path) = path else { return Ok(None) };
        let dir = Dir::on(self.disk.clone(), &self.root);
        let hashes =
            hashes(&dir, path).map_err(|error| SinkError::Log(PublishError::Tile(error)))?;
        let place = n.checked_rem(width).map(usize::try_from);
        Ok(place
            .and_then(Result::ok)
            .and_then(|place| hashes.get(place).copied()))
    }
}

/// The versions whose files are among these, by what fixes them.
fn fixed(files: &[File]) -> Vec<Fixed> {
    let digest = |place: &Place| {
        let file = files.iter().find(|file| file.place == *place)?;
        Some(Digest::of(&file.bytes))
    };
    let of = |file: &File| match file.place {
        Place::Version(credential, version, Part::Manifest) => Some(Fixed {
            credential,
            version,
            manifest: Digest::of(&file.bytes),
            payload: digest(&Place::Version(credential, version, Part::Payload)),
        }),
        Place::Version(..) | Place::Readme | Place::Object(_) | Place::Path(_) => None,
    };
    files.iter().filter_map(of).collect()
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
