//! Cards and readers, without the program under test.

use std::{fs, process, time::Duration};

use keyturn_virtual_yubikey::{Card, Pull, TestPki, Touch, at_desk};

#[test]
fn pcscd_notices_several_cards() {
    at_desk(4, |desk| {
        let pki = TestPki::new().unwrap();
        let cards = [11, 12, 13, 14].map(|serial| Card::new(serial, (5, 7, 4), &pki).unwrap());
        let inserted: Vec<_> = (0..)
            .zip(&cards)
            .map(|(reader, card)| desk.insert(reader, card).unwrap())
            .collect();
        assert!(inserted.iter().all(|card| !card.is_out()));
        assert!(desk.insert(4, &cards[0]).is_err(), "no such reader");
    });
}

#[test]
fn a_card_comes_back_after_it_was_pulled_out() {
    at_desk(1, |desk| {
        let card = Card::new(21, (5, 4, 3), &TestPki::new().unwrap()).unwrap();
        for _ in 0..3 {
            desk.insert(0, &card).unwrap().remove().unwrap();
        }
        desk.stop_service();
        desk.start_service().unwrap();
        assert!(!desk.insert(0, &card).unwrap().is_out());
    });
}

#[test]
fn a_desk_is_private() {
    at_desk(0, |_| {
        let own = fs::read_dir("/run").unwrap().count();
        assert_eq!(own, 2, "nothing of the machine's /run is seen");
        let links = fs::read_to_string("/proc/self/net/dev").unwrap();
        assert_eq!(
            links.lines().skip(2).count(),
            1,
            "only the loopback device: {links}"
        );
    });
}

#[test]
#[should_panic(expected = "failed at its desk")]
fn what_fails_at_the_desk_fails_the_test() {
    at_desk(0, |_| process::exit(3));
}

#[test]
fn scripts_are_kept() {
    // The owner's plans need no reader.
    let card = Card::new(31, (4, 3, 5), &TestPki::new().unwrap()).unwrap();
    card.touch(Touch::Never);
    card.touch_next([Touch::After(Duration::ZERO)]);
    card.pull_out_after(0, Pull::Before);
    assert_eq!(
        (card.serial(), card.tries(), card.is_factory()),
        (31, (3, 3), (true, true, true))
    );
    assert_eq!(card.public_key(0x9c), None);
}
