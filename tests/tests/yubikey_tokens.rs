//! Tokens that are not the ordinary one: stock share keys, founders' spares, weak ones; and computers that they sign in.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{fs, os::unix::fs::PermissionsExt as _};

use keyturn_seal::{ShareKey, piv::PivKey};
use keyturn_tests::{
    harness::write_private,
    raw::PEOPLE,
    tokens::{Case, Held, insert, text},
};
use keyturn_virtual_yubikey::{Counts, at_desk};
use serde_json::json;

const SLOT: u8 = 0x8b;
/// PIN once, touch always: what age-plugin-yubikey chooses.
const PLUGINS: [u8; 2] = [2, 2];

fn recipient(held: &Held) -> String {
    let point = held.card.public_key(SLOT).unwrap();
    ShareKey::Piv(PivKey::from_sec1(&point).unwrap()).to_string()
}

/// Alice asks, these people agree, and she gets it.
fn opens(case: &Case, people: &[&str], path: &str) {
    let asked = case.ask(&[path.to_owned()]).unwrap();
    for person in people {
        case.approve(person, &asked).unwrap().ok().unwrap();
    }
    let resume = format!("unseal --resume {} --json", asked.0);
    let opened = case.run("alice", &resume).unwrap().ok().unwrap();
    assert!(opened.stdout.contains("hunter2"), "{}", opened.stdout);
    let checkin = format!("checkin {}", asked.0);
    case.run("alice", &checkin).unwrap().ok().unwrap();
}

#[test]
fn an_identity_of_ages_plugin_opens_as_a_share_key() {
    at_desk(2, |desk| {
        let mut case = Case::new(desk).unwrap();
        assert!(case.bob.card.identity(SLOT, PLUGINS, false));
        let before = case.bob.card.public_key(SLOT);
        let key = recipient(&case.bob);
        let other = case.carol.card.identity(SLOT, PLUGINS, false);
        let absent = ["--share-key", &recipient(&case.carol)];
        let refused = case.enrol("bob", &absent).unwrap().exits(199).unwrap();
        assert!(
            other && refused.stderr.contains("82 to 95"),
            "{}",
            refused.stderr
        );

        // The keys are made, the file is not, whose name is too long; the same command goes on.
        let long = "b".repeat(300);
        let nowhere = ["--share-key", &key, "--out", &long];
        let token = [
            "enroll",
            "bob",
            "--token",
            "yubikey:10000001",
            "--puk-fd",
            "4",
        ];
        let broken = token.iter().chain(&nowhere);
        case.world
            .keyturn("bob", broken)
            .unwrap()
            .exits(27)
            .unwrap();
        let approval = case.bob.card.public_key(0x9c);
        assert!(approval.is_some());
        case.enrol("bob", &["--share-key", &key])
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(case.bob.card.public_key(0x9c), approval);

        case.found("").unwrap();
        let path = &case.credentials(1).unwrap()[0];
        opens(&case, &["bob", "carol"], path);
        case.run("bob", &format!("confirm {path}"))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(case.bob.card.public_key(SLOT), before, "never written");
        case.run("alice", "audit verify").unwrap().ok().unwrap();
    });
}

#[test]
fn an_imported_share_key_is_no_attested_one() {
    at_desk(2, |desk| {
        let mut case = Case::new(desk).unwrap();
        assert!(case.bob.card.identity(SLOT, PLUGINS, true));
        let key = ["--share-key", &recipient(&case.bob)];
        let enrolled = case.enrol("bob", &key).unwrap().ok().unwrap();
        assert!(
            enrolled
                .stderr
                .contains("was imported, not made on this YubiKey"),
            "{}",
            enrolled.stderr
        );
        let demanded = "require_attestation = true";
        let refused = case
            .world
            .try_init(&PEOPLE, demanded)
            .unwrap()
            .exits(1)
            .unwrap();
        let told = "bob's token";
        let line = refused
            .stderr
            .split("; let them")
            .next()
            .unwrap_or_default();
        assert!(
            line.contains(told) && line.contains("a key that was imported never is"),
            "{}",
            refused.stderr
        );
        assert!(!case.world.folder().join("vault").exists());
        case.found("").unwrap();
        let path = &case.credentials(1).unwrap()[0];
        opens(&case, &["bob", "carol"], path);
    });
}

#[test]
fn a_founder_brings_a_spare() {
    at_desk(3, |desk| {
        let mut case = Case::new(desk).unwrap();
        let spare = insert(desk, 2, 10_000_003, (5, 7, 4), &case.pki).unwrap();
        case.enrol("bob", &[]).unwrap().ok().unwrap();
        let world = &case.world;
        let file = world.folder().join("people/bob-spare.enroll");
        let carols = fs::read(world.folder().join("people/carol.enroll")).unwrap();
        write_private(&file, &carols).unwrap();
        world.try_init(&PEOPLE, "").unwrap().exits(1).unwrap();
        fs::remove_file(&file).unwrap();
        world
            .enrol_yubikey_with("bob", 10_000_003, &["--spare"])
            .unwrap()
            .ok()
            .unwrap();
        let made = world.init(&PEOPLE, "").unwrap().json().unwrap();
        let digest = text(&made["charter"]["sha256"]);
        case.world.start().unwrap();
        let join = |person: &str, n: usize| {
            let welcome = text(&made["welcomes"][person][n]);
            let join = ["--json", "join", &welcome, "--yes-sha256", &digest];
            let joined = case.world.keyturn(person, join).unwrap();
            joined.ok().unwrap().json().unwrap()
        };
        for (name, _) in PEOPLE {
            let joined = join(name, 0);
            assert_eq!(joined["founded"], false, "{joined}");
        }
        // Nothing is in force while a key is unproven, and the welcome file of the other token proves nothing of it.
        assert_eq!(join("bob", 0)["awaited"], json!(["bob"]));
        let status = case.run("olga", "--json status").unwrap().json().unwrap();
        assert_eq!(status["founded"], false, "{status}");
        assert_eq!(join("bob", 1)["founded"], true);

        let charter = case
            .run("olga", "--json charter show")
            .unwrap()
            .json()
            .unwrap();
        let persons = charter["persons"].as_array().unwrap();
        let bob = persons
            .iter()
            .find(|person| person["name"] == "bob")
            .unwrap();
        assert_eq!(bob["tokens"].as_array().map(Vec::len), Some(2), "{bob}");
        case.bob.pull().unwrap();
        let path = &case.credentials(1).unwrap()[0];
        let before = spare.card.counts().key_uses;
        opens(&case, &["bob", "carol"], path);
        assert_eq!(spare.card.counts().key_uses - before, 2, "the spare did it");
        let audit = case
            .run("alice", "--json audit verify")
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(audit.json().unwrap()["findings"], json!([]));
    });
}

/// A computer whose key the charter does not have asks, adds, deposits and checks in by the token of its user.
#[test]
fn a_computer_that_was_signed_in_asks_by_the_token() {
    at_desk(2, |desk| {
        let case = Case::founded(desk).unwrap();
        for person in ["alice", "olga"] {
            fs::remove_file(case.world.home(person).join("device.pem")).unwrap();
            let join = format!("join --device --name {person}s-new-desk");
            case.run(person, &join).unwrap().ok().unwrap();
        }
        let paths = case.credentials(2).unwrap();
        let deposit = format!("credential deposit {} --secret-file secret", paths[0]);
        case.run("olga", &deposit).unwrap().ok().unwrap();
        opens(&case, &["bob", "carol"], &paths[1]);

        // It stays signed in until the charter changes, and says what to do then.
        let charter = case.run("bob", "--json charter show").unwrap();
        let mut charter = charter.json().unwrap();
        charter["policies"][0]["quarantine_secs"] = json!(700_000);
        case.change(&charter, &["bob", "carol"]).unwrap();
        let gone = case.run("alice", "status").unwrap().exits(6).unwrap();
        assert!(gone.stderr.contains("join --device"), "{}", gone.stderr);
        let join = "join --device --name alices-new-desk";
        case.run("alice", join).unwrap().ok().unwrap();
        case.run("alice", "audit verify").unwrap().ok().unwrap();
    });
}

/// Carol's firmware is older than a charter that comes later wants.
#[test]
fn weak_tokens_are_told_and_count_where_it_is_waived() {
    at_desk(2, |desk| {
        let case = Case::founded(desk).unwrap();
        let path = &case.credentials(1).unwrap()[0];
        let mut charter = case
            .run("olga", "--json charter show")
            .unwrap()
            .json()
            .unwrap();
        charter["policies"][0]["minimum_firmware"] = json!("5.7.0");
        case.change(&charter, &["bob", "carol"]).unwrap();

        let status = case.run("olga", "--json status").unwrap().ok().unwrap();
        let status = status.json().unwrap();
        let findings = status["findings"].as_array().unwrap();
        let weak: Vec<_> = findings
            .iter()
            .filter(|finding| finding["code"] == "weak-token")
            .map(|finding| finding["message"].to_string())
            .collect();
        assert!(
            weak.iter()
                .any(|one| one.contains("carol") && one.contains("5.4.3 is older than 5.7.0")),
            "{weak:?}"
        );
        assert!(!weak.iter().any(|one| one.contains("bob")), "{weak:?}");

        let asked = case.ask(std::slice::from_ref(path)).unwrap();
        case.approve("bob", &asked).unwrap().ok().unwrap();
        let before = case.carol.card.counts();
        let refused = case.approve("carol", &asked).unwrap().exits(44).unwrap();
        for words in ["firmware 5.4.3 is older than 5.7.0", "--waive firmware"] {
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        let pins = |counts: Counts| (counts.pin_checks, counts.touches);
        assert_eq!(pins(case.carol.card.counts()), pins(before), "told first");
        case.run("carol", "heartbeat").unwrap().ok().unwrap();
        let waive = format!("unseal {path} --reason down --waive firmware --no-wait");
        let ceremony = case.run("alice", &waive).unwrap().ok().unwrap().stdout;
        let waiting = case.waiting("bob").unwrap().into_iter();
        let waived = waiting
            .clone()
            .find(|(id, _)| *id == ceremony.trim())
            .unwrap();
        for person in ["bob", "carol"] {
            case.approve(person, &waived).unwrap().ok().unwrap();
        }
        let resume = format!("unseal --resume {} --json", waived.0);
        let opened = case.run("alice", &resume).unwrap().ok().unwrap();
        assert!(opened.stdout.contains("hunter2"), "{}", opened.stdout);
        case.run("alice", "audit verify").unwrap().ok().unwrap();
    });
}

/// Answers every question with the PIN, and counts them.
const PINENTRY: &str = r#"#!/bin/sh
echo "OK"
while read -r line; do
  case $line in
    GETPIN) echo asked >>"$0.log"; printf 'D 271828\nOK\n' ;;
    *) echo OK ;;
  esac
done
"#;

/// Counted where it happens: what carol is asked, and what her token is given.
#[test]
fn an_approval_takes_one_pin_entry_and_two_touches() {
    at_desk(2, |desk| {
        let case = Case::founded(desk).unwrap();
        let folder = case.world.folder();
        let pinentry = folder.join("pinentry");
        write_private(&pinentry, PINENTRY.as_bytes()).unwrap();
        fs::set_permissions(&pinentry, fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(folder.join("carol.pin")).unwrap();
        let paths = case.credentials(8).unwrap();
        for count in 1..=8_u64 {
            let some = &paths[..usize::try_from(count).unwrap()];
            let (ceremony, digest) = case.ask(some).unwrap();
            case.carol.card.forget_touch();
            let before = case.carol.card.counts();
            let approve = format!(
                "approve {ceremony} --no-wait --yes-sha256 {digest} --pinentry {}",
                pinentry.display()
            );
            let approved = case.run("carol", &approve).unwrap().ok().unwrap();
            let after = case.carol.card.counts();
            let asked = fs::read_to_string(folder.join("pinentry.log")).unwrap();
            fs::remove_file(folder.join("pinentry.log")).unwrap();
            let told = &approved.stderr;
            let ahead = told.find("this needs one PIN entry, two touches");
            let touch = told.find("touch your YubiKey 10000002 now");
            assert!(ahead.is_some() && ahead < touch, "announced first:\n{told}");
            assert_eq!(asked.lines().count(), 1, "{count}: PIN entries");
            assert_eq!(after.touches - before.touches, 2, "{count}: {told}");
            assert_eq!(after.key_uses - before.key_uses, count + 1);
            // The token is given the PIN before each use of a key, and never once more.
            assert_eq!(after.pin_checks - before.pin_checks, count + 1);
            let withdraw = format!("withdraw {ceremony}");
            case.run("alice", &withdraw).unwrap().ok().unwrap();
        }
    });
}
