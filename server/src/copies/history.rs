//! Whether the copy of the log in a place is the store's.
//!
//! Entries carry their time and random ids, so two histories differ in every entry after the one at which
//! they part: one entry is compared, not all. What would be missed is found when the next checkpoint is
//! written there, which is over all of them.

use keyturn_audit::tree::{Hash, leaf};
use keyturn_vault::id::CeremonyId;

use super::sink::{Sink, SinkError};
use crate::{
    refusal::Refused,
    rows::{self, read},
    store::{Name, Store},
};

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the store cannot be read")]
    Store(#[from] Refused),
}

/// Whether a place has the store's entry of this number; one that cannot say has.
pub(crate) async fn same(sink: &dyn Sink, store: &dyn Store, n: u64) -> Result<bool, HistoryError> {
    let Some(there) = sink.leaf(n).await? else {
        return Ok(true);
    };
    Ok(own(store, n).await? == Some(there))
}

/// The restore in which a quorum gave up the log of so many entries that a place has: it is not the store's,
/// and no longer than what was known to be lost.
pub(crate) async fn given_up(
    sink: &dyn Sink,
    store: &dyn Store,
    there: u64,
) -> Result<Option<CeremonyId>, HistoryError> {
    let vault: Option<rows::Vault> = read(store, &Name::Vault.key()).await?;
    let restores = vault.map(|vault| vault.restores).unwrap_or_default();
    for restore in restores.iter().rev() {
        let lost = restore.lost.map_or(0, |lost| lost.size);
        // Where they part at the latest: behind the restored head the store has the restore's own entries.
        let Some(at) = there.checked_sub(1).map(|last| last.min(restore.head.size)) else {
            continue;
        };
        if there <= lost && !same(sink, store, at).await? {
            return Ok(Some(restore.ceremony));
        }
    }
    Ok(None)
}

async fn own(store: &dyn Store, n: u64) -> Result<Option<Hash>, HistoryError> {
    let row = store.get(&Name::Entry(n).key()).await;
    let row = row.map_err(Refused::from)?;
    let entry = row.as_ref().and_then(|(bytes, _)| bytes.split_first());
    Ok(entry.map(|(_, entry)| leaf(entry)))
}
