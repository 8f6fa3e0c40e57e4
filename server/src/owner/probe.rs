//! Looks at targets, on a schedule, without the secret: is the sealed one still the real one?
//!
//! # Invariants
//! 1. A look decides nothing about versions: whatever it sees, what is sealed stays openable.
//! 2. Only a change is logged: that a secret is not the real one any more, or that it is again.
//! 3. What was seen of an older version says nothing about a newer one.

use keyturn_vault::{
    event::Event as Entry, id::CredentialId, name::Line, reference::Version, time::Span,
    world::VersionId,
};

use super::{
    ceremony::DAEMON,
    core::{Core, Held},
    time::{DueKind, NEVER},
    txn::{After, Txn},
};
use crate::{
    connector::{Known, PROBE_EVERY, Sight, Verdict},
    refusal::Refused,
    rotation::Look,
    rows,
};

/// How often a target is looked at, where the definition does not say with [`PROBE_EVERY`].
const EVERY: Span = Span::from_hours(6);
/// How long a look waits where rotations have all the places.
const CROWDED: Span = Span::from_mins(1);
/// The bounds of what it may say.
const BOUNDS: (Span, Span) = (Span::from_mins(5), Span::from_days(7));
/// A version that was proven, or seen to be the real one, longer ago is worth a look by people.
const PROOF_AGE: Span = Span::from_days(180);

impl Core {
    /// When a credential is looked at next: kept in a row, set anew by each look.
    pub(super) fn mark_probe(&mut self, txn: &mut Txn, id: CredentialId) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let wanted = held.holding.definition.connector.is_some() && held.slot.current().is_some();
        let diverged = held.row.probe.as_ref().is_some_and(|probe| probe.diverged);
        let bytes = id.to_bytes();
        let at = match self.due.at(DueKind::Probe, bytes) {
            _ if !wanted => None,
            Some(known) => Some(known),
            None => Some(self.now().lived.after(jittered(every(held)))),
        };
        self.set_due(txn, DueKind::Probe, bytes, at);
        self.set_due(txn, DueKind::Diverged, bytes, diverged.then_some(NEVER));
    }

    /// It is time to look.
    pub(super) fn probe_tick(&mut self, txn: &mut Txn, id: CredentialId) {
        let bytes = id.to_bytes();
        let Some(held) = self.held.get(&id) else {
            self.set_due(txn, DueKind::Probe, bytes, None);
            return;
        };
        // However many are due, those that wait do so here and not in memory.
        let room = self.workshop.has_room();
        let span = if room { every(held) } else { CROWDED };
        let next = self.now().lived.after(jittered(span));
        // What is being changed says nothing.
        if room && !held.slot.is_busy() {
            txn.after.push(After::Probe(id));
        }
        self.set_due(txn, DueKind::Probe, bytes, Some(next));
    }

    /// After the commit: the look itself.
    pub(super) fn look_at(&self, id: CredentialId) {
        let (Some(owner), Ok(held)) = (self.owner(), self.credential(id)) else {
            return;
        };
        let Some(version) = held.slot.current() else {
            return;
        };
        let facts = held.row.probe.as_ref();
        let facts = facts.and_then(|probe| probe.facts.clone());
        let look = Look {
            credential: id,
            version,
            definition: std::sync::Arc::clone(&held.holding.definition),
            known: Known {
                version: version.number(),
                proven: held.row.proven,
                key: held.slot.keys.of(version).cloned(),
                facts,
            },
        };
        self.workshop.look(owner.clone(), look);
    }

    /// What a look saw.
    pub fn looked(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        version: Version,
        sight: Sight,
    ) -> Result<(), Refused> {
        let held = self.credential(id)?;
        if held.slot.current() != Some(version) || held.slot.is_busy() {
            return Ok(());
        }
        let before = held.row.probe.clone();
        let was = before.as_ref().is_some_and(|probe| probe.diverged);
        let (seen, diverged, why) = match sight.verdict {
            Verdict::Same => (true, false, None),
            Verdict::Diverged(why) => (true, true, Some(why)),
            Verdict::Absent => (true, true, Some("it is not at the target".to_owned())),
            Verdict::NotObservable(_) => (false, was, None),
        };
        let entry = VersionId {
            credential: id,
            version,
        };
        if diverged && !was {
            let evidence = why.as_deref().and_then(|why| why.parse::<Line>().ok());
            tracing::warn!(credential = %id, "a sealed secret is no longer the real one");
            self.log(
                txn,
                DAEMON,
                &Entry::VersionDiverged {
                    version: entry,
                    evidence,
                },
            )?;
            self.tell_look(txn, id, true)?;
        } else if was && !diverged {
            self.log(txn, DAEMON, &Entry::VersionMatches { version: entry })?;
            self.tell_look(txn, id, false)?;
        }
        let wall = self.now().wall;
        let real = seen && !diverged;
        let baseline = before.as_ref().and_then(|probe| probe.facts.clone());
        let facts = baseline.or_else(|| real.then_some(sight.facts));
        let last = if real {
            Some(wall)
        } else {
            before.and_then(|probe| probe.same)
        };
        self.change_credential(txn, id, |row| {
            row.probe = Some(rows::Probe {
                at: wall,
                same: last,
                diverged,
                why,
                facts,
            });
        });
        self.mark_probe(txn, id);
        Ok(())
    }

    /// Whether neither a login nor a look has shown for long that the sealed secret is the real one.
    pub fn is_stale(&self, held: &Held) -> bool {
        let Some(state) = held
            .slot
            .current()
            .and_then(|current| held.row.versions.get(&current))
        else {
            return false;
        };
        let same = held.row.probe.as_ref().and_then(|probe| probe.same);
        let last = held.row.proven.max(same).unwrap_or(state.sealed);
        self.now().wall.ms_since(last) > PROOF_AGE.ms()
    }
}

/// How often a credential is looked at.
fn every(held: &Held) -> Span {
    let settings = held
        .holding
        .definition
        .connector
        .as_ref()
        .map(|connector| &connector.settings);
    let said = settings.and_then(|settings| {
        let (_, line) = settings
            .iter()
            .find(|(name, _)| name.as_str() == PROBE_EVERY)?;
        line.as_str().parse::<Span>().ok()
    });
    said.unwrap_or(EVERY).clamp(BOUNDS.0, BOUNDS.1)
}

/// A span, and up to a quarter of it more, so that not all looks come at once.
fn jittered(span: Span) -> u64 {
    let part = span.ms().saturating_mul(u64::from(super::slot::jitter())) / 4000;
    span.ms().saturating_add(part)
}
