//! Publishing: the log as a directory that anybody can copy, serve and verify.
//!
//! What lies there is derived from the store and can be rebuilt from it. So a failed write loses nothing; but a reader
//! must never find a checkpoint whose tiles are missing, not even after a power cut. The order of writing sees to that:
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1. each object and tile: write a temporary file, fsync it, rename it into place | the old checkpoint, whole; files that nothing refers to yet |
//! | 2. fsync every directory that got a file | the same, and the new files stay |
//! | 3. the checkpoint: temporary file, fsync | the same |
//! | 4. rename it into place | the old or the new checkpoint; the tiles of both are there |
//! | 5. fsync the directory of the log | the new checkpoint |
//! | 6. remove partial tiles whose full tile is there now | the new checkpoint, and perhaps some superfluous files |
//!
//! Whoever publishes goes on where the directory ends: after a start, everything from [`Publisher::size`] on comes out of
//! the store again, in pieces of any length, whether the directory is one batch behind or was lost.
//!
//! Temporary files have few names in `.tmp`, so that a crash leaves at most `AT_ONCE`. Doing everything again writes the same
//! bytes to the same names.
//!
//! # Invariants
//! 1. A checkpoint is written only over a tree that this publisher computed itself from the entries.
//! 2. A file that a published checkpoint needs is only ever replaced by the same bytes, or removed when its full tile is durable.
//! 3. After a failed fsync nothing further is written; the caller must abort ([`PublishError::Unsynced`]).

mod disk;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use disk::{Disk, Os};

use crate::{
    note::{SignedCheckpoint, Vkey},
    tile::{
        CHECKPOINT, EntryTooLong, NodeError, TileError, TileNodes, TilePath, Tiles, WIDTH, Writer,
    },
    tree::{Edge, EdgeError, Hash, ProveError},
    verify::{self, HeadError},
};

/// Longest object in bytes.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;
/// The folder of the objects.
pub(crate) const OBJECTS: &str = "objects";
/// Files that are written before the first of them is renamed, at most: many cost little more than one, as the disk
/// makes them durable together.
const AT_ONCE: usize = 64;
/// The folder of files that are being written.
const TEMPORARY: &str = ".tmp";

/// A log directory, to be read.
#[derive(Clone, Debug)]
pub struct Dir<D = Os> {
    root: PathBuf,
    disk: D,
}

impl Dir {
    /// The log in this directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::on(Os, root)
    }
}

impl<D: Disk> Dir<D> {
    /// The log in a directory of another disk; tests bring one that fails.
    pub fn on(disk: D, root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            disk,
        }
    }

    /// The file names in `objects`, in no order.
    pub(crate) fn objects(&self) -> io::Result<Vec<String>> {
        match self.disk.list(&self.root.join(OBJECTS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }
}

impl<D: Disk> Tiles for Dir<D> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let path = Path::new(path);
        // Names come from parsed paths and digests, yet no name may ever lead out of the log.
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.disk.read(&self.root.join(path), limit)
    }
}

/// Why a log directory cannot be opened or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A file could not be read, written or renamed. Nothing is lost; the same call may be tried again.
    #[error("cannot {} {}", .task, .path.display())]
    Failed {
        /// What was tried.
        task: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An fsync failed: nobody knows what is on the disk, so the program must stop and look again.
    #[error("cannot make {} durable; stop, and start again", .path.display())]
    Unsynced {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The published checkpoint cannot be read, or is not one of this log's key.
    #[error("cannot go on from what is published; rebuild the log directory")]
    Head(#[source] HeadError),
    /// A tile that the published checkpoint needs is missing or damaged.
    #[error("the published tiles are damaged; rebuild the log directory")]
    Tile(#[source] TileError),
    /// The published tiles do not lead to the published checkpoint.
    #[error(
        "the published tiles do not belong to the published checkpoint; rebuild the log directory"
    )]
    Root,
    /// The checkpoint to be published is not over the entries that were appended.
    #[error(
        "the checkpoint is over {signed} entries or another root; {appended} entries were appended"
    )]
    Mismatch {
        /// Size of the checkpoint.
        signed: u64,
        /// Entries in the tree.
        appended: u64,
    },
    /// An entry is too long.
    #[error(transparent)]
    Entry(#[from] EntryTooLong),
    /// An object is longer than [`MAX_OBJECT_BYTES`].
    #[error("an object has at most {MAX_OBJECT_BYTES} bytes")]
    Object,
    /// The tree is full.
    #[error(transparent)]
    Tree(#[from] EdgeError),
}

/// Writes a log directory. There is one at a time for a directory; whoever holds the store sees to that.
pub struct Publisher<D = Os> {
    dir: Dir<D>,
    edge: Edge,
    writer: Writer,
    published: Option<SignedCheckpoint>,
    /// Directories with new names in them that are not durable yet.
    unsynced: BTreeSet<PathBuf>,
    /// Tiles that were partial in the published tree and are full now.
    filled: Vec<TilePath>,
    /// An fsync failed (invariant 3).
    failed: bool,
}

impl<D: Disk> Publisher<D> {
    /// Goes on with what is published, or begins a new log directory.
    pub fn open(dir: Dir<D>, log: &Vkey) -> Result<Self, PublishError> {
        let checkpoint = match verify::checkpoint(&dir, log) {
            Err(HeadError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::rebuild(dir));
            }
            checkpoint => checkpoint.map_err(PublishError::Head)?,
        };
        let size = checkpoint.size();
        let edge = TileNodes::new(&dir, size)
            .edge()
            .map_err(|error| match error {
                ProveError::Node(NodeError::Tile(error)) => PublishError::Tile(error),
                ProveError::OutOfRange | ProveError::Node(NodeError::Outside { .. }) => {
                    PublishError::Root
                }
            })?;
        if edge.root() != *checkpoint.root() {
            return Err(PublishError::Root);
        }
        let writer = Writer::load(&dir, size).map_err(PublishError::Tile)?;
        Ok(Self {
            edge,
            writer,
            published: Some(checkpoint),
            ..Self::rebuild(dir)
        })
    }

    /// Begins at the first entry, whatever lies there; the checkpoint that is there stays until the next one.
    pub fn rebuild(dir: Dir<D>) -> Self {
        Self {
            dir,
            edge: Edge::new(),
            writer: Writer::default(),
            published: None,
            unsynced: BTreeSet::new(),
            filled: Vec::new(),
            failed: false,
        }
    }

    /// How many entries were appended: the next one to append has this index.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The right edge of what was appended: what the next checkpoint must be over.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// The checkpoint that is published.
    pub fn published(&self) -> Option<&SignedCheckpoint> {
        self.published.as_ref()
    }

    /// Writes a document as `objects/<sha256>`; gives its digest.
    pub fn object(&mut self, bytes: &[u8]) -> Result<Hash, PublishError> {
        self.objects(&[bytes])?;
        Ok(Sha256::digest(bytes).into())
    }

    /// Writes many.
    pub fn objects<B: AsRef<[u8]>>(&mut self, documents: &[B]) -> Result<(), PublishError> {
        if documents
            .iter()
            .any(|one| one.as_ref().len() > MAX_OBJECT_BYTES)
        {
            return Err(PublishError::Object);
        }
        let named = documents.iter().map(|one| {
            let digest = hex::encode(Sha256::digest(one));
            (format!("{OBJECTS}/{digest}"), one)
        });
        self.put(&named.collect::<Vec<_>>())
    }

    /// Whether a document is there under its name, as long as it should be; what is in it was durable before
    /// it had the name.
    pub fn has_object(&self, digest: &Hash, bytes: usize) -> bool {
        let path = self
            .dir
            .root
            .join(format!("{OBJECTS}/{}", hex::encode(digest)));
        let there = self.dir.disk.read(&path, bytes.saturating_add(1));
        there.is_ok_and(|there| there.len() == bytes)
    }

    /// Appends entries and writes the tiles that they fill. Readers see nothing of it before [`Publisher::publish`].
    ///
    /// After an error the entries are not appended; the call may be repeated.
    pub fn append<E: AsRef<[u8]>>(&mut self, entries: &[E]) -> Result<(), PublishError> {
        let batch = self.edge.append(entries)?;
        let (mut writer, mut full) = (self.writer.clone(), Vec::new());
        writer.extend(&batch, entries, &mut full)?;
        let tiles = full.iter().map(|(path, bytes)| (path.to_string(), bytes));
        self.put(&tiles.collect::<Vec<_>>())?;
        let was_partial = |path: &TilePath| {
            self.at_published(*path)
                .is_some_and(|before| before.width() < WIDTH)
        };
        let filled: Vec<_> = full
            .iter()
            .map(|(path, _)| *path)
            .filter(was_partial)
            .collect();
        self.filled.extend(filled);
        (self.writer, self.edge) = (writer, batch.into_edge());
        Ok(())
    }

    /// Makes everything appended visible: partial tiles, then the checkpoint over exactly these entries.
    pub fn publish(&mut self, checkpoint: &SignedCheckpoint) -> Result<(), PublishError> {
        let appended = self.edge.size();
        if checkpoint.size() != appended || *checkpoint.root() != self.edge.root() {
            return Err(PublishError::Mismatch {
                signed: checkpoint.size(),
                appended,
            });
        }
        let partial: Vec<_> = self.writer.partial(appended).collect();
        // A tile that did not grow is published already.
        let grown = partial
            .into_iter()
            .filter(|(path, _)| self.at_published(*path) != Some(*path))
            .map(|(path, bytes)| (path.to_string(), bytes));
        let grown: Vec<_> = grown.collect();
        self.put(&grown)?;
        self.sync_dirs()?;
        let note = checkpoint.note().to_string();
        self.put(&[(CHECKPOINT.to_owned(), note)])?;
        self.sync_dirs()?;
        self.published = Some(checkpoint.clone());
        self.prune();
        Ok(())
    }

    /// The tile as it is in the published tree.
    fn at_published(&self, path: TilePath) -> Option<TilePath> {
        let size = self.published.as_ref()?.size();
        TilePath::new(path.content(), path.index(), size)
    }

    /// Removes partial tiles whose full tile is published now. What cannot be removed only takes up room.
    fn prune(&mut self) {
        for path in std::mem::take(&mut self.filled) {
            let folder = self.dir.root.join(format!("{path}.p"));
            for name in self.dir.disk.list(&folder).unwrap_or_default() {
                self.dir.disk.remove(&folder.join(name)).ok();
            }
            self.dir.disk.remove_dir(&folder).ok();
        }
    }

    /// Writes files under their names; their directories are left to [`Publisher::sync_dirs`].
    fn put<B: AsRef<[u8]>>(&mut self, files: &[(String, B)]) -> Result<(), PublishError> {
        files
            .chunks(AT_ONCE)
            .try_for_each(|some| self.put_some(some))
    }

    fn put_some<B: AsRef<[u8]>>(&mut self, files: &[(String, B)]) -> Result<(), PublishError> {
        if self.failed {
            let source = io::Error::other("an earlier fsync failed");
            return Err(PublishError::Unsynced {
                path: self.dir.root.clone(),
                source,
            });
        }
        let scratch = self.dir.root.join(TEMPORARY);
        self.make_dirs(&scratch)?;
        let (mut places, mut written) = (Vec::new(), Vec::new());
        for (number, (path, bytes)) in files.iter().enumerate() {
            let path = self.dir.root.join(path);
            let folder = path.parent().unwrap_or(&self.dir.root).to_owned();
            self.make_dirs(&folder)?;
            let temporary = scratch.join(format!("next-{number}"));
            let file = self.dir.disk.write(&temporary, bytes.as_ref());
            written.push(file.map_err(|source| failed("write", &temporary, source))?);
            places.push((temporary, path, folder));
        }
        if let Err(source) = self.dir.disk.sync_all(&written) {
            self.failed = true;
            let path = scratch;
            return Err(PublishError::Unsynced { path, source });
        }
        for (temporary, path, folder) in places {
            let renamed = self.dir.disk.rename(&temporary, &path);
            renamed.map_err(|source| failed("rename to", &path, source))?;
            self.unsynced.insert(folder);
        }
        Ok(())
    }

    /// Makes the names of new files durable.
    fn sync_dirs(&mut self) -> Result<(), PublishError> {
        while let Some(folder) = self.unsynced.first().cloned() {
            if let Err(source) = self.dir.disk.sync_dir(&folder) {
                self.failed = true;
                return Err(PublishError::Unsynced {
                    path: folder,
                    source,
                });
            }
            self.unsynced.remove(&folder);
        }
        Ok(())
    }

    /// Makes a directory with its parents; the parents' entries become durable with the rest.
    fn make_dirs(&mut self, folder: &Path) -> Result<(), PublishError> {
        match self.dir.disk.make_dir(folder) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = folder.parent().filter(|parent| *parent != Path::new(""));
                let parent = parent
                    .ok_or_else(|| failed("make", folder, error))?
                    .to_owned();
                self.make_dirs(&parent)?;
                let made = self.dir.disk.make_dir(folder);
                made.map_err(|source| failed("make", folder, source))?;
            }
            Err(source) => return Err(failed("make", folder, source)),
        }
        let parent = folder.parent().filter(|parent| *parent != Path::new(""));
        self.unsynced
            .insert(parent.unwrap_or(Path::new(".")).to_owned());
        Ok(())
    }
}

impl<D> fmt::Debug for Publisher<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Publisher({}, {} entries)",
            self.dir.root.display(),
            self.edge.size()
        )
    }
}

fn failed(task: &'static str, path: &Path, source: io::Error) -> PublishError {
    PublishError::Failed {
        task,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
