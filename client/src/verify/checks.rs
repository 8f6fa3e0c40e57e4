//! What a replay asks to be checked with keys, performed beside it on a few threads.
//!
//! # Invariants
//! 1. Every check that is handed in is performed, or the verification fails as a whole.
//! 2. What waits is bounded: a replay that is faster than the threads waits for them.
//! 3. The outcome does not depend on which thread did what.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use keyturn_audit::{
    publish::Dir,
    tile::{TileNodes, Tiles as _},
    tree::root,
    verify::object,
};
use keyturn_hsm::attestation::Anchors as Makers;
use keyturn_vault::{charter::Token, check::Check, digest::Digest, reference::Head, replay::Level};

use super::{attested, directory::Finding, verify as check_signature};
use crate::causes::told;

/// Entries whose checks may wait.
const AHEAD: usize = 256;
/// Roots that a thread remembers: texts that are made together name the same head.
const ROOTS: usize = 256;
/// The longest details text, as signed texts allow it.
const MAX_DETAILS: usize = 4 * 1024;
/// The most findings that a thread keeps.
const MAX_FINDINGS: usize = 10_000;

/// What was checked, and what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Signatures that hold.
    pub(super) signatures: u64,
    /// Heads of the log, named in signed texts, that are its own.
    pub(super) heads: u64,
    /// Attestations of tokens that hold.
    pub(super) attestations: u64,
    /// Details texts that are there and are the ones named.
    pub(super) details: u64,
    /// Details texts that are not there.
    pub(super) absent: u64,
    /// What is not as it should be.
    pub(super) findings: Vec<Finding>,
    /// How many more there were.
    pub(super) more: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        let add = u64::saturating_add;
        self.signatures = add(self.signatures, other.signatures);
        self.heads = add(self.heads, other.heads);
        self.attestations = add(self.attestations, other.attestations);
        self.details = add(self.details, other.details);
        self.absent = add(self.absent, other.absent);
        self.findings.extend(other.findings);
        self.more = add(self.more, other.more);
    }
}

/// The checks of one entry.
type Job = (u64, Vec<Check>);

/// Where checks are handed in.
pub(super) struct Desk(SyncSender<Job>);

impl Desk {
    /// Hands in the checks of an entry; waits while too many do (invariant 2).
    pub(super) fn hand_in(&self, n: u64, checks: Vec<Check>) {
        if !checks.is_empty() {
            // The threads end only after this sender does.
            let _ = self.0.send((n, checks));
        }
    }
}

/// Runs `act`, which hands checks in, beside the threads that perform them.
pub(super) fn beside<T>(
    dir: &Dir,
    makers: &Makers,
    size: u64,
    threads: usize,
    act: impl FnOnce(&Desk) -> T,
) -> (T, Tally) {
    let (sender, receiver) = sync_channel::<Job>(AHEAD);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| Worker::new(dir, makers, size).run(&receiver)))
            .collect();
        let desk = Desk(sender);
        let done = act(&desk);
        drop(desk);
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => tally.add(part),
                // Invariant 1.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        // Invariant 3.
        tally
            .findings
            .sort_by(|one, other| (one.n, &one.what).cmp(&(other.n, &other.what)));
        (done, tally)
    })
}

struct Worker<'a> {
    dir: &'a Dir,
    makers: &'a Makers,
    size: u64,
    roots: BTreeMap<u64, Digest>,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(dir: &'a Dir, makers: &'a Makers, size: u64) -> Self {
        Self {
            dir,
            makers,
            size,
            roots: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    fn run(mut self, jobs: &Mutex<Receiver<Job>>) -> Tally {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((n, checks)) = job else {
                return self.tally;
            };
            for check in checks {
                if let Err((code, what)) = self.perform(n, check) {
                    self.find(n, code, what);
                }
            }
        }
    }

    fn find(&mut self, n: u64, code: &'static str, what: String) {
        if self.tally.findings.len() < MAX_FINDINGS {
            self.tally.findings.push(Finding {
                n,
                level: Level::Error,
                code: code.to_owned(),
                what,
            });
        } else {
            self.tally.more = self.tally.more.saturating_add(1);
        }
    }

    fn perform(&mut self, n: u64, check: Check) -> Result<(), (&'static str, String)> {
        match check {
            Check::Text { key, signed } => {
                check_signature(&key, signed.text.as_bytes(), &signed.signature, "a text")
                    .map_err(|error| ("signature", told(&error)))?;
                self.tally.signatures = self.tally.signatures.saturating_add(1);
                Ok(())
            }
            Check::Document {
                key,
                document,
                signature,
            } => {
                let bytes = object(self.dir, &document.0)
                    .map_err(|error| ("document-missing", told(&error)))?;
                check_signature(&key, &bytes, &signature, "a document")
                    .map_err(|error| ("signature", told(&error)))?;
                self.tally.signatures = self.tally.signatures.saturating_add(1);
                Ok(())
            }
            Check::Head(head) => self.head(n, head),
            Check::Details(digest) => self.details(digest),
            Check::NoKey { signer } => {
                let what = format!(
                    "a text of it is signed by nobody whom the charter in force knows ({signer:?})"
                );
                Err(("signer", what))
            }
            Check::Attestation { token } => self.attestation(&token),
            // Shares are compared as they come, and nothing of them is in the log.
            Check::Commitment { .. } => Ok(()),
        }
    }

    /// What a charter says of a token is what its maker attests, by the auditor's own roots.
    fn attestation(&mut self, token: &Token) -> Result<(), (&'static str, String)> {
        let Some(said) = &token.attestation else {
            return Ok(());
        };
        let bytes = object(self.dir, &said.object.0).map_err(|error| {
            let what = format!(
                "the attestation {} of token {}: {}",
                said.object,
                token.reference(),
                told(&error)
            );
            ("document-missing", what)
        })?;
        attested::check(self.makers, token, &bytes)
            .map_err(|error| ("attestation", told(&error)))?;
        self.tally.attestations = self.tally.attestations.saturating_add(1);
        Ok(())
    }

    /// Somebody signed that they saw the log so.
    fn head(&mut self, n: u64, head: Head) -> Result<(), (&'static str, String)> {
        if head.size > n {
            let what = format!(
                "somebody signed that they saw {} entries of the log, before it had them",
                head.size
            );
            return Err(("head", what));
        }
        let known = if let Some(known) = self.roots.get(&head.size) {
            *known
        } else {
            let nodes = TileNodes::new(self.dir, self.size);
            let found = root(&nodes, head.size).map_err(|error| ("head", told(&error)))?;
            if self.roots.len() >= ROOTS {
                self.roots.pop_first();
            }
            self.roots.insert(head.size, Digest(found));
            Digest(found)
        };
        if known != head.root {
            let what = format!(
                "somebody signed that they saw another log of {} entries",
                head.size
            );
            return Err(("head", what));
        }
        self.tally.heads = self.tally.heads.saturating_add(1);
        Ok(())
    }

    /// A details text, where it is still kept.
    fn details(&mut self, digest: Digest) -> Result<(), (&'static str, String)> {
        match self.dir.read(&details_name(digest), MAX_DETAILS) {
            Ok(text) if Digest::of(&text) == digest => {
                self.tally.details = self.tally.details.saturating_add(1);
                Ok(())
            }
            Ok(_) => Err((
                "details",
                "its details text is not the one that was signed for".to_owned(),
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.tally.absent = self.tally.absent.saturating_add(1);
                Ok(())
            }
            Err(error) => Err(("details", told(&error))),
        }
    }
}

/// Where a copy of the log keeps a details text.
pub fn details_name(digest: Digest) -> String {
    format!("details/{digest}.txt")
}
