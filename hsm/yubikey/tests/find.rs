//! The YubiKey that is meant, or why there is none.

#![expect(clippy::expect_used, reason = "a failed assumption fails the test")]

mod common;

use common::{Owner, PIN, card, enrolled};
use keyturn_hsm::{ApprovalKey, Token as _, TokenError};
use keyturn_virtual_yubikey::{TestPki, at_desk};
use keyturn_yubikey::{Enrolment, Found, YubiKeyToken, enrol, list};
use yubikey::{
    MgmKey, PinPolicy, TouchPolicy, YubiKey,
    piv::{self, AlgorithmId, SlotId},
};

fn error(wanted: Option<u32>) -> Option<TokenError> {
    YubiKeyToken::open(wanted).err()
}

#[test]
fn nothing_is_there() {
    at_desk(2, |desk| {
        assert_eq!(error(None), Some(TokenError::NoToken), "empty readers");
        assert_eq!(
            error(Some(1)),
            Some(TokenError::NoToken),
            "empty readers, one wanted"
        );
        assert_eq!(list(), Ok(vec![]));
        desk.stop_service();
        assert_eq!(
            error(None),
            Some(TokenError::NoService),
            "pcscd was killed, its socket is there"
        );
        desk.start_service().unwrap();
        assert_eq!(error(None), Some(TokenError::NoToken), "and is back");
    });
}

#[test]
fn no_reader_is_there() {
    at_desk(0, |_| assert_eq!(error(None), Some(TokenError::NoReader)));
}

#[test]
fn no_service_was_ever_there() {
    at_desk(0, |desk| {
        desk.stop_service();
        std::fs::remove_dir_all("/run/pcscd").unwrap();
        assert_eq!(error(None), Some(TokenError::NoService));
    });
}

#[test]
fn a_key_that_is_not_ours_is_told_from_the_wrong_one() {
    at_desk(2, |desk| {
        let pki = TestPki::new().unwrap();
        let (ours, other) = (card(1, (5, 4, 3), &pki), card(2, (5, 7, 4), &pki));
        let inserted = desk.insert(0, &ours).unwrap();
        assert_eq!(
            error(None),
            Some(TokenError::NotEnrolled),
            "fresh from the factory"
        );
        drop(enrolled());
        assert_eq!(error(None), None);
        assert_eq!(error(Some(1)), None);
        assert_eq!(
            error(Some(2)),
            Some(TokenError::WrongToken {
                wanted: 2,
                found: vec![1]
            })
        );

        let _other = desk.insert(1, &other).unwrap();
        assert_eq!(
            error(None),
            Some(TokenError::SeveralTokens { found: vec![1, 2] })
        );
        assert_eq!(error(Some(1)), None, "named, it is found among several");
        assert_eq!(error(Some(2)), Some(TokenError::NotEnrolled));
        assert_eq!(
            error(Some(3)),
            Some(TokenError::WrongToken {
                wanted: 3,
                found: vec![1, 2]
            })
        );
        let firmware = keyturn_hsm::attestation::Firmware(5, 7, 4);
        assert!(list().unwrap().contains(&Found {
            serial: 2,
            firmware
        }));

        inserted.remove().unwrap();
        assert_eq!(
            error(Some(1)),
            Some(TokenError::WrongToken {
                wanted: 1,
                found: vec![2]
            })
        );
    });
}

#[test]
fn another_program_holds_the_key() {
    at_desk(1, |desk| {
        let card = card(1, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        drop(enrolled());
        let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
        let readers = context.list_readers_owned().unwrap();
        let held = readers.iter().find_map(|name| {
            context
                .connect(name, pcsc::ShareMode::Exclusive, pcsc::Protocols::ANY)
                .ok()
        });
        assert_eq!(error(None), Some(TokenError::InUse));
        assert_eq!(error(Some(1)), Some(TokenError::InUse));
        drop(held.unwrap());
        assert_eq!(error(None), None, "and lets go of it");
    });
}

#[test]
fn the_keys_were_replaced() {
    at_desk(1, |desk| {
        let card = card(1, (5, 7, 4), &TestPki::new().unwrap());
        let _inserted = desk.insert(0, &card).unwrap();
        let token = enrolled();
        let (approval, share) = (token.approval_key().clone(), token.share_key().clone());
        drop(token);
        assert!(YubiKeyToken::open_enrolled(None, &approval, &share).is_ok());

        // The charter has other keys.
        let again = Enrolment {
            overwrite: true,
            ..Enrolment::default()
        };
        drop(enrol(&again, &mut Owner::who_knows(PIN)).unwrap());
        let got = YubiKeyToken::open_enrolled(None, &approval, &share).err();
        assert_eq!(got, Some(TokenError::Replaced), "enrolled anew");

        // Another program makes a key in 9c and leaves our certificate there: it shows when the token signs.
        let mut strange = YubiKey::open().unwrap();
        strange.verify_pin(PIN).unwrap();
        let kept = MgmKey::get_protected(&mut strange).unwrap();
        strange.authenticate(&kept).unwrap();
        let (pin, touch) = (PinPolicy::Always, TouchPolicy::Never);
        piv::generate(
            &mut strange,
            SlotId::Signature,
            AlgorithmId::EccP256,
            pin,
            touch,
        )
        .unwrap();
        drop(strange);
        let mut token = YubiKeyToken::open(None).unwrap();
        assert_ne!(
            token.approval_key(),
            &ApprovalKey::from_point(&card.public_key(0x9c).unwrap()).unwrap()
        );
        let signed = token.sign(b"text", &mut Owner::who_knows(PIN));
        assert_eq!(
            signed,
            Err(TokenError::Replaced),
            "no signature of another key leaves"
        );
        drop(token);

        // It also takes our certificate away.
        let mut strange = YubiKey::open().unwrap();
        strange.verify_pin(PIN).unwrap();
        let kept = MgmKey::get_protected(&mut strange).unwrap();
        strange.authenticate(&kept).unwrap();
        yubikey::Certificate::delete(&mut strange, SlotId::Signature).unwrap();
        drop(strange);
        assert_eq!(
            error(None),
            Some(TokenError::Replaced),
            "without our certificate"
        );
    });
}
