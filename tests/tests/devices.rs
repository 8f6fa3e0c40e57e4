//! Computers that a token has signed in: how many, for how long, for what.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use keyturn_hsm::device::DeviceKey;
use keyturn_proto::{CODE_TRAILER, v1};
use keyturn_tests::{
    raw::{Founded, Line, Member, now, random, wire_text},
    story::Asked,
};
use keyturn_vault::{
    digest::Digest,
    id::DeviceId,
    key::PublicKey,
    reference::CharterRef,
    text::{EnrolledDevice, NewDevice},
};
use tonic::Status;

/// Most that one person has signed in.
const MOST: usize = 8;

fn code(status: &Status) -> String {
    let code = status.metadata().get(CODE_TRAILER);
    code.map_or_else(String::new, |code| code.to_str().unwrap().to_owned())
}

/// Gives somebody a computer that no charter knows.
fn new_computer(vault: &mut Founded, name: &'static str) {
    let member = vault.people.get_mut(name).unwrap();
    member.device = DeviceKey::generate(name).unwrap();
    member.device_id = DeviceId::from_parts(now(), random().unwrap());
}

/// What a token signs to let a computer in.
fn text(vault: &Founded, by: &Member) -> NewDevice {
    NewDevice {
        vault: vault.facts.charter.origin.clone(),
        genesis: vault.facts.reference.digest,
        charter: vault.facts.reference,
        person: by.person.clone(),
        token: by.token,
        device: EnrolledDevice {
            id: by.device_id,
            name: "new-desk".parse().unwrap(),
            key: PublicKey::from_der(by.device.public().spki()).unwrap(),
        },
        signed: now().stamp(),
    }
}

async fn sign_in(line: &Line, text: &NewDevice, by: &Member) -> Result<(), Status> {
    let join = Some(wire_text(&by.sign(text).unwrap()));
    let call = v1::JoinDeviceRequest { join };
    line.charters().join_device(call).await.map(drop)
}

/// Whether the daemon talks to this computer.
async fn is_known(line: &Line) -> bool {
    line.charters()
        .show(v1::ShowCharterRequest::default())
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_few_computers_signed_in_and_the_oldest_goes() {
    let mut vault = Founded::new("").await.unwrap();
    let own = vault.line("bob").await.unwrap();
    let (mut lines, mut texts) = (Vec::new(), Vec::new());
    for _ in 0..=MOST {
        new_computer(&mut vault, "bob");
        let line = vault.line("bob").await.unwrap();
        assert!(!is_known(&line).await, "nobody signed it in");
        let bob = vault.who("bob").unwrap();
        let text = text(&vault, bob);
        sign_in(&line, &text, bob).await.unwrap();
        sign_in(&line, &text, bob).await.unwrap();
        texts.push(text);
        lines.push(line);
    }
    let mut known = Vec::new();
    for line in &lines {
        known.push(is_known(line).await);
    }
    let mut want = vec![true; MOST + 1];
    *want.first_mut().unwrap() = false;
    assert_eq!(known, want);
    assert!(is_known(&own).await, "the charter has it");
    // What let it in before does not let it in again, whoever has the computer now.
    let (oldest, said) = (lines.first().unwrap(), texts.first().unwrap());
    let bob = vault.who("bob").unwrap();
    let refused = sign_in(oldest, said, bob).await.unwrap_err();
    assert_eq!(code(&refused), "denied", "{refused}");

    // Other people's stay, and all outlast a restart.
    new_computer(&mut vault, "carol");
    let carols = vault.line("carol").await.unwrap();
    let carol = vault.who("carol").unwrap();
    sign_in(&carols, &text(&vault, carol), carol).await.unwrap();
    vault.world.stop().unwrap();
    vault.world.start().unwrap();
    for name in ["bob", "carol"] {
        assert!(is_known(&vault.line(name).await.unwrap()).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_signs_in_its_owner_and_the_computer_signs_nothing() {
    let mut vault = Founded::new("").await.unwrap();
    let (_, version) = vault.seal("aws/1/root", b"secret").await.unwrap();
    new_computer(&mut vault, "alice");
    let (alice, bob) = (vault.who("alice").unwrap(), vault.who("bob").unwrap());
    let line = vault.line("alice").await.unwrap();

    let others = NewDevice {
        token: bob.token,
        ..text(&vault, alice)
    };
    let elsewhere = NewDevice {
        vault: "vault.example.org/other".parse().unwrap(),
        ..text(&vault, alice)
    };
    let digest = Digest::of(b"another charter");
    let refounded = NewDevice {
        genesis: digest,
        charter: CharterRef { index: 1, digest },
        ..text(&vault, alice)
    };
    let own = vault.line("bob").await.unwrap();
    for (name, line, text, by) in [
        ("somebody else's token", &line, &text(&vault, alice), bob),
        ("as somebody else", &line, &others, bob),
        ("another vault", &line, &elsewhere, alice),
        ("another first charter", &line, &refounded, alice),
        ("another computer", &own, &text(&vault, alice), alice),
    ] {
        let refused = sign_in(line, text, by).await.unwrap_err();
        assert_eq!(code(&refused), "denied", "{name}: {refused}");
    }
    assert!(!is_known(&line).await);
    sign_in(&line, &text(&vault, alice), alice).await.unwrap();

    let asked = Asked::new(&vault.facts, &line, alice, vec![version]);
    let asked = asked.await.unwrap();
    let mut call = asked.open(alice).unwrap();
    let refused = line.ceremonies().open(call.clone()).await.unwrap_err();
    assert_eq!(code(&refused), "denied", "{refused}");
    call.request = Some(wire_text(&alice.sign(&asked.request).unwrap()));
    line.ceremonies().open(call).await.unwrap();
}
