//! A charter that changes: somebody joins, somebody leaves, what is sealed follows, and a restart believes none of it unseen.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeSet;

use keyturn_proto::v1;
use keyturn_tests::{
    harness::write_private,
    inside::Inside,
    raw::{Founded, Line, Member, now, wire_text},
    story::{Asked, Ballot, release},
};
use keyturn_vault::{
    charter::{Charter, Device, Group, Person, Role, Team, Token},
    definition::Definition,
    digest::Digest,
    jcs::Document as _,
    reference::{CharterRef, Version},
    text::{Approval, Change, CredentialLine, Decision, Enrol, Join, Purpose, Text as _},
};
use keyturnd::store::{Name, RedbStore, Store as _, Txn};

/// Somebody who is in no charter is invited and joins; gives the digest of the join.
async fn join(vault: &Founded, erin: &Member) -> Digest {
    let invite = v1::InviteRequest {
        enrol: Some(wire_text(&erin.enrol)),
        attestation: Vec::new(),
    };
    let olga = vault.line("olga").await.unwrap();
    let invited = olga.charters().invite(invite).await.unwrap().into_inner();
    let nonce = erin.open(&invited.nonce).unwrap();
    let join = Join {
        vault: vault.facts.charter.origin.clone(),
        genesis: vault.facts.reference.digest,
        charter: vault.facts.reference,
        enrolment: erin.enrol.digest(),
        person: erin.person.clone(),
        token: erin.token,
        nonce: std::str::from_utf8(nonce.expose())
            .unwrap()
            .parse()
            .unwrap(),
        signed: now().stamp(),
    };
    let join = erin.sign(&join).unwrap();
    let call = v1::JoinRequest {
        join: Some(wire_text(&join)),
        founding: None,
    };
    let line = erin.connect(&vault.facts).await.unwrap();
    let first = line
        .charters()
        .join(call.clone())
        .await
        .unwrap()
        .into_inner();
    let again = line.charters().join(call).await.unwrap().into_inner();
    assert_eq!(
        first.joined.unwrap().n,
        again.joined.unwrap().n,
        "sent again: as it is"
    );
    join.digest()
}

/// The charter in which erin takes dan's place.
fn successor(vault: &Founded, erin: &Member, join: Option<Digest>) -> Charter {
    let old = &vault.facts.charter;
    let enrol = Enrol::parse(&erin.enrol.text).unwrap();
    let device = enrol.device.unwrap();
    let mut new = old.clone();
    new.index = 2;
    new.previous = Some(vault.facts.reference.digest);
    new.joins = join.into_iter().collect();
    new.persons.push(Person {
        id: erin.person.id,
        name: erin.person.name.clone(),
        roles: BTreeSet::from([Role::Custodian]),
        tokens: vec![Token {
            id: erin.token.id,
            kind: erin.token.kind,
            serial: None,
            approval_key: enrol.approval_key,
            share_key: enrol.share_key,
            attestation: None,
        }],
        devices: vec![Device {
            id: device.id,
            name: device.name,
            key: device.key,
        }],
    });
    new.persons.sort_by_key(|person| person.id);
    let dan = vault.who("dan").unwrap().person.id;
    for group in &mut new.groups {
        group.members.remove(&dan);
        group.members.insert(erin.person.id);
    }
    new.persons.retain(|person| person.id != dan);
    new
}

async fn propose(line: &Line, new: &Charter) -> Result<CharterRef, tonic::Status> {
    let call = v1::ProposeCharterRequest {
        charter: new.to_bytes().unwrap(),
    };
    let proposed = line.charters().propose(call).await?.into_inner();
    Ok(CharterRef {
        index: proposed.index,
        digest: Digest(proposed.sha256.as_slice().try_into().unwrap()),
    })
}

/// A request that delivers nothing.
async fn ask(vault: &Founded, by: &str, purpose: Purpose, lines: Vec<CredentialLine>) -> Asked {
    let (who, line) = (vault.who(by).unwrap(), vault.line(by).await.unwrap());
    let mut asked = Asked::new(&vault.facts, &line, who, lines).await.unwrap();
    asked.request.purpose = purpose;
    asked.request.deliver_to = None;
    asked.request.check_out = None;
    asked.request.waive = BTreeSet::new();
    line.ceremonies()
        .open(asked.open(who).unwrap())
        .await
        .unwrap();
    asked
}

/// An approval of what opens nothing.
async fn agree(vault: &Founded, who: &str, asked: &Asked) -> v1::CeremonyView {
    let (who, line) = (vault.who(who).unwrap(), vault.line(who).await.unwrap());
    let approval = Approval {
        request: asked.request.digest(),
        custodian: who.person.clone(),
        token: who.token,
        decision: Decision::Approve(Vec::new()),
        charter: Some(vault.facts.reference),
        log: Some(asked.request.log),
        signed: now().stamp(),
    };
    let call = v1::ApproveRequest {
        approval: Some(wire_text(&who.sign(&approval).unwrap())),
        submissions: Vec::new(),
        details: String::new(),
        ceremony: asked.id(),
    };
    let reply = line.ceremonies().approve(call).await.unwrap();
    reply.into_inner().ceremony.unwrap()
}

/// The line of a version as the vault has it now.
async fn named(line: &Line, definition: &Definition, version: u64) -> CredentialLine {
    let id = definition.credential.to_string();
    let show = v1::ShowCredentialRequest {
        credential: Some(v1::CredentialName {
            by: Some(v1::credential_name::By::Id(id)),
        }),
        page: None,
        all_versions: false,
    };
    let shown = line.credentials().show(show).await.unwrap().into_inner();
    let view = shown
        .versions
        .iter()
        .find(|view| view.version == version)
        .unwrap();
    CredentialLine {
        path: definition.path.clone(),
        credential: definition.credential,
        version: Version::new(version).unwrap(),
        manifest: Digest(view.manifest_sha256.as_slice().try_into().unwrap()),
    }
}

async fn submit(vault: &Founded, who: &Member, asked: &Asked) {
    let line = who.connect(&vault.facts).await.unwrap();
    let ballot = Ballot::new(&vault.facts, &line, who, &asked.id())
        .await
        .unwrap();
    line.ceremonies()
        .approve(ballot.call().unwrap())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_joins_somebody_leaves_and_what_is_sealed_follows() {
    let mut vault = Founded::new("").await.unwrap();
    let (definition, first) = vault.seal("db/main", b"hunter2").await.unwrap();
    let erin = Member::new("erin").unwrap();
    let olga = vault.line("olga").await.unwrap();
    let unproven = successor(&vault, &erin, None);
    assert!(
        propose(&olga, &unproven).await.is_err(),
        "nobody joined with that token"
    );
    let joined = join(&vault, &erin).await;
    let new = successor(&vault, &erin, Some(joined));
    let reference = propose(&olga, &new).await.unwrap();

    // Two requests for one base: the second is stale when the first has taken force.
    let purpose = Purpose::Change(Change::Charter(reference));
    let change = ask(&vault, "olga", purpose.clone(), Vec::new()).await;
    let late = ask(&vault, "olga", purpose, Vec::new()).await;
    let one = agree(&vault, "bob", &change).await;
    assert_eq!(one.outcome_code, "");
    let both = agree(&vault, "carol", &change).await;
    assert_eq!(both.outcome_code, "applied");
    let show = v1::ShowRequest {
        id: late.id(),
        page: None,
    };
    let shown = olga.ceremonies().show(show).await.unwrap().into_inner();
    assert_eq!(shown.ceremony.unwrap().outcome_code, "superseded");

    // The chain comes with everything that a client walks it by.
    let chain = v1::ShowCharterRequest {
        verified: 1,
        ..Default::default()
    };
    let chain = olga.charters().show(chain).await.unwrap().into_inner();
    let record = &chain.charters[0];
    assert_eq!(
        (chain.in_force, record.approvals.len(), record.joins.len()),
        (2, 2, 1)
    );
    vault.facts.charter = new;
    vault.facts.reference = CharterRef { ..reference };

    // Dan is gone, erin is here, also after a restart, which verifies the chain.
    for restarted in [false, true] {
        if restarted {
            vault.world.start().unwrap();
        }
        let list = || v1::ListCeremoniesRequest::default();
        let line = erin.connect(&vault.facts).await.unwrap();
        assert!(line.ceremonies().list(list()).await.is_ok());
        let dan = match vault.line("dan").await {
            Ok(line) => line.ceremonies().list(list()).await.is_err(),
            Err(_) => true,
        };
        assert!(dan, "restarted: {restarted}");
    }

    // Sealed to bob, carol and dan; a reshare seals it to bob, carol and erin and delivers nothing.
    let reshare = ask(&vault, "olga", Purpose::Reshare(reference), vec![first]).await;
    for who in ["bob", "carol"] {
        submit(&vault, vault.who(who).unwrap(), &reshare).await;
    }
    let bob = vault.line("bob").await.unwrap();
    let ended = release(&bob, &reshare.id()).await.unwrap().unwrap_err();
    assert_eq!(ended.outcome_code, "released");
    let lines = vec![
        named(&bob, &definition, 1).await,
        named(&bob, &definition, 2).await,
    ];
    let (alice, line) = (
        vault.who("alice").unwrap(),
        vault.line("alice").await.unwrap(),
    );
    let asked = Asked::new(&vault.facts, &line, alice, lines).await.unwrap();
    line.ceremonies()
        .open(asked.open(alice).unwrap())
        .await
        .unwrap();
    for who in [vault.who("bob").unwrap(), vault.who("carol").unwrap()] {
        submit(&vault, who, &asked).await;
    }
    let release = release(&line, &asked.id()).await.unwrap().unwrap();
    let secrets = asked.receive(&vault.facts, &release).unwrap();
    assert_eq!(secrets, [b"hunter2", b"hunter2"]);
}

/// Puts a charter into force with bob and carol, which changes what the group `ops` asks for.
async fn change_rules(vault: &mut Founded, change: impl FnOnce(&Founded, &mut Group)) {
    let mut new = vault.facts.charter.clone();
    new.index = 2;
    new.previous = Some(vault.facts.reference.digest);
    change(vault, &mut new.groups[0]);
    let olga = vault.line("olga").await.unwrap();
    let reference = propose(&olga, &new).await.unwrap();
    let purpose = Purpose::Change(Change::Charter(reference));
    let asked = ask(vault, "olga", purpose, Vec::new()).await;
    agree(vault, "bob", &asked).await;
    let both = agree(vault, "carol", &asked).await;
    assert_eq!(both.outcome_code, "applied");
    vault.facts.charter = new;
    vault.facts.reference = reference;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_approval_counts_though_its_share_is_not_needed() {
    let mut vault = Founded::new("").await.unwrap();
    let (_, first) = vault.seal("db/main", b"hunter2").await.unwrap();
    // Two shares open it, and bob's and carol's are not enough: somebody from elsewhere must agree.
    change_rules(&mut vault, |vault, ops| {
        let team = |name: &str, members: &[&str]| Team {
            name: name.parse().unwrap(),
            members: members
                .iter()
                .map(|name| vault.who(name).unwrap().person.id)
                .collect(),
        };
        ops.rules.one_from_each = vec![team("here", &["bob", "carol"]), team("there", &["dan"])];
    })
    .await;
    let (asked, alice) = vault.ask(vec![first]).await.unwrap();
    for who in ["bob", "carol", "dan"] {
        vault.approve(who, &asked).await.unwrap();
    }
    let release = release(&alice, &asked.id()).await.unwrap().unwrap();
    let secrets = asked.receive(&vault.facts, &release).unwrap();
    assert_eq!(secrets, [b"hunter2"]);
}

/// Somebody with the disk lets erin join with a text that bob signed, and leaves a credential that cannot be read.
async fn forge_join(vault: &Founded, erin: &Member) -> Digest {
    let bob = vault.who("bob").unwrap();
    let join = Join {
        vault: vault.facts.charter.origin.clone(),
        genesis: vault.facts.reference.digest,
        charter: vault.facts.reference,
        enrolment: erin.enrol.digest(),
        person: erin.person.clone(),
        token: erin.token,
        nonce: keyturn_vault::digest::Salt([1; 32]),
        signed: now().stamp(),
    };
    let mut join = bob.sign(&join).unwrap();
    join.signer = erin.enrol.signer;
    let path = vault.world.vault().join("data/store.redb");
    let store = RedbStore::open(&path).unwrap();
    let (row, _) = store.get(&Name::Vault.key()).await.unwrap().unwrap();
    let mut row: serde_json::Value = serde_json::from_slice(&row[1..]).unwrap();
    row["joined"] = serde_json::json!([
        { "enrolment": erin.enrol, "join": join, "entry": 1 }
    ]);
    let bytes = [&[1], row.to_string().as_bytes()].concat();
    let nobodys = Name::Credential(keyturn_vault::id::CredentialId::from_bytes([9; 16])).key();
    let txn = Txn::new()
        .put(Name::Vault.key(), bytes)
        .put(nobodys, vec![1, b'{']);
    store.txn(txn).await.unwrap();
    store.close().await;
    join.digest()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_in_the_store_that_nobody_signed_joins_nobody() {
    let mut vault = Founded::new("").await.unwrap();
    let erin = Member::new("erin").unwrap();
    vault.world.stop().unwrap();
    let forged = forge_join(&vault, &erin).await;
    vault.world.start().unwrap();
    let olga = vault.line("olga").await.unwrap();
    let new = successor(&vault, &erin, Some(forged));
    let refused = propose(&olga, &new).await.unwrap_err();
    assert!(refused.message().contains("join"), "{refused}");
    let joined = join(&vault, &erin).await;
    let new = successor(&vault, &erin, Some(joined));
    // The credential that cannot be read is told, and keeps nobody from changing the charter.
    assert!(propose(&olga, &new).await.is_ok(), "with her own");
    let findings = olga.status().await.unwrap().findings;
    let told = findings.iter().find(|one| one.code == "store-forged");
    assert!(told.unwrap().message.contains("credential"), "{told:?}");
}

/// Somebody with the disk puts a charter into force, in which erin takes dan's place.
async fn forge(vault: &Founded) {
    let erin = Member::new("erin").unwrap();
    let charter = successor(vault, &erin, Some(erin.enrol.digest()));
    let bytes = charter.to_bytes().unwrap();
    let digest = Digest::of(&bytes);
    let path = vault.world.vault().join("data/store.redb");
    let store = RedbStore::open(&path).unwrap();
    let (row, _) = store.get(&Name::Vault.key()).await.unwrap().unwrap();
    let mut row: serde_json::Value = serde_json::from_slice(&row[1..]).unwrap();
    let reference = serde_json::json!({ "index": 2, "digest": digest.to_string() });
    row["in_force"] = reference.clone();
    row["charters"] = serde_json::json!([
        { "charter": reference, "ceremony": "01HX0000000000000000000000", "entry": 1 }
    ]);
    let with = |bytes: &[u8]| [&[1], bytes].concat();
    let txn = Txn::new()
        .put(Name::Vault.key(), with(row.to_string().as_bytes()))
        .put(Name::Object(digest).key(), with(&bytes));
    store.txn(txn).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charter_that_nobody_agreed_to_is_not_served() {
    for (name, want) in [
        ("as it was", ""),
        (
            "forged",
            "nothing shows that one of its charters or restores was agreed to",
        ),
        (
            "older than the pins",
            "older than one that this node has seen",
        ),
    ] {
        let mut vault = Founded::new("").await.unwrap();
        vault.world.stop().unwrap();
        match name {
            "forged" => forge(&vault).await,
            "older than the pins" => {
                let path = vault.world.vault().join("pins.json");
                let mut pins: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                pins["newest"]["index"] = 2.into();
                std::fs::remove_file(&path).unwrap();
                write_private(&path, pins.to_string().as_bytes()).unwrap();
            }
            _ => {}
        }
        let refused = Inside::start(&vault.world, now()).await.err();
        let why = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            why.contains(want) && why.is_empty() == want.is_empty(),
            "{name}: {why}"
        );
    }
}

/// A charter that puts carol into dan's place in the group `dba`, which nobody of that group agrees to.
fn replaced(vault: &Founded) -> Charter {
    let mut new = vault.facts.charter.clone();
    new.index = 2;
    new.previous = Some(vault.facts.reference.digest);
    new.joins.clear();
    let id = |name: &str| vault.who(name).unwrap().person.id;
    let dba = new
        .groups
        .iter_mut()
        .find(|group| group.name.as_str() == "dba");
    let dba = dba.unwrap();
    dba.members.remove(&id("dan"));
    dba.members.insert(id("carol"));
    new
}

async fn outcome(vault: &Founded, asked: &Asked) -> String {
    let show = v1::ShowRequest {
        id: asked.id(),
        page: None,
    };
    let line = vault.line("bob").await.unwrap();
    let shown = line.ceremonies().show(show).await.unwrap().into_inner();
    shown.ceremony.unwrap().outcome_code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_group_is_replaced_after_the_wait_and_only_the_pins_say_that_it_was_over() {
    let dba = "[group.dba]\nk = 2\nmembers = [\"bob\", \"dan\"]\nallow_no_spare = true\n";
    let mut vault = Founded::new(dba).await.unwrap();
    vault.world.stop().unwrap();
    let mut inside = Inside::start(&vault.world, now()).await.unwrap();
    let day = std::time::Duration::from_hours(24);
    let olga = vault.line("olga").await.unwrap();
    let new = replaced(&vault);
    let needed = |reply: v1::ProposeCharterReply| reply.needed.len();
    let call = v1::ProposeCharterRequest {
        charter: new.to_bytes().unwrap(),
    };
    let early = olga.charters().propose(call.clone()).await.unwrap();
    assert_eq!(needed(early.into_inner()), 2, "its founders were just seen");

    inside.clock.advance(day * 31);
    let late = olga.charters().propose(call).await.unwrap();
    assert_eq!(needed(late.into_inner()), 1, "only the governing group");
    let reference = new.reference().unwrap();
    let purpose = Purpose::Change(Change::Charter(reference));
    let asked = ask(&vault, "olga", purpose, Vec::new()).await;
    for who in ["bob", "carol"] {
        assert_eq!(agree(&vault, who, &asked).await.outcome_code, "");
    }
    inside.clock.advance(day * 6);
    assert_eq!(outcome(&vault, &asked).await, "", "the wait is not over");
    inside.clock.advance(day * 2);
    for _ in 0..200 {
        if outcome(&vault, &asked).await == "applied" {
            break;
        }
        inside.clock.advance(std::time::Duration::from_secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(outcome(&vault, &asked).await, "applied");

    // A client follows it: by the log, the wait was over.
    let later = v1::ShowCharterRequest {
        verified: 1,
        ..Default::default()
    };
    let shown = olga.charters().show(later).await.unwrap().into_inner();
    let first = vault.facts.charter.to_bytes().unwrap();
    let digest = vault.facts.reference.digest;
    let mut walked = keyturn::verify::charter::begin(&first, digest).unwrap();
    let followed = keyturn::verify::charter::follow(&mut walked, shown.charters[0].clone());
    assert_eq!(followed.unwrap(), new.to_bytes().unwrap());

    // A restart believes it by the pins alone, whatever the ceremony's row says.
    let path = vault.world.vault().join("pins.json");
    let stopped = inside.stop().await.unwrap();
    let newest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(newest["newest"]["index"], 2);
    let mut crashed = newest.clone();
    crashed["newest"] = newest["genesis"].clone();
    let mut noted = crashed.clone();
    noted["waited"] = newest["newest"].clone();
    for (name, pins, served) in [
        ("as it was", &newest, true),
        ("killed between the commit and the pins", &noted, true),
        ("a node that saw no wait", &crashed, false),
    ] {
        std::fs::remove_file(&path).unwrap();
        write_private(&path, pins.to_string().as_bytes()).unwrap();
        let started = Inside::start(&vault.world, stopped).await;
        let why = started.as_ref().err().map(ToString::to_string);
        assert_eq!(started.is_ok(), served, "{name}: {why:?}");
        if let Ok(started) = started {
            inside = started;
            inside.stop().await.unwrap();
        }
    }
}

/// Which rotation is owed for its roster.
async fn owed(vault: &Founded) -> String {
    let line = vault.line("olga").await.unwrap();
    for _ in 0..500 {
        let list = v1::ListRotationsRequest {
            all: true,
            ..Default::default()
        };
        let listed = line.rotations().list(list).await.unwrap().into_inner();
        if let Some(cause) = listed
            .rotations
            .iter()
            .map(|one| &one.cause)
            .find(|cause| !cause.is_empty())
        {
            return cause.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    String::new()
}

fn store(vault: &Founded) -> RedbStore {
    RedbStore::open(&vault.world.vault().join("data/store.redb")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rosters_are_looked_at_after_a_change_and_again_after_a_crash() {
    let mut vault = Founded::new("").await.unwrap();
    let olga = vault.who("olga").unwrap();
    let line = vault.line("olga").await.unwrap();
    let mut rotated = keyturn_tests::story::definition(&vault.facts, "db/main").unwrap();
    rotated.connector = Some(keyturn_vault::definition::Connector {
        name: "elsewhere".parse().unwrap(),
        settings: std::collections::BTreeMap::new(),
    });
    let definition = Some(olga.sign_document(rotated.to_bytes().unwrap()).unwrap());
    let add = v1::AddRequest { definition };
    line.credentials().add(add).await.unwrap();
    let sealed = keyturn_tests::story::SealedVersion::new(&vault.facts, &rotated, 1, b"one");
    let deposit = sealed.unwrap().deposit(olga).unwrap();
    line.credentials().deposit(deposit).await.unwrap();
    drop(line);
    let job = Name::Job(rotated.credential).key();
    vault.world.stop().unwrap();
    let before = store(&vault);
    let (row, _) = before.get(&job).await.unwrap().unwrap();
    before.close().await;

    vault.world.start().unwrap();
    let erin = Member::new("erin").unwrap();
    let joined = join(&vault, &erin).await;
    let new = successor(&vault, &erin, Some(joined));
    let reference = propose(&vault.line("olga").await.unwrap(), &new)
        .await
        .unwrap();
    let purpose = Purpose::Change(Change::Charter(reference));
    let change = ask(&vault, "olga", purpose, Vec::new()).await;
    for who in ["bob", "carol"] {
        agree(&vault, who, &change).await;
    }
    assert_eq!(owed(&vault).await, "old-roster");

    // As a kill right after the commit leaves it: the rosters still to be looked at.
    vault.world.stop().unwrap();
    let looked = Name::Due {
        at: keyturn_vault::time::Time::from_ms(u64::MAX),
        kind: "rosters",
        id: 2_u128.to_be_bytes(),
    };
    let crashed = store(&vault);
    assert_eq!(
        crashed.get(&looked.key()).await.unwrap(),
        None,
        "it was done"
    );
    let txn = Txn::new().put(job, row).put(looked.key(), [1]);
    crashed.txn(txn).await.unwrap();
    crashed.close().await;
    vault.world.start().unwrap();
    assert_eq!(owed(&vault).await, "old-roster", "after the crash");
    vault.world.stop().unwrap();
    let after = store(&vault);
    assert_eq!(after.get(&looked.key()).await.unwrap(), None, "once");
    after.close().await;
}
