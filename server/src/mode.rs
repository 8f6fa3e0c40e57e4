//! Whether the vault goes on, or waits until a quorum accepts what was restored.
//!
//! A store that is behind a copy of its head, or beside it, was set back or forked: whatever it would
//! append now would be another history. So the daemon shows how things stand and changes nothing.
//!
//! # Invariants
//! 1. In restore mode no transaction is committed but what [`crate::owner`] lets through for
//!    `accept-restore`, and nothing is copied or signed.

use keyturn_audit::tree::Edge;
use keyturn_vault::{digest::Digest, reference::Head};
use tokio::sync::watch;

use crate::{
    config::Config,
    copies::{
        LogKeys,
        head::{self, HeadCheck, HeadCopyError},
        history,
        sink::Directory,
    },
    rows,
    store::Store,
    telemetry::whole,
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

    /// The heads that places show to be lost, each with its place.
    pub fn shown(&self) -> Vec<(Head, String)> {
        let Self::Restore { lost, .. } = self else {
            return Vec::new();
        };
        let head = |lost: &Lost| Some((lost.head()?, lost.place.clone()));
        lost.iter().filter_map(head).collect()
    }

    /// The highest of them.
    pub fn lost(&self) -> Option<(Head, String)> {
        let shown = self.shown().into_iter();
        shown.max_by_key(|(head, _)| head.size)
    }
}

impl Lost {
    /// The head that the store does not lead to.
    fn head(&self) -> Option<Head> {
        let (size, root) = self.check.lost()?;
        let root = Digest(root);
        Some(Head { size, root })
    }
}

/// Waits until the vault goes on; false when the daemon stops first.
pub async fn served(mode: &mut watch::Receiver<Mode>) -> bool {
    mode.wait_for(Mode::serves).await.is_ok()
}

/// What the places of a configuration say about the store at a start. A place that is away is no
/// reason to refuse a quorum: it is said, and looked at again when something is written there. What a
/// quorum gave up before may still lie in one.
pub async fn of(
    config: &Config,
    keys: &LogKeys,
    edge: &Edge,
    store: &dyn Store,
    (vault, restored): (&rows::Vault, Option<String>),
) -> Mode {
    let mut lost: Vec<Lost> = Vec::new();
    if let Some(folder) = &config.audit.head_copy {
        let check = head::check(folder.as_ref(), keys, edge, store);
        lost.extend(judged("audit.head_copy", check).await);
    }
    for sink in &config.copies.sinks {
        let check = head::glance(sink.path(), keys, edge);
        let Some(found) = judged(sink.name(), check).await else {
            continue;
        };
        let place = Directory::new(sink.name(), sink.path(), keys.clone());
        let size = found.head().map_or(0, |head| head.size);
        let given_up = history::given_up(&place, store, size).await;
        if !matches!(given_up, Ok(Some(_))) {
            lost.push(found);
        }
    }
    let given_up = |head| vault.restores.iter().any(|restore| restore.gave_up(head));
    lost.retain(|lost| !lost.head().is_some_and(given_up));
    if lost.is_empty() && restored.is_none() {
        return Mode::Serving;
    }
    let mode = Mode::Restore { lost, restored };
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
