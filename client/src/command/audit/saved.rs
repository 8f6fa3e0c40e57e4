//! What this computer has saved of the log: checkpoints and receipts that the log must continue.

use std::path::Path;

use keyturn_audit::{
    note::{Checkpoint, SignedCheckpoint},
    publish::Dir,
    tile::TileNodes,
    tree::Edge,
};
use keyturn_vault::replay::Level;

use super::super::Context;
use crate::{
    refusal::Refusal,
    session::Session,
    verify::{
        VerifyError,
        directory::{Anchor, Finding},
        log,
    },
};

/// A checkpoint, or the one in a receipt.
pub(super) fn anchor(
    name: String,
    text: &str,
    log: &keyturn_audit::note::Vkey,
) -> Result<Anchor, Refusal> {
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
pub(super) fn lost_before(dir: &Path, saved: &mut [Anchor], session: &Session) -> Vec<Finding> {
    let size = session.head.as_ref().map_or(0, SignedCheckpoint::size);
    let nodes = TileNodes::new(Dir::new(dir), size);
    let mut findings = Vec::new();
    for anchor in saved {
        let at = anchor.checkpoint.size;
        let mut restores = session.restores().iter();
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
