//! The log judged by the daemon's own rules: the replay, fed entry by entry.
//!
//! Signatures, tiles and documents are the business of [`super::directory`]; here it is asked whether what
//! the daemon did was what its rules decide: quorums, waits, the life of versions, what follows an opening.
//!
//! # Invariants
//! 1. Warnings and errors of the replay are findings; what is merely worth knowing is a note.
//! 2. A text that is not signed by the key that its lines name is a finding.
//! 3. What a charter says of a token is what its maker attests, by the auditor's own roots, or a finding.

use keyturn_audit::{entry::Entry, publish::Dir, verify::object};
use keyturn_hsm::attestation::Anchors;
use keyturn_vault::{
    check::Check,
    digest::Digest,
    event::Event,
    replay::{Documents, Finding as Found, Level, Record, Replay},
};

use super::{attested, directory::Finding};

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
    anchors: &'a Anchors,
    genesis: Option<Digest>,
    replay: Option<Replay>,
}

impl<'a> Rules<'a> {
    /// Begins with the first entry; the first charter is the pinned one, or the one that the log names.
    pub(super) fn new(dir: &'a Dir, anchors: &'a Anchors, genesis: Option<Digest>) -> Self {
        Self {
            dir,
            anchors,
            genesis,
            replay: None,
        }
    }

    /// Judges the next entry.
    pub(super) fn entry(&mut self, entry: &Entry, event: &Event) -> Vec<(Level, Finding)> {
        if let Event::VaultFounded { charter, .. } = event
            && self.replay.is_none()
        {
            self.replay = Some(Replay::new(self.genesis.unwrap_or(charter.digest)));
        }
        let finding = |what: &str| {
            let what = what.to_owned();
            vec![(Level::Error, Finding { n: entry.n, what })]
        };
        let Some(replay) = &mut self.replay else {
            return finding("the log does not begin with the founding of a vault");
        };
        let Ok(time) = entry.time.parse() else {
            return finding("its time cannot be read");
        };
        let record = Record {
            n: entry.n,
            time,
            charter: entry.charter,
            actor: entry.actor.clone(),
            event: event.clone(),
        };
        let judgement = replay.step(&record, &Objects(self.dir));
        let unsigned = judgement
            .checks
            .iter()
            .filter(|check| matches!(check, Check::NoKey { .. }));
        let unsigned = unsigned
            .flat_map(|_| finding("a text of it is not signed by the key that its lines name"));
        let unproven = judgement.checks.iter().filter_map(|check| {
            let why = self.attestation(check)?;
            Some(finding(&why))
        });
        let broken = judgement.findings.iter().map(told);
        broken.chain(unsigned).chain(unproven.flatten()).collect()
    }

    /// Why a charter's attestation of a token does not hold (invariant 3).
    fn attestation(&self, check: &Check) -> Option<String> {
        let Check::Attestation { token } = check else {
            return None;
        };
        let said = token.attestation.as_ref()?;
        let Some(object) = Objects(self.dir).document(&said.object) else {
            return Some(format!(
                "the attestation {} of token {} is not there",
                said.object,
                token.reference()
            ));
        };
        let error = attested::check(self.anchors, token, &object).err()?;
        Some(crate::refusal::told(&error))
    }

    /// What the end of the log leaves open.
    pub(super) fn finish(&self) -> Vec<(Level, Finding)> {
        let open = self.replay.as_ref().map(Replay::finish).unwrap_or_default();
        open.iter().map(told).collect()
    }
}

fn told(found: &Found) -> (Level, Finding) {
    let what = format!("{}: {}", found.code, found.detail);
    (found.level, Finding { n: found.n, what })
}

#[cfg(test)]
mod tests {
    use keyturn_vault::{reference::CharterRef, time::Time};

    use super::*;

    #[test]
    fn what_breaks_a_rule_is_found() {
        let founded = Event::VaultFounded {
            charter: CharterRef {
                index: 1,
                digest: Digest::of(b"charter 1"),
            },
            joins: Vec::new(),
        };
        for (name, time, event, genesis) in [
            (
                "nothing was founded",
                Time::from_ms(0).to_string(),
                Event::Alive {},
                None,
            ),
            (
                "a charter that is not there",
                Time::from_ms(0).to_string(),
                founded.clone(),
                None,
            ),
            (
                "no time",
                "yesterday".to_owned(),
                founded,
                Some(Digest::of(b"charter 1")),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let dir = Dir::new(folder.path());
            let entry = Entry {
                n: 0,
                time,
                charter: 0,
                actor: "keyturnd".to_owned(),
                kind: event.kind().to_owned(),
                body: event.body(),
            };
            let anchors = Anchors::yubico().unwrap();
            let found = Rules::new(&dir, &anchors, genesis).entry(&entry, &event);
            let bad = found
                .iter()
                .filter(|(level, _)| *level != Level::Info)
                .count();
            assert!(bad >= 1, "{name}: {found:?}");
        }
    }
}
