//! Proposals: documents that somebody brought and that no request has named yet.
//!
//! A charter or definition is proposed first and named by a request afterwards. Until then it is nobody's
//! business: it is kept beside the documents, for a day, and so many of them. The request that names it
//! makes it a document of the vault in the transaction that logs the request.
//!
//! # Invariants
//! 1. What is kept is in the index row, in the same transaction: a crash leaves nothing that is never
//!    forgotten.
//! 2. One person keeps at most [`MAX_OF_ONE`], all together [`MAX`] of at most [`MAX_BYTES`].

use keyturn_vault::{
    digest::Digest,
    id::PersonId,
    jcs::Document as _,
    text::{Change, Purpose, Request},
    time::Span,
};

use super::{
    change::Proposal,
    core::{Core, put_object},
    txn::{Row, Txn},
};
use crate::{
    refusal::Refused,
    rows::{self, ENTRY_FORMAT},
    store::{Name, Store},
};

/// How long a proposal waits for a request that names it.
pub(super) const KEPT_FOR: Span = Span::from_hours(24);
/// Proposals of one person at most.
pub(super) const MAX_OF_ONE: usize = 8;
/// Proposals of everybody at most.
pub(super) const MAX: usize = 64;
/// Bytes of all proposals at most.
pub(super) const MAX_BYTES: u64 = 8 << 20;
/// Parsed proposals in memory at most.
const MAX_CACHED: usize = 64;

impl Proposal {
    fn bytes(&self) -> Result<Vec<u8>, Refused> {
        let bytes = match self {
            Self::Charter(charter) => charter.to_bytes(),
            Self::Definition(definition) => definition.to_bytes(),
            Self::Restore(document) => document.to_bytes(),
        };
        bytes.map_err(|error| Refused::Malformed(error.to_string()))
    }
}

impl Core {
    /// Has a proposal at hand that was read or judged.
    pub(super) fn propose(&mut self, digest: Digest, proposal: Proposal) {
        if self.proposals.len() >= MAX_CACHED {
            self.proposals.clear();
        }
        self.proposals.insert(digest, proposal);
    }

    /// Keeps a proposal until a request names it (invariant 2); the same again is kept for longer.
    pub(super) fn keep_proposal(
        &mut self,
        txn: &mut Txn,
        by: PersonId,
        proposal: Proposal,
    ) -> Result<Digest, Refused> {
        self.forget_proposals(txn);
        let bytes = proposal.bytes()?;
        let digest = Digest::of(&bytes);
        let before = self.kept.clone();
        let kept = &mut self.kept.kept;
        kept.retain(|one| one.digest != digest);
        let own = kept.iter().filter(|one| one.by == by).count();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let all = kept.iter().map(|one| one.bytes);
        let all = all.fold(length, u64::saturating_add);
        if own >= MAX_OF_ONE || kept.len() >= MAX || all > MAX_BYTES {
            self.kept = before;
            return Err(Refused::Limit(
                "as many proposals wait for a request as the vault, or one person, may have; make a request \
                 for one, or wait a day until they are forgotten",
            ));
        }
        let until = self.now().lived.after(KEPT_FOR.ms());
        self.kept.kept.push(rows::Proposed {
            digest,
            by,
            until,
            bytes: length,
        });
        txn.touch(Row::Proposals, move |core| core.kept = before);
        let key = Name::Proposal(digest).key();
        txn.put(key, [&[ENTRY_FORMAT], bytes.as_slice()].concat());
        self.propose(digest, proposal);
        Ok(digest)
    }

    /// Forgets what nobody named in time.
    pub(super) fn forget_proposals(&mut self, txn: &mut Txn) {
        let now = self.now().lived;
        let over = |one: &&rows::Proposed| one.until <= now;
        let forgotten: Vec<_> = self.kept.kept.iter().filter(over).copied().collect();
        for one in forgotten {
            self.let_go(txn, one.digest);
            self.proposals.remove(&one.digest);
        }
    }

    /// A request names a proposal: it becomes a document of the vault.
    pub(super) fn named(&mut self, txn: &mut Txn, request: &Request) -> Result<(), Refused> {
        let digest = match &request.purpose {
            Purpose::Change(Change::Charter(new)) => new.digest,
            Purpose::Change(Change::Definition { new, .. }) => *new,
            Purpose::Unseal
            | Purpose::Drill
            | Purpose::Reshare(_)
            | Purpose::Extend { .. }
            | Purpose::AcceptRestore(_)
            | Purpose::Erase { .. } => return Ok(()),
        };
        let proposal = self.proposals.get(&digest);
        let bytes = proposal.ok_or(Refused::Row)?.bytes()?;
        put_object(txn, &bytes);
        self.let_go(txn, digest);
        Ok(())
    }

    fn let_go(&mut self, txn: &mut Txn, digest: Digest) {
        if !self.kept.kept.iter().any(|one| one.digest == digest) {
            return;
        }
        let before = self.kept.clone();
        self.kept.kept.retain(|one| one.digest != digest);
        txn.touch(Row::Proposals, move |core| core.kept = before);
        txn.delete(Name::Proposal(digest).key());
    }

    /// The bytes of a proposal that still waits.
    pub(super) async fn proposal(
        &self,
        store: &dyn Store,
        digest: Digest,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let now = self.now().lived;
        let waits = |one: &rows::Proposed| one.digest == digest && one.until > now;
        if !self.kept.kept.iter().any(waits) {
            return Ok(None);
        }
        let found = store.get(&Name::Proposal(digest).key()).await?;
        let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
        Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
    }
}
