//! What a row of the store is worth: as much as people signed. Whoever can write to the store makes no
//! quorum, adds no approval, and changes neither what was asked for nor of whom.
//!
//! # Invariants
//! 1. A ceremony that is not over was asked for by the person whom its request names, with a key of the
//!    charter that it names, and its row asks for exactly that. Otherwise it is as if it were not there.
//! 2. Its votes are those of the statements that custodians signed, whatever its row says.
//! 3. A join is signed with the key that it is about, as is the enrolment that it names.
//! 4. What is found to be otherwise is told, and stays told until the next start.
//! 5. Which groups must agree to what opens nothing, and how long they wait, is asked again by
//!    `super::change` when it is to take force. When a wait is over, and the order in which statements came,
//!    are the daemon's own word: the log has them too, and an auditor looks there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keyturn_proto::v1;
use keyturn_vault::{
    change::Joined,
    charter::Charter,
    digest::Digest,
    id::CeremonyId,
    reference::{CharterRef, Signer},
    said::Said,
    text::{Enrol, Join, Request, Text as _},
};

use super::core::Core;
use crate::{refusal::Refused, rows, store::Store, verify};

/// The most rows of which it is told that they are not what was signed.
const MAX_TOLD: usize = 64;

impl Core {
    /// Holds the row of a ceremony that is not over against what was signed (invariants 1 and 2).
    pub(super) async fn as_signed(
        &mut self,
        store: &dyn Store,
        id: CeremonyId,
        request: &Request,
        row: &mut rows::Ceremony,
    ) -> Result<(), Refused> {
        let charters = self.since(store, request.charter).await?;
        let made_under = charters.last().ok_or(Refused::Row)?;
        let signed = verify::text_by(made_under, row.request.clone(), request.requested_by.id);
        if signed.is_err()
            || request.ceremony != id
            || request.vault != made_under.origin
            || !row.row.is_of(request)
        {
            return Err(Refused::Row);
        }
        let charters: Vec<&Charter> = charters.iter().map(AsRef::as_ref).collect();
        let statements = row.statements.iter().map(|statement| &statement.signed);
        let mut said = Said::fold(&charters, request, statements, verify::holds);
        // How an approval came is in no text.
        for vote in &mut said.votes {
            let known = row.row.said.votes.iter();
            if let Some(known) = known.into_iter().find(|known| known.text == vote.text) {
                vote.device = known.device;
                vote.broken.clone_from(&known.broken);
            }
        }
        if row.row.said != said {
            self.distrust(format!("ceremony {id}"));
            row.row.said = said;
        }
        Ok(())
    }

    /// The charters that were in force since this one was, the newest first.
    async fn since(
        &mut self,
        store: &dyn Store,
        from: CharterRef,
    ) -> Result<Vec<Arc<Charter>>, Refused> {
        let mut charters = vec![Arc::clone(&self.known.charter)];
        let mut known = self.vault.charters.clone();
        let mut at = self.known.reference;
        while at != from && at.index > from.index {
            known.retain(|later| later.charter.index < at.index);
            at = known.last().map_or(self.vault.genesis, |last| last.charter);
            charters.push(self.charter_at(store, at).await?);
        }
        (at == from).then_some(charters).ok_or(Refused::Row)
    }

    /// The keys with which people joined whom a charter names (invariant 3).
    pub(super) fn joined(&self, named: &BTreeSet<Digest>) -> BTreeMap<Digest, Joined> {
        let origin = &self.known.charter.origin;
        let proven = |row: &rows::Joined| {
            let enrolment = Enrol::parse(&row.enrolment.text).ok()?;
            let join = Join::parse(&row.join.text).ok()?;
            let signer = Signer::Token(enrolment.token.id);
            let key = &enrolment.approval_key;
            let signed = [&row.enrolment, &row.join].into_iter().all(|text| {
                text.signer == signer && verify::text_with(key.clone(), text.clone()).is_ok()
            });
            let whole = join.vault == *origin
                && join.enrolment == row.enrolment.digest()
                && join.person == enrolment.person
                && join.token == enrolment.token;
            (signed && whole).then_some(Joined { join, enrolment })
        };
        let named = self.vault.joined.iter().filter_map(|row| {
            let digest = row.join.digest();
            named.contains(&digest).then_some((digest, row))
        });
        let mut joined = BTreeMap::new();
        for (digest, row) in named {
            match proven(row) {
                Some(proven) => drop(joined.insert(digest, proven)),
                None => {
                    tracing::error!(join = %digest, "a join in the store is not signed by the token that it is about; nobody joins by it");
                }
            }
        }
        joined
    }

    /// A row of the store says something else than what was signed: tells people (invariant 4).
    pub(super) fn distrust(&mut self, what: String) {
        tracing::error!(
            row = what,
            "a row of the store is not what was signed; it counts for nothing"
        );
        if self.distrusted.len() < MAX_TOLD {
            self.distrusted.insert(what);
        }
    }

    /// The rows that are not what was signed.
    pub fn distrusted(&self) -> Option<v1::Finding> {
        let rows: Vec<_> = self.distrusted.iter().map(String::as_str).collect();
        (!rows.is_empty()).then(|| v1::Finding {
            severity: v1::Severity::Problem.into(),
            code: "store-forged".to_owned(),
            message: format!(
                "the store says something else than what was signed, and counts for nothing there: {}",
                rows.join(", ")
            ),
            hint: "find out who writes to the store; restore it from a backup if it is damaged"
                .to_owned(),
        })
    }
}
