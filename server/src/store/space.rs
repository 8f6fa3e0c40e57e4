//! Room on the disk: how much is left, and a little that is kept for ceremonies.
//!
//! When room runs low, what can wait stops first: deposits, rotations, entries about refusals. A *ballast* file,
//! made when the vault is founded, is deleted when even less is left: opening a credential in an emergency is
//! worth more than a tidy disk. When room is back the ballast is made again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};

/// Below this much room deposits, rotations and refusal entries stop.
pub const LOW_WATER_BYTES: u64 = 128 << 20;

/// Below this much room the ballast is deleted.
pub const CRITICAL_BYTES: u64 = 16 << 20;

/// Size of the ballast: room for some thousand ceremonies.
pub const BALLAST_BYTES: u64 = 32 << 20;

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this process may still fill.
    pub free_bytes: u64,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// The room on the file system that holds `path`. Quotas are not seen.
pub fn room(path: &Path) -> io::Result<Room> {
    let stat = statvfs(path)?;
    Ok(Room {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// How much may still be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Ample,
    /// Ceremonies and what belongs to them.
    Low,
    /// As [`Level::Low`], and the ballast is to be given up.
    Critical,
}

impl Level {
    /// Judges free bytes by the named bounds.
    pub const fn of(free_bytes: u64) -> Self {
        match free_bytes {
            LOW_WATER_BYTES.. => Self::Ample,
            CRITICAL_BYTES..LOW_WATER_BYTES => Self::Low,
            0..CRITICAL_BYTES => Self::Critical,
        }
    }
}

/// A file that only takes up room.
#[derive(Clone, Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// The ballast in the data directory `dir`, whether it is there or not.
    pub fn of(dir: &Path) -> Self {
        Self {
            path: dir.join("ballast"),
        }
    }

    /// Takes up the room, durably; one that is already there stays. A failed attempt leaves nothing behind.
    pub fn create(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = match options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
        {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            opened => opened?,
        };
        fill(&file).inspect_err(|_| {
            // The error is told; what is left of the file would only take up room.
            let _ = fs::remove_file(&self.path);
        })
    }

    /// Gives the room back; whether there was something to give.
    pub fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the room is taken up.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }
}

/// Looks at the room in `dir`, gives up the ballast or makes it again, and says what may be done now.
///
/// Call it every few seconds, off the async threads.
pub fn watch(dir: &Path) -> io::Result<Level> {
    let free = room(dir)?.free_bytes;
    keep(&Ballast::of(dir), free)
}

fn keep(ballast: &Ballast, free_bytes: u64) -> io::Result<Level> {
    let level = Level::of(free_bytes);
    match level {
        Level::Critical => {
            ballast.release()?;
        }
        Level::Ample
            if !ballast.is_there()
                && free_bytes >= LOW_WATER_BYTES.saturating_add(BALLAST_BYTES) =>
        {
            ballast.create()?;
        }
        Level::Ample | Level::Low => {}
    }
    Ok(level)
}

/// Room that is really taken, not a hole that is filled later.
fn fill(mut file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => {
            // Not zeros: a file system that compresses would keep nothing free.
            const BLOCK_BYTES: usize = 1 << 16;
            let mut block = vec![0; BLOCK_BYTES];
            for _ in 0..BALLAST_BYTES >> 16 {
                getrandom::fill(&mut block).map_err(io::Error::other)?;
                file.write_all(&block)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_ballast_takes_room_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(dir.path());
        assert!(!ballast.release().unwrap(), "nothing there yet");
        ballast.create().unwrap();
        ballast.create().unwrap();
        let taken = fs::metadata(dir.path().join("ballast")).unwrap();
        assert!(taken.blocks() * 512 >= BALLAST_BYTES, "no hole");
        assert_eq!(taken.mode() & 0o777, 0o600);
        assert!(ballast.release().unwrap());
        assert!(!ballast.is_there());
    }

    #[test]
    fn the_ballast_follows_the_level() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(dir.path());
        let ample = LOW_WATER_BYTES + BALLAST_BYTES;
        for (why, free, level, there) in [
            ("not enough to take any", ample - 1, Level::Ample, false),
            ("enough", ample, Level::Ample, true),
            ("kept at low water", LOW_WATER_BYTES - 1, Level::Low, true),
            ("kept at the bound", CRITICAL_BYTES, Level::Low, true),
            ("given up", CRITICAL_BYTES - 1, Level::Critical, false),
            ("given up already", 0, Level::Critical, false),
            (
                "not again at once",
                CRITICAL_BYTES + BALLAST_BYTES,
                Level::Low,
                false,
            ),
            ("again", u64::MAX, Level::Ample, true),
        ] {
            assert_eq!(keep(&ballast, free).unwrap(), level, "{why}");
            assert_eq!(ballast.is_there(), there, "{why}");
        }
    }

    #[test]
    fn room_is_what_the_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let here = room(dir.path()).unwrap();
        assert!(here.free_bytes > 0 && !here.read_only);
        assert_eq!(watch(dir.path()).unwrap(), Level::of(here.free_bytes));
        let missing = room(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
