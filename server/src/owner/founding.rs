//! Founding: charter 1 takes force when every founder has signed it by joining with each of their tokens.

use std::sync::Arc;

use keyturn_vault::{
    charter::{Charter, Person, Token},
    check::Check,
    digest::Digest,
    event::Event,
    id::PersonId,
    reference::{PersonRef, Signer},
    text::{Enrol, Join, SignedText, Text as _},
    time::{Span, Time},
};

use super::{
    core::{Core, put_object},
    txn::{After, Row, Txn},
};
use crate::{chain::Known, refusal::Refused, rows, verify::Verified};

/// How long an invitation stands.
pub const INVITED_FOR: Span = Span::from_days(7);
/// People who are invited and have not joined, at most.
pub const MAX_INVITATIONS: usize = 64;
/// The same of one operator.
pub const MAX_INVITATIONS_OF_ONE: usize = 16;

/// How far the founding has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The entry `vault.founded` of this very join; none while founders are awaited.
    pub entry: Option<u64>,
    /// Whether charter 1 is in force.
    pub founded: bool,
    /// Who has not joined yet, or not with every token.
    pub awaited: Vec<PersonRef>,
}

impl Core {
    /// A founder joins; the same again changes nothing.
    pub fn join(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        join: &Join,
    ) -> Result<Founding, Refused> {
        verified.holds(&Check::text(&self.known.charter, &verified.signed))?;
        let token = join.token.id;
        if self.vault.in_force.is_some() {
            return if self.vault.joins.get(&token) == Some(&verified.signed) {
                Ok(self.founding(None))
            } else {
                Err(Refused::Denied(
                    "this vault is founded already; a charter change adds people and tokens",
                ))
            };
        }
        self.invited(join)?;
        let before = self.vault.clone();
        self.vault.joins.insert(token, verified.signed);
        txn.touch(Row::Vault, move |core| core.vault = before);
        if !self.awaited().is_empty() {
            return Ok(self.founding(None));
        }
        let event = Event::VaultFounded {
            charter: self.vault.genesis,
            joins: self.vault.joins.values().cloned().collect(),
        };
        let entry = self.log(txn, &join.person.to_string(), &event)?;
        self.vault.in_force = Some(self.vault.genesis);
        let founders = self.known.charter.persons.iter();
        let proven: Vec<_> = founders
            .flat_map(|person| person.tokens.iter().map(|token| (person.id, token.id)))
            .collect();
        for (person, token) in proven {
            self.saw(txn, Signer::Token(token), person);
        }
        let before = Arc::clone(&self.known);
        self.known = Arc::new(Known {
            founded: true,
            ..Known::clone(&before)
        });
        txn.remember(move |core| core.known = before);
        txn.after.push(After::Charter);
        Ok(self.founding(Some(entry)))
    }

    /// An operator brings somebody's enrolment; the nonce is for its share key alone.
    pub fn invite(
        &mut self,
        txn: &mut Txn,
        enrolment: SignedText,
        enrol: &Enrol,
        nonce: Digest,
        (attestation, by): (Option<&[u8]>, PersonId),
    ) -> Result<Time, Refused> {
        self.founded()?;
        let mut tokens = self
            .known
            .charter
            .persons
            .iter()
            .flat_map(|person| &person.tokens);
        let taken = |token: &Token| {
            token.id == enrol.token.id
                || token.approval_key == enrol.approval_key
                || token.share_key == enrol.share_key
        };
        if tokens.any(taken) {
            return Err(Refused::Taken(
                "the charter has a token with this id or key already",
            ));
        }
        self.forget_invitations(txn);
        let (mut all, mut own) = (0_usize, 0_usize);
        for (person, invitation) in &self.vault.invitations {
            if *person != enrol.person.id {
                all = all.saturating_add(1);
                own = own.saturating_add(usize::from(invitation.by == by));
            }
        }
        if all >= MAX_INVITATIONS || own >= MAX_INVITATIONS_OF_ONE {
            return Err(Refused::Limit(
                "as many people are invited as the vault, or one operator, may invite at a time; let some \
                 join, or wait until their invitations end",
            ));
        }
        let now = self.now();
        if let Some(attestation) = attestation {
            put_object(txn, attestation);
        }
        let before = self.vault.clone();
        let invitation = rows::Invitation {
            nonce,
            enrolment,
            by,
            until: now.lived.after(INVITED_FOR.ms()),
        };
        self.vault.invitations.insert(enrol.person.id, invitation);
        txn.touch(Row::Vault, move |core| core.vault = before);
        Ok(Time::from_ms(
            now.wall.ms().saturating_add(INVITED_FOR.ms()),
        ))
    }

    /// Forgets invitations whose time is over.
    pub(super) fn forget_invitations(&mut self, txn: &mut Txn) {
        let now = self.now().lived;
        let over = |one: &rows::Invitation| one.until <= now;
        if self.vault.invitations.values().any(over) {
            let before = self.vault.clone();
            self.vault.invitations.retain(|_, one| !over(one));
            txn.touch(Row::Vault, move |core| core.vault = before);
        }
    }

    /// The invitation of somebody after the founding, while it stands.
    fn standing(&self, person: PersonId) -> Option<&rows::Invitation> {
        let now = self.now().lived;
        let invitation = self.vault.invitations.get(&person)?;
        (invitation.until > now).then_some(invitation)
    }

    /// The enrolment with which somebody was invited after the founding.
    pub fn invitation(&self, person: PersonId) -> Result<SignedText, Refused> {
        let invited = self.standing(person);
        let invited = invited.map(|invitation| invitation.enrolment.clone());
        // The same join again finds what it was taken with.
        let joined = || {
            let mut joined = self.vault.joined.iter().rev();
            let of = |one: &&rows::Joined| {
                Join::parse(&one.join.text).is_ok_and(|join| join.person.id == person)
            };
            joined.find(of).map(|one| one.enrolment.clone())
        };
        invited
            .or_else(joined)
            .ok_or(Refused::Denied(
                "nobody is invited with this id, or the invitation has ended; an operator invites again",
            ))
    }

    /// Somebody who was invited after the founding proves their keys; the same again changes nothing.
    pub fn join_later(
        &mut self,
        txn: &mut Txn,
        verified: Verified,
        join: &Join,
    ) -> Result<u64, Refused> {
        let mut known = self.vault.joined.iter();
        if let Some(known) = known.find(|known| known.join == verified.signed) {
            return Ok(known.entry);
        }
        let enrolment = self.invitation(join.person.id)?;
        let enrol = Enrol::parse(&enrolment.text).map_err(|_| Refused::Row)?;
        let nonce = self.standing(join.person.id).map(|one| one.nonce);
        if join.vault != self.known.charter.origin
            || join.genesis != self.vault.genesis.digest
            || join.charter != self.known.reference
        {
            return Err(Refused::Stale(
                "this join is for another vault or another charter",
            ));
        }
        if verified.key != enrol.approval_key
            || verified.signed.signer != Signer::Token(enrol.token.id)
            || join.enrolment != enrolment.digest()
            || join.person != enrol.person
            || join.token != enrol.token
        {
            return Err(Refused::Denied(
                "this join is not by the token that was invited",
            ));
        }
        if Some(Digest::of(join.nonce.to_string().as_bytes())) != nonce {
            return Err(Refused::Denied(
                "the nonce is wrong: the share key did not decrypt this welcome file",
            ));
        }
        let event = Event::CharterJoined {
            enrolment: enrolment.clone(),
            join: verified.signed.clone(),
        };
        let entry = self.log(txn, &join.person.to_string(), &event)?;
        self.saw(txn, verified.signed.signer, join.person.id);
        let before = self.vault.clone();
        self.vault.invitations.remove(&join.person.id);
        self.vault.joined.push(rows::Joined {
            enrolment,
            join: verified.signed,
            entry,
        });
        txn.touch(Row::Vault, move |core| core.vault = before);
        Ok(entry)
    }

    /// What the join text says is what this token enrolled with.
    fn invited(&self, join: &Join) -> Result<(), Refused> {
        let charter: &Charter = &self.known.charter;
        let founder = self
            .vault
            .founders
            .get(&join.token.id)
            .ok_or(Refused::Denied("no founder has a token with this id"))?;
        if join.vault != charter.origin
            || join.charter != self.vault.genesis
            || join.genesis != self.vault.genesis.digest
        {
            return Err(Refused::Stale(
                "this join is for another vault or another charter",
            ));
        }
        if join.enrolment != founder.enrolment {
            return Err(Refused::Denied(
                "this is not the enrolment that the charter was made from",
            ));
        }
        let (owner, token) = charter
            .person_of_token(join.token.id)
            .ok_or(Refused::UnknownSigner)?;
        if owner.reference() != join.person || token.reference() != join.token {
            return Err(Refused::Denied("this token is not this person's"));
        }
        if Digest::of(join.nonce.to_string().as_bytes()) != founder.nonce {
            return Err(Refused::Denied(
                "the nonce is wrong: the share key did not decrypt this welcome file",
            ));
        }
        Ok(())
    }

    fn awaited(&self) -> Vec<PersonRef> {
        let missing = |token: &Token| !self.vault.joins.contains_key(&token.id);
        let persons = self.known.charter.persons.iter();
        persons
            .filter(|person| person.tokens.iter().any(missing))
            .map(Person::reference)
            .collect()
    }

    /// How far the founding has come.
    pub fn founding(&self, entry: Option<u64>) -> Founding {
        Founding {
            entry,
            founded: self.vault.in_force.is_some(),
            awaited: self.awaited(),
        }
    }
}

/// Reads a join text.
pub fn parse(text: &str) -> Result<Join, Refused> {
    Join::parse(text).map_err(|error| Refused::Malformed(error.to_string()))
}
