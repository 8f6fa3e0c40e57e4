//! `keyturn erase`: the free text of a request goes, what was signed stays.

use clap::Args;
use keyturn_vault::{id::CeremonyId, text::Purpose};

use super::{Context, case::Case, decide::Decide};
use crate::refusal::Refusal;

/// Ask that the details of a request be erased.
#[derive(Debug, Args)]
pub struct Erase {
    /// The ceremony
    ceremony: CeremonyId,
    #[command(flatten)]
    decide: Decide,
}

impl Erase {
    pub(super) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let case = Case::glance(&session, self.ceremony).await?;
        let purpose = Purpose::Erase {
            ceremony: self.ceremony,
            details: case.request.details,
        };
        let decided = self
            .decide
            .ask(&mut context, &session, purpose, Vec::new())
            .await?;
        Ok(context.ui.result(&decided.document(), || decided.line())?)
    }
}
