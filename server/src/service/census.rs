//! Counts over all credentials, for `status` and metrics: read from the store, beside the owner.
//!
//! # Invariants
//! 1. Counting keeps nothing of the vault in memory and asks nothing of the owner.
//! 2. However often it is asked, it counts at most once in [`FRESH`].

use std::{sync::Arc, time::Duration};

use keyturn_proto::v1;
use keyturn_vault::{definition::Definition, event::Maker, manifest::Manifest, world::Stage};
use tokio::{sync::Mutex, time::Instant};

use super::Context;
use crate::{
    owner::{
        change::old_roster,
        core::{Known, document},
        rows,
    },
    refusal::Refused,
    store::{KeyRange, MAX_PAGE_ROWS, Name, key::Family},
};

/// A count is good for this long.
pub const FRESH: Duration = Duration::from_secs(2);

/// Counts over all credentials.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Credentials.
    pub credentials: v1::CredentialCounts,
    /// Live versions with fewer copies than wanted.
    pub few_copies: u64,
    /// The most copies that any credential wants.
    pub wanted: usize,
}

/// The last count, and when it was made; clones are the same.
pub type Last = Arc<Mutex<Option<(Instant, Census)>>>;

/// Counts, or gives what was counted a moment ago.
pub async fn count(context: &Context) -> Result<Census, Refused> {
    let mut last = context.census.lock().await;
    if let Some((at, census)) = &*last
        && at.elapsed() < FRESH
    {
        return Ok(census.clone());
    }
    let census = all(context).await?;
    *last = Some((Instant::now(), census.clone()));
    Ok(census)
}

async fn all(context: &Context) -> Result<Census, Refused> {
    let known = context.charter();
    let mut census = Census::default();
    let mut next = Some(KeyRange::family(Family::Credential));
    while let Some(range) = next {
        let page = context.store.range(&range, MAX_PAGE_ROWS).await?;
        for row in &page.rows {
            if let Some(Name::Credential(_)) = row.key.name() {
                let row = rows::decode(&row.value)?;
                one(context, &known, &mut census, &row).await?;
            }
        }
        next = page.rest;
    }
    Ok(census)
}

/// Counts one credential.
async fn one(
    context: &Context,
    known: &Known,
    census: &mut Census,
    row: &rows::Credential,
) -> Result<(), Refused> {
    let store = context.store.as_ref();
    let definition: Definition = document(store, row.definition).await?;
    let wanted = context.workshop.copies_wanted(&known.charter, &definition);
    census.wanted = census.wanted.max(wanted);
    let live = || row.versions.values().filter(|one| one.life.stage.live());
    let current = live().find(|one| one.life.stage == Stage::Current);
    let old = match current {
        Some(current) => {
            let manifest: Manifest = document(store, current.manifest).await?;
            old_roster(&manifest, &definition, known)?
        }
        None => false,
    };
    let deposited = current.is_some_and(|one| matches!(one.maker, Maker::Deposit(_)));
    let counts = &mut census.credentials;
    for (count, more) in [
        (&mut counts.total, true),
        (&mut counts.unproven, live().any(|one| !one.life.proven)),
        (&mut counts.known_to_human, deposited || !row.out.is_empty()),
        (&mut counts.old_roster, old),
        (&mut counts.inconsistent, live().any(|one| one.inconsistent)),
        (&mut counts.checked_out, !row.out.is_empty()),
    ] {
        *count = count.saturating_add(u64::from(more));
    }
    let few = live().filter(|one| context.workshop.copies_of(one.entry) < wanted);
    let few = u64::try_from(few.count()).unwrap_or(u64::MAX);
    census.few_copies = census.few_copies.saturating_add(few);
    Ok(())
}
