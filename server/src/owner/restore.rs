//! Accepting what was restored: the one ceremony of restore mode.
//!
//! The request names a restore document by its digest. The document is the daemon's own word for where
//! the store stands, but for the lost head: a person who has seen more of the log may say so. When k of
//! the governing group have signed, the log goes on from there, with the keys that the document names.
//!
//! # Invariants
//! 1. In restore mode nothing but this ceremony changes anything.
//! 2. The keys and the lost head are those of the document, and take force in the transaction that logs it.
//! 3. The vault goes on once all versions of the document are taken back, also over a restart: until then
//!    no number of theirs can be given to another version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keyturn_proto::v1;
use keyturn_vault::{
    ceremony::{self, Purpose},
    change,
    charter::Node,
    digest::Digest,
    event::{Event, Maker},
    id::{CeremonyId, CredentialId, GroupName},
    jcs::Document as _,
    key::VerifierKey,
    manifest::Manifest,
    reference::Head,
    restore::{Format, RestoreDocument},
    rotation,
    text::Restore,
    world::{Life, Sealed, Stage, VersionId},
};

use super::{
    ceremony::DAEMON,
    change::Proposal,
    core::{Core, Live, put_object},
    txn::{After, Row, Txn},
};
use crate::{chain::Known, refusal::Refused, rows, store::Name};

/// Versions that one transaction takes back, so that it fits into the store's bounds.
const AT_ONCE: usize = 12;
/// Other requests to accept the restore that end with it; more expire.
const MAX_MOOT: usize = 4;
/// Most findings about what is not taken back; the daemon's log has them all.
const MAX_LEFT: usize = 20;
/// A version that was found in a copy only: whoever made it, it may be the target's secret.
const FOUND: Life = Life {
    stage: Stage::Candidate,
    proven: false,
    rolled: true,
};

/// A version that only places for copies have.
#[derive(Clone, Debug)]
pub struct Found {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Who made it.
    pub maker: Maker,
}

/// What waits to be accepted.
#[derive(Clone, Debug)]
pub struct Restoring {
    /// Why, for people.
    pub why: String,
    /// The log as restored.
    pub head: Head,
    /// The highest head that a place for copies shows to be lost, and which place.
    pub lost: Option<(Head, String)>,
    /// The log key, if it is another one than the charter's.
    pub log_key: Option<VerifierKey>,
    /// This node, if the charter does not have it.
    pub node: Option<Node>,
    /// Versions whose sealed values are here and that the log does not have.
    pub found: BTreeMap<VersionId, Found>,
    /// What places for copies have that is not taken back, for people.
    pub left: Vec<String>,
    /// The ceremony that accepted it; `found` is then what is not yet taken back.
    pub accepted: Option<CeremonyId>,
    /// All heads that places for copies show to be lost.
    pub shown: Vec<Head>,
}

impl Restoring {
    fn row(&self) -> rows::Restoring {
        let found = self.found.iter();
        rows::Restoring {
            why: self.why.clone(),
            head: self.head,
            found: found.map(|(id, one)| (*id, one.digest)).collect(),
            accepted: self.accepted,
        }
    }
}

impl Core {
    /// What waits to be accepted.
    pub fn restoring(&self) -> Result<&Restoring, Refused> {
        let restoring = self.restoring.as_deref();
        let waits = restoring.filter(|restoring| restoring.accepted.is_none());
        waits.ok_or(Refused::NotRestoring)
    }

    /// What places for copies have that is not taken back: who accepts must know.
    pub fn left_in_copies(&self) -> Vec<v1::Finding> {
        let left = self.restoring.iter().flat_map(|restoring| &restoring.left);
        let told = |what: &String| {
            v1::Finding {
            severity: v1::Severity::Warning.into(),
            code: "left-in-copy".to_owned(),
            message: format!("this is not taken back: {what}"),
            hint: "mount the place and start the daemon again, or open the version from there with `keyturn recover`".to_owned(),
        }
        };
        left.take(MAX_LEFT).map(told).collect()
    }

    /// The restores that a quorum accepted, in order.
    pub fn restores(&self) -> Vec<rows::Restored> {
        self.vault.restores.clone()
    }

    /// The document that a request names, as this daemon would write it.
    pub fn restore_document(&self) -> Result<RestoreDocument, Refused> {
        let restoring = self.restoring()?;
        Ok(RestoreDocument {
            format: Format::V1,
            origin: self.known.charter.origin.clone(),
            head: restoring.head,
            lost: restoring.lost.as_ref().map(|(head, _)| *head),
            charter: self.known.reference,
            log_key: restoring.log_key.clone(),
            node: restoring.node.clone(),
            documents: restoring.found.values().map(|one| one.digest).collect(),
        })
    }

    /// Takes the document of a request that is about to be opened.
    pub fn propose_restore(&mut self, txn: &mut Txn, bytes: &[u8]) -> Result<(), Refused> {
        let document = RestoreDocument::from_bytes(bytes)
            .map_err(|error| Refused::Malformed(format!("the restore document: {error}")))?;
        self.fits(&document)?;
        let digest = put_object(txn, bytes);
        self.propose(digest, Proposal::Restore(Arc::new(document)));
        let restoring = self.restoring()?;
        txn.put(Name::Restore.key(), rows::encode(&restoring.row())?);
        Ok(())
    }

    /// It is this daemon's own document, but for a lost head that is at least as high.
    fn fits(&self, document: &RestoreDocument) -> Result<(), Refused> {
        let own = self.restore_document()?;
        let height = |lost: &Option<Head>| lost.map_or(0, |head| head.size);
        let lower = height(&document.lost) < height(&own.lost);
        let same = height(&document.lost) == height(&own.lost) && document.lost != own.lost;
        let rest = RestoreDocument {
            lost: own.lost,
            ..document.clone()
        };
        if rest != own || lower || same {
            return Err(Refused::Stale(
                "this is not what was restored; see `keyturn status`, and ask again",
            ));
        }
        Ok(())
    }

    /// Whom an `accept-restore` asks.
    pub(super) fn asks_restore(&self, accepted: &Restore) -> Result<BTreeSet<GroupName>, Refused> {
        self.accepted(accepted)?;
        Ok(change::governing(&self.known.charter))
    }

    fn accepted(&self, accepted: &Restore) -> Result<Arc<RestoreDocument>, Refused> {
        self.restoring()?;
        let Some(Proposal::Restore(document)) = self.proposals.get(&accepted.documents) else {
            return Err(Refused::NotFound("no such restore document"));
        };
        if document.subject().ok().as_ref() != Some(accepted) {
            return Err(keyturn_vault::refusal::Refusal::WrongSubject.into());
        }
        self.fits(document)?;
        Ok(Arc::clone(document))
    }

    /// Invariant 2.
    pub(super) fn apply_restore(
        &mut self,
        txn: &mut Txn,
        id: CeremonyId,
        accepted: &Restore,
    ) -> Result<(), Refused> {
        let document = self.accepted(accepted)?;
        let event = Event::RestoreAccepted {
            ceremony: id,
            restored: document.head,
            lost: document.lost,
            found: document.documents.clone(),
        };
        let entry = self.log(txn, DAEMON, &event)?;
        let shown = self.restoring()?.shown.clone();
        let before = (self.vault.clone(), Arc::clone(&self.known));
        self.vault.restores.push(rows::Restored {
            ceremony: id,
            charter: self.known.reference,
            document: accepted.documents,
            head: document.head,
            lost: document.lost,
            shown,
            entry,
        });
        self.known = Arc::new(Known {
            charter: Arc::new(document.applied_to(&self.known.charter)),
            reference: self.known.reference,
            founded: true,
        });
        txn.touch(Row::Vault, move |core| (core.vault, core.known) = before);
        for credential in self.interrupted.clone() {
            self.unsure(txn, credential);
        }
        if let Some(restoring) = self.restoring.clone() {
            let accepted = Restoring {
                accepted: Some(id),
                ..Restoring::clone(&restoring)
            };
            self.restoring = Some(Arc::new(accepted));
            txn.remember(move |core| core.restoring = Some(restoring));
        }
        txn.after.push(After::Charter);
        self.take_back(txn)?;
        let other = |(other, live): &(&CeremonyId, &Arc<Live>)| {
            let row = &live.machine.row;
            **other != id && row.purpose == Purpose::AcceptRestore && !row.state.is_final()
        };
        let others = self.live.iter().filter(other).take(MAX_MOOT);
        for other in others.map(|(other, _)| *other).collect::<Vec<_>>() {
            self.step_ceremony(txn, other, ceremony::Event::Moot, DAEMON)?;
        }
        Ok(())
    }

    /// How many versions of an accepted restore are still to be taken back.
    pub(super) fn untaken(&self) -> usize {
        let accepted = self.restoring.iter();
        let accepted = accepted.filter(|restoring| restoring.accepted.is_some());
        accepted.map(|restoring| restoring.found.len()).sum()
    }

    /// Takes back a few versions of an accepted restore; the vault goes on with the last (invariant 3).
    pub(super) fn take_back(&mut self, txn: &mut Txn) -> Result<(), Refused> {
        let Some(before) = self.restoring.clone() else {
            return Ok(());
        };
        let Some(id) = before.accepted else {
            return Ok(());
        };
        self.let_through = true;
        let mut rest = Restoring::clone(&before);
        for _ in 0..AT_ONCE {
            let Some((version, found)) = rest.found.pop_first() else {
                break;
            };
            let mark = txn.mark();
            // One that does not fit stays where it was found; the others do not wait for it.
            if let Err(refused) = self.recover(txn, id, version, found) {
                txn.back_to(mark, self);
                tracing::error!(%version, %refused, "a version of a copy cannot be taken back");
            }
        }
        if rest.found.is_empty() {
            txn.delete(Name::Restore.key());
            txn.after.push(After::Restored(id));
        } else {
            txn.put(Name::Restore.key(), rows::encode(&rest.row())?);
        }
        self.restoring = Some(Arc::new(rest));
        txn.remember(move |core| core.restoring = Some(before));
        Ok(())
    }

    /// A rotation that was running may have asked the target for more than the log tells.
    fn unsure(&mut self, txn: &mut Txn, id: CredentialId) {
        let now = self.now().lived;
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        txn.touch_credential(Row::Slot(id), id, held);
        held.slot.restored(now);
    }

    /// Takes a version back; its sealed value and its documents are in the store already.
    fn recover(
        &mut self,
        txn: &mut Txn,
        ceremony: CeremonyId,
        version: VersionId,
        found: Found,
    ) -> Result<(), Refused> {
        let Found {
            digest,
            manifest,
            maker,
        } = found;
        let id = version.credential;
        // What cannot be used keeps nobody from going on; it was told when it was loaded.
        if !self.held.contains_key(&id) {
            return Ok(());
        }
        let state = rows::VersionState {
            life: FOUND,
            manifest: digest,
            maker,
            entry: self.log_size(txn),
            sealed: self.now().wall,
            confirmed: BTreeSet::new(),
            inconsistent: false,
        };
        self.change_credential(txn, id, |row| {
            row.versions.insert(version.version, state);
        });
        if let Some(held) = self.held.get_mut(&id) {
            let sealed = Sealed {
                life: FOUND,
                digest,
                manifest: manifest.into(),
            };
            held.holding.versions.insert(version.version, sealed);
        }
        let event = rotation::Event::Recovered {
            version: version.version,
            manifest: digest,
            ceremony,
        };
        self.step_slot(txn, id, event, DAEMON)
    }
}
