//! Between the wire and the vault's own types.

use keyturn_proto::v1::{self, signer::By};
use keyturn_vault::{
    ceremony::{End, Purpose, State},
    digest::Digest,
    event::Seal,
    reference::{PersonRef, Signer},
    text::{MAX_SIGNATURE_BYTES, SignedText},
    world::Stage,
};

use crate::{refusal::Refused, rows};

/// A field that must be there.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, Refused> {
    value.ok_or_else(|| Refused::Malformed(format!("the field `{name}` is missing")))
}

/// Reads an id, a name, or whatever else is written as text.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
    name: &str,
) -> Result<T, Refused> {
    text.parse()
        .map_err(|error| Refused::Malformed(format!("the field `{name}`: {error}")))
}

/// Reads a digest.
pub fn digest(bytes: &[u8], name: &str) -> Result<Digest, Refused> {
    bytes
        .try_into()
        .map(Digest)
        .map_err(|_| Refused::Malformed(format!("the field `{name}` is not a SHA-256")))
}

/// Reads a signer.
pub fn signer(signer: Option<v1::Signer>) -> Result<Signer, Refused> {
    Ok(
        match required(signer.and_then(|signer| signer.by), "signer")? {
            By::Token(id) => Signer::Token(parse(&id, "token")?),
            By::Device(id) => Signer::Device(parse(&id, "device")?),
            By::Node(id) => Signer::Node(parse(&id, "node")?),
        },
    )
}

/// Reads a signed text.
pub fn signed_text(text: Option<v1::SignedText>) -> Result<SignedText, Refused> {
    let v1::SignedText {
        text,
        signature,
        signer: by,
    } = required(text, "signed text")?;
    if signature.len() > MAX_SIGNATURE_BYTES {
        return Err(Refused::BadSignature);
    }
    Ok(SignedText {
        text,
        signature,
        signer: signer(by)?,
    })
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

/// Writes a signature over a document.
pub fn signature(seal: &Seal) -> v1::Signature {
    v1::Signature {
        signature: seal.signature.clone(),
        signer: Some(wire_signer(seal.signer)),
    }
}

/// Reads a signature over a document.
pub fn read_signature(signature: Option<v1::Signature>) -> Result<Seal, Refused> {
    let v1::Signature {
        signature,
        signer: by,
    } = required(signature, "signature")?;
    if signature.len() > MAX_SIGNATURE_BYTES {
        return Err(Refused::BadSignature);
    }
    Ok(Seal {
        signer: signer(by)?,
        signature,
    })
}

/// Writes a person.
pub fn person(person: &PersonRef) -> v1::Person {
    v1::Person {
        id: person.id.to_string(),
        name: person.name.to_string(),
    }
}

/// Writes a stage of a version.
pub fn stage(stage: Stage) -> v1::VersionState {
    match stage {
        Stage::Candidate => v1::VersionState::Candidate,
        Stage::Current => v1::VersionState::Current,
        Stage::Superseded => v1::VersionState::Superseded,
        Stage::Retired => v1::VersionState::Retired,
        Stage::Destroyed => v1::VersionState::Destroyed,
    }
}

/// Writes an envelope.
pub fn envelope(envelope: &rows::Envelope) -> v1::Envelope {
    v1::Envelope {
        group: envelope.group.to_string(),
        person: envelope.person.to_string(),
        x: u32::from(envelope.x),
        envelope: envelope.envelope.clone(),
    }
}

/// Reads an envelope.
pub fn read_envelope(envelope: v1::Envelope) -> Result<rows::Envelope, Refused> {
    Ok(rows::Envelope {
        group: parse(&envelope.group, "group")?,
        person: parse(&envelope.person, "person")?,
        x: u8::try_from(envelope.x)
            .map_err(|_| Refused::Malformed("the field `x` is out of bounds".to_owned()))?,
        envelope: envelope.envelope,
    })
}

/// Writes a purpose.
pub fn purpose(purpose: Purpose) -> v1::Purpose {
    match purpose {
        Purpose::Unseal => v1::Purpose::Unseal,
        Purpose::Drill => v1::Purpose::Drill,
        Purpose::Reshare => v1::Purpose::Reshare,
        Purpose::Change => v1::Purpose::Change,
        Purpose::Extend => v1::Purpose::Extend,
        Purpose::AcceptRestore => v1::Purpose::AcceptRestore,
        Purpose::Erase => v1::Purpose::Erase,
    }
}

/// Writes a state of a ceremony.
pub fn state(state: &State) -> v1::CeremonyState {
    match state {
        State::Open { .. } => v1::CeremonyState::Open,
        State::Waiting { .. } | State::Approved { .. } => v1::CeremonyState::Approved,
        State::Authorized { .. } => v1::CeremonyState::Authorized,
        State::Ended(End::Released { .. }) => v1::CeremonyState::Released,
        State::Ended(End::Failed) => v1::CeremonyState::Failed,
        State::Ended(End::Interrupted) => v1::CeremonyState::Interrupted,
        State::Ended(End::Applied) => v1::CeremonyState::Applied,
        State::Ended(End::Expired) => v1::CeremonyState::Expired,
        State::Ended(End::Withdrawn) => v1::CeremonyState::Withdrawn,
        State::Ended(End::Superseded) => v1::CeremonyState::Superseded,
    }
}
