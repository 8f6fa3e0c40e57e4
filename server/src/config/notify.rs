//! `[notify.NAME]`: whom the daemon tells, and of what.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{AbsolutePath, WebUrl, Within};
use crate::notice::{Filter, KindPattern, Severity};

/// Notifiers of one configuration at most.
pub(super) const MAX_NOTIFIERS: usize = 8;

/// Somebody to tell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Notify {
    /// A program that gets one JSON object on its standard input.
    Exec {
        /// The program; it is started directly, without a shell.
        command: AbsolutePath,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// The only variables in its environment besides `PATH` and `LANG`.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// It is killed after this time.
        #[serde(default)]
        deadline_secs: Within<1, 300, 10>,
        /// The least severity that it is told of.
        #[serde(default)]
        least: Severity,
        /// The kinds that it is told of; absent: all.
        kinds: Option<BTreeSet<KindPattern>>,
    },
    /// An HTTP server to which one JSON object is posted.
    Webhook {
        /// Where.
        url: WebUrl,
        /// The file with the key of the signature, 0600.
        key: AbsolutePath,
        /// PEM certificates of those who may vouch for the server; absent: the system's.
        roots: Option<AbsolutePath>,
        /// A call is over after this time.
        #[serde(default)]
        deadline_secs: Within<1, 300, 10>,
        /// The least severity that it is told of.
        #[serde(default)]
        least: Severity,
        /// The kinds that it is told of; absent: all.
        kinds: Option<BTreeSet<KindPattern>>,
    },
}

impl Notify {
    /// What it wants to hear.
    pub fn filter(&self) -> Filter {
        let (Self::Exec { least, kinds, .. } | Self::Webhook { least, kinds, .. }) = self;
        Filter {
            least: *least,
            kinds: kinds.clone(),
        }
    }
}
