//! `keyturn reshare`: seal what is there to the charter in force, without anybody seeing it.

use clap::Args;
use keyturn_vault::text::Purpose;
use serde_json::json;

use super::{
    Context, credential,
    decide::{Decide, Decided},
    open,
};
use crate::{refusal::Refusal, session::Session, ui::clean, verify::wire};

/// The most credentials of one request.
const MAX_CREDENTIALS: usize = 8;

/// Seal credentials anew to those who hold shares by the charter in force.
#[derive(Debug, Args)]
pub struct Reshare {
    /// A pattern over paths: `*` within a step, `**` across steps
    #[arg(default_value = "")]
    pattern: String,
    /// Also those whose newest version is sealed to the right persons already, as after a change of tokens
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    decide: Decide,
}

impl Reshare {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let mut rest = self.targets(&session).await?;
        let paths: Vec<_> = rest
            .iter()
            .map(|target| target.definition.path.clone())
            .collect();
        let mut decided = Vec::new();
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(MAX_CREDENTIALS));
            let purpose = Purpose::Reshare(session.charter()?.0);
            let one = self
                .decide
                .ask(&mut context, &session, purpose, rest)
                .await?;
            decided.push(one);
            rest = later;
        }
        let ceremonies: Vec<_> = decided.iter().map(Decided::document).collect();
        let document = json!({ "paths": paths, "ceremonies": ceremonies });
        Ok(context.ui.result(&document, || {
            if decided.is_empty() {
                return "Everything is sealed to those who hold shares by the charter.".to_owned();
            }
            let lines: Vec<_> = decided.iter().map(Decided::line).collect();
            lines.join("\n")
        })?)
    }

    /// What is to be sealed anew: everything named that has a secret, and is sealed to others than the charter says.
    async fn targets(&self, session: &Session) -> Result<Vec<open::Target>, Refusal> {
        let charter = session.charter()?.1;
        let mut targets = Vec::new();
        for view in credential::list(session, &self.pattern, false).await? {
            let path = wire::parse(&clean(&view.path), "the path of a credential")?;
            let target = open::target(session, &path).await?;
            let members = target
                .definition
                .groups()
                .filter_map(|name| charter.group(name))
                .flat_map(|group| group.members.iter().copied())
                .collect();
            if !target.lines.is_empty() && (self.all || target.holders != members) {
                targets.push(target);
            }
        }
        Ok(targets)
    }
}
