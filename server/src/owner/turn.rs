//! One turn of the owner: what is stepped becomes a transaction, and what follows it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use keyturn_audit::{entry::Entry, tree::Edge};
use keyturn_proto::v1;
use keyturn_vault::{event::Event, id::CeremonyId};

use super::{
    Committed,
    core::{Core, Seen},
    txn::{After, Mark, Row, Subject, Txn},
};
use crate::{
    refusal::Refused,
    release,
    rows::{self, ENTRY_FORMAT},
    store::{self, Key, Name, Rev},
};

/// A transaction takes steps until it fills one of so many parts of what the store takes at once.
const PARTS: usize = 4;
/// About as many bytes has a part of a row: a signed text, a version.
const PART_BYTES: usize = 4096;

impl Core {
    /// Steps as one: what fails leaves no trace.
    pub(super) fn whole<T>(
        &mut self,
        txn: &mut Txn,
        step: impl FnOnce(&mut Self, &mut Txn) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mark = txn.mark();
        self.let_through = false;
        let result = step(self, txn).and_then(|value| {
            self.may_change(txn, mark)?;
            Ok(value)
        });
        if result.is_err() {
            txn.back_to(mark, self);
        }
        result
    }

    /// In restore mode nothing changes but the ceremony that ends it.
    fn may_change(&self, txn: &Txn, since: Mark) -> Result<(), Refused> {
        if self.mode.borrow().serves() || self.let_through || txn.come() == since {
            Ok(())
        } else {
            Err(Refused::RestoreMode)
        }
    }

    /// The size of the log with what this transaction appends.
    pub(super) fn log_size(&self, txn: &Txn) -> u64 {
        let new = u64::try_from(txn.entries.len()).unwrap_or(u64::MAX);
        self.edge.size().saturating_add(new)
    }

    /// Appends an entry to the transaction; gives its number.
    pub(super) fn log(&self, txn: &mut Txn, actor: &str, event: &Event) -> Result<u64, Refused> {
        let n = self.log_size(txn);
        let entry = Entry {
            n,
            time: self.clock.now().to_string(),
            charter: self.known.reference.index,
            actor: actor.to_owned(),
            kind: event.kind().to_owned(),
            body: event.body(),
        };
        let bytes = entry
            .encode()
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        txn.append(bytes);
        Ok(n)
    }

    /// Whether a transaction is so large that the next step goes into another one: what a step adds fits then,
    /// whatever it is.
    pub(super) fn is_full(&self, txn: &Txn) -> bool {
        let rows = txn.dirty.iter().map(|row| self.weight(*row));
        let bytes = rows.fold(txn.written, usize::saturating_add);
        let operations = [txn.entries.len(), txn.rows.len(), txn.dirty.len()];
        let operations = operations.into_iter().fold(0, usize::saturating_add);
        bytes >= self.limits.bytes / PARTS || operations >= self.limits.operations / PARTS
    }

    /// About how many bytes a row will have, rather too many.
    fn weight(&self, row: Row) -> usize {
        let parts = match row {
            Row::Vault => {
                let vault = &self.vault;
                let people = [
                    vault.joins.len(),
                    vault.joined.len(),
                    vault.invitations.len(),
                    vault.devices.len(),
                    vault.signed_in.len(),
                    vault.seen.len(),
                ];
                let steps = [vault.charters.len(), vault.restores.len()];
                people.into_iter().chain(steps).sum()
            }
            Row::Proposals => self.kept.kept.len(),
            Row::Credential(id) | Row::Slot(id) => self.held.get(&id).map_or(0, |held| {
                let documents = held
                    .row
                    .versions
                    .len()
                    .saturating_add(held.row.earlier.len());
                documents.saturating_add(held.slot.versions.len())
            }),
            Row::Ceremony(id) => self.live.get(&id).map_or(0, |live| {
                let row = &live.row;
                let release = row.release.iter().map(|release| release.ciphertext.len());
                let said = row.statements.len().saturating_add(row.reviews.len());
                let said = said.saturating_add(row.row.ask.lines.len());
                said.saturating_add(release.sum::<usize>() / (PART_BYTES / 2))
            }),
        };
        parts.saturating_add(1).saturating_mul(PART_BYTES)
    }

    /// The transaction for the store, and what it appends; none when nothing changed.
    pub(super) fn prepare(
        &self,
        txn: &mut Txn,
    ) -> Result<Option<(store::Txn, Arc<Committed>)>, Refused> {
        if txn.is_empty() {
            return Ok(None);
        }
        let batch = self.edge.append(&txn.entries).map_err(|_| Refused::Full)?;
        let mut out = store::Txn::new().when(Name::Head.key(), self.head_rev);
        out = out.put(Name::Head.key(), batch.edge().to_bytes());
        for (n, entry) in (self.edge.size()..).zip(&txn.entries) {
            let mut value = Vec::with_capacity(entry.len().saturating_add(1));
            value.push(ENTRY_FORMAT);
            value.extend_from_slice(entry);
            out = out.put(Name::Entry(n).key(), value);
        }
        for row in &txn.dirty {
            let (key, value) = self.encode(*row)?;
            out = out.put(key, value);
        }
        for (key, value) in std::mem::take(&mut txn.rows) {
            out = match value {
                Some(value) => out.put(key, value),
                None => out.delete(key),
            };
        }
        out.check(self.limits)
            .map_err(|invalid| Refused::Store(store::StoreError::Invalid(invalid)))?;
        let entries = std::mem::take(&mut txn.entries);
        Ok(Some((
            out,
            Arc::new(Committed::new(batch, entries, Arc::clone(&self.key))),
        )))
    }

    fn encode(&self, row: Row) -> Result<(Key, Vec<u8>), Refused> {
        Ok(match row {
            Row::Vault => (Name::Vault.key(), rows::encode(&self.vault)?),
            Row::Proposals => (Name::Proposals.key(), rows::encode(&self.kept)?),
            Row::Credential(id) => (
                Name::Credential(id).key(),
                rows::encode(&self.credential(id)?.row)?,
            ),
            Row::Slot(id) => (
                Name::Job(id).key(),
                rows::encode(&self.credential(id)?.slot)?,
            ),
            Row::Ceremony(id) => (
                Name::Ceremony(id).key(),
                rows::encode(&self.ceremony(id)?.row)?,
            ),
        })
    }

    /// An outcome for a turn that changed nothing.
    pub(super) fn nothing(&self) -> Arc<Committed> {
        let batch = self.edge.append::<Vec<u8>>([]);
        // Appending nothing to a tree that is there cannot fail; an empty edge stands in if it does.
        let batch = batch.or_else(|_| Edge::new().append::<Vec<u8>>([]));
        match batch {
            Ok(batch) => Arc::new(Committed::new(batch, Vec::new(), Arc::clone(&self.key))),
            Err(_) => std::process::abort(),
        }
    }

    pub(super) fn advance(&mut self, rev: Rev, committed: &Committed) {
        self.head_rev = rev;
        self.edge = committed.batch.edge().clone();
    }

    pub(super) fn roll_back(&mut self, txn: &mut Txn) {
        let start = Txn::default().come();
        txn.back_to(start, self);
    }

    /// Before anybody is answered: who was let in is known, and what changed is counted, when they call again.
    pub(super) fn know(&mut self, txn: &Txn) {
        self.count_rotations();
        let credentials = txn.dirty.iter().filter_map(|row| match row {
            Row::Credential(id) => Some(*id),
            Row::Vault | Row::Proposals | Row::Slot(_) | Row::Ceremony(_) => None,
        });
        let changed = self.changed.lock();
        changed
            .unwrap_or_else(PoisonError::into_inner)
            .extend(credentials);
        if txn
            .after
            .iter()
            .any(|after| matches!(after, After::Charter))
        {
            self.peers.follow(&self.known.charter, &self.vault.joined());
        }
    }

    /// Before anybody is told: what requesters wait for. Gives the ceremonies.
    pub(super) fn combine_first(&self, txn: &mut Txn) -> BTreeSet<CeremonyId> {
        let mut combined = BTreeSet::new();
        for (id, sheaves) in txn.combine.drain(..) {
            self.combine(id, sheaves);
            combined.insert(id);
        }
        combined
    }

    /// Shows what has changed to those who watch, with receipts of what was just appended. What is being combined is
    /// shown when that is done, a moment later, with what came of it.
    pub(super) fn show_all(
        &mut self,
        txn: &mut Txn,
        committed: &Committed,
        combined: &BTreeSet<CeremonyId>,
    ) {
        let objects = std::mem::take(&mut txn.objects);
        if !objects.is_empty() {
            self.objects
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(objects);
        }
        // A new head brings the publisher, who takes the objects.
        self.heads.send_replace(self.edge.size());
        for row in &txn.dirty {
            if let Row::Ceremony(id) = row {
                self.receive(*id, committed);
                if !combined.contains(id) {
                    self.show(*id, committed);
                }
            }
        }
    }

    /// When everybody knows: what follows a commit.
    pub(super) fn settle(&mut self, txn: Txn) {
        for after in txn.after {
            self.follow(after);
        }
        // Nothing is put back any more; what it kept is not shared any longer.
        drop(txn.undo);
        self.trim();
    }

    fn follow(&mut self, after: After) {
        match after {
            After::Forget(id) => self.desks.forget(id),
            After::Rotate(id, effect) => self.rotate(id, effect),
            After::Posted => self.posted(),
            After::Rosters(charter) => self.check_rosters(charter),
            After::Probe(id) => self.look_at(id),
            After::Told(Subject::Ceremony(id), kind) => {
                tracing::info!(ceremony = %id, kind, "told");
            }
            After::Told(Subject::Credential(id), kind) => {
                tracing::info!(credential = %id, kind, "told");
            }
            After::Restored(id) => {
                self.restoring = None;
                tracing::info!(ceremony = %id, "what was restored is accepted: the vault goes on");
                self.mode.send_replace(crate::mode::Mode::Serving);
            }
            After::Charter => self.announce(),
        }
    }

    /// The charter, or its keys, changed: the pins follow, and handlers verify by it.
    fn announce(&self) {
        // A refusal here is told; the next start walks the chain and moves them.
        if let Err(error) = self.pinned.follow(self.known.reference) {
            tracing::error!(%error, "the pins cannot be written");
        }
        self.announce.send_replace(Arc::clone(&self.known));
    }

    /// Keeps the receipt of an authorization that was just appended, for its release.
    fn receive(&mut self, id: CeremonyId, committed: &Committed) {
        if !self.watchers.contains_key(&id) {
            return;
        }
        let authorized = self.live.get(&id).and_then(|live| live.row.authorized);
        if let Some(receipt) = authorized.and_then(|n| committed.wire_receipt(n))
            && let Some(live) = self.live.get_mut(&id)
        {
            Arc::make_mut(live).receipt = Some(receipt);
        }
    }

    /// Shows a ceremony that has changed to those who watch it, with receipts of what was just appended.
    fn show(&self, id: CeremonyId, committed: &Committed) {
        if !self.watchers.contains_key(&id) {
            return;
        }
        let Ok(mut seen) = self.seen(id) else { return };
        if let Some(live) = self.live.get(&id)
            && let Some(release) = &live.row.release
            && let Some(receipt) = live.row.released.and_then(|n| committed.wire_receipt(n))
        {
            let out = live.row.checkout.as_ref();
            let release = v1::Release {
                checkout_ends_ms: out.map_or(0, |out| self.wall(out.until)),
                authorized: live.receipt.clone(),
                released: Some(receipt),
                ..release::wire(id, release)
            };
            seen.release = release.authorized.is_some().then(|| Arc::new(release));
        }
        if let Some(watcher) = self.watchers.get(&id) {
            watcher.send_replace(Arc::new(seen));
        }
    }

    /// A ceremony as its watchers see it.
    pub(super) fn seen(&self, id: CeremonyId) -> Result<Seen, Refused> {
        let live = self.ceremony(id)?;
        let row = &live.machine.row;
        Ok(Seen {
            state: row.state.clone(),
            opens: row.purpose.opens(),
            requester: row.ask.requester,
            view: self.view(id)?,
            release: None,
        })
    }
}
