//! Everything that can go wrong between a person and a YubiKey, as the command line tells it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use keyturn_tests::{
    World,
    tokens::{BOB, CAROL, Case, PIN, PUK, insert},
};
use keyturn_virtual_yubikey::{Card, TestPki, Touch, at_desk};

/// Bob's heartbeat, which needs PIN and touch, ends with this exit code and says this.
fn heartbeat(case: &Case, name: &str, code: i32, words: &[&str]) {
    let reply = case.run("bob", "heartbeat").unwrap();
    let said = format!("{}{}", reply.stderr, reply.stdout);
    assert_eq!(reply.code, code, "{name}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{name}: {word:?} was not said:\n{said}"
        );
    }
    assert_eq!(said.contains("hint: "), code != 0, "{name}: {said}");
}

#[test]
fn mishaps_with_the_right_key_are_told_apart() {
    at_desk(2, |desk| {
        let mut case = Case::founded(desk).unwrap();
        heartbeat(&case, "well", 0, &["touch your YubiKey 10000001 now"]);

        case.bob.card.touch_next([Touch::Never]);
        heartbeat(&case, "no touch", 114, &["not touched in time"]);

        let pull = Touch::PullOut(Duration::from_millis(50));
        case.bob.card.touch_next([pull]);
        heartbeat(&case, "pulled out", 115, &["pulled out", "insert it again"]);
        case.bob.pull().unwrap();
        heartbeat(
            &case,
            "wrong key",
            103,
            &["10000001 is not inserted; found 10000002"],
        );
        case.carol.pull().unwrap();
        heartbeat(&case, "no key", 102, &["no YubiKey is inserted"]);
        case.bob.put_back(desk).unwrap();

        let held = desk.hold(0).unwrap();
        heartbeat(&case, "held", 105, &["another program", "scdaemon"]);
        drop(held);

        case.world.tell_pin("bob", "2718", PUK).unwrap();
        heartbeat(
            &case,
            "no PIN",
            110,
            &["6 to 8 characters", "no try was used up"],
        );
        assert_eq!(case.bob.card.tries().0, 3);
        case.world.tell_pin("bob", "999999", PUK).unwrap();
        heartbeat(&case, "wrong PIN", 106, &["2 tries left"]);
        case.world.tell_pin("bob", PIN, PUK).unwrap();
        heartbeat(&case, "right again", 0, &[]);
        case.world.tell_pin("bob", "999999", PUK).unwrap();
        heartbeat(&case, "wrong", 106, &["2 tries left"]);
        heartbeat(&case, "wrong twice", 106, &["1 try left"]);
        heartbeat(&case, "blocked", 107, &["PIN is blocked", "unblock-pin"]);
        case.world.tell_pin("bob", PIN, PUK).unwrap();
        heartbeat(&case, "still blocked", 107, &["PUK"]);
    });
}

#[test]
fn mishaps_with_other_keys_are_told_apart() {
    at_desk(2, |desk| {
        let mut case = Case::founded(desk).unwrap();
        let both = case.run("nobody", "status").unwrap();
        assert_eq!(both.code, 104, "two keys, no home: {}", both.stderr);
        assert!(
            both.stderr.contains("--token yubikey:SERIAL"),
            "{}",
            both.stderr
        );
        let other = case
            .run("bob", "heartbeat --token yubikey:10000002")
            .unwrap();
        assert_eq!(other.code, 103, "somebody else's: {}", other.stderr);
        assert!(
            other.stderr.contains("you have yubikey:10000001"),
            "{}",
            other.stderr
        );

        case.bob.pull().unwrap();
        let pki = TestPki::new().unwrap();
        let new = insert(desk, 0, BOB, (5, 7, 4), &pki).unwrap();
        heartbeat(
            &case,
            "without our keys",
            117,
            &["no keyturn keys", "enroll"],
        );
        case.world.enrol_yubikey("eve", BOB).unwrap().ok().unwrap();
        heartbeat(&case, "replaced", 116, &["not the enrolled ones"]);
        let doctor = case.run("bob", "doctor --json").unwrap();
        let steps = doctor.json().unwrap();
        assert_eq!(doctor.code, 116, "{steps}");
        assert!(steps.to_string().contains("token-replaced"), "{steps}");
        drop(new);
        assert_eq!(CAROL, case.carol.card.serial());

        desk.stop_service();
        heartbeat(&case, "no pcscd", 100, &["pcscd", "systemctl start"]);
    });
}

#[test]
fn mishaps_of_an_enrolment_are_told_apart() {
    at_desk(1, |desk| {
        let world = World::new().unwrap();
        let pki = TestPki::new().unwrap();
        let enrol = |name: &str,
                     firmware,
                     made: &dyn Fn(&Card),
                     (pin, more): (&str, &str),
                     want: (i32, &str)| {
            let mut held = insert(desk, 0, BOB, firmware, &pki).unwrap();
            made(&held.card);
            world.tell_pin("bob", pin, PUK).unwrap();
            let line = format!("enroll bob --token yubikey --puk-fd 4{more}");
            let reply = world.keyturn("bob", line.split(' ')).unwrap();
            assert_eq!(reply.code, want.0, "{name}: {}", reply.stderr);
            for words in [want.1, "hint: "] {
                assert!(reply.stderr.contains(words), "{name}: {}", reply.stderr);
            }
            assert_eq!(held.card.public_key(0x9c), None, "{name}: nothing is made");
            held.pull().unwrap();
        };
        let new = |_: &Card| {};
        let (v4, v5) = ((4, 2, 8), (5, 7, 4));
        enrol("too old", v4, &new, (PIN, ""), (118, "4.2.8"));
        enrol(
            "the PIN of every new one",
            v5,
            &new,
            ("123456", ""),
            (111, "PIN is still"),
        );
        enrol("no PIN", v5, &new, ("12345", ""), (110, "6 to 8"));
        let full = |card: &Card| assert!((0x82..=0x95).all(|slot| card.occupy(slot)));
        enrol("no slot is free", v5, &full, (PIN, ""), (113, "82 to 95"));
        let lost = |card: &Card| card.choose_management_key([7; 24]);
        enrol(
            "its management key is unknown",
            v5,
            &lost,
            (PIN, ""),
            (112, "reset the PIV"),
        );
        let absent =
            " --share-key age1yubikey1qgcwc9v9lkhpmfg4enucfu8dz5hcwvchstmjle0pxhmz2z6syxw9ulu4m7v";
        enrol(
            "no such share key",
            v5,
            &new,
            (PIN, absent),
            (199, "82 to 95"),
        );
    });
}

#[test]
fn no_reader_is_told() {
    at_desk(0, |_| {
        let world = World::new().unwrap();
        let reply = world.keyturn("bob", ["doctor", "--rehearse"]).unwrap();
        let said = format!("{}{}", reply.stderr, reply.stdout);
        assert_eq!(reply.code, 101, "{said}");
        assert!(said.contains("no smart-card reader"), "{said}");
    });
}

#[test]
fn doctor_rehearses_without_a_vault() {
    at_desk(1, |desk| {
        let world = World::new().unwrap();
        let held = insert(desk, 0, BOB, (5, 7, 4), &TestPki::new().unwrap()).unwrap();
        std::fs::create_dir_all(world.folder().join("people")).unwrap();
        world.enrol_yubikey("bob", BOB).unwrap().ok().unwrap();
        let before = held.card.counts();
        let reply = world.keyturn("bob", ["doctor", "--rehearse"]).unwrap();
        assert_eq!(reply.code, 0, "{}{}", reply.stderr, reply.stdout);
        assert!(reply.stdout.contains("8 shares opened"), "{}", reply.stdout);
        assert!(held.card.counts().touches - before.touches <= 2);
    });
}
