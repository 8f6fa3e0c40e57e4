//! An enrolled YubiKey at work.

use keyturn_hsm::{
    ApprovalKey, Budget, Notice, Prompt, Purpose, SHARE_MAX, SHARES_MAX, TEXT_MAX, Token,
    TokenError, TokenInfo, TokenKind,
    attestation::{Bundle, TouchPolicy},
    prompt::TOUCH_WAIT_SECS,
};
use keyturn_seal::{
    Secret, SecretBytes, ShareKey,
    piv::{self, CardError, PivKey, Point},
};
use sha2::{Digest as _, Sha256};
use yubikey::{
    Buffer, Error, YubiKey,
    piv::{AlgorithmId, SlotId},
};

use crate::{
    find::{self, firmware, serial},
    mishap::{in_use, mishap},
    object,
    pin::Pin,
    record::{Made, Record, State},
};

/// A YubiKey with our keys on it.
pub struct YubiKeyToken {
    card: YubiKey,
    record: Record,
    share: PivKey,
    share_slot: SlotId,
    pin: Pin,
    /// What is ahead has been told.
    is_told: bool,
}

impl YubiKeyToken {
    /// Opens the YubiKey with this serial number, or the only one; asks nothing.
    pub fn open(wanted: Option<u32>) -> Result<Self, TokenError> {
        let mut card = find::open(wanted)?;
        match object::state(&mut card)? {
            Some(State::Enrolled(record)) => Self::new(card, *record, Pin::Unasked),
            Some(State::Begun(_)) | None => Err(TokenError::NotEnrolled),
        }
    }

    /// Opens it and checks that it has the keys that were enrolled.
    pub fn open_enrolled(
        wanted: Option<u32>,
        approval: &ApprovalKey,
        share: &ShareKey,
    ) -> Result<Self, TokenError> {
        let token = Self::open(wanted)?;
        if (&token.record.approval, &token.record.share) == (approval, share) {
            Ok(token)
        } else {
            Err(TokenError::Replaced)
        }
    }

    /// Takes over a token, if its slots hold what the record says.
    pub(crate) fn new(mut card: YubiKey, record: Record, pin: Pin) -> Result<Self, TokenError> {
        let (ShareKey::Piv(share), Some(share_slot)) = (record.share.clone(), record.slot.id())
        else {
            return Err(TokenError::Replaced);
        };
        let approval = object::certified_key(&mut card, SlotId::Signature);
        let shares = object::certified_key(&mut card, share_slot);
        let is_share = shares
            .and_then(|point| PivKey::from_sec1(&point))
            .is_some_and(|key| key == share);
        if approval.as_deref() != Some(record.approval.point()) || !is_share {
            // A token that was pulled out meanwhile has other troubles than other keys.
            return Err(object::state(&mut card)
                .err()
                .unwrap_or(TokenError::Replaced));
        }
        Ok(Self {
            card,
            record,
            share,
            share_slot,
            pin,
            is_told: false,
        })
    }

    /// Where the keys are.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Tells once what a command will ask for.
    fn tell(&mut self, shares: usize, signatures: u8, ui: &mut dyn Prompt) {
        if self.is_told {
            return;
        }
        let shares = match self.record.touch {
            TouchPolicy::Never => 0,
            TouchPolicy::Cached => u8::from(shares > 0),
            TouchPolicy::Always => u8::try_from(shares).unwrap_or(u8::MAX),
        };
        let secrets = u8::from(matches!(self.pin, Pin::Unasked));
        ui.notice(&Notice::Ahead(Budget {
            secrets,
            touches: shares.saturating_add(signatures),
        }));
        self.is_told = true;
    }

    /// Uses a private key: PIN, then the touch, then the result. A token that another program has reset meanwhile
    /// is opened and given the PIN again, once.
    fn use_key(&mut self, job: &Job<'_>, ui: &mut dyn Prompt) -> Result<Buffer, TokenError> {
        let first = self.try_key(job, ui);
        if first != Err(TokenError::InUse) {
            return first;
        }
        self.reopen()?;
        self.try_key(job, ui)
    }

    fn try_key(&mut self, job: &Job<'_>, ui: &mut dyn Prompt) -> Result<Buffer, TokenError> {
        self.pin.verify(&mut self.card, ui)?;
        self.attempt(job, ui)
            .map_err(|error| self.why_not(error, job))
    }

    /// The same token by its serial number: another one that is in its place must not be tried with this PIN.
    fn reopen(&mut self) -> Result<(), TokenError> {
        let new = find::open(Some(serial(&self.card))).map_err(|error| {
            use TokenError::{NoReader, NoToken, Removed, WrongToken};
            let is_gone = matches!(error, NoReader | NoToken | WrongToken { .. });
            if is_gone { Removed } else { error }
        })?;
        find::leave(std::mem::replace(&mut self.card, new));
        Ok(())
    }

    fn attempt(&mut self, job: &Job<'_>, ui: &mut dyn Prompt) -> Result<Buffer, Error> {
        if job.is_touched {
            let seconds = TOUCH_WAIT_SECS;
            ui.notice(&Notice::Touch {
                serial: serial(&self.card),
                purpose: job.purpose,
                seconds,
            });
        }
        let algorithm = AlgorithmId::EccP256;
        let result = match job.purpose {
            Purpose::Sign => {
                yubikey::piv::sign_data(&mut self.card, job.input, algorithm, SlotId::Signature)
            }
            Purpose::Open => {
                yubikey::piv::decrypt_data(&mut self.card, job.input, algorithm, self.share_slot)
            }
        };
        if job.is_touched {
            ui.notice(&Notice::TouchOver);
        }
        result
    }

    /// The token says the same for a missing PIN and a missing touch. Asked whether it knows the PIN, which costs no
    /// try, it tells them apart.
    fn why_not(&mut self, error: Error, job: &Job<'_>) -> TokenError {
        if error != Error::AuthenticationError {
            return in_use(&mut self.card, error);
        }
        match self.card.verify_pin(&[]) {
            Ok(()) if job.is_touched => TokenError::TouchNotGiven,
            Ok(()) => in_use(&mut self.card, error),
            Err(Error::WrongPin { .. }) => TokenError::InUse,
            Err(error) => mishap(error),
        }
    }

    fn open_share(
        &mut self,
        file: &[u8],
        is_touched: &mut bool,
        ui: &mut dyn Prompt,
    ) -> Result<SecretBytes, CardError<TokenError>> {
        let share = self.share.clone();
        piv::decrypt(&share, file, SHARE_MAX, |point: &Point| {
            let wants_touch = match self.record.touch {
                TouchPolicy::Never => false,
                TouchPolicy::Cached => !*is_touched,
                TouchPolicy::Always => true,
            };
            let job = Job {
                purpose: Purpose::Open,
                input: point,
                is_touched: wants_touch,
            };
            let shared = self.use_key(&job, ui)?;
            *is_touched = true;
            Secret::from_slice(&shared)
                .ok_or_else(|| TokenError::Failed("a shared key of another length".to_owned()))
        })
    }
}

/// One use of a private key.
struct Job<'a> {
    purpose: Purpose,
    input: &'a [u8],
    /// Whether the token will wait for a touch.
    is_touched: bool,
}

impl Token for YubiKeyToken {
    fn describe(&self) -> TokenInfo {
        TokenInfo {
            kind: TokenKind::YubiKey,
            serial: Some(serial(&self.card)),
            firmware: Some(firmware(&self.card)),
        }
    }

    fn share_key(&self) -> &ShareKey {
        &self.record.share
    }

    fn approval_key(&self) -> &ApprovalKey {
        &self.record.approval
    }

    fn open_shares(
        &mut self,
        files: &[&[u8]],
        ui: &mut dyn Prompt,
    ) -> Vec<Result<SecretBytes, TokenError>> {
        if files.len() > SHARES_MAX {
            return files
                .iter()
                .map(|_| Err(TokenError::TooMuch("shares at once")))
                .collect();
        }
        self.tell(files.len(), 1, ui);
        let mut is_touched = false;
        let mut stopped = None;
        let mut open = |file: &&[u8]| {
            if let Some(error) = &stopped {
                return Err(TokenError::clone(error));
            }
            self.open_share(file, &mut is_touched, ui)
                .map_err(|error| match error {
                    CardError::Card(error) => stopped.insert(error).clone(),
                    CardError::File(error) => TokenError::of_share(error),
                    other => TokenError::Failed(other.to_string()),
                })
        };
        files.iter().map(&mut open).collect()
    }

    fn sign(&mut self, text: &[u8], ui: &mut dyn Prompt) -> Result<Vec<u8>, TokenError> {
        if text.len() > TEXT_MAX {
            return Err(TokenError::TooMuch("text to sign"));
        }
        self.tell(0, 1, ui);
        self.is_told = false;
        let job = Job {
            purpose: Purpose::Sign,
            input: &Sha256::digest(text),
            is_touched: true,
        };
        let signature = self.use_key(&job, ui)?;
        self.record
            .approval
            .verify(text, &signature)
            .map_err(|_| TokenError::Replaced)?;
        Ok(signature.to_vec())
    }

    fn profile(&mut self) -> Result<Option<Vec<u8>>, TokenError> {
        object::profile(&mut self.card)
    }

    /// At most [`crate::PROFILE_MAX`] bytes.
    fn set_profile(&mut self, profile: &[u8], ui: &mut dyn Prompt) -> Result<bool, TokenError> {
        self.pin.verify(&mut self.card, ui)?;
        crate::enrol::authenticate(&mut self.card)?;
        object::set_profile(&mut self.card, profile)?;
        Ok(true)
    }

    fn attest(&mut self) -> Result<Option<Bundle>, TokenError> {
        let mut leaf = |slot| {
            yubikey::piv::attest(&mut self.card, slot)
                .map(|leaf| leaf.to_vec())
                .map_err(|error| in_use(&mut self.card, error))
        };
        let approval = leaf(SlotId::Signature)?;
        let share = match leaf(self.share_slot) {
            Ok(share) => Some(share),
            // The token attests no key that was imported.
            Err(TokenError::Failed(_)) if self.record.made == Made::Approval => None,
            Err(error) => return Err(error),
        };
        Ok(Some(Bundle {
            approval,
            share,
            f9: object::attester(&mut self.card)?,
        }))
    }
}
