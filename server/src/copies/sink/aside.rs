//! What is moved out of the way in a place for copies: sealed versions of another history, and a log that a
//! quorum gave up.
//!
//! # Invariants
//! 1. Nothing is deleted or replaced here: folders are renamed, and made durable under their new name.
//! 2. A move that a crash cut short is finished before anything else is done with what is moved.

use std::{io, sync::PoisonError};

use keyturn_audit::{publish::Disk, tile::CHECKPOINT};
use keyturn_vault::{
    digest::Digest,
    id::CeremonyId,
    layout::{Part, Place},
    reference::Version,
};

use super::{ASIDE, Fixed, Inner, MAX_FILE_BYTES, SinkError, failed};

/// A log that was given up is moved to a folder of this name with the ceremony's id; while that is under way,
/// its name ends like this.
const BEFORE: &str = "before-";
const MOVING: &str = ".moving";
/// Trees set aside at most; after that nothing more is, and nothing that would be is written.
const MAX_ASIDE: u32 = 1000;

impl<D: Disk + Clone> Inner<D> {
    /// Whether the folder of a version is of another history: its manifest says so, or, where a copy was
    /// cut off, the sealed secret, which is written first and deleted after the manifest.
    pub(super) fn foreign(&self, version: &Fixed) -> bool {
        let folder = self.folder(version);
        let parts = [
            (Part::Manifest, Some(version.manifest)),
            (Part::Payload, version.payload),
        ];
        for (part, want) in parts {
            match self
                .disk
                .read(&folder.join(part.to_string()), part.max_bytes())
            {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return true,
                Ok(bytes) => return Some(Digest::of(&bytes)) != want,
            }
        }
        false
    }

    /// Moves a version of another history out of the way of this one.
    pub(super) fn clear(&self, version: &Fixed) -> Result<(), SinkError> {
        if !self.foreign(version) {
            return Ok(());
        }
        let (folder, shelf) = (self.folder(version), self.root.join(ASIDE));
        let credential = format!("credentials/{}", version.credential);
        let name = version.version.to_string();
        let mut trees = (1..=MAX_ASIDE).map(|n| shelf.join(n.to_string()));
        let to = loop {
            let tree = trees
                .next()
                .ok_or_else(|| SinkError::Aside(shelf.clone()))?;
            let to = tree.join(&credential);
            if !self.names(&to)?.contains(&name) {
                break to;
            }
        };
        self.make_dirs(&to)?;
        let path = Place::Path(version.credential);
        if let Ok(bytes) = self.disk.read(&self.path(&path), MAX_FILE_BYTES) {
            self.write(&to.join("path.txt"), &bytes)?;
        }
        let moved = to.join(&name);
        self.disk
            .rename(&folder, &moved)
            .map_err(|source| failed("move to", &moved, source))?;
        for parent in [&to, folder.parent().unwrap_or(&self.root)] {
            self.disk
                .sync_dir(parent)
                .map_err(|source| failed("make durable", parent, source))?;
        }
        tracing::error!(to = %moved.display(), "a sealed version of another history lies here; it is set aside");
        Ok(())
    }

    /// How many versions lie there.
    pub(super) fn aside(&self) -> Result<usize, SinkError> {
        let shelf = self.root.join(ASIDE);
        let mut versions = 0_usize;
        for tree in self.names(&shelf)? {
            let credentials = shelf.join(tree).join("credentials");
            for credential in self.names(&credentials)? {
                let names = self.names(&credentials.join(credential))?;
                let of = names.iter().filter(|name| name.parse::<Version>().is_ok());
                versions = versions.saturating_add(of.count());
            }
        }
        Ok(versions)
    }

    /// Moves the log out of the way.
    pub(super) fn begin_anew(&self, ceremony: CeremonyId) -> Result<(), SinkError> {
        // The process aborts on a panic, so a poisoned lock is never seen.
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let before = format!("{BEFORE}{ceremony}");
        self.make_dirs(&self.root.join(format!("{before}{MOVING}")))?;
        self.move_log(&before)
    }

    /// Moves the log into the folder that is there for it, and gives that its name; a crash between two
    /// steps is gone on from.
    fn move_log(&self, before: &str) -> Result<(), SinkError> {
        let moving = self.root.join(format!("{before}{MOVING}"));
        for name in [CHECKPOINT, "tile"] {
            match self.disk.rename(&self.root.join(name), &moving.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("move", &self.root.join(name), error));
                }
                _ => {}
            }
        }
        let there = self.names(&self.root)?;
        let mut names = (1..=MAX_ASIDE).map(|n| match n {
            1 => before.to_owned(),
            n => format!("{before}-{n}"),
        });
        let free = names.find(|name| !there.contains(name));
        let free = free.ok_or_else(|| SinkError::Aside(self.root.clone()))?;
        for folder in [&moving, &self.root] {
            self.disk
                .sync_dir(folder)
                .map_err(|source| failed("make durable", folder, source))?;
        }
        self.disk
            .rename(&moving, &self.root.join(free))
            .and_then(|()| self.disk.sync_dir(&self.root))
            .map_err(|source| failed("rename", &moving, source))
    }

    /// Goes on where a crash interrupted it (invariant 2).
    pub(super) fn finish_moving(&self) -> Result<(), SinkError> {
        for name in self.names(&self.root)? {
            let before = name.strip_suffix(MOVING);
            if let Some(before) = before.filter(|it| it.starts_with(BEFORE)) {
                self.move_log(before)?;
            }
        }
        Ok(())
    }
}
