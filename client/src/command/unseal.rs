//! `keyturn unseal`: ask, wait until enough custodians agree, get the secret with its receipts.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use keyturn_proto::v1::{CeremonyState, CeremonyView};
use keyturn_seal::ShareIdentity;
use keyturn_vault::{
    id::{CeremonyId, CredentialId, GroupName},
    name::{CredentialPath, Line},
    text::{Purpose, Request},
    time::Span,
};
use serde_json::json;

use super::{
    Context,
    approve::{Case, Held},
    follow::{News, Wait, follow},
    open::{About, Ask, prepare, send, target},
    release::{self, is_seed},
    show,
    sink::Sink,
};
use crate::{causes::told, refusal::Refusal, session::Session, verify::VerifyError};

/// Ask for credentials, and get them when enough custodians agree.
#[derive(Debug, Args)]
pub struct Unseal {
    /// The credentials
    #[arg(required_unless_present = "resume", value_name = "PATH")]
    paths: Vec<CredentialPath>,
    /// Why; the custodians read it
    #[arg(long, required_unless_present = "resume", value_name = "TEXT")]
    reason: Option<Line>,
    #[command(flatten)]
    about: About,
    /// Ask this fallback group instead of each credential's own
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupName>,
    /// Who will use it, if somebody without keys: name and identity
    #[arg(long, value_name = "TEXT")]
    used_by: Option<Line>,
    /// How long you need it, like 2h
    #[arg(long, value_name = "SPAN", value_parser = Span::typed)]
    check_out: Option<Span>,
    /// Approve it yourself at once, where the policy lets you
    #[arg(long)]
    approve: bool,
    #[command(flatten)]
    sink: Sink,
    /// Ask and leave; come back with --resume
    #[arg(long, conflicts_with = "resume")]
    no_wait: bool,
    /// Go on waiting for a request of yours, or get what it released again
    #[arg(long, value_name = "CEREMONY", conflicts_with_all = ["paths", "reason", "approve", "group", "used_by", "check_out"])]
    resume: Option<CeremonyId>,
}

/// Refusals that mean: look again and ask again.
const CHANGED: [&str; 4] = ["not-live", "old-charter", "unknown-version", "stale"];

/// A request whose release is awaited.
struct Waiting {
    request: Request,
    current: BTreeMap<CredentialId, u64>,
    key: ShareIdentity,
}

impl Waiting {
    /// As this home keeps it.
    fn kept(context: &mut Context, ceremony: CeremonyId) -> Result<Self, Refusal> {
        let kept = release::kept(&context.home, ceremony)?;
        let request = kept
            .request
            .parse()
            .map_err(|source| VerifyError::Text("the request".to_owned(), source))?;
        Ok(Self {
            request,
            key: kept.identity(context)?,
            current: kept.current,
        })
    }
}

impl Unseal {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        self.run_as(context, Purpose::Unseal).await
    }

    pub(crate) async fn run_as(
        mut self,
        mut context: Context,
        purpose: Purpose,
    ) -> Result<(), Refusal> {
        self.sink.ready(context.ui)?;
        let mut session = context.session().await?;
        let sink = std::mem::take(&mut self.sink);
        if let Some(ceremony) = self.resume {
            let waiting = Waiting::kept(&mut context, ceremony)?;
            return wait(&context, &session, waiting, None, sink).await;
        }
        let (approve, no_wait) = (self.approve, self.no_wait);
        let (waiting, view) = match self.ask(&mut context, &session, &purpose).await {
            // What is live, or the charter, changed in between: the request is made again, once.
            Err(refusal) if CHANGED.contains(&refusal.code.as_str()) => {
                session.follow().await?;
                self.ask(&mut context, &session, &purpose).await?
            }
            asked => asked?,
        };
        let held = if approve {
            let case = Case::load(&session, waiting.request.ceremony).await?;
            Some(Held::give(&mut context, &session, &case).await?)
        } else {
            None
        };
        if no_wait {
            let document = show::ceremony(&view);
            return Ok(context
                .ui
                .result(&document, || waiting.request.ceremony.to_string())?);
        }
        wait(&context, &session, waiting, held, sink).await
    }

    async fn ask(
        &self,
        context: &mut Context,
        session: &Session,
        purpose: &Purpose,
    ) -> Result<(Waiting, CeremonyView), Refusal> {
        let mut targets = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            targets.push(target(session, path).await?);
        }
        let current: BTreeMap<_, _> = targets
            .iter()
            .map(|target| (target.definition.credential, target.current))
            .collect();
        let key = ShareIdentity::generate().map_err(|error| {
            Refusal::new("no-entropy", told(&error), "do not use this computer")
        })?;
        let reason = self.reason.clone().ok_or_else(|| {
            Refusal::new("malformed", "there is no reason", "give one with --reason")
        })?;
        let prepared = prepare(
            context,
            session,
            Ask {
                purpose: purpose.clone(),
                reason,
                about: self.about.clone(),
                group: self.group.clone(),
                used_by: self.used_by.clone(),
                deliver_to: Some(
                    key.share_key()
                        .to_string()
                        .parse()
                        .map_err(|_| VerifyError::Missing("a key"))?,
                ),
                check_out: self.check_out,
                targets,
            },
        )?;
        let ceremony = prepared.request.ceremony;
        let share_keys = release::share_keys(session.me()?);
        release::keep(
            &context.home,
            &share_keys,
            &prepared.signed,
            ceremony,
            current.clone(),
            &key,
        )?;
        let view = match send(session, &prepared).await {
            Ok(view) => view,
            Err(refusal) => {
                // What broke on the way may have arrived.
                if refusal.code != "unreachable" && refusal.code != "deadline" {
                    release::forget(&context.home, ceremony)?;
                }
                return Err(refusal);
            }
        };
        let digest = prepared.signed.digest();
        let ui = context.ui;
        show::announce(ui, ceremony, &digest);
        ui.note("Ask custodians to run `keyturn approve`, and read them the six words: they see the same.");
        Ok((
            Waiting {
                request: prepared.request,
                current,
                key,
            },
            view,
        ))
    }
}

/// What was released for a request of this home, opened again. One that has not ended is not waited for.
pub(super) async fn again(
    context: &mut Context,
    session: &Session,
    ceremony: CeremonyId,
) -> Result<release::Delivered, Refusal> {
    let waiting = Waiting::kept(context, ceremony)?;
    let mut news = follow(session.ceremonies(), ceremony.to_string(), true);
    let mut last = None;
    while let Some(came) = news.recv().await {
        match came? {
            News::Release(release) => {
                let whole = (&waiting.current, &BTreeSet::new());
                return release::open(session, &waiting.request, whole, &waiting.key, *release);
            }
            News::View(view) if view.state() != CeremonyState::Released => {
                return Err(ended(context, Some(&*view), ceremony));
            }
            News::View(view) => last = Some(view),
            News::SubmitKey(_) | News::Lost => {}
        }
    }
    Err(ended(context, last.as_deref(), ceremony))
}

/// Waits for the end; hands on what was released.
async fn wait(
    context: &Context,
    session: &Session,
    waiting: Waiting,
    mut held: Option<Held>,
    sink: Sink,
) -> Result<(), Refusal> {
    let ceremony = waiting.request.ceremony;
    let leaving = format!(
        "`keyturn unseal --resume {ceremony}` waits again, `keyturn withdraw {ceremony}` gives it up"
    );
    let mut wait = Wait::new(context.ui, session.ceremonies(), ceremony, true);
    while let Some(came) = wait.next(&leaving).await? {
        if let Some(held) = &mut held {
            held.attend(session, &came).await?;
        }
        if let News::Release(release) = came {
            let seeds = seeds(session, &waiting.request).await;
            let delivered = release::open(
                session,
                &waiting.request,
                (&waiting.current, &seeds),
                &waiting.key,
                *release,
            )?;
            return delivered.hand_on(context, sink).await;
        }
    }
    Err(ended(context, wait.view(), ceremony))
}

/// Which of the credentials of a request are seeds, of which people get the codes. Where the vault
/// does not answer any more, what was opened is handed on all the same.
async fn seeds(session: &Session, request: &Request) -> BTreeSet<CredentialId> {
    let mut seeds = BTreeSet::new();
    let paths: BTreeSet<_> = request.credentials.iter().map(|line| &line.path).collect();
    for path in paths {
        if let Ok(target) = target(session, path).await
            && is_seed(target.definition.kind)
        {
            seeds.insert(target.definition.credential);
        }
    }
    seeds
}

/// Why there is nothing to hand on.
fn ended(context: &Context, view: Option<&CeremonyView>, ceremony: CeremonyId) -> Refusal {
    let Some(view) = view else {
        return Refusal::new(
            "unreachable",
            "the vault told nothing about this request",
            format_args!("try again with `keyturn unseal --resume {ceremony}`"),
        );
    };
    if context.ui.json() {
        // The refusal is told on standard error in any case.
        let _ = context.ui.result(
            &json!({ "ceremony": ceremony, "state": show::state_word(view.state()) }),
            String::new,
        );
    }
    let hint = match view.state() {
        CeremonyState::Released => "what was released is no longer kept; ask again",
        CeremonyState::Interrupted => {
            "it counts as possibly released and its rotation is due; ask again after it"
        }
        CeremonyState::Unspecified
        | CeremonyState::Open
        | CeremonyState::Approved
        | CeremonyState::Authorized
        | CeremonyState::Failed
        | CeremonyState::Applied
        | CeremonyState::Expired
        | CeremonyState::Withdrawn
        | CeremonyState::Superseded => "ask again with `keyturn unseal`",
    };
    Refusal::new(
        "not-released",
        format_args!("nothing was released: {}", show::state(view)),
        hint,
    )
}
