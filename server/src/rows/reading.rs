//! Rows and documents, as whoever opens a store looks for them.

use keyturn_vault::{digest::Digest, jcs::Document};
use serde::de::DeserializeOwned;

use super::{RowError, decode};
use crate::{
    refusal::Refused,
    store::{Key, Name, Store},
};

/// A row of the store, decoded.
pub async fn read<T: DeserializeOwned>(store: &dyn Store, key: &Key) -> Result<Option<T>, Refused> {
    match store.get(key).await? {
        Some((bytes, _)) => Ok(Some(decode(&bytes)?)),
        None => Ok(None),
    }
}

/// The bytes of a document; what does not hash to its digest is not there.
pub async fn object(store: &dyn Store, digest: Digest) -> Result<Vec<u8>, Refused> {
    let found = store.get(&Name::Object(digest).key()).await?;
    let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
    bytes
        .filter(|bytes| Digest::of(bytes) == digest)
        .ok_or(Refused::Row)
}

/// A document by its digest.
pub async fn document<T: Document>(store: &dyn Store, digest: Digest) -> Result<T, Refused> {
    T::from_bytes(&object(store, digest).await?).map_err(|_| Refused::Row)
}

impl From<RowError> for Refused {
    fn from(_: RowError) -> Self {
        Self::Row
    }
}
