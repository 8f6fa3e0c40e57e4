//! Objects: documents named by the digest of their content, beside the tiles.

use std::io;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    publish::{Dir, Disk, MAX_OBJECT_BYTES, OBJECTS},
    tile::Tiles,
    tree::Hash,
};

/// Why an object cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It could not be read.
    #[error("cannot read {OBJECTS}/{name}")]
    Read {
        /// Its file name.
        name: String,
        /// What the reader says.
        source: io::Error,
    },
    /// The content has another digest than the name says, or the name is no digest.
    #[error("{OBJECTS}/{name} is not what its name says")]
    Name {
        /// Its file name.
        name: String,
    },
    /// The folder cannot be listed.
    #[error("cannot list {OBJECTS}")]
    List(#[source] io::Error),
}

/// Reads the document with this digest.
pub fn object<T: Tiles>(tiles: &T, digest: &Hash) -> Result<Vec<u8>, ObjectError> {
    named_object(tiles, hex::encode(digest))
}

/// Reads every object of a log directory and compares it with its name; gives their number.
pub fn objects<D: Disk>(dir: &Dir<D>) -> Result<u64, ObjectError> {
    let mut count = 0_u64;
    for name in dir.objects().map_err(ObjectError::List)? {
        named_object(dir, name)?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

fn named_object<T: Tiles>(tiles: &T, name: String) -> Result<Vec<u8>, ObjectError> {
    match tiles.read(&format!("{OBJECTS}/{name}"), MAX_OBJECT_BYTES) {
        Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == name => Ok(bytes),
        Ok(_) => Err(ObjectError::Name { name }),
        Err(source) => Err(ObjectError::Read { name, source }),
    }
}
