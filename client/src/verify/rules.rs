//! The log judged by the daemon's own rules: the replay, fed entry by entry.
//!
//! # Invariants
//! 1. Whatever the replay finds is told, with its level and code.
//! 2. Whatever the replay wants checked is handed on, and nothing else decides about an entry.

use keyturn_audit::{entry::Entry, publish::Dir, verify::object};
use keyturn_vault::{
    charter::Charter,
    check::Check,
    digest::Digest,
    event::Event,
    reference::CharterRef,
    replay::{Documents, Finding as Found, Level, Record, Replay},
};

use super::directory::Finding;
use crate::causes::told;

/// The documents beside the tiles.
struct Objects<'a>(&'a Dir);

impl Documents for Objects<'_> {
    fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        object(self.0, &digest.0).ok()
    }
}

/// The judge of one log.
pub(super) struct Rules<'a> {
    dir: &'a Dir,
    genesis: Option<Digest>,
    replay: Option<Replay>,
}

impl<'a> Rules<'a> {
    /// Begins with the first entry; the first charter is the pinned one, or the one that the log names.
    pub(super) fn new(dir: &'a Dir, genesis: Option<Digest>) -> Self {
        Self {
            dir,
            genesis,
            replay: None,
        }
    }

    /// Judges the next entry: what is found, and what is to be checked with keys.
    pub(super) fn entry(&mut self, entry: &Entry, event: Event) -> (Vec<Finding>, Vec<Check>) {
        if let Event::VaultFounded { charter, .. } = &event
            && self.replay.is_none()
        {
            self.replay = Some(Replay::new(self.genesis.unwrap_or(charter.digest)));
        }
        let Some(replay) = &mut self.replay else {
            let what = "the log does not begin with the founding of a vault";
            return (
                vec![Finding::error(entry.n, "not-founded-yet", what)],
                Vec::new(),
            );
        };
        let time = match entry.time.parse() {
            Ok(time) => time,
            Err(error) => {
                let what = told(&error);
                return (vec![Finding::error(entry.n, "time", &what)], Vec::new());
            }
        };
        let record = Record {
            n: entry.n,
            time,
            charter: entry.charter,
            actor: entry.actor.clone(),
            event,
        };
        let judgement = replay.step(&record, &Objects(self.dir));
        let findings = judgement.findings.into_iter().map(Finding::from).collect();
        (findings, judgement.checks)
    }

    /// The charter in force.
    pub(super) fn charter(&self) -> Option<(CharterRef, &Charter)> {
        self.replay.as_ref()?.charter()
    }

    /// What the end of the log leaves open.
    pub(super) fn finish(&self) -> Vec<Finding> {
        let open = self.replay.as_ref().map(Replay::finish).unwrap_or_default();
        open.into_iter().map(Finding::from).collect()
    }
}

impl From<Found> for Finding {
    fn from(found: Found) -> Self {
        Self {
            n: found.n,
            level: found.level,
            code: found.code.to_owned(),
            what: found.detail,
        }
    }
}

impl Finding {
    /// Something that is against the rules.
    pub(super) fn error(n: u64, code: &str, what: &str) -> Self {
        Self {
            n,
            level: Level::Error,
            code: code.to_owned(),
            what: what.to_owned(),
        }
    }
}
