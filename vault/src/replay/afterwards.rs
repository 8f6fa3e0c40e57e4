//! What is said and done when a ceremony is over: reviews, and the erasure of free text.

use super::{At, Digest, Fault, Replay, fault, read};
use crate::{
    ceremony,
    check::Check,
    event::Event,
    id::CeremonyId,
    refusal::Refusal,
    text::{self, Review, SignedText},
};

impl Replay {
    /// Somebody who had no part in it has looked at it.
    pub(super) fn reviewed(
        &mut self,
        at: &mut At<'_>,
        id: CeremonyId,
        signed: &SignedText,
    ) -> Result<Vec<Event>, Fault> {
        let review: Review = read(signed)?;
        self.signed(at, signed, review.reviewer.id)?;
        at.out.checks.push(Check::Head(review.log));
        let request = self.request_of(id).ok_or_else(|| fault("unknown"))?;
        if review.ceremony != id || review.request != request {
            return Err(fault("text"));
        }
        let part = match (self.ceremonies.get(&id), self.ended.get(&id)) {
            (Some(known), _) if !known.ceremony.row.state.is_final() => {
                return Err(Refusal::NotNow.into());
            }
            (Some(known), _) => known.ceremony.row.took_part(),
            (None, Some(ended)) => ended.part.clone(),
            (None, None) => return Err(fault("unknown")),
        };
        ceremony::reviews(self.world()?.charter, &part, review.reviewer.id)?;
        if let Some(note) = review.note {
            at.out.checks.push(Check::Details(note));
            self.wrote(id, note);
        }
        Ok(at.entry())
    }

    /// Remembers a free text of a ceremony.
    pub(super) fn wrote(&mut self, id: CeremonyId, text: Digest) {
        if let Some(known) = self.ceremonies.get_mut(&id) {
            known.texts.insert(text);
        } else if let Some(ended) = self.ended.get_mut(&id) {
            ended.texts.insert(text);
        }
    }

    /// A free text goes: one that this ceremony has.
    pub(super) fn erased(
        &mut self,
        at: &At<'_>,
        by: CeremonyId,
        of: CeremonyId,
        text: Digest,
    ) -> Result<Vec<Event>, Fault> {
        let erase = text::Purpose::Erase {
            ceremony: of,
            details: text,
        };
        self.take_decided(by, &erase)?;
        let open = self.ceremonies.get(&of).map(|known| &known.texts);
        let texts = open.or_else(|| self.ended.get(&of).map(|ended| &ended.texts));
        if texts.is_some_and(|texts| texts.contains(&text)) {
            Ok(at.entry())
        } else {
            Err(fault("unknown"))
        }
    }
}
