//! What custodians say, taken by the machine one by one and folded from the signed texts afterwards.

use std::collections::BTreeSet;

use crate::tiny::*;
use keyturn_vault::{
    ceremony::{Ceremony, Event, Purpose, Voice},
    change,
    charter::{Charter, Team, Token},
    check::Check,
    digest::{Digest, Salt},
    quorum::{Lack, Vote},
    reference::{Head, PersonRef, Signer, TokenKind, TokenRef},
    said::Said,
    text::{self, Approval, Decision, Request, SignedText, Text as _},
    time::{Span, Time},
};

/// Bob's other token.
const BOBS: u8 = 11;

/// Four custodians, of whom three must agree, in two teams; bob has two tokens.
fn house() -> Charter {
    let mut charter = charter(1, 3, &[BOB, CAROL, DAVE, ERIN]);
    charter.persons[0].tokens.push(Token {
        id: token(BOBS),
        kind: TokenKind::Software,
        serial: None,
        approval_key: key(BOBS),
        share_key: share_key(BOBS),
        attestation: None,
    });
    let team = |name: &str, members: &[u8]| Team {
        name: name.parse().unwrap(),
        members: members.iter().map(|i| person(*i)).collect(),
    };
    charter.groups[0].rules.one_from_each =
        vec![team("here", &[BOB, CAROL, DAVE]), team("there", &[ERIN])];
    charter
}

fn request(charter: &Charter) -> Request {
    Request {
        vault: origin(),
        ceremony: ceremony_id(1),
        purpose: text::Purpose::Erase {
            ceremony: ceremony_id(2),
            details: Digest::of(b"details"),
        },
        scenario: None,
        group: None,
        requested_by: who(ALICE),
        used_by: None,
        deliver_to: None,
        ticket: None,
        details: Digest::of(b"details"),
        check_out: None,
        waive: BTreeSet::new(),
        charter: reference(charter),
        log: Head {
            size: 1,
            root: Digest::of(b"root"),
        },
        opened: Time::from_ms(0).stamp(),
        valid_for: Span::from_hours(4),
        salt: Salt([1; 32]),
        credentials: Vec::new(),
    }
}

fn who(i: u8) -> PersonRef {
    PersonRef {
        name: format!("custodian{i}").parse().unwrap(),
        id: person(i),
    }
}

/// What somebody says, with which token, at which second.
#[derive(Clone, Copy)]
enum Word {
    Yes(u8, u8, u64),
    No(u8, u8, u64),
    /// Takes back what was said as the n-th.
    Back(u8, u8, usize),
}
use Word::{Back, No, Yes};

fn signed_text(request: &Request, said: &[SignedText], word: Word) -> (Approval, SignedText) {
    let (who_, with, at, decision) = match word {
        Yes(i, with, at) => (i, with, at, Decision::Approve(Vec::new())),
        No(i, with, at) => {
            let reason = Digest::of(b"no");
            (i, with, at, Decision::Refuse { reason })
        }
        Back(i, with, n) => {
            let earlier = said[n].digest();
            (i, with, 100, Decision::Retract { earlier })
        }
    };
    let approval = Approval {
        request: request.digest(),
        custodian: who(who_),
        token: TokenRef {
            id: token(with),
            kind: TokenKind::Software,
            serial: None,
        },
        decision,
        charter: None,
        log: None,
        signed: Time::from_ms(at * 1000).stamp(),
    };
    let text = signed(&approval.to_text(), Signer::Token(token(with)));
    (approval, text)
}

/// The machine and the fold over the same words; the first is what the machine keeps.
fn both(words: &[Word]) -> (Charter, Request, Said, Said) {
    let tiny = Tiny {
        charter: house(),
        in_force: reference(&house()),
        ..Tiny::new()
    };
    let request = request(&tiny.charter);
    let asked = keyturn_vault::ceremony::Request {
        text: request.digest(),
        purpose: Purpose::Erase,
        ask: keyturn_vault::quorum::Ask {
            needs: change::governing(&tiny.charter),
            ..tiny.request(1, &[]).ask
        },
        check_out: None,
        ..tiny.request(1, &[])
    };
    let opened = Ceremony::<()>::open(now(0), tiny.world(), asked, 0);
    let (mut machine, _) = opened.unwrap();
    let mut texts = Vec::new();
    for word in words {
        let (approval, signed) = signed_text(&request, &texts, *word);
        texts.push(signed.clone());
        let voice = |earlier| Voice {
            request: request.digest(),
            person: approval.custodian.id,
            token: approval.token.id,
            key: key(match *word {
                Yes(_, with, _) | No(_, with, _) | Back(_, with, _) => with,
            })
            .pin(),
            earlier,
            signed: signed.clone(),
        };
        let event = match approval.decision {
            Decision::Approve(_) => {
                let asked = (&request, request.digest());
                let approval = (&approval, approval.digest());
                let vote = Vote::of(&tiny.charter, asked, approval, None, BTreeSet::new());
                Event::Approve(vote.unwrap(), signed)
            }
            Decision::Refuse { .. } => Event::Refuse(voice(None)),
            Decision::Retract { earlier } => Event::Retract(voice(Some(earlier))),
        };
        machine = machine.step(now(1), tiny.world(), event).state;
    }
    let folded = Said::fold(&[&tiny.charter], &request, &texts, |_| true);
    (tiny.charter, request, machine.row.said, folded)
}

#[test]
fn the_fold_has_what_the_machine_had() {
    for (name, words, want) in [
        ("nothing", vec![], vec![]),
        ("one", vec![Yes(BOB, BOB, 1)], vec![BOB]),
        (
            "taken back with the other token, and given again",
            vec![Yes(BOB, BOB, 1), Back(BOB, BOBS, 0), Yes(BOB, BOB, 2)],
            vec![BOB],
        ),
        (
            "taken back, and given again with the other token",
            vec![Yes(BOB, BOB, 1), Back(BOB, BOB, 0), Yes(BOB, BOBS, 1)],
            vec![BOB],
        ),
        (
            "a refusal later than the approval",
            vec![Yes(BOB, BOB, 1), Yes(CAROL, CAROL, 1), No(BOB, BOBS, 2)],
            vec![CAROL],
        ),
        (
            "an approval later than the refusal",
            vec![No(BOB, BOB, 1), Yes(BOB, BOBS, 2)],
            vec![BOB],
        ),
        (
            "a refusal taken back",
            vec![No(BOB, BOB, 1), Back(BOB, BOBS, 0), Yes(BOB, BOB, 2)],
            vec![BOB],
        ),
        (
            "the same approval again after it was taken back",
            vec![Yes(BOB, BOB, 1), Back(BOB, BOB, 0), Yes(BOB, BOB, 1)],
            vec![],
        ),
        (
            "the same refusal again after an approval",
            vec![No(BOB, BOB, 1), Yes(BOB, BOB, 2), No(BOB, BOB, 1)],
            vec![BOB],
        ),
        (
            "two tokens of one person",
            vec![Yes(BOB, BOB, 1), Yes(BOB, BOBS, 2)],
            vec![BOB],
        ),
        (
            "an old approval taken back, not the one that stands",
            vec![
                Yes(BOB, BOB, 1),
                Back(BOB, BOB, 0),
                Yes(BOB, BOB, 2),
                Back(BOB, BOBS, 0),
            ],
            vec![BOB],
        ),
        (
            "somebody else's taken back",
            vec![Yes(BOB, BOB, 1), Back(CAROL, CAROL, 0)],
            vec![BOB],
        ),
        (
            "with somebody else's token",
            vec![Yes(CAROL, BOB, 1), Yes(BOB, BOB, 1), No(BOB, CAROL, 2)],
            vec![BOB],
        ),
        (
            "in the order in which they came",
            vec![Yes(DAVE, DAVE, 9), Yes(BOB, BOB, 1)],
            vec![DAVE, BOB],
        ),
    ] {
        let (_, _, machine, folded) = both(&words);
        assert_eq!(folded, machine, "{name}: as the machine has it");
        let persons: Vec<_> = folded.votes.iter().map(|vote| vote.person).collect();
        let want: Vec<_> = want.into_iter().map(person).collect();
        assert_eq!(persons, want, "{name}");
    }
}

#[test]
fn groups_agree_with_all_their_teams() {
    let all = [BOB, CAROL, DAVE, ERIN].map(|i| Yes(i, i, 1));
    for (name, words, want) in [
        ("too few", &all[..2], Some(Lack::Persons)),
        ("enough of one team", &all[..3], Some(Lack::Teams)),
        ("one of each team", &all[1..], None),
    ] {
        let (charter, request, _, said) = both(words);
        let needs = change::governing(&charter);
        let verdict = said.agree((reference(&charter), &charter), &request, needs);
        let lack = verdict.missing.first().map(|missing| missing.what);
        assert_eq!(lack, want, "{name}");
    }
}

#[test]
fn what_is_not_signed_or_answers_something_else_is_nothing() {
    let charter = house();
    let request = request(&charter);
    let (_, yes) = signed_text(&request, &[], Yes(BOB, BOB, 1));
    let other = Request {
        salt: Salt([2; 32]),
        ..request.clone()
    };
    let stranger = SignedText {
        signer: Signer::Token(token(CAROL)),
        ..yes.clone()
    };
    let unreadable = SignedText {
        text: yes.text.replace("decision: approve", "decision: Approve"),
        ..yes.clone()
    };
    let good = |check: &Check| matches!(check, Check::Text { .. });
    for (name, request, text, signed, want) in [
        ("as it is", &request, &yes, true, 1),
        ("a bad signature", &request, &yes, false, 0),
        ("for another request", &other, &yes, true, 0),
        ("signed by another token", &request, &stranger, true, 0),
        ("not readable", &request, &unreadable, true, 0),
    ] {
        let said = Said::fold(&[&charter], request, [text], |check| signed && good(check));
        assert_eq!(said.votes.len(), want, "{name}");
    }
    // A token that the charter in force has no more is looked up in the one before.
    let mut later = charter.clone();
    later.persons[0].tokens.remove(0);
    let folds = |charters: &[&Charter]| Said::fold(charters, &request, [&yes], good).votes.len();
    assert_eq!((folds(&[&later]), folds(&[&later, &charter])), (0, 1));
}
