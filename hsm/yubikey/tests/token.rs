//! YubiKeys at work, through the real PC/SC stack.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed assumption fails the test"
)]

mod common;

use std::time::Duration;

use common::{Owner, PIN, card, enrolled};
use keyturn_hsm::{
    Budget, Notice, Purpose, Question, Token as _, TokenError,
    attestation::{Anchors, Bundle, Claim, Firmware, prove},
    conformance::{self, Subject},
};
use keyturn_seal::encrypt_to;
use keyturn_virtual_yubikey::{Desk, TestPki, Touch, at_desk};
use keyturn_yubikey::YubiKeyToken;
use yubikey::YubiKey;

const TEXT: &[u8] = b"keyturn approval v1\n";

fn conforms(desk: &Desk, firmware: keyturn_virtual_yubikey::Firmware) {
    let card = card(5001, firmware, &TestPki::new().unwrap());
    let _inserted = desk.insert(0, &card).unwrap();
    drop(enrolled());
    conformance::run(&mut Subject {
        open: &mut |_| Ok(Box::new(YubiKeyToken::open(None)?)),
        secret: PIN,
        wrong: b"000000",
    })
    .unwrap();
}

#[test]
fn firmware_4_conforms() {
    at_desk(1, |desk| conforms(desk, (4, 3, 5)));
}

#[test]
fn firmware_5_2_conforms() {
    at_desk(1, |desk| conforms(desk, (5, 2, 7)));
}

#[test]
fn firmware_5_4_conforms() {
    at_desk(1, |desk| conforms(desk, (5, 4, 3)));
}

#[test]
fn firmware_5_7_conforms() {
    at_desk(1, |desk| conforms(desk, (5, 7, 4)));
}

#[test]
fn eight_credentials_take_one_pin_and_two_touches() {
    at_desk(1, |desk| {
        let card = card(5002, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let key = enrolled().share_key().clone();
        let files: Vec<Vec<u8>> = (0..8)
            .map(|n| encrypt_to(std::slice::from_ref(&key), &[n]).unwrap())
            .collect();
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();

        let before = card.counts();
        let mut owner = Owner::who_knows(PIN);
        let mut token = YubiKeyToken::open(Some(5002)).unwrap();
        for (n, opened) in (0..).zip(token.open_shares(&files, &mut owner)) {
            assert_eq!(opened.unwrap().expose(), &[n]);
        }
        let signature = token.sign(TEXT, &mut owner).unwrap();
        token.approval_key().verify(TEXT, &signature).unwrap();

        assert_eq!(
            owner.questions,
            [Question::Pin {
                serial: 5002,
                tries_left: Some(3)
            }]
        );
        let touch = |purpose| Notice::Touch {
            serial: 5002,
            purpose,
            seconds: 15,
        };
        let told = [
            Notice::Ahead(Budget {
                secrets: 1,
                touches: 2,
            }),
            touch(Purpose::Open),
            Notice::TouchOver,
            touch(Purpose::Sign),
            Notice::TouchOver,
        ];
        assert_eq!(owner.notices, told);
        let after = card.counts();
        assert_eq!(
            (
                after.touches - before.touches,
                after.key_uses - before.key_uses
            ),
            (2, 9)
        );
    });
}

#[test]
fn another_program_may_reset_the_token_meanwhile() {
    at_desk(1, |desk| {
        let card = card(5003, (5, 4, 3), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let mut token = enrolled();
        let file = encrypt_to(&[token.share_key().clone()], b"share").unwrap();
        drop(token);
        let mut owner = Owner::who_knows(PIN);
        token = YubiKeyToken::open(None).unwrap();
        assert!(token.open_shares(&[&file], &mut owner)[0].is_ok());
        // Letting go resets the card, which forgets the PIN.
        drop(YubiKey::open().unwrap());
        token.sign(TEXT, &mut owner).unwrap();
        assert!(token.open_shares(&[&file], &mut owner)[0].is_ok());
        assert_eq!(owner.questions.len(), 1, "the PIN was asked for once");
    });
}

#[test]
fn a_touch_that_is_not_given_ends_the_command() {
    at_desk(1, |desk| {
        let card = card(5004, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let key = enrolled().share_key().clone();
        let file = encrypt_to(&[key], b"share").unwrap();
        let open = || YubiKeyToken::open(None).unwrap();

        for (name, touch) in [
            ("never", Touch::Never),
            ("late", Touch::After(Duration::from_secs(9))),
        ] {
            let before = card.counts();
            card.touch_next([touch]);
            let opened = open().open_shares(&[&file, &file, &file], &mut Owner::who_knows(PIN));
            let errors: Vec<_> = opened.iter().map(|result| result.as_ref().err()).collect();
            assert_eq!(errors, [Some(&TokenError::TouchNotGiven); 3], "{name}");
            assert_eq!(
                card.counts().touches - before.touches,
                1,
                "{name}: nobody waits three times"
            );

            card.touch_next([touch]);
            let signed = open().sign(TEXT, &mut Owner::who_knows(PIN));
            assert_eq!(signed, Err(TokenError::TouchNotGiven), "{name}");
        }
        // The same token, once more.
        card.touch_next([Touch::Never]);
        let mut token = open();
        let mut owner = Owner::who_knows(PIN);
        assert_eq!(token.sign(TEXT, &mut owner), Err(TokenError::TouchNotGiven));
        assert!(token.sign(TEXT, &mut owner).is_ok());
        assert_eq!(owner.questions.len(), 1);
    });
}

#[test]
fn a_token_is_pulled_out_at_the_worst_moment() {
    at_desk(1, |desk| {
        let card = card(5005, (5, 7, 4), &TestPki::new().unwrap());
        let inserted = desk.insert(0, &card).unwrap();
        let key = enrolled().share_key().clone();
        let file = encrypt_to(&[key], b"share").unwrap();

        let mut token = YubiKeyToken::open(None).unwrap();
        card.touch_next([Touch::PullOut(Duration::from_millis(50))]);
        let opened = token.open_shares(&[&file, &file], &mut Owner::who_knows(PIN));
        let errors: Vec<_> = opened.iter().map(|result| result.as_ref().err()).collect();
        assert_eq!(
            errors,
            [Some(&TokenError::Removed); 2],
            "during the touch for the shares"
        );
        drop((token, inserted));

        let inserted = desk.insert(0, &card).unwrap();
        let mut token = YubiKeyToken::open(None).unwrap();
        card.touch_next([Touch::PullOut(Duration::from_millis(50))]);
        let signed = token.sign(TEXT, &mut Owner::who_knows(PIN));
        assert_eq!(
            signed,
            Err(TokenError::Removed),
            "during the touch for the signature"
        );
        drop((token, inserted));

        let inserted = desk.insert(0, &card).unwrap();
        let mut token = YubiKeyToken::open(None).unwrap();
        inserted.remove().unwrap();
        let signed = token.sign(TEXT, &mut Owner::who_knows(PIN));
        assert_eq!(signed, Err(TokenError::Removed), "before the PIN");

        let _inserted = desk.insert(0, &card).unwrap();
        let mut token = YubiKeyToken::open(None).unwrap();
        assert!(
            token.sign(TEXT, &mut Owner::who_knows(PIN)).is_ok(),
            "nothing was broken"
        );
    });
}

#[test]
fn pins_are_wrong_blocked_or_no_pins() {
    at_desk(1, |desk| {
        let card = card(5006, (5, 4, 3), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        drop(enrolled());
        let blocked = TokenError::PinBlocked;
        let wrong = |tries_left| TokenError::WrongPin { tries_left };
        let rows: [(&str, &'static [u8], TokenError, usize, u8); 7] = [
            ("too short", b"12345", TokenError::PinFormat, 1, 3),
            ("too long", b"123456789", TokenError::PinFormat, 1, 3),
            (
                "not ASCII",
                "geheim\u{e9}".as_bytes(),
                TokenError::PinFormat,
                1,
                3,
            ),
            ("wrong", b"000000", wrong(2), 1, 2),
            ("wrong again", b"000000", wrong(1), 1, 1),
            ("the last try", b"000000", blocked.clone(), 1, 0),
            ("blocked: it is not even asked for", PIN, blocked, 0, 0),
        ];
        for (name, pin, want, questions, left) in rows {
            let mut owner = Owner::who_knows(pin);
            let mut token = YubiKeyToken::open(None).unwrap();
            assert_eq!(token.sign(TEXT, &mut owner), Err(want.clone()), "{name}");
            assert_eq!(
                token.sign(TEXT, &mut owner),
                Err(want),
                "{name}: no second question"
            );
            assert_eq!(
                (owner.questions.len(), card.tries().0),
                (questions, left),
                "{name}"
            );
        }
    });
}

#[test]
fn the_person_is_warned_before_the_last_try() {
    at_desk(1, |desk| {
        let card = card(5007, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        drop(enrolled());
        for left in [3, 2, 1] {
            let mut owner = Owner::who_knows(b"000000");
            let _ = YubiKeyToken::open(None).unwrap().sign(TEXT, &mut owner);
            assert_eq!(
                owner.questions,
                [Question::Pin {
                    serial: 5007,
                    tries_left: Some(left)
                }]
            );
        }
    });
}

#[test]
fn attestations_are_believed_by_those_who_know_the_maker() {
    at_desk(3, |desk| {
        let pki = TestPki::new().unwrap();
        let anchors = |pki: &TestPki| Anchors::parse(&pki.anchors_pem(), &pki.pins()).unwrap();
        let (ours, strangers) = (anchors(&pki), anchors(&TestPki::new().unwrap()));
        for (reader, firmware) in (0..).zip([(4, 3, 5), (5, 4, 3), (5, 7, 4)]) {
            let card = card(5010, firmware, &pki);
            let _inserted = desk.insert(reader, &card).unwrap();
            let mut token = enrolled();
            let bundle = token.attest().unwrap().unwrap();
            assert!(Bundle::parse(&bundle.to_pem()).unwrap() == bundle);
            let claim = Claim {
                approval: token.approval_key(),
                share: token.share_key(),
                serial: 5010,
            };
            let proven = prove(&bundle.to_pem(), &ours, claim).unwrap();
            let version = Firmware(firmware.0, firmware.1, firmware.2);
            assert_eq!(proven.approval.firmware, version);
            assert_eq!(
                (proven.approval.policy(), proven.share.policy()),
                ([3, 2], [2, 3])
            );
            assert!(bundle.facts(&strangers).is_err(), "another manufacturer");
        }
    });
}

#[test]
fn a_profile_is_kept_on_the_token() {
    at_desk(1, |desk| {
        let card = card(5020, (5, 4, 3), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        drop(enrolled());
        let profile = vec![b'p'; keyturn_yubikey::PROFILE_MAX];
        let mut token = YubiKeyToken::open(None).unwrap();
        assert_eq!(token.profile(), Ok(None));
        token
            .set_profile(&profile, &mut Owner::who_knows(PIN))
            .unwrap();
        drop(token);
        assert_eq!(
            YubiKeyToken::open(None).unwrap().profile(),
            Ok(Some(profile.clone()))
        );
        let mut token = YubiKeyToken::open(None).unwrap();
        let more = [profile, vec![b'p']].concat();
        let refused = token.set_profile(&more, &mut Owner::who_knows(PIN));
        assert!(
            matches!(refused, Err(TokenError::TooMuch(_))),
            "{refused:?}"
        );
    });
}
