//! A copy that somebody brings: a backup or a place for copies, verified whole before it counts.
//!
//! # Invariants
//! 1. Nothing of it is believed: the tree leads to its checkpoint, the checkpoint is signed by the key that
//!    the chain of charters ends with, and the chain begins with the digest that the operator has.
//! 2. A sealed value is the one that its manifest lists, and its manifest is in the log, or was signed by
//!    somebody whom a charter of the chain names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use keyturn_audit::{
    note::Vkey,
    publish::{Dir, Disk as _, Os},
    tree::Edge,
    verify::{Anchors, VerifyError, checkpoint, entries, object},
};
use keyturn_vault::{
    charter::{Chain, Charter},
    digest::Digest,
    id::CredentialId,
    jcs::Document as _,
    layout::{self, Part, Place, SealedVersion},
    restore::RestoreDocument,
    world::VersionId,
};

use super::{
    MAX_FOUND, RestoreError,
    fold::{Fold, Folded},
};
use crate::{telemetry::whole, verify};

/// A folder with a copy.
pub(super) struct Source {
    root: PathBuf,
    dir: Dir,
    genesis: Digest,
    vkey: Vkey,
}

/// What the log of a copy holds.
pub(super) struct Read {
    /// The rows that follow from it.
    pub(super) folded: Folded,
    /// Its right edge.
    pub(super) edge: Edge,
    /// What the rules find against it.
    pub(super) findings: Vec<String>,
}

impl Source {
    /// Finds the key of the log in the charters and restores that lie there.
    pub(super) fn open(root: &Path, genesis: Digest) -> Result<Self, RestoreError> {
        let dir = Dir::new(root);
        let listed = root.is_dir();
        if !listed {
            return Err(RestoreError::Away(root.to_owned()));
        }
        let first = object(&dir, &genesis.0).map_err(|_| RestoreError::Genesis)?;
        let first = Charter::from_bytes(&first).map_err(|_| RestoreError::Genesis)?;
        let mut keys = BTreeSet::from([first.log_key.to_string()]);
        for (_, bytes) in documents(root)? {
            if let Ok(charter) = Charter::from_bytes(&bytes) {
                keys.insert(charter.log_key.to_string());
            } else if let Ok(restore) = RestoreDocument::from_bytes(&bytes) {
                keys.extend(restore.log_key.map(|key| key.to_string()));
            }
        }
        let keys = keys.iter().filter_map(|key| key.parse::<Vkey>().ok());
        let mut last = None;
        for vkey in keys.filter(|key| key.name() == first.origin.as_str()) {
            match checkpoint(&dir, &vkey) {
                Ok(_) => {
                    return Ok(Self {
                        root: root.to_owned(),
                        dir,
                        genesis,
                        vkey,
                    });
                }
                Err(error) => last = Some(whole(&error)),
            }
        }
        Err(RestoreError::Log(last.unwrap_or_else(|| {
            "no charter in it names a log key".to_owned()
        })))
    }

    /// Verifies the log and folds it (invariant 1); hands on each entry.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(u64, Vec<u8>) -> Result<(), RestoreError>,
    ) -> Result<Read, RestoreError> {
        let mut fold = Fold::new(&self.dir, self.genesis);
        let anchors = Anchors {
            log: &self.vkey,
            saved: &[],
            threads: 2,
        };
        let verified = entries(&self.dir, &anchors, |entry| {
            let bytes = entry.encode().map_err(|_| RestoreError::Entry(entry.n))?;
            fold.entry(&entry)?;
            each(entry.n, bytes)
        });
        let verified = verified.map_err(|error| {
            if let VerifyError::Refused { source, .. } = error {
                source
            } else {
                RestoreError::Log(whole(&error))
            }
        })?;
        keyturn_audit::verify::objects(&self.dir)
            .map_err(|error| RestoreError::Log(whole(&error)))?;
        let findings = std::mem::take(&mut fold.findings);
        let folded = fold.finish()?;
        let key = folded
            .replay
            .charter()
            .map(|(_, charter)| charter.log_key.to_string());
        if key != Some(self.vkey.to_string()) {
            return Err(RestoreError::Log(
                "its checkpoint is not signed by the key that its charter names".to_owned(),
            ));
        }
        Ok(Read {
            folded,
            edge: verified.edge,
            findings,
        })
    }

    /// All documents, each with the digest that its name says.
    pub(super) fn documents(&self) -> Result<BTreeMap<Digest, Vec<u8>>, RestoreError> {
        Ok(documents(&self.root)?.into_iter().collect())
    }

    /// A sealed value, checked against its manifest (invariant 2).
    pub(super) fn version(&self, version: VersionId) -> Result<SealedVersion, String> {
        read_version(&self.root, version)
    }
}

/// A sealed value of a place, checked against its manifest.
pub(crate) fn read_version(root: &Path, version: VersionId) -> Result<SealedVersion, String> {
    let read = |place: &Place, limit| crate::copies::sink::read(root, place, limit);
    SealedVersion::read(version.credential, version.version, read).map_err(|error| whole(&error))
}

/// What of a place is not in the log.
#[derive(Default)]
pub(crate) struct Found {
    /// Versions that can be taken back, with the digests of their manifests.
    pub(crate) versions: BTreeMap<VersionId, Digest>,
    /// What stays where it is, and why, for people.
    pub(crate) left: Vec<String>,
}

impl Found {
    /// Adds what another place has; what is more than one restore takes back stays there, and is told.
    pub(crate) fn join(&mut self, place: &str, other: Self) {
        for (version, digest) in other.versions {
            if self.versions.len() < MAX_FOUND || self.versions.contains_key(&version) {
                let known = *self.versions.entry(version).or_insert(digest);
                if known != digest {
                    let told = format!("{place}: {version} is another one than elsewhere");
                    self.left.push(told);
                }
            } else {
                let told = format!("{place}: {version} is more than one restore takes back");
                self.left.push(told);
            }
        }
        let left = other.left.into_iter();
        self.left
            .extend(left.map(|what| format!("{place}: {what}")));
    }
}

/// What a place has beside the log. A version is taken back if it is of a credential of the log, and if
/// somebody whom a charter names has sealed it, to a charter of the chain (invariant 2).
pub(crate) fn found(
    root: &Path,
    chain: &Chain,
    known: impl Fn(VersionId) -> bool,
    credential: impl Fn(CredentialId) -> bool,
) -> Found {
    let mut found = Found::default();
    let listed = match listed(root) {
        Ok(listed) => listed,
        Err(error) => {
            found.left.push(format!("it cannot be looked at: {error}"));
            return found;
        }
    };
    for version in listed.into_iter().filter(|version| !known(*version)) {
        let sealed = read_version(root, version).and_then(|sealed| {
            let digest = sealed_by(chain, &sealed)?;
            if credential(version.credential) {
                Ok(digest)
            } else {
                let path = &sealed.definition.path;
                Err(format!("there is no credential {path} that can be used"))
            }
        });
        match sealed {
            Ok(digest) => drop(found.versions.insert(version, digest)),
            Err(why) => found
                .left
                .push(format!("{version} is not taken back: {why}")),
        }
    }
    found
}

/// The digest of a manifest that somebody whom a charter names has signed.
fn sealed_by(chain: &Chain, sealed: &SealedVersion) -> Result<Digest, String> {
    let manifest = &sealed.manifest;
    let bytes = manifest.to_bytes().map_err(|error| whole(&error))?;
    let signed = chain.meant(manifest.charter).any(|charter| {
        let (signer, signature) = (sealed.signature.signer, &sealed.signature.signature);
        manifest.validate(&sealed.definition, charter).is_ok()
            && verify::document(charter, &bytes, signer, signature.clone()).is_ok()
    });
    if signed {
        Ok(Digest::of(&bytes))
    } else {
        Err("nobody whom a charter names has sealed it".to_owned())
    }
}

/// The versions that are whole in a place; none in an empty one.
fn listed(root: &Path) -> io::Result<BTreeSet<VersionId>> {
    let credentials = root.join("credentials");
    let mut paths = Vec::new();
    if !names(root)?.iter().any(|name| name == "credentials") {
        return Ok(BTreeSet::new());
    }
    for credential in names(&credentials)? {
        for version in names(&credentials.join(&credential)).unwrap_or_default() {
            paths.push(format!(
                "credentials/{credential}/{version}/{}",
                Part::Manifest
            ));
        }
    }
    let there = paths
        .iter()
        .map(String::as_str)
        .filter(|path| root.join(path).is_file());
    let versions = layout::versions(there).into_iter();
    Ok(versions
        .map(|(credential, version)| VersionId {
            credential,
            version,
        })
        .collect())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let listed = fs::read_dir(folder)?;
    Ok(listed
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

fn documents(root: &Path) -> Result<Vec<(Digest, Vec<u8>)>, RestoreError> {
    let folder = root.join("objects");
    let failed = |path: &Path, source| RestoreError::File {
        path: path.to_owned(),
        source,
    };
    let names = names(&folder).map_err(|source| failed(&folder, source))?;
    let mut documents = Vec::new();
    for name in names {
        let Ok(digest) = name.parse::<Digest>() else {
            continue;
        };
        let path = folder.join(&name);
        let bytes = Os
            .read(&path, keyturn_audit::publish::MAX_OBJECT_BYTES)
            .map_err(|source| failed(&path, source))?;
        if Digest::of(&bytes) != digest {
            return Err(RestoreError::Log(format!(
                "objects/{name} is not what its name says"
            )));
        }
        documents.push((digest, bytes));
    }
    Ok(documents)
}
