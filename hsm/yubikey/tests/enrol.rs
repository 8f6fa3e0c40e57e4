//! Enrolment on the token: what it changes, what it leaves, and what an interruption leaves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed assumption fails the test"
)]

mod common;

use common::{Owner, PIN, card, enrolled};
use keyturn_hsm::{Question, Token as _, TokenError, attestation::TouchPolicy};
use keyturn_seal::encrypt_to;
use keyturn_virtual_yubikey::{Card, Desk, Firmware, Pull, TestPki, at_desk};
use keyturn_yubikey::{Enrolment, YubiKeyToken, enrol, record::ShareSlot};
use yubikey::{
    MgmKey, PinPolicy, YubiKey,
    piv::{self, AlgorithmId, RetiredSlotId, SlotId},
};

const FIRMWARES: [Firmware; 4] = [(4, 3, 5), (5, 2, 7), (5, 4, 3), (5, 7, 4)];
const OVERWRITE: Enrolment = Enrolment {
    serial: None,
    share: None,
    slot: None,
    touch: TouchPolicy::Cached,
    overwrite: true,
};

/// Signs and opens a share, as any command would.
fn works(token: &mut YubiKeyToken) {
    let mut owner = Owner::who_knows(PIN);
    let file = encrypt_to(&[token.share_key().clone()], b"share").unwrap();
    assert!(token.open_shares(&[&file], &mut owner).remove(0).is_ok());
    assert!(token.sign(b"text", &mut owner).is_ok());
}

/// What another program does: a key of its own, with the factory's management key.
fn occupy(slot: SlotId) {
    let mut strange = YubiKey::open().unwrap();
    let factory = MgmKey::get_default(&strange).unwrap();
    strange.authenticate(&factory).unwrap();
    let never = yubikey::TouchPolicy::Never;
    piv::generate(
        &mut strange,
        slot,
        AlgorithmId::EccP256,
        PinPolicy::Once,
        never,
    )
    .unwrap();
}

#[test]
fn new_tokens_of_every_firmware_are_enrolled() {
    at_desk(4, |desk| {
        let pki = TestPki::new().unwrap();
        for (reader, firmware) in (0..).zip(FIRMWARES) {
            let card = card(7, firmware, &pki);
            let _inserted = desk.insert(reader, &card).unwrap();
            let mut owner = Owner::who_knows(PIN);
            let mut token = enrol(&Enrolment::default(), &mut owner).unwrap();
            let asked = [
                Question::NewPin { serial: 7 },
                Question::NewPuk { serial: 7 },
            ];
            assert_eq!(owner.questions, asked, "{firmware:?}");
            assert_eq!(card.is_factory(), (false, false, false), "{firmware:?}");
            assert_eq!(card.tries(), (3, 3), "{firmware:?}: no try was used up");
            assert_eq!(token.record().slot.number(), 0x82, "{firmware:?}");
            assert_eq!(
                card.public_key(0x9c).as_deref(),
                Some(token.approval_key().point())
            );
            assert_eq!(
                card.counts().touches,
                0,
                "{firmware:?}: making keys takes no touch"
            );
            works(&mut token);
            drop(token);

            let mut owner = Owner::who_knows(PIN);
            let mut again = enrol(&Enrolment::default(), &mut owner).unwrap();
            assert_eq!(
                owner.questions,
                [],
                "{firmware:?}: enrolled already, nothing is done"
            );
            works(&mut again);
        }
    });
}

#[test]
fn a_pin_that_was_changed_before_is_asked_for() {
    at_desk(4, |desk| {
        let pki = TestPki::new().unwrap();
        for (reader, firmware) in (0..).zip(FIRMWARES) {
            let card = card(7, firmware, &pki);
            let _inserted = desk.insert(reader, &card).unwrap();
            let mut ykman = YubiKey::open().unwrap();
            ykman.change_pin(b"123456", PIN).unwrap();
            ykman.change_puk(b"12345678", b"87654321").unwrap();
            drop(ykman);
            let mut owner = Owner::who_knows(PIN);
            works(&mut enrol(&Enrolment::default(), &mut owner).unwrap());
            assert!(
                matches!(
                    owner.questions.as_slice(),
                    [Question::Pin { serial: 7, .. }]
                ),
                "{firmware:?}"
            );
            assert_eq!(
                card.tries(),
                (3, 3),
                "{firmware:?}: the own PIN gives the try back"
            );
        }
    });
}

#[test]
fn factory_values_are_not_accepted_as_new_ones() {
    at_desk(1, |desk| {
        let card = card(7, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let refused = |pin| enrol(&Enrolment::default(), &mut Owner::who_knows(pin)).err();
        assert_eq!(refused(b"123456"), Some(TokenError::FactoryDefault("PIN")));
        assert_eq!(refused(b"12345"), Some(TokenError::PinFormat));
        let nobody = enrol(&Enrolment::default(), &mut Owner::default()).err();
        assert!(
            matches!(nobody, Some(TokenError::NotAnswered(_))),
            "{nobody:?}"
        );
        assert_eq!(card.is_factory(), (true, true, true), "nothing was changed");
        works(&mut enrolled());
    });
}

#[test]
fn slots_of_other_programs_are_left_alone() {
    at_desk(1, |desk| {
        let card = card(7, (5, 4, 3), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let (r1, r2) = (
            SlotId::Retired(RetiredSlotId::R1),
            SlotId::Retired(RetiredSlotId::R2),
        );
        [SlotId::Authentication, r1, r2, SlotId::Signature]
            .into_iter()
            .for_each(occupy);
        let others = || [0x9a, 0x82, 0x83].map(|slot| card.public_key(slot));
        let (before, in_9c) = (others(), card.public_key(0x9c));

        let occupied = |wanted: &Enrolment| enrol(wanted, &mut Owner::who_knows(PIN)).err();
        let slot = |name: &str| {
            Some(TokenError::SlotOccupied {
                slot: name.to_owned(),
            })
        };
        assert_eq!(occupied(&Enrolment::default()), slot("9c"));
        assert_eq!(
            (card.public_key(0x9c), card.is_factory()),
            (in_9c, (true, true, true))
        );

        let mut token = enrol(&OVERWRITE, &mut Owner::who_knows(PIN)).unwrap();
        assert_eq!(
            token.record().slot.number(),
            0x84,
            "the first free one, also when 9c is given up"
        );
        works(&mut token);
        let key = token.approval_key().clone();
        drop(token);
        assert_eq!(others(), before);

        let again = enrol(&OVERWRITE, &mut Owner::who_knows(PIN)).unwrap();
        assert_eq!(
            again.record().slot.number(),
            0x84,
            "a second enrolment takes its own slot"
        );
        assert_ne!(again.approval_key(), &key);
        assert_eq!(others(), before);
        drop(again);
        let named = Enrolment {
            slot: ShareSlot::new(0x82),
            ..OVERWRITE
        };
        let token = enrol(&named, &mut Owner::who_knows(PIN)).unwrap();
        assert_eq!(card.public_key(0x9a), others()[0]);
        assert_ne!(card.public_key(0x82), before[1], "given up by name");
        drop(token);
    });
}

#[test]
fn a_named_slot_that_is_taken_is_not_written() {
    at_desk(1, |desk| {
        let card = card(7, (4, 3, 5), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        occupy(SlotId::Retired(RetiredSlotId::R3));
        let wanted = |number| Enrolment {
            slot: ShareSlot::new(number),
            ..Enrolment::default()
        };
        let refused = enrol(&wanted(0x84), &mut Owner::who_knows(PIN)).err();
        assert_eq!(
            refused,
            Some(TokenError::SlotOccupied {
                slot: "84".to_owned()
            })
        );
        let token = enrol(&wanted(0x95), &mut Owner::who_knows(PIN)).unwrap();
        assert_eq!(token.record().slot.number(), 0x95);
    });
}

#[test]
fn a_management_key_that_nobody_told_us_stays() {
    at_desk(1, |desk| {
        let card = card(7, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let mut ykman = YubiKey::open().unwrap();
        let factory = MgmKey::get_default(&ykman).unwrap();
        ykman.authenticate(&factory).unwrap();
        let own = MgmKey::from_bytes([7; 24], Some(yubikey::MgmAlgorithmId::Aes192)).unwrap();
        own.set_manual(&mut ykman, false).unwrap();
        drop(ykman);
        let refused = enrol(&Enrolment::default(), &mut Owner::who_knows(PIN)).err();
        assert_eq!(refused, Some(TokenError::ManagementKey));
        assert_eq!(card.public_key(0x9c), None);

        // Kept under the PIN, as ykman does with --protect, it is found.
        let mut ykman = YubiKey::open().unwrap();
        ykman.verify_pin(PIN).unwrap();
        ykman.authenticate(&own).unwrap();
        own.set_protected(&mut ykman).unwrap();
        drop(ykman);
        works(&mut enrol(&Enrolment::default(), &mut Owner::who_knows(PIN)).unwrap());
    });
}

#[test]
fn old_firmware_is_refused() {
    at_desk(1, |desk| {
        let card = card(7, (4, 2, 8), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let refused = enrol(&Enrolment::default(), &mut Owner::who_knows(PIN)).err();
        assert_eq!(refused, Some(TokenError::Firmware("4.2.8".to_owned())));
        assert_eq!(card.is_factory(), (true, true, true));
    });
}

/// Pulls the token out at the `n`th APDU of its enrolment, enrols it again in the next reader, and looks at it;
/// false once `n` is past the end.
fn interrupted_at(desk: &Desk, reader: u16, card: &Card, n: u64) -> bool {
    let inserted = desk.insert(reader, card).unwrap();
    card.pull_out_after(n, Pull::Before);
    let first = enrol(&Enrolment::default(), &mut Owner::who_knows(PIN)).map(drop);
    if first.is_ok() {
        return false;
    }
    assert!(inserted.is_out(), "APDU {n}: {first:?}");
    let _inserted = desk.insert(reader.saturating_add(1), card).unwrap();
    if let Err(error) = YubiKeyToken::open(None) {
        assert_eq!(
            error,
            TokenError::NotEnrolled,
            "APDU {n}: half an enrolment is none"
        );
    }
    let second = enrol(&Enrolment::default(), &mut Owner::who_knows(PIN));
    assert!(second.is_ok(), "APDU {n}: {:?}", second.err());
    works(&mut second.unwrap());
    assert_eq!(card.is_factory(), (false, false, false), "APDU {n}");
    assert_eq!(card.tries().0, 3, "APDU {n}");
    true
}

/// Every second interruption from `start` on. Commands before the last one have taken effect and the last has not, so
/// even and odd ones together are all states that an enrolment can be left in.
fn interruptions(desk: &Desk, firmware: Firmware, start: u64) {
    let pki = TestPki::new().unwrap();
    let readers = (0..8).step_by(2).cycle();
    let apdus = (start..).step_by(2);
    let is_interrupted =
        |(reader, n): &(u16, u64)| interrupted_at(desk, *reader, &card(7, firmware, &pki), *n);
    let count = readers.zip(apdus).take_while(is_interrupted).count();
    assert!(
        count > 15,
        "only {count} interruptions: an enrolment takes more commands than that"
    );
}

#[test]
fn interrupted_enrolments_are_finished_firmware_5_7_even() {
    at_desk(8, |desk| interruptions(desk, (5, 7, 4), 0));
}

#[test]
fn interrupted_enrolments_are_finished_firmware_5_7_odd() {
    at_desk(8, |desk| interruptions(desk, (5, 7, 4), 1));
}

#[test]
fn interrupted_enrolments_are_finished_firmware_4_even() {
    at_desk(8, |desk| interruptions(desk, (4, 3, 5), 0));
}

#[test]
fn interrupted_enrolments_are_finished_firmware_4_odd() {
    at_desk(8, |desk| interruptions(desk, (4, 3, 5), 1));
}
