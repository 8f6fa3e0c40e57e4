//! From the log to the rows of a store: the replay judges, and what it ends with becomes rows.
//!
//! # Invariants
//! 1. Every row that counts comes from an entry; what is not in the log (details, releases that can still
//!    be fetched, invitations) is not made up.
//! 2. Both clocks go on from the time of the last entry, as the replay takes them.
//! 3. Every signature that an entry brings is checked; one that is not good is told, as an auditor would.

mod credentials;

use std::collections::{BTreeMap, BTreeSet};

use keyturn_audit::{entry::Entry, publish::Dir, verify::object};
use keyturn_vault::{
    ceremony::{End, Row, State},
    check::Check,
    digest::Digest,
    event::{Event, Maker},
    id::{CeremonyId, CredentialId, NodeId},
    machine::Millis,
    name::CredentialPath,
    reference::CharterRef,
    replay::{Documents, Level, Record, Replay},
    rotation::Job,
    text::{Join, NewDevice, Purpose, Request, SignedText, Text as _},
    time::Time,
    world::{Stage, VersionId},
};

use super::RestoreError;
use crate::{
    owner::time::{DueKind, NEVER},
    rows::{self, Clocks, ENTRY_FORMAT, Statement},
    store::{Key, Name},
    verify,
};

/// The documents beside the tiles.
pub(super) struct Objects<'a>(pub(super) &'a Dir);

impl Documents for Objects<'_> {
    fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        object(self.0, &digest.0).ok()
    }
}

/// What the log says so far.
pub(super) struct Fold<'a> {
    objects: Objects<'a>,
    replay: Replay,
    vault: rows::Vault,
    credentials: BTreeMap<CredentialId, rows::Credential>,
    ceremonies: BTreeMap<CeremonyId, Told>,
    time: Time,
    entries: u64,
    /// What the replay finds against the log.
    pub(super) findings: Vec<String>,
}

/// What the log says of a ceremony beside its machine.
struct Told {
    request: SignedText,
    opened: Time,
    revision: u64,
    statements: Vec<Statement>,
    reviews: Vec<Statement>,
    authorized: Option<u64>,
    released: Option<u64>,
    returned: Option<Time>,
    ended: Option<Row>,
}

/// What became of the log.
pub(super) struct Folded {
    /// The replay at its end.
    pub(super) replay: Replay,
    /// The vault's row; its node is still to be said.
    pub(super) vault: rows::Vault,
    /// Versions that were sealed at any time.
    pub(super) known: BTreeSet<VersionId>,
    /// The credentials' rows; who made a version that was taken back is still to be said.
    pub(super) credentials: BTreeMap<CredentialId, rows::Credential>,
    /// All other rows but the entries, the sealed values, the documents and the vault's.
    pub(super) rows: BTreeMap<Key, Vec<u8>>,
}

impl<'a> Fold<'a> {
    pub(super) fn new(dir: &'a Dir, genesis: Digest) -> Self {
        let genesis_ref = CharterRef {
            index: 1,
            digest: genesis,
        };
        Self {
            objects: Objects(dir),
            replay: Replay::new(genesis),
            vault: rows::Vault::new(NodeId::from_bytes([0; 16]), genesis_ref),
            credentials: BTreeMap::new(),
            ceremonies: BTreeMap::new(),
            time: Time::from_ms(0),
            entries: 0,
            findings: Vec::new(),
        }
    }

    /// Takes the next entry.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        let n = entry.n;
        let strange = || RestoreError::Entry(n);
        let event = Event::parse(&entry.kind, &entry.body).map_err(|_| strange())?;
        let time: Time = entry.time.parse().map_err(|_| strange())?;
        let record = Record {
            n,
            time,
            charter: entry.charter,
            actor: entry.actor.clone(),
            event,
        };
        let judged = self.replay.step(&record, &self.objects);
        let bad = judged
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Error);
        self.findings
            .extend(bad.map(|found| format!("entry {n}: {}: {}", found.code, found.detail)));
        if !judged.checks.iter().all(|check| self.signed(check)) {
            let what = "something in it is not signed by whom it names";
            self.findings.push(format!("entry {n}: signature: {what}"));
        }
        self.time = self.time.max(time);
        self.entries = n.saturating_add(1);
        if let Some(told) = record
            .event
            .ceremony()
            .and_then(|id| self.ceremonies.get_mut(&id))
        {
            told.revision = told.revision.saturating_add(1);
        }
        self.vault_entry(&record).ok_or_else(strange)?;
        self.credential_entry(&record);
        self.ceremony_entry(&record);
        for row in judged.ended {
            if let Some(told) = self.ceremonies.get_mut(&row.id) {
                told.ended = Some(row);
            }
        }
        Ok(())
    }

    /// Whether a signature is good. Heads, details and attestations are looked at by `keyturn audit verify`,
    /// which has the roots of makers and knows what was disclosed.
    fn signed(&self, check: &Check) -> bool {
        match check {
            Check::Text { .. } | Check::NoKey { .. } => verify::holds(check),
            Check::Document {
                key,
                document,
                signature,
            } => self
                .objects
                .document(document)
                .is_some_and(|bytes| verify::verify(key, &bytes, signature).is_ok()),
            Check::Commitment { .. }
            | Check::Attestation { .. }
            | Check::Head(_)
            | Check::Details(_) => true,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other kinds of entries say nothing of the vault's row"
    )]
    fn vault_entry(&mut self, record: &Record) -> Option<()> {
        let vault = &mut self.vault;
        match &record.event {
            Event::VaultFounded { charter, joins } => {
                vault.genesis = *charter;
                vault.in_force = Some(*charter);
                for signed in joins {
                    let join = Join::parse(&signed.text).ok()?;
                    vault.joins.insert(join.token.id, signed.clone());
                }
            }
            Event::CharterJoined { enrolment, join } => vault.joined.push(rows::Joined {
                enrolment: enrolment.clone(),
                join: join.clone(),
                entry: record.n,
            }),
            Event::CharterInForce { charter, ceremony } => {
                vault.in_force = Some(*charter);
                vault.devices.clear();
                vault.charters.push(rows::InForce {
                    charter: *charter,
                    ceremony: *ceremony,
                    entry: record.n,
                });
            }
            Event::DeviceJoined { person, join } => {
                let device = NewDevice::parse(&join.text).ok()?.device;
                let joined = rows::JoinedDevice {
                    person: *person,
                    id: device.id,
                    pin: device.key.pin(),
                    entry: record.n,
                };
                vault.sign_in(joined, join.digest());
            }
            Event::CopiesChanged { sink, complete } => {
                vault.sinks.insert(sink.to_string(), *complete);
            }
            Event::RotationPaused {
                credential: None,
                until,
                ..
            } => vault.paused = Some(Millis(until.ms())),
            Event::RotationResumed {
                credential: None, ..
            } => vault.paused = None,
            Event::RestoreAccepted {
                ceremony,
                restored,
                lost,
                ..
            } => {
                let request = &self.ceremonies.get(ceremony)?.request;
                let request = Request::parse(&request.text).ok()?;
                let Purpose::AcceptRestore(accepted) = request.purpose else {
                    return None;
                };
                vault.restores.push(rows::Restored {
                    ceremony: *ceremony,
                    charter: vault.in_force?,
                    document: accepted.documents,
                    head: *restored,
                    lost: *lost,
                    shown: Vec::new(),
                    entry: record.n,
                });
            }
            _ => {}
        }
        Some(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the machine's row says the rest of a ceremony"
    )]
    fn ceremony_entry(&mut self, record: &Record) {
        if let Event::CeremonyOpened { ceremony, request } = &record.event {
            let told = Told {
                request: request.clone(),
                opened: record.time,
                revision: 1,
                statements: Vec::new(),
                authorized: None,
                released: None,
                returned: None,
                reviews: Vec::new(),
                ended: None,
            };
            self.ceremonies.insert(*ceremony, told);
            return;
        }
        let id = record.event.ceremony();
        let Some(told) = id.and_then(|id| self.ceremonies.get_mut(&id)) else {
            return;
        };
        let said = |signed: &SignedText| Statement::new(signed.clone(), String::new(), record.time);
        match &record.event {
            Event::CeremonyApproved {
                approval: signed, ..
            }
            | Event::CeremonyRefused {
                refusal: signed, ..
            }
            | Event::CeremonyRetracted {
                retraction: signed, ..
            } => told.statements.push(said(signed)),
            Event::CeremonyReviewed { review, .. } => told.reviews.push(said(review)),
            Event::UnsealAuthorized { .. } => told.authorized = Some(record.n),
            Event::UnsealReleased { .. } => told.released = Some(record.n),
            Event::CheckoutReturned { .. } | Event::CheckoutEnded { .. } => {
                told.returned = told.returned.or(Some(record.time));
            }
            _ => {}
        }
    }

    /// The rows at the end of the log.
    pub(super) fn finish(mut self) -> Result<Folded, RestoreError> {
        if self.vault.in_force.is_none() {
            return Err(RestoreError::NotFounded);
        }
        let now = self.replay.clock();
        let mut rows = Rows::default();
        self.vault.seen = self.replay.seen().iter().collect();
        let clocks = Clocks {
            wall: self.time,
            ran: now,
            lived: now,
            spoke: now,
            size: self.entries,
        };
        rows.put(&Name::Clock, &clocks)?;
        let known = self.end_credentials(&mut rows, now)?;
        self.end_ceremonies(&mut rows, now)?;
        Ok(Folded {
            replay: self.replay,
            vault: self.vault,
            credentials: self.credentials,
            known,
            rows: rows.0,
        })
    }

    /// Ends the rows of credentials with what their slots say; gives all versions that were ever sealed.
    fn end_credentials(
        &mut self,
        rows: &mut Rows,
        now: Millis,
    ) -> Result<BTreeSet<VersionId>, RestoreError> {
        let mut known = BTreeSet::new();
        for (id, row) in &mut self.credentials {
            let slot = self.replay.slots().get(id).ok_or(RestoreError::Rows)?;
            let out = self
                .replay
                .holdings()
                .get(id)
                .map(|holding| holding.out.clone());
            row.out = out.unwrap_or_default();
            known.extend(row.versions.keys().map(|number| VersionId {
                credential: *id,
                version: *number,
            }));
            // A version that no slot has was never taken by the rules; it stays out.
            row.versions.retain(|number, state| {
                let place = slot.versions.get(number);
                if let Some(place) = place {
                    state.life = place.life;
                }
                place.is_some()
            });
            rows.put(&Name::Path(row.path.as_str()), id)?;
            rows.put(&Name::Job(*id), slot)?;
            rows.due(DueKind::Rotation, id.to_bytes(), now);
            if !matches!(
                slot.job,
                Job::Idle | Job::BackingOff { .. } | Job::Revoking { .. } | Job::Stuck(_)
            ) {
                rows.due(DueKind::Running, id.to_bytes(), NEVER);
            }
        }
        Ok(known)
    }

    /// Ends the rows of ceremonies with what their machines say.
    fn end_ceremonies(&mut self, rows: &mut Rows, now: Millis) -> Result<(), RestoreError> {
        let open: BTreeMap<_, _> = self.replay.ceremonies().map(|row| (row.id, row)).collect();
        for (id, told) in std::mem::take(&mut self.ceremonies) {
            let row = told
                .ended
                .or_else(|| open.get(&id).map(|row| Row::clone(row)));
            let Some(mut row) = row else { continue };
            if let State::Ended(End::Released { kept }) = &mut row.state {
                // What was released is not in the log, and nobody can fetch it from here (invariant 1).
                *kept = false;
            }
            if !row.state.is_final() {
                rows.due(DueKind::Ceremony, id.to_bytes(), now);
            }
            let checkout = self.replay.checkouts().get(&id).cloned();
            if checkout.is_some() {
                rows.due(DueKind::CheckOut, id.to_bytes(), now);
            }
            let ceremony = rows::Ceremony {
                row,
                request: told.request,
                opened: told.opened,
                revision: told.revision,
                statements: told.statements,
                authorized: told.authorized,
                released: told.released,
                release: None,
                checkout,
                returned: told.returned,
                reviews: told.reviews,
            };
            rows.put(&Name::Ceremony(id), &ceremony)?;
        }
        Ok(())
    }
}

impl Folded {
    /// Versions whose sealed values must be there, with the digests of their manifests.
    pub(super) fn kept(&self) -> Vec<(VersionId, Digest)> {
        let versions = self.credentials.iter().flat_map(|(credential, row)| {
            let versions = row.versions.iter();
            let there = versions.filter(|(_, state)| state.life.stage != Stage::Destroyed);
            there.map(|(version, state)| {
                let (credential, version) = (*credential, *version);
                let id = VersionId {
                    credential,
                    version,
                };
                (id, state.manifest)
            })
        });
        versions.collect()
    }

    /// The path of a credential.
    pub(super) fn path(&self, credential: CredentialId) -> Option<&CredentialPath> {
        self.credentials.get(&credential).map(|row| &row.path)
    }

    /// Says who made a version: of one that was taken back the log does not.
    pub(super) fn made(&mut self, version: VersionId, maker: Maker) {
        let row = self.credentials.get_mut(&version.credential);
        let state = row.and_then(|row| row.versions.get_mut(&version.version));
        if let (Some(state), Maker::Deposit(_)) = (state, maker) {
            state.maker = maker;
        }
    }
}

#[derive(Default)]
struct Rows(BTreeMap<Key, Vec<u8>>);

impl Rows {
    fn put<T: serde::Serialize>(&mut self, name: &Name<'_>, row: &T) -> Result<(), RestoreError> {
        let row = rows::encode(row).map_err(|_| RestoreError::Rows)?;
        self.0.insert(name.key(), row);
        Ok(())
    }

    fn due(&mut self, kind: DueKind, id: [u8; 16], at: Millis) {
        self.0.insert(kind.key(id, at), vec![ENTRY_FORMAT]);
    }
}
