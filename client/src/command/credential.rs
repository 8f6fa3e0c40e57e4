//! `keyturn credential`: what there is, and putting new secrets in.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use keyturn_audit::entry::Entry;
use keyturn_proto::v1;
use keyturn_vault::name::CredentialPath;
use serde_json::{Value, json};

use super::{Context, adopt, deposit, export, redefine, show};
use crate::{
    refusal::Refusal,
    session::Session,
    ui::{Style, clean, table},
    verify::{VerifyError, wire},
};

/// Credentials: add, deposit, change, list, show, export.
#[derive(Debug, Subcommand)]
pub enum Credential {
    /// Add a credential, with its first secret when one is given
    Add(deposit::Add),
    /// Let the connector set and seal the first secret; no human ever knows it
    Adopt(adopt::Adopt),
    /// Seal a new secret and deposit it
    Deposit(deposit::Deposit),
    /// Propose a changed definition, and ask for the agreement that it needs
    Change(redefine::Change),
    /// The credentials by path
    List(List),
    /// One credential with its versions
    Show(Show),
    /// What the log says about a credential, newest first
    History(History),
    /// Everything that an opening without the vault needs, into a folder
    Export(export::Export),
}

/// The credentials by path.
#[derive(Debug, Args)]
pub struct List {
    /// A pattern over paths: `*` within a step, `**` across steps
    #[arg(default_value = "")]
    pattern: String,
    /// Only those with problems
    #[arg(long)]
    problems: bool,
}

/// One credential with its versions.
#[derive(Debug, Args)]
pub struct Show {
    /// The credential
    path: CredentialPath,
    /// Destroyed versions too
    #[arg(long)]
    all: bool,
}

/// What the log says about a credential, newest first.
#[derive(Debug, Args)]
pub struct History {
    /// The credential
    path: CredentialPath,
    /// How many entries
    #[arg(long, default_value_t = 50)]
    count: u32,
}

impl Credential {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::Adopt(command) => command.run(context).await,
            Self::Deposit(command) => command.run(context).await,
            Self::Change(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::History(command) => command.run(context).await,
            Self::Export(command) => command.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let found = list(&session, &self.pattern, self.problems).await?;
        let document: Vec<_> = found.iter().map(document).collect();
        let rows = || {
            let row = |view: &v1::CredentialView| {
                let current = if view.current > 0 {
                    format!("v{}", view.current)
                } else {
                    "no secret yet".to_owned()
                };
                let out = if view.checked_out.is_empty() {
                    String::new()
                } else {
                    "checked out".to_owned()
                };
                vec![
                    clean(&view.path),
                    clean(&view.kind),
                    clean(&view.group),
                    current,
                    out,
                    view.problems.join(" "),
                ]
            };
            found.iter().map(row).collect::<Vec<_>>()
        };
        Ok(context.ui.result(&document, || {
            if found.is_empty() {
                "No credential is like this.".to_owned()
            } else {
                table(&rows())
            }
        })?)
    }
}

/// The credentials whose paths match, all pages.
pub(super) async fn list(
    session: &Session,
    pattern: &str,
    problems_only: bool,
) -> Result<Vec<v1::CredentialView>, Refusal> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let request = v1::ListCredentialsRequest {
            page: wire::next_page(after),
            r#match: pattern.to_owned(),
            problems_only,
        };
        let reply = session.credentials().list(request).await?.into_inner();
        found.extend(reply.credentials);
        after = reply.next_page;
        if after.is_empty() {
            return Ok(found);
        }
    }
}

/// A credential in JSON.
pub(super) fn document(view: &v1::CredentialView) -> Value {
    json!({
        "id": view.id, "path": view.path, "kind": view.kind, "group": view.group, "fallback_group": view.fallback_group,
        "policy": view.policy, "connector": view.connector, "canary": view.canary, "current": view.current,
        "live_versions": view.live_versions, "known_to_human": view.known_to_human, "checked_out": view.checked_out,
        "checkout_ends_ms": view.checkout_ends_ms, "rotation_due_ms": view.rotation_due_ms, "problems": view.problems,
        "entropy_bits": view.entropy_bits.round(),
    })
}

fn version_document(version: &v1::VersionView) -> Value {
    let names = |people: &[v1::Person]| {
        people
            .iter()
            .map(|person| person.name.clone())
            .collect::<Vec<_>>()
    };
    json!({
        "version": version.version, "state": show::version_state(version.state()), "manifest_sha256": show::hex(&version.manifest_sha256),
        "sealed_ms": version.sealed_ms, "sealed_by": version.sealed_by, "proven_ms": version.proven_ms, "copies": version.copies,
        "holders": names(&version.holders), "confirmed": names(&version.confirmed), "unreadable": names(&version.unreadable),
        "inconsistent": version.inconsistent,
    })
}

impl Show {
    async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let mut after = String::new();
        let mut versions = Vec::new();
        let (view, definition) = loop {
            let request = v1::ShowCredentialRequest {
                credential: wire::at_path(&self.path),
                page: wire::next_page(after),
                all_versions: self.all,
            };
            let reply = session.credentials().show(request).await?.into_inner();
            versions.extend(reply.versions);
            after = reply.next_page;
            if after.is_empty() {
                let document = wire::required(reply.definition, "the definition")?;
                let (definition, _) = session.definition(&self.path, &document.document).await?;
                break (
                    wire::required(reply.credential, "the credential")?,
                    definition,
                );
            }
        };
        let mut whole = document(&view);
        if let Some(fields) = whole.as_object_mut() {
            fields.insert("metadata".to_owned(), json!(definition.metadata));
            fields.insert("definition".to_owned(), json!(definition));
            fields.insert(
                "versions".to_owned(),
                versions.iter().map(version_document).collect(),
            );
        }
        Ok(context.ui.result(&whole, || {
            let mut text = format!(
                "{}  {} ({})\n",
                context.ui.paint(Style::Bold, &self.path),
                definition.kind,
                definition.credential
            );
            let fallback = definition
                .fallback
                .as_ref()
                .map(|group| format!(", else {group}"))
                .unwrap_or_default();
            let connector = definition.connector.as_ref().map_or_else(
                || "by hand".to_owned(),
                |connector| connector.name.to_string(),
            );
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "opened by {}{fallback}; policy {}; rotated {connector}",
                definition.group, definition.policy
            );
            for (name, value) in &definition.metadata {
                let _ = writeln!(text, "{name}: {value}");
            }
            let row = |version: &v1::VersionView| {
                let holders: Vec<_> = version
                    .holders
                    .iter()
                    .map(|person| clean(&person.name))
                    .collect();
                vec![
                    format!("v{}", version.version),
                    show::version_state(version.state()).to_owned(),
                    show::time(version.sealed_ms),
                    format!("by {}", clean(&version.sealed_by)),
                    holders.join(" "),
                ]
            };
            text.push_str(&table(&versions.iter().map(row).collect::<Vec<_>>()));
            if view.entropy_bits > 0.0 {
                let _ = writeln!(
                    text,
                    "Rotation makes secrets of {:.0} bits.",
                    view.entropy_bits
                );
            }
            if view.known_to_human {
                text.push_str("Known to a human until it is rotated.\n");
            }
            if !view.problems.is_empty() {
                let _ = writeln!(
                    text,
                    "{} {}",
                    context.ui.paint(Style::Warn, "problems:"),
                    clean(&view.problems.join(" "))
                );
            }
            text
        })?)
    }
}

impl History {
    async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let page = Some(v1::PageRequest {
            size: self.count,
            after: String::new(),
        });
        let request = v1::HistoryRequest {
            credential: wire::at_path(&self.path),
            page,
        };
        let reply = session.credentials().history(request).await?.into_inner();
        let mut entries = Vec::with_capacity(reply.entries.len());
        for bytes in &reply.entries {
            entries
                .push(Entry::decode(bytes).map_err(|source| VerifyError::Entry { n: 0, source })?);
        }
        let document: Vec<_> = entries.iter().map(entry_document).collect();
        Ok(context.ui.result(&document, || {
            table(&entries.iter().map(entry_row).collect::<Vec<_>>())
        })?)
    }
}

/// An entry in JSON.
pub(super) fn entry_document(entry: &Entry) -> Value {
    json!({ "n": entry.n, "time": entry.time, "charter": entry.charter, "actor": entry.actor, "type": entry.kind, "body": entry.body })
}

/// An entry in one line.
pub(super) fn entry_row(entry: &Entry) -> Vec<String> {
    vec![
        entry.n.to_string(),
        clean(&entry.time),
        clean(&entry.kind),
        clean(&entry.actor),
    ]
}
