//! The `recover` format: sealed versions and documents as files that need no daemon.
//!
//! A place for copies, an export and a backup hold the same tree, so whoever has any of them and a
//! quorum opens what is in it, with this program or by hand (`README.txt` says how):
//!
//! ```text
//! README.txt                                  docs/RECOVERY.md
//! objects/SHA256                              charters, definitions, manifests, attestations
//! credentials/ID/path.txt                     aws/123456789012/root
//! credentials/ID/v7/payload.age               the secret
//! credentials/ID/v7/GROUP-xX-PERSON.age       one share
//! credentials/ID/v7/definition.json           what it is
//! credentials/ID/v7/manifest.sig.json         who signed the manifest
//! credentials/ID/v7/manifest.json             the list of digests that fixes the others
//! ```
//!
//! # Invariants
//! 1. Every file but `README.txt` is written once: its name fixes its bytes, or the manifest does.
//! 2. The manifest is the last file of a version: a folder that has one is whole.
//! 3. A version that is read is the manifest's, byte for byte, and lies where the manifest says.
//! 4. A name leads to one [`Place`], and no place's name leads out of the tree.

use std::{collections::BTreeSet, fmt};

use thiserror::Error;

use crate::definition::{Definition, MAX_DEFINITION_BYTES};
use crate::digest::Digest;
use crate::event::Seal;
use crate::id::{CredentialId, GroupName, PersonId};
use crate::jcs::{self, Document as _, JcsError};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::reference::Version;

/// The largest sealed secret, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 80 * 1024;
/// The largest envelope, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 8 * 1024;
/// The largest signature file, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 512;
/// The page that says how to open a version by hand.
pub const README: &str = include_str!("../../docs/RECOVERY.md");

/// One file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub place: Place,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl File {
    /// The page that says how to open a version by hand.
    pub fn readme() -> Self {
        let bytes = README.as_bytes().to_vec();
        Self {
            place: Place::Readme,
            bytes,
        }
    }

    /// A document under its digest.
    pub fn object(bytes: Vec<u8>) -> Self {
        Self {
            place: Place::Object(Digest::of(&bytes)),
            bytes,
        }
    }
}

/// Where a file is; `Display` gives the path in the tree, with `/` between its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `README.txt`.
    Readme,
    /// `objects/SHA256`.
    Object(Digest),
    /// `credentials/ID/path.txt`.
    Path(CredentialId),
    /// A file of a version.
    Version(CredentialId, Version, Part),
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `payload.age`.
    Payload,
    /// `GROUP-xX-PERSON.age`.
    Envelope {
        /// The group.
        group: GroupName,
        /// The custodian's x.
        x: u8,
        /// The custodian.
        person: PersonId,
    },
    /// `definition.json`.
    Definition,
    /// `manifest.sig.json`.
    Signature,
    /// `manifest.json`.
    Manifest,
}

impl Part {
    /// The most bytes that such a file has.
    pub const fn max_bytes(&self) -> usize {
        match self {
            Self::Payload => MAX_PAYLOAD_BYTES,
            Self::Envelope { .. } => MAX_ENVELOPE_BYTES,
            Self::Definition => MAX_DEFINITION_BYTES,
            Self::Signature => MAX_SIGNATURE_BYTES,
            Self::Manifest => MAX_MANIFEST_BYTES,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "payload.age" => Some(Self::Payload),
            "definition.json" => Some(Self::Definition),
            "manifest.sig.json" => Some(Self::Signature),
            "manifest.json" => Some(Self::Manifest),
            _ => {
                // A group's name may have `-` in it; the other two parts have none.
                let mut parts = name.strip_suffix(".age")?.rsplitn(3, '-');
                let person = parts.next()?.parse().ok()?;
                let x = parts.next()?.strip_prefix('x')?.parse().ok()?;
                let group = parts.next()?.parse().ok()?;
                Some(Self::Envelope { group, x, person })
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload => f.write_str("payload.age"),
            Self::Envelope { group, x, person } => write!(f, "{group}-x{x}-{person}.age"),
            Self::Definition => f.write_str("definition.json"),
            Self::Signature => f.write_str("manifest.sig.json"),
            Self::Manifest => f.write_str("manifest.json"),
        }
    }
}

impl Place {
    /// The place of this path; `None` for a file that does not belong to the tree.
    pub fn parse(path: &str) -> Option<Self> {
        let place = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["README.txt"] => Self::Readme,
            ["objects", digest] => Self::Object(digest.parse().ok()?),
            ["credentials", id, "path.txt"] => Self::Path(id.parse().ok()?),
            ["credentials", id, version, part] => {
                let number = version.strip_prefix('v')?.parse().ok()?;
                let version = Version::new(number)?;
                Self::Version(id.parse().ok()?, version, Part::parse(part)?)
            }
            _ => return None,
        };
        // Other spellings of a number lead nowhere (invariant 4).
        (place.to_string() == path).then_some(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Readme => f.write_str("README.txt"),
            Self::Object(digest) => write!(f, "objects/{digest}"),
            Self::Path(credential) => write!(f, "credentials/{credential}/path.txt"),
            Self::Version(credential, version, part) => {
                let version = version.number();
                write!(f, "credentials/{credential}/v{version}/{part}")
            }
        }
    }
}

/// The versions that are whole in a listing of paths (invariant 2).
pub fn versions<'a>(
    listing: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<(CredentialId, Version)> {
    listing
        .into_iter()
        .filter_map(|path| match Place::parse(path)? {
            Place::Version(credential, version, Part::Manifest) => Some((credential, version)),
            Place::Version(..) | Place::Readme | Place::Object(_) | Place::Path(_) => None,
        })
        .collect()
}

/// A version with everything that opening it takes, but the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedVersion {
    /// What it is.
    pub definition: Definition,
    /// What it consists of.
    pub manifest: Manifest,
    /// Who signed the manifest.
    pub signature: Seal,
    /// The age file with the secret.
    pub payload: Vec<u8>,
    /// The age files with the shares, in the manifest's order.
    pub envelopes: Vec<Vec<u8>>,
}

/// Why files are not a version, or a version has no files. Whether its signature is good and its
/// roster the charter's is for whoever uses it to check.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayoutError<E: std::error::Error + 'static> {
    /// A file cannot be read.
    #[error("cannot read {place}")]
    Read {
        /// Which.
        place: Place,
        /// Why.
        source: E,
    },
    /// A file is longer than it can be.
    #[error("{place} is longer than such a file can be; it is damaged or something else")]
    TooLong {
        /// Which.
        place: Place,
    },
    /// A document cannot be read or written.
    #[error("{place} is not the document that it should be")]
    Document {
        /// Which.
        place: Place,
        /// Why.
        source: JcsError,
    },
    /// The manifest is of another credential or version than its folder.
    #[error("{place} is the manifest of another version; use an untouched copy")]
    Elsewhere {
        /// Which.
        place: Place,
    },
    /// Not the file whose digest the manifest lists.
    #[error("{place} is not the file that the manifest lists; use an untouched copy")]
    Altered {
        /// Which.
        place: Place,
    },
}

/// A version cannot be read from nowhere.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Never {}

impl SealedVersion {
    /// All its files, those of its credential and its documents included; in this order they are to
    /// be written (invariant 2).
    pub fn files(&self) -> Result<Vec<File>, LayoutError<Never>> {
        self.verify()?;
        let (credential, version) = (self.manifest.credential, self.manifest.version);
        let place = |part| Place::Version(credential, version, part);
        let document = |part: Part, bytes: Result<Vec<u8>, JcsError>| {
            bytes
                .map_err(|source| LayoutError::Document {
                    place: place(part.clone()),
                    source,
                })
                .map(|bytes| (place(part), bytes))
        };
        let signature = jcs::encode(&self.signature, MAX_SIGNATURE_BYTES);
        let definition = document(Part::Definition, self.definition.to_bytes())?;
        let signature = document(Part::Signature, signature)?;
        let manifest = document(Part::Manifest, self.manifest.to_bytes())?;
        let path = format!("{}\n", self.definition.path).into_bytes();
        let mut files = vec![
            (Place::Path(credential), path),
            (place(Part::Payload), self.payload.clone()),
        ];
        let envelopes = parts(&self.manifest).zip(&self.envelopes);
        files.extend(envelopes.map(|((part, _), bytes)| (place(part), bytes.clone())));
        let objects = [&definition, &manifest].map(|(_, bytes)| File::object(bytes.clone()));
        files.extend([definition, signature]);
        let files = files.into_iter();
        Ok(files
            .map(|(place, bytes)| File { place, bytes })
            .chain(objects)
            .chain([File {
                place: manifest.0,
                bytes: manifest.1,
            }])
            .collect())
    }

    /// Reads a version with `read`, which gives the bytes of a file of at most so many bytes.
    /// Other files in its folder are not looked at.
    pub fn read<E: std::error::Error + 'static>(
        credential: CredentialId,
        version: Version,
        mut read: impl FnMut(&Place, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, LayoutError<E>> {
        let mut read = |part: Part| {
            let max = part.max_bytes();
            let place = Place::Version(credential, version, part);
            match read(&place, max) {
                Ok(bytes) if bytes.len() <= max => Ok((place, bytes)),
                Ok(_) => Err(LayoutError::TooLong { place }),
                Err(source) => Err(LayoutError::Read { place, source }),
            }
        };
        let (place, bytes) = read(Part::Manifest)?;
        let manifest = match Manifest::from_bytes(&bytes) {
            Ok(manifest) => manifest,
            Err(source) => return Err(LayoutError::Document { place, source }),
        };
        if (manifest.credential, manifest.version) != (credential, version) {
            return Err(LayoutError::Elsewhere { place });
        }
        let (place, bytes) = read(Part::Signature)?;
        let signature = jcs::decode(&bytes, MAX_SIGNATURE_BYTES)
            .map_err(|source| LayoutError::Document { place, source })?;
        let (place, bytes) = read(Part::Definition)?;
        let definition = Definition::from_bytes(&bytes)
            .map_err(|source| LayoutError::Document { place, source })?;
        let (_, payload) = read(Part::Payload)?;
        let envelopes = parts(&manifest)
            .map(|(part, _)| read(part).map(|(_, bytes)| bytes))
            .collect::<Result<_, _>>()?;
        let sealed = Self {
            definition,
            manifest,
            signature,
            payload,
            envelopes,
        };
        sealed.verify()?;
        Ok(sealed)
    }

    /// Is every part the one that the manifest lists?
    fn verify<E: std::error::Error + 'static>(&self) -> Result<(), LayoutError<E>> {
        let manifest = &self.manifest;
        let altered = |part| LayoutError::Altered {
            place: Place::Version(manifest.credential, manifest.version, part),
        };
        let named = (&self.definition.origin, self.definition.credential);
        let definition = self.definition.to_bytes().map(|bytes| Digest::of(&bytes));
        if named != (&manifest.origin, manifest.credential)
            || !matches!(definition, Ok(digest) if digest == manifest.definition)
        {
            return Err(altered(Part::Definition));
        }
        if Digest::of(&self.payload) != manifest.ciphertext {
            return Err(altered(Part::Payload));
        }
        let mut given = self.envelopes.iter();
        for (part, listed) in parts(manifest) {
            if given.next().map(|bytes| Digest::of(bytes)) != Some(listed) {
                return Err(altered(part));
            }
        }
        match given.next() {
            Some(_) => Err(altered(Part::Manifest)),
            None => Ok(()),
        }
    }
}

/// The envelopes that a manifest lists, with their digests.
pub fn parts(manifest: &Manifest) -> impl Iterator<Item = (Part, Digest)> {
    manifest.groups.iter().flat_map(|group| {
        group.holders.iter().map(|holder| {
            let part = Part::Envelope {
                group: group.group.clone(),
                x: holder.x,
                person: holder.person,
            };
            (part, holder.envelope)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TokenId;
    use crate::reference::Signer;
    use std::collections::BTreeMap;

    type Change = fn(&mut SealedVersion);
    type Tree = BTreeMap<String, Vec<u8>>;

    #[derive(Debug, Error)]
    #[error("there is no such file")]
    struct Missing;

    /// The golden manifest, with digests of envelopes that are there.
    fn sealed() -> SealedVersion {
        let definition = include_bytes!("../testdata/valid/definition.aws.json");
        let manifest = include_bytes!("../testdata/valid/manifest.aws.json");
        let definition = Definition::from_bytes(definition).unwrap();
        let mut manifest = Manifest::from_bytes(manifest).unwrap();
        let payload = b"a sealed secret".to_vec();
        manifest.ciphertext = Digest::of(&payload);
        manifest.definition = Digest::of(&definition.to_bytes().unwrap());
        let mut envelopes = Vec::new();
        for holder in manifest.groups.iter_mut().flat_map(|g| &mut g.holders) {
            let envelope = format!("envelope {}", holder.x).into_bytes();
            holder.envelope = Digest::of(&envelope);
            envelopes.push(envelope);
        }
        let signature = Seal {
            signer: Signer::Token(TokenId::from_bytes([7; 16])),
            signature: vec![0x30; 70],
        };
        SealedVersion {
            definition,
            manifest,
            signature,
            payload,
            envelopes,
        }
    }

    fn tree(sealed: &SealedVersion) -> Tree {
        let files = sealed.files().unwrap().into_iter();
        files
            .map(|file| (file.place.to_string(), file.bytes))
            .collect()
    }

    fn read(sealed: &SealedVersion, tree: &Tree) -> Result<SealedVersion, LayoutError<Missing>> {
        let manifest = &sealed.manifest;
        SealedVersion::read(manifest.credential, manifest.version, |place, _| {
            tree.get(&place.to_string()).cloned().ok_or(Missing)
        })
    }

    #[test]
    fn a_version_is_read_as_it_was_written() {
        let sealed = sealed();
        let mut tree = tree(&sealed);
        tree.insert(
            "credentials/01M7XXW767R9ZVQGFC0SD2CTJQ/v7/notes.txt".into(),
            b"mine".into(),
        );
        assert_eq!(read(&sealed, &tree).unwrap(), sealed);
        let listed = versions(tree.keys().map(String::as_str));
        let (credential, version) = (sealed.manifest.credential, sealed.manifest.version);
        assert_eq!(listed, BTreeSet::from([(credential, version)]));
        let path = format!("credentials/{credential}/path.txt");
        assert_eq!(tree[&path], b"aws/123456789012/root\n");
    }

    /// Invariant 2.
    #[test]
    fn the_manifest_is_written_last_and_without_it_nothing_is_listed() {
        let files = sealed().files().unwrap();
        let (last, others) = files.split_last().unwrap();
        assert!(matches!(last.place, Place::Version(_, _, Part::Manifest)));
        let others: Vec<_> = others.iter().map(|file| file.place.to_string()).collect();
        assert!(versions(others.iter().map(String::as_str)).is_empty());
    }

    /// Invariant 3: each file, away or with one byte changed.
    #[test]
    fn what_is_not_the_manifests_is_refused() {
        let sealed = sealed();
        let whole = tree(&sealed);
        let folder = "credentials/01M7XXW767R9ZVQGFC0SD2CTJQ/v7/";
        let of_version: Vec<_> = whole.keys().filter(|p| p.starts_with(folder)).collect();
        assert_eq!(of_version.len(), 7);
        for path in of_version {
            let (mut without, mut altered) = (whole.clone(), whole.clone());
            without.remove(path);
            let error = read(&sealed, &without).unwrap_err();
            assert!(matches!(error, LayoutError::Read { .. }), "{path}: {error}");
            *altered.get_mut(path).unwrap().last_mut().unwrap() ^= 1;
            let error = read(&sealed, &altered).unwrap_err();
            assert!(error.to_string().contains(path), "{path}: {error}");
            let mut long = whole.clone();
            long.get_mut(path).unwrap().resize(100_000, b' ');
            let error = read(&sealed, &long).unwrap_err();
            assert!(
                matches!(error, LayoutError::TooLong { .. }),
                "{path}: {error}"
            );
        }
        let mut moved = Tree::new();
        for (path, bytes) in &whole {
            moved.insert(path.replace("/v7/", "/v8/"), bytes.clone());
        }
        let eighth = Version::new(8).unwrap();
        let error = SealedVersion::read(sealed.manifest.credential, eighth, |place, _| {
            moved.get(&place.to_string()).cloned().ok_or(Missing)
        });
        assert!(matches!(error, Err(LayoutError::Elsewhere { .. })));
    }

    #[test]
    fn a_version_whose_parts_do_not_fit_has_no_files() {
        let changes: [(&str, Change); 5] = [
            ("the payload", |v| v.payload.push(0)),
            ("an envelope", |v| v.envelopes[1].push(0)),
            ("one less", |v| drop(v.envelopes.pop())),
            ("one more", |v| v.envelopes.push(vec![1])),
            ("the definition", |v| v.definition.canary = true),
        ];
        for (name, change) in changes {
            let mut sealed = sealed();
            change(&mut sealed);
            assert!(
                matches!(sealed.files(), Err(LayoutError::Altered { .. })),
                "{name}"
            );
        }
    }

    /// Invariant 4.
    #[test]
    fn a_path_is_one_place_or_none() {
        for path in tree(&sealed()).keys() {
            assert_eq!(Place::parse(path).unwrap().to_string(), *path);
        }
        let id = "01M7XXW767R9ZVQGFC0SD2CTJQ";
        let digest = "0".repeat(64);
        for (path, is_place) in [
            ("README.txt".to_owned(), true),
            (format!("objects/{digest}"), true),
            (
                format!("credentials/{id}/v7/aws-root-ops-x12-{id}.age"),
                true,
            ),
            (String::new(), false),
            ("/README.txt".into(), false),
            (format!("objects/{}", digest.replace('0', "A")), false),
            (format!("objects/../{digest}"), false),
            (format!("credentials/{}/path.txt", id.to_lowercase()), false),
            (format!("credentials/{id}/v07/payload.age"), false),
            (format!("credentials/{id}/v0/payload.age"), false),
            (format!("credentials/{id}/v7/payload.age/"), false),
            (format!("credentials/{id}/v7/ops-x012-{id}.age"), false),
            (format!("credentials/{id}/v7/..-x1-{id}.age"), false),
            (format!("credentials/{id}/v7/ops-1-{id}.age"), false),
            (format!("credentials/{id}/v7/{id}.age"), false),
        ] {
            assert_eq!(Place::parse(&path).is_some(), is_place, "{path}");
        }
    }

    #[test]
    fn the_page_for_people_names_the_files() {
        for name in [
            "payload.age",
            "manifest.json",
            "manifest.sig.json",
            "definition.json",
            "path.txt",
            "GROUP-xX-PERSON.age",
        ] {
            assert!(README.contains(name), "{name}");
        }
    }
}
