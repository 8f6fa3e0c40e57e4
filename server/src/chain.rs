//! The chain of charters, walked from the pins when the daemon starts.
//!
//! Who may do what comes from here alone: the bytes hash to the pinned genesis and to what later
//! charters name, and each later one was agreed to with the keys of the one before it. The store only
//! says where to look.
//!
//! # Invariants
//! 1. Charter 1 is the pinned one, and every token in it signed its join.
//! 2. A later charter follows the one before, and k of its governing group and of every group that it
//!    touches have signed an approval of a signed request that names it. A group that was replaced
//!    without its own members, after the long wait, is missing here; the governing group never is.
//!    That there was a wait, only this node's own pins say: of every charter up to the newest one that it
//!    saw in force, and of the one that it noted before it let it take force.
//! 3. The pinned charter is in the chain, so the newest one is not older than it.
//! 4. A restore changes log key and nodes of the charter under which k of its governing group have signed
//!    an approval of a signed request that names the restore document.

use std::{io, sync::Arc};

use keyturn_vault::{
    change,
    charter::{Chain, Charter, touched_groups},
    id::CeremonyId,
    quorum::Missing,
    reference::CharterRef,
    restore::RestoreDocument,
    said::Said,
    text::{Change, Join, Purpose, Request, Text as _},
};

use thiserror::Error;

use crate::{
    keys::{LogKeyError, Pins},
    refusal::Refused,
    rows::{self, document, object, read},
    store::{Name, OpenError, Store},
    verify,
};

/// Why a vault is not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// The log key.
    #[error("the log key (`keys.log`) cannot be used")]
    LogKey(#[from] LogKeyError),
    /// The pins.
    #[error("the pins (`keys.genesis`) cannot be read")]
    Pins(#[source] io::Error),
    /// What the store holds is not what the pins say.
    #[error("the store is not this vault's: {0}")]
    Foreign(&'static str),
    /// What the store holds cannot be used.
    #[error("the store cannot be used")]
    Content(#[from] Refused),
}

/// What handlers may know without asking: the charter by which they verify.
#[derive(Clone, Debug)]
pub struct Known {
    /// The charter in force, or the one that the founders are joining.
    pub charter: Arc<Charter>,
    /// Its index and digest.
    pub reference: CharterRef,
    /// Whether it is in force.
    pub founded: bool,
}

/// The charters, verified; the newest is in force (or proposed to the founders).
pub async fn walk(
    pins: &Pins,
    store: &dyn Store,
    vault: &rows::Vault,
) -> Result<Chain, VaultError> {
    let foreign = VaultError::Foreign;
    if pins.genesis != vault.genesis {
        return Err(foreign("its first charter is not the pinned one"));
    }
    let bytes = object(store, vault.genesis.digest).await?;
    let mut chain = Chain::begin(&bytes, pins.genesis.digest)
        .map_err(|_| foreign("its first charter cannot be read"))?;
    if vault.in_force.is_some() {
        founded(&chain, vault)?;
    }
    restores(&mut chain, store, vault).await?;
    for later in &vault.charters {
        let bytes = object(store, later.charter.digest).await?;
        let old = newest(&chain)?.clone();
        chain
            .push(&bytes)
            .map_err(|_| foreign("one of its charters does not follow the one before"))?;
        let row = ceremony(store, later.ceremony).await?;
        let waited = later.charter.index <= pins.newest.index
            || pins.waited.as_ref() == Some(&later.charter);
        agreed(&old, newest(&chain)?, (later.charter, waited), &row).ok_or(foreign(
            "one of its charters was not agreed to by those whom it needs",
        ))?;
        restores(&mut chain, store, vault).await?;
    }
    let (reference, _) = chain.newest().ok_or(foreign("it has no charter"))?;
    if vault.in_force.unwrap_or(vault.genesis) != reference {
        return Err(foreign(
            "its charter in force is not the newest of its chain",
        ));
    }
    // Invariant 3; digests lead from here back to the genesis.
    if chain.find(&pins.newest).is_none() {
        return Err(foreign(
            "its charter is older than one that this node has seen; see `accept-restore`",
        ));
    }
    Ok(chain)
}

async fn ceremony(store: &dyn Store, id: CeremonyId) -> Result<rows::Ceremony, VaultError> {
    let row: Option<rows::Ceremony> = read(store, &Name::Ceremony(id).key()).await?;
    row.ok_or(VaultError::Foreign(
        "nothing shows that one of its charters or restores was agreed to",
    ))
}

/// The restores that were accepted under the newest charter (invariant 4).
async fn restores(
    chain: &mut Chain,
    store: &dyn Store,
    vault: &rows::Vault,
) -> Result<(), VaultError> {
    let under = chain.newest().map(|(reference, _)| reference);
    let of = |restored: &&rows::Restored| Some(restored.charter) == under;
    for restored in vault.restores.iter().filter(of) {
        let document: RestoreDocument = document(store, restored.document).await?;
        let row = ceremony(store, restored.ceremony).await?;
        accepted(newest(chain)?, &document, &row).ok_or(VaultError::Foreign(
            "one of its restores was not accepted by a quorum",
        ))?;
        chain
            .restore(&document)
            .map_err(|_| VaultError::Foreign("one of its restores does not fit its charter"))?;
    }
    Ok(())
}

fn newest(chain: &Chain) -> Result<&Charter, VaultError> {
    let newest = chain.newest().map(|(_, charter)| charter);
    newest.ok_or(VaultError::Foreign("it has no charter"))
}

/// Invariant 1.
fn founded(chain: &Chain, vault: &rows::Vault) -> Result<(), VaultError> {
    let charter = newest(chain)?;
    let joins = vault.joins.values().filter_map(|signed| {
        let verified = verify::text(charter, signed.clone()).ok()?;
        Join::parse(&verified.signed.text).ok()
    });
    let joins: Vec<_> = joins.collect();
    change::found(charter, vault.genesis, &joins).map_err(|_| {
        VaultError::Foreign("its first charter was not signed by everybody who founded it")
    })
}

/// Invariant 2.
fn agreed(
    old: &Charter,
    new: &Charter,
    (reference, waited): (CharterRef, bool),
    row: &rows::Ceremony,
) -> Option<()> {
    let request = request(old, row)?;
    let named = request.purpose == Purpose::Change(Change::Charter(reference))
        && Some(request.charter.digest) == new.previous;
    if !named {
        return None;
    }
    let governing = old.governing()?.name.clone();
    let mut needs = touched_groups(old, new);
    needs.retain(|name| old.group(name).is_some());
    needs.insert(governing.clone());
    let lacking = said(old, &request, row)
        .agree((request.charter, old), &request, needs)
        .missing;
    let bypassed = |lacking: &Missing| waited && lacking.group.as_ref() != Some(&governing);
    lacking.iter().all(bypassed).then_some(())
}

/// Invariant 4.
fn accepted(charter: &Charter, document: &RestoreDocument, row: &rows::Ceremony) -> Option<()> {
    let request = request(charter, row)?;
    let named = request.purpose == Purpose::AcceptRestore(document.subject().ok()?)
        && request.charter == document.charter;
    let verdict = said(charter, &request, row).agree(
        (request.charter, charter),
        &request,
        change::governing(charter),
    );
    (named && verdict.reached()).then_some(())
}

/// The request of a ceremony, signed by the person whom it names.
fn request(charter: &Charter, row: &rows::Ceremony) -> Option<Request> {
    let signed = verify::text(charter, row.request.clone()).ok()?.signed;
    let request = Request::parse(&signed.text).ok()?;
    let own = verify::signer(charter, row.request.signer) == Some(request.requested_by.id);
    (own && request.vault == charter.origin).then_some(request)
}

fn said(charter: &Charter, request: &Request, row: &rows::Ceremony) -> Said {
    let statements = row.statements.iter().map(|statement| &statement.signed);
    Said::fold(&[charter], request, statements, verify::holds)
}
