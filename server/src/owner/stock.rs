//! What a ceremony's desk needs to know.

use std::sync::Arc;

use keyturn_vault::{
    id::CeremonyId, manifest::Manifest, refusal::Refusal, text::Request, world::VersionId,
};

use super::core::Core;
use crate::{desk::Desk, refusal::Refused};

/// A request, and the manifests of what it names.
type Asked = (Arc<Request>, Vec<(VersionId, Arc<Manifest>)>);

impl Core {
    /// Sets up a desk, unless somebody was faster or the ceremony has ended.
    pub fn set_up_desk(&self, id: CeremonyId, desk: Desk) -> Result<Arc<Desk>, Refused> {
        if self.ceremony(id)?.machine.row.state.is_final() {
            return Err(Refusal::Decided.into());
        }
        Ok(self.desks.set_up(id, desk))
    }

    /// What a desk for this ceremony needs, from memory; the ciphertexts come from the store.
    pub fn stock(&self, id: CeremonyId) -> Result<Asked, Refused> {
        let live = self.ceremony(id)?;
        if live.machine.row.state.is_final() {
            return Err(Refusal::Decided.into());
        }
        let manifests = live.machine.row.ask.lines.keys().filter_map(|version| {
            let sealed = self
                .credential(version.credential)
                .ok()?
                .holding
                .versions
                .get(&version.version)?;
            Some((*version, Arc::clone(&sealed.manifest)))
        });
        Ok((Arc::clone(&live.request), manifests.collect()))
    }
}
