//! What this computer has saved of the log: checkpoints and receipts that the log must continue.

use std::{convert::Infallible, path::Path};

use keyturn_audit::{
    note::{Checkpoint, SignedCheckpoint, Vkey},
    publish::Dir,
    tile::TileNodes,
    tree::Edge,
    verify::{Anchors, entries},
};
use keyturn_vault::{
    charter::Charter, event::Event, jcs::Document as _, reference::Head, replay::Level,
};

use super::super::Context;
use crate::{
    home::Home,
    refusal::Refusal,
    session::Session,
    verify::{
        VerifyError,
        directory::{Anchor, Finding},
        log,
    },
};

/// An accepted restore: the head from which the log went on, and the highest that was known to be lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restored {
    pub(super) head: Head,
    pub(super) lost: Option<Head>,
}

/// The restores that a log in a folder tells of. Whether a quorum accepted them is judged with all the rest.
pub(super) fn restores(dir: &Path, log: &Vkey) -> Vec<Restored> {
    let anchors = Anchors {
        log,
        saved: &[],
        threads: 1,
    };
    let mut restores = Vec::new();
    let read = entries(&Dir::new(dir), &anchors, |entry| {
        let event = Event::parse(&entry.kind, &entry.body);
        if let Ok(Event::RestoreAccepted { restored, lost, .. }) = event {
            let head = restored;
            restores.push(Restored { head, lost });
        }
        Ok::<(), Infallible>(())
    });
    // A log that cannot be read has no report either; that is told by its verification.
    read.map(|_| restores).unwrap_or_default()
}

/// The keys that the log had, as the charters beside it name them: a saved checkpoint may be older than its key.
pub(super) fn keys(dir: &Path, newest: &Vkey) -> Vec<Vkey> {
    let folder = Home::at(dir);
    let mut keys = vec![newest.clone()];
    for name in folder.names("objects") {
        let bytes = folder.read(&format!("objects/{name}")).ok().flatten();
        let charter = bytes.and_then(|bytes| Charter::from_bytes(&bytes).ok());
        let key = charter.and_then(|charter| log::vkey(&charter.log_key).ok());
        keys.extend(key.filter(|key| key.name() == newest.name()));
    }
    keys
}

/// A checkpoint or receipt that one of these keys signed.
pub(super) fn anchored(name: &str, text: &str, keys: &[Vkey]) -> Result<Anchor, Refusal> {
    let mut refused = None;
    for key in keys {
        match anchor(name.to_owned(), text, key) {
            Ok(anchor) => return Ok(anchor),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    Err(refused.unwrap_or_else(|| VerifyError::Vkey.into()))
}

/// A checkpoint, or the one in a receipt.
pub(super) fn anchor(name: String, text: &str, log: &Vkey) -> Result<Anchor, Refusal> {
    let signed = match text.parse::<keyturn_audit::proof::Receipt>() {
        Ok(receipt) => SignedCheckpoint::verify(receipt.note().clone(), log)
            .map_err(VerifyError::Checkpoint)?,
        Err(_) => log::checkpoint(text, log)?,
    };
    Ok(Anchor {
        name,
        checkpoint: Checkpoint::clone(signed.checkpoint()),
    })
}

/// What this home has kept: its newest checkpoint, and its receipts.
pub(super) fn home_checkpoints(
    context: &Context,
    session: &Session,
) -> Result<Vec<Anchor>, Refusal> {
    let newest = session.vkey()?;
    let mut saved = Vec::new();
    for name in context
        .home
        .names("receipts")
        .into_iter()
        .filter(|name| name.ends_with(".tlog-proof"))
    {
        let name = format!("receipts/{name}");
        if let Some(bytes) = context.home.read(&name)? {
            let text = String::from_utf8_lossy(&bytes);
            // A restore may have replaced the key since.
            let mut keys = session.vkeys();
            let kept = keys.find_map(|key| anchor(name.clone(), &text, &key).ok());
            saved.push(kept.map_or_else(|| anchor(name, &text, &newest), Ok)?);
        }
    }
    // A receipt can be a moment ahead of what is published.
    let size = session
        .head
        .as_ref()
        .map(SignedCheckpoint::size)
        .unwrap_or_default();
    saved.retain(|anchor| anchor.checkpoint.size <= size);
    Ok(saved)
}

/// What is saved from a log that a restore did not bring back: it proves that entries are lost, and the log
/// is held against the head from which the restore went on. What no restore names as lost is a finding.
pub(super) fn lost_before(
    (dir, size): (&Path, u64),
    saved: &mut [Anchor],
    restores: &[Restored],
) -> Vec<Finding> {
    let nodes = TileNodes::new(Dir::new(dir), size);
    let mut findings = Vec::new();
    for anchor in saved {
        let at = anchor.checkpoint.size;
        let mut restores = restores.iter();
        let Some(restore) = restores.find(|restore| at > restore.head.size) else {
            continue;
        };
        let here = Edge::of(&nodes, at).map(|edge| edge.root());
        if here.is_ok_and(|root| root == anchor.checkpoint.root) {
            continue;
        }
        if restore.lost.is_none_or(|lost| lost.size < at) {
            findings.push(Finding {
                n: restore.head.size,
                level: Level::Error,
                code: "lost-entries".to_owned(),
                what: format!(
                    "{} proves {at} entries, and no accepted restore says that they are lost; whatever was opened in them counts as possibly released",
                    anchor.name
                ),
            });
        }
        anchor.checkpoint.size = restore.head.size;
        anchor.checkpoint.root = restore.head.root.0;
    }
    findings
}
