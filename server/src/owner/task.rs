//! Rotations that people do: who is reminded when, and what is overdue.
//!
//! # Invariants
//! 1. A task has a row that brings its next reminder: no restart forgets it.
//! 2. A task is over when nothing is owed any more, and not before.

use keyturn_vault::id::CredentialId;

use super::{
    core::{Core, Held},
    time::{DueKind, NEVER},
    txn::Txn,
};
use crate::{refusal::Refused, rows::Since};

impl Core {
    /// Keeps the rows of what is owed, and of what people do about it (invariants 1 and 2).
    pub(super) fn mark_task(&mut self, txn: &mut Txn, id: CredentialId) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let now = self.now();
        let definition = &held.holding.definition;
        let due = held.slot.is_due() && !definition.is_automatic();
        let pace = self.workshop.pace(definition);
        let bytes = id.to_bytes();
        let next = match self.due.at(DueKind::Manual, bytes) {
            _ if !due => None,
            Some(known) => Some(known),
            None => Some(pace.map_or(NEVER, |pace| now.lived.after(pace.remind.ms()))),
        };
        let owed = !held.slot.owed.is_empty();
        if owed != held.row.owed.is_some() {
            let since = Since {
                wall: now.wall,
                lived: now.lived,
            };
            self.change_credential(txn, id, |row| row.owed = owed.then_some(since));
        }
        self.set_due(txn, DueKind::Manual, bytes, next);
    }

    /// Whether people have not done what they should have for too long.
    pub(super) fn is_overdue(&self, held: &Held) -> bool {
        let pace = self.workshop.pace(&held.holding.definition);
        let (Some(since), Some(pace)) = (held.row.owed, pace) else {
            return false;
        };
        held.slot.is_due() && self.now().lived >= since.lived.after(pace.escalate.ms())
    }

    /// It is time to remind people.
    pub(super) fn remind(&mut self, txn: &mut Txn, id: CredentialId) -> Result<(), Refused> {
        let held = self.credential(id)?;
        let bytes = id.to_bytes();
        let Some(pace) = self.workshop.pace(&held.holding.definition) else {
            self.set_due(txn, DueKind::Manual, bytes, Some(NEVER));
            return Ok(());
        };
        let overdue = self.is_overdue(held);
        let next = self.now().lived.after(pace.remind.ms());
        self.set_due(txn, DueKind::Manual, bytes, Some(next));
        self.set_due(txn, DueKind::Stuck, bytes, overdue.then_some(NEVER));
        self.tell_task(txn, id, overdue)
    }
}
