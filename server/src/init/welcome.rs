//! The welcome files of the founders: with one of these a token proves its keys.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use keyturn_hsm::device::DeviceKey;
use keyturn_seal::encrypt_to;
use keyturn_vault::{
    charter::Charter,
    digest::{Digest, Salt},
    file::{Blob, Welcome, WelcomeFormat},
    id::TokenId,
    name::PersonName,
    reference::CharterRef,
};

use super::{InitError, Request, founding::Enrolled, random, write};
use crate::rows;

/// A token of a founder, and the file with which it joins.
#[derive(Debug)]
pub struct Welcomed {
    /// Whose it is.
    pub name: PersonName,
    /// The file.
    pub path: PathBuf,
    pub(super) token: TokenId,
    pub(super) proof: rows::Founder,
}

/// One welcome file for every token of the founders, with a nonce that only its share key reads.
pub(super) fn welcome(
    request: &Request,
    charter: &Charter,
    bytes: &[u8],
    genesis: CharterRef,
    enrolled: &BTreeMap<PersonName, Enrolled>,
    node: &DeviceKey,
) -> Result<Vec<Welcomed>, InitError> {
    let key_error = |error: &dyn fmt::Display| InitError::Key(error.to_string());
    let endpoints = if request.endpoints.is_empty() {
        request.listen.iter().map(ToString::to_string).collect()
    } else {
        request.endpoints.clone()
    };
    let mut welcomes = Vec::new();
    for (name, one) in enrolled {
        for (n, token) in one.tokens.iter().enumerate() {
            let nonce = Salt(random().map_err(|e| key_error(&e))?).to_string();
            let sealed = encrypt_to(std::slice::from_ref(&token.share_key), nonce.as_bytes())
                .map_err(|e| key_error(&e))?;
            let welcome = Welcome {
                format: WelcomeFormat::V1,
                origin: charter.origin.clone(),
                endpoints: endpoints.clone(),
                server_pins: vec![Digest(node.pin())],
                vkey: charter.log_key.clone(),
                genesis,
                in_force: None,
                charter: Blob(bytes.to_vec()),
                person: one.person.id,
                nonce: Blob(sealed),
                enrolment: token.enrolment,
            };
            let file = match n {
                0 => format!("{name}.welcome"),
                1 => format!("{name}-spare.welcome"),
                _ => format!("{name}-spare-{n}.welcome"),
            };
            let path = request.dir.join("welcome").join(file);
            let text = welcome
                .to_bytes()
                .map_err(|error| InitError::Charter(error.to_string()))?;
            write(&path, &text, 0o600)?;
            welcomes.push(Welcomed {
                name: name.clone(),
                path,
                token: token.id,
                proof: rows::Founder {
                    nonce: Digest::of(nonce.as_bytes()),
                    enrolment: token.enrolment,
                },
            });
        }
    }
    Ok(welcomes)
}
