//! What a daemon in restore mode puts before the quorum.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use keyturn_audit::{note::LogKey, tree::Edge};
use keyturn_vault::{
    charter::{Chain, Node},
    digest::Digest,
    id::CredentialId,
    jcs::Document as _,
    key::PublicKey,
    manifest::Manifest,
    reference::Head,
    world::VersionId,
};

use super::{
    head,
    make::{blob, node_name},
    source,
};
use crate::{
    chain::VaultError,
    config::Config,
    identity,
    mode::Mode,
    owner::restore::{Found, Restoring},
    rows::{self, ENTRY_FORMAT, document, read},
    store::{KeyRange, MAX_PAGE_ROWS, Name, Outcome, Store, Txn, key::Family},
    verify,
};

/// What the daemon has at its start.
pub(crate) struct Start<'a> {
    /// The configuration.
    pub(crate) config: &'a Config,
    /// The store.
    pub(crate) store: &'a dyn Store,
    /// The charters.
    pub(crate) chain: &'a Chain,
    /// The key of `keys.log`.
    pub(crate) log_key: &'a LogKey,
    /// The key of `keys.node`, under the id that the store has for it.
    pub(crate) node: &'a identity::Node,
    /// The committed head.
    pub(crate) edge: &'a Edge,
}

/// What waits to be accepted; none when the vault goes on.
pub(crate) async fn begin(
    start: &Start<'_>,
    mode: &Mode,
    row: Option<rows::Restoring>,
) -> Result<Option<Restoring>, VaultError> {
    let Some(why) = mode.why() else {
        return Ok(None);
    };
    let (charter_key, node) = keys(start)?;
    let mut row = row.unwrap_or_else(|| rows::Restoring {
        why,
        head: head(start.edge),
        found: Vec::new(),
        accepted: None,
    });
    let mut left = Vec::new();
    if row.accepted.is_none() {
        let all = scan(start, row.found).await?;
        (row.found, left) = (all.versions.into_iter().collect(), all.left);
        for what in &left {
            tracing::warn!(what, "this is not taken back and stays where it is");
        }
    }
    let mut found = BTreeMap::new();
    for (version, digest) in row.found {
        let manifest: Manifest = document(start.store, digest).await?;
        let key = Name::Version(version.credential, version.version.number()).key();
        let sealed: Option<rows::Blob> = read(start.store, &key).await?;
        let signer = sealed.map(|sealed| sealed.signature.signer);
        let signer = signer.ok_or(VaultError::Foreign("it lacks a sealed value"))?;
        let one = Found {
            digest,
            manifest,
            maker: verify::maker(start.chain, signer),
        };
        found.insert(version, one);
    }
    Ok(Some(Restoring {
        why: row.why,
        head: row.head,
        lost: mode.lost().filter(|(lost, _)| beyond(*lost, row.head)),
        log_key: charter_key,
        node,
        found,
        left,
        accepted: row.accepted,
        shown: mode.shown().into_iter().map(|(head, _)| head).collect(),
    }))
}

/// A head that the restored one does not lead to: what the ceremony itself appended is none of it.
fn beyond(lost: Head, restored: Head) -> bool {
    lost != restored
}

type NewKeys = (Option<keyturn_vault::key::VerifierKey>, Option<Node>);

/// The keys that are not the charter's.
fn keys(start: &Start<'_>) -> Result<NewKeys, VaultError> {
    let foreign = VaultError::Foreign;
    let (_, charter) = start.chain.newest().ok_or(foreign("it has no charter"))?;
    let vkey = start.log_key.vkey().to_string();
    let log_key = if vkey == charter.log_key.as_str() {
        None
    } else {
        Some(
            vkey.parse()
                .map_err(|_| foreign("its log key has no name"))?,
        )
    };
    let key = PublicKey::from_der(start.node.key().public().spki())
        .map_err(|_| foreign("its node key is not P-256"))?;
    let node = match charter.node(start.node.id) {
        Some(known) if known.key == key => None,
        Some(_) => {
            return Err(foreign(
                "its charter has another key for this node than `keys.node`; put the old key back, or use `keyturnd restore`",
            ));
        }
        None => Some(Node {
            id: start.node.id,
            name: node_name(charter).map_err(|_| foreign("its charter names no node"))?,
            key,
        }),
    };
    Ok((log_key, node))
}

/// Brings in sealed values that only places for copies have, beside those that were found before: the log
/// does not know them yet, and each may be what a target has now.
async fn scan(
    start: &Start<'_>,
    before: Vec<(VersionId, Digest)>,
) -> Result<source::Found, VaultError> {
    let (credentials, known) = known(start.store).await?;
    let mut all = source::Found {
        versions: before.into_iter().collect(),
        left: Vec::new(),
    };
    for sink in &start.config.copies.sinks {
        let (path, chain) = (sink.path().to_owned(), start.chain.clone());
        let (credentials, known) = (credentials.clone(), known.clone());
        let scan = move || {
            source::found(
                &path,
                &chain,
                |version| known.contains(&version),
                |credential| credentials.contains(&credential),
            )
        };
        let here = tokio::task::spawn_blocking(scan).await;
        let here = here.map_err(|_| VaultError::Foreign("a place for copies cannot be read"))?;
        let had: BTreeSet<_> = all.versions.keys().copied().collect();
        all.join(sink.name(), here);
        for version in all.versions.keys().filter(|version| !had.contains(version)) {
            bring(start, sink.path(), *version).await?;
        }
    }
    Ok(all)
}

/// Brings in one sealed value, with its documents.
async fn bring(start: &Start<'_>, path: &Path, version: VersionId) -> Result<(), VaultError> {
    let root = path.to_owned();
    let read = tokio::task::spawn_blocking(move || source::read_version(&root, version));
    let sealed = read.await.ok().and_then(Result::ok);
    let sealed = sealed.ok_or(VaultError::Foreign("a place for copies cannot be read"))?;
    let damaged = || VaultError::Foreign("a document cannot be written");
    let manifest = sealed.manifest.to_bytes().map_err(|_| damaged())?;
    let definition = sealed.definition.to_bytes().map_err(|_| damaged())?;
    let object = |bytes: &[u8]| {
        let value = [&[ENTRY_FORMAT], bytes].concat();
        (Name::Object(Digest::of(bytes)).key(), value)
    };
    let ((one, manifest), (other, definition)) = (object(&manifest), object(&definition));
    let row = rows::encode(&blob(sealed)).map_err(|_| damaged())?;
    let key = Name::Version(version.credential, version.version.number()).key();
    let txn = Txn::new()
        .put(one, manifest)
        .put(other, definition)
        .put(key, row);
    match start.store.txn(txn).await {
        Ok(Outcome::Committed(_)) => Ok(()),
        _ => Err(VaultError::Foreign("it takes no versions from a copy")),
    }
}

/// The credentials and versions that the store has, where their rows can be used.
async fn known(
    store: &dyn Store,
) -> Result<(BTreeSet<CredentialId>, BTreeSet<VersionId>), VaultError> {
    let (mut credentials, mut versions) = (BTreeSet::new(), BTreeSet::new());
    let mut next = Some(KeyRange::family(Family::Credential));
    while let Some(range) = next {
        let page = store
            .range(&range, MAX_PAGE_ROWS)
            .await
            .map_err(crate::refusal::Refused::Store)?;
        for row in &page.rows {
            let Some(Name::Credential(credential)) = row.key.name() else {
                continue;
            };
            // One row that cannot be used keeps nobody from accepting the rest: what places have of it stays there.
            let Ok(row) = rows::decode::<rows::Credential>(&row.value) else {
                tracing::error!(%credential, "the row of a credential cannot be used");
                continue;
            };
            credentials.insert(credential);
            versions.extend(row.versions.into_keys().map(|version| VersionId {
                credential,
                version,
            }));
        }
        next = page.rest;
    }
    Ok((credentials, versions))
}
