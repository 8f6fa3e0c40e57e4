//! What must be checked outside before a step, or by an auditor after the fact.
//!
//! The machines judge who may do what; they have no cryptography. What only mathematics can tell
//! comes out as a list of these, and whoever steps a machine performs them all first.

use crate::{
    charter::{Charter, Token},
    digest::Digest,
    id::{GroupName, PersonId, TokenId},
    key::PublicKey,
    reference::{Head, Signer},
    text::SignedText,
    world::VersionId,
};

/// One thing to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The text carries a signature of this key (ECDSA P-256 over SHA-256, DER).
    Text {
        /// The key that the charter in force has for the signer.
        key: PublicKey,
        /// The text.
        signed: SignedText,
    },
    /// The document with this digest carries this signature.
    Document {
        /// The key that the charter in force has for the signer.
        key: PublicKey,
        /// The document's digest.
        document: Digest,
        /// DER.
        signature: Vec<u8>,
    },
    /// The share is the one that was sealed.
    Commitment {
        /// The version.
        version: VersionId,
        /// The group.
        group: GroupName,
        /// Whose share.
        person: PersonId,
        /// Its x.
        x: u8,
        /// What it must hash to.
        commitment: Digest,
    },
    /// The attestation of a token proves what the charter says of it.
    Attestation {
        /// The token, as the charter has it: keys, serial, and the facts with their object's digest.
        token: Box<Token>,
    },
    /// The log had this root at this size: somebody signed that they saw it so.
    Head(Head),
    /// The details text with this digest, where it is still kept.
    Details(Digest),
    /// Nobody could say which key this is to be checked with: the check fails.
    NoKey {
        /// Who is said to have signed.
        signer: Signer,
    },
}

impl Check {
    /// The attestations that a charter brings and `old`, the one before, had not.
    pub fn attestations(charter: &Charter, old: Option<&Charter>) -> Vec<Self> {
        let known = |token: &Token| {
            old.and_then(|old| old.person_of_token(token.id))
                .is_some_and(|(_, before)| before == token)
        };
        let tokens = charter.persons.iter().flat_map(|person| &person.tokens);
        let attested = tokens.filter(|token| token.attestation.is_some() && !known(token));
        attested
            .map(|token| Self::Attestation {
                token: Box::new(token.clone()),
            })
            .collect()
    }

    /// A token's signature over a text.
    pub fn signature(charter: &Charter, token: TokenId, signed: &SignedText) -> Vec<Self> {
        // The signer that the text comes with must be the token that its lines name.
        let signer = Signer::Token(token);
        let key = key(charter, signer).filter(|_| signed.signer == signer);
        vec![key.map_or(Self::NoKey { signer }, |key| Self::Text {
            key,
            signed: signed.clone(),
        })]
    }

    /// Anybody's signature over a text.
    pub fn text(charter: &Charter, signed: &SignedText) -> Self {
        let signer = signed.signer;
        key(charter, signer).map_or(Self::NoKey { signer }, |key| Self::Text {
            key,
            signed: signed.clone(),
        })
    }

    /// Anybody's signature over a document.
    pub fn document(charter: &Charter, document: Digest, signer: Signer, signature: &[u8]) -> Self {
        let signature = signature.to_vec();
        key(charter, signer).map_or(Self::NoKey { signer }, |key| Self::Document {
            key,
            document,
            signature,
        })
    }
}

/// The key that the charter has for a signer.
pub fn key(charter: &Charter, signer: Signer) -> Option<PublicKey> {
    match signer {
        Signer::Token(id) => charter
            .person_of_token(id)
            .map(|(_, token)| token.approval_key.clone()),
        Signer::Device(id) => charter
            .person_of_device(id)
            .map(|(_, device)| device.key.clone()),
        Signer::Node(id) => charter.node(id).map(|node| node.key.clone()),
    }
}

/// Whose token or device signs; nobody's, where it is a node.
pub fn owner(charter: &Charter, signer: Signer) -> Option<PersonId> {
    match signer {
        Signer::Token(id) => charter.person_of_token(id).map(|(person, _)| person.id),
        Signer::Device(id) => charter.person_of_device(id).map(|(person, _)| person.id),
        Signer::Node(_) => None,
    }
}
