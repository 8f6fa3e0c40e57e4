//! A sealed version: request line, manifest, definition, charter, log entry and envelope agree.
//!
//! This is what keeps a custodian's client from decrypting for whoever asks: an envelope is opened only
//! when all of it is for the very version that the request names.

use keyturn_audit::note::Vkey;
use keyturn_proto::v1;
use keyturn_seal::{Binding, Sharing};
use keyturn_vault::{
    charter::Chain,
    check,
    definition::Definition,
    digest::Digest,
    event::Event,
    id::{GroupName, PersonId},
    jcs::Document as _,
    manifest::{Holder, Manifest},
    text::CredentialLine,
    world::VersionId,
};

use super::{
    VerifyError,
    log::{self, Proven},
    wire,
};

/// A sealed version that is what the request names.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What the request names.
    pub line: CredentialLine,
    /// The digests that fix it.
    pub manifest: Manifest,
    /// What the credential is, as it was when this version was sealed.
    pub definition: Definition,
    /// What the credential is now: it decides who is asked.
    pub in_force: Definition,
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
    let (signer, signature) = wire::signature(document.signature, "the signature on a manifest")?;
    // A restore may have replaced the node that sealed it: its key stands in the charter as it was before.
    let mut meant = chain.meant(manifest.charter).peekable();
    let newest = *meant.peek().ok_or_else(|| VerifyError::Other {
        what: "the charter".to_owned(),
        by: "the manifest",
    })?;
    let charter = meant
        .find(|charter| check::key(charter, signer).is_some())
        .unwrap_or(newest);
    super::signature(charter, signer, &document.document, &signature, &what())?;
    Ok(manifest)
}

/// Checks everything else. `definition` is the document that the manifest names, `in_force` the newest; both
/// were verified by [`super::definition`].
pub fn check(
    chain: &Chain,
    log: &Vkey,
    line: &CredentialLine,
    manifest: Manifest,
    (definition, in_force): (&[u8], Definition),
    sealed: v1::SealedVersion,
) -> Result<Sealed, VerifyError> {
    let what = || format!("{} {}", line.path, line.version);
    if Digest::of(definition) != manifest.definition {
        return Err(VerifyError::Other {
            what: format!("the definition of {}", what()),
            by: "its manifest",
        });
    }
    let definition = Definition::from_bytes(definition)
        .map_err(|source| VerifyError::Document("a definition", source))?;
    let identity = |definition: &Definition| {
        definition.path == line.path && definition.credential == line.credential
    };
    if !identity(&definition) || !identity(&in_force) {
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
        in_force,
        envelopes: sealed.envelopes,
        proven,
    })
}

impl Sealed {
    /// The group that is asked for it: the one that the request names, or its own.
    pub fn asked<'a>(&'a self, named: Option<&'a GroupName>) -> &'a GroupName {
        named
            .filter(|group| self.manifest.group(group).is_some())
            .unwrap_or(&self.in_force.group)
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

#[cfg(test)]
pub(super) mod tests {
    use keyturn_audit::{entry::Entry, note::LogKey, proof::Receipt, tree::Edge};
    use keyturn_hsm::device::DeviceKey;
    use keyturn_seal::{SecretBytes, ShareIdentity};
    use keyturn_vault::{
        charter::Charter,
        event::{Maker, Seal},
        key::PublicKey,
        reference::{Signer, Version},
    };

    use super::*;
    use crate::command::deposit::{Draft, seal_to};

    /// The golden charter with keys that this test has, and a version that was sealed under it.
    pub(crate) struct Case {
        pub(crate) chain: Chain,
        pub(crate) log: LogKey,
        pub(crate) line: CredentialLine,
        pub(crate) sealed: v1::SealedVersion,
    }

    pub(crate) fn case() -> Case {
        let mut charter = Charter::from_bytes(include_bytes!(
            "../../../vault/testdata/valid/charter.first.json"
        ))
        .unwrap();
        let log = LogKey::generate(charter.origin.as_str()).unwrap();
        charter.log_key = log.vkey().to_string().parse().unwrap();
        for token in charter
            .persons
            .iter_mut()
            .flat_map(|person| &mut person.tokens)
        {
            token.share_key = ShareIdentity::generate()
                .unwrap()
                .share_key()
                .to_string()
                .parse()
                .unwrap();
        }
        let device = DeviceKey::generate("alice").unwrap();
        let owned = charter
            .persons
            .iter_mut()
            .find_map(|person| person.devices.first_mut())
            .unwrap();
        owned.key = PublicKey::from_der(device.public().spki()).unwrap();
        let signer = Signer::Device(owned.id);
        let bytes = charter.to_bytes().unwrap();
        let chain = Chain::begin(&bytes, Digest::of(&bytes)).unwrap();
        let mut definition = Definition::from_bytes(include_bytes!(
            "../../../vault/testdata/valid/definition.canary.json"
        ))
        .unwrap();
        definition.origin = charter.origin.clone();
        definition.group = charter.groups[0].name.clone();
        definition.fallback = None;
        definition.policy = charter.policies[0].name.clone();
        let secret = SecretBytes::from_slice(b"hunter2");
        let Draft {
            manifest,
            ciphertext,
            envelopes,
        } = seal_to(
            chain.newest().unwrap(),
            &definition,
            Version::FIRST,
            &secret,
        )
        .unwrap();
        let line = CredentialLine {
            path: definition.path.clone(),
            credential: definition.credential,
            version: Version::FIRST,
            manifest: Digest::of(&manifest),
        };
        let sign = |bytes: &[u8]| v1::Signature {
            signature: device.sign(bytes).unwrap(),
            signer: Some(wire::wire_signer(signer)),
        };
        let event = Event::VersionSealed {
            version: VersionId {
                credential: line.credential,
                version: line.version,
            },
            manifest: line.manifest,
            maker: Maker::Deposit(charter.persons[0].id),
            signature: Seal {
                signer,
                signature: sign(&manifest).signature,
            },
        };
        let definition = definition.to_bytes().unwrap();
        let sealed = v1::SealedVersion {
            definition: Some(v1::SignedDocument {
                signature: Some(sign(&definition)),
                document: definition,
                ceremony: String::new(),
            }),
            manifest: Some(v1::SignedDocument {
                signature: Some(sign(&manifest)),
                document: manifest,
                ceremony: String::new(),
            }),
            ciphertext,
            envelopes,
            sealed: Some(logged(&log, &event)),
            ..v1::SealedVersion::default()
        };
        Case {
            chain,
            log,
            line,
            sealed,
        }
    }

    pub(crate) fn logged(log: &LogKey, event: &Event) -> v1::Receipt {
        let entry = Entry {
            n: 0,
            time: "2026-11-21T02:17:00.123Z".to_owned(),
            charter: 1,
            actor: "keyturnd".to_owned(),
            kind: event.kind().to_owned(),
            body: event.body(),
        };
        let entry = entry.encode().unwrap();
        let batch = Edge::new().append([&entry]).unwrap();
        let signed = log.sign(1, batch.edge().root()).unwrap();
        let proof = Receipt::new(0, batch.inclusion(0).unwrap(), &signed);
        v1::Receipt {
            n: 0,
            entry,
            tlog_proof: proof.to_string(),
        }
    }

    /// What somebody changes on the way.
    type Change<'a> = &'a dyn Fn(&mut Case);

    /// What a custodian's client makes of it.
    fn verify(case: &Case) -> Result<Sealed, VerifyError> {
        let manifest = manifest(&case.chain, &case.line, &case.sealed)?;
        let definition = case.sealed.definition.clone().unwrap_or_default().document;
        let in_force = Definition::from_bytes(&definition)
            .map_err(|source| VerifyError::Document("a definition", source))?;
        check(
            &case.chain,
            case.log.vkey(),
            &case.line,
            manifest,
            (&definition, in_force),
            case.sealed.clone(),
        )
    }

    #[test]
    fn no_share_is_opened_for_anything_but_the_version_that_is_asked_for() {
        let whole = verify(&case()).unwrap();
        let group = whole.asked(None).clone();
        for holder in &whole.manifest.group(&group).unwrap().holders {
            assert!(whole.share_of(&group, holder.person).unwrap().1.is_some());
        }
        let other = case();
        let changes: [(&str, Change<'_>); 12] = [
            ("another manifest", &|case| {
                case.sealed.manifest = other.sealed.manifest.clone();
            }),
            ("the line names another manifest", &|case| {
                case.line.manifest = other.line.manifest;
            }),
            ("the line names another version", &|case| {
                case.line.version = Version::FIRST.next();
            }),
            ("the line names another path", &|case| {
                case.line.path = "some/other".parse().unwrap();
            }),
            ("no manifest", &|case| case.sealed.manifest = None),
            ("an unsigned manifest", &|case| {
                case.sealed.manifest.as_mut().unwrap().signature = None;
            }),
            ("a signature of another key", &|case| {
                case.sealed.manifest.as_mut().unwrap().signature =
                    other.sealed.manifest.as_ref().unwrap().signature.clone();
            }),
            ("another definition", &|case| {
                case.sealed.definition.as_mut().unwrap().document.push(b' ');
            }),
            ("another charter", &|case| case.chain = other.chain.clone()),
            ("an entry of another log", &|case| {
                case.sealed.sealed = other.sealed.sealed.clone();
            }),
            ("an entry about something else", &|case| {
                case.sealed.sealed = Some(logged(&case.log, &Event::Alive {}));
            }),
            ("no entry", &|case| case.sealed.sealed = None),
        ];
        for (name, change) in changes {
            let mut case = case();
            change(&mut case);
            assert!(verify(&case).is_err(), "{name}");
        }
    }

    #[test]
    fn an_envelope_that_was_not_sealed_is_nobodys() {
        let (mut case, other) = (case(), case());
        case.sealed.envelopes = other.sealed.envelopes;
        let sealed = verify(&case).unwrap();
        let group = sealed.asked(None).clone();
        for holder in &sealed.manifest.group(&group).unwrap().holders {
            assert!(sealed.share_of(&group, holder.person).unwrap().1.is_none());
        }
    }
}
