//! Custodians with YubiKeys: both programs, the real PC/SC stack, virtual tokens.
#![expect(
    clippy::disallowed_methods,
    reason = "a test writes small files of its own"
)]

use std::{fs, thread, time::Duration};

use keyturn_tests::{
    program::finish,
    tokens::{Case, PIN, PUK, insert, text},
};
use keyturn_vault::file::EnrolmentFile;
use keyturn_virtual_yubikey::at_desk;
use serde_json::json;

#[test]
fn two_custodians_with_yubikeys_open_eight_credentials() {
    at_desk(2, |desk| {
        let case = Case::founded(desk).unwrap();
        let file = fs::read(case.world.folder().join("people/bob.enroll")).unwrap();
        let enrolment = EnrolmentFile::from_bytes(&file).unwrap();
        assert!(
            enrolment.attestation.is_some(),
            "the token attests its keys"
        );

        let paths = case.credentials(8).unwrap();
        for count in [1, 8] {
            let asked = case.ask(&paths[..count]).unwrap();
            for (person, held) in [("bob", &case.bob), ("carol", &case.carol)] {
                let before = held.card.counts();
                let approved = case.approve(person, &asked).unwrap().ok().unwrap();
                let touches = held.card.counts().touches - before.touches;
                // One fewer where the touch of the command before still lasts.
                assert!(
                    (1..=2).contains(&touches),
                    "{person}, {count} credentials: {touches}"
                );
                let told = &approved.stderr;
                let ahead = told.find("this needs one PIN entry, two touches");
                let touch = told.find(&format!("touch your YubiKey {} now", held.card.serial()));
                assert!(ahead.is_some() && ahead < touch, "announced first:\n{told}");
            }
            let resume = format!("unseal --resume {} --json", asked.0);
            let opened = case.run("alice", &resume).unwrap().ok().unwrap();
            assert_eq!(
                opened.stdout.matches("hunter2").count(),
                count,
                "{}",
                opened.stdout
            );
            let checkin = format!("checkin {}", asked.0);
            case.run("alice", &checkin).unwrap().ok().unwrap();
        }
        case.run("carol", "heartbeat").unwrap().ok().unwrap();
        case.run("carol", "confirm aws/prod/root-1")
            .unwrap()
            .ok()
            .unwrap();
        let (ceremony, _) = case.ask(&paths[..1]).unwrap();
        let refuse = format!("refuse {ceremony} --reason no");
        case.run("bob", &refuse).unwrap().ok().unwrap();
        case.run("bob", &format!("retract {ceremony}"))
            .unwrap()
            .ok()
            .unwrap();
    });
}

/// On a computer without a home: the token and its PIN are all that bob brings.
#[test]
fn a_borrowed_computer_needs_the_token_alone() {
    at_desk(2, |desk| {
        let mut case = Case::founded(desk).unwrap();
        let paths = case.credentials(2).unwrap();
        case.run("bob", "heartbeat").unwrap().ok().unwrap();
        case.carol.pull().unwrap();
        let asked = case.ask(&paths).unwrap();
        case.world.tell_pin("nobody", PIN, PUK).unwrap();

        let before = case.bob.card.counts();
        let (_, digest) = &asked;
        let approve = format!("approve --no-wait --yes-sha256 {digest}");
        let approved = case.run("nobody", &approve).unwrap().ok().unwrap();
        assert!(
            approved.stderr.contains("six words of its first charter"),
            "{}",
            approved.stderr
        );
        assert!(case.bob.card.counts().touches - before.touches <= 3);
        assert!(!case.world.home("nobody").exists(), "nothing stays");
        let status = case
            .run("bob", "--json status")
            .unwrap()
            .ok()
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(
            status["waiting"].as_array().map(Vec::len),
            Some(0),
            "bob's approval counts"
        );

        // For good: a home, but no second profile is made of it.
        case.run("nobody", "join --device --name bobs-desk")
            .unwrap()
            .ok()
            .unwrap();
        let status = case
            .run("nobody", "--json status")
            .unwrap()
            .ok()
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(status["waiting"].as_array().map(Vec::len), Some(0));
        case.run("nobody", "heartbeat").unwrap().ok().unwrap();
        case.run("alice", "audit verify").unwrap().ok().unwrap();
    });
}

/// Bob's second YubiKey: enrolled, invited, joined, named by charter 2, and then it approves alone.
#[test]
fn a_spare_token_takes_the_place_of_a_lost_one() {
    at_desk(3, |desk| {
        let mut case = Case::founded(desk).unwrap();
        let spare = insert(desk, 2, 10_000_003, (5, 7, 4), &case.pki).unwrap();
        let enroll = "--json enroll bob --spare --token yubikey:10000003 --puk-fd 4";
        let enrolled = case
            .run("bob", enroll)
            .unwrap()
            .ok()
            .unwrap()
            .json()
            .unwrap();
        case.run("bob", &enroll.replace("10000003", "10000001"))
            .unwrap()
            .exits(90)
            .unwrap();
        let digest = text(&enrolled["enrolment"]);
        let invite = format!("--json charter invite bob-spare.enroll --yes-sha256 {digest}");
        let invited = case
            .run("olga", &invite)
            .unwrap()
            .ok()
            .unwrap()
            .json()
            .unwrap();
        let tokens = invited["person"]["tokens"].as_array().map(Vec::len);
        assert_eq!(tokens, Some(2), "{invited}");
        let status = case.run("olga", "--json status").unwrap();
        let status = status.json().unwrap();
        let join = format!(
            "--json join bob.welcome --yes-sha256 {}",
            text(&status["charter_sha256"])
        );
        let joined = case
            .run("bob", &join)
            .unwrap()
            .ok()
            .unwrap()
            .json()
            .unwrap();

        let mut charter = case
            .run("olga", "--json charter show")
            .unwrap()
            .json()
            .unwrap();
        let persons = charter["persons"].as_array_mut().unwrap();
        let bob = persons
            .iter_mut()
            .find(|person| person["name"] == "bob")
            .unwrap();
        bob["tokens"] = invited["person"]["tokens"].clone();
        charter["joins"] = json!([joined["join"]]);
        fs::write(
            case.world.folder().join("charter.json"),
            charter.to_string(),
        )
        .unwrap();
        let propose = [
            "charter",
            "propose",
            "charter.json",
            "--reason",
            "bob has a spare",
        ];
        let child = case
            .world
            .command("olga", propose)
            .unwrap()
            .spawn()
            .unwrap();
        for person in ["bob", "carol"] {
            let asked = (0..100).find_map(|_| {
                thread::sleep(Duration::from_millis(50));
                case.waiting(person).unwrap().pop()
            });
            case.approve(person, &asked.unwrap()).unwrap().ok().unwrap();
        }
        finish(child).unwrap().ok().unwrap();

        case.bob.pull().unwrap();
        let paths = case.credentials(1).unwrap();
        let asked = case.ask(&paths).unwrap();
        let before = spare.card.counts();
        let approved = case.approve("bob", &asked).unwrap().ok().unwrap();
        assert!(
            approved.stderr.contains("touch your YubiKey 10000003"),
            "{}",
            approved.stderr
        );
        assert!((1..=2).contains(&(spare.card.counts().touches - before.touches)));
        case.approve("carol", &asked).unwrap().ok().unwrap();
        let resume = format!("unseal --resume {} --json", asked.0);
        assert!(
            case.run("alice", &resume)
                .unwrap()
                .ok()
                .unwrap()
                .stdout
                .contains("hunter2")
        );
        case.run("alice", "audit verify").unwrap().ok().unwrap();
    });
}
