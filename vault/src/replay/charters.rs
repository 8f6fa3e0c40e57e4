//! Founding, joins, charters; what people sign beside ceremonies.

use std::collections::BTreeSet;

use super::{At, Fault, Level, Replay, fault, read};
use crate::{
    change::{self, Joined},
    charter::{Chain, Charter},
    check::{Check, owner},
    digest::Digest,
    event::Event,
    id::{CeremonyId, PersonId},
    jcs::Document as _,
    reference::{CharterRef, Head, Signer},
    restore::RestoreDocument,
    text::{self, Enrol, Heartbeat, Join, NewDevice, SignedText, Text as _},
};

impl Replay {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the fold has sorted the kinds; any other is a fault"
    )]
    pub(super) fn judge_charter(&mut self, at: &mut At<'_>) -> Result<Vec<Event>, Fault> {
        match &at.record.event {
            Event::VaultFounded { charter, joins } => self.founded(at, *charter, joins),
            Event::CharterJoined { enrolment, join } => self.joined(at, enrolment, join),
            Event::CharterInForce { charter, ceremony } => {
                let purpose = text::Purpose::Change(text::Change::Charter(*charter));
                self.take_decided(*ceremony, &purpose)?;
                self.in_force(at, *charter)
            }
            Event::DeviceJoined { person, join } => {
                let device: NewDevice = read(join)?;
                self.signed(at, join, *person)?;
                if device.person.id == *person {
                    Ok(at.entry())
                } else {
                    Err(fault("text"))
                }
            }
            Event::HeartbeatReceived { heartbeat } => {
                let text: Heartbeat = read(heartbeat)?;
                self.signed(at, heartbeat, text.person.id)?;
                at.out.checks.push(Check::Head(text.log));
                Ok(at.entry())
            }
            Event::RestoreAccepted {
                ceremony,
                restored,
                lost,
                found,
            } => self.restored(at, *ceremony, (*restored, *lost), found),
            Event::RecoverImported { texts, .. } => {
                for text in texts {
                    at.out.checks.push(Check::text(self.world()?.charter, text));
                }
                at.note(Fault {
                    level: Level::Info,
                    ..fault("open-end")
                });
                Ok(at.entry())
            }
            _ => Err(fault("unknown")),
        }
    }

    /// A text must be signed by the person whom it names.
    pub(super) fn signed(
        &mut self,
        at: &mut At<'_>,
        text: &SignedText,
        person: PersonId,
    ) -> Result<(), Fault> {
        let charter = self.world()?.charter;
        at.out.checks.push(Check::text(charter, text));
        if owner(charter, text.signer) != Some(person) {
            return Err(fault("signer"));
        }
        if matches!(text.signer, Signer::Token(_)) {
            self.seen.sign(person, at.now.lived);
        }
        Ok(())
    }

    /// What a ceremony decided, once.
    pub(super) fn take_decided(
        &mut self,
        ceremony: CeremonyId,
        purpose: &text::Purpose,
    ) -> Result<(), Fault> {
        if self.decided.get(&ceremony) != Some(purpose) {
            return Err(fault("undecided"));
        }
        self.decided.remove(&ceremony);
        Ok(())
    }

    fn founded(
        &mut self,
        at: &mut At<'_>,
        charter: CharterRef,
        joins: &[SignedText],
    ) -> Result<Vec<Event>, Fault> {
        if self.chain.is_some() {
            return Err(fault("founded-twice"));
        }
        if charter.digest != self.genesis {
            return Err(fault("genesis"));
        }
        let bytes = at.document(&charter.digest, |bytes| Some(bytes.to_vec()))?;
        let chain = Chain::begin(&bytes, self.genesis).map_err(|error| Fault {
            detail: error.to_string(),
            ..fault("chain")
        })?;
        let texts: Vec<Join> = joins.iter().map(read).collect::<Result<_, _>>()?;
        let (reference, first) = chain.newest().ok_or_else(|| fault("chain"))?;
        change::found(first, reference, &texts)?;
        for (signed, join) in joins.iter().zip(&texts) {
            at.out
                .checks
                .extend(Check::signature(first, join.token.id, signed));
            self.seen.sign(join.person.id, at.now.lived);
        }
        at.out.checks.extend(Check::attestations(first, None));
        self.chain = Some(chain);
        Ok(at.entry())
    }

    /// A join proves itself: both texts are signed with the approval key that the enrolment names.
    fn joined(
        &mut self,
        at: &mut At<'_>,
        enrolment: &SignedText,
        join: &SignedText,
    ) -> Result<Vec<Event>, Fault> {
        let (enrol, text): (Enrol, Join) = (read(enrolment)?, read(join)?);
        let world = self.world()?;
        let vault = text.vault == world.charter.origin && text.genesis == self.genesis;
        if !vault
            || text.enrolment != enrolment.digest()
            || text.person != enrol.person
            || text.token != enrol.token
        {
            return Err(fault("text"));
        }
        for signed in [enrolment, join] {
            let key = enrol.approval_key.clone();
            at.out.checks.push(Check::Text {
                key,
                signed: signed.clone(),
            });
        }
        self.seen.sign(text.person.id, at.now.lived);
        self.joined.insert(
            text.digest(),
            Joined {
                join: text,
                enrolment: enrol,
            },
        );
        Ok(at.entry())
    }

    /// An accepted restore: its keys take force, and what it lists is taken back.
    fn restored(
        &mut self,
        at: &mut At<'_>,
        ceremony: CeremonyId,
        (restored, lost): (Head, Option<Head>),
        found: &BTreeSet<Digest>,
    ) -> Result<Vec<Event>, Fault> {
        let Some(text::Purpose::AcceptRestore(accepted)) = self.decided.get(&ceremony) else {
            return Err(fault("undecided"));
        };
        let accepted = *accepted;
        if (accepted.head, accepted.lost) != (restored, lost) || restored.size > at.record.n {
            return Err(fault("undecided"));
        }
        let document = at.document(&accepted.documents, |bytes| {
            RestoreDocument::from_bytes(bytes).ok()
        })?;
        if document.subject().ok() != Some(accepted) || document.documents != *found {
            return Err(fault("document"));
        }
        let chain = self
            .chain
            .as_mut()
            .ok_or_else(|| fault("not-founded-yet"))?;
        chain.restore(&document).map_err(|error| Fault {
            detail: error.to_string(),
            ..fault("chain")
        })?;
        self.decided.remove(&ceremony);
        for slot in self.slots.values_mut() {
            slot.restored(at.now.lived);
        }
        at.out.checks.push(Check::Head(restored));
        self.found
            .extend(found.iter().map(|digest| (ceremony, *digest)));
        if let Some(lost) = lost.filter(|lost| lost.size > restored.size) {
            at.warn(Fault {
                detail: format!(
                    "entries {} to {} are lost; whatever was opened in them counts as possibly released",
                    restored.size,
                    lost.size.saturating_sub(1)
                ),
                ..fault("lost-entries")
            });
        }
        Ok(at.entry())
    }

    fn in_force(&mut self, at: &mut At<'_>, charter: CharterRef) -> Result<Vec<Event>, Fault> {
        let bytes = at.document(&charter.digest, |bytes| Some(bytes.to_vec()))?;
        let chain = self
            .chain
            .as_mut()
            .ok_or_else(|| fault("not-founded-yet"))?;
        chain.push(&bytes).map_err(|error| Fault {
            detail: error.to_string(),
            ..fault("chain")
        })?;
        let of = |index| chain.at(index).map(|(_, charter)| charter);
        let before = of(charter.index.saturating_sub(1));
        if let Some(new) = of(charter.index) {
            at.out.checks.extend(Check::attestations(new, before));
        }
        let mut entries = at.entry();
        let open: Vec<_> = self.ceremonies.keys().copied().collect();
        for id in open {
            entries.extend(self.changed(at, id)?);
        }
        Ok(entries)
    }

    /// What the change to this charter needs now.
    pub(super) fn charter_needs(
        &self,
        at: &At<'_>,
        charter: CharterRef,
    ) -> Result<change::Needs, Fault> {
        let new = at.document(&charter.digest, |bytes| Charter::from_bytes(bytes).ok())?;
        let world = self.world()?;
        Ok(change::charter(
            at.now,
            world,
            &new,
            self.holdings.values(),
            &self.joined,
            &self.seen,
        )?)
    }
}
