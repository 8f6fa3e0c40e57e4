//! What people can make the vault keep: so much, and for so long.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use keyturn_proto::{CODE_TRAILER, v1};
use keyturn_tests::{
    World,
    inside::{Inside, owner},
    raw::{Founded, Line, Member, now, random, wire_text},
    story::{Asked, Ballot, definition, release},
};
use keyturn_vault::{
    definition::Definition,
    digest::{Digest, Salt},
    id::CeremonyId,
    jcs::Document as _,
    reference::Signer,
    text::{Approval, Decision, Details, Purpose, Text as _},
    time::Time,
};
use keyturnd::{
    owner::{Needs, Txn, ceremony::MAX_STATEMENTS_OF_ONE, core::Core, credential::Defined},
    refusal::Refused,
    store::{Name, REDB_LIMITS, StoreError},
    verify,
};
use tonic::Status;

const HOUR: Duration = Duration::from_hours(1);

fn code(status: &Status) -> String {
    let code = status.metadata().get(CODE_TRAILER);
    code.map_or_else(String::new, |code| code.to_str().unwrap().to_owned())
}

/// A founded vault whose clock stands still, with a credential.
async fn still() -> (Founded, Inside, Definition) {
    let mut vault = Founded::new("").await.unwrap();
    let (definition, _) = vault.seal("aws/1/root", b"secret").await.unwrap();
    vault.world.stop().unwrap();
    let inside = Inside::start(&vault.world, now()).await.unwrap();
    (vault, inside, definition)
}

async fn restarted(vault: &Founded, inside: Inside) -> Inside {
    let stopped = inside.stop().await.unwrap();
    Inside::start(&vault.world, stopped).await.unwrap()
}

async fn propose(line: &Line, old: &Definition, account: &str) -> Result<(), Status> {
    let mut new = old.clone();
    new.previous = Some(Digest::of(&old.to_bytes().unwrap()));
    new.metadata
        .insert("account".parse().unwrap(), account.parse().unwrap());
    let definition = new.to_bytes().unwrap();
    let call = v1::ProposeDefinitionRequest { definition };
    line.credentials().propose(call).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_that_nobody_names_are_few_and_forgotten() {
    let (vault, mut inside, old) = still().await;
    let mut olga = vault.line("olga").await.unwrap();
    for n in 0..8 {
        propose(&olga, &old, &n.to_string()).await.unwrap();
    }
    let ninth = propose(&olga, &old, "9").await.unwrap_err();
    assert_eq!(code(&ninth), "limit", "{ninth}");
    propose(&olga, &old, "7").await.unwrap();
    let bob = vault.line("bob").await.unwrap();
    propose(&bob, &old, "9").await.unwrap();

    inside = restarted(&vault, inside).await;
    olga = vault.line("olga").await.unwrap();
    let ninth = propose(&olga, &old, "8").await.unwrap_err();
    assert_eq!(code(&ninth), "limit", "a restart forgets nothing: {ninth}");
    inside.clock.advance(25 * HOUR);
    propose(&olga, &old, "8").await.unwrap();
    inside.stop().await.unwrap();
}

#[test]
fn a_vault_is_founded_by_no_more_tokens_than_its_first_entry_holds() {
    let world = World::new().unwrap();
    let names: Vec<_> = (0..65).map(|n| format!("founder-{n}")).collect();
    for (count, why) in [(65, "at most 64 tokens"), (64, "founder-0.enroll")] {
        let some = names[..count].iter();
        let people: Vec<_> = some
            .map(|name| (name.as_str(), ["custodian"].as_slice()))
            .collect();
        let refused = world.try_init(&people, "").unwrap().exits(1).unwrap();
        assert!(refused.stderr.contains(why), "{count}: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_are_few_and_end() {
    let (vault, inside, _) = still().await;
    let olga = vault.line("olga").await.unwrap();
    let invite = |member: &Member| v1::InviteRequest {
        enrol: Some(wire_text(&member.enrol)),
        ..Default::default()
    };
    let erin = Member::new("erin").unwrap();
    let before = inside.clock.now().ms();
    let reply = olga.charters().invite(invite(&erin)).await.unwrap();
    let reply = reply.into_inner();
    let days = (reply.expires_ms - before) / (24 * 3_600_000);
    assert_eq!(days, 7);
    for n in 1..16 {
        let member = Member::new(&format!("erin-{n}")).unwrap();
        olga.charters().invite(invite(&member)).await.unwrap();
    }
    let one_more = Member::new("frank").unwrap();
    let refused = olga.charters().invite(invite(&one_more)).await.unwrap_err();
    assert_eq!(code(&refused), "limit", "{refused}");
    olga.charters().invite(invite(&erin)).await.unwrap();

    inside.clock.advance(8 * 24 * HOUR);
    let join = v1::JoinRequest {
        join: Some(wire_text(&join(&vault, &erin, &reply.nonce))),
        founding: None,
    };
    let late = erin.connect(&vault.facts).await.unwrap();
    let late = late.charters().join(join).await.unwrap_err();
    assert!(
        code(&late) == "denied" && late.message().contains("has ended"),
        "{late}"
    );
    olga.charters().invite(invite(&one_more)).await.unwrap();
    inside.stop().await.unwrap();
}

/// Dan says this to a request.
async fn says(
    (vault, dan): (&Founded, &Line),
    asked: &Asked,
    decision: Decision,
    reason: String,
) -> Result<Digest, Status> {
    let who = vault.who("dan").unwrap();
    let signed = who.sign(&Approval {
        request: asked.request.digest(),
        custodian: who.person.clone(),
        token: who.token,
        decision,
        charter: Some(vault.facts.reference),
        log: Some(asked.request.log),
        signed: now().stamp(),
    });
    let signed = signed.unwrap();
    let call = v1::ApproveRequest {
        approval: Some(wire_text(&signed)),
        submissions: Vec::new(),
        details: reason,
        ceremony: asked.id(),
    };
    dan.ceremonies().approve(call).await?;
    Ok(signed.digest())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_custodian_says_to_a_request_is_bounded_and_stops_nobody() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", b"secret").await.unwrap();
    let (asked, alice) = vault.ask(vec![named]).await.unwrap();
    let dan = vault.line("dan").await.unwrap();
    let mut last = None;
    for n in 0..MAX_STATEMENTS_OF_ONE {
        let details = Details {
            salt: Salt(random().unwrap()),
            reason: format!("no {n}").parse().unwrap(),
            contact: None,
            systems: None,
        };
        let refuse = Decision::Refuse {
            reason: details.digest(),
        };
        if let Some(earlier) = last {
            let retract = Decision::Retract { earlier };
            says((&vault, &dan), &asked, retract, String::new())
                .await
                .unwrap();
        }
        let said = says((&vault, &dan), &asked, refuse, details.to_text()).await;
        last = Some(said.unwrap());
    }
    let approve = Ballot::new(&vault.facts, &dan, vault.who("dan").unwrap(), &asked.id()).await;
    let approve = approve.unwrap().call().unwrap();
    let refused = dan.ceremonies().approve(approve).await.unwrap_err();
    assert_eq!(code(&refused), "limit", "{refused}");
    let retract = Decision::Retract {
        earlier: last.unwrap(),
    };
    says((&vault, &dan), &asked, retract, String::new())
        .await
        .unwrap();
    for who in ["bob", "carol"] {
        vault.approve(who, &asked).await.unwrap();
    }
    release(&alice, &asked.id()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_comes_at_once_is_split_and_what_is_too_large_leaves_no_trace() {
    let mut vault = Founded::new("").await.unwrap();
    let olga = vault.who("olga").unwrap();
    let definition = definition(&vault.facts, "aws/1/root").unwrap();
    let bytes = definition.to_bytes().unwrap();
    let signature = olga.sign_bytes(&bytes).unwrap();
    let signer = Signer::Token(olga.token.id);
    let verified = verify::document(&vault.facts.charter, &bytes, signer, signature).unwrap();
    let by = olga.person.clone();
    vault.world.stop().unwrap();
    let owner = owner(&vault.world.vault()).await.unwrap();
    let define = |more: usize| {
        let (verified, bytes, by) = (verified.clone(), bytes.clone(), by.clone());
        let definition = definition.clone();
        move |core: &mut Core, txn: &mut Txn| {
            let defined = Defined {
                verified,
                bytes,
                definition,
                by,
            };
            let entry = core.define(txn, defined)?;
            txn.put(Name::Details(details_of(99)).key(), vec![1; more]);
            Ok(entry)
        }
    };
    let large = |n: u8| {
        let step = move |_: &mut Core, txn: &mut Txn| {
            txn.put(Name::Details(details_of(n)).key(), vec![1; 1 << 20]);
            Ok(())
        };
        let owner = owner.clone();
        async move { owner.ask(Needs::nothing(), step).await }
    };
    // All wait before the owner looks: together they are more than one transaction takes.
    let at_once: Vec<_> = (0..12).map(large).collect();
    let too_large = owner.ask(Needs::nothing(), define(REDB_LIMITS.bytes));
    let (refused, done) = tokio::join!(too_large, join_all(at_once));
    for (n, done) in done.into_iter().enumerate() {
        assert!(done.is_ok(), "{n}: {:?}", done.err());
    }
    let refused = refused.err().unwrap();
    assert!(
        matches!(refused, Refused::Store(StoreError::Invalid(_))),
        "{refused}"
    );
    // It did not happen: it can happen now.
    let path = definition.path.clone();
    let needs = Needs {
        paths: vec![path.clone()],
        ..Needs::nothing()
    };
    let known = owner.look(needs, move |core| Ok(core.at_path(&path)));
    assert_eq!(known.await.unwrap(), None);
    owner.ask(Needs::nothing(), define(1)).await.unwrap();
}

/// A row that nobody reads.
fn details_of(n: u8) -> CeremonyId {
    CeremonyId::from_bytes([n; 16])
}

async fn join_all<T: Send + 'static>(all: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let mut answers = Vec::new();
    let running: Vec<_> = all.into_iter().map(tokio::spawn).collect();
    for one in running {
        answers.push(one.await.unwrap());
    }
    answers
}

fn join(vault: &Founded, by: &Member, nonce: &[u8]) -> keyturn_vault::text::SignedText {
    let nonce = by.open(nonce).unwrap();
    // Exposed to its parser.
    let nonce = std::str::from_utf8(nonce.expose())
        .unwrap()
        .parse()
        .unwrap();
    by.sign(&keyturn_vault::text::Join {
        vault: vault.facts.charter.origin.clone(),
        genesis: vault.facts.reference.digest,
        charter: vault.facts.reference,
        enrolment: by.enrol.digest(),
        person: by.person.clone(),
        token: by.token,
        nonce,
        signed: now().stamp(),
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_out_is_only_ever_asked_to_grow() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", b"secret").await.unwrap();
    let (alice, line) = (
        vault.who("alice").unwrap(),
        vault.line("alice").await.unwrap(),
    );
    let (asked, _) = vault.open(vec![named]).await.unwrap();
    for (minutes, want) in [
        (0, "not-longer"),
        (30, "not-longer"),
        (100_000, "check-out-too-long"),
    ] {
        let mut again = Asked::new(&vault.facts, &line, alice, Vec::new())
            .await
            .unwrap();
        let until = Time::from_ms(now().ms() + minutes * 60_000).stamp();
        again.request.purpose = Purpose::Extend {
            checkout: asked.request.ceremony,
            until,
        };
        again.request.deliver_to = None;
        again.request.check_out = None;
        again.request.waive.clear();
        let refused = line
            .ceremonies()
            .open(again.open(alice).unwrap())
            .await
            .unwrap_err();
        assert_eq!(code(&refused), want, "by {minutes} minutes: {refused}");
    }
}
