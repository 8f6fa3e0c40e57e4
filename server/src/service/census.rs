//! Counts over all credentials, for `status` and metrics: read from the store, beside the owner.
//!
//! # Invariants
//! 1. Counting asks nothing of the owner, and keeps of a credential only what it counts.
//! 2. However often it is asked, it counts at most once in [`FRESH`].
//! 3. A row is looked into once, until it or the charter changes: a vault of ten thousand credentials is counted
//!    by reading their rows, without their documents.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use keyturn_proto::v1;
use keyturn_vault::{
    definition::Definition, event::Maker, id::CredentialId, manifest::Manifest,
    reference::CharterRef, world::Stage,
};
use tokio::{sync::Mutex, time::Instant};

use super::Context;
use crate::{
    chain::Known,
    owner::change::old_roster,
    refusal::Refused,
    rows::{self, document},
    store::{KeyRange, MAX_PAGE_ROWS, Name, Rev, key::Family},
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

/// What is kept from one count to the next; clones are the same.
pub type Last = Arc<Mutex<Kept>>;

/// What is kept from one count to the next.
#[derive(Debug, Default)]
pub struct Kept {
    last: Option<(Instant, Census)>,
    charter: Option<CharterRef>,
    credentials: BTreeMap<CredentialId, (Rev, One)>,
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
}

/// Counts, or gives what was counted a moment ago.
pub async fn count(context: &Context) -> Result<Census, Refused> {
    let mut kept = context.census.lock().await;
    if let Some((at, census)) = &kept.last
        && at.elapsed() < FRESH
    {
        return Ok(census.clone());
    }
    let census = all(context, &mut kept).await?;
    kept.last = Some((Instant::now(), census.clone()));
    Ok(census)
}

async fn all(context: &Context, kept: &mut Kept) -> Result<Census, Refused> {
    let known = context.charter();
    if kept.charter.replace(known.reference) != Some(known.reference) {
        kept.credentials.clear();
    }
    let mut census = Census::default();
    let mut before = std::mem::take(&mut kept.credentials);
    let mut next = Some(KeyRange::family(Family::Credential));
    while let Some(range) = next {
        let page = context.store.range(&range, MAX_PAGE_ROWS).await?;
        for row in &page.rows {
            let Some(Name::Credential(id)) = row.key.name() else {
                continue;
            };
            let same = before.remove(&id).filter(|(rev, _)| *rev == row.rev);
            let one = match same {
                Some((_, one)) => one,
                None => match look(context, &known, &row.value).await {
                    Ok(one) => one,
                    // It is told by whoever needs it; the rest is counted.
                    Err(Refused::Row) => continue,
                    Err(refused) => return Err(refused),
                },
            };
            census.add(context, &one);
            kept.credentials.insert(id, (row.rev, one));
        }
        next = page.rest;
    }
    Ok(census)
}

/// Looks into one credential.
async fn look(context: &Context, known: &Known, row: &[u8]) -> Result<One, Refused> {
    let store = context.store.as_ref();
    let row: rows::Credential = rows::decode(row)?;
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
        let few = |entry: &&u64| context.workshop.copies_of(**entry) < one.wanted;
        let few = u64::try_from(one.live.iter().filter(few).count()).unwrap_or(u64::MAX);
        self.few_copies = self.few_copies.saturating_add(few);
    }
}
