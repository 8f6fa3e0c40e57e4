//! The offline request: custodians open one version without any daemon.
//!
//! Signed by a token or device key of the requester. Custodians answer it with an `approval`, as
//! they do a request. It binds the vault, the version by its manifest, the group whose shares are
//! combined and the key that gets them. The free text stays in details, so that it can be erased
//! after the record has been imported into the log.

use crate::digest::{Digest, Salt};
use crate::id::{CeremonyId, GroupName};
use crate::key::ShareKey;
use crate::name::{Line, Origin};
use crate::reference::PersonRef;
use crate::text::{CredentialLine, Reader, Text, TextError, Writer};
use crate::time::Stamp;

/// A request without a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recover {
    /// The vault.
    pub vault: Origin,
    /// The id under which it is imported into the log.
    pub ceremony: CeremonyId,
    /// The group whose shares are combined.
    pub group: GroupName,
    /// Who asks.
    pub requested_by: PersonRef,
    /// Who will use the secret, if somebody not enrolled.
    pub used_by: Option<Line>,
    /// The key to which custodians encrypt their shares.
    pub deliver_to: ShareKey,
    /// The ticket.
    pub ticket: Option<Line>,
    /// The digest of the details.
    pub details: Digest,
    /// When it was made, by the requester's clock.
    pub opened: Stamp,
    /// What makes it one of its kind.
    pub salt: Salt,
    /// The version.
    pub credential: CredentialLine,
}

impl Text for Recover {
    const TYPE: &'static str = "recover";

    fn write(&self, lines: &mut Writer) {
        lines.line("vault", &self.vault);
        lines.line("ceremony", &self.ceremony);
        lines.line("group", &self.group);
        lines.line("requested-by", &self.requested_by);
        lines.optional("used-by", self.used_by.as_ref());
        lines.line("deliver-to", &self.deliver_to);
        lines.optional("ticket", self.ticket.as_ref());
        lines.line("details", &self.details);
        lines.line("opened", &self.opened);
        lines.line("salt", &self.salt);
        lines.line("credential", &self.credential);
    }

    fn read(lines: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            vault: lines.line("vault")?,
            ceremony: lines.line("ceremony")?,
            group: lines.line("group")?,
            requested_by: lines.line("requested-by")?,
            used_by: lines.optional("used-by")?,
            deliver_to: lines.line("deliver-to")?,
            ticket: lines.optional("ticket")?,
            details: lines.line("details")?,
            opened: lines.line("opened")?,
            salt: lines.line("salt")?,
            credential: lines.line("credential")?,
        })
    }
}
