//! A sealed version: request line, manifest, definition, charter, log entry and envelope agree.
//!
//! This is what keeps a custodian's client from decrypting for whoever asks: an envelope is opened only
//! when all of it is for the very version that the request names.

use keyturn_audit::note::Vkey;
use keyturn_proto::v1;
use keyturn_seal::{Binding, Sharing};
use keyturn_vault::{
    charter::Chain,
    definition::Definition,
    digest::Digest,
    event::Event,
    id::{GroupName, PersonId},
    jcs::Document as _,
    manifest::{Holder, Manifest},
    text::CredentialLine,
    world::VersionId,
};

use super::{VerifyError, log, log::Proven};
use crate::wire;

/// A sealed version that is what the request names.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What the request names.
    pub line: CredentialLine,
    /// The digests that fix it.
    pub manifest: Manifest,
    /// What the credential is, as it was when this version was sealed.
    pub definition: Definition,
    /// Envelopes: of one custodian, or of all.
    pub envelopes: Vec<v1::Envelope>,
    /// The entry that put it into the log.
    pub proven: Proven,
}

/// Reads the manifest that the line names, and checks who signed it.
pub fn manifest(
    chain: &Chain,
    line: &CredentialLine,
    sealed: &v1::SealedVersion,
) -> Result<Manifest, VerifyError> {
    let what = || format!("the manifest of {} {}", line.path, line.version);
    let document = wire::required(sealed.manifest.clone(), "a manifest")?;
    if Digest::of(&document.document) != line.manifest {
        return Err(VerifyError::Other {
            what: what(),
            by: "the request",
        });
    }
    let manifest = Manifest::from_bytes(&document.document)
        .map_err(|source| VerifyError::Document("a manifest", source))?;
    if (manifest.credential, manifest.version) != (line.credential, line.version) {
        return Err(VerifyError::Other {
            what: what(),
            by: "the request",
        });
    }
    let charter = chain
        .find(&manifest.charter)
        .ok_or_else(|| VerifyError::Other {
            what: "the charter".to_owned(),
            by: "the manifest",
        })?;
    let (signer, signature) = wire::signature(document.signature, "the signature on a manifest")?;
    super::signature(charter, signer, &document.document, &signature, &what())?;
    Ok(manifest)
}

/// Checks everything else. `definition` is the document that the manifest names.
pub fn check(
    chain: &Chain,
    log: &Vkey,
    line: &CredentialLine,
    manifest: Manifest,
    definition: &[u8],
    sealed: v1::SealedVersion,
) -> Result<Sealed, VerifyError> {
    let what = || format!("{} {}", line.path, line.version);
    if Digest::of(definition) != manifest.definition {
        return Err(VerifyError::Other {
            what: format!("the definition of {}", what()),
            by: "its manifest",
        });
    }
    if let Some(document) = sealed
        .definition
        .filter(|document| document.document == definition)
        && let Some(signature) = document.signature
        && document.ceremony.is_empty()
    {
        let (signer, signature) =
            wire::signature(Some(signature), "the signature on a definition")?;
        super::document(
            chain,
            signer,
            definition,
            &signature,
            &format!("the definition of {}", what()),
        )?;
    }
    let definition = Definition::from_bytes(definition)
        .map_err(|source| VerifyError::Document("a definition", source))?;
    if definition.path != line.path {
        return Err(VerifyError::Other {
            what: format!("the path of {}", what()),
            by: "its definition",
        });
    }
    let charter = chain
        .find(&manifest.charter)
        .ok_or_else(|| VerifyError::Other {
            what: "the charter".to_owned(),
            by: "the manifest",
        })?;
    manifest
        .validate(&definition, charter)
        .map_err(|source| VerifyError::Manifest(what(), source))?;
    let proven = log::receipt(sealed.sealed, log)?;
    let named = if let Event::VersionSealed {
        version, manifest, ..
    }
    | Event::VersionRecovered {
        version, manifest, ..
    } = &proven.event
    {
        Some((*version, *manifest))
    } else {
        None
    };
    let version = VersionId {
        credential: line.credential,
        version: line.version,
    };
    if named != Some((version, line.manifest)) {
        return Err(VerifyError::Other {
            what: what(),
            by: "its entry in the log",
        });
    }
    Ok(Sealed {
        line: line.clone(),
        manifest,
        definition,
        envelopes: sealed.envelopes,
        proven,
    })
}

impl Sealed {
    /// The group that is asked for it: the one that the request names, or its own.
    pub fn asked<'a>(&'a self, named: Option<&'a GroupName>) -> &'a GroupName {
        named
            .filter(|group| self.manifest.group(group).is_some())
            .unwrap_or(&self.definition.group)
    }

    /// The share of a custodian in a group, with the envelope that the manifest names.
    pub fn share_of(
        &self,
        group: &GroupName,
        person: PersonId,
    ) -> Option<(&Holder, Option<&[u8]>)> {
        let holder = self.manifest.group(group)?.holder(person)?;
        let envelope = self
            .envelopes
            .iter()
            .find(|envelope| Digest::of(&envelope.envelope) == holder.envelope);
        Some((
            holder,
            envelope.map(|envelope| envelope.envelope.as_slice()),
        ))
    }

    /// What checks the shares of a group.
    pub fn sharing(&self, group: &GroupName) -> Result<Sharing, VerifyError> {
        sharing(&self.manifest, group)
    }
}

/// What checks and combines the shares of a group.
pub fn sharing(manifest: &Manifest, group: &GroupName) -> Result<Sharing, VerifyError> {
    let odd = || VerifyError::Missing("a manifest that shares can be checked by");
    let sealed = manifest.group(group).ok_or_else(odd)?;
    let commitments = sealed
        .holders
        .iter()
        .map(|holder| holder.commitment.0)
        .collect();
    Sharing::new(binding(manifest)?, group.as_str(), sealed.k, commitments).map_err(|_| odd())
}

/// What a sealed value is for, as the sealing crate wants it.
pub fn binding(manifest: &Manifest) -> Result<Binding, VerifyError> {
    let version = manifest.version.number();
    Binding::new(
        manifest.origin.as_str(),
        &manifest.credential.to_string(),
        version,
    )
    .map_err(|_| VerifyError::Missing("a manifest that shares can be checked by"))
}
