//! A token in a file: the share key and the approval key of a [`KeyFile`], under one passphrase.
//!
//! The passphrase is asked for when the file is opened; both keys stay in memory until the token is dropped.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use keyturn_seal::{
    KeyFile, KeyFileError, SecretBytes, ShareIdentity, ShareKey, decrypt_with, keyfile::Cost,
};
use zeroize::Zeroizing;

use crate::{
    ApprovalKey, Prompt, Question, SHARE_MAX, SHARES_MAX, TEXT_MAX, Token, TokenError, TokenInfo,
    TokenKind, pem,
};

/// An opened key file.
pub struct SoftwareToken {
    identity: ShareIdentity,
    share_key: ShareKey,
    approval: EcdsaKeyPair,
    approval_key: ApprovalKey,
}

impl SoftwareToken {
    /// Makes both keys. The bytes are the key file, which the caller stores (0600) before anything is sealed to it.
    pub fn create(passphrase: &SecretBytes, cost: Cost) -> Result<(Vec<u8>, Self), TokenError> {
        let file = new_keys()?;
        let sealed = file.seal(passphrase, cost).map_err(file_error)?;
        Ok((sealed, Self::from_file(file)?))
    }

    /// Makes both keys, which are gone with the token: there is no file.
    pub fn in_memory() -> Result<Self, TokenError> {
        Self::from_file(new_keys()?)
    }

    /// Opens a key file with the passphrase that `ui` gives.
    pub fn open(file: &[u8], ui: &mut dyn Prompt) -> Result<Self, TokenError> {
        let passphrase = ui.ask(&Question::Passphrase)?;
        Self::from_file(KeyFile::open(file, &passphrase).map_err(file_error)?)
    }

    fn from_file(file: KeyFile) -> Result<Self, TokenError> {
        let damaged = || TokenError::KeyFile("its approval key cannot be read".to_owned());
        // Exposed to its parser.
        let text = std::str::from_utf8(file.approval_key.expose()).map_err(|_| damaged())?;
        let blocks = Zeroizing::new(pem::decode_all("PRIVATE KEY", text, 1).ok_or(damaged())?);
        let pkcs8 = blocks.first().ok_or(damaged())?;
        let approval = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| damaged())?;
        let approval_key =
            ApprovalKey::from_point(approval.public_key().as_ref()).map_err(|_| damaged())?;
        let share_key = file.identity.share_key();
        Ok(Self {
            identity: file.identity,
            share_key,
            approval,
            approval_key,
        })
    }
}

fn new_keys() -> Result<KeyFile, TokenError> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .map_err(|_| failed("no key can be made"))?;
    Ok(KeyFile {
        identity: ShareIdentity::generate().map_err(failed)?,
        approval_key: pem::encode("PRIVATE KEY", pkcs8.as_ref()).into(),
    })
}

impl Token for SoftwareToken {
    fn describe(&self) -> TokenInfo {
        TokenInfo {
            kind: TokenKind::Software,
            serial: None,
            firmware: None,
        }
    }

    fn share_key(&self) -> &ShareKey {
        &self.share_key
    }

    fn approval_key(&self) -> &ApprovalKey {
        &self.approval_key
    }

    fn open_shares(
        &mut self,
        files: &[&[u8]],
        _: &mut dyn Prompt,
    ) -> Vec<Result<SecretBytes, TokenError>> {
        if files.len() > SHARES_MAX {
            return files
                .iter()
                .map(|_| Err(TokenError::TooMuch("shares at once")))
                .collect();
        }
        files
            .iter()
            .map(|file| decrypt_with(&self.identity, file, SHARE_MAX).map_err(TokenError::of_share))
            .collect()
    }

    fn sign(&mut self, text: &[u8], _: &mut dyn Prompt) -> Result<Vec<u8>, TokenError> {
        if text.len() > TEXT_MAX {
            return Err(TokenError::TooMuch("text to sign"));
        }
        let signature = self
            .approval
            .sign(&SystemRandom::new(), text)
            .map_err(|_| failed("no random numbers for the signature"))?;
        self.approval_key
            .verify(text, signature.as_ref())
            .map_err(failed)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` wants"
)]
fn failed(why: impl ToString) -> TokenError {
    TokenError::Failed(why.to_string())
}

fn file_error(error: KeyFileError) -> TokenError {
    use KeyFileError::{Argon2, Encrypt, NoEntropy, Passphrase, WrongPassphrase};
    if matches!(error, WrongPassphrase(_) | Passphrase) {
        TokenError::WrongPassphrase
    } else if matches!(error, Argon2(_) | NoEntropy(_) | Encrypt(_)) {
        failed(error)
    } else {
        TokenError::KeyFile(error.to_string())
    }
}
