//! `keyturn charter`: who may do what, and changing it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Charter as Document, MAX_CHARTER_BYTES},
    digest::Digest,
    jcs::Document as _,
    reference::CharterRef,
    refusal::Refusal as Rule,
    text::{Change, Purpose},
    words::spoken,
};
use serde_json::json;

use super::{Context, case::charter_lines, decide::Decide, file_error, invite::Invite, read_named};
use crate::{
    causes::told,
    refusal::Refusal,
    session::Session,
    ui::{clean, table},
    verify::{VerifyError, wire},
};

/// Who may do what: show it, see what a change would do, propose one.
#[derive(Debug, Subcommand)]
pub enum Charter {
    /// The charter in force
    Show(Show),
    /// What a changed charter would change, and who would have to agree
    Diff(Diff),
    /// Propose a changed charter, and ask for the agreement that it needs
    Propose(Propose),
    /// Make a welcome file for somebody who is to join
    Invite(Invite),
}

/// The charter in force.
#[derive(Debug, Args)]
pub struct Show {
    /// An earlier one
    #[arg(long, value_name = "N")]
    index: Option<u64>,
}

/// What a changed charter would change, and who would have to agree.
#[derive(Debug, Args)]
pub struct Diff {
    /// The changed charter, JSON; `keyturn charter show --json` gives the one in force
    file: PathBuf,
}

/// Propose a changed charter, and ask for the agreement that it needs.
#[derive(Debug, Args)]
pub struct Propose {
    /// The changed charter, JSON
    file: PathBuf,
    #[command(flatten)]
    decide: Decide,
}

impl Charter {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        match self {
            Self::Show(command) => command.run(&context, &session),
            Self::Diff(command) => command.run(&context, &session),
            Self::Propose(command) => command.run(&mut context, &session).await,
            Self::Invite(command) => command.run(&context, &session).await,
        }
    }
}

impl Show {
    fn run(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let found = match self.index {
            Some(index) => session.chain.at(index),
            None => session.chain.newest(),
        };
        let unknown = || {
            Refusal::new(
                "not-found",
                "there is no such charter",
                "see `keyturn charter show`",
            )
        };
        let (reference, charter) = found.ok_or_else(unknown)?;
        Ok(context.ui.result(charter, || text(reference, charter))?)
    }
}

fn text(reference: CharterRef, charter: &Document) -> String {
    let mut rows = Vec::new();
    for person in &charter.persons {
        let roles: Vec<_> = person
            .roles
            .iter()
            .map(|role| format!("{role:?}").to_lowercase())
            .collect();
        let tokens: Vec<_> = person
            .tokens
            .iter()
            .map(|token| match &token.attestation {
                Some(facts) => format!("{} ({facts})", token.reference()),
                None => token.reference().to_string(),
            })
            .collect();
        rows.push(vec![
            person.name.to_string(),
            person.id.to_string(),
            roles.join(" "),
            tokens.join(", "),
        ]);
    }
    let mut groups = Vec::new();
    for group in &charter.groups {
        let names: Vec<_> = charter
            .holders(&group.name)
            .iter()
            .map(|person| person.name.to_string())
            .collect();
        let governing = if group.governing { "governing" } else { "" };
        groups.push(vec![
            group.name.to_string(),
            format!("{} of {}", group.k, group.n()),
            names.join(" "),
            governing.to_owned(),
        ]);
    }
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(" ")
        }
    };
    let warnings: Vec<String> = charter
        .warnings()
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    let warnings = warnings.concat();
    format!(
        "{} charter {}\nSHA-256    {}\nsix words  {}\n\n{}\n{}\npolicies   {}\nscenarios  {}\nlog key    {}\n{warnings}",
        charter.origin,
        reference.index,
        reference.digest,
        spoken(&reference.digest),
        table(&rows),
        table(&groups),
        list(
            charter
                .policies
                .iter()
                .map(|policy| policy.name.to_string())
                .collect()
        ),
        list(
            charter
                .scenarios
                .iter()
                .map(|scenario| scenario.name.to_string())
                .collect()
        ),
        charter.log_key,
    )
}

/// Reads a draft and makes it the next charter.
fn draft(session: &Session, file: &std::path::Path) -> Result<Document, Refusal> {
    let bytes = read_named(file, u64::try_from(MAX_CHARTER_BYTES).unwrap_or(u64::MAX))?;
    let mut new = Document::from_draft(&bytes).map_err(|error| file_error(file, &error))?;
    let (reference, old) = session.charter()?;
    new.index = reference.index.saturating_add(1);
    new.previous = Some(reference.digest);
    let broken = |error: &dyn std::error::Error| {
        Refusal::new("broken-charter", told(error), "correct the file")
    };
    new.validate().map_err(|error| broken(&error))?;
    new.follows(old, reference.digest)
        .map_err(|error| broken(&error))?;
    Ok(new)
}

impl Diff {
    fn run(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let new = draft(session, &self.file)?;
        let lines = charter_lines(session.charter()?.1, &new);
        let document = json!({ "index": new.index, "lines": lines.lines().collect::<Vec<_>>() });
        Ok(context.ui.result(&document, || lines)?)
    }
}

impl Propose {
    async fn run(self, context: &mut Context, session: &Session) -> Result<(), Refusal> {
        let new = draft(session, &self.file)?;
        if !new.changes(session.charter()?.1) {
            return Err(Rule::NothingChanges.into());
        }
        let bytes = new
            .to_bytes()
            .map_err(|source| VerifyError::Document("the charter", source))?;
        let named = CharterRef {
            index: new.index,
            digest: Digest::of(&bytes),
        };
        context.ui.note(charter_lines(session.charter()?.1, &new));
        let reply = session
            .charters()
            .propose(v1::ProposeCharterRequest { charter: bytes })
            .await?
            .into_inner();
        if wire::digest(&reply.sha256, "the digest of the proposal")? != named.digest {
            return Err(VerifyError::Other {
                what: "the proposal".to_owned(),
                by: "the daemon",
            }
            .into());
        }
        for warning in &reply.warnings {
            context.ui.warn(clean(warning));
        }
        let purpose = Purpose::Change(Change::Charter(named));
        let decided = self
            .decide
            .ask(context, session, purpose, Vec::new())
            .await?;
        Ok(context.ui.result(&decided.document(), || decided.line())?)
    }
}
