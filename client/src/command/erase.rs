//! `keyturn erase`: a free text goes, what was signed stays.

use clap::Args;
use keyturn_vault::{
    digest::Digest,
    id::CeremonyId,
    name::PersonName,
    text::{Decision, Purpose},
};

use super::{Context, case::Case, decide::Decide, review};
use crate::{refusal::Refusal, session::Session};

/// Ask that a free text of a request be erased.
#[derive(Debug, Args)]
pub struct Erase {
    /// The ceremony
    ceremony: CeremonyId,
    /// What this person gave as the reason of a refusal or wrote in a review, and not the request's details
    #[arg(long, value_name = "NAME")]
    said_by: Option<PersonName>,
    #[command(flatten)]
    decide: Decide,
}

impl Erase {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let case = Case::glance(&session, self.ceremony).await?;
        let details = match &self.said_by {
            None => case.request.details,
            Some(name) => said_by(&session, &case, name).ok_or_else(|| {
                Refusal::new(
                    "not-found",
                    format_args!("{name} has no words here that could be erased"),
                    "see `keyturn review` with this ceremony",
                )
            })?,
        };
        let purpose = Purpose::Erase {
            ceremony: self.ceremony,
            details,
        };
        let decided = self
            .decide
            .ask(&mut context, &session, purpose, Vec::new())
            .await?;
        Ok(context.ui.result(&decided.document(), || decided.line())?)
    }
}

/// The newest text of a person that is still kept.
fn said_by(session: &Session, case: &Case, name: &PersonName) -> Option<Digest> {
    let refusals = case.statements.iter().filter_map(|said| {
        let Decision::Refuse { reason } = said.approval.decision else {
            return None;
        };
        (said.approval.custodian.name == *name && said.reason.is_some()).then_some(reason)
    });
    let reviews = review::opinions(session, case)
        .into_iter()
        .filter_map(|(review, note)| {
            (review.reviewer.name == *name && note.is_some()).then_some(review.note)?
        });
    refusals.chain(reviews).last()
}
