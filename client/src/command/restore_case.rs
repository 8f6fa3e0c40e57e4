//! A request to accept a restore, as a custodian gets to see it.

use keyturn_vault::{
    jcs::Document as _,
    restore::RestoreDocument,
    text::{Details, Purpose, Text as _},
};

use super::{case::Case, show};
use crate::{
    refusal::Refusal,
    session::Session,
    ui::{Style, Ui},
    verify::VerifyError,
};

impl Case {
    /// Who, what, why, what is lost, which keys are new, anything unusual.
    pub(super) fn plain_restore(
        &self,
        ui: Ui,
        session: &Session,
        restore: &RestoreDocument,
    ) -> Result<String, Refusal> {
        let request = &self.request;
        let details = self.details.as_deref();
        let reason = details
            .and_then(|details| Details::parse(details).ok())
            .map_or_else(
                || "(not told)".to_owned(),
                |details| details.reason.to_string(),
            );
        let lost = match restore.lost {
            Some(lost) if lost.size > restore.head.size => ui.paint_err(
                Style::Warn,
                format_args!(
                    "{} entries after entry {}: whatever was opened in them counts as possibly released",
                    lost.size.saturating_sub(restore.head.size),
                    restore.head.size.saturating_sub(1)
                ),
            ),
            Some(lost) => ui.paint_err(
                Style::Warn,
                format_args!("another log of {} entries that somebody has seen", lost.size),
            ),
            None => "nothing that anybody knows of".to_owned(),
        };
        let log_key = restore
            .log_key
            .as_ref()
            .map(|key| format!("log key {}", key.fingerprint()));
        let node = restore
            .node
            .as_ref()
            .map(|node| format!("server key {}", node.key.pin()));
        let keys: Vec<_> = log_key.into_iter().chain(node).collect();
        let keys = if keys.is_empty() {
            "none; the old ones stay in force".to_owned()
        } else {
            ui.paint_err(
                Style::Warn,
                format_args!("{}; the old ones are void", keys.join(", ")),
            )
        };
        let odd = show::odd(ui, &self.unusual(session)?);
        Ok(format!(
            "who       {}\nwhat      the vault goes on from a restored log of {} entries, charter {}, with {} versions found in copies\nwhy       {reason}\nlost      {lost}\nnew keys  {keys}\nunusual   {odd}\n",
            request.requested_by.name,
            restore.head.size,
            restore.charter.index,
            restore.documents.len(),
        ))
    }

    /// The document that an `accept-restore` names.
    pub async fn restore(&self, session: &Session) -> Result<Option<RestoreDocument>, Refusal> {
        let Purpose::AcceptRestore(accepted) = &self.request.purpose else {
            return Ok(None);
        };
        let bytes = session.object(accepted.documents).await?;
        let bad = |source| VerifyError::Document("the restore document", source);
        let document = RestoreDocument::from_bytes(&bytes).map_err(bad)?;
        if document.subject().map_err(bad)? == *accepted {
            Ok(Some(document))
        } else {
            Err(VerifyError::Other {
                what: "the restore document".to_owned(),
                by: "the request",
            }
            .into())
        }
    }
}
