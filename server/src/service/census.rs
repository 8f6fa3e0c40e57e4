//! Counts over all credentials, for `status` and metrics: read from the store, beside the owner.
//!
//! # Invariants
//! 1. Counting asks nothing of the owner, and keeps of a credential only what it counts.
//! 2. What was committed before it is asked is counted.
//! 3. A row is read once, until it or the charter changes: in a vault of ten thousand credentials the first
//!    count reads them all, and every later one those that have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use keyturn_proto::v1;
use keyturn_vault::{
    definition::Definition,
    event::Maker,
    id::{CeremonyId, CredentialId, PersonId},
    manifest::Manifest,
    reference::CharterRef,
    world::Stage,
};
use tokio::sync::Mutex;

use super::Context;
use crate::{
    chain::Known,
    owner::{Changed, change::old_roster},
    refusal::Refused,
    rows::{self, document, read},
    store::{KeyRange, MAX_PAGE_ROWS, Name, key::Family},
};

/// Counts over all credentials.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Credentials.
    pub credentials: v1::CredentialCounts,
    /// Live versions with fewer copies than wanted.
    pub few_copies: u64,
    /// The most copies that any credential wants.
    pub wanted: usize,
    /// The ceremonies by which people have something checked out.
    pub out: BTreeMap<PersonId, BTreeSet<CeremonyId>>,
    /// Credentials whose connector this host does not have.
    pub no_connector: u64,
}

/// What is kept from one count to the next; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Last {
    changed: Changed,
    kept: Arc<Mutex<Kept>>,
}

impl Last {
    /// Where the owner says which rows it has changed.
    pub fn changed(&self) -> Changed {
        Arc::clone(&self.changed)
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// The charter by which they were counted; none before all were.
    charter: Option<CharterRef>,
    credentials: BTreeMap<CredentialId, One>,
}

/// What is counted of one credential.
#[derive(Clone, Debug)]
struct One {
    /// How many copies it wants.
    wanted: usize,
    /// Each 0 or 1.
    counts: v1::CredentialCounts,
    /// The entries of its live versions.
    live: Vec<u64>,
    /// Who has it checked out, by which ceremony.
    out: BTreeMap<CeremonyId, PersonId>,
    /// Whether this host lacks its connector.
    no_connector: bool,
}

/// Counts.
pub async fn count(context: &Context) -> Result<Census, Refused> {
    let mut kept = context.census.kept.lock().await;
    let known = context.charter();
    // Taken first: what changes from now on is counted the next time.
    let changed = context.census.changed.lock();
    let changed = std::mem::take(&mut *changed.unwrap_or_else(PoisonError::into_inner));
    // When it fails half-way, the next count is a first one.
    let whole = kept.charter.take() == Some(known.reference);
    if whole {
        for id in changed {
            let row = read(context.store.as_ref(), &Name::Credential(id).key()).await;
            kept.count(context, &known, id, row).await?;
        }
    } else {
        kept.credentials.clear();
        let mut next = Some(KeyRange::family(Family::Credential));
        while let Some(range) = next {
            let page = context.store.range(&range, MAX_PAGE_ROWS).await?;
            for row in &page.rows {
                if let Some(Name::Credential(id)) = row.key.name() {
                    let row = rows::decode(&row.value).map(Some).map_err(Refused::from);
                    kept.count(context, &known, id, row).await?;
                }
            }
            next = page.rest;
        }
    }
    kept.charter = Some(known.reference);
    let mut census = Census::default();
    for one in kept.credentials.values() {
        census.add(context, one);
    }
    Ok(census)
}

impl Kept {
    /// Counts one credential, by its row.
    async fn count(
        &mut self,
        context: &Context,
        known: &Known,
        id: CredentialId,
        row: Result<Option<rows::Credential>, Refused>,
    ) -> Result<(), Refused> {
        self.credentials.remove(&id);
        let one = match row {
            Ok(Some(row)) => look(context, known, &row).await,
            Ok(None) => return Ok(()),
            Err(refused) => Err(refused),
        };
        match one {
            Ok(one) => drop(self.credentials.insert(id, one)),
            // It is told by whoever needs it; the rest is counted.
            Err(Refused::Row) => {}
            Err(refused) => return Err(refused),
        }
        Ok(())
    }
}

/// Looks into one credential.
async fn look(context: &Context, known: &Known, row: &rows::Credential) -> Result<One, Refused> {
    let store = context.store.as_ref();
    let definition: Definition = document(store, row.definition).await?;
    let live = || row.versions.values().filter(|one| one.life.stage.live());
    let current = live().find(|one| one.life.stage == Stage::Current);
    let old_roster = match current {
        Some(current) => {
            let manifest: Manifest = document(store, current.manifest).await?;
            old_roster(&manifest, &definition, known)?
        }
        None => false,
    };
    let deposited = current.is_some_and(|one| matches!(one.maker, Maker::Deposit(_)));
    Ok(One {
        wanted: context.workshop.copies_wanted(&known.charter, &definition),
        counts: v1::CredentialCounts {
            total: 1,
            unproven: live().any(|one| !one.life.proven).into(),
            known_to_human: (deposited || !row.out.is_empty()).into(),
            old_roster: old_roster.into(),
            inconsistent: live().any(|one| one.inconsistent).into(),
            checked_out: (!row.out.is_empty()).into(),
        },
        live: live().map(|one| one.entry).collect(),
        out: row.out.clone(),
        no_connector: context.workshop.lacks_connector(&definition),
    })
}

impl Census {
    fn add(&mut self, context: &Context, one: &One) {
        let (counts, more) = (&mut self.credentials, &one.counts);
        for (count, more) in [
            (&mut counts.total, more.total),
            (&mut counts.unproven, more.unproven),
            (&mut counts.known_to_human, more.known_to_human),
            (&mut counts.old_roster, more.old_roster),
            (&mut counts.inconsistent, more.inconsistent),
            (&mut counts.checked_out, more.checked_out),
        ] {
            *count = count.saturating_add(more);
        }
        self.wanted = self.wanted.max(one.wanted);
        for (ceremony, person) in &one.out {
            self.out.entry(*person).or_default().insert(*ceremony);
        }
        self.no_connector = self.no_connector.saturating_add(one.no_connector.into());
        let few = |entry: &&u64| context.workshop.copies_of(**entry) < one.wanted;
        let few = u64::try_from(one.live.iter().filter(few).count()).unwrap_or(u64::MAX);
        self.few_copies = self.few_copies.saturating_add(few);
    }
}
