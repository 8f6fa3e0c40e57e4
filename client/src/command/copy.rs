//! A folder with sealed versions, from an export or any other copy.

use std::{
    io,
    path::{Path, PathBuf},
};

use keyturn_vault::{
    charter::Chain,
    digest::Digest,
    id::{CredentialId, GroupName, PersonId},
    jcs::Document as _,
    layout::{Place, SealedVersion},
    manifest::Holder,
    name::CredentialPath,
    reference::Version,
};

use super::export::{About, VAULT_FILE};
use crate::{
    causes::told,
    home::{Home, HomeError, read_file},
    refusal::Refusal,
    verify::{self, VerifyError},
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
        SealedVersion::read(id, version, read)
            .map_err(|error| Refusal::new("verification", told(&error), "use another copy"))
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
