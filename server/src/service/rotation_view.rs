//! How a rotation stands, for people: its state, what is wrong, and what to do next.

use std::collections::BTreeMap;

use keyturn_proto::v1;
use keyturn_vault::{
    definition::Definition,
    event::{Cause, Evidence, Stuck},
    id::CredentialId,
    name::KeyId,
    reference::Version,
    rotation::Job,
};

use crate::{
    owner::{
        Core,
        core::Held,
        time::{DueKind, NEVER},
    },
    refusal::Refused,
};

impl Core {
    /// When a credential's check-out ends, by the wall clock; 0 when there is none.
    pub fn checkout_ends(&self, held: &Held) -> u64 {
        let out = held.row.out.keys().filter_map(|ceremony| {
            let live = self.ceremony(*ceremony).ok()?;
            Some(live.row.checkout.as_ref()?.until)
        });
        out.max().map_or(0, |until| self.wall(until))
    }

    /// When a credential's rotation is due, or since when, by the wall clock; 0 when it is not.
    pub fn rotation_due(&self, id: CredentialId, held: &Held) -> u64 {
        if held.slot.owed.is_empty() {
            return 0;
        }
        if held.slot.is_due() {
            let at = self.due.at(DueKind::Queued, id.to_bytes());
            return match at.filter(|at| *at < NEVER) {
                Some(at) => self.wall(at),
                None => self.due_since(id, held),
            };
        }
        self.checkout_ends(held)
    }

    /// A time of the vault's own clock on the wall's.
    pub(crate) fn wall(&self, at: keyturn_vault::machine::Millis) -> u64 {
        let now = self.now();
        now.wall
            .ms()
            .saturating_add(now.lived.until(at))
            .saturating_sub(at.until(now.lived))
    }

    /// A rotation that was loaded, for display.
    pub fn rotation_view(&self, id: CredentialId) -> Result<v1::RotationView, Refused> {
        let held = self.credential(id)?;
        let slot = &held.slot;
        let definition = &held.holding.definition;
        let state = state(held);
        let version = match slot.job {
            Job::Sealing { version }
            | Job::Copying { version }
            | Job::Applying { version, .. }
            | Job::Testing { version, .. }
            | Job::Listing { version }
            | Job::Creating { version, .. }
            | Job::Revoking { version, .. }
            | Job::Promoted { version } => version.number(),
            Job::Idle | Job::Deleting | Job::BackingOff { .. } | Job::Stuck(_) => 0,
        };
        let next = if let Job::BackingOff { until } | Job::Revoking { until, .. } = slot.job {
            self.wall(until)
        } else {
            0
        };
        let held_by = slot.holds.first().filter(|_| slot.held_until.is_some());
        let problem = self.workshop.problem(id).unwrap_or_default();
        Ok(v1::RotationView {
            credential: id.to_string(),
            path: definition.path.to_string(),
            connector: definition
                .connector
                .as_ref()
                .map(|connector| connector.name.to_string())
                .unwrap_or_default(),
            state: state.into(),
            cause: slot
                .owed
                .last()
                .map_or("", |(why, _)| cause(*why))
                .to_owned(),
            due_ms: self.rotation_due(id, held),
            next_try_ms: next,
            attempts: slot.failures.into(),
            version,
            held_by: held_by.map(ToString::to_string).unwrap_or_default(),
            held_until_ms: slot
                .held_until
                .filter(|_| held_by.is_some())
                .map_or(0, |until| self.wall(until)),
            problem_code: problem_code(slot.job, &problem).to_owned(),
            hint: if slot.job == Job::Stuck(Stuck::Foreign) {
                foreign_hint(definition, &slot.keys.foreign)
            } else {
                hint(state, slot.job, &problem).to_owned()
            },
            problem,
            guide: if state == v1::RotationState::Manual {
                self.workshop.guide(definition)
            } else {
                Vec::new()
            },
            two_people: definition.task().is_some_and(|task| task.two_people),

            evidence: match &held.row.evidence {
                Some(Evidence::Shown(line)) => line.to_string(),
                Some(Evidence::NotObservable) | None => String::new(),
            },
            late: self.due.at(DueKind::Late, id.to_bytes()) == Some(NEVER),
            paused_until_ms: self.paused_until(slot.paused),
            keys: slot.keys.ours.iter().map(key_view).collect(),
            foreign: slot.keys.foreign.keys().map(ToString::to_string).collect(),
        })
    }
}

fn key_view((key, version): (&KeyId, &Option<Version>)) -> v1::KeyView {
    v1::KeyView {
        key: key.to_string(),
        version: version.map_or(0, Version::number),
    }
}

fn state(held: &Held) -> v1::RotationState {
    let slot = &held.slot;
    match slot.job {
        Job::Idle | Job::Deleting if slot.owed.is_empty() => v1::RotationState::Idle,
        Job::Idle if !held.holding.definition.is_automatic() && slot.is_due() => {
            v1::RotationState::Manual
        }
        Job::Idle => v1::RotationState::Due,
        Job::Sealing { .. }
        | Job::Listing { .. }
        | Job::Creating { .. }
        | Job::Deleting
        | Job::Copying { .. }
        | Job::Applying { .. }
        | Job::Testing { .. } => v1::RotationState::Applying,
        Job::BackingOff { .. } | Job::Revoking { .. } => v1::RotationState::BackingOff,
        Job::Promoted { .. } => v1::RotationState::Promoted,
        Job::Stuck(_) => v1::RotationState::NeedsOperator,
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Unseal(_) => "opened",
        Cause::Asked(_) => "operator",
        Cause::Age => "max-age",
        Cause::Roster => "old-roster",
    }
}

fn problem_code(job: Job, problem: &str) -> &'static str {
    match job {
        Job::Copying { .. } if !problem.is_empty() => "few-copies",
        Job::Stuck(Stuck::Failures) => "too-many-failures",
        Job::Stuck(Stuck::Live) => "too-many-live",
        Job::Stuck(Stuck::Foreign) => "foreign-key",
        Job::Stuck(Stuck::Full) => "no-room",
        Job::BackingOff { .. } => "failed",
        Job::Revoking { .. } => "still-active",
        Job::Idle
        | Job::Listing { .. }
        | Job::Creating { .. }
        | Job::Deleting
        | Job::Sealing { .. }
        | Job::Copying { .. }
        | Job::Applying { .. }
        | Job::Testing { .. }
        | Job::Promoted { .. } => "",
    }
}

fn hint(state: v1::RotationState, job: Job, problem: &str) -> &'static str {
    if matches!(job, Job::Copying { .. }) && !problem.is_empty() {
        "mount or mend a place for copies; the rotation goes on by itself"
    } else if let Job::Stuck(Stuck::Failures) = job {
        "mend the target or the connector, then `keyturn rotate retry`"
    } else if let Job::Stuck(Stuck::Live) = job {
        "open it, log in, `keyturn checkin --worked` with the version that works, then retry"
    } else if let Job::Stuck(Stuck::Full) = job {
        "free a place for a key at the target, then `keyturn rotate retry`"
    } else if state == v1::RotationState::Manual {
        "change it at the target, then `keyturn rotate complete`, which asks for the new secret"
    } else {
        ""
    }
}

/// Only people know whose these are, and the commands are for people who are in a hurry.
fn foreign_hint(definition: &Definition, foreign: &BTreeMap<KeyId, bool>) -> String {
    let path = &definition.path;
    let each = foreign.iter().map(|(key, perhaps)| {
        let whose = if *perhaps {
            "came when a key was being made here and no answer came"
        } else {
            "was not made here"
        };
        format!(
            "{key} {whose}: whoever made it removes it at the target; if it was made here, \
             `keyturn rotate claim {path} lost {key}` has it deleted"
        )
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("{each}; then `keyturn rotate retry {path}`")
}
