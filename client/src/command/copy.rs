//! A folder with sealed versions, from an export or any other copy.

use std::{
    io,
    path::{Path, PathBuf},
};

use keyturn_audit::entry::Entry;
use keyturn_proto::v1;
use keyturn_vault::{
    charter::Chain,
    digest::Digest,
    event::Event,
    id::{CredentialId, GroupName, PersonId},
    jcs::Document as _,
    layout::{Place, SealedVersion},
    manifest::Holder,
    name::CredentialPath,
    reference::Version,
    world::VersionId,
};

use super::export::{About, VAULT_FILE, proof_files};
use crate::{
    causes::told,
    home::{Home, HomeError, read_file},
    refusal::Refusal,
    verify::{self, VerifyError, log},
};

/// The folder.
pub struct Copy {
    dir: PathBuf,
}

impl Copy {
    /// The copy in this folder.
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Adds the charters that follow the known ones, by structure alone; gives how many there were.
    pub fn extend(&self, chain: &mut Chain) -> Result<usize, Refusal> {
        let Some(about) = Home::at(&self.dir).read_json::<About>(VAULT_FILE)? else {
            return Ok(0);
        };
        if about.charters.first().copied() != chain.genesis() {
            return Err(Refusal::new(
                "verification",
                "this copy is of another vault",
                "use the copy of the vault that this home has joined",
            ));
        }
        let mut added = 0_usize;
        let known = chain.newest().map_or(0, |(newest, _)| newest.index);
        for digest in about
            .charters
            .iter()
            .skip(usize::try_from(known).unwrap_or(usize::MAX))
        {
            verify::charter::push(chain, &self.object(*digest)?)?;
            added = added.saturating_add(1);
        }
        Ok(added)
    }

    fn object(&self, digest: Digest) -> Result<Vec<u8>, Refusal> {
        let place = Place::Object(digest);
        let bytes = read_file(&self.dir.join(place.to_string()), 1 << 20)?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest);
        Ok(bytes.ok_or_else(|| VerifyError::Other {
            what: place.to_string(),
            by: "its name",
        })?)
    }

    /// A version of a credential; the newest when none is named.
    pub fn version(
        &self,
        path: &CredentialPath,
        version: Option<Version>,
    ) -> Result<SealedVersion, Refusal> {
        let none = || {
            Refusal::new(
                "not-found",
                format_args!("{path} is not in {}", self.dir.display()),
                "use a copy that has it; `path.txt` beside each says what it is",
            )
        };
        let id = self.credential(path).ok_or_else(none)?;
        let names = Home::at(&self.dir).names(&format!("credentials/{id}"));
        let newest = names
            .iter()
            .filter_map(|name| name.parse::<Version>().ok())
            .max();
        let version = version.or(newest).ok_or_else(none)?;
        let read = |place: &Place, max: usize| {
            let max = u64::try_from(max).unwrap_or(u64::MAX);
            let path = self.dir.join(place.to_string());
            let missing = || HomeError::Io {
                verb: "read",
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            };
            read_file(&path, max)?.ok_or_else(missing)
        };
        let sealed = SealedVersion::read(id, version, read)
            .map_err(|error| Refusal::new("verification", told(&error), "use another copy"))?;
        // Which folder is whose, nobody has signed.
        if sealed.definition.path != *path {
            return Err(VerifyError::Other {
                what: format!("the path {path}"),
                by: "its definition",
            }
            .into());
        }
        Ok(sealed)
    }

    /// Whether the copy shows that the log has this version; a proof of something else is refused.
    pub fn proven(&self, chain: &Chain, version: &SealedVersion) -> Result<bool, Refusal> {
        let manifest = &version.manifest;
        let home = Home::at(&self.dir);
        let [entry, proof] = proof_files(manifest.credential, manifest.version);
        let Some((entry, proof)) = home.read(&entry)?.zip(home.read(&proof)?) else {
            return Ok(false);
        };
        let other = || VerifyError::Other {
            what: format!("{} {}", version.definition.path, manifest.version),
            by: "its entry in the log",
        };
        let receipt = v1::Receipt {
            n: Entry::decode(&entry).map_err(|_| other())?.n,
            entry,
            tlog_proof: String::from_utf8(proof).map_err(|_| other())?,
        };
        let named = VersionId {
            credential: manifest.credential,
            version: manifest.version,
        };
        let digest = manifest
            .to_bytes()
            .map(|bytes| Digest::of(&bytes))
            .map_err(|source| VerifyError::Document("a manifest", source))?;
        // A restore may have replaced the key of the log.
        let mut keys = chain.all().map(|charter| &charter.log_key);
        let shown = keys.any(|key| {
            let proven = log::vkey(key).and_then(|key| log::receipt(Some(receipt.clone()), &key));
            proven.is_ok_and(|proven| {
                matches!(
                    proven.event,
                    Event::VersionSealed { version, manifest, .. } | Event::VersionRecovered { version, manifest, .. }
                        if (version, manifest) == (named, digest)
                )
            })
        });
        shown.then_some(true).ok_or_else(|| other().into())
    }

    fn credential(&self, path: &CredentialPath) -> Option<CredentialId> {
        let home = Home::at(&self.dir);
        let ids = home
            .names("credentials")
            .into_iter()
            .filter_map(|name| name.parse::<CredentialId>().ok());
        let named = |id: &CredentialId| {
            let text = home.read(&Place::Path(*id).to_string()).ok().flatten();
            text.is_some_and(|text| {
                text.strip_suffix(b"\n").unwrap_or(&text) == path.as_str().as_bytes()
            })
        };
        ids.into_iter().find(named)
    }

    /// Checks who signed the manifest, and that its roster is the charter's.
    pub fn verify(&self, chain: &Chain, version: &SealedVersion) -> Result<(), Refusal> {
        let what = format!("{} {}", version.definition.path, version.manifest.version);
        let other = || VerifyError::Other {
            what: "the charter".to_owned(),
            by: "the manifest",
        };
        let charter = chain.find(&version.manifest.charter).ok_or_else(other)?;
        let bytes = version
            .manifest
            .to_bytes()
            .map_err(|source| VerifyError::Document("a manifest", source))?;
        verify::signature(
            charter,
            version.signature.signer,
            &bytes,
            &version.signature.signature,
            &what,
        )?;
        version
            .manifest
            .validate(&version.definition, charter)
            .map_err(|source| VerifyError::Manifest(what, source))?;
        Ok(())
    }
}

/// Finds a custodian's share and envelope in a version.
pub trait ShareOf {
    /// The share with its envelope.
    fn share_of(&self, group: &GroupName, person: PersonId) -> Option<(&Holder, &[u8])>;
}

impl ShareOf for SealedVersion {
    fn share_of(&self, group: &GroupName, person: PersonId) -> Option<(&Holder, &[u8])> {
        let holder = self.manifest.group(group)?.holder(person)?;
        let envelope = self
            .envelopes
            .iter()
            .find(|envelope| Digest::of(envelope) == holder.envelope)?;
        Some((holder, envelope))
    }
}
