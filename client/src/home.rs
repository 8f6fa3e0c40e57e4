//! The folder of a person on this computer: who they are, how they know the vault, what they keep.
//!
//! ```text
//! profile.json            who, which token and device; the vault's addresses, pins, first charter
//! token.key  device.pem   keys (see keyturn-hsm)
//! charter/<index>         charters, verified one after the other from the pinned first one
//! checkpoint              the newest checkpoint of the log that this computer has verified
//! requests/<ceremony>     a request of this person with the key that the secret is delivered to
//! approvals/<ceremony>    an approval of this person, to send its shares again
//! receipts/               entries of the log with their proofs
//! attestation/<sha256>    what the makers of the charters' tokens say of them
//! attestation-roots.pem   the roots of these, where they are not Yubico's
//! ```
//!
//! # Invariants
//! 1. The folder is 0700 and every file in it 0600; a file is replaced whole or not at all.
//! 2. The newest charter and the newest checkpoint only ever go forward.

mod file;
mod pocket;
mod profile;

use std::{fs, io, path::PathBuf};

use keyturn_audit::note::{MAX_NOTE_BYTES, SignedCheckpoint};
use keyturn_hsm::attestation::{ANCHORS_FILE_MAX, Anchors, AnchorsError};
use keyturn_vault::charter::MAX_CHARTER_BYTES;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use self::file::{options, private_folder};
pub use self::{
    file::{place, read_file, write_file},
    pocket::{POCKET_MAX, Pocket, PocketFormat},
    profile::{Enrolled, Format, Profile, TokenKeys, Vault},
};

/// The file with the roots of attestations, where a home has its own.
const ROOTS_FILE: &str = "attestation-roots.pem";
/// The largest file of a home, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why the home cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is none.
    #[error("there is no keyturn home in {}", .0.display())]
    None(PathBuf),
    /// There is one already.
    #[error("{} has a profile already", .0.display())]
    Exists(PathBuf),
    /// Not joined to a vault yet.
    #[error("this home knows no vault yet")]
    NoVault,
    /// Others could read or write the folder.
    #[error("{} can be used by others (mode {mode:04o})", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged, or written by a newer keyturn", .0.display())]
    Damaged(PathBuf),
    /// A file with the roots of attestations is none.
    #[error("{} cannot be used for the roots of attestations", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: AnchorsError,
    },
    /// Something older was to replace something newer.
    #[error("{0} is older than the one that this computer has verified before")]
    Backwards(&'static str),
}

impl HomeError {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None(_) | Self::NoVault => "no-profile",
            Self::Exists(_) => "already-exists",
            Self::Open { .. } | Self::Io { .. } | Self::Damaged(_) | Self::Roots { .. } => "file",
            Self::Backwards(_) => "head-mismatch",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::None(_) => "make one with `keyturn enroll NAME`, or name another with --home".to_owned(),
            Self::Exists(_) => "choose another folder with --home".to_owned(),
            Self::NoVault => "run `keyturn join NAME.welcome` with the file from the vault's founder or operator".to_owned(),
            Self::Open { path, .. } => format!("name your own folder with --home; where this one is, run `chmod 700 {}`", path.display()),
            Self::Io { .. } => "check the path, its folder, and whose it is".to_owned(),
            Self::Damaged(_) => "restore it from a copy of the home; keys in it are not touched".to_owned(),
            Self::Roots { .. } => "docs/FORMATS.md tells what such a file holds".to_owned(),
            Self::Backwards(_) => "do not go on: the vault was restored from a backup, or somebody shows you another log".to_owned(),
        }
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
    roots: Option<PathBuf>,
}

impl Home {
    /// The home in this folder, whether there is one or not.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            roots: None,
        }
    }

    /// The same, believing the roots of attestations in this file.
    #[must_use]
    pub fn believing(self, roots: Option<PathBuf>) -> Self {
        Self { roots, ..self }
    }

    /// Another home, which believes the same.
    #[must_use]
    pub fn elsewhere(&self, dir: impl Into<PathBuf>) -> Self {
        Self::at(dir).believing(self.roots.clone())
    }

    /// Whose word about tokens is believed: that of the roots in the named file, in the home's own, or Yubico's.
    pub fn anchors(&self) -> Result<Anchors, HomeError> {
        let bad = |path: &PathBuf| {
            let path = path.clone();
            move |source| HomeError::Roots { path, source }
        };
        let own = self.path(ROOTS_FILE);
        let max = u64::try_from(ANCHORS_FILE_MAX).unwrap_or(u64::MAX);
        let file = match &self.roots {
            Some(named) => {
                let missing = || HomeError::Io {
                    verb: "read",
                    path: named.clone(),
                    source: io::ErrorKind::NotFound.into(),
                };
                Some((named, read_file(named, max)?.ok_or_else(missing)?))
            }
            None => read_file(&own, max)?.map(|bytes| (&own, bytes)),
        };
        match file {
            Some((path, bytes)) => {
                Anchors::from_file(&String::from_utf8_lossy(&bytes)).map_err(bad(path))
            }
            None => Anchors::yubico().map_err(bad(&own)),
        }
    }

    /// Makes the folder for a new profile.
    pub fn create(&self) -> Result<(), HomeError> {
        if self.path("profile.json").exists() {
            return Err(HomeError::Exists(self.dir.clone()));
        }
        private_folder(&self.dir)?;
        self.only_mine()
    }

    /// A file of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the profile.
    pub fn profile(&self) -> Result<Profile, HomeError> {
        let none = || HomeError::None(self.dir.clone());
        // Nobody is told to change the mode of a folder that is no home.
        if !self.dir.is_dir() {
            return Err(none());
        }
        let profile = self.read_json("profile.json")?.ok_or_else(none)?;
        self.only_mine()?;
        Ok(profile)
    }

    /// Writes the profile.
    pub fn keep_profile(&self, profile: &Profile) -> Result<(), HomeError> {
        self.write_json("profile.json", profile)
    }

    /// The verified charters in their order.
    pub fn charters(&self) -> Result<Vec<Vec<u8>>, HomeError> {
        let mut charters = Vec::new();
        while let Some(bytes) = self.read(&charter_name(charters.len().saturating_add(1)))? {
            if bytes.len() > MAX_CHARTER_BYTES {
                return Err(HomeError::Damaged(self.path(&charter_name(charters.len()))));
            }
            charters.push(bytes);
        }
        Ok(charters)
    }

    /// Keeps the charter of this number, which follows those that are kept.
    pub fn keep_charter(&self, index: u64, bytes: &[u8]) -> Result<(), HomeError> {
        let name = charter_name(index);
        match self.read(&name)? {
            Some(kept) if kept == bytes => Ok(()),
            Some(_) => Err(HomeError::Backwards("the charter")),
            None => self.write(&name, bytes),
        }
    }

    /// The newest verified checkpoint, as a signed note.
    pub fn checkpoint(&self) -> Result<Option<String>, HomeError> {
        let Some(bytes) = self.read("checkpoint")? else {
            return Ok(None);
        };
        let note = String::from_utf8(bytes)
            .ok()
            .filter(|note| note.len() <= MAX_NOTE_BYTES);
        note.map(Some)
            .ok_or_else(|| HomeError::Damaged(self.path("checkpoint")))
    }

    /// Keeps a checkpoint that was verified to continue `before`, the one that was kept (invariant 2).
    pub fn keep_checkpoint(
        &self,
        before: Option<&str>,
        new: &SignedCheckpoint,
    ) -> Result<(), HomeError> {
        // Another command of the same person may have been faster.
        let lock = self.path("lock");
        let io = |source| HomeError::Io {
            verb: "lock",
            path: lock.clone(),
            source,
        };
        let held = options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(io)?;
        held.lock().map_err(io)?;
        if self.checkpoint()?.as_deref() == before {
            self.write("checkpoint", new.note().to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Reads a JSON file of the home, if it is there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HomeError> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| HomeError::Damaged(self.path(name)))
    }

    /// Writes a JSON file of the home.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), HomeError> {
        let mut bytes =
            serde_json::to_vec_pretty(value).map_err(|_| HomeError::Damaged(self.path(name)))?;
        bytes.push(b'\n');
        self.write(name, &bytes)
    }

    /// Reads a file of the home, if it is there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        read_file(&self.path(name), MAX_FILE)
    }

    /// Writes a file of the home (invariant 1).
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            private_folder(folder)?;
        }
        write_file(&path, bytes)
    }

    /// Removes a file of the home, if it is there.
    pub fn forget(&self, name: &str) -> Result<(), HomeError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HomeError::Io {
                verb: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The names in a folder of the home, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let listed = fs::read_dir(self.path(folder))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<_> = listed
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    fn only_mine(&self) -> Result<(), HomeError> {
        use std::os::unix::fs::PermissionsExt as _;
        let Ok(facts) = fs::metadata(&self.dir) else {
            return Err(HomeError::None(self.dir.clone()));
        };
        let mode = facts.permissions().mode() & 0o7777;
        let others = mode & 0o077;
        if others == 0 {
            Ok(())
        } else {
            Err(HomeError::Open {
                path: self.dir.clone(),
                mode,
            })
        }
    }

    /// Elsewhere the folder is the user's own.
    #[cfg(not(unix))]
    fn only_mine(&self) -> Result<(), HomeError> {
        Ok(())
    }
}

fn charter_name(index: impl std::fmt::Display) -> String {
    format!("charter/{index}")
}

#[cfg(all(test, unix))]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use keyturn_audit::note::LogKey;

    use super::*;

    const PROFILE: &str = r#"{"format":"keyturn profile v1","person":"01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"bob",
        "token":"01ARZ3NDEKTSV4RRFFQ69G5FAW software -","device":"01ARZ3NDEKTSV4RRFFQ69G5FAX",
        "enrolment":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","vault":null}"#;

    #[test]
    fn a_home_is_private_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("deep/home"));
        assert!(matches!(home.profile(), Err(HomeError::None(_))));
        home.create().unwrap();
        let profile: Profile = serde_json::from_str(PROFILE).unwrap();
        home.keep_profile(&profile).unwrap();
        assert_eq!(home.profile().unwrap(), profile);
        assert!(matches!(home.create(), Err(HomeError::Exists(_))));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&home.path("profile.json")), 0o600, "invariant 1");
        assert_eq!(mode(&home.dir), 0o700, "invariant 1");
        fs::set_permissions(&home.dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            matches!(home.profile(), Err(HomeError::Open { mode: 0o755, .. })),
            "invariant 1"
        );
        let other = Home::at(folder.path().join("other"));
        fs::create_dir(&other.dir).unwrap();
        fs::set_permissions(&other.dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            matches!(other.profile(), Err(HomeError::None(_))),
            "nobody is told to close what is no home"
        );
        assert!(
            matches!(other.create(), Err(HomeError::Open { mode: 0o777, .. })),
            "invariant 1"
        );
        let file = Home::at(home.path("profile.json"));
        assert!(matches!(file.profile(), Err(HomeError::None(_))), "a file");
    }

    #[test]
    fn what_is_no_profile_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        for (name, text) in [
            ("cut", "{"),
            ("another kind", r#"{"format":"keyturn welcome v1"}"#),
            ("nothing", ""),
        ] {
            home.write("profile.json", text.as_bytes()).unwrap();
            assert!(
                matches!(home.profile(), Err(HomeError::Damaged(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn charters_and_checkpoints_only_go_forward() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.keep_charter(1, b"one").unwrap();
        home.keep_charter(2, b"two").unwrap();
        home.keep_charter(1, b"one").unwrap();
        assert!(
            matches!(home.keep_charter(2, b"other"), Err(HomeError::Backwards(_))),
            "invariant 2"
        );
        assert_eq!(home.charters().unwrap(), [b"one".to_vec(), b"two".to_vec()]);

        let key = LogKey::generate("vault.example.org/prod").unwrap();
        let (first, second) = (key.sign(1, [1; 32]).unwrap(), key.sign(2, [2; 32]).unwrap());
        home.keep_checkpoint(None, &second).unwrap();
        home.keep_checkpoint(None, &first).unwrap();
        assert_eq!(
            home.checkpoint().unwrap(),
            Some(second.note().to_string()),
            "invariant 2"
        );
    }
}
