//! What entries say of a credential's row beside its slot.

use std::collections::BTreeSet;

use keyturn_vault::{
    event::{Event, Maker, Proof},
    replay::Record,
    time::Time,
    world::{Life, Stage, VersionId},
};

use super::Fold;
use crate::rows::{self, VersionState};

/// A version before its slot says where it is.
const UNPLACED: Life = Life {
    stage: Stage::Candidate,
    proven: false,
    rolled: false,
};

impl Fold<'_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other kinds of entries change a row that is there, or none"
    )]
    pub(super) fn credential_entry(&mut self, record: &Record) {
        let state = |manifest, maker| VersionState {
            life: UNPLACED,
            manifest,
            maker,
            entry: record.n,
            sealed: record.time,
            confirmed: BTreeSet::new(),
            inconsistent: false,
        };
        match &record.event {
            Event::CredentialDefined {
                credential,
                path,
                definition,
                signature,
                ceremony,
            } => {
                if let Some(row) = self.credentials.get_mut(credential) {
                    row.earlier.push(row.defined());
                }
                let row = self.credentials.entry(*credential);
                let row = row.or_insert_with(|| {
                    rows::Credential::new(path.clone(), *definition, signature.clone(), record.n)
                });
                row.definition = *definition;
                row.signature = signature.clone();
                row.changed_by = *ceremony;
                row.entry = record.n;
            }
            Event::VersionSealed {
                version,
                manifest,
                maker,
                ..
            } => self.version(*version, state(*manifest, *maker)),
            Event::VersionRecovered {
                version, manifest, ..
            } => self.version(*version, state(*manifest, Maker::Rotation)),
            _ => self.credential_news(record),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other kinds of entries say nothing of a credential's row beside its slot"
    )]
    fn credential_news(&mut self, record: &Record) {
        match &record.event {
            Event::ShareConfirmed { version, person } => {
                if let Some(state) = self.state(*version) {
                    state.confirmed.insert(*person);
                }
            }
            Event::RotationPromoted { version }
            | Event::VersionPromoted {
                version,
                proof: Proof::Worked(_),
            } => {
                if let Some(row) = self.credentials.get_mut(&version.credential) {
                    row.proven = Some(record.time);
                    row.probe = None;
                }
            }
            Event::RotationDone {
                version, evidence, ..
            } => {
                if let Some(row) = self.credentials.get_mut(&version.credential) {
                    row.evidence = Some(evidence.clone());
                }
            }
            Event::VersionDiverged { version, evidence } => {
                let why = evidence.as_ref().map(ToString::to_string);
                self.probed(*version, record.time, (true, why));
            }
            Event::VersionMatches { version } => {
                self.probed(*version, record.time, (false, None));
            }
            Event::VersionInconsistent { version, .. } => {
                if let Some(state) = self.state(*version) {
                    state.inconsistent = true;
                }
            }
            _ => {}
        }
    }

    /// What a look at the target changed; what each look saw is not in the log.
    fn probed(&mut self, version: VersionId, at: Time, (diverged, why): (bool, Option<String>)) {
        if let Some(row) = self.credentials.get_mut(&version.credential) {
            row.probe = Some(rows::Probe {
                at,
                same: (!diverged).then_some(at),
                diverged,
                why,
                facts: None,
            });
        }
    }

    fn version(&mut self, version: VersionId, state: VersionState) {
        if let Some(row) = self.credentials.get_mut(&version.credential) {
            row.versions.insert(version.version, state);
        }
    }

    fn state(&mut self, version: VersionId) -> Option<&mut VersionState> {
        let row = self.credentials.get_mut(&version.credential)?;
        row.versions.get_mut(&version.version)
    }
}
