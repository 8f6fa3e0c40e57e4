//! Whether the vault goes on, or waits until a quorum accepts what was restored.
//!
//! A store that is behind a copy of its head, or beside it, was set back or forked: whatever it would
//! append now would be another history. So the daemon shows how things stand and changes nothing.
//!
//! # Invariants
//! 1. In restore mode no transaction is committed but what [`crate::owner`] lets through for
//!    `accept-restore`, and nothing is copied or signed.

use keyturn_audit::{note::Vkey, tree::Edge};
use tokio::sync::watch;

use crate::{
    config::Config,
    copies::head::{self, HeadCheck, HeadCopyError},
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
    Restore(Vec<Lost>),
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
        let Self::Restore(lost) = self else {
            return None;
        };
        let said = lost.iter().filter_map(|lost| match lost.check {
            HeadCheck::Ahead { size, .. } => {
                Some(format!("{} has {size} entries of the log", lost.place))
            }
            HeadCheck::Fork { size, .. } => {
                Some(format!("{} has another log of {size} entries", lost.place))
            }
            HeadCheck::Absent | HeadCheck::Same | HeadCheck::Behind { .. } => None,
        });
        let said: Vec<_> = said.collect();
        Some(format!(
            "restore mode: the store was set back or forked: {}",
            said.join("; ")
        ))
    }
}

/// Waits until the vault goes on; false when the daemon stops first.
pub async fn served(mode: &mut watch::Receiver<Mode>) -> bool {
    mode.wait_for(Mode::serves).await.is_ok()
}

/// What the places of a configuration say about the store at a start. A place that is away is no
/// reason to refuse a quorum: it is said, and looked at again when something is written there.
pub async fn of(config: &Config, vkey: &Vkey, edge: &Edge, store: &dyn Store) -> Mode {
    let mut lost = Vec::new();
    if let Some(folder) = &config.audit.head_copy {
        let check = head::check(folder.as_ref(), vkey, edge, store);
        lost.extend(judged("audit.head_copy", check).await);
    }
    for sink in &config.copies.sinks {
        let check = head::glance(sink.path(), vkey, edge);
        lost.extend(judged(sink.name(), check).await);
    }
    if lost.is_empty() {
        return Mode::Serving;
    }
    let mode = Mode::Restore(lost);
    if let Some(why) = mode.why() {
        tracing::error!(%why, "nothing changes until a quorum accepts it");
    }
    mode
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
