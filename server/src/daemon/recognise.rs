//! Whose store it is: its chain of charters from the pins on, its log's key, its tokens' makers.

use std::{path::Path, sync::Arc};

use keyturn_audit::note::LogKey;
use keyturn_hsm::attestation::Anchors;
use keyturn_vault::{
    charter::{Chain, Charter},
    reference::CharterRef,
};

use crate::{
    attest,
    chain::{self, VaultError},
    config::Config,
    keys::{self, Pinned},
    rows::{self, read},
    store::{Name, RedbStore, Store},
};

pub(super) async fn open_store(data: &Path) -> Result<Arc<RedbStore>, VaultError> {
    let path = data.join("store.redb");
    let store = tokio::task::spawn_blocking(move || RedbStore::open(&path));
    let store = store
        .await
        .map_err(|_| VaultError::Foreign("it could not be read"))?;
    Ok(Arc::new(store?))
}

/// What a store is, as pins and keys of this machine have it.
pub(super) struct Recognised {
    pub(super) vault: rows::Vault,
    pub(super) chain: Chain,
    /// Its newest charter.
    pub(super) charter: Arc<Charter>,
    pub(super) reference: CharterRef,
    pub(super) restoring: Option<rows::Restoring>,
    pub(super) pinned: Pinned,
    pub(super) log_key: Arc<LogKey>,
}

/// Checks that the store is this vault's: its chain of charters from the pins on, and its log's key.
pub(super) async fn recognise(
    config: &Config,
    store: &dyn Store,
) -> Result<Recognised, VaultError> {
    let vault: rows::Vault = read(store, &Name::Vault.key())
        .await?
        .ok_or(VaultError::Foreign("it was never founded"))?;
    let path: &Path = config.keys.genesis.as_ref();
    let pins = keys::read_pins(path).map_err(VaultError::Pins)?;
    let chain = chain::walk(&pins, store, &vault).await?;
    let (reference, charter) = chain
        .newest()
        .ok_or(VaultError::Foreign("it has no charter"))?;
    let charter = Arc::new(charter.clone());
    let log_key = keys::read_log_key(config.keys.log.as_ref(), charter.origin.as_str())?;
    let restoring: Option<rows::Restoring> = read(store, &Name::Restore.key()).await?;
    if restoring.is_none() && log_key.vkey().to_string() != charter.log_key.as_str() {
        return Err(VaultError::Foreign(
            "its charter names another log key than `keys.log`",
        ));
    }
    Ok(Recognised {
        vault,
        chain,
        charter,
        reference,
        restoring,
        pinned: Pinned {
            path: path.to_owned(),
            genesis: pins.genesis,
        },
        log_key: Arc::new(log_key),
    })
}

/// The roots of attestations; a token of the charter in force that they do not vouch for is said.
pub(super) async fn tokens(config: &Config, store: &dyn Store, charter: &Charter) -> Anchors {
    let roots = config.attestation.roots.as_ref().map(AsRef::as_ref);
    let anchors = attest::roots_or_nobody(roots);
    for (token, why) in attest::unproven(&anchors, store, charter, None).await {
        tracing::warn!(token = %token.reference(), %why, "the charter's attestation of a token does not hold");
    }
    anchors
}
