//! Whether the vault goes on, or waits until a quorum accepts what was restored.
//!
//! A store that is behind a copy of its head, or beside it, was set back or forked: whatever it would
//! append now would be another history. So the daemon shows how things stand and changes nothing.
//!
//! # Invariants
//! 1. In restore mode no transaction is committed but what [`crate::owner`] lets through for
//!    `accept-restore`, and nothing is copied or signed.

use std::{fs, io, path::PathBuf};

use keyturn_audit::{note::Vkey, tile::CHECKPOINT, tree::Edge};
use keyturn_vault::{digest::Digest, id::CeremonyId, reference::Head};
use tokio::sync::watch;

use crate::{
    config::Config,
    copies::head::{self, HeadCheck, HeadCopyError},
    owner::rows,
    run::whole,
    store::Store,
};

/// What the daemon does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Serving,
    /// It shows how things stand, and takes nothing but `accept-restore`.
    Restore {
        /// Places that know more.
        lost: Vec<Lost>,
        /// The store was made by `keyturnd restore`: from where.
        restored: Option<String>,
    },
}

/// A place that knows more of the log than the store, or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which: `audit.head_copy`, or the name of a sink.
    pub place: String,
    /// What it says.
    pub check: HeadCheck,
}

impl Mode {
    /// Whether the vault goes on.
    pub const fn serves(&self) -> bool {
        matches!(self, Self::Serving)
    }

    /// Why it does not, for an operator.
    pub fn why(&self) -> Option<String> {
        let Self::Restore { lost, restored } = self else {
            return None;
        };
        let mut said: Vec<_> = restored.iter().cloned().collect();
        said.extend(lost.iter().filter_map(|lost| match lost.check {
            HeadCheck::Ahead { size, .. } => {
                Some(format!("{} has {size} entries of the log", lost.place))
            }
            HeadCheck::Fork { size, .. } => {
                Some(format!("{} has another log of {size} entries", lost.place))
            }
            HeadCheck::Absent | HeadCheck::Same | HeadCheck::Behind { .. } => None,
        }));
        let how = if restored.is_some() {
            "the store was restored"
        } else {
            "the store was set back or forked"
        };
        Some(format!("restore mode: {how}: {}", said.join("; ")))
    }

    /// The highest head that a place shows to be lost, and which place.
    pub fn lost(&self) -> Option<(Head, String)> {
        let Self::Restore { lost, .. } = self else {
            return None;
        };
        let heads = lost.iter().filter_map(|lost| {
            let (size, root) = lost.check.lost()?;
            let root = Digest(root);
            Some((Head { size, root }, lost.place.clone()))
        });
        heads.max_by_key(|(head, _)| head.size)
    }
}

/// Waits until the vault goes on; false when the daemon stops first.
pub async fn served(mode: &mut watch::Receiver<Mode>) -> bool {
    mode.wait_for(Mode::serves).await.is_ok()
}

/// What the places of a configuration say about the store at a start. A place that is away is no
/// reason to refuse a quorum: it is said, and looked at again when something is written there.
pub async fn of(
    config: &Config,
    vkey: &Vkey,
    edge: &Edge,
    store: &dyn Store,
    (vault, restored): (&rows::Vault, Option<String>),
) -> Mode {
    let mut lost: Vec<Lost> = Vec::new();
    if let Some(folder) = &config.audit.head_copy {
        let check = head::check(folder.as_ref(), vkey, edge, store);
        lost.extend(judged("audit.head_copy", check).await);
    }
    for sink in &config.copies.sinks {
        let check = head::glance(sink.path(), vkey, edge);
        lost.extend(judged(sink.name(), check).await);
    }
    // What a quorum has accepted as lost may still lie where nobody could set it aside.
    lost.retain(|lost| {
        let (size, root) = lost.check.lost().unwrap_or_default();
        let accepted = Some(Head {
            size,
            root: Digest(root),
        });
        vault.restores.iter().all(|known| known.lost != accepted)
    });
    if lost.is_empty() && restored.is_none() {
        return Mode::Serving;
    }
    let mode = Mode::Restore { lost, restored };
    if let Some(why) = mode.why() {
        tracing::error!(%why, "nothing changes until a quorum accepts it");
    }
    mode
}

/// Renames what lies in places for copies, so that the log that goes on is copied there from its
/// beginning; sealed versions and documents stay. A place that is away is left, and said.
pub(crate) fn set_aside(places: &[PathBuf], ceremony: CeremonyId) {
    for place in places {
        let aside = place.join(format!("before-{ceremony}"));
        let moved = fs::create_dir(&aside).and_then(|()| {
            for name in [CHECKPOINT, "tile"] {
                match fs::rename(place.join(name), aside.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::File::open(place)?.sync_all()
        });
        match moved {
            Ok(()) => tracing::info!(place = %place.display(), "what was lost is set aside"),
            Err(error) => {
                tracing::warn!(place = %place.display(), %error, "what was lost cannot be set aside; rename its `checkpoint` and `tile`");
            }
        }
    }
}

async fn judged(
    place: &str,
    check: impl Future<Output = Result<HeadCheck, HeadCopyError>>,
) -> Option<Lost> {
    match check.await {
        Ok(check) => check.needs_restore().then(|| Lost {
            place: place.to_owned(),
            check,
        }),
        Err(error) => {
            tracing::warn!(place, error = %whole(&error), "a copy of the head cannot be compared");
            None
        }
    }
}
