//! What custodians have said to one request, and what of it stands: one fold for the ceremony's machine,
//! for the daemon that reads its own store again, and for a client that takes nobody's word.
//!
//! The machine takes each statement as it comes. Everybody else folds the signed texts with [`Said::fold`]
//! and gets what the machine had: a row that says something else was not written by it.
//!
//! # Invariants
//! 1. A statement counts only where it is signed by a token of the person whom it names.
//! 2. A person has one approval or one refusal that stands; the later voice replaces what it answers.
//! 3. What was replaced or taken back never stands again.
//! 4. What is refused changes nothing.
//! 5. What is left out is not seen: a fold over fewer statements is what these say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    charter::Charter,
    check::Check,
    digest::Digest,
    id::{CredentialId, GroupName, PersonId},
    quorum::{Ask, Verdict, Vote, judge},
    reference::CharterRef,
    refusal::Refusal,
    text::{Approval, Decision, Request, SignedText, Text as _},
    world::{Holding, World},
};

/// What stands of what custodians said to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Approvals that stand, in the order in which they came.
    pub votes: Vec<Vote>,
    /// Who refused and has neither approved nor taken that back, with the digests of the refusals.
    pub refused: BTreeMap<PersonId, Digest>,
    /// The digests of approvals and refusals that no longer stand, and never will again.
    pub spent: BTreeSet<Digest>,
}

impl Said {
    /// Folds the statements to a request, in the order in which they came.
    ///
    /// A statement is read by the first of these charters that has its token; name the one in force first,
    /// and those under which somebody may have spoken before. `holds` performs a check.
    pub fn fold<'a>(
        charters: &[&Charter],
        request: &Request,
        statements: impl IntoIterator<Item = &'a SignedText>,
        holds: impl Fn(&Check) -> bool,
    ) -> Self {
        let digest = request.digest();
        let mut said = Self::default();
        for signed in statements {
            let Ok(approval) = signed.parse::<Approval>() else {
                continue;
            };
            // Invariant 1.
            let own = |charter: &&&Charter| {
                let owner = charter.person_of_token(approval.token.id);
                owner.is_some_and(|(owner, _)| owner.id == approval.custodian.id)
                    && Check::signature(charter, approval.token.id, signed)
                        .iter()
                        .all(&holds)
            };
            if approval.request == digest
                && let Some(charter) = charters.iter().find(own)
            {
                // Invariant 4: the machine did not take it either.
                said.take(charter, (request, digest), (&approval, signed.digest()))
                    .ok();
            }
        }
        said
    }

    fn take(
        &mut self,
        charter: &Charter,
        request: (&Request, Digest),
        (approval, text): (&Approval, Digest),
    ) -> Result<(), Refusal> {
        let person = approval.custodian.id;
        match approval.decision {
            Decision::Approve(_) => {
                let vote = Vote::of(charter, request, (approval, text), None, BTreeSet::new())?;
                self.approve(vote)
            }
            Decision::Refuse { .. } => self.refuse(person, text),
            Decision::Retract { earlier } => self.retract(person, earlier),
        }
    }

    /// The approval of this person.
    pub fn vote(&self, person: PersonId) -> Option<&Vote> {
        self.votes.iter().find(|vote| vote.person == person)
    }

    /// What stands of this person.
    pub fn stands(&self, person: PersonId) -> Option<Digest> {
        let vote = self.vote(person).map(|vote| vote.text);
        vote.or_else(|| self.refused.get(&person).copied())
    }

    /// Whether an approval could be taken.
    pub(crate) fn hears(&self, vote: &Vote) -> Result<(), Refusal> {
        let copied = |other: &Vote| other.token == vote.token || other.key == vote.key;
        if self.vote(vote.person).is_some() {
            Err(Refusal::SameCustodian)
        } else if self.votes.iter().any(copied) {
            Err(Refusal::SameToken)
        } else if self.spent.contains(&vote.text) {
            Err(Refusal::SpentApproval)
        } else {
            Ok(())
        }
    }

    /// A custodian approves; a refusal of theirs no longer stands.
    pub fn approve(&mut self, vote: Vote) -> Result<(), Refusal> {
        self.hears(&vote)?;
        self.spent.extend(self.refused.remove(&vote.person));
        self.votes.push(vote);
        Ok(())
    }

    /// A custodian refuses; an approval of theirs no longer stands.
    pub fn refuse(&mut self, person: PersonId, text: Digest) -> Result<(), Refusal> {
        if self.refused.contains_key(&person) || self.spent.contains(&text) {
            return Err(Refusal::SpentApproval);
        }
        self.forget(person);
        self.refused.insert(person, text);
        Ok(())
    }

    /// A custodian takes back what stands of theirs.
    pub fn retract(&mut self, person: PersonId, earlier: Digest) -> Result<(), Refusal> {
        if self.stands(person) != Some(earlier) {
            return Err(Refusal::NotApproved);
        }
        self.forget(person);
        Ok(())
    }

    /// Invariant 3.
    fn forget(&mut self, person: PersonId) {
        self.spent.extend(self.stands(person));
        self.refused.remove(&person);
        self.votes.retain(|vote| vote.person != person);
    }

    /// Whether these groups agree to what opens nothing, by this charter.
    pub fn agree(
        &self,
        (in_force, charter): (CharterRef, &Charter),
        request: &Request,
        needs: BTreeSet<GroupName>,
    ) -> Verdict {
        let ask = Ask {
            requester: request.requested_by.id,
            lines: BTreeMap::new(),
            group: None,
            needs,
            waive: request.waive.clone(),
        };
        let holdings: BTreeMap<CredentialId, Holding> = BTreeMap::new();
        let world = World {
            charter,
            in_force,
            holdings: &holdings,
        };
        judge(world, &ask, &self.votes, |_, _| false)
    }
}
