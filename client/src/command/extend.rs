//! `keyturn extend`: a longer check-out, agreed to as the opening was.

use clap::Args;
use keyturn_vault::{
    id::CeremonyId,
    text::Purpose,
    time::{Span, Stamp, Time},
};

use super::{Context, case::Case, decide::Decide};
use crate::refusal::Refusal;

/// Ask for a longer check-out.
#[derive(Debug, Args)]
pub struct Extend {
    /// The ceremony that opened it
    ceremony: CeremonyId,
    /// Its new end, like 2026-11-21T16:00:00Z
    #[arg(
        long,
        value_name = "TIME",
        required_unless_present = "by",
        conflicts_with = "by"
    )]
    until: Option<Stamp>,
    /// How much longer than now agreed, like 2h
    #[arg(long, value_name = "SPAN", value_parser = Span::typed)]
    by: Option<Span>,
    #[command(flatten)]
    decide: Decide,
}

impl Extend {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let view = Case::glance(&session, self.ceremony).await?.view;
        let out = view.checkout.filter(|out| out.returned_ms == 0);
        let ended = || {
            Refusal::new(
                "not-out",
                "there is no check-out of this ceremony",
                "request the credential again",
            )
        };
        let ends = Time::from_ms(out.ok_or_else(ended)?.ends_ms);
        let until = self.until.unwrap_or_else(|| {
            let by = self.by.unwrap_or(Span::ZERO);
            ends.after(by).stamp()
        });
        if until.time() <= ends {
            return Err(Refusal::new(
                "not-longer",
                "the new end is not later than the old one",
                "ask for a later end",
            ));
        }
        let purpose = Purpose::Extend {
            checkout: self.ceremony,
            until,
        };
        let decided = self
            .decide
            .ask(&mut context, &session, purpose, Vec::new())
            .await?;
        Ok(context.ui.result(&decided.document(), || decided.line())?)
    }
}
