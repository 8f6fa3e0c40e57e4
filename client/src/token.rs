//! The token of a profile, and random values.

use keyturn_hsm::{Prompt, Token, TokenError, software::SoftwareToken};
use keyturn_vault::{
    digest::Salt,
    id::TokenId,
    reference::{Signer, TokenKind},
    text::{SignedText, Text},
};

use crate::{
    home::{Home, Profile},
    refusal::Refusal,
};

/// The key file of a software token.
pub const KEY_FILE: &str = "token.key";

/// The largest key file, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// A token that was opened: it asks for no passphrase again.
pub struct Opened {
    /// The token.
    pub token: Box<dyn Token>,
    signer: Signer,
}

/// Opens the token of a profile; asks for its passphrase or PIN.
pub fn open(home: &Home, profile: &Profile, ui: &mut dyn Prompt) -> Result<Opened, Refusal> {
    let token: Box<dyn Token> = match profile.token.kind {
        TokenKind::Software => {
            let path = home.path(KEY_FILE);
            let file = keyturn_hsm::private::read(&path)?;
            if u64::try_from(file.len()).unwrap_or(u64::MAX) > MAX_KEY_FILE {
                return Err(TokenError::KeyFile("it is too long".to_owned()).into());
            }
            Box::new(SoftwareToken::open(&file, ui)?)
        }
        TokenKind::Yubikey => return Err(no_yubikey()),
    };
    Ok(Opened {
        token,
        signer: Signer::Token(profile.token.id),
    })
}

/// This build has no YubiKeys.
pub fn no_yubikey() -> Refusal {
    Refusal::new(
        "no-smart-card-service",
        "this keyturn was built without YubiKeys",
        "install the build with the feature `yubikey`, which needs pcscd",
    )
}

impl Opened {
    /// A token that is open already.
    pub fn new(token: Box<dyn Token>, id: TokenId) -> Self {
        Self {
            token,
            signer: Signer::Token(id),
        }
    }

    /// Signs a text that goes together.
    pub fn sign<T: Text>(&mut self, text: &T, ui: &mut dyn Prompt) -> Result<SignedText, Refusal> {
        text.check().map_err(|error| malformed(&error))?;
        let text = text.to_text();
        let signature = self.token.sign(text.as_bytes(), ui)?;
        Ok(SignedText {
            text,
            signature,
            signer: self.signer,
        })
    }
}

/// A text whose lines do not go together.
pub fn malformed(error: &keyturn_vault::text::TextError) -> Refusal {
    Refusal::new(
        "malformed",
        crate::refusal::told(error),
        "nothing was sent; change what you asked for",
    )
}

/// 32 random bytes.
pub fn salt() -> Result<Salt, Refusal> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Salt(bytes))
}

/// Ten random bytes, for an id.
pub fn random() -> Result<[u8; 10], Refusal> {
    let mut bytes = [0; 10];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    getrandom::fill(bytes).map_err(|_| {
        Refusal::new(
            "no-entropy",
            "the system's random number generator failed",
            "do not use this computer",
        )
    })
}
