//! A whole log in a folder: tree, tiles, documents, charters, signatures.
//!
//! # Invariants
//! 1. Tree, tiles and every entry's place are computed again; a log that does not lead to its checkpoint, or
//!    does not continue a saved one, has no report.
//! 2. Every signed text and document was signed by whom the charter in force at its entry names; what was
//!    not is a finding.

use std::{collections::BTreeSet, convert::Infallible, path::Path};

use keyturn_audit::{
    entry::Entry,
    note::{Checkpoint, Vkey},
    publish::Dir,
    verify::{Anchors, entries, object},
};
use keyturn_hsm::attestation::Anchors as Makers;
use keyturn_vault::{
    charter::{Chain, Charter},
    check::Check,
    definition::Definition,
    digest::Digest,
    event::{Event, Seal},
    id::CeremonyId,
    jcs::Document as _,
    manifest::Manifest,
    reference::CharterRef,
    replay::Level,
    text::{Enrol, Join, Request, SignedText},
    world::VersionId,
};
use serde::Serialize;

use super::{rules::Rules, verify as check_signature};
use crate::refusal::{Refusal, told};

/// A checkpoint that the log must continue.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// Where it was kept.
    pub name: String,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The vault.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// The root of their tree.
    pub root: Digest,
    /// Charters that took force.
    pub charters: u64,
    /// Ceremonies opened.
    pub ceremonies: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// What the log was held against.
    pub anchors: Vec<String>,
    /// The SHA-256 of the roots by which tokens' attestations were judged.
    pub attestation_roots: Vec<Digest>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What is worth knowing: a rotation that is still owed, say.
    pub notes: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The entry.
    pub n: u64,
    /// What is wrong.
    pub what: String,
}

/// Verifies a folder with a log, and judges what it says by the daemon's own rules.
pub fn verify(
    dir: &Path,
    log: &Vkey,
    makers: &Makers,
    genesis: Option<Digest>,
    saved: &[Anchor],
) -> Result<Report, Refusal> {
    let dir = Dir::new(dir);
    let rules = Rules::new(&dir, makers, genesis);
    let mut report = examine(&dir, log, genesis, saved, Some(rules))?;
    report.attestation_roots = makers.roots().map(Digest).collect();
    Ok(report)
}

/// Verifies a folder with a log; by the rules too, where these are given.
fn examine(
    dir: &Dir,
    log: &Vkey,
    genesis: Option<Digest>,
    saved: &[Anchor],
    rules: Option<Rules<'_>>,
) -> Result<Report, Refusal> {
    let checkpoints: Vec<_> = saved
        .iter()
        .map(|anchor| anchor.checkpoint.clone())
        .collect();
    let threads = std::thread::available_parallelism()
        .map_or(2, std::num::NonZero::get)
        .min(8);
    let mut fold = Fold {
        log,
        dir,
        genesis,
        rules,
        notes: Vec::new(),
        chain: None,
        opened: BTreeSet::new(),
        authorized: BTreeSet::new(),
        charters: 0,
        signatures: 0,
        findings: Vec::new(),
    };
    let verified = entries(
        dir,
        &Anchors {
            log,
            saved: &checkpoints,
            threads,
        },
        |entry| {
            fold.entry(&entry);
            Ok::<(), Infallible>(())
        },
    );
    let verified = verified.map_err(|error| {
        Refusal::new(
            "verification",
            told(&error),
            "the folder is not this log, or the log was changed; keep it as evidence",
        )
    })?;
    keyturn_audit::verify::objects(dir).map_err(|error| {
        Refusal::new(
            "verification",
            told(&error),
            "a document is damaged; export the log again",
        )
    })?;
    fold.finish();
    let mut anchors = vec!["its own signature".to_owned()];
    anchors.extend(genesis.map(|_| "the first charter's digest".to_owned()));
    anchors.extend(saved.iter().map(|anchor| anchor.name.clone()));
    Ok(Report {
        origin: log.name().to_owned(),
        size: verified.checkpoint.size(),
        root: Digest(*verified.checkpoint.root()),
        charters: fold.charters,
        ceremonies: u64::try_from(fold.opened.len()).unwrap_or(u64::MAX),
        signatures: fold.signatures,
        anchors,
        attestation_roots: Vec::new(),
        findings: fold.findings,
        notes: fold.notes,
    })
}

struct Fold<'a> {
    log: &'a Vkey,
    dir: &'a Dir,
    genesis: Option<Digest>,
    rules: Option<Rules<'a>>,
    notes: Vec<Finding>,
    chain: Option<Chain>,
    opened: BTreeSet<CeremonyId>,
    authorized: BTreeSet<CeremonyId>,
    charters: u64,
    signatures: u64,
    findings: Vec<Finding>,
}

impl Fold<'_> {
    fn entry(&mut self, entry: &Entry) {
        let n = entry.n;
        match Event::parse(&entry.kind, &entry.body) {
            Ok(event) => {
                if let Err(what) = self.event(n, &event) {
                    self.find(n, what);
                }
                let judged = self.rules.as_mut().map(|rules| rules.entry(entry, &event));
                self.judged(judged.unwrap_or_default());
                let in_force = self
                    .chain
                    .as_ref()
                    .and_then(Chain::newest)
                    .map(|(reference, _)| reference.index);
                // A charter takes force by an entry of the one before it.
                let named = if matches!(event, Event::CharterInForce { .. }) {
                    entry.charter.checked_add(1)
                } else {
                    Some(entry.charter)
                };
                if in_force != named && !matches!(event, Event::CharterJoined { .. }) {
                    self.find(
                        n,
                        format!(
                            "it names charter {}, which is not the one in force",
                            entry.charter
                        ),
                    );
                }
            }
            Err(error) => self.find(n, told(&error)),
        }
    }

    fn judged(&mut self, judged: Vec<(Level, Finding)>) {
        for (level, finding) in judged {
            match level {
                Level::Info => self.notes.push(finding),
                Level::Warning | Level::Error => self.findings.push(finding),
            }
        }
    }

    /// What the end of the log leaves open.
    fn finish(&mut self) {
        let open = self.rules.as_ref().map(Rules::finish);
        self.judged(open.unwrap_or_default());
    }

    fn find(&mut self, n: u64, what: String) {
        self.findings.push(Finding { n, what });
    }

    /// What one event says, held against everything before it.
    fn event(&mut self, n: u64, event: &Event) -> Result<(), String> {
        for text in texts(event) {
            self.text(n, text);
        }
        if let Event::VaultFounded { charter, joins } = event {
            self.found(*charter)?;
            // Founders' keys are those of the charter that they put into force.
            for join in joins {
                self.text(n, join);
            }
        } else if let Event::CharterInForce { charter, .. } = event {
            self.next_charter(*charter)?;
        } else if let Event::CharterJoined { join, enrolment } = event {
            self.joined(n, join, enrolment)?;
        } else if let Event::CredentialDefined {
            definition,
            signature,
            path,
            ceremony,
            ..
        } = event
        {
            if ceremony.is_none() {
                self.seal(n, *definition, signature);
            }
            if self.definition(*definition)?.path != *path {
                return Err("the definition is of another path".to_owned());
            }
        } else if let Event::VersionSealed {
            version,
            manifest,
            signature,
            ..
        } = event
        {
            self.seal(n, *manifest, signature);
            self.sealed(*version, *manifest)?;
        }
        self.ceremony(event)
    }

    /// The order of a ceremony's entries.
    fn ceremony(&mut self, event: &Event) -> Result<(), String> {
        if let Event::CeremonyOpened { ceremony, request } = event {
            self.opened.insert(*ceremony);
            let request: Request = request.parse().map_err(|error| told(&error))?;
            if request.ceremony != *ceremony {
                return Err("the request is of another ceremony".to_owned());
            }
        } else if let Event::UnsealAuthorized { ceremony, openings } = event {
            self.authorized.insert(*ceremony);
            if openings
                .iter()
                .any(|opening| opening.persons.len() < usize::from(opening.k))
            {
                return Err("it was authorized by fewer persons than its quorum".to_owned());
            }
        } else if let Event::UnsealReleased { ceremony, .. } = event
            && !self.authorized.contains(ceremony)
        {
            return Err("it was released without having been authorized".to_owned());
        }
        match event.ceremony() {
            Some(ceremony) if !self.opened.contains(&ceremony) => {
                Err(format!("ceremony {ceremony} was never opened"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn definition(&self, digest: Digest) -> Result<Definition, String> {
        Definition::from_bytes(&self.document(digest)?).map_err(|error| told(&error))
    }

    fn sealed(&self, version: VersionId, manifest: Digest) -> Result<(), String> {
        let manifest =
            Manifest::from_bytes(&self.document(manifest)?).map_err(|error| told(&error))?;
        if (manifest.credential, manifest.version) != (version.credential, version.version) {
            return Err("the manifest is of another version".to_owned());
        }
        let definition = self.definition(manifest.definition)?;
        let charter = self
            .chain
            .as_ref()
            .and_then(|chain| chain.find(&manifest.charter));
        let charter = charter.ok_or("the manifest names a charter that was never in force")?;
        manifest
            .validate(&definition, charter)
            .map_err(|error| told(&error))
    }

    fn joined(&mut self, n: u64, join: &SignedText, enrolment: &SignedText) -> Result<(), String> {
        let enrol: Enrol = enrolment.parse().map_err(|error| told(&error))?;
        if join
            .parse::<Join>()
            .map_err(|error| told(&error))?
            .enrolment
            != enrolment.digest()
        {
            return Err("the join names another enrolment".to_owned());
        }
        for signed in [join, enrolment] {
            self.perform(
                n,
                Some(Check::Text {
                    key: enrol.approval_key.clone(),
                    signed: signed.clone(),
                }),
            );
        }
        Ok(())
    }

    fn found(&mut self, charter: CharterRef) -> Result<(), String> {
        if self
            .genesis
            .is_some_and(|genesis| genesis != charter.digest)
        {
            return Err("the first charter is not the one that was compared".to_owned());
        }
        let bytes = self.document(charter.digest)?;
        self.chain = Some(Chain::begin(&bytes, charter.digest).map_err(|error| told(&error))?);
        self.charters = 1;
        self.log_key()
    }

    fn next_charter(&mut self, charter: CharterRef) -> Result<(), String> {
        let bytes = self.document(charter.digest)?;
        let chain = self.chain.as_mut().ok_or("there is no first charter")?;
        chain.push(&bytes).map_err(|error| told(&error))?;
        self.charters = self.charters.saturating_add(1);
        if chain.newest().is_none_or(|(newest, _)| newest != charter) {
            return Err("the charter is not the one that the entry names".to_owned());
        }
        self.log_key()
    }

    /// The charter names the key that signs this log.
    fn log_key(&self) -> Result<(), String> {
        let key = self.in_force().map(|charter| charter.log_key.to_string());
        if key.as_deref() == Some(&*self.log.to_string()) {
            Ok(())
        } else {
            Err("the charter names another log key".to_owned())
        }
    }

    fn document(&self, digest: Digest) -> Result<Vec<u8>, String> {
        object(self.dir, &digest.0).map_err(|error| told(&error))
    }

    /// Checks a signed text (invariant 2).
    fn text(&mut self, n: u64, signed: &SignedText) {
        let check = self.in_force().map(|charter| Check::text(charter, signed));
        self.perform(n, check);
    }

    /// Checks a signed document (invariant 2).
    fn seal(&mut self, n: u64, document: Digest, seal: &Seal) {
        let check = self
            .in_force()
            .map(|charter| Check::document(charter, document, seal.signer, &seal.signature));
        self.perform(n, check);
    }

    fn in_force(&self) -> Option<&Charter> {
        self.chain
            .as_ref()
            .and_then(Chain::newest)
            .map(|(_, charter)| charter)
    }

    fn perform(&mut self, n: u64, check: Option<Check>) {
        let outcome = match check {
            Some(Check::Text { key, signed }) => {
                check_signature(&key, signed.text.as_bytes(), &signed.signature, "a text")
                    .map_err(|error| told(&error))
            }
            Some(Check::Document {
                key,
                document,
                signature,
            }) => self.document(document).and_then(|bytes| {
                check_signature(&key, &bytes, &signature, "a document")
                    .map_err(|error| told(&error))
            }),
            Some(Check::NoKey { .. }) => {
                Err("it is signed by nobody whom the charter in force knows".to_owned())
            }
            // The daemon compares shares as they come; nothing of them is in the log. Attestations are the rules'.
            Some(Check::Commitment { .. } | Check::Attestation { .. } | Check::Head(_)) => return,
            None => Err("no charter is in force".to_owned()),
        };
        match outcome {
            Ok(()) => self.signatures = self.signatures.saturating_add(1),
            Err(what) => self.find(n, what),
        }
    }
}

/// The texts of an event that keys of the charter in force signed.
fn texts(event: &Event) -> Vec<&SignedText> {
    if let Event::CeremonyOpened { request: text, .. }
    | Event::CeremonyApproved { approval: text, .. }
    | Event::CeremonyRefused { refusal: text, .. }
    | Event::CeremonyRetracted {
        retraction: text, ..
    }
    | Event::CeremonyReviewed { review: text, .. }
    | Event::CheckoutReturned { checkin: text, .. }
    | Event::HeartbeatReceived { heartbeat: text }
    | Event::DeviceJoined { join: text, .. } = event
    {
        return vec![text];
    }
    if let Event::RecoverImported { texts, .. } = event {
        texts.iter().collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use keyturn_audit::{entry::Entry, publish::Publisher};
    use keyturn_vault::event::Maker;

    use super::*;
    use crate::{
        verify::sealed::tests::{Case, case},
        wire,
    };

    fn seal(signature: Option<keyturn_proto::v1::Signature>) -> Seal {
        let (signer, signature) = wire::signature(signature, "a signature").unwrap();
        Seal { signer, signature }
    }

    /// A vault with one sealed version, entry by entry.
    fn events(case: &Case) -> Vec<Event> {
        let definition = case.sealed.definition.clone().unwrap();
        let manifest = case.sealed.manifest.clone().unwrap();
        let (charter, document) = case.chain.newest().unwrap();
        vec![
            Event::VaultFounded {
                charter,
                joins: Vec::new(),
            },
            Event::CredentialDefined {
                credential: case.line.credential,
                path: case.line.path.clone(),
                definition: Digest::of(&definition.document),
                signature: seal(definition.signature),
                ceremony: None,
            },
            Event::VersionSealed {
                version: VersionId {
                    credential: case.line.credential,
                    version: case.line.version,
                },
                manifest: case.line.manifest,
                maker: Maker::Deposit(document.persons[0].id),
                signature: seal(manifest.signature),
            },
        ]
    }

    /// Publishes a log of these events and verifies it; gives the entries with findings.
    fn findings(case: &Case, events: &[Event], charter: u64, genesis: Option<Digest>) -> Vec<u64> {
        let dir = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::open(Dir::new(dir.path()), case.log.vkey()).unwrap();
        let documents = [&case.sealed.definition, &case.sealed.manifest];
        for document in documents.into_iter().flatten() {
            publisher.object(&document.document).unwrap();
        }
        let (_, document) = case.chain.newest().unwrap();
        publisher.object(&document.to_bytes().unwrap()).unwrap();
        let entries = events.iter().zip(0..).map(|(event, n)| {
            let entry = Entry {
                n,
                time: "2026-11-21T02:17:00.123Z".to_owned(),
                charter,
                actor: "keyturnd".to_owned(),
                kind: event.kind().to_owned(),
                body: event.body(),
            };
            entry.encode().unwrap()
        });
        publisher.append(&entries.collect::<Vec<_>>()).unwrap();
        let edge = publisher.edge();
        let checkpoint = case.log.sign(edge.size(), edge.root()).unwrap();
        publisher.publish(&checkpoint).unwrap();
        let dir = Dir::new(dir.path());
        let report = examine(&dir, case.log.vkey(), genesis, &[], None).unwrap();
        report
            .findings
            .into_iter()
            .map(|finding| finding.n)
            .collect()
    }

    #[test]
    fn what_a_daemon_could_not_have_been_told_is_found() {
        let (case, other) = (case(), case());
        let ceremony: CeremonyId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let whole = events(&case);
        let with = |n: usize, event: Event| {
            let mut events = whole.clone();
            events.truncate(n);
            events.push(event);
            events
        };
        let [founded, defined, sealed]: [Event; 3] = events(&other).try_into().unwrap();
        let released = Event::UnsealReleased {
            ceremony,
            ciphertext: Some(Digest::of(b"")),
            delivered: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        let genesis = case.chain.genesis();
        for (name, events, charter, genesis, want) in [
            ("as it should be", whole.clone(), 1, genesis, vec![]),
            ("not anchored in a charter", whole.clone(), 1, None, vec![]),
            (
                "another first charter than compared",
                with(0, founded),
                1,
                other.chain.genesis(),
                vec![0, 0],
            ),
            (
                "the first charter was compared otherwise",
                with(0, whole[0].clone()),
                1,
                other.chain.genesis(),
                vec![0, 0],
            ),
            (
                "a definition of another key",
                with(1, defined),
                1,
                genesis,
                vec![1],
            ),
            (
                "a manifest that is not there",
                with(2, sealed),
                1,
                genesis,
                vec![2, 2],
            ),
            (
                "a release without authorization",
                with(3, released),
                1,
                genesis,
                vec![3],
            ),
            (
                "another charter's number",
                whole.clone(),
                2,
                genesis,
                vec![0, 1, 2],
            ),
            (
                "no founding",
                vec![whole[1].clone()],
                1,
                genesis,
                vec![0, 0],
            ),
        ] {
            assert_eq!(
                findings(&case, &events, charter, genesis),
                want,
                "invariant 2: {name}"
            );
        }
    }
}
