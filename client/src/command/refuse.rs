//! `keyturn refuse`, `retract`, `withdraw`: saying no, taking back, giving up.

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    id::CeremonyId,
    name::Line,
    text::{Approval, Decision, Details, Text as _},
};

use super::{Context, case::Case, release, show};
use crate::{clock, refusal::Refusal, session::Session, token, verify::wire};

/// Refuse a request, with a reason; it blocks nobody.
#[derive(Debug, Args)]
pub struct Refuse {
    /// The ceremony
    ceremony: CeremonyId,
    /// Why; later approvers read it
    #[arg(long, value_name = "TEXT")]
    reason: Line,
}

/// Take back what you said to a request.
#[derive(Debug, Args)]
pub struct Retract {
    /// The ceremony
    ceremony: CeremonyId,
}

/// Give up a request of yours.
#[derive(Debug, Args)]
pub struct Withdraw {
    /// The ceremony
    ceremony: CeremonyId,
}

impl Refuse {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let case = Case::glance(&session, self.ceremony).await?;
        let details = Details {
            salt: token::salt()?,
            reason: self.reason,
            contact: None,
            systems: None,
        };
        let decision = Decision::Refuse {
            reason: details.digest(),
        };
        say(
            context,
            &session,
            &case,
            decision,
            details.to_text(),
            "refused; later approvers see your reason",
        )
        .await
    }
}

impl Retract {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let case = Case::glance(&session, self.ceremony).await?;
        let me = session.profile.person;
        let mine = case
            .last_words()
            .find(|statement| statement.approval.custodian.id == me);
        let mine = mine
            .filter(|statement| !matches!(statement.approval.decision, Decision::Retract { .. }));
        let nothing = || {
            Refusal::new(
                "not-approved",
                "you have said nothing to this request",
                "see `keyturn status`",
            )
        };
        let earlier = mine.ok_or_else(nothing)?.digest;
        say(
            context,
            &session,
            &case,
            Decision::Retract { earlier },
            String::new(),
            "taken back",
        )
        .await
    }
}

async fn say(
    mut context: Context,
    session: &Session,
    case: &Case,
    decision: Decision,
    details: String,
    done: &str,
) -> Result<(), Refusal> {
    let mut opened = context.token(&session.profile)?;
    let approval = Approval {
        request: case.request.digest(),
        custodian: session.me()?.reference(),
        token: opened.reference(),
        decision,
        charter: Some(session.charter()?.0),
        log: Some(session.log_head()?),
        signed: clock::now().stamp(),
    };
    let signed = opened.sign(&approval, &mut context.person)?;
    let request = v1::ApproveRequest {
        approval: Some(wire::wire_text(&signed)),
        submissions: Vec::new(),
        details,
        ceremony: case.request.ceremony.to_string(),
    };
    let reply = session.ceremonies().approve(request).await?.into_inner();
    let view = wire::required(reply.ceremony, "the ceremony")?;
    context
        .home
        .forget(&format!("approvals/{}", case.request.ceremony))?;
    Ok(context
        .ui
        .result(&show::ceremony(&view), || done.to_owned())?)
}

impl Withdraw {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let request = v1::WithdrawRequest {
            id: self.ceremony.to_string(),
        };
        let reply = session.ceremonies().withdraw(request).await?.into_inner();
        let view = wire::required(reply.ceremony, "the ceremony")?;
        release::forget(&context.home, self.ceremony)?;
        Ok(context
            .ui
            .result(&show::ceremony(&view), || show::state(&view))?)
    }
}
