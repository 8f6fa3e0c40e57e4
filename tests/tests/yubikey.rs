//! Custodians with YubiKeys: both programs, the real PC/SC stack, virtual tokens.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs;

use keyturn_tests::{
    Outcome, Reply, World,
    harness::write_private,
    raw::PEOPLE,
    tokens::{Held, PIN, PUK, insert},
};
use keyturn_vault::file::EnrolmentFile;
use keyturn_virtual_yubikey::{Desk, TestPki, at_desk};
use serde_json::Value;

const BOB: u32 = 10_000_001;
const CAROL: u32 = 10_000_002;

/// A founded vault in which bob and carol have YubiKeys, and dan a key file.
struct Case {
    world: World,
    bob: Held,
    carol: Held,
}

impl Case {
    fn founded(desk: &Desk) -> Outcome<Self> {
        let pki = TestPki::new()?;
        let bob = insert(desk, 0, BOB, (5, 7, 4), &pki)?;
        let carol = insert(desk, 1, CAROL, (5, 4, 3), &pki)?;
        let mut world = World::new()?;
        fs::create_dir_all(world.folder().join("people"))?;
        for (name, _) in PEOPLE {
            match name {
                "bob" => world.enrol_yubikey(name, BOB)?.ok()?,
                "carol" => world.enrol_yubikey(name, CAROL)?.ok()?,
                _ => {
                    let out = format!("people/{name}.enroll");
                    world.keyturn(name, ["enroll", name, "--out", &out])?.ok()?
                }
            };
        }
        let made = world.init(&PEOPLE, "")?.json()?;
        world.start()?;
        let digest = text(&made["charter"]["sha256"]);
        for (name, _) in PEOPLE {
            let welcome = world.welcome(name).display().to_string();
            world
                .keyturn(name, ["join", &welcome, "--yes-sha256", &digest])?
                .ok()?;
        }
        Ok(Self { world, bob, carol })
    }

    fn run(&self, person: &str, line: &str) -> Outcome<Reply> {
        self.world.keyturn(person, line.split(' '))
    }

    /// Adds this many credentials; their paths.
    fn credentials(&self, count: usize) -> Outcome<Vec<String>> {
        write_private(&self.world.folder().join("secret"), b"hunter2")?;
        let paths: Vec<String> = (1..=count).map(|i| format!("aws/prod/root-{i}")).collect();
        for path in &paths {
            let add = "--kind text --group ops --policy default --secret-file secret";
            self.run("olga", &format!("credential add {path} {add}"))?
                .ok()?;
        }
        Ok(paths)
    }

    /// Alice asks for these; ceremony and digest.
    fn ask(&self, paths: &[String]) -> Outcome<(String, String)> {
        let ask = format!("unseal {} --reason down --no-wait", paths.join(" "));
        let asked = self.run("alice", &ask)?.ok()?.stdout;
        let ceremony = asked.trim().to_owned();
        for _ in 0..100 {
            let status = self.run("bob", "--json status")?.ok()?.json()?;
            let waiting = status["waiting"].as_array().cloned().unwrap_or_default();
            let found = waiting
                .iter()
                .find(|one| text(&one["ceremony"]) == ceremony);
            if let Some(found) = found {
                return Ok((ceremony, text(&found["request_sha256"])));
            }
        }
        Err("the request does not wait for bob".into())
    }

    fn approve(&self, person: &str, asked: &(String, String)) -> Outcome<Reply> {
        let (ceremony, digest) = asked;
        self.run(
            person,
            &format!("approve {ceremony} --no-wait --yes-sha256 {digest}"),
        )
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

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
