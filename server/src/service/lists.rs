//! Lists straight from the store, a page at a time.

use std::collections::BTreeMap;

use keyturn_vault::id::{CeremonyId, CredentialId};

use super::Context;
use crate::{
    refusal::Refused,
    rows::{self, read},
    store::{KeyRange, MAX_PAGE_ROWS, Name, key::Family},
};

/// Entries that one page of a history looks at; further ones are on the next page.
const MAX_SEARCHED: u64 = 20_000;

impl Context {
    /// The details text of a ceremony; none when it was erased, or a restore did not have it.
    pub async fn details_of(&self, id: CeremonyId) -> Result<Option<String>, Refused> {
        read(self.store.as_ref(), &Name::Details(id).key()).await
    }

    /// Ceremonies, newest first, before one.
    pub async fn ceremonies(
        &self,
        before: Option<CeremonyId>,
        size: usize,
    ) -> Result<Vec<CeremonyId>, Refused> {
        let all = KeyRange::family(Family::Ceremony);
        // Ids are made by requesters, so their order in the store is theirs.
        let mut next = Some(before.map_or_else(
            || all.clone(),
            |before| all.before(&Name::Ceremony(before).key()),
        ));
        let mut ids = Vec::new();
        while let Some(range) = next.take_if(|_| ids.len() < size) {
            let left = size.saturating_sub(ids.len());
            let page = self.store.range_back(&range, left).await?;
            ids.extend(page.rows.iter().filter_map(|row| match row.key.name() {
                Some(Name::Ceremony(id)) => Some(id),
                _ => None,
            }));
            next = page.rest;
        }
        Ok(ids)
    }

    /// Paths with their credentials, in order, after one.
    pub async fn paths(
        &self,
        after: &str,
        size: usize,
    ) -> Result<Vec<(String, CredentialId)>, Refused> {
        let mut range = KeyRange::family(Family::Path);
        if !after.is_empty() {
            range = range.after(&Name::Path(after).key());
        }
        let page = self.store.range(&range, size).await?;
        let mut paths = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            if let Some(Name::Path(path)) = row.key.name() {
                paths.push((path.to_owned(), rows::decode(&row.value)?));
            }
        }
        Ok(paths)
    }

    /// Entries that name a credential, or a ceremony that does, newest first, before one; and where the next
    /// page begins.
    pub async fn entries_about(
        &self,
        credential: CredentialId,
        before: Option<u64>,
        size: usize,
    ) -> Result<(Vec<Vec<u8>>, Option<u64>), Refused> {
        let newest = self
            .published
            .newest()
            .map(|newest| newest.size())
            .unwrap_or_default();
        let mut until = before.unwrap_or(newest).min(newest);
        let floor = until.saturating_sub(MAX_SEARCHED);
        let mut found = Vec::new();
        let mut asked = BTreeMap::new();
        while until > floor {
            let from = until.saturating_sub(256).max(floor);
            let page = self
                .store
                .range(&KeyRange::entries(from, until), MAX_PAGE_ROWS)
                .await?;
            for (n, row) in (from..until)
                .zip(&page.rows)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                let entry = row
                    .value
                    .split_first()
                    .map(|(_, rest)| rest)
                    .unwrap_or_default();
                if self.is_about(entry, credential, &mut asked).await? {
                    found.push(entry.to_vec());
                }
                if found.len() >= size {
                    return Ok((found, Some(n)));
                }
            }
            until = from;
        }
        Ok((found, (until > 0).then_some(until)))
    }

    /// Whether an entry names this credential, or a ceremony that asks for it; `asked` remembers the latter.
    async fn is_about(
        &self,
        entry: &[u8],
        credential: CredentialId,
        asked: &mut BTreeMap<CeremonyId, bool>,
    ) -> Result<bool, Refused> {
        let Ok(entry) = std::str::from_utf8(entry) else {
            return Ok(false);
        };
        if entry.contains(&credential.to_string()) {
            return Ok(true);
        }
        let named = entry.split_once("\"ceremony\":\"");
        let named = named.and_then(|(_, rest)| rest.split('"').next()?.parse::<CeremonyId>().ok());
        let Some(ceremony) = named else {
            return Ok(false);
        };
        if let Some(about) = asked.get(&ceremony) {
            return Ok(*about);
        }
        let key = Name::Ceremony(ceremony).key();
        let row: Option<rows::Ceremony> = read(self.store.as_ref(), &key).await?;
        let about = row.is_some_and(|row| row.row.credentials().contains(&credential));
        asked.insert(ceremony, about);
        Ok(about)
    }
}
