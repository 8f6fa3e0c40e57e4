//! What one commit will hold, gathered while events are stepped.
//!
//! # Invariants
//! 1. A step that fails is taken back to its [`Mark`]: entries, rows, effects and memory.
//! 2. Rows that live in memory are encoded once, when all steps are done.
//! 3. What a credential was is remembered once after each mark: every way back leads through what was remembered
//!    first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use keyturn_vault::{
    ceremony::Sheaf,
    digest::Digest,
    id::{CeremonyId, CredentialId},
    reference::CharterRef,
    rotation,
};

use super::core::{Core, Held};
use crate::{desk::Share, store::Key};

/// Credentials whose rows were committed and are not counted yet; clones are the same.
pub type Changed = Arc<Mutex<BTreeSet<CredentialId>>>;

/// A row that is held in memory and has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// `meta/vault`.
    Vault,
    /// `meta/proposals`.
    Proposals,
    /// `credential/<id>`.
    Credential(CredentialId),
    /// `job/<id>`.
    Slot(CredentialId),
    /// `ceremony/<id>`.
    Ceremony(CeremonyId),
}

/// What happens when the commit is durable.
pub enum After {
    /// Forget the submit key.
    Forget(CeremonyId),
    /// The charter in force is another one, or the devices are.
    Charter,
    /// This charter is in force: rosters are looked at by it.
    Rosters(u64),
    /// There is more to deliver.
    Posted,
    /// What was restored is accepted, by this ceremony.
    Restored(CeremonyId),
    /// A rotation goes on outside.
    Rotate(CredentialId, rotation::Effect),
    /// A target is looked at.
    Probe(CredentialId),
    /// The daemon's own log says that this happened.
    Told(Subject, &'static str),
}

/// What a line of the daemon's own log is about.
#[derive(Clone, Copy)]
pub enum Subject {
    /// A ceremony or its check-out.
    Ceremony(CeremonyId),
    /// A credential's rotation.
    Credential(CredentialId),
}

pub(super) enum Undo {
    /// The row was in the transaction like this (nothing: a deletion).
    Row(Key, Option<Vec<u8>>),
    /// The row was not in the transaction.
    NoRow(Key),
    /// The row held in memory had not changed.
    Clean(Row),
    Memory(Box<dyn FnOnce(&mut Core) + Send>),
}

/// Everything one commit will hold.
#[derive(Default)]
pub struct Txn {
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) rows: BTreeMap<Key, Option<Vec<u8>>>,
    pub(super) dirty: BTreeSet<Row>,
    /// What is combined when the commit is durable, before anything else.
    pub(super) combine: Vec<(CeremonyId, Vec<Sheaf<Share>>)>,
    pub(super) after: Vec<After>,
    /// A charter that takes force without the members of a group, whose wait is over.
    pub(super) waited: Option<CharterRef>,
    /// Documents among the rows.
    pub(super) objects: Vec<Digest>,
    /// Bytes of entries and rows that were written, what was taken back again included.
    pub(super) written: usize,
    pub(super) undo: Vec<Undo>,
    /// Where in `undo` each credential was remembered last, and where that still serves (invariant 3).
    kept: BTreeMap<CredentialId, usize>,
    marked: usize,
}

/// How far a transaction had come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    entries: usize,
    combine: usize,
    after: usize,
    undo: usize,
}

impl Txn {
    /// Writes a row that is not held in memory.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        self.write(key, Some(value));
    }

    /// Deletes a row that is not held in memory.
    pub fn delete(&mut self, key: Key) {
        self.write(key, None);
    }

    /// Appends an entry.
    pub(super) fn append(&mut self, entry: Vec<u8>) {
        self.written = self.written.saturating_add(entry.len());
        self.entries.push(entry);
    }

    fn write(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.written = self
            .written
            .saturating_add(value.as_ref().map_or(0, Vec::len));
        let before = self.rows.insert(key.clone(), value);
        self.undo.push(match before {
            Some(before) => Undo::Row(key, before),
            None => Undo::NoRow(key),
        });
    }

    /// A row held in memory changes; `undo` puts the old one back.
    pub(super) fn touch(&mut self, row: Row, undo: impl FnOnce(&mut Core) + Send + 'static) {
        if self.dirty.insert(row) {
            self.undo.push(Undo::Clean(row));
        }
        self.remember(undo);
    }

    /// A credential is about to change: its row, its slot, or what is held beside them.
    pub(super) fn touch_credential(&mut self, row: Row, id: CredentialId, held: &Held) {
        if self.dirty.insert(row) {
            self.undo.push(Undo::Clean(row));
        }
        if self.kept.get(&id).is_none_or(|at| *at < self.marked) {
            self.kept.insert(id, self.undo.len());
            let before = held.clone();
            self.remember(move |core| drop(core.held.insert(id, before)));
        }
    }

    /// Something else in memory changes; `undo` puts the old one back.
    pub(super) fn remember(&mut self, undo: impl FnOnce(&mut Core) + Send + 'static) {
        self.undo.push(Undo::Memory(Box::new(undo)));
    }

    /// Marks where it has come, for the way back.
    pub(super) fn mark(&mut self) -> Mark {
        self.marked = self.undo.len();
        self.come()
    }

    /// How far it has come.
    pub(super) fn come(&self) -> Mark {
        Mark {
            entries: self.entries.len(),
            combine: self.combine.len(),
            after: self.after.len(),
            undo: self.undo.len(),
        }
    }

    /// Takes back everything since the mark.
    pub(super) fn back_to(&mut self, mark: Mark, core: &mut Core) {
        self.entries.truncate(mark.entries);
        self.combine.truncate(mark.combine);
        self.after.truncate(mark.after);
        self.kept.retain(|_, at| *at < mark.undo);
        self.marked = mark.undo;
        for undo in self
            .undo
            .split_off(mark.undo.min(self.undo.len()))
            .into_iter()
            .rev()
        {
            match undo {
                Undo::Row(key, before) => drop(self.rows.insert(key, before)),
                Undo::NoRow(key) => drop(self.rows.remove(&key)),
                Undo::Clean(row) => drop(self.dirty.remove(&row)),
                Undo::Memory(undo) => undo(core),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty() && self.dirty.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use keyturn_vault::{
        definition::Definition, digest::Digest, event::Seal, jcs::Document as _, reference::Signer,
        rotation::Slot, world::Holding,
    };

    use super::*;
    use crate::rows;

    fn held() -> (CredentialId, Held) {
        let bytes = include_bytes!("../../../vault/testdata/valid/definition.aws.json");
        let definition = Definition::from_bytes(bytes).unwrap();
        let (id, digest) = (definition.credential, Digest::of(bytes));
        let signature = Seal {
            signer: Signer::Node(keyturn_vault::id::NodeId::from_bytes([1; 16])),
            signature: Vec::new(),
        };
        let row = rows::Credential::new(definition.path.clone(), digest, signature, 0);
        let holding = Holding {
            definition: definition.into(),
            digest,
            versions: BTreeMap::new(),
            out: BTreeMap::new(),
        };
        let slot = Slot::new(id);
        (id, Held { row, holding, slot })
    }

    #[test]
    fn a_credential_is_remembered_once_after_each_mark() {
        let (id, held) = held();
        let mut txn = Txn::default();
        let remembered = |txn: &Txn| {
            let memory = |undo: &&Undo| matches!(undo, Undo::Memory(_));
            txn.undo.iter().filter(memory).count()
        };
        for (name, marks, want) in [
            ("first", false, 1),
            ("again in one step", false, 1),
            ("in a step inside or after it", true, 2),
            ("again in that", false, 2),
            ("in the next", true, 3),
        ] {
            if marks {
                txn.mark();
            }
            txn.touch_credential(Row::Credential(id), id, &held);
            txn.touch_credential(Row::Slot(id), id, &held);
            assert_eq!(remembered(&txn), want, "{name}");
        }
        assert_eq!(txn.dirty.len(), 2);
    }
}
