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

use std::collections::BTreeSet;

use keyturn_vault::{
    change,
    charter::{Chain, Charter, Group, touched_groups},
    id::PersonId,
    reference::CharterRef,
    text::{Approval, Change, Decision, Join, Purpose, Request, Text as _},
};

use crate::{
    daemon::VaultError,
    keys::Pins,
    owner::{
        core::{object, read},
        rows,
    },
    store::{Name, Store},
    verify,
};

/// The charter in force (or proposed to the founders), verified.
pub async fn walk(
    pins: &Pins,
    store: &dyn Store,
    vault: &rows::Vault,
) -> Result<(Charter, CharterRef), VaultError> {
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
    for later in &vault.charters {
        let bytes = object(store, later.charter.digest).await?;
        let old = newest(&chain)?.clone();
        chain
            .push(&bytes)
            .map_err(|_| foreign("one of its charters does not follow the one before"))?;
        let key = Name::Ceremony(later.ceremony).key();
        let row: rows::Ceremony = read(store, &key).await?.ok_or(foreign(
            "nothing shows that one of its charters was agreed to",
        ))?;
        let waited = later.charter.index <= pins.newest.index
            || pins.waited.as_ref() == Some(&later.charter);
        agreed(&old, newest(&chain)?, (later.charter, waited), &row).ok_or(foreign(
            "one of its charters was not agreed to by those whom it needs",
        ))?;
    }
    let (reference, charter) = chain.newest().ok_or(foreign("it has no charter"))?;
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
    Ok((charter.clone(), reference))
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
    let request = verify::text(old, row.request.clone()).ok()?.signed;
    let request = Request::parse(&request.text).ok()?;
    let named = request.purpose == Purpose::Change(Change::Charter(reference))
        && request.vault == old.origin
        && Some(request.charter.digest) == new.previous;
    if !named || verify::signer(old, row.request.signer) != Some(request.requested_by.id) {
        return None;
    }
    let (mut persons, mut keys) = (BTreeSet::<PersonId>::new(), BTreeSet::new());
    for statement in &row.statements {
        let signed = statement.signed.clone();
        let approval = Approval::parse(&signed.text).ok()?;
        let verified = verify::text_by_token(old, signed, approval.token.id).ok()?;
        let (owner, _) = old.person_of_token(approval.token.id)?;
        if approval.request != request.digest() || owner.id != approval.custodian.id {
            return None;
        }
        match approval.decision {
            Decision::Approve(_) if keys.insert(verified.key.pin()) => {
                persons.insert(owner.id);
            }
            Decision::Approve(_) => {}
            Decision::Refuse { .. } | Decision::Retract { .. } => {
                persons.remove(&owner.id);
                keys.remove(&verified.key.pin());
            }
        }
    }
    let enough = |group: &Group| {
        let own = group
            .members
            .iter()
            .filter(|member| persons.contains(member));
        own.count() >= usize::from(group.k)
    };
    let touched = touched_groups(old, new);
    let mut touched = touched.iter().filter_map(|name| old.group(name));
    let all = enough(old.governing()?) && touched.all(|group| enough(group) || waited);
    all.then_some(())
}
