//! Wrong, late, repeated, foreign, truncated, look-alike and oversized calls: each is refused with its
//! stable word and a hint, and the log does not grow.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that cannot go on fails where it stands"
)]

use keyturn_hsm::device::DeviceKey;
use keyturn_proto::{
    CODE_TRAILER, HINT_TRAILER,
    v1::{self, ApproveRequest, CeremonyState, DepositRequest, OpenRequest},
};
use keyturn_seal::Secret;
use keyturn_tests::{
    raw::{Founded, Line, Member, PEOPLE, now, wire_text},
    story::{Asked, Ballot, SealedVersion, definition, release},
};
use keyturn_vault::{
    charter::Waiver,
    definition::Definition,
    digest::Digest,
    jcs::Document as _,
    layout::{MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES},
    reference::{CharterRef, Version},
    text::{Approval, Checkin, CredentialLine, Recover, Request, Returned, Text as _},
    time::Span,
};
use tonic::{Code, Status};

/// A vault with a credential and a request, which bob has approved; another request waits beside it.
struct Scene {
    vault: Founded,
    definition: Definition,
    named: CredentialLine,
    asked: Asked,
    other: Asked,
    bob: Ballot,
    lines: std::collections::BTreeMap<&'static str, Line>,
}

impl Scene {
    async fn set() -> Self {
        let vault = Founded::new("").await.unwrap();
        let mut lines = std::collections::BTreeMap::new();
        for (name, _) in PEOPLE {
            lines.insert(name, vault.line(name).await.unwrap());
        }
        let (definition, named) = vault.seal("aws/1/root", b"hunter2").await.unwrap();
        let alice = vault.who("alice").unwrap();
        let mut both = Vec::new();
        for _ in 0..2 {
            let asked = Asked::new(&vault.facts, &lines["alice"], alice, vec![named.clone()]);
            let asked = asked.await.unwrap();
            let open = asked.open(alice).unwrap();
            lines["alice"].ceremonies().open(open).await.unwrap();
            both.push(asked);
        }
        let (other, asked) = (both.pop().unwrap(), both.pop().unwrap());
        let bob = vault.who("bob").unwrap();
        let id = asked.id();
        let bob = Ballot::new(&vault.facts, &lines["bob"], bob, &id).await;
        let bob = bob.unwrap();
        let call = bob.call().unwrap();
        lines["bob"].ceremonies().approve(call).await.unwrap();
        Self {
            vault,
            definition,
            named,
            asked,
            other,
            bob,
            lines,
        }
    }

    fn who(&self, name: &str) -> &Member {
        self.vault.who(name).unwrap()
    }

    async fn ballot(&self, name: &str, asked: &Asked) -> Ballot {
        let (who, id) = (self.who(name), asked.id());
        let ballot = Ballot::new(&self.vault.facts, &self.lines[name], who, &id);
        ballot.await.unwrap()
    }

    /// Entries of the log, but for those that count what was refused: these come by the minute.
    async fn size(&self) -> usize {
        let line = &self.lines["alice"];
        // Asking for the newest checkpoint waits until everything answered is published.
        line.checkpoint(&self.vault.facts.vkey).await.unwrap();
        let all = v1::EntriesRequest {
            from: 0,
            count: 1000,
        };
        let entries = line.log().entries(all).await.unwrap().into_inner().entries;
        let counts = |entry: &Vec<u8>| String::from_utf8_lossy(entry).contains("refusals.counted");
        entries.iter().filter(|entry| !counts(entry)).count()
    }

    /// The call was refused with this word, and the log is as long as before.
    async fn refused<T>(&self, name: &str, word: &str, size: usize, reply: Result<T, Status>) {
        let Err(status) = reply else {
            panic!("{name}: was not refused");
        };
        let trailers = status.metadata();
        let told = trailers
            .get(CODE_TRAILER)
            .and_then(|code| code.to_str().ok());
        assert_eq!(told, Some(word), "{name}: {status}");
        let hint = trailers
            .get_bin(HINT_TRAILER)
            .and_then(|hint| hint.to_bytes().ok());
        assert!(hint.is_some_and(|hint| hint.len() > 10), "{name}: no hint");
        assert!(!status.message().is_empty(), "{name}: no message");
        assert_eq!(self.size().await, size, "{name}: the log has grown");
    }

    /// A new request with one thing about it changed, signed by its maker.
    async fn altered(&self, change: impl FnOnce(&mut Request)) -> OpenRequest {
        let alice = self.who("alice");
        let line = &self.lines["alice"];
        let asked = Asked::new(&self.vault.facts, line, alice, vec![self.named.clone()]);
        let mut asked = asked.await.unwrap();
        change(&mut asked.request);
        asked.open(alice).unwrap()
    }
}

fn resigned(
    by: &Member,
    call: &ApproveRequest,
    change: impl FnOnce(&mut Approval),
) -> ApproveRequest {
    let mut approval = Approval::parse(&call.approval.as_ref().unwrap().text).unwrap();
    change(&mut approval);
    ApproveRequest {
        approval: Some(wire_text(&by.sign(&approval).unwrap())),
        ..call.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_that_are_wrong_change_nothing() {
    let scene = Scene::set().await;
    let good = scene.ballot("carol", &scene.asked).await;
    let call = good.call().unwrap();
    let carol = scene.who("carol");
    let with = |change: &dyn Fn(&mut ApproveRequest)| {
        let mut call = call.clone();
        change(&mut call);
        call
    };
    let mut altered = scene.ballot("carol", &scene.asked).await;
    altered.submission.shares[0].share = Secret::random().unwrap();
    // What carol promised, with somebody else's approval and share inside.
    let elsewhere = scene.ballot("carol", &scene.other).await;
    let mut foreign_key = scene.ballot("carol", &scene.asked).await;
    foreign_key.submit_key = elsewhere.submit_key.clone();
    let mut bobs = scene.ballot("carol", &scene.asked).await;
    bobs.submission.person = scene.who("bob").person.id.to_string();
    let mut shifted = scene.ballot("carol", &scene.asked).await;
    shifted.submission.shares[0].x = scene.bob.submission.shares[0].x;
    let approve = |text: &str| with(&|call| call.approval.as_mut().unwrap().text = text.to_owned());
    let text = call.approval.as_ref().unwrap().text.clone();
    let bob_again = resigned(scene.who("bob"), &scene.bob.call().unwrap(), |approval| {
        approval.signed = keyturn_vault::time::Time::from_ms(now().ms() + 5_000).stamp();
    });
    let rows = [
        (
            "the same custodian, anew",
            "bob",
            "same-custodian",
            ApproveRequest {
                submissions: Vec::new(),
                ..bob_again
            },
        ),
        (
            "a share that was never dealt",
            "carol",
            "wrong-share",
            altered.call().unwrap(),
        ),
        (
            "another custodian's share number",
            "carol",
            "wrong-share",
            shifted.call().unwrap(),
        ),
        (
            "shares for the key of another ceremony",
            "carol",
            "wrong-submission",
            foreign_key.call().unwrap(),
        ),
        (
            "shares of another approval",
            "carol",
            "wrong-submission",
            ApproveRequest {
                submissions: elsewhere.call().unwrap().submissions,
                ..call.clone()
            },
        ),
        (
            "a submission in another's name",
            "carol",
            "wrong-submission",
            bobs.call().unwrap(),
        ),
        (
            "an approval of another ceremony",
            "carol",
            "wrong-request",
            ApproveRequest {
                ceremony: scene.asked.id(),
                submissions: Vec::new(),
                ..elsewhere.call().unwrap()
            },
        ),
        (
            "an age file cut short",
            "carol",
            "wrong-submission",
            with(&|call| call.submissions[0].truncate(80)),
        ),
        (
            "too many submissions",
            "carol",
            "malformed",
            with(&|call| call.submissions = vec![Vec::new(); 33]),
        ),
        (
            "a text cut short",
            "carol",
            "malformed",
            approve(&text[..text.len() - 9]),
        ),
        (
            "a text with a line more",
            "carol",
            "malformed",
            approve(&format!("{text}note: hello\n")),
        ),
        (
            "a text with another ending",
            "carol",
            "malformed",
            approve(&text.replace('\n', "\r\n")),
        ),
        (
            "a text of another type",
            "carol",
            "malformed",
            approve(&scene.asked.request.to_text()),
        ),
        (
            "a text that was changed",
            "carol",
            "wrong-signature",
            approve(&text.replace("signed: 2", "signed: 3")),
        ),
        (
            "no signature",
            "carol",
            "wrong-signature",
            with(&|call| call.approval.as_mut().unwrap().signature.clear()),
        ),
        (
            "a signature that is too long",
            "carol",
            "wrong-signature",
            with(&|call| call.approval.as_mut().unwrap().signature.resize(100, 0)),
        ),
        (
            "no approval at all",
            "carol",
            "malformed",
            with(&|call| call.approval = None),
        ),
        (
            "no ceremony",
            "carol",
            "malformed",
            with(&|call| call.ceremony.clear()),
        ),
        (
            "a ceremony that is none",
            "carol",
            "not-found",
            with(&|call| call.ceremony = "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()),
        ),
        (
            "the requester approves",
            "alice",
            "not-custodian",
            resigned(
                scene.who("alice"),
                &ApproveRequest {
                    submissions: Vec::new(),
                    ..call.clone()
                },
                |approval| {
                    approval.custodian = scene.who("alice").person.clone();
                    approval.token = scene.who("alice").token;
                },
            ),
        ),
        (
            "carol's name over bob's token",
            "carol",
            "denied",
            resigned(
                scene.who("bob"),
                &ApproveRequest {
                    submissions: Vec::new(),
                    ..call.clone()
                },
                |_| (),
            ),
        ),
        (
            "a token that is in no charter",
            "carol",
            "unknown-signer",
            {
                let stranger = Member::new("carol").unwrap();
                resigned(&stranger, &call, |approval| approval.token = stranger.token)
            },
        ),
        (
            "a device signs instead of the token",
            "carol",
            "denied",
            ApproveRequest {
                approval: Some(wire_text(
                    &carol
                        .sign_by_device(&Approval::parse(&text).unwrap())
                        .unwrap(),
                )),
                ..call.clone()
            },
        ),
        (
            "other lines than the request's",
            "carol",
            "wrong-lines",
            resigned(
                carol,
                &ApproveRequest {
                    submissions: Vec::new(),
                    ..call.clone()
                },
                |approval| {
                    approval.decision = keyturn_vault::text::Decision::Approve(Vec::new());
                },
            ),
        ),
    ];
    let size = scene.size().await;
    for (name, caller, word, call) in rows {
        let reply = scene.lines[caller].ceremonies().approve(call).await;
        scene.refused(name, word, size, reply).await;
    }
    // Sent again, a call changes nothing, and the good one opens what all of those did not.
    let again = scene.bob.call().unwrap();
    scene.lines["bob"]
        .ceremonies()
        .approve(again)
        .await
        .unwrap();
    assert_eq!(scene.size().await, size, "the same approval again");
    scene.lines["carol"]
        .ceremonies()
        .approve(call)
        .await
        .unwrap();
    let released = release(&scene.lines["alice"], &scene.asked.id()).await;
    let released = released.unwrap().unwrap();
    let secrets = scene.asked.receive(&scene.vault.facts, &released).unwrap();
    assert_eq!(secrets[0], b"hunter2");
    let late = scene.ballot("dan", &scene.other).await;
    let late = ApproveRequest {
        ceremony: scene.asked.id(),
        submissions: Vec::new(),
        ..late.call().unwrap()
    };
    let size = scene.size().await;
    let reply = scene.lines["dan"].ceremonies().approve(late).await;
    scene
        .refused(
            "an approval of another, too late",
            "wrong-request",
            size,
            reply,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_open_nothing() {
    let scene = Scene::set().await;
    let alice = scene.who("alice");
    let stale = CharterRef {
        index: 1,
        digest: Digest::of(b"another"),
    };
    let unknown = Version::new(2).unwrap();
    let good = scene.altered(|_| ()).await;
    let named_twice = scene
        .altered(|request| request.ceremony = scene.asked.request.ceremony)
        .await;
    let foreign = {
        let mut request = Request::parse(&good.request.as_ref().unwrap().text).unwrap();
        request.requested_by = alice.person.clone();
        OpenRequest {
            request: Some(wire_text(
                &scene.who("olga").sign_by_device(&request).unwrap(),
            )),
            ..good.clone()
        }
    };
    let no_role = {
        let olga = scene.who("olga");
        let asked = Asked::new(
            &scene.vault.facts,
            &scene.lines["olga"],
            olga,
            vec![scene.named.clone()],
        );
        asked.await.unwrap().open(olga).unwrap()
    };
    let rows = [
        (
            "brought by somebody else",
            "olga",
            "not-yours",
            good.clone(),
        ),
        ("signed by somebody else", "alice", "denied", foreign),
        ("by no requester", "olga", "not-requester", no_role),
        (
            "with other details",
            "alice",
            "malformed",
            OpenRequest {
                details: good.details.replace("down", "up"),
                ..good.clone()
            },
        ),
        (
            "with details that are too long",
            "alice",
            "malformed",
            OpenRequest {
                details: "x".repeat(20_000),
                ..good.clone()
            },
        ),
        (
            "with the id of another request",
            "alice",
            "known-ceremony",
            named_twice,
        ),
        (
            "for another vault",
            "alice",
            "malformed",
            scene
                .altered(|request| request.vault = "vault.example.org/pr0d".parse().unwrap())
                .await,
        ),
        (
            "for another charter",
            "alice",
            "old-charter",
            scene.altered(|request| request.charter = stale).await,
        ),
        (
            "for a version that is not there",
            "alice",
            "not-live",
            scene
                .altered(|request| request.credentials[0].version = unknown)
                .await,
        ),
        (
            "for another manifest",
            "alice",
            "unknown-version",
            scene
                .altered(|request| request.credentials[0].manifest = Digest::of(b"another"))
                .await,
        ),
        (
            "for a credential that is not there",
            "alice",
            "unknown-credential",
            scene
                .altered(|request| {
                    request.credentials[0].credential =
                        keyturn_vault::id::CredentialId::from_bytes([7; 16]);
                })
                .await,
        ),
        (
            "for a path that is another's",
            "alice",
            "unknown-version",
            scene
                .altered(|request| request.credentials[0].path = "aws/1/r00t".parse().unwrap())
                .await,
        ),
        (
            "in an emergency that has no name",
            "alice",
            "no-such-scenario",
            scene
                .altered(|request| request.scenario = Some("fire".parse().unwrap()))
                .await,
        ),
        (
            "from a group that is none of its",
            "alice",
            "no-such-group",
            scene
                .altered(|request| request.group = Some("others".parse().unwrap()))
                .await,
        ),
        (
            "checked out too long",
            "alice",
            "check-out-too-long",
            scene
                .altered(|request| request.check_out = Some(Span::from_days(30)))
                .await,
        ),
        (
            "open too long",
            "alice",
            "valid-too-long",
            scene
                .altered(|request| request.valid_for = Span::from_days(30))
                .await,
        ),
    ];
    let size = scene.size().await;
    for (name, caller, word, call) in rows {
        let reply = scene.lines[caller].ceremonies().open(call).await;
        scene.refused(name, word, size, reply).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_wrong_are_not_taken() {
    let scene = Scene::set().await;
    let (olga, facts) = (scene.who("olga"), &scene.vault.facts);
    let size = scene.size().await;
    let add = |by: &Member, change: &dyn Fn(&mut Definition)| {
        let mut new = definition(facts, "db/main").unwrap();
        change(&mut new);
        let definition = Some(by.sign_document(new.to_bytes().unwrap()).unwrap());
        v1::AddRequest { definition }
    };
    let same_id = |new: &mut Definition| new.credential = scene.definition.credential;
    for (name, caller, word, call) in [
        (
            "by a custodian",
            "bob",
            "role-missing",
            add(scene.who("bob"), &|_| ()),
        ),
        (
            "signed by a stranger",
            "olga",
            "denied",
            add(&Member::new("olga").unwrap(), &|_| ()),
        ),
        (
            "at a path that is taken",
            "olga",
            "taken",
            add(olga, &|new| new.path = scene.definition.path.clone()),
        ),
        (
            "with an id that is taken",
            "olga",
            "taken",
            add(olga, &same_id),
        ),
        (
            "of another vault",
            "olga",
            "malformed",
            add(olga, &|new| {
                new.origin = "vault.example.org/test".parse().unwrap();
            }),
        ),
        (
            "of a group that is not there",
            "olga",
            "malformed",
            add(olga, &|new| new.group = "0ps".parse().unwrap()),
        ),
        (
            "of a policy that is not there",
            "olga",
            "malformed",
            add(olga, &|new| new.policy = "lax".parse().unwrap()),
        ),
        (
            "no document",
            "olga",
            "malformed",
            v1::AddRequest { definition: None },
        ),
    ] {
        let reply = scene.lines[caller].credentials().add(call).await;
        scene.refused(name, word, size, reply).await;
    }
    let sealed = |number| SealedVersion::new(facts, &scene.definition, number, b"new").unwrap();
    let good = sealed(2).deposit(olga).unwrap();
    let with = |change: &dyn Fn(&mut DepositRequest)| {
        let mut call = good.clone();
        change(&mut call);
        call
    };
    let mut lowered = sealed(2);
    lowered.manifest.groups[0].k = 1;
    let mut fewer = sealed(2);
    fewer.manifest.groups[0].holders.pop();
    let mut twice = sealed(2);
    twice.manifest.groups[0].holders[1].commitment = twice.manifest.groups[0].holders[0].commitment;
    let mut long = sealed(2);
    long.ciphertext = vec![7; MAX_PAYLOAD_BYTES + 1];
    long.manifest.ciphertext = Digest::of(&long.ciphertext);
    let mut heavy = sealed(2);
    heavy.envelopes[0].envelope = vec![7; MAX_ENVELOPE_BYTES + 1];
    heavy.manifest.groups[0].holders[0].envelope = Digest::of(&heavy.envelopes[0].envelope);
    for (name, word, call) in [
        (
            "a ciphertext that no copy takes",
            "malformed",
            long.deposit(olga).unwrap(),
        ),
        (
            "an envelope that no answer has room for",
            "malformed",
            heavy.deposit(olga).unwrap(),
        ),
        ("another number", "stale", sealed(3).deposit(olga).unwrap()),
        (
            "a number that is taken",
            "stale",
            sealed(1).deposit(olga).unwrap(),
        ),
        (
            "a ciphertext cut short",
            "malformed",
            with(&|call| call.ciphertext.truncate(9)),
        ),
        (
            "an envelope less",
            "malformed",
            with(&|call| drop(call.envelopes.pop())),
        ),
        (
            "envelopes in another order",
            "malformed",
            with(&|call| call.envelopes.swap(0, 1)),
        ),
        (
            "an envelope more",
            "malformed",
            with(&|call| call.envelopes.push(call.envelopes[0].clone())),
        ),
        (
            "one share enough",
            "malformed",
            lowered.deposit(olga).unwrap(),
        ),
        (
            "a custodian left out",
            "malformed",
            fewer.deposit(olga).unwrap(),
        ),
        (
            "the same share twice",
            "malformed",
            twice.deposit(olga).unwrap(),
        ),
        (
            "signed by a stranger",
            "unknown-signer",
            sealed(2).deposit(&Member::new("olga").unwrap()).unwrap(),
        ),
    ] {
        let reply = scene.lines["olga"].credentials().deposit(call).await;
        scene.refused(name, word, size, reply).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_the_wrong_person_get_nothing() {
    let scene = Scene::set().await;
    let id = scene.asked.id();
    let size = scene.size().await;
    let stranger = DeviceKey::generate("stranger").unwrap();
    let mallory = keyturn::connect::connect(&scene.vault.facts.route, &stranger)
        .await
        .unwrap();
    let mut ceremonies = v1::ceremony_client::CeremonyClient::new(mallory.channel());
    let show = v1::ShowRequest {
        id: id.clone(),
        page: None,
    };
    scene
        .refused(
            "a stranger looks",
            "unknown-device",
            size,
            ceremonies.show(show).await,
        )
        .await;
    let mut log = v1::audit_client::AuditClient::new(mallory.channel());
    let reply = log.checkpoint(v1::CheckpointRequest {}).await;
    scene
        .refused("a stranger reads the log", "unknown-device", size, reply)
        .await;

    let withdraw = v1::WithdrawRequest { id: id.clone() };
    let reply = scene.lines["bob"].ceremonies().withdraw(withdraw).await;
    scene
        .refused("another withdraws", "not-yours", size, reply)
        .await;
    let fetch = v1::FetchRequest { id: id.clone() };
    let reply = scene.lines["bob"].ceremonies().fetch(fetch.clone()).await;
    scene
        .refused("another fetches", "not-yours", size, reply)
        .await;
    let reply = scene.lines["alice"].ceremonies().fetch(fetch).await;
    scene
        .refused("fetched before the release", "not-now", size, reply)
        .await;
    let checkin = Checkin {
        vault: scene.asked.request.vault.clone(),
        ceremony: scene.asked.request.ceremony,
        request: scene.asked.request.digest(),
        returned_by: scene.who("alice").person.clone(),
        signed: now().stamp(),
        credentials: vec![Returned {
            path: scene.named.path.clone(),
            credential: scene.named.credential,
            worked: None,
            void: None,
        }],
    };
    let checkin = wire_text(&scene.who("alice").sign_by_device(&checkin).unwrap());
    let checkin = v1::CheckinRequest {
        checkin: Some(checkin),
    };
    let reply = scene.lines["alice"].ceremonies().checkin(checkin).await;
    scene
        .refused("returned before the release", "not-out", size, reply)
        .await;

    let huge = v1::AddRequest {
        definition: Some(v1::SignedDocument {
            document: vec![b'x'; 5 * 1024 * 1024],
            signature: None,
            ceremony: String::new(),
        }),
    };
    let status = scene.lines["olga"]
        .credentials()
        .add(huge)
        .await
        .unwrap_err();
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "oversized: {status}"
    );
    assert_eq!(scene.size().await, size, "oversized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_over_opens_no_more() {
    let scene = Scene::set().await;
    let alice = scene.who("alice");
    let mut asked = Asked::new(
        &scene.vault.facts,
        &scene.lines["alice"],
        alice,
        vec![scene.named.clone()],
    )
    .await
    .unwrap();
    asked.request.valid_for = Span::from_secs(1);
    asked.request.waive = [Waiver::CheckOut].into();
    let open = asked.open(alice).unwrap();
    scene.lines["alice"].ceremonies().open(open).await.unwrap();
    let (bob, carol) = (
        scene.ballot("bob", &asked).await,
        scene.ballot("carol", &asked).await,
    );
    scene.lines["bob"]
        .ceremonies()
        .approve(bob.call().unwrap())
        .await
        .unwrap();
    let ended = release(&scene.lines["alice"], &asked.id()).await.unwrap();
    let view = ended.expect_err("nothing may be released");
    assert_eq!(view.state(), CeremonyState::Expired);
    let size = scene.size().await;
    let call = ApproveRequest {
        submissions: Vec::new(),
        ..carol.call().unwrap()
    };
    let reply = scene.lines["carol"].ceremonies().approve(call).await;
    scene.refused("after its end", "decided", size, reply).await;
    let reply = scene.lines["carol"]
        .ceremonies()
        .approve(carol.call().unwrap())
        .await;
    let status = reply.expect_err("shares after the end");
    let word = status
        .metadata()
        .get(CODE_TRAILER)
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(word, "decided", "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_opening_without_the_vault_is_imported_as_one() {
    let scene = Scene::set().await;
    let (alice, bob, size) = (scene.who("alice"), scene.who("bob"), scene.size().await);
    let recover = |by: &Member| Recover {
        vault: scene.vault.facts.charter.origin.clone(),
        ceremony: scene.asked.request.ceremony,
        group: scene.definition.group.clone(),
        requested_by: by.person.clone(),
        used_by: None,
        deliver_to: scene.asked.request.deliver_to.clone().unwrap(),
        ticket: None,
        details: scene.asked.request.details,
        opened: now().stamp(),
        salt: scene.asked.request.salt,
        credential: scene.named.clone(),
    };
    let good = recover(alice);
    let answer = |request| {
        let mut approval = Approval::parse(&scene.bob.approval.text).unwrap();
        approval.request = request;
        wire_text(&bob.sign(&approval).unwrap())
    };
    let import = |recover, approvals| v1::ImportRecoverRequest {
        recover: Some(recover),
        approvals,
    };
    let asked = || wire_text(&alice.sign_by_device(&good).unwrap());
    for (name, call) in [
        (
            "a request to the vault",
            import(
                wire_text(&alice.sign_by_device(&scene.asked.request).unwrap()),
                Vec::new(),
            ),
        ),
        (
            "in somebody else's name",
            import(
                wire_text(&alice.sign_by_device(&recover(bob)).unwrap()),
                Vec::new(),
            ),
        ),
        (
            "an approval of another request",
            import(asked(), vec![answer(scene.asked.request.digest())]),
        ),
        (
            "more approvals than there are custodians",
            import(asked(), vec![answer(good.digest()); 65]),
        ),
    ] {
        let reply = scene.lines["alice"].log().import_recover(call).await;
        scene.refused(name, "malformed", size, reply).await;
    }
    let call = import(asked(), vec![answer(good.digest())]);
    scene.lines["alice"]
        .log()
        .import_recover(call)
        .await
        .unwrap();
}
