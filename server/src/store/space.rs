//! Room on the disk: how much is left, and a little that is kept for ceremonies.
//!
//! When room runs low, what can wait stops first: deposits, rotations, entries about refusals. A *ballast* file,
//! made when the vault is founded, is deleted when even less is left: opening a credential in an emergency is
//! worth more than a tidy disk. When room is back the ballast is made again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};
use tokio::sync::watch;

use crate::config;
use crate::health::Reporter;

/// How often the room is looked at.
pub const EVERY: Duration = Duration::from_secs(5);

/// What is low, and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Below this much room deposits, rotations and refusal entries stop.
    pub low_bytes: u64,
    /// Below this much room the ballast is deleted.
    pub critical_bytes: u64,
    /// Size of the ballast: room for some thousand ceremonies. 0: none.
    pub ballast_bytes: u64,
}

impl Bounds {
    /// Those of a configuration; critical is an eighth of low.
    pub fn of(config: &config::Store) -> Self {
        let low_bytes = u64::from(config.low_water_mib.value()) << 20;
        Self {
            low_bytes,
            critical_bytes: low_bytes >> 3,
            ballast_bytes: u64::from(config.ballast_mib.value()) << 20,
        }
    }
}

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
    /// Judges free bytes by bounds.
    pub const fn of(free_bytes: u64, bounds: &Bounds) -> Self {
        if free_bytes >= bounds.low_bytes {
            Self::Ample
        } else if free_bytes >= bounds.critical_bytes {
            Self::Low
        } else {
            Self::Critical
        }
    }
}

/// A file that only takes up room.
#[derive(Clone, Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast in the data directory `dir`, whether it is there or not.
    pub fn of(dir: &Path, bytes: u64) -> Self {
        Self {
            path: dir.join("ballast"),
            bytes,
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
        fill(&file, self.bytes).inspect_err(|_| {
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

/// The room of a data directory as it was last looked at; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Space(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    bounds: Bounds,
    seen: watch::Sender<Seen>,
}

/// What was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What may be done.
    pub level: Level,
    /// The room.
    pub room: Room,
}

impl Seen {
    /// What somebody should know of it.
    pub fn note(&self) -> Option<String> {
        let mib = self.room.free_bytes >> 20;
        match self.level {
            Level::Ample => None,
            Level::Low => Some(format!(
                "low on space: {mib} MiB left; deposits, rotations and entries about refusals wait"
            )),
            Level::Critical => Some(format!(
                "almost no space: {mib} MiB left; the ballast is given up, and only ceremonies go on"
            )),
        }
    }
}

impl Space {
    /// Looks at a directory for the first time.
    pub async fn of(dir: &Path, bounds: Bounds) -> Self {
        let seen = Seen {
            level: Level::Ample,
            room: Room {
                free_bytes: u64::MAX,
                read_only: false,
            },
        };
        let space = Self(Some(Arc::new(Inner {
            dir: dir.to_owned(),
            bounds,
            seen: watch::Sender::new(seen),
        })));
        space.look().await;
        space
    }

    /// What was last seen; none where nothing is watched.
    pub fn seen(&self) -> Option<Seen> {
        self.0.as_ref().map(|inner| *inner.seen.borrow())
    }

    /// Waits until room is low, or is not; false where nothing is watched.
    pub async fn until(&self, low: bool) -> bool {
        let Some(inner) = &self.0 else { return false };
        let mut seen = inner.seen.subscribe();
        let wanted = |seen: &Seen| (seen.level > Level::Ample) == low;
        seen.wait_for(wanted).await.is_ok()
    }

    /// Whether what can wait is to wait.
    pub fn is_low(&self) -> bool {
        self.seen().is_some_and(|seen| seen.level > Level::Ample)
    }

    /// Looks again, and gives up the ballast or makes it again.
    pub async fn look(&self) {
        let Some(inner) = self.0.clone() else { return };
        let looked = tokio::task::spawn_blocking(move || look(&inner.dir, &inner.bounds)).await;
        let Some(inner) = &self.0 else { return };
        match looked {
            Ok(Ok(seen)) => {
                let before = inner.seen.send_replace(seen);
                if before.level != seen.level {
                    if let Some(note) = seen.note() {
                        tracing::warn!("{note}");
                    } else {
                        tracing::info!("there is room again");
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the room on the disk cannot be looked at"),
            Err(_) => {}
        }
    }

    /// The store says that its disk is full, whatever the system says: gives up the ballast.
    pub async fn give_up(&self) {
        let Some(inner) = self.0.clone() else { return };
        let ballast = Ballast::of(&inner.dir, inner.bounds.ballast_bytes);
        match tokio::task::spawn_blocking(move || ballast.release()).await {
            Ok(Ok(true)) => tracing::warn!("the disk is full: the ballast is given up"),
            Ok(Err(error)) => tracing::error!(%error, "the ballast cannot be given up"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }

    /// Looks every few seconds, and says in `health` what somebody should know.
    pub async fn watch(self, health: Reporter) {
        loop {
            let note = self.seen().and_then(|seen| seen.note());
            health.borrow().note(note);
            tokio::time::sleep(EVERY).await;
            self.look().await;
        }
    }
}

/// Looks at the room in `dir`, gives up the ballast or makes it again, and says what may be done now.
fn look(dir: &Path, bounds: &Bounds) -> io::Result<Seen> {
    let room = room(dir)?;
    let level = Level::of(room.free_bytes, bounds);
    if !room.read_only {
        keep(
            &Ballast::of(dir, bounds.ballast_bytes),
            bounds,
            room.free_bytes,
        )?;
    }
    Ok(Seen { level, room })
}

fn keep(ballast: &Ballast, bounds: &Bounds, free_bytes: u64) -> io::Result<Level> {
    let level = Level::of(free_bytes, bounds);
    match level {
        Level::Critical => {
            ballast.release()?;
        }
        Level::Ample
            if bounds.ballast_bytes > 0
                && !ballast.is_there()
                && free_bytes >= bounds.low_bytes.saturating_add(bounds.ballast_bytes) =>
        {
            ballast.create()?;
        }
        Level::Ample | Level::Low => {}
    }
    Ok(level)
}

/// Room that is really taken, not a hole that is filled later.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => {
            // Not zeros: a file system that compresses would keep nothing free.
            const BLOCK_BYTES: usize = 1 << 16;
            let mut block = vec![0; BLOCK_BYTES];
            for _ in 0..bytes >> 16 {
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

    const BOUNDS: Bounds = Bounds {
        low_bytes: 128 << 20,
        critical_bytes: 16 << 20,
        ballast_bytes: 32 << 20,
    };

    #[test]
    fn the_ballast_takes_room_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(dir.path(), BOUNDS.ballast_bytes);
        assert!(!ballast.release().unwrap(), "nothing there yet");
        ballast.create().unwrap();
        ballast.create().unwrap();
        let taken = fs::metadata(dir.path().join("ballast")).unwrap();
        assert!(taken.blocks() * 512 >= BOUNDS.ballast_bytes, "no hole");
        assert_eq!(taken.mode() & 0o777, 0o600);
        assert!(ballast.release().unwrap());
        assert!(!ballast.is_there());
    }

    #[test]
    fn the_ballast_follows_the_level() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(dir.path(), BOUNDS.ballast_bytes);
        let ample = BOUNDS.low_bytes + BOUNDS.ballast_bytes;
        for (why, free, level, there) in [
            ("not enough to take any", ample - 1, Level::Ample, false),
            ("enough", ample, Level::Ample, true),
            ("kept at low water", BOUNDS.low_bytes - 1, Level::Low, true),
            ("kept at the bound", BOUNDS.critical_bytes, Level::Low, true),
            (
                "given up",
                BOUNDS.critical_bytes - 1,
                Level::Critical,
                false,
            ),
            ("given up already", 0, Level::Critical, false),
            (
                "not again at once",
                BOUNDS.critical_bytes + BOUNDS.ballast_bytes,
                Level::Low,
                false,
            ),
            ("again", u64::MAX, Level::Ample, true),
        ] {
            assert_eq!(keep(&ballast, &BOUNDS, free).unwrap(), level, "{why}");
            assert_eq!(ballast.is_there(), there, "{why}");
        }
    }

    #[test]
    fn room_is_what_the_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let here = room(dir.path()).unwrap();
        assert!(here.free_bytes > 0 && !here.read_only);
        let seen = look(dir.path(), &BOUNDS).unwrap();
        assert_eq!(seen.level, Level::of(seen.room.free_bytes, &BOUNDS));
        let missing = room(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
