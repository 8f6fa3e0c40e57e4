//! `keyturnd restore`: a vault from a backup or a place for copies, on a bare host.
//!
//! The log is verified whole and folded by the replay, so what comes out is what the entries say and
//! nothing else. The new vault starts in restore mode: it cannot prove that it is not behind, so a quorum
//! has to accept it, and with it the keys that are new ([`crate::owner::restore`]).
//!
//! # Invariants
//! 1. The folder of the new vault appears whole or not at all; whatever an interrupted restore left is
//!    beside it and made anew.
//! 2. The copy is only read.

pub(crate) mod begin;
mod fold;
mod make;
pub(crate) mod source;

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keyturn_audit::tree::Edge;
use keyturn_vault::{
    digest::Digest,
    jcs::Document as _,
    layout::SealedVersion,
    reference::{CharterRef, Head},
    world::VersionId,
};
use thiserror::Error;

use self::{
    make::{Filler, Keys},
    source::Source,
};
use crate::{
    clock::Clock,
    init,
    keys::{self, Pins},
    rows::{self, ENTRY_FORMAT},
    store::Name,
    telemetry::whole,
    verify,
};

/// Versions that one restore takes back from copies: the entry that accepts it names them all. What is
/// more stays where it is, and is told.
pub const MAX_FOUND: usize = 512;

/// What an operator says.
#[derive(Debug)]
pub struct Request {
    /// The copy.
    pub from: PathBuf,
    /// Where the vault goes; must not exist, or be empty.
    pub dir: PathBuf,
    /// The digest of charter 1.
    pub genesis: Digest,
    /// Where the daemon listens.
    pub listen: Vec<SocketAddr>,
    /// The old log key, if it is not lost.
    pub log_key: Option<PathBuf>,
    /// The old node key, if it is not lost.
    pub node_key: Option<PathBuf>,
    /// Places for copies of the new vault.
    pub sinks: Vec<PathBuf>,
    /// Where the copy of its head goes.
    pub head_copy: Option<PathBuf>,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    config: PathBuf,
    head: Head,
    charter: CharterRef,
    vkey: String,
    new_log_key: bool,
    node_pin: Digest,
    new_node: bool,
    found: Vec<String>,
    left: Vec<String>,
    findings: Vec<String>,
}

impl Made {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "config": self.config.display().to_string(),
            "head": { "size": self.head.size, "root": self.head.root },
            "charter": { "index": self.charter.index, "sha256": self.charter.digest },
            "vkey": self.vkey,
            "new_log_key": self.new_log_key,
            "server_pin": self.node_pin,
            "new_node": self.new_node,
            "found": self.found,
            "left": self.left,
            "findings": self.findings,
        })
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let new = |new| if new { "new" } else { "as before" };
        writeln!(
            f,
            "restored: {} entries, charter {}",
            self.head.size, self.charter.index
        )?;
        writeln!(f, "  root        {}", self.head.root)?;
        writeln!(f, "  vkey        {} ({})", self.vkey, new(self.new_log_key))?;
        writeln!(
            f,
            "  server pin  {} ({})",
            self.node_pin,
            new(self.new_node)
        )?;
        writeln!(f, "  config      {}", self.config.display())?;
        for version in &self.found {
            writeln!(f, "  not in the log, to be taken back: {version}")?;
        }
        for left in &self.left {
            writeln!(f, "  not in the log, stays in the copy: {left}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  finding: {finding}")?;
        }
        writeln!(f, "next: keyturnd run --config {}", self.config.display())?;
        write!(
            f,
            "then a quorum accepts it, each with: keyturn accept-restore --server-pin {}",
            self.node_pin
        )
    }
}

/// Why nothing was restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The folder has something in it.
    #[error("{0} is not empty")]
    NotEmpty(PathBuf),
    /// The copy is not there.
    #[error("{0} is not there")]
    Away(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The first charter is not in it.
    #[error("this copy does not have the first charter that --genesis names")]
    Genesis,
    /// The log does not hold.
    #[error("the copy of the log does not verify: {0}")]
    Log(String),
    /// An entry is unknown.
    #[error("entry {0} of the log is not one that this keyturnd knows")]
    Entry(u64),
    /// It was never founded.
    #[error("this vault was never founded; there is nothing to restore")]
    NotFounded,
    /// What the log says does not make rows.
    #[error("the log does not lead to a store")]
    Rows,
    /// A sealed value is missing or altered.
    #[error("{path} {version} is not whole in this copy: {why}")]
    Version {
        /// Its path.
        path: String,
        /// Which version.
        version: VersionId,
        /// What is wrong.
        why: String,
    },
    /// A key.
    #[error("a key cannot be used or made: {0}")]
    Key(String),
    /// The store was not made.
    #[error("the store cannot be made: {0}")]
    Store(String),
}

impl RestoreError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotEmpty(_) => "choose another folder with --dir",
            Self::Away(_) => "mount it, or name the folder of a backup or of a place for copies",
            Self::File { .. } => "check the path, whose it is, and the room on its disk",
            Self::Genesis => {
                "compare the digest with the one of a custodian (`genesis` in profile.json), and the folder with the vault"
            }
            Self::Log(_) | Self::Version { .. } => {
                "use another copy, and keep this one: it was altered, cut off, or its medium is failing"
            }
            Self::Entry(_) => "use the keyturnd that wrote it, or a newer one",
            Self::NotFounded => "make a new vault with `keyturnd init`",
            Self::Rows => "run `keyturn audit verify --dir` over the copy; use another one",
            Self::Key(_) => {
                "leave --log-key and --node-key away where a key is lost: new ones are made"
            }
            Self::Store(_) => "free some room, and run it again",
        }
    }
}

/// Makes a vault from a copy.
pub fn restore(request: &Request, clock: &Clock) -> Result<Made, RestoreError> {
    let source = Source::open(&request.from, request.genesis)?;
    let target = target(&request.dir)?;
    let partial = beside(&target);
    prepare(&partial)?;
    let made = fill(request, &source, &partial, &target, clock)?;
    appear(&partial, &target)?;
    Ok(made)
}

/// A copy that was verified whole.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// The head of its log.
    pub head: Head,
    /// Sealed versions in it.
    pub versions: usize,
}

/// Verifies a copy as a restore would.
pub fn check(from: &Path, genesis: Digest) -> Result<Checked, RestoreError> {
    let source = Source::open(from, genesis)?;
    let read = source.read(|_, _| Ok(()))?;
    let kept = read.folded.kept();
    for (version, manifest) in &kept {
        whole_version(&source, &read.folded, *version, *manifest)?;
    }
    Ok(Checked {
        head: head(&read.edge),
        versions: kept.len(),
    })
}

/// A sealed value that the log names.
fn whole_version(
    source: &Source,
    folded: &fold::Folded,
    version: VersionId,
    manifest: Digest,
) -> Result<SealedVersion, RestoreError> {
    let path = folded.path(version.credential);
    let broken = |why| RestoreError::Version {
        path: path.map(ToString::to_string).unwrap_or_default(),
        version,
        why,
    };
    let sealed = source.version(version).map_err(broken)?;
    let bytes = sealed.manifest.to_bytes().map_err(|_| RestoreError::Rows)?;
    if Digest::of(&bytes) == manifest {
        Ok(sealed)
    } else {
        Err(broken("its manifest is not the one of the log".to_owned()))
    }
}

/// The folder, absolute; it is not there, or empty.
fn target(dir: &Path) -> Result<PathBuf, RestoreError> {
    let target = std::path::absolute(dir).map_err(|source| file(dir, source))?;
    match fs::read_dir(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
        Err(source) => Err(file(&target, source)),
        Ok(mut names) => match names.next() {
            Some(_) => Err(RestoreError::NotEmpty(target)),
            None => Ok(target),
        },
    }
}

/// Where it is made (invariant 1).
fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

fn prepare(partial: &Path) -> Result<(), RestoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    match fs::remove_dir_all(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(partial, error)),
        _ => {}
    }
    for folder in [partial.to_owned(), partial.join("data/log")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| file(&folder, error))?;
    }
    Ok(())
}

fn appear(partial: &Path, target: &Path) -> Result<(), RestoreError> {
    let parent = target.parent().unwrap_or(target);
    fs::rename(partial, target)
        .and_then(|()| fs::File::open(parent)?.sync_all())
        .map_err(|source| file(target, source))
}

fn fill(
    request: &Request,
    source: &Source,
    partial: &Path,
    target: &Path,
    clock: &Clock,
) -> Result<Made, RestoreError> {
    let mut store = Filler::create(&partial.join("data/store.redb"))?;
    let read = source
        .read(|n, entry| store.put(Name::Entry(n).key(), [&[ENTRY_FORMAT], &entry[..]].concat()))?;
    let mut folded = read.folded;
    let chain = folded.replay.chain().cloned();
    let chain = chain.ok_or(RestoreError::NotFounded)?;
    let (charter_ref, charter) = chain.newest().ok_or(RestoreError::NotFounded)?;
    let keys = Keys::take(request, partial, charter, clock)?;
    folded.vault.node = keys.node.id;
    for (version, manifest) in folded.kept() {
        let sealed = whole_version(source, &folded, version, manifest)?;
        folded.made(version, verify::maker(&chain, sealed.signature.signer));
        store.blob(version, sealed)?;
    }
    for (id, row) in &folded.credentials {
        store.row(&Name::Credential(*id), row)?;
    }
    let found = source::found(
        &request.from,
        &chain,
        |version| folded.known.contains(&version),
        |credential| folded.path(credential).is_some(),
    );
    let mut taken = source::Found::default();
    taken.join(&request.from.display().to_string(), found);
    let mut objects = source.documents()?;
    for version in taken.versions.keys() {
        let sealed = source.version(*version).map_err(RestoreError::Log)?;
        for document in [sealed.manifest.to_bytes(), sealed.definition.to_bytes()] {
            let bytes = document.map_err(|_| RestoreError::Rows)?;
            objects.insert(Digest::of(&bytes), bytes);
        }
        store.blob(*version, sealed)?;
    }
    for (digest, bytes) in objects {
        let value = [&[ENTRY_FORMAT], &bytes[..]].concat();
        store.put(Name::Object(digest).key(), value)?;
    }
    for (key, row) in std::mem::take(&mut folded.rows) {
        store.put(key, row)?;
    }
    let head = head(&read.edge);
    let restoring = rows::Restoring {
        why: format!("restored from {}", request.from.display()),
        head,
        found: taken.versions.clone().into_iter().collect(),
        accepted: None,
    };
    store.row(&Name::Restore, &restoring)?;
    store.put(Name::Head.key(), read.edge.to_bytes())?;
    store.row(&Name::Vault, &folded.vault)?;
    store.finish()?;
    let pins = Pins {
        genesis: folded.vault.genesis,
        newest: charter_ref,
        waited: None,
    };
    let path = partial.join("pins.json");
    keys::write_pins(&path, &pins).map_err(|error| file(&path, error))?;
    let config = partial.join("keyturnd.toml");
    let places = init::places(&request.sinks, request.head_copy.as_ref(), None)
        .map_err(|error| RestoreError::Store(whole(&error)))?;
    let text = init::config_text(charter.origin.as_str(), target, &request.listen, &places);
    init::write(&config, text.as_bytes(), 0o644)
        .map_err(|error| RestoreError::Store(whole(&error)))?;
    let path = |version: &VersionId| {
        let path = folded.path(version.credential);
        format!(
            "{} {}",
            path.map(ToString::to_string).unwrap_or_default(),
            version.version
        )
    };
    Ok(Made {
        config: target.join("keyturnd.toml"),
        head,
        charter: charter_ref,
        vkey: keys.log.vkey().to_string(),
        new_log_key: keys.log.vkey().to_string() != charter.log_key.as_str(),
        node_pin: keys.node.key.pin(),
        new_node: charter.node(keys.node.id).is_none(),
        found: taken.versions.keys().map(path).collect(),
        left: taken.left,
        findings: read.findings,
    })
}

/// The head of a log, as texts name it.
pub fn head(edge: &Edge) -> Head {
    Head {
        size: edge.size(),
        root: Digest(edge.root()),
    }
}

fn file(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::File {
        path: path.to_owned(),
        source,
    }
}
