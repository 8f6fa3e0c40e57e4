//! Files of one person: whole or not at all, and for nobody else.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use super::HomeError;

/// Reads a file of at most `max` bytes; none when it is not there.
pub fn read_file(path: &Path, max: u64) -> Result<Option<Vec<u8>>, HomeError> {
    let io = |source| HomeError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(io(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

/// The folder of a file that is to be written. It must be there, and nothing but a file be replaced: a device
/// that has the name would be gone.
pub fn place(path: &Path) -> Result<&Path, HomeError> {
    let no = |why: &str| HomeError::Io {
        verb: "write",
        path: path.to_owned(),
        source: io::Error::other(why.to_owned()),
    };
    if fs::metadata(path).is_ok_and(|facts| !facts.is_file()) {
        return Err(no("what is there is no file"));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(no("its folder is not there"))
    }
}

/// Writes a file whole or not at all, for its owner alone.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let io = |source| HomeError::Io {
        verb: "write",
        path: path.to_owned(),
        source,
    };
    let folder = place(path)?;
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    beside.write_all(bytes).map_err(io)?;
    beside.as_file().sync_all().map_err(io)?;
    beside.persist(path).map_err(|error| io(error.error))?;
    sync_folder(folder).map_err(io)
}

pub(super) fn private_folder(path: &Path) -> Result<(), HomeError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    private_mode(&mut builder);
    builder.create(path).map_err(|source| HomeError::Io {
        verb: "make",
        path: path.to_owned(),
        source,
    })
}

#[cfg(unix)]
fn private_mode(builder: &mut DirBuilder) {
    use std::os::unix::fs::DirBuilderExt as _;
    builder.mode(0o700);
}

#[cfg(not(unix))]
fn private_mode(_: &mut DirBuilder) {}

#[cfg(unix)]
pub(super) fn options() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
pub(super) fn options() -> fs::OpenOptions {
    File::options()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
