//! YubiKeys and the person at a terminal: questions, the countdown, pinentry, the acceptance with two tokens.
use std::{fs, os::unix::fs::PermissionsExt as _, thread, time::Duration};

use keyturn_tests::{
    World,
    harness::write_private,
    terminal::Terminal,
    tokens::{BOB, CAROL, PIN, PUK, insert},
};
use keyturn_virtual_yubikey::{TestPki, Touch, at_desk};

/// A pinentry that answers every question with a PIN that has to be escaped, and keeps what it was asked.
const PINENTRY: &str = r#"#!/bin/sh
echo "OK Pleased to meet you"
while read -r line; do
  echo "$line" >>"$0.log"
  case $line in
    GETPIN) printf 'D 27%%2518\nOK\n' ;;
    *) echo OK ;;
  esac
done
"#;

#[test]
fn a_token_is_enrolled_and_overwritten_at_a_terminal() {
    at_desk(1, |desk| {
        let world = World::new().unwrap();
        fs::create_dir_all(world.folder().join("people")).unwrap();
        let held = insert(desk, 0, BOB, (5, 7, 4), &TestPki::new().unwrap()).unwrap();
        held.card.touch(Touch::After(Duration::from_millis(1500)));
        held.card.touch_timeout(Duration::from_secs(5));

        let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --token yubikey").unwrap();
        enrol.answer("new PIN for YubiKey 10000001", PIN).unwrap();
        enrol.answer("once more", "something").unwrap();
        let (code, shown) = enrol.ends().unwrap();
        assert!(code != 0 && shown.contains("not the same"), "{shown}");
        assert_eq!(
            held.card.is_factory(),
            (true, true, true),
            "nothing was changed"
        );

        // Slot 9c is another program's: it is asked for, and kept when the answer is no.
        assert!(held.card.occupy(0x9c));
        let foreign = held.card.public_key(0x9c);
        let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --token yubikey").unwrap();
        enrol.answer("Overwrite slot 9c? Type yes", "no").unwrap();
        assert_eq!(enrol.ends().unwrap().0, 26);
        assert_eq!(held.card.public_key(0x9c), foreign);
        world.tell_pin("ann", PIN, PUK).unwrap();
        let script = "enroll ann --token yubikey --puk-fd 4";
        let script = world.keyturn("ann", script.split(' ')).unwrap();
        assert!(script.code != 0, "nobody was asked: {}", script.stderr);
        assert_eq!(held.card.public_key(0x9c), foreign);

        let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --token yubikey").unwrap();
        enrol.answer("Overwrite slot 9c? Type yes", "yes").unwrap();
        enrol.answer("new PIN for YubiKey 10000001", PIN).unwrap();
        enrol.answer("once more", PIN).unwrap();
        enrol.answer("new PUK for YubiKey 10000001", PUK).unwrap();
        enrol.answer("once more", PUK).unwrap();
        enrol.shows("touch your YubiKey 10000001 now").unwrap();
        let (code, shown) = enrol.ends().unwrap();
        assert_eq!(code, 0, "{shown}");
        assert!(
            shown.contains("(15 s)") && shown.contains("(14 s)"),
            "no countdown:\n{shown}"
        );
        assert!(
            !shown.contains(PIN) && !shown.contains(PUK),
            "a secret was echoed:\n{shown}"
        );

        // Enrolled before: as it is; overwritten only on request.
        let key = held.card.public_key(0x9c);
        assert_ne!(key, foreign);
        let mut again = Terminal::keyturn(&world, "eve", "enroll eve --token yubikey").unwrap();
        again.answer("PIN of YubiKey 10000001", PIN).unwrap();
        let (code, shown) = again.ends().unwrap();
        assert!(
            code == 0 && shown.contains("was enrolled before"),
            "{shown}"
        );
        assert_eq!(held.card.public_key(0x9c), key);
    });
}

#[test]
fn pinentry_asks_where_it_is_configured() {
    at_desk(1, |desk| {
        let world = World::new().unwrap();
        let held = insert(desk, 0, BOB, (5, 7, 4), &TestPki::new().unwrap()).unwrap();
        let pinentry = world.folder().join("pinentry");
        write_private(&pinentry, PINENTRY.as_bytes()).unwrap();
        fs::set_permissions(&pinentry, fs::Permissions::from_mode(0o700)).unwrap();
        let program = pinentry.display().to_string();
        fs::create_dir_all(world.folder().join("people")).unwrap();
        let enroll = [
            "enroll",
            "bob",
            "--token",
            "yubikey",
            "--pinentry",
            &program,
        ];
        let short = world.keyturn("bob", enroll).unwrap();
        assert_eq!(short.code, 110, "27%18 is no PIN: {}", short.stderr);
        let longer = PINENTRY.replace("27%%2518", "27%%251828");
        write_private(&pinentry, longer.as_bytes()).unwrap();
        world.keyturn("bob", enroll).unwrap().ok().unwrap();
        assert_eq!(held.card.is_factory(), (false, false, false));

        // The profile remembers the program.
        world
            .keyturn("bob", ["doctor", "--rehearse"])
            .unwrap()
            .ok()
            .unwrap();
        let log = fs::read_to_string(world.folder().join("pinentry.log")).unwrap();
        assert!(log.contains("SETDESC PIN of YubiKey 10000001"), "{log}");

        write_private(&pinentry, b"#!/bin/sh\necho OK\nwhile read -r l; do case $l in GETPIN) echo 'ERR 83886179 cancelled';; *) echo OK;; esac; done\n").unwrap();
        let closed = world.keyturn("bob", ["doctor", "--rehearse"]).unwrap();
        assert_eq!(closed.code, 121, "{}", closed.stderr);
        assert_eq!(held.card.tries().0, 3);
    });
}

#[test]
fn two_tokens_are_accepted_step_by_step() {
    at_desk(2, |desk| {
        let world = World::new().unwrap();
        fs::create_dir_all(world.folder().join("people")).unwrap();
        let pki = TestPki::new().unwrap();
        let mut second = insert(desk, 1, CAROL, (5, 4, 3), &pki).unwrap();
        world.enrol_yubikey("carol", CAROL).unwrap().ok().unwrap();
        second.pull().unwrap();
        let mut first = insert(desk, 0, BOB, (5, 7, 4), &pki).unwrap();
        world.enrol_yubikey("bob", BOB).unwrap().ok().unwrap();

        let mut person = Terminal::keyturn(&world, "bob", "doctor --acceptance").unwrap();
        person.answer("Insert the first YubiKey alone", "").unwrap();
        person.answer("PIN of YubiKey 10000001", PIN).unwrap();
        person.shows("do NOT touch").unwrap();
        first
            .card
            .touch_next([Touch::Never, Touch::PullOut(Duration::from_millis(50))]);
        person.answer("PIN of YubiKey 10000001", PIN).unwrap();
        person.shows("pull it out").unwrap();
        person.answer("PIN of YubiKey 10000001", PIN).unwrap();
        person.shows("Insert it again").unwrap();
        first.pull().unwrap();
        first.put_back(desk).unwrap();
        person.answer("", "").unwrap();
        person.answer("PIN of YubiKey 10000001", "999999").unwrap();
        person.answer("PIN of YubiKey 10000001", PIN).unwrap();
        person.shows("Insert the second").unwrap();
        second.put_back(desk).unwrap();
        person.answer("", "").unwrap();
        person.answer("Serial number", &CAROL.to_string()).unwrap();
        person.answer("PIN of YubiKey 10000002", PIN).unwrap();
        person.shows("Pull out both").unwrap();
        first.pull().unwrap();
        second.pull().unwrap();
        thread::sleep(Duration::from_millis(100));
        person.answer("", "").unwrap();
        let (code, shown) = person.ends().unwrap();
        assert_eq!(code, 0, "{shown}");
        assert!(
            shown.contains("acceptance with YubiKeys") && !shown.contains("FAIL"),
            "{shown}"
        );
        assert_eq!(first.card.tries().0, 3);
    });
}
