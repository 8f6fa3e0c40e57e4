//! `keyturn rotate`: rotations run by themselves; operators look, hurry, help and pause.

use std::{fmt::Write as _, str::FromStr};

use clap::{Args, Subcommand};
use keyturn_proto::v1;
use keyturn_vault::{
    name::{CredentialPath, KeyId},
    reference::Version,
    rotation::MAX_PAUSE,
    time::Span,
};
use serde_json::{Value, json};

use super::{
    Context,
    deposit::{Source, deposit},
    open,
    rotate_now::Now,
    show,
};
use crate::{
    refusal::Refusal,
    session::Session,
    ui::{clean, table},
    verify::wire,
};

/// Rotations: list, hurry, retry, complete, pause.
#[derive(Debug, Subcommand)]
pub enum Rotate {
    /// What is due, running, late or stuck
    List(List),
    /// One rotation, what is wrong, and what to do: for one by hand, line by line
    Show(Show),
    /// Make rotations due now
    Now(Now),
    /// Try again what needs an operator
    Retry(Retry),
    /// A rotation by hand is done: deposits the new secret, or names the version that was deposited
    Complete(Complete),
    /// Start no rotation for a while
    Pause(Pause),
    /// Go on before a pause is over
    Resume(Resume),
    /// At a target with two slots: say whose a key is that the vault does not know
    Claim(Claim),
}

/// What is due, running, late or stuck.
#[derive(Debug, Args)]
pub struct List {
    /// A pattern over paths
    #[arg(default_value = "")]
    pattern: String,
    /// Idle ones too
    #[arg(long)]
    all: bool,
}

/// Try again what needs an operator.
#[derive(Debug, Args)]
pub struct Retry {
    /// The credential
    path: CredentialPath,
}

/// One rotation, and what to do about it.
#[derive(Debug, Args)]
pub struct Show {
    /// The credential
    path: CredentialPath,
}

/// A rotation by hand is done.
#[derive(Debug, Args)]
pub struct Complete {
    /// The credential
    path: CredentialPath,
    /// The version that was deposited, like v3; without it the new secret is asked for and deposited
    version: Option<Version>,
    #[command(flatten)]
    source: Source,
}

/// Start no rotation for a while.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    whom: Whom,
    /// How long, at most 24h
    #[arg(long = "for", value_name = "SPAN", value_parser = Span::typed, default_value = "24h")]
    span: Span,
}

/// Go on before a pause is over.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    whom: Whom,
}

/// Which credentials.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// The credentials
    #[arg(value_name = "PATH")]
    paths: Vec<CredentialPath>,
    /// Every credential of the vault
    #[arg(long)]
    all: bool,
}

/// Say whose a key at the target is.
#[derive(Debug, Args)]
pub struct Claim {
    /// The credential
    path: CredentialPath,
    /// The version, like v1; or `lost`: the vault had it made and nobody has its secret, so delete it
    #[arg(value_name = "vN|lost")]
    of: Of,
    /// What the target calls the key
    key: KeyId,
}

/// Whose a key is.
#[derive(Clone, Copy, Debug)]
enum Of {
    Version(Version),
    Lost,
}

impl FromStr for Of {
    type Err = <Version as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lost" => Ok(Self::Lost),
            other => other.parse().map(Self::Version),
        }
    }
}

impl Rotate {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let mut client = session.rotations();
        match self {
            Self::List(list) => list.run(&context, client).await,
            Self::Show(show) => show.run(&context, &session).await,
            Self::Now(now) => now.run(&context, &session).await,
            Self::Retry(retry) => {
                let credential = open::target(&session, &retry.path)
                    .await?
                    .definition
                    .credential
                    .to_string();
                let reply = client
                    .retry(v1::RetryRequest { credential })
                    .await?
                    .into_inner();
                told(&context, reply.rotation)
            }
            Self::Complete(complete) => complete.run(&mut context, &session).await,
            Self::Pause(Pause { whom, span }) => whom.pause(&context, client, span).await,
            Self::Resume(Resume { whom }) => whom.pause(&context, client, Span::ZERO).await,
            Self::Claim(claim) => {
                let target = open::target(&session, &claim.path).await?;
                let (version, lost) = match claim.of {
                    Of::Version(version) => (version.number(), false),
                    Of::Lost => (0, true),
                };
                let request = v1::ClaimRequest {
                    credential: target.definition.credential.to_string(),
                    version,
                    key: claim.key.to_string(),
                    lost,
                };
                let reply = client.claim(request).await?.into_inner();
                told(&context, reply.rotation)
            }
        }
    }
}

impl Show {
    async fn run(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let view = of(session, &self.path).await?;
        Ok(context.ui.result(&document(&view), || page(&view))?)
    }
}

impl Complete {
    async fn run(self, context: &mut Context, session: &Session) -> Result<(), Refusal> {
        let before = of(session, &self.path).await?;
        let version = if let Some(version) = self.version {
            version.number()
        } else {
            for line in &before.guide {
                context.ui.note(clean(line));
            }
            let secret = self.source.read(context)?;
            deposit(context, session, &self.path, &secret).await?
        };
        if self.version.is_none() && before.two_people {
            let document = json!({ "path": self.path, "version": version, "completed": false });
            return Ok(context.ui.result(&document, || {
                format!(
                    "v{version} is deposited. Another operator looks at the target and completes it: \
                     keyturn rotate complete {} v{version}",
                    self.path
                )
            })?);
        }
        let request = v1::CompleteRequest {
            credential: before.credential,
            version,
        };
        let reply = session.rotations().complete(request).await?.into_inner();
        told(context, reply.rotation)
    }
}

/// The rotation of one credential.
async fn of(session: &Session, path: &CredentialPath) -> Result<v1::RotationView, Refusal> {
    let list = v1::ListRotationsRequest {
        page: None,
        r#match: path.to_string(),
        all: true,
    };
    let listed = session.rotations().list(list).await?.into_inner();
    let unknown = || {
        Refusal::new(
            "not-found",
            format_args!("there is no credential {path}"),
            "see `keyturn credential list`",
        )
    };
    listed.rotations.into_iter().next().ok_or_else(unknown)
}

impl Whom {
    /// A pause of no length goes on.
    async fn pause(
        self,
        context: &Context,
        mut client: v1::rotation_client::RotationClient<tonic::transport::Channel>,
        span: Span,
    ) -> Result<(), Refusal> {
        if span > MAX_PAUSE {
            return Err(Refusal::new(
                "malformed",
                "a pause lasts at most 24h",
                "give a shorter one, and pause again when it is over",
            ));
        }
        let request = v1::PauseRequest {
            for_secs: u32::try_from(span.secs()).unwrap_or(u32::MAX),
            credentials: self.paths.iter().map(ToString::to_string).collect(),
        };
        let reply = client.pause(request).await?.into_inner();
        let document = json!({ "paused": reply.paused, "until_ms": reply.until_ms });
        Ok(context.ui.result(&document, || {
            if reply.paused {
                let which = if self.all {
                    "rotation"
                } else {
                    "rotation of these"
                };
                format!("No {which} starts before {}.", show::time(reply.until_ms))
            } else {
                "Rotations go on.".to_owned()
            }
        })?)
    }
}

fn told(context: &Context, view: Option<v1::RotationView>) -> Result<(), Refusal> {
    let view = wire::required(view, "the rotation")?;
    Ok(context
        .ui
        .result(&document(&view), || table(&[row(&view)]))?)
}

impl List {
    async fn run(
        self,
        context: &Context,
        mut client: v1::rotation_client::RotationClient<tonic::transport::Channel>,
    ) -> Result<(), Refusal> {
        let mut after = String::new();
        let mut all = Vec::new();
        let last = loop {
            let request = v1::ListRotationsRequest {
                page: wire::next_page(after),
                r#match: self.pattern.clone(),
                all: self.all,
            };
            let mut reply = client.list(request).await?.into_inner();
            all.append(&mut reply.rotations);
            if reply.next_page.is_empty() {
                break reply;
            }
            after = reply.next_page;
        };
        let document = json!({ "rotations": all.iter().map(document).collect::<Vec<_>>(), "paused": last.paused, "paused_until_ms": last.paused_until_ms });
        Ok(context.ui.result(&document, || {
            let mut text = table(&all.iter().map(row).collect::<Vec<_>>());
            if all.is_empty() {
                text.push_str("No rotation is due.\n");
            }
            if last.paused {
                // Writing to a string does not fail.
                let _ = writeln!(text, "Paused until {}.", show::time(last.paused_until_ms));
            }
            text
        })?)
    }
}

fn document(view: &v1::RotationView) -> Value {
    json!({
        "path": view.path, "credential": view.credential, "connector": view.connector, "state": show::rotation_state(view.state()),
        "cause": view.cause, "due_ms": view.due_ms, "next_try_ms": view.next_try_ms, "attempts": view.attempts, "version": view.version,
        "held_by": view.held_by, "held_until_ms": view.held_until_ms, "problem_code": view.problem_code, "problem": view.problem,
        "hint": view.hint, "evidence": view.evidence, "late": view.late, "paused_until_ms": view.paused_until_ms,
        "guide": view.guide, "two_people": view.two_people,
        "keys": view.keys.iter().map(|key| json!({ "key": key.key, "version": key.version })).collect::<Vec<_>>(),
        "foreign": view.foreign,
    })
}

/// All that is to be said of one.
fn page(view: &v1::RotationView) -> String {
    let mut lines = vec![format!("{}: {}", clean(&view.path), stands(view))];
    let moment = |ms: u64| match ms {
        0 => String::new(),
        ms => show::time(ms),
    };
    let keys = view.keys.iter().map(|key| match key.version {
        0 => clean(&key.key),
        version => format!("{} (v{version})", clean(&key.key)),
    });
    let facts = [
        (
            "rotated by",
            match view.connector.as_str() {
                "" => "hand, and nobody is reminded: it has no connector".to_owned(),
                name => clean(name),
            },
        ),
        ("because", clean(&view.cause)),
        ("due", moment(view.due_ms)),
        ("tried again", moment(view.next_try_ms)),
        ("held by", clean(&view.held_by)),
        ("held until", moment(view.held_until_ms)),
        ("paused until", moment(view.paused_until_ms)),
        ("keys", keys.collect::<Vec<_>>().join(", ")),
        (
            "keys that the vault does not know",
            clean(&view.foreign.join(", ")),
        ),
        ("seen at the target", clean(&view.evidence)),
        ("problem", clean(&view.problem)),
        ("what to do", clean(&view.hint)),
    ];
    let said = facts.into_iter().filter(|(_, said)| !said.is_empty());
    lines.extend(said.map(|(what, said)| format!("  {what}: {said}")));
    if view.two_people {
        lines.push("  by two people: one changes and deposits it, another completes it".to_owned());
    }
    let guide = view.guide.iter().zip(1_u32..);
    lines.extend(guide.map(|(line, number)| format!("  {number}. {}", clean(line))));
    lines.join("\n")
}

/// How it stands: its state, and what is special about it.
fn stands(view: &v1::RotationView) -> String {
    let mut text = show::rotation_state(view.state()).to_owned();
    if view.late {
        text.push_str(", late");
    }
    if view.paused_until_ms > 0 {
        text.push_str(", paused");
    }
    text
}

fn row(view: &v1::RotationView) -> Vec<String> {
    let due = if view.due_ms > 0 {
        show::time(view.due_ms)
    } else {
        String::new()
    };
    let said = [clean(&view.problem), clean(&view.hint)];
    let problem = said.iter().filter(|said| !said.is_empty());
    let problem: Vec<_> = problem.map(String::as_str).collect();
    vec![
        clean(&view.path),
        stands(view),
        clean(&view.cause),
        due,
        clean(&view.connector),
        problem.join("; "),
    ]
}
