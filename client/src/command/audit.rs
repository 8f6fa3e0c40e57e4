//! `keyturn audit`: the log, for those who trust nobody.

mod saved;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use keyturn_audit::{
    entry::Entry,
    note::SignedCheckpoint,
    tile::{CHECKPOINT, Content, TilePath, WIDTH},
};
use keyturn_proto::v1;
use keyturn_vault::{digest::Digest, key::VerifierKey, replay::Level, words::spoken};
use serde_json::json;

use self::saved::{anchor, home_checkpoints, lost_before};
use super::{Context, credential, file_error, read_named, release::keep_receipt};
use crate::{
    home::Home,
    refusal::Refusal,
    session::Session,
    ui::{Style, clean, table},
    verify::{
        VerifyError,
        directory::{self, Report, Subject, Texts},
        log,
    },
    wire,
};

/// The largest saved checkpoint or receipt, in bytes.
const MAX_NOTE: u64 = 512 * 1024;

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

/// Checkpoints as they come.
#[derive(Debug, Args)]
pub struct Watch {
    /// Stop after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Audit {
    pub(super) async fn run(self, context: Context) -> Result<(), Refusal> {
        match self {
            Self::Checkpoint(command) => command.run(&context).await,
            Self::Proof(command) => command.run(&context).await,
            Self::Export(command) => command.run(&context).await,
            Self::Verify(command) => command.run(&context).await,
            Self::Watch(command) => command.run(&context).await,
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
        let session = context.session().await?;
        let log = session.vkey()?;
        let mut last = session
            .head
            .clone()
            .ok_or(VerifyError::Missing("a checkpoint"))?;
        let mut request = tonic::Request::new(v1::WatchCheckpointsRequest {
            after_size: last.size(),
        });
        request.set_timeout(std::time::Duration::from_hours(24));
        let mut stream = session.log().watch(request).await?.into_inner();
        context.ui.result(&document(&last), || row(&last))?;
        let mut seen = 1_u64;
        while self.count.is_none_or(|count| seen < count)
            && let Some(reply) = stream.message().await?
        {
            let new = log::checkpoint(&reply.checkpoint, &log)?;
            log::continues(&last, &new, &wire::hashes(&reply.consistency)?)?;
            let before = context.home.checkpoint()?;
            context.home.keep_checkpoint(
                before
                    .as_deref()
                    .filter(|kept| *kept == last.note().to_string()),
                &new,
            )?;
            last = new;
            context.ui.result(&document(&last), || row(&last))?;
            seen = seen.saturating_add(1);
        }
        Ok(())
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

/// Fetches the log: a checkpoint first, then only what it covers, and the checkpoint is written last.
async fn fetch(session: &Session, folder: &Home) -> Result<u64, Refusal> {
    let head = session
        .head
        .as_ref()
        .ok_or(VerifyError::Missing("a checkpoint"))?;
    let size = head.size();
    let mut after = String::new();
    loop {
        let reply = session
            .log()
            .objects(v1::ObjectsRequest {
                page: wire::next_page(after),
            })
            .await?
            .into_inner();
        for digest in &reply.sha256 {
            let digest = wire::digest(digest, "the digest of a document")?;
            let name = format!("objects/{digest}");
            if folder.read(&name)?.is_none() {
                folder.write(&name, &session.object(digest).await?)?;
            }
        }
        after = reply.next_page;
        if after.is_empty() {
            break;
        }
    }
    for level in std::iter::once(Content::Entries)
        .chain((0..=keyturn_audit::tile::MAX_LEVEL).map(Content::Hashes))
    {
        for index in 0.. {
            let Some(path) = TilePath::new(level, index, size) else {
                break;
            };
            let known = path.width() == WIDTH && folder.read(&path.to_string())?.is_some();
            if !known {
                folder.write(&path.to_string(), &tile(session, path).await?)?;
            }
        }
    }
    folder.write(CHECKPOINT, head.note().to_string().as_bytes())?;
    folder.write(
        "vkey",
        format!("{}\n", session.charter()?.1.log_key).as_bytes(),
    )?;
    Ok(size)
}

/// Reads one tile, in pieces where it is longer than a message.
async fn tile(session: &Session, path: TilePath) -> Result<Vec<u8>, Refusal> {
    let level = match path.content() {
        Content::Entries => None,
        Content::Hashes(level) => Some(u32::from(level)),
    };
    let width = if path.width() == WIDTH {
        0
    } else {
        u32::from(path.width())
    };
    let mut data = Vec::new();
    loop {
        let offset = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let request = v1::TileRequest {
            level,
            index: path.index(),
            width,
            offset,
        };
        let reply = session.log().tile(request).await?.into_inner();
        data.extend_from_slice(&reply.data);
        let have = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if have >= reply.total || reply.data.is_empty() || data.len() > path.limit() {
            return Ok(data);
        }
    }
}

impl Verify {
    async fn run(self, context: &Context) -> Result<(), Refusal> {
        let (mut saved, mut lost) = (Vec::new(), Vec::new());
        let (dir, vkey, genesis, own) = if let (Some(dir), Some(vkey)) = (&self.dir, &self.vkey) {
            (dir.clone(), read_vkey(vkey)?, self.genesis, None)
        } else {
            let session = context.session().await?;
            let own = tempfile::tempdir()?;
            fetch(&session, &Home::at(own.path())).await?;
            saved.extend(home_checkpoints(context, &session)?);
            lost = lost_before(own.path(), &mut saved, &session);
            let vkey = session.charter()?.1.log_key.clone();
            (
                own.path().to_owned(),
                vkey,
                Some(session.vault.genesis),
                Some(own),
            )
        };
        let log = log::vkey(&vkey)?;
        for path in &self.checkpoint {
            let text = String::from_utf8(read_named(path, MAX_NOTE)?)
                .map_err(|error| file_error(path, &error))?;
            saved.push(anchor(path.display().to_string(), &text, &log)?);
        }
        let makers = context.home.anchors()?;
        let ui = context.ui;
        let report = tokio::task::spawn_blocking(move || {
            let subject = Subject {
                dir: &dir,
                log: &log,
                makers: &makers,
                genesis,
                saved: &saved,
            };
            let told = |n, of| ui.progress(format_args!("verifying entry {n} of {of}"));
            let report = directory::verify(subject, |_, _| {}, told);
            ui.progress("");
            drop(own);
            report
        });
        let mut report = report
            .await
            .map_err(|error| Refusal::new("internal", error, "report this"))??;
        report.findings.extend(lost);
        context.ui.result(&report, || text(context, &report))?;
        found(&report)
    }
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
        "checked: {} charters, {} ceremonies ({} openings), {} signatures, {} heads of the log that people signed for, {} documents, {checked} details texts ({erased} erased, {absent} not in this copy)",
        report.charters,
        report.ceremonies,
        report.openings,
        report.signatures,
        report.heads,
        report.documents,
    );
    let _ = writeln!(text, "anchored in: {}", report.anchors.join(", "));
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
    for finding in report.notes.iter().chain(&report.findings) {
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
    if report.more > 0 {
        let _ = writeln!(text, "and {} more", report.more);
    }
    let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
    if errors == 0 && warnings == 0 {
        text.push_str("Everything is as it should be.\n");
    } else {
        let _ = writeln!(text, "{errors} errors, {warnings} warnings.");
    }
    text
}
