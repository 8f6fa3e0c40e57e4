//! Files that only their owner may read: keys of nodes, devices, the log, and key files.
//!
//! # Invariants
//! 1. A file that somebody else can read or write is refused: its content may be known or chosen.
//! 2. A file is written whole or not at all, survives a power cut once `create` returned, and never
//!    replaces another one.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

/// The largest such file, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;

/// Why a private file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is one already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Group or world may read or write it (invariant 1).
    #[error("{} can be used by others (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A folder, a device, or absurdly large.
    #[error("{} is not a file of at most 64 KiB", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
}

impl FileError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check the path, its folder, and whose it is".to_owned(),
            Self::Exists { .. } => "move the old one away if it is to be replaced".to_owned(),
            Self::Open { path, .. } => format!(
                "if nobody else has read it: chmod 600 {}; otherwise replace the key",
                path.display()
            ),
            Self::NotAFile { .. } => "check the path".to_owned(),
        }
    }
}

/// Reads a private file; the bytes are wiped when dropped.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let io = |source| FileError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    // The opened file is asked, not the path: nobody can exchange it in between.
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() || facts.len() > MAX_BYTES {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    only_mine(path, &facts)?;
    let size = usize::try_from(facts.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    (&mut file)
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

/// Writes a new private file (mode 0600), beside nothing of that name.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let io = |source| FileError::Io {
        verb: "write",
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    beside.write_all(bytes).map_err(io)?;
    beside.as_file().sync_all().map_err(io)?;
    beside.persist_noclobber(path).map_err(|error| {
        if error.error.kind() == io::ErrorKind::AlreadyExists {
            return FileError::Exists {
                path: path.to_owned(),
            };
        }
        io(error.error)
    })?;
    sync_folder(folder).map_err(io)
}

#[cfg(unix)]
fn only_mine(path: &Path, facts: &fs::Metadata) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = facts.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    Err(FileError::Open {
        path: path.to_owned(),
        mode,
    })
}

/// Elsewhere the profile's folder is the user's own, and modes mean nothing.
#[cfg(not(unix))]
fn only_mine(_: &Path, _: &fs::Metadata) -> Result<(), FileError> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A folder cannot be opened as a file there; the file itself was synced.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_file_is_private_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create(&path, b"one").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert!(
            matches!(create(&path, b"two"), Err(FileError::Exists { .. })),
            "invariant 2"
        );
        assert_eq!(read(&path).unwrap().as_slice(), b"one", "invariant 2");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn what_others_can_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create(&path, b"one").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = read(&path);
            assert_eq!(result.is_ok(), good, "invariant 1: {mode:o}");
            if let Err(error) = result {
                assert!(
                    error.to_string().contains(&format!("{mode:04o}")),
                    "{error}"
                );
                assert!(error.hint().contains("chmod 600"), "{}", error.hint());
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_BYTES + 1)
            .unwrap();
        assert!(matches!(read(&path), Err(FileError::NotAFile { .. })));
        assert!(matches!(
            read(folder.path()),
            Err(FileError::NotAFile { .. })
        ));
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(FileError::Io { .. })
        ));
    }
}
