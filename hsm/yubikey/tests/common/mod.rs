//! A person, a desk, and tokens on it.

use std::time::Duration;

use keyturn_hsm::{Notice, Prompt, Question, TokenError};
use keyturn_seal::SecretBytes;
use keyturn_virtual_yubikey::{Card, Firmware, TestPki, Touch};
use keyturn_yubikey::{Enrolment, YubiKeyToken, enrol};

pub(crate) const PIN: &[u8] = b"271828";
pub(crate) const PUK: &[u8] = b"31415926";

/// Somebody who knows all answers, and remembers what happened.
#[derive(Default)]
pub(crate) struct Owner {
    pub(crate) pin: Option<&'static [u8]>,
    pub(crate) questions: Vec<Question>,
    pub(crate) notices: Vec<Notice>,
}

impl Owner {
    pub(crate) fn who_knows(pin: &'static [u8]) -> Self {
        Self {
            pin: Some(pin),
            ..Self::default()
        }
    }
}

impl Prompt for Owner {
    fn ask(&mut self, question: &Question) -> Result<SecretBytes, TokenError> {
        self.questions.push(question.clone());
        let pin = self
            .pin
            .ok_or_else(|| TokenError::NotAnswered("nobody is there".into()))?;
        let is_puk = matches!(question, Question::NewPuk { .. });
        Ok(SecretBytes::from_slice(if is_puk { PUK } else { pin }))
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(*notice);
    }
}

/// A new token whose owner is quick.
pub(crate) fn card(serial: u32, firmware: Firmware, pki: &TestPki) -> Card {
    let card = Card::new(serial, firmware, pki).expect("a token");
    card.touch(Touch::After(Duration::from_millis(5)));
    card.touch_timeout(Duration::from_millis(300));
    card
}

/// Enrols the only token that is inserted.
pub(crate) fn enrolled() -> YubiKeyToken {
    enrol(&Enrolment::default(), &mut Owner::who_knows(PIN)).expect("an enrolled token")
}
