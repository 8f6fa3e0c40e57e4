//! Sealing a new version to the charter in force, with the node's signature.

use keyturn_seal::{self as seal, Binding, Holder, HolderToken, Roster, SecretBytes};
use keyturn_vault::{
    charter::{Charter, Group},
    definition::Definition,
    digest::Digest,
    event::Maker,
    id::GroupName,
    jcs::Document as _,
    manifest::{self, Manifest, SealedGroup},
    reference::Version,
};

use crate::{chain::Known, identity::Node, rows};

/// A version that is sealed and not stored yet.
#[derive(Clone)]
pub struct Fresh {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Ciphertext and envelopes.
    pub blob: rows::Blob,
    /// Who made it.
    pub maker: Maker,
}

/// Seals a secret as a version that the node makes.
pub fn seal(
    node: &Node,
    known: &Known,
    definition: &Definition,
    (version, maker): (Version, Maker),
    secret: &SecretBytes,
) -> Result<Fresh, String> {
    let charter = &known.charter;
    let binding = Binding::new(
        charter.origin.as_str(),
        &definition.credential.to_string(),
        version.number(),
    )
    .map_err(|error| error.to_string())?;
    let rosters = definition
        .groups()
        .map(|name| roster(charter, name))
        .collect::<Result<Vec<_>, _>>()?;
    let sealed = seal::seal(secret, &binding, &rosters).map_err(|error| error.to_string())?;
    let mut groups = Vec::with_capacity(sealed.groups.len());
    let mut envelopes = Vec::new();
    for (name, group) in definition.groups().zip(sealed.groups) {
        let mut holders = Vec::with_capacity(group.shares.len());
        for share in group.shares {
            let person = share.person.parse().map_err(|_| "not a person's id")?;
            let tokens = share.tokens.iter().map(|token| token.parse());
            holders.push(manifest::Holder {
                person,
                x: share.x,
                tokens: tokens
                    .collect::<Result<_, _>>()
                    .map_err(|_| "not a token's id")?,
                commitment: Digest(share.commitment),
                envelope: Digest(share.envelope_sha256),
            });
            envelopes.push(rows::Envelope {
                group: name.clone(),
                person,
                x: share.x,
                envelope: share.envelope,
            });
        }
        groups.push(SealedGroup {
            group: name.clone(),
            k: group.k,
            n: group.n,
            holders,
        });
    }
    let manifest = Manifest {
        format: manifest::Format::V1,
        origin: charter.origin.clone(),
        definition: definition
            .to_bytes()
            .map(|bytes| Digest::of(&bytes))
            .map_err(|error| error.to_string())?,
        credential: definition.credential,
        version,
        kind: definition.kind,
        charter: known.reference,
        ciphertext: Digest(sealed.ciphertext_sha256),
        groups,
    };
    let bytes = manifest.to_bytes().map_err(|error| error.to_string())?;
    let signature = node.seal(&bytes).map_err(|error| error.to_string())?;
    Ok(Fresh {
        manifest,
        bytes,
        blob: rows::Blob {
            signature,
            ciphertext: sealed.ciphertext,
            envelopes,
        },
        maker,
    })
}

/// A group of the charter, with the tokens of its members.
fn roster(charter: &Charter, name: &GroupName) -> Result<Roster, String> {
    let Group { k, members, .. } = charter
        .group(name)
        .ok_or_else(|| format!("the charter has no group {name}"))?;
    let holder = |person: &keyturn_vault::id::PersonId| {
        let tokens = charter
            .person(*person)
            .into_iter()
            .flat_map(|person| &person.tokens);
        let token = |token: &keyturn_vault::charter::Token| {
            Ok::<_, String>(HolderToken {
                id: token.id.to_string(),
                key: token
                    .share_key
                    .as_str()
                    .parse()
                    .map_err(|error: seal::KeyError| error.to_string())?,
            })
        };
        Ok::<_, String>(Holder {
            person: person.to_string(),
            tokens: tokens.map(token).collect::<Result<_, _>>()?,
        })
    };
    let holders = members.iter().map(holder).collect::<Result<_, _>>()?;
    Roster::new(name.as_str(), *k, holders).map_err(|error| error.to_string())
}
