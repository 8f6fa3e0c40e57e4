//! Share keys that age-plugin-yubikey made: used where they are, and never written.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed assumption fails the test"
)]

mod common;

use common::{Owner, PIN, card, enrolled};
use keyturn_hsm::{Token as _, TokenError, attestation::TouchPolicy};
use keyturn_seal::{encrypt_to, piv::PivKey};
use keyturn_virtual_yubikey::{Card, Desk, Firmware, Pull, TestPki, at_desk};
use keyturn_yubikey::{
    Enrolment, YubiKeyToken, enrol,
    record::{Made, ShareSlot},
};

/// PIN and touch policy, in Yubico's numbers: once, always; what the plugin chooses unless told otherwise.
const PLUGINS: [u8; 2] = [2, 2];
const SLOT: u8 = 0x8b;

fn key_in(card: &Card, slot: u8) -> PivKey {
    PivKey::from_sec1(&card.public_key(slot).unwrap()).unwrap()
}

fn with(key: &PivKey) -> Enrolment {
    Enrolment {
        share: Some(key.clone()),
        ..Enrolment::default()
    }
}

/// Signs and opens two shares; the touches that were waited for.
fn works(card: &Card, token: &mut YubiKeyToken) -> u64 {
    let mut owner = Owner::who_knows(PIN);
    let file = encrypt_to(&[token.share_key().clone()], b"share").unwrap();
    let before = card.counts().touches;
    for opened in token.open_shares(&[&file, &file], &mut owner) {
        assert_eq!(opened.unwrap().expose(), b"share");
    }
    token.sign(b"text", &mut owner).unwrap();
    card.counts().touches.saturating_sub(before)
}

fn used_as_it_is(desk: &Desk, reader: u16, firmware: Firmware, pki: &TestPki) {
    let rows = [
        ("the plugin's own choice", PLUGINS, TouchPolicy::Always, 3),
        ("a touch that lasts", [2, 3], TouchPolicy::Cached, 2),
        ("a PIN each time, no touch", [3, 1], TouchPolicy::Never, 1),
    ];
    for (name, policy, touch, touches) in rows {
        let card = card(7, firmware, pki);
        assert!(card.identity(0x82, PLUGINS, false) && card.identity(SLOT, policy, false));
        let inserted = desk.insert(reader, &card).unwrap();
        let (key, before) = (
            key_in(&card, SLOT),
            [0x82, SLOT].map(|slot| card.public_key(slot)),
        );
        let mut token = enrol(&with(&key), &mut Owner::who_knows(PIN)).unwrap();
        let record = token.record().clone();
        assert_eq!(
            (record.slot.number(), record.touch, record.made),
            (SLOT, touch, Made::Approval),
            "{name}, {firmware:?}"
        );
        assert!(token.attest().unwrap().unwrap().share.is_some(), "{name}");
        assert_eq!(works(&card, &mut token), touches, "{name}, {firmware:?}");
        drop(token);
        let after = [0x82, SLOT].map(|slot| card.public_key(slot));
        assert_eq!(before, after, "{name}, {firmware:?}");
        inserted.remove().unwrap();
    }
}

#[test]
fn an_identity_is_used_as_it_is() {
    at_desk(3, |desk| {
        let pki = TestPki::new().unwrap();
        for (reader, firmware) in (0..).zip([(4, 3, 5), (5, 2, 7), (5, 7, 4)]) {
            used_as_it_is(desk, reader, firmware, &pki);
        }
    });
}

#[test]
fn a_key_that_is_not_there_is_told() {
    at_desk(1, |desk| {
        let pki = TestPki::new().unwrap();
        let (card, other) = (card(7, (5, 4, 3), &pki), card(8, (5, 4, 3), &pki));
        assert!(other.identity(SLOT, PLUGINS, false));
        assert!(card.identity(SLOT, PLUGINS, false));
        let _inserted = desk.insert(0, &card).unwrap();
        let wanted = with(&key_in(&other, SLOT));
        let refused = enrol(&wanted, &mut Owner::who_knows(PIN)).err();
        assert_eq!(refused, Some(TokenError::NoSuchKey));
        assert_eq!(card.is_factory(), (true, true, true), "nothing was done");
    });
}

/// The token says so of a key that it did not make; everything else works.
#[test]
fn an_imported_key_is_not_attested() {
    at_desk(2, |desk| {
        let pki = TestPki::new().unwrap();
        for (reader, firmware) in (0..).zip([(4, 3, 5), (5, 7, 4)]) {
            let card = card(7, firmware, &pki);
            assert!(card.identity(SLOT, PLUGINS, true));
            let inserted = desk.insert(reader, &card).unwrap();
            let mut owner = Owner::who_knows(PIN);
            let mut token = enrol(&with(&key_in(&card, SLOT)), &mut owner).unwrap();
            assert_eq!(token.attest().unwrap().unwrap().share, None, "{firmware:?}");
            assert_eq!(works(&card, &mut token), 3, "{firmware:?}");
            drop(token);
            inserted.remove().unwrap();
        }
    });
}

/// Neither a new enrolment nor one that is resumed writes the slot of another program's key, unless it is named.
#[test]
fn later_enrolments_leave_it_too() {
    at_desk(1, |desk| {
        let card = card(7, (5, 7, 4), &TestPki::new().unwrap());
        assert!(card.identity(0x82, PLUGINS, false));
        let _inserted = desk.insert(0, &card).unwrap();
        let theirs = key_in(&card, 0x82);
        let enrol = |wanted: &Enrolment| enrol(wanted, &mut Owner::who_knows(PIN));
        let first = enrol(&with(&theirs)).unwrap().approval_key().clone();
        let again = enrol(&with(&theirs)).unwrap().approval_key().clone();
        assert_eq!(first, again, "enrolled already, nothing is done");

        let overwrite = Enrolment {
            overwrite: true,
            ..Enrolment::default()
        };
        let token = enrol(&overwrite).unwrap();
        let own = token.record().clone();
        assert_eq!((own.slot.number(), own.made), (0x83, Made::Both));
        drop(token);
        assert_eq!(key_in(&card, 0x82), theirs);

        let occupied = enrol(&with(&theirs)).err();
        let nine_c = TokenError::SlotOccupied {
            slot: "9c".to_owned(),
        };
        assert_eq!(
            occupied,
            Some(nine_c),
            "another share key is a new enrolment"
        );
        let back = Enrolment {
            overwrite: true,
            ..with(&theirs)
        };
        assert_eq!(enrol(&back).unwrap().record().made, Made::Approval);
        let named = Enrolment {
            slot: ShareSlot::new(0x82),
            ..overwrite
        };
        assert_eq!(enrol(&named).unwrap().record().slot.number(), 0x82);
        assert_ne!(key_in(&card, 0x82), theirs, "given up by name");
    });
}

/// Pulls the token out at every third command of the enrolment, and finishes it.
#[test]
fn an_interrupted_enrolment_is_finished() {
    at_desk(8, |desk| {
        let pki = TestPki::new().unwrap();
        let mut interruptions = 0;
        for (reader, n) in (0..8).step_by(2).cycle().zip((0..).step_by(3)) {
            let card = card(7, (5, 7, 4), &pki);
            assert!(card.identity(0x82, PLUGINS, false));
            let theirs = key_in(&card, 0x82);
            let inserted = desk.insert(reader, &card).unwrap();
            card.pull_out_after(n, Pull::Before);
            if enrol(&with(&theirs), &mut Owner::who_knows(PIN)).is_ok() {
                break;
            }
            assert!(inserted.is_out(), "APDU {n}");
            let _inserted = desk.insert(reader + 1, &card).unwrap();
            // Every second one goes on without naming the key: then a new one is made, elsewhere.
            let wanted = if n % 2 == 0 {
                with(&theirs)
            } else {
                Enrolment::default()
            };
            let mut token = enrol(&wanted, &mut Owner::who_knows(PIN)).unwrap();
            assert!(works(&card, &mut token) >= 2, "APDU {n}");
            let slot = token.record().slot.number();
            assert_eq!(slot == 0x82, n % 2 == 0, "APDU {n}: {slot:02x}");
            assert_eq!(key_in(&card, 0x82), theirs, "APDU {n}");
            interruptions += 1;
        }
        assert!(interruptions > 8, "only {interruptions}");
    });
}

/// What age's plugin does: it leaves the PIN given when it lets the token go.
#[test]
fn a_pin_that_another_program_left_given_is_no_blocked_one() {
    at_desk(2, |desk| {
        let pki = TestPki::new().unwrap();
        for (reader, firmware) in (0..).zip([(4, 3, 5), (5, 7, 4)]) {
            let card = card(7, firmware, &pki);
            let inserted = desk.insert(reader, &card).unwrap();
            let leave = |pin: &[u8]| {
                let mut other = yubikey::YubiKey::open().unwrap();
                other.verify_pin(pin).unwrap();
                other.disconnect(pcsc::Disposition::LeaveCard).unwrap();
            };
            leave(b"123456");
            drop(enrolled());
            assert_eq!(card.is_factory(), (false, false, false), "{firmware:?}");
            leave(PIN);
            let mut token = YubiKeyToken::open(None).unwrap();
            assert_eq!(works(&card, &mut token), 2, "{firmware:?}");
            drop(token);
            inserted.remove().unwrap();
        }
    });
}
