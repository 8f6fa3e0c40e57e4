//! Custodians with YubiKeys: both programs, the real PC/SC stack, virtual tokens.

use std::{fs, process::Command, thread, time::Duration};

use keyturn::home::Pocket;
use keyturn_audit::note::LogKey;
use keyturn_tests::{
    harness::ORIGIN,
    program::finish,
    tokens::{Case, PIN, PUK, insert, text},
};
use keyturn_vault::{digest::Digest, file::EnrolmentFile};
use keyturn_virtual_yubikey::{Touch, at_desk};
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

        // What a custodian does there, and no more.
        for not_there in ["unseal aws/prod/root-1 --reason down", "credential list"] {
            let refused = case.run("nobody", not_there).unwrap().exits(25).unwrap();
            assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
        }

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

/// Whoever had the token in hands can write to it: nothing of it is believed that the vault's signatures do not say.
#[test]
fn what_a_token_carries_to_a_borrowed_computer_is_checked() {
    const PROFILE: [u8; 3] = [0x5f, 0x4b, 0x55];
    type Alter = fn(&mut Pocket, &str);
    let key = LogKey::generate(ORIGIN).unwrap();
    let other_log = key.sign(99, [7; 32]).unwrap().note().to_string();
    let cases: [(&str, i32, Alter); 7] = [
        ("as it is", 0, |_, _| {}),
        ("another server", 4, |it, _| {
            it.vault.server_pins = vec![Digest::of(b"")];
        }),
        ("another first charter", 8, |it, _| {
            it.charter.digest = Digest::of(b"");
            it.vault.genesis = it.charter.digest;
        }),
        ("another person", 8, |it, _| {
            it.person = "01M7XXW77JF1DBQ6SVHNSPAS7A".parse().unwrap();
        }),
        ("another charter", 20, |it, _| {
            it.charter.index = 2;
            it.charter.digest = Digest::of(b"");
        }),
        ("a log that is longer", 24, |it, log| {
            it.checkpoint = Some(log.to_owned());
        }),
        ("another token", 11, |it, _| it.token.serial = Some(7)),
    ];
    at_desk(2, |desk| {
        let mut case = Case::founded(desk).unwrap();
        case.carol.pull().unwrap();
        case.world.tell_pin("nobody", PIN, PUK).unwrap();
        let carried = case.bob.card.object(&PROFILE).unwrap();
        let mut wrong = Vec::new();
        for (name, code, alter) in cases {
            let mut pocket = Pocket::from_bytes(&carried).unwrap();
            alter(&mut pocket, &other_log);
            let altered = pocket.to_bytes().unwrap();
            case.bob.card.set_object(&PROFILE, &altered);
            let reply = case.run("nobody", "status").unwrap();
            if reply.code != code || reply.stderr.contains("hint: ") != (code != 0) {
                wrong.push(format!("{name}: {} {}", reply.code, reply.stderr));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        case.bob.card.set_object(&PROFILE, b"no profile");
        case.run("nobody", "status").unwrap().exits(11).unwrap();
    });
}

/// Ctrl-C, a closed terminal, and kill, while the token blinks.
#[test]
fn nothing_stays_on_a_borrowed_computer_when_the_command_is_interrupted() {
    at_desk(2, |desk| {
        let mut case = Case::founded(desk).unwrap();
        case.carol.pull().unwrap();
        case.world.tell_pin("nobody", PIN, PUK).unwrap();
        case.bob.card.touch(Touch::Never);
        case.bob.card.touch_timeout(Duration::from_secs(8));
        let temporary = case.world.folder().join("temporary");
        fs::create_dir(&temporary).unwrap();
        let left = || fs::read_dir(&temporary).unwrap().count();
        for (signal, code) in [("INT", 130), ("HUP", 129), ("TERM", 143)] {
            let mut command = case.world.command("nobody", ["status"]).unwrap();
            let child = command.env("TMPDIR", &temporary).spawn().unwrap();
            while !case.bob.card.is_blinking() {
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(left(), 1, "{signal}");
            let process = child.id().to_string();
            let kill = Command::new("kill").args(["-s", signal, &process]).status();
            assert!(kill.unwrap().success());
            assert_eq!(finish(child).unwrap().code, code, "{signal}");
            assert_eq!(left(), 0, "{signal}");
            while case.bob.card.is_blinking() {
                thread::sleep(Duration::from_millis(5));
            }
        }
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
        case.change(&charter, &["bob", "carol"]).unwrap();

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
