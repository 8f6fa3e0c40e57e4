//! `keyturn accept-restore`: a vault that was restored goes on when a quorum says so.
//!
//! # Invariants
//! 1. What is signed names every entry that this computer has seen: a request that says less about what is
//!    lost is not approved, and a new one is opened.
//! 2. A new key of the log or of a node counts only once the quorum's signatures are verified.

use std::time::Duration;

use clap::Args;
use keyturn_proto::v1::{self, CeremonyState};
use keyturn_vault::{
    charter::Role,
    digest::Digest,
    id::CeremonyId,
    jcs::Document as _,
    name::Line,
    reference::Head,
    restore::RestoreDocument,
    text::{Purpose, Text as _},
};
use serde_json::json;

use super::{
    Context,
    approve::Held,
    case::Case,
    follow::outcome,
    open::{About, Ask, prepare, send_with},
    show,
};
use crate::{
    connect::Address,
    refusal::Refusal,
    session::{Session, Told},
    verify::{VerifyError, wire},
};

/// The finding that says what of the places for copies is not taken back.
const LEFT: &str = "left-in-copy";

/// How long taking back may take, before it is told that the vault still waits.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it is looked whether the vault goes on.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Accept what was restored: a lost log, or lost keys.
#[derive(Debug, Args)]
pub struct AcceptRestore {
    /// The SHA-256 of the restored server's key, as its operator tells it on another way
    #[arg(long, value_name = "SHA256")]
    server_pin: Option<Digest>,
    /// Where the restored server is, like 192.0.2.7:7400; kept with your profile once a quorum has accepted it
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<Address>,
    /// Why; those who must agree read it
    #[arg(long, value_name = "TEXT")]
    reason: Option<Line>,
    /// Open the request and leave; approve it later with the same command
    #[arg(long)]
    ask_only: bool,
    /// Leave once the approval is given
    #[arg(long)]
    no_wait: bool,
}

impl AcceptRestore {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let server = Told {
            pin: self.server_pin,
            address: self.endpoint.as_ref(),
        };
        let mut session = Session::connect_to(&context.home, context.ui, server).await?;
        let status = session
            .status()
            .show(v1::ShowStatusRequest {})
            .await?
            .into_inner();
        if !status.restore_mode {
            return accepted(&context, &mut session, None).await;
        }
        for left in &status.findings {
            if left.code == LEFT {
                context
                    .ui
                    .warn(format_args!("{}: {}", left.message, left.hint));
            }
        }
        session.follow_charter().await?;
        let wanted = wanted(&session).await?;
        let seen = session.kept_head()?;
        session.says(wanted.head);
        let case = match waiting(&session, &wanted).await? {
            Some(case) => case,
            None => self.open(&mut context, &session, &wanted).await?,
        };
        let id = case.request.ceremony;
        let digest = case.request.digest();
        if self.ask_only || !session.me()?.has(Role::Custodian) {
            let ui = context.ui;
            show::announce(ui, id, &digest);
            ui.note(
                "Custodians of the governing group compare them, and run `keyturn accept-restore`.",
            );
            let document = json!({ "ceremony": id, "sha256": digest, "state": "open" });
            return Ok(context
                .ui
                .result(&document, || format!("{id}  waits for approvals"))?);
        }
        if let Some(seen) = seen.filter(|seen| seen.size > wanted.head.size) {
            session.says(seen);
        }
        let held = if case.approved_by(session.profile.person) {
            None
        } else {
            Some(Held::give(&mut context, &session, &case).await?)
        };
        let view = held.map_or(case.view, |held| held.view);
        let view = if self.no_wait || view.state() == CeremonyState::Applied {
            view
        } else {
            outcome(context.ui, session.ceremonies(), id, view).await?
        };
        if view.state() == CeremonyState::Applied {
            return accepted(&context, &mut session, Some((id, digest))).await;
        }
        let document =
            json!({ "ceremony": id, "sha256": digest, "state": show::state_word(view.state()) });
        Ok(context.ui.result(&document, || show::state(&view))?)
    }

    async fn open(
        &self,
        context: &mut Context,
        session: &Session,
        document: &RestoreDocument,
    ) -> Result<Case, Refusal> {
        let bad = |source| VerifyError::Document("the restore document", source);
        let subject = document.subject().map_err(bad)?;
        let reason = match &self.reason {
            Some(reason) => reason.clone(),
            None => "the vault was restored"
                .parse()
                .map_err(|_| VerifyError::Missing("a reason"))?,
        };
        let ask = Ask {
            purpose: Purpose::AcceptRestore(subject),
            reason,
            about: About::default(),
            group: None,
            used_by: None,
            deliver_to: None,
            check_out: None,
            targets: Vec::new(),
        };
        let prepared = prepare(context, session, ask)?;
        let bytes = document.to_bytes().map_err(bad)?;
        send_with(session, &prepared, bytes).await?;
        Case::glance(session, prepared.request.ceremony).await
    }
}

/// What this computer would sign: the daemon's own document, with the highest lost head that either knows.
async fn wanted(session: &Session) -> Result<RestoreDocument, Refusal> {
    let reply = session
        .status()
        .restore(v1::RestoreRequest { page: None })
        .await?
        .into_inner();
    let mut document = RestoreDocument::from_bytes(&reply.document)
        .map_err(|source| VerifyError::Document("the restore document", source))?;
    let (newest, charter) = session.charter()?;
    if document.charter != newest || document.origin != charter.origin {
        return Err(VerifyError::Other {
            what: "the charter in force".to_owned(),
            by: "the restore document",
        }
        .into());
    }
    if let Some(seen) = session.kept_head()?
        && beyond(seen, document.head)
        && seen.size > height(document.lost)
    {
        document.lost = Some(seen);
    }
    Ok(document)
}

/// Whether a head is none that the restored log leads to, as far as their sizes tell.
fn beyond(seen: Head, restored: Head) -> bool {
    seen.size > restored.size || (seen.size == restored.size && seen.root != restored.root)
}

fn height(lost: Option<Head>) -> u64 {
    lost.map_or(0, |lost| lost.size)
}

/// An open request that says what this computer would (invariant 1).
async fn waiting(session: &Session, wanted: &RestoreDocument) -> Result<Option<Case>, Refusal> {
    let request = v1::ListCeremoniesRequest {
        open_only: true,
        ..v1::ListCeremoniesRequest::default()
    };
    let listed = session.ceremonies().list(request).await?.into_inner();
    for view in listed.ceremonies {
        if view.purpose() != v1::Purpose::AcceptRestore {
            continue;
        }
        let id: CeremonyId = wire::parse(&view.id, "the id of a ceremony")?;
        let case = Case::glance(session, id).await?;
        let Some(document) = case.restore(session).await? else {
            continue;
        };
        let enough = height(document.lost) >= height(wanted.lost);
        let rest = RestoreDocument {
            lost: wanted.lost,
            ..document
        };
        if enough && rest == *wanted {
            return Ok(Some(case));
        }
    }
    Ok(None)
}

/// Waits until all that was accepted is taken back, when the vault serves; for [`PATIENCE`] at most.
async fn serving(context: &Context, session: &Session) -> Result<(), Refusal> {
    let mut told = false;
    let mut left = PATIENCE;
    loop {
        let request = v1::ShowStatusRequest {};
        let status = session.status().show(request).await?.into_inner();
        if !status.restore_mode || left.is_zero() {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            context.ui.note(
                "Accepted. What was found in copies is being taken back; then the vault goes on.",
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
        left = left.saturating_sub(LOOK_EVERY);
    }
}

/// Follows the vault over what was accepted (invariant 2).
async fn accepted(
    context: &Context,
    session: &mut Session,
    signed: Option<(CeremonyId, Digest)>,
) -> Result<(), Refusal> {
    serving(context, session).await?;
    session.follow().await?;
    let head = session.log_head()?;
    let (ceremony, digest) = signed.unzip();
    let document = json!({
        "ceremony": ceremony, "sha256": digest, "state": "applied",
        "log_size": head.size, "vkey": session.vkey()?.to_string(), "server_pins": session.vault.server_pins,
    });
    Ok(context.ui.result(&document, || {
        format!(
            "{} goes on: its log has {} entries. The verifier key of its log: {}",
            session.vault.origin, head.size, session.vault.vkey
        )
    })?)
}
