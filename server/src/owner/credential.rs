//! Credentials: definitions and sealed versions.

use std::collections::BTreeMap;

use keyturn_vault::{
    charter::Role,
    definition::Definition,
    digest::Digest,
    event::{Event, Maker, Seal},
    id::PersonId,
    layout::{MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES},
    manifest::Manifest,
    reference::PersonRef,
    rotation,
    world::Holding,
};

use super::{
    core::{Core, Held, put_object},
    txn::{Row, Txn},
};
use crate::{refusal::Refused, rows, sealing::Fresh, store::Name, verify::VerifiedDocument};

/// A definition, verified outside.
pub struct Defined {
    /// The signature that was verified over the bytes.
    pub verified: VerifiedDocument,
    /// The document.
    pub bytes: Vec<u8>,
    /// The same, parsed.
    pub definition: Definition,
    /// Who brings it.
    pub by: PersonRef,
}

/// A sealed version, verified outside.
pub struct Deposited {
    /// The signature that was verified over the manifest's bytes.
    pub verified: VerifiedDocument,
    /// The manifest.
    pub bytes: Vec<u8>,
    /// The same, parsed.
    pub manifest: Manifest,
    /// Ciphertext and envelopes, each of which has the digest that the manifest says.
    pub blob: rows::Blob,
    /// Who made it.
    pub person: PersonId,
    /// Who brings it, for the log.
    pub actor: String,
}

impl Core {
    /// Adds a credential; the same again changes nothing. Gives the number of its entry.
    pub fn define(&mut self, txn: &mut Txn, defined: Defined) -> Result<u64, Refused> {
        let Defined {
            verified,
            bytes,
            definition,
            by,
        } = defined;
        let id = definition.credential;
        if let Some(held) = self.held.get(&id) {
            let same = held.row.definition == verified.digest;
            return if same {
                Ok(held.row.entry)
            } else {
                Err(Refused::Taken(
                    "this credential id belongs to another definition",
                ))
            };
        }
        if self.at_path(&definition.path).is_some() {
            return Err(Refused::Taken(
                "this path is bound to another credential for ever",
            ));
        }
        self.founded()?;
        let charter = &self.known.charter;
        charter
            .person(by.id)
            .filter(|person| person.has(Role::Operator))
            .ok_or(keyturn_vault::refusal::Refusal::NotOperator)?;
        definition
            .validate(charter)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        if definition.origin != charter.origin || definition.previous.is_some() {
            return Err(Refused::Malformed(
                "this is not the first definition of a credential of this vault".to_owned(),
            ));
        }
        self.workshop
            .check_settings(&definition)
            .map_err(Refused::Malformed)?;
        let digest = put_object(txn, &bytes);
        let signature = Seal {
            signer: verified.signer,
            signature: verified.signature,
        };
        let event = Event::CredentialDefined {
            credential: id,
            path: definition.path.clone(),
            definition: digest,
            signature: signature.clone(),
            ceremony: None,
        };
        let entry = self.log(txn, &by.to_string(), &event)?;
        let row = rows::Credential::new(definition.path.clone(), digest, signature, entry);
        txn.put(
            Name::Path(definition.path.as_str()).key(),
            rows::encode(&id)?,
        );
        let path = definition.path.clone();
        self.paths.insert(path.clone(), id);
        let holding = Holding {
            definition: definition.into(),
            digest,
            versions: BTreeMap::new(),
            out: BTreeMap::new(),
        };
        let slot = rotation::Slot::new(id);
        self.held.insert(id, Held { row, holding, slot });
        txn.touch(Row::Slot(id), |_| ());
        txn.touch(Row::Credential(id), move |core| {
            core.held.remove(&id);
            core.paths.remove(&path);
        });
        Ok(entry)
    }

    /// Takes a sealed version; the same again changes nothing. Gives the number of its entry.
    pub fn deposit(&mut self, txn: &mut Txn, deposited: Deposited) -> Result<u64, Refused> {
        let Deposited {
            verified,
            bytes,
            manifest,
            blob,
            person,
            actor,
        } = deposited;
        self.founded()?;
        let id = manifest.credential;
        let held = self.credential(id)?;
        if let Some(known) = held.row.versions.get(&manifest.version) {
            let same = known.manifest == verified.digest;
            return if same {
                Ok(known.entry)
            } else {
                Err(Refused::Stale("another version has this number; seal anew"))
            };
        }
        self.spare()?;
        let next = held
            .row
            .versions
            .keys()
            .next_back()
            .map_or(keyturn_vault::reference::Version::FIRST, |last| last.next());
        if manifest.version != next {
            return Err(Refused::Stale("this is not the next version; seal anew"));
        }
        if manifest.charter != self.known.reference {
            return Err(Refused::Stale(
                "sealed to a charter that is no longer in force; seal anew",
            ));
        }
        manifest
            .validate(&held.holding.definition, &self.known.charter)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let signature = Seal {
            signer: verified.signer,
            signature: verified.signature,
        };
        let event = rotation::Event::Deposit {
            version: manifest.version,
            manifest: verified.digest,
            person,
            signature,
        };
        let fresh = Fresh {
            manifest,
            bytes,
            blob,
            maker: Maker::Deposit(person),
        };
        let entry = self.step_slot_with(txn, id, event, &actor, Some(fresh))?;
        entry.ok_or(Refused::Row)
    }

    /// Tells every ceremony that names this credential that its versions are others now.
    pub(super) fn live_set_changed(
        &mut self,
        txn: &mut Txn,
        id: keyturn_vault::id::CredentialId,
    ) -> Result<(), Refused> {
        let named: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| !live.machine.row.state.is_final())
            .filter(|(_, live)| {
                live.machine
                    .row
                    .ask
                    .lines
                    .keys()
                    .any(|line| line.credential == id)
            })
            .map(|(ceremony, _)| *ceremony)
            .collect();
        for ceremony in named {
            self.step_ceremony(
                txn,
                ceremony,
                keyturn_vault::ceremony::Event::Changed,
                super::ceremony::DAEMON,
            )?;
        }
        Ok(())
    }

    /// Whether the vault is founded.
    pub(super) fn founded(&self) -> Result<(), Refused> {
        if self.known.founded {
            Ok(())
        } else {
            Err(Refused::NotFounded)
        }
    }
}

/// A blob whose parts are those of the manifest, by name of the part that is not, and no longer than a copy takes.
pub fn blob(
    manifest: &Manifest,
    signature: Seal,
    ciphertext: Vec<u8>,
    envelopes: Vec<rows::Envelope>,
) -> Result<rows::Blob, Refused> {
    let wrong = |what: String| Refused::Malformed(what);
    // What is longer fits into no copy, and into no answer to those who open it.
    if ciphertext.len() > MAX_PAYLOAD_BYTES {
        return Err(wrong(format!(
            "a ciphertext has at most {MAX_PAYLOAD_BYTES} bytes"
        )));
    }
    let longest = envelopes.iter().map(|one| one.envelope.len()).max();
    if longest > Some(MAX_ENVELOPE_BYTES) {
        return Err(wrong(format!(
            "an envelope has at most {MAX_ENVELOPE_BYTES} bytes"
        )));
    }
    if Digest::of(&ciphertext) != manifest.ciphertext {
        return Err(wrong(
            "the ciphertext is not the one of the manifest".to_owned(),
        ));
    }
    let listed = manifest.groups.iter().flat_map(|group| {
        group
            .holders
            .iter()
            .map(move |holder| (&group.group, holder))
    });
    let mut given = envelopes.iter();
    for (group, holder) in listed {
        let found = given.next().filter(|envelope| {
            envelope.group == *group
                && envelope.person == holder.person
                && envelope.x == holder.x
                && Digest::of(&envelope.envelope) == holder.envelope
        });
        if found.is_none() {
            return Err(wrong(format!(
                "the envelope x{} of the group {group} is not the one of the manifest",
                holder.x
            )));
        }
    }
    if given.next().is_some() {
        return Err(wrong(
            "there are more envelopes than the manifest lists".to_owned(),
        ));
    }
    Ok(rows::Blob {
        signature,
        ciphertext,
        envelopes,
    })
}
