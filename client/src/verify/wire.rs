//! Between the wire and the vault's own types.

use keyturn_proto::v1::{self, signer::By};
use keyturn_vault::{
    digest::Digest,
    name::CredentialPath,
    reference::Signer,
    text::{MAX_SIGNATURE_BYTES, SignedText},
};

use super::VerifyError;

/// Reads what the daemon must have sent.
pub fn required<T>(value: Option<T>, what: &'static str) -> Result<T, VerifyError> {
    value.ok_or(VerifyError::Missing(what))
}

/// Reads an id or a name that the daemon sent.
pub fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, VerifyError> {
    text.parse().map_err(|_| VerifyError::Missing(what))
}

/// Reads a digest.
pub fn digest(bytes: &[u8], what: &'static str) -> Result<Digest, VerifyError> {
    bytes
        .try_into()
        .map(Digest)
        .map_err(|_| VerifyError::Missing(what))
}

/// Reads hashes of a proof.
pub fn hashes(hashes: &[Vec<u8>]) -> Result<Vec<[u8; 32]>, VerifyError> {
    hashes
        .iter()
        .map(|hash| digest(hash, "a hash of a proof").map(|digest| digest.0))
        .collect()
}

/// Reads a signer.
pub fn signer(signer: Option<v1::Signer>) -> Result<Signer, VerifyError> {
    Ok(
        match required(signer.and_then(|signer| signer.by), "a signer")? {
            By::Token(id) => Signer::Token(parse(&id, "the id of a token")?),
            By::Device(id) => Signer::Device(parse(&id, "the id of a device")?),
            By::Node(id) => Signer::Node(parse(&id, "the id of a node")?),
        },
    )
}

/// Reads a signed text.
pub fn signed_text(
    text: Option<v1::SignedText>,
    what: &'static str,
) -> Result<SignedText, VerifyError> {
    let v1::SignedText {
        text,
        signature,
        signer: by,
    } = required(text, what)?;
    if signature.len() > MAX_SIGNATURE_BYTES {
        return Err(VerifyError::Signature(what.to_owned()));
    }
    Ok(SignedText {
        text,
        signature,
        signer: signer(by)?,
    })
}

/// Reads a signature over a document.
pub fn signature(
    signature: Option<v1::Signature>,
    what: &'static str,
) -> Result<(Signer, Vec<u8>), VerifyError> {
    let v1::Signature {
        signature,
        signer: by,
    } = required(signature, what)?;
    Ok((signer(by)?, signature))
}

/// Writes a signer.
pub fn wire_signer(signer: Signer) -> v1::Signer {
    let by = match signer {
        Signer::Token(id) => By::Token(id.to_string()),
        Signer::Device(id) => By::Device(id.to_string()),
        Signer::Node(id) => By::Node(id.to_string()),
    };
    v1::Signer { by: Some(by) }
}

/// Writes a signed text.
pub fn wire_text(signed: &SignedText) -> v1::SignedText {
    v1::SignedText {
        text: signed.text.clone(),
        signature: signed.signature.clone(),
        signer: Some(wire_signer(signed.signer)),
    }
}

/// Writes a signed document.
pub fn wire_document(document: Vec<u8>, signer: Signer, signature: Vec<u8>) -> v1::SignedDocument {
    let signature = v1::Signature {
        signature,
        signer: Some(wire_signer(signer)),
    };
    v1::SignedDocument {
        document,
        signature: Some(signature),
        ceremony: String::new(),
    }
}

/// Names a credential by its path.
pub fn at_path(path: &CredentialPath) -> Option<v1::CredentialName> {
    Some(v1::CredentialName {
        by: Some(v1::credential_name::By::Path(path.to_string())),
    })
}

/// The next page of a list.
pub fn next_page(after: String) -> Option<v1::PageRequest> {
    Some(v1::PageRequest { size: 0, after })
}
