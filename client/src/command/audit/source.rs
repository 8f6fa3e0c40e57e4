//! Where a log is that somebody wants to look at, and what it is held against.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use keyturn_audit::{
    entry::Entry,
    note::{SignedCheckpoint, Vkey},
    publish::Dir,
    verify::checkpoint,
};
use keyturn_hsm::attestation::Anchors as Makers;
use keyturn_vault::{digest::Digest, event::Event, key::VerifierKey, time::Time};
use tempfile::TempDir;

use super::{
    fetch::fetch,
    saved::{Restored, anchored, home_checkpoints, keys, lost_before, restores},
};
use crate::{
    command::{Context, file_error, read_named},
    home::Home,
    refusal::Refusal,
    ui::Ui,
    verify::{
        account::Account,
        directory::{self, Anchor, Finding, Report, Subject},
        log,
    },
};

/// The largest saved checkpoint or receipt, in bytes.
const MAX_NOTE: u64 = 512 * 1024;

/// Where a log is.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// A folder with the log; without it, the log is fetched from the vault
    #[arg(long, requires = "vkey", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The log's key, or a file with it
    #[arg(long, requires = "dir", value_name = "KEY")]
    vkey: Option<String>,
    /// The SHA-256 of the first charter, compared by voice
    #[arg(long, value_name = "DIGEST")]
    genesis: Option<Digest>,
    /// A checkpoint or receipt kept elsewhere, which the log must continue
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
}

/// A log that can be verified.
pub(super) struct Opened {
    /// The folder that has it.
    pub(super) dir: PathBuf,
    log: Vkey,
    makers: Makers,
    genesis: Option<Digest>,
    saved: Vec<Anchor>,
    /// What this computer knows to be lost.
    lost: Vec<Finding>,
    /// The folder, where it was made for this.
    own: Option<TempDir>,
}

impl Source {
    /// Fetches the log, where it is not in a folder already.
    pub(super) async fn open(&self, context: &Context) -> Result<Opened, Refusal> {
        let (mut saved, mut lost) = (Vec::new(), Vec::new());
        let (dir, vkey, genesis, own) = if let (Some(dir), Some(vkey)) = (&self.dir, &self.vkey) {
            (dir.clone(), read_vkey(vkey)?, self.genesis, None)
        } else {
            let session = context.session().await?;
            let own = tempfile::tempdir()?;
            fetch(&session, &Home::at(own.path())).await?;
            saved.extend(home_checkpoints(context, &session)?);
            let size = session.head.as_ref().map_or(0, SignedCheckpoint::size);
            let restores = session.restores().iter().map(|restore| Restored {
                head: restore.head,
                lost: restore.lost,
            });
            let restores: Vec<_> = restores.collect();
            lost = lost_before((own.path(), size), &mut saved, &restores);
            let vkey = session.charter()?.1.log_key.clone();
            let genesis = Some(session.vault.genesis);
            (own.path().to_owned(), vkey, genesis, Some(own))
        };
        let log = log::vkey(&vkey)?;
        let mut named = Vec::new();
        for path in &self.checkpoint {
            let text = String::from_utf8(read_named(path, MAX_NOTE)?)
                .map_err(|error| file_error(path, &error))?;
            let keys = keys(&dir, &log);
            named.push(anchored(&path.display().to_string(), &text, &keys)?);
        }
        if !named.is_empty() {
            let size = checkpoint(&Dir::new(&dir), &log).map_or(0, |head| head.size());
            lost.extend(lost_before((&dir, size), &mut named, &restores(&dir, &log)));
            saved.extend(named);
        }
        Ok(Opened {
            dir,
            log,
            makers: context.home.anchors()?,
            genesis,
            saved,
            lost,
            own,
        })
    }
}

impl Opened {
    /// Verifies it; `each` sees every entry. The folder lives as long as what comes back.
    pub(super) async fn verify(
        self,
        ui: Ui,
        mut each: impl FnMut(&Entry, Option<&Event>) + Send + 'static,
    ) -> Result<(Report, Option<TempDir>), Refusal> {
        let Self {
            dir,
            log,
            makers,
            genesis,
            saved,
            lost,
            own,
        } = self;
        let work = tokio::task::spawn_blocking(move || {
            let subject = Subject {
                dir: &dir,
                log: &log,
                makers: &makers,
                genesis,
                saved: &saved,
            };
            let told = |n, of| ui.progress(format_args!("verifying entry {n} of {of}"));
            let report = directory::verify(subject, &mut each, told);
            ui.progress("");
            report
        });
        let report = work.await;
        let mut report =
            report.map_err(|error| Refusal::new("internal", error, "report this"))??;
        report.findings.extend(lost);
        Ok((report, own))
    }

    /// Verifies it, and tells what happened in this time.
    pub(super) async fn account(
        self,
        ui: Ui,
        (from, to): (Option<Time>, Option<Time>),
    ) -> Result<(Report, Account, Option<TempDir>), Refusal> {
        let account = Arc::new(Mutex::new(Account::of(from, to)));
        let told = Arc::clone(&account);
        let each = move |entry: &Entry, event: Option<&Event>| {
            if let Some(event) = event {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.entry(entry, event);
            }
        };
        let (report, own) = self.verify(ui, each).await?;
        let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
        let mut account = std::mem::take(&mut *account);
        account.finish();
        Ok((report, account, own))
    }
}

/// A key as it is written, or in a file.
fn read_vkey(text: &str) -> Result<VerifierKey, Refusal> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let bytes = read_named(Path::new(text), MAX_NOTE)?;
    let key = String::from_utf8(bytes)
        .ok()
        .and_then(|key| key.trim().parse().ok());
    key.ok_or_else(|| {
        Refusal::new(
            "malformed",
            format_args!("{text} is no verifier key and no file with one"),
            "it looks like ORIGIN+HASH+KEY",
        )
    })
}
