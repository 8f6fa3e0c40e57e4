//! Requests that hand nothing to anybody: asked, agreed to by a quorum, done by the daemon.

use clap::Args;
use keyturn_proto::v1::{CeremonyState, CeremonyView};
use keyturn_vault::{name::Line, text::Purpose};
use serde_json::Value;

use super::{
    Context,
    follow::outcome,
    open::{About, Ask, Target, prepare, send},
    show,
};
use crate::{refusal::Refusal, session::Session};

/// Flags of every request that decides something.
#[derive(Debug, Clone, Args)]
pub struct Decide {
    /// Why; those who must agree read it
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    #[command(flatten)]
    about: About,
    /// Ask and leave
    #[arg(long)]
    no_wait: bool,
}

/// How a request stands when its command ends.
pub struct Decided {
    view: CeremonyView,
}

impl Decided {
    /// In JSON.
    pub fn document(&self) -> Value {
        show::ceremony(&self.view)
    }

    /// As a line.
    pub fn line(&self) -> String {
        format!("{}  {}", self.view.id, show::state(&self.view))
    }
}

impl Decide {
    /// Opens the ceremony, tells its words, and stays until it has taken effect, unless told to leave.
    pub async fn ask(
        &self,
        context: &mut Context,
        session: &Session,
        purpose: Purpose,
        targets: Vec<Target>,
    ) -> Result<Decided, Refusal> {
        let ask = Ask {
            purpose,
            reason: self.reason.clone(),
            about: self.about.clone(),
            group: None,
            used_by: None,
            deliver_to: None,
            check_out: None,
            targets,
        };
        let prepared = prepare(context, session, ask)?;
        let view = send(session, &prepared).await?;
        let ui = context.ui;
        let (ceremony, digest) = (prepared.request.ceremony, prepared.signed.digest());
        show::announce(ui, ceremony, &digest);
        ui.note("Those who must agree see the same words, and run `keyturn approve`.");
        if self.no_wait {
            return Ok(Decided { view });
        }
        let view = outcome(ui, session.ceremonies(), ceremony, view).await?;
        if matches!(
            view.state(),
            CeremonyState::Applied | CeremonyState::Released
        ) {
            return Ok(Decided { view });
        }
        Err(Refusal::new(
            "not-released",
            format_args!("nothing was changed: {}", show::state(&view)),
            "see `keyturn status`, and ask again",
        ))
    }
}
