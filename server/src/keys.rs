//! The node's own files: the log key, and the pins that no store can talk it out of.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use keyturn_audit::note::LogKey;
use keyturn_hsm::private::{self, FileError};
use keyturn_vault::reference::CharterRef;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

const HEADER: &str = "keyturn log key v1";

/// Why the log key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogKeyError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a log key.
    #[error("this is not a log key of this vault")]
    Form,
}

/// Writes a new log key: a header, and the Ed25519 seed in hexadecimal.
pub fn write_log_key(path: &Path, key: &LogKey) -> Result<(), LogKeyError> {
    let seed = key.to_seed().map_err(|_| LogKeyError::Form)?;
    let text = Zeroizing::new(format!(
        "{HEADER}\n{}\n",
        Zeroizing::new(hex::encode(seed.as_slice())).as_str()
    ));
    Ok(private::create(path, text.as_bytes())?)
}

/// Reads the log key of a vault.
pub fn read_log_key(path: &Path, origin: &str) -> Result<LogKey, LogKeyError> {
    let bytes = private::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| LogKeyError::Form)?;
    let seed = text
        .strip_prefix(HEADER)
        .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'))
        .ok_or(LogKeyError::Form)?;
    let mut raw = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(seed, raw.as_mut_slice()).map_err(|_| LogKeyError::Form)?;
    LogKey::from_seed(origin, &raw).map_err(|_| LogKeyError::Form)
}

/// What the daemon holds on to outside its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The first charter.
    pub genesis: CharterRef,
    /// The newest charter that this node has seen in force.
    pub newest: CharterRef,
    /// A charter that replaces a group without its own members, after this node has seen their time to
    /// speak up pass. Written before the charter takes force: no row of the store can say that it waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<CharterRef>,
}

/// Where the pins are.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Their file.
    pub path: PathBuf,
    /// The first charter.
    pub genesis: CharterRef,
}

impl Pinned {
    /// Moves them to a charter that has taken force.
    pub fn follow(&self, newest: CharterRef) -> io::Result<()> {
        let pins = Pins {
            genesis: self.genesis,
            newest,
            waited: None,
        };
        write_pins(&self.path, &pins)
    }

    /// Notes a charter for which this node has seen the wait.
    pub fn note_wait(&self, waited: CharterRef) -> io::Result<()> {
        let pins = read_pins(&self.path)?;
        let waited = Some(waited);
        write_pins(&self.path, &Pins { waited, ..pins })
    }
}

/// Reads the pins.
pub fn read_pins(path: &Path) -> io::Result<Pins> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes the pins, whole or not at all.
pub fn write_pins(path: &Path, pins: &Pins) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, pins)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}
