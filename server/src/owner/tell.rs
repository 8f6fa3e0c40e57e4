//! What the notices say: of ceremonies, check-outs, rotations, refusals, places for copies and the disk.
//!
//! # Invariants
//! 1. A notice tells what the transaction that carries it makes true, in the words of that transaction's state.
//! 2. It names people, credentials and digests; never a reason, a secret or anything else that is told in confidence.

use keyturn_vault::{
    ceremony, checkout,
    id::{CeremonyId, CredentialId, PersonId},
    refusal::Refusal,
    rotation,
    text::{Change, Purpose},
    time::Time,
};

use super::{
    core::Core,
    txn::{After, Subject, Txn},
};
use crate::{
    notice::{Kind, Named, Notice, Severity},
    refusal::Refused,
};

/// Refusals of one person for one reason in one minute that are worth a notice.
const REPEATED: u64 = 10;

impl Core {
    /// A notice that nobody's ceremony, check-out or rotation made.
    pub(crate) fn tell(
        &mut self,
        txn: &mut Txn,
        (kind, severity): (Kind, Severity),
        fill: impl FnOnce(&Self, &mut Notice),
    ) -> Result<(), Refused> {
        if !self.outbox.wanted(kind, severity) {
            return Ok(());
        }
        let vault = self.known.charter.origin.clone();
        let mut notice = Notice::new(vault, self.now().wall, kind, severity);
        fill(self, &mut notice);
        self.post(txn, &notice.bounded())
    }

    pub(super) fn tell_ceremony(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        said: ceremony::Notice,
    ) -> Result<(), Refused> {
        use ceremony::Notice as N;
        let live = self.ceremony(id)?;
        let charter = match &live.request.purpose {
            Purpose::Change(Change::Charter(new)) => Some(new.index),
            Purpose::Unseal
            | Purpose::Drill
            | Purpose::Reshare(_)
            | Purpose::Change(Change::Definition { .. })
            | Purpose::Extend { .. }
            | Purpose::AcceptRestore(_)
            | Purpose::Erase { .. } => None,
        };
        let purpose = live.machine.row.purpose;
        let told = Kind::of_ceremony(said, purpose, charter.is_some());
        txn.after
            .push(After::Told(Subject::Ceremony(id), told.0.name()));
        let person = match said {
            N::Approved(person) | N::Refused(person) | N::Retracted(person) => Some(person),
            N::Opened
            | N::Waived
            | N::Waiting
            | N::Authorized
            | N::Released
            | N::Inconsistent
            | N::Failed
            | N::Interrupted
            | N::Applied
            | N::Expired
            | N::Withdrawn
            | N::Superseded => None,
        };
        self.tell(txn, told, |core, notice| {
            core.name_ceremony(id, notice);
            notice.charter = charter;
            notice.person = person
                .and_then(|person| core.reference(person))
                .map(Into::into);
            if !matches!(said, N::Opened | N::Waived | N::Approved(_) | N::Waiting) {
                notice.awaited.clear();
                notice.ends = None;
            }
        })
    }

    pub(super) fn tell_checkout(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        said: checkout::Notice,
    ) -> Result<(), Refused> {
        let told = Kind::of_checkout(said);
        txn.after
            .push(After::Told(Subject::Ceremony(id), told.0.name()));
        self.tell(txn, told, |core, notice| {
            core.name_ceremony(id, notice);
            notice.awaited.clear();
            let out = core
                .ceremony(id)
                .ok()
                .and_then(|live| live.row.checkout.as_ref());
            let now = core.now();
            notice.ends = out.filter(|out| !out.out.is_empty()).map(|out| {
                let left = now.lived.until(out.until);
                Time::from_ms(now.wall.ms().saturating_add(left))
            });
        })
    }

    pub(super) fn tell_rotation(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        said: rotation::Notice,
    ) -> Result<(), Refused> {
        let told = Kind::of_rotation(said);
        txn.after
            .push(After::Told(Subject::Credential(id), told.0.name()));
        self.tell(txn, told, |core, notice| {
            notice.credentials.extend(core.named_credential(id));
        })
    }

    pub(super) fn tell_late(&mut self, txn: &mut Txn, id: CredentialId) -> Result<(), Refused> {
        self.tell(
            txn,
            (Kind::RotationLate, Severity::Warning),
            |core, notice| {
                notice.credentials.extend(core.named_credential(id));
            },
        )
    }

    /// Whether people have still not done what is theirs.
    pub(super) fn tell_task(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        overdue: bool,
    ) -> Result<(), Refused> {
        let what = if overdue {
            (Kind::RotationOverdue, Severity::Alert)
        } else {
            (Kind::RotationManual, Severity::Warning)
        };
        tracing::info!(credential = %id, kind = what.0.name(), "rotation");
        self.tell(txn, what, |core, notice| {
            notice.credentials.extend(core.named_credential(id));
        })
    }

    /// What a look at a target changed.
    pub(super) fn tell_look(
        &mut self,
        txn: &mut Txn,
        id: CredentialId,
        diverged: bool,
    ) -> Result<(), Refused> {
        let what = if diverged {
            (Kind::VersionDiverged, Severity::Alert)
        } else {
            (Kind::VersionMatches, Severity::Info)
        };
        self.tell(txn, what, |core, notice| {
            notice.credentials.extend(core.named_credential(id));
        })
    }

    pub(super) fn tell_refusals(
        &mut self,
        txn: &mut Txn,
        (person, code, count): (PersonId, Refusal, u64),
    ) -> Result<(), Refused> {
        if count < REPEATED {
            return Ok(());
        }
        self.tell(
            txn,
            (Kind::RefusalsRepeated, Severity::Alert),
            |core, notice| {
                notice.person = core.reference(person).map(Into::into);
                notice.code = Some(code.code().to_owned());
                notice.count = Some(count);
            },
        )
    }

    /// What a place for copies shows, or the disk.
    pub(crate) fn tell_of_place(
        &mut self,
        txn: &mut Txn,
        told: (Kind, Severity),
        place: Option<&str>,
    ) -> Result<(), Refused> {
        self.tell(txn, told, |_, notice| {
            notice.place = place.map(str::to_owned);
        })
    }

    fn name_ceremony(&self, id: CeremonyId, notice: &mut Notice) {
        let Ok(view) = self.view(id) else { return };
        let Ok(live) = self.ceremony(id) else { return };
        notice.ceremony = Some(id);
        notice.purpose = Some(live.machine.row.purpose);
        notice.request_sha256 = Some(live.machine.row.request);
        notice.requester = Some(live.request.requested_by.clone().into());
        let credentials = live.machine.row.credentials();
        let named = credentials
            .iter()
            .filter_map(|id| self.named_credential(*id));
        notice.credentials = named.collect();
        let wall = self.now().wall.ms();
        let waiting = u64::from(view.waiting_secs).saturating_mul(1000);
        notice.ends = match (view.expires_ms, waiting) {
            (0, 0) => None,
            (0, waiting) => Some(Time::from_ms(wall.saturating_add(waiting))),
            (expires, _) => Some(Time::from_ms(expires)),
        };
        let persons = self.known.charter.persons.iter();
        let awaited = persons.filter(|person| self.waits_for(live, person.id));
        notice.awaited = awaited.map(|person| person.reference().into()).collect();
    }

    fn named_credential(&self, id: CredentialId) -> Option<Named> {
        let path = self.credential(id).ok()?.row.path.clone();
        Some(Named { id, path })
    }
}
