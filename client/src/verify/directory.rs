//! A whole log in a folder, verified in one pass: tree, tiles and checkpoints by `audit`, what the entries
//! say by the replay of `vault`, and what the replay wants checked with keys beside it.
//!
//! # Invariants
//! 1. Tree, tiles and every entry's place are computed again; a log that does not lead to its checkpoint, or
//!    does not continue a saved one, has no report.
//! 2. Every signed text and document was signed by whom the charter in force at its entry names; what was
//!    not is a finding.
//! 3. One set of rules judges: the daemon's own. Nothing here decides what an entry may say.
//! 4. Memory does not grow with the entries, but for what the rules keep of each ceremony.

use std::{convert::Infallible, path::Path};

use keyturn_audit::{
    entry::Entry,
    note::{Checkpoint, SignedCheckpoint, Vkey},
    publish::Dir,
    verify::{Anchors, checkpoint, entries, objects},
};
use keyturn_hsm::attestation::Anchors as Makers;
use keyturn_vault::{digest::Digest, event::Event, replay::Level, time::Time};
use serde::{Serialize, Serializer};

use super::{
    checks::{self, Desk, Tally},
    rules::Rules,
};
use crate::causes::told;
use thiserror::Error;

/// The most findings that a report has.
const MAX_FINDINGS: usize = 10_000;
/// The most threads that perform checks, and that hash.
const MAX_THREADS: usize = 8;
/// After so many entries progress is told.
const STEP: u64 = 256;

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
    /// The time of the last entry, by the daemon's clock.
    pub until: String,
    /// Charters that took force.
    pub charters: u64,
    /// Ceremonies opened.
    pub ceremonies: u64,
    /// Unseals and drills that were authorized.
    pub openings: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// Attestations of tokens that hold.
    pub attestations: u64,
    /// Heads of the log that people signed for, and that are its own.
    pub heads: u64,
    /// Documents beside the tiles that have the digest in their name.
    pub documents: u64,
    /// Details texts.
    pub details: Texts,
    /// What the log was held against.
    pub anchors: Vec<String>,
    /// The SHA-256 of the roots by which tokens' attestations were judged.
    pub attestation_roots: Vec<Digest>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// How many findings there are beyond those in `findings`.
    pub more: u64,
    /// What is worth knowing: a rotation that is still owed, say.
    pub notes: Vec<Finding>,
}

/// What became of the details texts that signed texts name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Texts {
    /// There, and the ones that were signed for.
    pub checked: u64,
    /// Erased by a ceremony.
    pub erased: u64,
    /// Not in this copy of the log.
    pub absent: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The entry.
    pub n: u64,
    /// How bad it is.
    #[serde(serialize_with = "level")]
    pub level: Level,
    /// Stable: what kind of finding.
    pub code: String,
    /// The rest, for people.
    pub what: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn level<S: Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(*level))
}

/// A level as it is shown.
pub fn word(level: Level) -> &'static str {
    match level {
        Level::Info => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

impl Report {
    /// How many findings of a level there are.
    pub fn count(&self, level: Level) -> usize {
        let of = |finding: &&Finding| finding.level == level;
        self.findings.iter().chain(&self.notes).filter(of).count()
    }

    /// Whether anything but the log's own key speaks for it.
    pub fn is_anchored(&self) -> bool {
        self.anchors.len() > 1
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The folder with the log.
    pub dir: &'a Path,
    /// The log's key.
    pub log: &'a Vkey,
    /// Whose word about tokens is believed.
    pub makers: &'a Makers,
    /// The digest of the first charter, as it was compared by voice.
    pub genesis: Option<Digest>,
    /// Checkpoints that were accepted earlier or elsewhere.
    pub saved: &'a [Anchor],
}

/// Why a folder cannot be verified to its end.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct Broken {
    message: String,
    /// What to do.
    pub hint: &'static str,
}

impl Broken {
    fn new(error: &dyn std::error::Error, hint: &'static str) -> Self {
        let message = told(error);
        Self { message, hint }
    }
}

/// Verifies a folder with a log, and judges what it says by the daemon's own rules. `each` sees every entry
/// in its order; `progress` is told how far it is, and of how many entries.
pub fn verify(
    subject: Subject<'_>,
    mut each: impl FnMut(&Entry, Option<&Event>),
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, Broken> {
    let Subject {
        dir,
        log,
        makers,
        saved,
        genesis,
    } = subject;
    let dir = Dir::new(dir);
    let head = checkpoint(&dir, log).map_err(|error| damaged(&error))?;
    let threads = std::thread::available_parallelism()
        .map_or(2, std::num::NonZero::get)
        .min(MAX_THREADS);
    let kept: Vec<_> = saved
        .iter()
        .map(|anchor| anchor.checkpoint.clone())
        .collect();
    let anchors = Anchors {
        log,
        saved: &kept,
        threads,
    };
    let mut fold = Fold {
        rules: Rules::new(&dir, genesis),
        counts: Counts::default(),
        findings: Vec::new(),
        notes: Vec::new(),
        more: 0,
    };
    let (verified, tally) = checks::beside(&dir, makers, head.size(), threads, |desk| {
        entries(&dir, &anchors, |entry| {
            fold.entry(&entry, desk, &mut each);
            if entry.n.is_multiple_of(STEP) {
                progress(entry.n, head.size());
            }
            Ok::<(), Infallible>(())
        })
    });
    let verified = verified.map_err(|error| damaged(&error))?;
    let documents = objects(&dir)
        .map_err(|error| Broken::new(&error, "a document is damaged; export the log again"))?;
    fold.finish(log);
    fold.take(&tally);
    let anchors = anchored(&verified.checkpoint, subject, &fold);
    let mut report = fold.report(&verified.checkpoint, documents, &tally, anchors);
    report.attestation_roots = makers.roots().map(Digest).collect();
    Ok(report)
}

fn damaged(error: &dyn std::error::Error) -> Broken {
    let hint = "the folder is not this log, or the log was changed; keep it as evidence";
    Broken::new(error, hint)
}

/// What the log was held against.
fn anchored(head: &SignedCheckpoint, subject: Subject<'_>, fold: &Fold<'_>) -> Vec<String> {
    let mut anchors = vec!["its own signature".to_owned()];
    anchors.extend(
        subject
            .genesis
            .map(|_| "the first charter's digest".to_owned()),
    );
    anchors.extend(subject.saved.iter().map(|anchor| anchor.name.clone()));
    let witnesses = fold
        .rules
        .charter()
        .map(|(_, charter)| charter.witnesses.as_slice())
        .unwrap_or_default();
    for witness in witnesses {
        let key: Option<Vkey> = witness.as_str().parse().ok();
        let signed = key.and_then(|key| Some((head.cosignature(&key).ok()??, key)));
        if let Some((cosignature, key)) = signed {
            let time = Time::from_ms(cosignature.time_secs.saturating_mul(1000));
            anchors.push(format!("the witness {} at {time}", key.name()));
        }
    }
    anchors
}

#[derive(Clone, Debug, Default)]
struct Counts {
    charters: u64,
    ceremonies: u64,
    openings: u64,
    erased: u64,
    until: String,
}

struct Fold<'a> {
    rules: Rules<'a>,
    counts: Counts,
    findings: Vec<Finding>,
    notes: Vec<Finding>,
    more: u64,
}

impl Fold<'_> {
    fn entry(&mut self, entry: &Entry, desk: &Desk, each: &mut impl FnMut(&Entry, Option<&Event>)) {
        self.counts.until.clone_from(&entry.time);
        match Event::parse(&entry.kind, &entry.body) {
            Ok(event) => {
                each(entry, Some(&event));
                self.count(&event);
                let (findings, checks) = self.rules.entry(entry, event);
                for finding in findings {
                    self.find(finding);
                }
                desk.hand_in(entry.n, checks);
            }
            Err(error) => {
                each(entry, None);
                self.find(Finding::error(entry.n, "kind", &told(&error)));
            }
        }
    }

    fn count(&mut self, event: &Event) {
        let counts = &mut self.counts;
        let one = |count: &mut u64| *count = count.saturating_add(1);
        if let Event::VaultFounded { .. } | Event::CharterInForce { .. } = event {
            one(&mut counts.charters);
        } else if let Event::CeremonyOpened { .. } = event {
            one(&mut counts.ceremonies);
        } else if let Event::UnsealAuthorized { .. } = event {
            one(&mut counts.openings);
        } else if let Event::DetailsErased { .. } = event {
            one(&mut counts.erased);
        }
    }

    fn find(&mut self, finding: Finding) {
        let list = match finding.level {
            Level::Info => &mut self.notes,
            Level::Warning | Level::Error => &mut self.findings,
        };
        if list.len() < MAX_FINDINGS {
            list.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// What the end of the log leaves open, and whether the charter in force names the key of this log.
    fn finish(&mut self, log: &Vkey) {
        for finding in self.rules.finish() {
            self.find(finding);
        }
        let (n, named) = self.rules.charter().map_or((0, None), |(_, charter)| {
            (0, Some(charter.log_key.to_string()))
        });
        if named.as_deref() != Some(&*log.to_string()) {
            self.find(Finding::error(
                n,
                "log-key",
                "the charter in force names another log key",
            ));
        }
    }

    fn take(&mut self, tally: &Tally) {
        for finding in &tally.findings {
            self.find(finding.clone());
        }
        self.more = self.more.saturating_add(tally.more);
        self.findings.sort_by_key(|finding| finding.n);
    }

    fn report(
        self,
        head: &SignedCheckpoint,
        documents: u64,
        tally: &Tally,
        anchors: Vec<String>,
    ) -> Report {
        let Counts {
            charters,
            ceremonies,
            openings,
            erased,
            until,
        } = self.counts;
        Report {
            origin: head.checkpoint().origin.clone(),
            size: head.size(),
            root: Digest(*head.root()),
            until,
            charters,
            ceremonies,
            openings,
            signatures: tally.signatures,
            attestations: tally.attestations,
            heads: tally.heads,
            documents,
            details: Texts {
                checked: tally.details,
                erased,
                absent: tally.absent.saturating_sub(erased),
            },
            anchors,
            attestation_roots: Vec::new(),
            findings: self.findings,
            more: self.more,
            notes: self.notes,
        }
    }
}
