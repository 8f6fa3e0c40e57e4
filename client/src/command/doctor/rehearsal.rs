//! An approval as it will be, without a vault: eight shares are opened and a text is signed.

use keyturn_hsm::{Token, TokenError};
use keyturn_seal::encrypt_to;

use crate::{causes::told, clock, refusal::Refusal, token, ui::prompt::Person};

/// Shares of one rehearsal: as many as credentials fit into a request.
const SHARES: u8 = 8;

/// Opens and signs; what was done. The text is of a type that nothing else reads, so that its signature is of no use
/// to anybody.
pub(super) fn rehearse(token: &mut dyn Token, person: &mut Person) -> Result<String, Refusal> {
    let key = token.share_key().clone();
    let shares: Vec<Vec<u8>> = (0..SHARES)
        .map(|number| encrypt_to(std::slice::from_ref(&key), &[number]))
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new("internal", told(&error), "report this"))?;
    let files: Vec<&[u8]> = shares.iter().map(Vec::as_slice).collect();
    for (number, opened) in (0..).zip(token.open_shares(&files, person)) {
        // Exposed to be compared with what was encrypted.
        if opened?.expose() != [number] {
            return Err(TokenError::ShareDamaged.into());
        }
    }
    let text = format!(
        "keyturn rehearsal v1\nsalt: {}\nsigned: {}\n",
        token::salt()?,
        clock::now().stamp()
    );
    let signature = token.sign(text.as_bytes(), person)?;
    token
        .approval_key()
        .verify(text.as_bytes(), &signature)
        .map_err(|_| TokenError::Replaced)?;
    Ok(format!(
        "{SHARES} shares opened and a text signed, as for an approval"
    ))
}
