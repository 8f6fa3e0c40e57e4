//! `keyturn audit`: the log, for those who trust nobody.

mod fetch;
mod reconcile;
mod report;
mod saved;
mod source;

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use keyturn_audit::{entry::Entry, note::SignedCheckpoint};
use keyturn_proto::v1;
use keyturn_vault::{replay::Level, words::spoken};
use serde_json::json;
use tonic::Streaming;

use self::{fetch::fetch, source::Source};
use super::{Context, credential, follow, release::keep_receipt};
use crate::{
    home::Home,
    refusal::Refusal,
    session::Session,
    ui::{Style, clean, several, table},
    verify::{
        VerifyError,
        directory::{self, Report, Texts},
        log, wire,
    },
};

/// The log: verify, watch, prove, export.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest checkpoint, verified
    Checkpoint(Newest),
    /// An entry with its proof, kept among the receipts
    Proof(Proof),
    /// The whole log into a folder
    Export(Export),
    /// Compute the whole log again, with all its signatures
    Verify(Verify),
    /// Checkpoints as they come
    Watch(Watch),
    /// Who opened what, when, why, with whose agreement, and what came of it
    Report(report::Report),
    /// Hold a target's record of its uses against the check-outs in the log
    Reconcile(reconcile::Reconcile),
}

/// The newest checkpoint, verified.
#[derive(Debug, Args)]
pub struct Newest {}

/// An entry with its proof, kept among the receipts.
#[derive(Debug, Args)]
pub struct Proof {
    /// The entry's number
    n: u64,
}

/// The whole log into a folder.
#[derive(Debug, Args)]
pub struct Export {
    /// The folder; an earlier export in it is continued
    dir: PathBuf,
}

/// Compute the whole log again, with all its signatures.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    source: Source,
}

/// Checkpoints as they come.
#[derive(Debug, Args)]
pub struct Watch {
    /// Stop after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Audit {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        match self {
            Self::Checkpoint(command) => command.run(&context).await,
            Self::Proof(command) => command.run(&context).await,
            Self::Export(command) => command.run(&context).await,
            Self::Verify(command) => command.run(&context).await,
            Self::Watch(command) => command.run(&context).await,
            Self::Report(command) => command.run(&context).await,
            Self::Reconcile(command) => command.run(&context).await,
        }
    }
}

fn document(checkpoint: &SignedCheckpoint) -> serde_json::Value {
    let head = log::head(checkpoint);
    json!({ "origin": checkpoint.checkpoint().origin, "size": head.size, "root": head.root, "words": spoken(&head.root), "note": checkpoint.note().to_string() })
}

impl Newest {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let head = session
            .head
            .as_ref()
            .ok_or(VerifyError::Missing("a checkpoint"))?;
        Ok(context
            .ui
            .result(&document(head), || head.note().to_string())?)
    }
}

impl Proof {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let reply = session
            .log()
            .proof(v1::ProofRequest { n: self.n })
            .await?
            .into_inner();
        let proven = log::receipt(reply.receipt, &session.vkey()?)?;
        session.covers(&proven).await?;
        let path = keep_receipt(&context.home, &format!("entry-{}", self.n), &proven)?;
        let entry = Entry::decode(&proven.bytes)
            .map_err(|source| VerifyError::Entry { n: self.n, source })?;
        let document = json!({ "entry": credential::entry_document(&entry), "proof": proven.receipt, "file": path });
        Ok(context.ui.result(&document, || {
            format!(
                "{}proven; kept in {}",
                table(&[credential::entry_row(&entry)]),
                path.display()
            )
        })?)
    }
}

impl Watch {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let mut session = context.session().await?;
        let mut last = session
            .head
            .clone()
            .ok_or(VerifyError::Missing("a checkpoint"))?;
        context.ui.result(&document(&last), || row(&last))?;
        let (mut seen, mut pause) = (1_u64, follow::FIRST_PAUSE);
        loop {
            let failed = match watched(&session, last.size()).await {
                Ok(mut stream) => loop {
                    if self.count.is_some_and(|count| seen >= count) {
                        return Ok(());
                    }
                    match stream.message().await {
                        Ok(Some(reply)) => last = came(context, &session, &last, &reply)?,
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                    (seen, pause) = (seen.saturating_add(1), follow::FIRST_PAUSE);
                },
                Err(status) => Some(status),
            };
            if let Some(status) = failed.filter(|status| !follow::passing(status.code())) {
                return Err(status.into());
            }
            context.ui.note("the connection is lost; trying again");
            session = again(context, &mut pause).await?;
        }
    }
}

/// Checkpoints after this size, as they come.
async fn watched(
    session: &Session,
    after_size: u64,
) -> Result<Streaming<v1::WatchCheckpointsReply>, tonic::Status> {
    let mut request = tonic::Request::new(v1::WatchCheckpointsRequest { after_size });
    request.set_timeout(std::time::Duration::from_hours(24));
    Ok(session.log().watch(request).await?.into_inner())
}

/// A checkpoint that came: it continues the last one, is kept and shown.
fn came(
    context: &Context,
    session: &Session,
    last: &SignedCheckpoint,
    reply: &v1::WatchCheckpointsReply,
) -> Result<SignedCheckpoint, Refusal> {
    let new = log::checkpoint(&reply.checkpoint, &session.vkey()?)?;
    log::continues(last, &new, &wire::hashes(&reply.consistency)?)?;
    let before = context.home.checkpoint()?;
    let kept = before.as_deref();
    let kept = kept.filter(|kept| *kept == last.note().to_string());
    context.home.keep_checkpoint(kept, &new)?;
    context.ui.result(&document(&new), || row(&new))?;
    Ok(new)
}

/// The daemon again, when it is back. What it has must continue all that was shown: one whose log was set back
/// would only be silent for a while.
async fn again(context: &Context, pause: &mut std::time::Duration) -> Result<Session, Refusal> {
    loop {
        tokio::time::sleep(*pause).await;
        *pause = pause.saturating_mul(2).min(follow::LONGEST_PAUSE);
        match context.session().await {
            Err(away)
                if ["unreachable", "deadline", "not-serving"].contains(&away.code.as_str()) => {}
            session => return session,
        }
    }
}

fn row(checkpoint: &SignedCheckpoint) -> String {
    let head = log::head(checkpoint);
    format!("{} entries  {}", head.size, spoken(&head.root))
}

impl Export {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let size = fetch(&session, &Home::at(&self.dir)).await?;
        let document = json!({ "dir": self.dir, "size": size });
        Ok(context.ui.result(&document, || {
            format!(
                "{size} entries are in {}; verify them with `keyturn audit verify --dir`.",
                self.dir.display()
            )
        })?)
    }
}

impl Verify {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let opened = self.source.open(context).await?;
        let (report, _own) = opened.verify(context.ui, |_, _| {}).await?;
        context.ui.result(&report, || text(context, &report))?;
        found(&report)
    }
}

/// So many findings are read by people; one cause can have thousands.
const MOST_SHOWN: usize = 40;

/// What a log was held against, in a line: of many receipts only their number.
fn in_few(anchors: &[String]) -> String {
    let (receipts, mut told): (Vec<_>, Vec<_>) = anchors
        .iter()
        .cloned()
        .partition(|name| name.ends_with(".tlog-proof"));
    if receipts.len() > 3 {
        told.push(format!("{} receipts", receipts.len()));
    } else {
        told.extend(receipts);
    }
    told.join(", ")
}

/// Fails where there are findings.
fn found(report: &Report) -> Result<(), Refusal> {
    let found = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    let found = found.saturating_add(report.more);
    if found == 0 {
        return Ok(());
    }
    Err(Refusal::new(
        "findings",
        format_args!("the log has {found} findings"),
        "ask the vault's operators about each of them, on another way",
    ))
}

fn text(context: &Context, report: &Report) -> String {
    let mut text = format!(
        "{}: {} entries until {}\nroot       {}\nsix words  {}\n",
        clean(&report.origin),
        report.size,
        clean(&report.until),
        report.root,
        spoken(&report.root)
    );
    let Texts {
        checked,
        erased,
        absent,
    } = report.details;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "checked: {}, {} ({}), {}, {} of the log that people signed for, {}, {} ({erased} erased, {absent} not in this copy)",
        several(report.charters, "charter", "charters"),
        several(report.ceremonies, "ceremony", "ceremonies"),
        several(report.openings, "opening", "openings"),
        several(report.signatures, "signature", "signatures"),
        several(report.heads, "head", "heads"),
        several(report.documents, "document", "documents"),
        several(checked, "details text", "details texts"),
    );
    let _ = writeln!(text, "anchored in: {}", in_few(&report.anchors));
    let roots: Vec<_> = report.attestation_roots.iter().map(|root| root.0).collect();
    if roots == keyturn_hsm::attestation::YUBICO_ROOTS {
        text.push_str("tokens attested under: Yubico's roots\n");
    } else {
        let roots: Vec<_> = report
            .attestation_roots
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(text, "tokens attested under: {}", roots.join(", "));
    }
    if !report.is_anchored() {
        let warning = context.ui.paint(Style::Warn, "warning:");
        let _ = writeln!(
            text,
            "{warning} nothing but its own key speaks for this log; whoever has that key could have written all of it"
        );
    }
    let all = report.findings.iter().chain(&report.notes);
    for finding in all.clone().take(MOST_SHOWN) {
        let style = match finding.level {
            Level::Info => Style::Dim,
            Level::Warning => Style::Warn,
            Level::Error => Style::Bad,
        };
        let level = format!("{}:", directory::word(finding.level));
        let _ = writeln!(
            text,
            "{} entry {}: {}: {}",
            context.ui.paint(style, level),
            finding.n,
            clean(&finding.code),
            clean(&finding.what)
        );
    }
    let rest = all.skip(MOST_SHOWN).count();
    let rest = report
        .more
        .saturating_add(u64::try_from(rest).unwrap_or(u64::MAX));
    if rest > 0 {
        let _ = writeln!(text, "and {rest} more, of which --json tells most");
    }
    let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
    if errors == 0 && warnings == 0 {
        text.push_str("Everything is as it should be.\n");
    } else {
        let _ = writeln!(text, "{errors} errors, {warnings} warnings.");
    }
    text
}
