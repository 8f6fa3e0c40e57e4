//! `keyturn credential change`: another definition of a credential, agreed to by those who hold it.

use std::path::PathBuf;

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    definition::{Definition, MAX_DEFINITION_BYTES},
    digest::Digest,
    jcs::Document as _,
    name::CredentialPath,
    refusal::Refusal as Rule,
    text::{Change as Subject, Purpose},
};

use super::{Context, decide::Decide, file_error, open, read_named};
use crate::{
    causes::told,
    refusal::Refusal,
    verify::{VerifyError, wire},
};

/// Propose a changed definition, and ask for the agreement that it needs.
#[derive(Debug, Args)]
pub struct Change {
    /// The credential
    path: CredentialPath,
    /// The changed definition, JSON; `definition` in `keyturn credential show --json` is the one in force
    file: PathBuf,
    #[command(flatten)]
    decide: Decide,
}

impl Change {
    pub(super) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let old = open::target(&session, &self.path).await?.definition;
        let document = |source| VerifyError::Document("the definition", source);
        let named = Digest::of(&old.to_bytes().map_err(document)?);
        let max = u64::try_from(MAX_DEFINITION_BYTES).unwrap_or(u64::MAX);
        let draft = read_named(&self.file, max)?;
        let mut new =
            Definition::from_draft(&draft).map_err(|error| file_error(&self.file, &error))?;
        new.previous = Some(named);
        let broken = |error: &dyn std::error::Error| {
            Refusal::new("broken-definition", told(error), "correct the file")
        };
        new.follows(&old, named).map_err(|error| broken(&error))?;
        new.validate(session.charter()?.1)
            .map_err(|error| broken(&error))?;
        let bytes = new.to_bytes().map_err(document)?;
        let renewed = Definition {
            previous: old.previous,
            ..new.clone()
        };
        if renewed == old {
            return Err(Rule::NothingChanges.into());
        }
        let subject = Subject::Definition {
            credential: new.credential,
            old: named,
            new: Digest::of(&bytes),
        };
        let request = v1::ProposeDefinitionRequest { definition: bytes };
        let reply = session.credentials().propose(request).await?.into_inner();
        let told = Subject::Definition {
            credential: wire::parse(&reply.credential, "the id of a credential")?,
            old: wire::digest(&reply.old_sha256, "the digest of a definition")?,
            new: wire::digest(&reply.new_sha256, "the digest of a definition")?,
        };
        if told != subject {
            return Err(VerifyError::Other {
                what: "the proposal".to_owned(),
                by: "the daemon",
            }
            .into());
        }
        let decided = self
            .decide
            .ask(&mut context, &session, Purpose::Change(subject), Vec::new())
            .await?;
        Ok(context.ui.result(&decided.document(), || decided.line())?)
    }
}
