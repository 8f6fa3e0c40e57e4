//! The charter's chain, each change with the signatures of those who agreed to it.
//!
//! # Invariants
//! 1. A charter is followed when the governing group and every group that it touches agreed, as the charter
//!    before it has them.
//! 2. Where only groups are missing that it touches, it is followed when its entry in the log is as much later
//!    than the governing group's agreement as the wait is long. That those groups had not enough usable
//!    members, the whole log tells: `keyturn audit verify` looks there.
//! 3. A token that a charter brings is the one that joined: approval key, share key, serial, attestation.

use std::collections::BTreeMap;

use keyturn_proto::v1;
use keyturn_vault::{
    change::{self, Joined},
    charter::{Chain, Charter, touched_groups},
    digest::Digest,
    event::Event,
    jcs::Document as _,
    quorum::Missing,
    reference::{CharterRef, Signer},
    text::{Approval, Change, Join, Purpose, Text as _},
    time::{Span, Time},
};

use super::{
    VerifyError,
    agreement::{Claim, Judged, Record},
    log, wire,
};

/// How far the clocks of custodians and daemon may be apart where a wait of days is judged.
const SKEW: Span = Span::from_hours(1);

/// Begins with the pinned first charter.
pub fn begin(bytes: &[u8], genesis: Digest) -> Result<Chain, VerifyError> {
    Chain::begin(bytes, genesis).map_err(|source| VerifyError::Chain { index: 1, source })
}

/// Adds a charter that was verified before.
pub fn push(chain: &mut Chain, bytes: &[u8]) -> Result<(), VerifyError> {
    let index = chain
        .newest()
        .map_or(1, |(newest, _)| newest.index.saturating_add(1));
    chain
        .push(bytes)
        .map_err(|source| VerifyError::Chain { index, source })
}

/// Adds the next charter, having checked that those agreed who must.
pub fn follow(chain: &mut Chain, record: v1::CharterRecord) -> Result<Vec<u8>, VerifyError> {
    let in_force = chain
        .newest()
        .ok_or(VerifyError::Missing("the first charter"))?;
    let new = Charter::from_bytes(&record.charter)
        .map_err(|source| VerifyError::Document("the charter", source))?;
    agreed(chain, in_force, &new, &record)?;
    joined(in_force.1, &new, &record)?;
    push(chain, &record.charter)?;
    Ok(record.charter)
}

/// The governing group and every group that the change touches agreed, as the old charter has them
/// (invariant 1); or the governing group alone, after the long wait (invariant 2).
fn agreed(
    chain: &Chain,
    in_force: (CharterRef, &Charter),
    new: &Charter,
    record: &v1::CharterRecord,
) -> Result<(), VerifyError> {
    let (old_ref, old) = in_force;
    let governing = change::governing(old);
    let mut needs = touched_groups(old, new);
    needs.extend(governing.iter().cloned());
    let reference = CharterRef {
        index: new.index,
        digest: Digest::of(&record.charter),
    };
    let claim = Claim {
        what: format!("charter {}", new.index),
        purpose: Purpose::Change(Change::Charter(reference)),
        in_force,
        needs,
    };
    let said = Record {
        request: record.request.clone(),
        statements: record.approvals.clone(),
    };
    let judged = claim.judge(chain, &said)?;
    // A change is made for one charter, and is stale after any other.
    if judged.request.charter != old_ref {
        return Err(VerifyError::Other {
            what: claim.what,
            by: "its request",
        });
    }
    let alone = |missing: &Missing| {
        let group = missing.group.as_ref();
        group.is_some_and(|group| !governing.contains(group))
    };
    if judged.verdict.reached()
        || (judged.verdict.missing.iter().all(alone) && waited(old, reference, &judged, record)?)
    {
        Ok(())
    } else {
        Err(claim.lacks(&judged.verdict))
    }
}

/// Invariant 2: whether the charter took force so long after the governing group had agreed that a group
/// without enough usable members had its time to speak up.
fn waited(
    old: &Charter,
    reference: CharterRef,
    judged: &Judged,
    record: &v1::CharterRecord,
) -> Result<bool, VerifyError> {
    let Some(group) = old.governing() else {
        return Ok(false);
    };
    let stands = |approval: &Approval| {
        let vote = judged.said.vote(approval.custodian.id);
        vote.is_some_and(|vote| {
            vote.text == approval.digest() && group.members.contains(&vote.person)
        })
    };
    let parsed = judged.statements.iter().filter_map(|it| it.parse().ok());
    let mut agreed: Vec<_> = parsed
        .filter(stands)
        .map(|approval: Approval| approval.signed.time())
        .collect();
    agreed.sort_unstable();
    let last = usize::from(group.k.max(1)).saturating_sub(1);
    let Some(agreed) = agreed.get(last) else {
        return Ok(false);
    };
    let proven = log::receipt(record.in_force.clone(), &log::vkey(&old.log_key)?)?;
    let entry = Event::CharterInForce {
        charter: reference,
        ceremony: judged.request.ceremony,
    };
    if proven.event != entry {
        return Err(VerifyError::Other {
            what: format!("the entry of charter {}", reference.index),
            by: "its receipt",
        });
    }
    let in_force: Option<Time> = proven.time.parse().ok();
    let over = agreed
        .ms()
        .saturating_add(change::BYPASS_WAIT.ms())
        .saturating_sub(SKEW.ms());
    Ok(in_force.is_some_and(|in_force| in_force.ms() >= over))
}

/// Every token that the charter brings joined with these very keys, and every join that it names is there
/// (invariant 3).
fn joined(old: &Charter, new: &Charter, record: &v1::CharterRecord) -> Result<(), VerifyError> {
    let mut enrolments = BTreeMap::new();
    for enrolment in &record.enrolments {
        let signed = wire::signed_text(Some(enrolment.clone()), "an enrolment")?;
        enrolments.insert(signed.digest(), super::enrolment(&signed)?);
    }
    let mut joined = BTreeMap::new();
    for join in &record.joins {
        let signed = wire::signed_text(Some(join.clone()), "a join")?;
        let join: Join = signed
            .parse()
            .map_err(|source| VerifyError::Text("a join".to_owned(), source))?;
        if signed.signer != Signer::Token(join.token.id) {
            return Err(VerifyError::Person("a join".to_owned()));
        }
        super::text(new, &signed, "a join")?;
        let enrolment = enrolments.get(&join.enrolment);
        let enrolment = enrolment
            .ok_or(VerifyError::Missing("an enrolment"))?
            .clone();
        joined.insert(signed.digest(), Joined { join, enrolment });
    }
    let other = |what: String| VerifyError::Other {
        what,
        by: "the charter",
    };
    if !new.joins.iter().all(|join| joined.contains_key(join)) {
        return Err(other("a join".to_owned()));
    }
    match change::unjoined(old, new, &joined) {
        Some(token) => Err(other(format!("the join of token {}", token.reference()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use keyturn_hsm::device::DeviceKey;
    use keyturn_vault::{
        charter::Token,
        digest::Salt,
        id::TokenId,
        key::PublicKey,
        reference::TokenKind,
        text::{Decision, Enrol, Request, SignedText},
    };

    use super::*;
    use crate::verify::{definition::tests::Scene, sealed::tests::logged};

    /// The time of the entry that `logged` makes.
    const IN_FORCE: &str = "2026-11-21T02:17:00.123Z";

    /// The charter after the golden one, before it is changed.
    fn next(scene: &Scene) -> Charter {
        let (reference, old) = scene.chain.newest().unwrap();
        let mut new = old.clone();
        new.index = 2;
        new.previous = Some(reference.digest);
        new
    }

    fn request(scene: &Scene, new: &Charter) -> Request {
        let mut request = scene.request("alice", &scene.first());
        request.purpose = Purpose::Change(Change::Charter(reference(new)));
        request
    }

    fn reference(charter: &Charter) -> CharterRef {
        CharterRef {
            index: charter.index,
            digest: Digest::of(&charter.to_bytes().unwrap()),
        }
    }

    /// A record of a charter to which these people agreed so long before it took force.
    fn record(scene: &Scene, new: &Charter, people: &[&str], before: Span) -> v1::CharterRecord {
        let request = request(scene, new);
        let ceremony = request.ceremony;
        let signed = scene.text(scene.device("alice"), &request);
        let at: Time = IN_FORCE.parse().unwrap();
        let yes = |name: &&str| {
            let mut persons = scene.charter().persons.iter();
            let person = persons.find(|person| person.name.to_string() == *name);
            let (person, token) = person.map(|one| (one, &one.tokens[0])).unwrap();
            let approval = Approval {
                request: request.digest(),
                custodian: person.reference(),
                token: token.reference(),
                decision: Decision::Approve(Vec::new()),
                charter: None,
                log: None,
                signed: Time::from_ms(at.ms().saturating_sub(before.ms())).stamp(),
            };
            scene.text(Signer::Token(token.id), &approval)
        };
        let approvals: Vec<SignedText> = people.iter().map(yes).collect();
        let event = Event::CharterInForce {
            charter: reference(new),
            ceremony,
        };
        v1::CharterRecord {
            index: 2,
            charter: new.to_bytes().unwrap(),
            founders: Vec::new(),
            request: Some(wire::wire_text(&signed)),
            approvals: approvals.iter().map(wire::wire_text).collect(),
            joins: Vec::new(),
            in_force: Some(logged(&scene.log, &event)),
            enrolments: Vec::new(),
        }
    }

    fn followed(scene: &Scene, record: v1::CharterRecord) -> bool {
        follow(&mut scene.chain.clone(), record).is_ok()
    }

    #[test]
    fn a_group_is_replaced_without_it_only_after_the_wait() {
        let scene = Scene::set();
        let mut new = next(&scene);
        let group = new
            .groups
            .iter_mut()
            .find(|group| group.rules.one_from_each.len() == 2);
        group.unwrap().rules.one_from_each.clear();
        let (all, few): (&[&str], &[&str]) = (&["bob", "carol", "dave"], &["bob", "carol"]);
        let (long, short) = (Span::from_days(7), Span::from_days(6));
        for (name, people, before, good) in [
            ("with its members, at once", all, Span::ZERO, true),
            (
                "without a team of its members, at once",
                few,
                Span::ZERO,
                false,
            ),
            ("invariant 2: too early", few, short, false),
            ("invariant 2: after the wait", few, long, true),
            (
                "nor without the governing group, ever",
                &few[..1],
                long,
                false,
            ),
        ] {
            let record = record(&scene, &new, people, before);
            assert_eq!(followed(&scene, record), good, "{name}");
        }
        let mut unproven = record(&scene, &new, few, long);
        unproven.in_force = None;
        assert!(!followed(&scene, unproven), "without the entry");
        let mut other = record(&scene, &new, few, long);
        let event = Event::CharterInForce {
            charter: scene.chain.newest().unwrap().0,
            ceremony: request(&scene, &new).ceremony,
        };
        other.in_force = Some(logged(&scene.log, &event));
        assert!(
            !followed(&scene, other),
            "with the entry of another charter"
        );
    }

    #[test]
    fn a_token_is_the_one_that_joined() {
        let mut scene = Scene::set();
        let key = DeviceKey::generate("x").unwrap();
        let public = PublicKey::from_der(key.public().spki()).unwrap();
        let id = TokenId::from_parts(Time::from_ms(1), [9; 10]);
        scene.keys.insert(Signer::Token(id), key);
        let dave = scene.charter().persons.iter();
        let dave = dave
            .clone()
            .find(|person| person.name.to_string() == "dave");
        let dave = dave.unwrap().reference();
        let share = |i| {
            keyturn_seal::ShareIdentity::generate()
                .map(|it| (i, it.share_key()))
                .unwrap()
                .1
        };
        let token = Token {
            id,
            kind: TokenKind::Software,
            serial: None,
            approval_key: public,
            share_key: share(1).to_string().parse().unwrap(),
            attestation: None,
        };
        let enrol = Enrol {
            person: dave.clone(),
            token: token.reference(),
            approval_key: token.approval_key.clone(),
            share_key: token.share_key.clone(),
            attestation: None,
            device: None,
            made: Time::from_ms(1).stamp(),
        };
        let enrol = scene.text(Signer::Token(id), &enrol);
        let (charter, document) = scene.chain.newest().unwrap();
        let join = Join {
            vault: document.origin.clone(),
            genesis: charter.digest,
            charter,
            enrolment: enrol.digest(),
            person: dave.clone(),
            token: token.reference(),
            nonce: Salt([1; 32]),
            signed: Time::from_ms(1).stamp(),
        };
        let join = scene.text(Signer::Token(id), &join);
        let brings = |token: &Token, named: bool| {
            let mut new = next(&scene);
            let mut persons = new.persons.iter_mut();
            let owner = persons.find(|person| person.id == dave.id).unwrap();
            owner.tokens.push(token.clone());
            new.joins = named.then(|| join.digest()).into_iter().collect();
            new
        };
        let another = Token {
            share_key: share(2).to_string().parse().unwrap(),
            ..token.clone()
        };
        let all = ["bob", "carol", "dave"];
        for (name, token, named, enrolled, good) in [
            ("as it joined", &token, true, true, true),
            (
                "invariant 3: with another share key",
                &another,
                true,
                true,
                false,
            ),
            ("without its join", &token, false, true, false),
            ("without its enrolment", &token, true, false, false),
        ] {
            let new = brings(token, named);
            let mut record = record(&scene, &new, &all, Span::ZERO);
            record.joins = vec![wire::wire_text(&join)];
            if enrolled {
                record.enrolments = vec![wire::wire_text(&enrol)];
            }
            assert_eq!(followed(&scene, record), good, "{name}");
        }
    }
}
