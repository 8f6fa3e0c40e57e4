//! What publishing asks of a file system, and the operating system's.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    thread,
};

/// The most files that are made durable side by side.
const SYNCS: usize = 16;

/// The operations of which each can fail, and between which a crash can come; tests bring their own.
pub trait Disk {
    /// A file that was written and is not synced yet.
    type File;

    /// Makes a directory in an existing one; false if it is there already.
    fn make_dir(&self, path: &Path) -> io::Result<bool>;
    /// Writes a new file. What has the name already is unlinked, never written into: after a crash on a file
    /// system without a journal it may be a published file, whose renaming is only half on the disk.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<Self::File>;
    /// Makes the content of a file durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes the contents of many files durable.
    fn sync_all(&self, files: &[Self::File]) -> io::Result<()> {
        files.iter().try_for_each(|file| self.sync(file))
    }
    /// Gives a file another name, over what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The content of a file; [`io::ErrorKind::FileTooLarge`] beyond `limit` bytes.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Os;

impl Disk for Os {
    type File = File;

    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        Ok(file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Many at a time: a journalling file system takes all that wait for it into one commit.
    fn sync_all(&self, files: &[File]) -> io::Result<()> {
        let share = files.len().div_ceil(SYNCS).max(1);
        thread::scope(|scope| {
            let sync = |files: &[File]| files.iter().try_for_each(File::sync_all);
            let syncing: Vec<_> = files
                .chunks(share)
                .map(|files| thread::Builder::new().spawn_scoped(scope, move || sync(files)))
                .collect();
            syncing.into_iter().try_for_each(|thread| {
                let ended = thread?.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("a thread that syncs has ended")))
            })
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|file| {
                let name = file?.file_name().into_string();
                name.map_err(|_| io::ErrorKind::InvalidFilename.into())
            })
            .collect()
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(limit).saturating_add(1));
        // One byte more than the limit, so that a file which grows is seen too.
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes)
        }
    }
}
