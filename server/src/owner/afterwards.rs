//! What is said and done when a ceremony is over: reviews, and the erasure of free text.

use std::sync::Arc;

use keyturn_vault::{
    ceremony,
    check::Check,
    digest::Digest,
    event::Event,
    id::CeremonyId,
    reference::PersonRef,
    refusal::Refusal,
    text::{Purpose, Review},
};

use super::{
    ceremony::DAEMON,
    core::Core,
    txn::{Row, Txn},
};
use crate::{refusal::Refused, rows, store::Name, verify::Verified};

/// Most reviews of one ceremony.
const MAX_REVIEWS: usize = 64;

impl Core {
    /// A review of a ceremony; the same one again changes nothing.
    pub fn review(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        review: &Review,
        note: String,
        by: &PersonRef,
    ) -> Result<(), Refused> {
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        let id = review.ceremony;
        let live = self.ceremony(id)?;
        if review.reviewer != *by {
            return Err(Refused::Denied("a review is handed in by its reviewer"));
        }
        if review.request != live.machine.row.request || review.vault != live.request.vault {
            return Err(Refusal::WrongRequest.into());
        }
        if !live.machine.row.state.is_final() {
            return Err(Refusal::NotNow.into());
        }
        ceremony::reviews(&self.known.charter, &live.machine.row.took_part(), by.id)?;
        let reviews = &live.row.reviews;
        if reviews.iter().any(|said| said.signed == verified.signed) {
            return Ok(());
        }
        if reviews.len() >= MAX_REVIEWS {
            return Err(Refused::Limit(
                "this ceremony has as many reviews as are kept",
            ));
        }
        self.saw(txn, verified.signed.signer, by.id);
        let said = rows::Statement::new(verified.signed.clone(), note, self.now().wall);
        self.said(txn, id, |row| row.reviews.push(said));
        let event = Event::CeremonyReviewed {
            ceremony: id,
            review: verified.signed,
        };
        self.log(txn, &by.to_string(), &event).map(drop)
    }

    /// Whether a ceremony has this free text: its details, the reason of a refusal, the note of a review.
    pub(super) fn has_text(&self, ceremony: CeremonyId, text: Digest) -> Result<(), Refused> {
        let live = self.ceremony(ceremony)?;
        let is = |said: &rows::Statement| Digest::of(said.details.as_bytes()) == text;
        let mut said = live.row.statements.iter().chain(&live.row.reviews);
        if live.request.details == text || said.any(is) {
            Ok(())
        } else {
            Err(Refusal::WrongSubject.into())
        }
    }

    /// A free text and its salt are deleted.
    pub(super) fn erase(
        &mut self,
        txn: &mut Txn,
        by: CeremonyId,
        erase: &Purpose,
    ) -> Result<(), Refused> {
        let Purpose::Erase { ceremony, details } = *erase else {
            return Err(Refusal::WrongSubject.into());
        };
        if self.ceremony(ceremony)?.request.details == details {
            txn.delete(Name::Details(ceremony).key());
        }
        self.said(txn, ceremony, |row| {
            for said in row.statements.iter_mut().chain(&mut row.reviews) {
                if Digest::of(said.details.as_bytes()) == details {
                    said.details.clear();
                }
            }
        });
        let event = Event::DetailsErased {
            of: ceremony,
            details,
            ceremony: by,
        };
        self.log(txn, DAEMON, &event).map(drop)
    }

    /// Changes what people said to a ceremony.
    fn said(&mut self, txn: &mut Txn, id: CeremonyId, change: impl FnOnce(&mut rows::Ceremony)) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let before = Arc::clone(live);
        let row = &mut Arc::make_mut(live).row;
        change(row);
        row.revision = row.revision.saturating_add(1);
        txn.touch(Row::Ceremony(id), move |core| {
            drop(core.live.insert(id, before));
        });
    }
}
