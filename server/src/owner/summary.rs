//! What the owner tells when asked, and the small texts that only enter the log.

use std::{
    collections::{BTreeMap, hash_map::Entry},
    sync::Arc,
};

use keyturn_proto::v1;
use keyturn_vault::{
    charter::Role,
    check::Check,
    digest::Digest,
    event::Event,
    id::{CeremonyId, GroupName, PersonId},
    quorum::Says,
    reference::{CharterRef, PersonRef, Signer},
    refusal::Refusal,
    text::{Approval, Decision, NewDevice, Recover, SignedText, Text as _},
    world::VersionId,
};
use tokio::sync::watch;

use super::{
    change::Proposal,
    core::{Core, Live, Seen, put_object},
    txn::{Row, Txn},
};
use crate::{
    refusal::Refused,
    rows,
    verify::{self, Verified},
};

/// What waits for a person.
pub struct Summary {
    /// Ceremonies that wait for them, most urgent first.
    pub waiting: Vec<v1::CeremonyView>,
    /// How many there are.
    pub waiting_total: u64,
    /// Their check-outs.
    pub checked_out: Vec<v1::CeremonyView>,
    /// Their requests that are not over.
    pub asked: Vec<v1::CeremonyView>,
    /// Founders who have not joined.
    pub awaited: Vec<PersonRef>,
}

/// A charter with what put it into force.
pub struct CharterRecord {
    /// Which one.
    pub reference: CharterRef,
    /// The ceremony of the change.
    pub ceremony: Option<CeremonyId>,
    /// Joins, among them those that it names; of charter 1: its founders'.
    pub joins: Vec<SignedText>,
    /// The enrolments that those joins name; none of founders.
    pub enrolments: Vec<SignedText>,
    /// The entry that put it into force.
    pub entry: Option<u64>,
}

impl Core {
    /// What waits for a person.
    pub fn summary(&self, person: PersonId, most: usize) -> Result<Summary, Refused> {
        let waiting: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| self.waits_for(live, person))
            .map(|(id, _)| *id)
            .collect();
        let total = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        let out = |live: &&Arc<Live>| {
            let mut checkout = live.row.checkout.iter();
            checkout.any(|out| out.person == person && !out.out.is_empty())
        };
        let checked_out = self
            .live
            .values()
            .filter(out)
            .take(most)
            .map(|live| self.view(live.row.row.id));
        let asked = |live: &&Arc<Live>| {
            let row = &live.machine.row;
            row.ask.requester == person && !row.state.is_final()
        };
        let asked = self.live.values().filter(asked).take(most);
        let asked = asked.map(|live| self.view(live.row.row.id));
        Ok(Summary {
            waiting: waiting
                .iter()
                .take(most)
                .map(|id| self.view(*id))
                .collect::<Result<_, _>>()?,
            waiting_total: total,
            checked_out: checked_out.collect::<Result<_, _>>()?,
            asked: asked.collect::<Result<_, _>>()?,
            awaited: if self.known.founded {
                Vec::new()
            } else {
                self.founding(None).awaited
            },
        })
    }

    /// Whether this person could act now: decide, or hand in shares again.
    pub fn waits_for(&self, live: &Live, person: PersonId) -> bool {
        let row = &live.machine.row;
        if row.state.is_final() {
            return false;
        }
        if row.said.refused.contains_key(&person) {
            return false;
        }
        if let Some(vote) = row.said.vote(person) {
            let lacks = |(version, says): (&VersionId, &Says)| {
                matches!(says, Says::Share { .. }) && !live.machine.has_share(person, *version)
            };
            return row.purpose.opens() && vote.says.iter().any(lacks);
        }
        let member = |name: &GroupName| {
            self.known
                .charter
                .group(name)
                .is_some_and(|group| group.members.contains(&person))
        };
        let asked = row.ask.lines.keys().filter_map(|line| {
            self.credential(line.credential)
                .ok()?
                .holding
                .asked(row.ask.group.as_ref())
                .cloned()
        });
        asked
            .chain(row.ask.needs.iter().cloned())
            .any(|name| member(&name))
    }

    /// A ceremony as it changes from now on.
    pub fn watch(&mut self, id: CeremonyId) -> Result<watch::Receiver<Arc<Seen>>, Refused> {
        let mut seen = self.seen(id)?;
        match self.watchers.entry(id) {
            Entry::Vacant(none) => Ok(none.insert(watch::Sender::new(Arc::new(seen))).subscribe()),
            Entry::Occupied(watcher) => {
                let watcher = watcher.get();
                // Its time has gone on since it was last shown; those who watch already count for themselves.
                watcher.send_if_modified(|shown| {
                    seen.release.clone_from(&shown.release);
                    *shown = Arc::new(seen);
                    false
                });
                Ok(watcher.subscribe())
            }
        }
    }

    /// A charter that is or was in force, and where to find what put it there.
    pub fn charter_record(&self, index: u64) -> Result<CharterRecord, Refused> {
        if index == 1 {
            return Ok(CharterRecord {
                reference: self.vault.genesis,
                ceremony: None,
                joins: self.vault.joins.values().cloned().collect(),
                enrolments: Vec::new(),
                entry: self.known.founded.then_some(0),
            });
        }
        let mut later = self.vault.charters.iter();
        let found = later.find(|one| one.charter.index == index);
        let found = found.ok_or(Refused::NotFound("there is no charter with this number"))?;
        let joined = self.vault.joined.iter();
        Ok(CharterRecord {
            reference: found.charter,
            ceremony: Some(found.ceremony),
            joins: joined.clone().map(|one| one.join.clone()).collect(),
            enrolments: joined.map(|one| one.enrolment.clone()).collect(),
            entry: Some(found.entry),
        })
    }

    /// A place for copies came or went; what is logged already is not logged again.
    pub fn copies_changed(
        &mut self,
        txn: &mut Txn,
        sink: &str,
        complete: bool,
    ) -> Result<(), Refused> {
        if !self.known.founded || self.vault.sinks.get(sink) == Some(&complete) {
            return Ok(());
        }
        let name = sink.parse().map_err(|_| Refused::Row)?;
        let event = Event::CopiesChanged {
            sink: name,
            complete,
        };
        self.log(txn, super::ceremony::DAEMON, &event)?;
        let before = self.vault.clone();
        self.vault.sinks.insert(sink.to_owned(), complete);
        txn.touch(Row::Vault, move |core| core.vault = before);
        Ok(())
    }

    /// A custodian's sign of life.
    pub fn heartbeat(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        by: &PersonRef,
    ) -> Result<u64, Refused> {
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        self.saw(txn, verified.signed.signer, by.id);
        self.log(
            txn,
            &by.to_string(),
            &Event::HeartbeatReceived {
                heartbeat: verified.signed,
            },
        )
    }

    /// A token signs in a device, for transport only; the same text again changes nothing.
    pub fn join_device(
        &mut self,
        txn: &mut Txn,
        verified: &Verified,
        device: &NewDevice,
    ) -> Result<u64, Refused> {
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        let (owner, _) = self
            .known
            .charter
            .person_of_token(device.token.id)
            .ok_or(Refused::UnknownSigner)?;
        if owner.reference() != device.person {
            return Err(Refused::Denied("this token is not this person's"));
        }
        if device.vault != self.known.charter.origin || device.genesis != self.vault.genesis.digest
        {
            return Err(Refused::Denied(
                "this computer is signed in to another vault",
            ));
        }
        let (text, pin) = (verified.signed.digest(), device.device.key.pin());
        let spent = self.vault.signed_in.get(&device.person.id);
        if spent.is_some_and(|spent| spent.contains(&text)) {
            let mut known = self.vault.devices.iter();
            let known = known.find(|known| (known.person, known.pin) == (device.person.id, pin));
            // A computer that was forgotten does not come back by what was signed before.
            return known.map(|known| known.entry).ok_or(Refused::Denied(
                "this computer was signed in by this text before, and has been forgotten; sign it in anew",
            ));
        }
        let event = Event::DeviceJoined {
            person: device.person.id,
            join: verified.signed.clone(),
        };
        let entry = self.log(txn, &device.person.to_string(), &event)?;
        self.saw(txn, verified.signed.signer, device.person.id);
        let before = self.vault.clone();
        let joined = rows::JoinedDevice {
            person: device.person.id,
            id: device.device.id,
            pin,
            entry,
        };
        self.vault.sign_in(joined, text);
        txn.touch(Row::Vault, move |core| core.vault = before);
        txn.after.push(super::txn::After::Charter);
        Ok(entry)
    }

    /// A custodian has read these shares.
    pub fn confirm(
        &mut self,
        txn: &mut Txn,
        by: &PersonRef,
        read: &[(VersionId, GroupName, Digest)],
    ) -> Result<u32, Refused> {
        let mut recorded = 0_u32;
        for (version, group, commitment) in read {
            let held = self.credential(version.credential)?;
            let sealed = held
                .holding
                .versions
                .get(&version.version)
                .ok_or(Refused::NotFound("no such version"))?;
            let holder = sealed
                .manifest
                .group(group)
                .and_then(|group| group.holder(by.id))
                .ok_or(Refusal::NotHolder)?;
            if holder.commitment != *commitment {
                return Err(Refusal::WrongShare.into());
            }
            let known = held
                .row
                .versions
                .get(&version.version)
                .is_some_and(|state| state.confirmed.contains(&by.id));
            if known {
                continue;
            }
            self.log(
                txn,
                &by.to_string(),
                &Event::ShareConfirmed {
                    version: *version,
                    person: by.id,
                },
            )?;
            self.change_credential(txn, version.credential, |row| {
                if let Some(state) = row.versions.get_mut(&version.version) {
                    state.confirmed.insert(by.id);
                }
            });
            recorded = recorded.saturating_add(1);
        }
        Ok(recorded)
    }

    /// An opening without the vault is made known.
    pub fn import_recover(
        &mut self,
        txn: &mut Txn,
        texts: Vec<Verified>,
        by: &PersonRef,
    ) -> Result<u64, Refused> {
        self.known
            .charter
            .person(by.id)
            .filter(|person| person.has(Role::Custodian) || person.has(Role::Requester))
            .ok_or(Refused::Denied(
                "a custodian or requester imports a recovery",
            ))?;
        for text in &texts {
            text.holds(&Check::text(&self.known.charter, &text.signed))?;
        }
        self.recovered(&texts)?;
        let texts: Vec<_> = texts.into_iter().map(|text| text.signed).collect();
        let record = serde_json::to_vec(&texts).map_err(|_| Refused::Row)?;
        let record = put_object(txn, &record);
        self.log(
            txn,
            &by.to_string(),
            &Event::RecoverImported { record, texts },
        )
    }

    /// They are a request without the vault, by the person whom it names, and custodians' approvals of it.
    fn recovered(&self, texts: &[Verified]) -> Result<(), Refused> {
        let charter = &self.known.charter;
        let wrong = |why: &str| Refused::Malformed(why.to_owned());
        let (request, answers) = texts.split_first().ok_or(wrong("there is no request"))?;
        let recover = Recover::parse(&request.signed.text)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let asked = verify::signer(charter, request.signed.signer);
        if recover.vault != charter.origin || asked != Some(recover.requested_by.id) {
            return Err(wrong(
                "the request is not of this vault, or by somebody else than it says",
            ));
        }
        for answer in answers {
            let approval = Approval::parse(&answer.signed.text)
                .map_err(|error| Refused::Malformed(error.to_string()))?;
            let by = verify::signer(charter, answer.signed.signer);
            let own = answer.signed.signer == Signer::Token(approval.token.id)
                && by == Some(approval.custodian.id);
            let approves = matches!(approval.decision, Decision::Approve(_));
            if !own || !approves || approval.answers_recover(&recover).is_err() {
                return Err(wrong(
                    "an approval is not by whom it names, or of another request",
                ));
            }
        }
        Ok(())
    }

    /// A changed definition that a ceremony may name.
    pub fn propose_definition(
        &mut self,
        txn: &mut Txn,
        by: PersonId,
        definition: &keyturn_vault::definition::Definition,
    ) -> Result<(Digest, Digest), Refused> {
        let held = self.credential(definition.credential)?;
        let old = held.holding.digest;
        definition
            .follows(&held.holding.definition, old)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        definition
            .validate(&self.known.charter)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let proposal = Proposal::Definition(Arc::new(definition.clone()));
        let new = self.keep_proposal(txn, by, proposal)?;
        Ok((old, new))
    }

    /// Until when no rotation is begun.
    pub fn paused(&self) -> Option<keyturn_vault::machine::Millis> {
        self.vault.paused
    }

    /// Nothing is known of these persons.
    pub fn names(&self) -> BTreeMap<PersonId, PersonRef> {
        self.known
            .charter
            .persons
            .iter()
            .map(|person| (person.id, person.reference()))
            .collect()
    }
}
