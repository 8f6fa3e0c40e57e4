//! `keyturnd init`: the files of a new vault, with its first charter as a proposal.
//!
//! The charter takes force when every founder has joined with the welcome file made here. Nothing that
//! is there already is touched; what was begun and cannot be finished is taken back.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keyturn_audit::note::LogKey;
use keyturn_hsm::device::DeviceKey;
use keyturn_vault::{
    charter::Node,
    digest::Digest,
    id::NodeId,
    jcs::Document as _,
    key::PublicKey,
    name::{Name, Origin, PersonName},
    reference::CharterRef,
    words,
};
use thiserror::Error;

use crate::{
    attest::{self, RootsError},
    clock::Clock,
    keys::{self, Pins},
    rows::{self, ENTRY_FORMAT},
    store::{self, Outcome, RedbStore, Store as _, Txn},
};

mod founding;
mod welcome;

pub use self::welcome::Welcomed;
use self::{
    founding::{Enrolled, Founding, charter, read_founding},
    welcome::welcome,
};

/// What somebody who founds a vault says.
pub struct Request {
    /// Where everything goes; must not exist, or be empty.
    pub dir: PathBuf,
    /// The vault's name.
    pub origin: String,
    /// Where the daemon listens.
    pub listen: Vec<SocketAddr>,
    /// How people reach it; the addresses it listens on, if none is given.
    pub endpoints: Vec<String>,
    /// The file that names persons, groups and policies.
    pub founding: PathBuf,
    /// Folders for copies; they must exist.
    pub sinks: Vec<PathBuf>,
    /// The folder for the copy of the log's head; it must exist.
    pub head_copy: Option<PathBuf>,
    /// The roots of attestations, if these are not Yubico's.
    pub attestation_roots: Option<PathBuf>,
}

/// What was made.
pub struct Made {
    /// The configuration to run with.
    pub config: PathBuf,
    /// Charter 1.
    pub genesis: CharterRef,
    /// Its six words.
    pub words: String,
    /// The verifier key of the log.
    pub vkey: String,
    /// What will work and may be regretted.
    pub warnings: Vec<String>,
    /// A welcome file for every token of the founders.
    pub welcomes: Vec<Welcomed>,
}

impl Made {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let mut welcomes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in &self.welcomes {
            let of = welcomes.entry(one.name.to_string()).or_default();
            of.push(one.path.display().to_string());
        }
        serde_json::json!({
            "config": self.config.display().to_string(),
            "charter": { "index": self.genesis.index, "sha256": self.genesis.digest.to_string(), "words": self.words },
            "vkey": self.vkey,
            "welcomes": welcomes,
            "warnings": self.warnings,
        })
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "charter 1, to be signed by every founder: {}",
            self.words
        )?;
        writeln!(f, "  sha256  {}", self.genesis.digest)?;
        writeln!(f, "  vkey    {}", self.vkey)?;
        writeln!(f, "  config  {}", self.config.display())?;
        for Welcomed { name, path, .. } in &self.welcomes {
            writeln!(f, "  {name}: keyturn join {}", path.display())?;
        }
        write!(f, "next: keyturnd run --config {}", self.config.display())
    }
}

/// Why no vault was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InitError {
    /// The folder has something in it.
    #[error("{0} is not empty; choose another folder, or remove what an earlier try left there")]
    NotEmpty(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The vault cannot have this name.
    #[error("--origin: {0}")]
    Origin(String),
    /// Nobody elsewhere could join with such welcome files.
    #[error("--listen {0} says where it listens, not how people reach it")]
    Anywhere(SocketAddr),
    /// The founding file is not one.
    #[error("{path}: {why}")]
    Founding {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An enrolment does not hold.
    #[error("the enrolment {path} cannot be used: {why}; ask the person to enrol again")]
    Enrolment {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Tokens that the founding file's policies do not take.
    #[error(
        "{0}; let them enrol other tokens, or write `require_attestation = false` into the policy, which gives up the proof that a key cannot be copied"
    )]
    WeakTokens(String),
    /// The roots of attestations are none.
    #[error("the roots of attestations {path} cannot be used")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RootsError,
    },
    /// The charter breaks a rule.
    #[error("the first charter would not be valid: {0}")]
    Charter(String),
    /// A key was not made.
    #[error("a key cannot be made: {0}")]
    Key(String),
    /// The store was not made.
    #[error("the store cannot be made: {0}")]
    Store(String),
}

impl InitError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotEmpty(_) => {
                "nothing was changed; a vault that is there is run, not made again"
            }
            Self::File { .. } | Self::Roots { .. } => {
                "check the path, and whose it is; folders for --sink and --head-copy must be there"
            }
            Self::Anywhere(_) => "say that too, with --endpoint HOST:PORT; welcome files name it",
            Self::Origin(_) => "the name of a vault is like vault.example.org/prod",
            Self::Founding { .. } | Self::Charter(_) => {
                "correct the file; docs/OPERATIONS.md shows one, docs/FORMATS.md says every key"
            }
            Self::Enrolment { .. } => {
                "ask for `keyturn enroll NAME` again, and compare the six words"
            }
            Self::WeakTokens(_) => "YubiKeys enrol with `keyturn enroll NAME --token yubikey`",
            Self::Key(_) | Self::Store(_) => "see the room on the disk, then run it again",
        }
    }
}

/// Makes a vault.
pub fn init(request: &Request, clock: &Clock) -> Result<Made, InitError> {
    let origin = request.origin.parse::<Origin>();
    let origin = origin.map_err(|error| InitError::Origin(error.to_string()))?;
    if request.endpoints.is_empty()
        && let Some(anywhere) = request.listen.iter().find(|at| at.ip().is_unspecified())
    {
        return Err(InitError::Anywhere(*anywhere));
    }
    let roots = request.attestation_roots.as_deref();
    let anchors = attest::roots(roots).map_err(|source| InitError::Roots {
        path: roots.map(Path::to_owned).unwrap_or_default(),
        source,
    })?;
    let (founding, enrolled) = read_founding(request, &anchors)?;
    let places = places(&request.sinks, request.head_copy.as_ref(), roots)?;
    let there = request.dir.exists();
    prepare(&request.dir)?;
    let made = make(request, clock, (&origin, founding, &enrolled), &places);
    if made.is_err() {
        clear(&request.dir, there);
    }
    made
}

/// Fills the empty folder.
fn make(
    request: &Request,
    clock: &Clock,
    (origin, founding, enrolled): (&Origin, Founding, &BTreeMap<PersonName, Enrolled>),
    places: &Places,
) -> Result<Made, InitError> {
    let key_error = |error: &dyn fmt::Display| InitError::Key(error.to_string());
    let node_key = DeviceKey::create(&request.dir.join("node.pem"), origin.as_str())
        .map_err(|e| key_error(&e))?;
    let log_key = LogKey::generate(origin.as_str()).map_err(|e| key_error(&e))?;
    keys::write_log_key(&request.dir.join("log.key"), &log_key).map_err(|e| key_error(&e))?;
    let node = Node {
        id: NodeId::from_parts(clock.now(), random().map_err(|e| key_error(&e))?),
        name: "node-1".parse::<Name>().map_err(|e| key_error(&e))?,
        key: PublicKey::from_der(node_key.public().spki()).map_err(|e| key_error(&e))?,
    };
    let charter = charter(request, origin, founding, enrolled, node.clone(), &log_key)?;
    let bytes = charter
        .to_bytes()
        .map_err(|error| InitError::Charter(error.to_string()))?;
    let genesis = CharterRef {
        index: 1,
        digest: Digest::of(&bytes),
    };
    keys::write_pins(
        &request.dir.join("pins.json"),
        &Pins {
            genesis,
            newest: genesis,
            waited: None,
        },
    )
    .map_err(|source| file(&request.dir.join("pins.json"), source))?;
    let welcomes = welcome(request, &charter, &bytes, genesis, enrolled, &node_key)?;
    let mut vault = rows::Vault::new(node.id, genesis);
    vault.founders = welcomes
        .iter()
        .map(|one| (one.token, one.proof.clone()))
        .collect();
    let tokens = enrolled.values().flat_map(|one| &one.tokens);
    let attestations = tokens.filter_map(|token| token.attestation.as_deref());
    let objects: Vec<_> = [bytes.as_slice()].into_iter().chain(attestations).collect();
    make_store(&request.dir.join("data"), &objects, &vault)?;
    let config = request.dir.join("keyturnd.toml");
    let text = config_text(&request.origin, &request.dir, &request.listen, places);
    write(&config, text.as_bytes(), 0o644)?;
    Ok(Made {
        config,
        genesis,
        words: words::spoken(&genesis.digest),
        vkey: log_key.vkey().to_string(),
        warnings: charter.warnings().iter().map(ToString::to_string).collect(),
        welcomes,
    })
}

fn founding_error(request: &Request, why: String) -> InitError {
    InitError::Founding {
        path: request.founding.clone(),
        why,
    }
}

fn file(path: &Path, source: io::Error) -> InitError {
    InitError::File {
        path: path.to_owned(),
        source,
    }
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// An empty folder that only its owner enters.
fn prepare(dir: &Path) -> Result<(), InitError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.exists()
        && fs::read_dir(dir)
            .map_err(|e| file(dir, e))?
            .next()
            .is_some()
    {
        return Err(InitError::NotEmpty(dir.to_owned()));
    }
    for folder in [
        dir.to_owned(),
        dir.join("data"),
        dir.join("data/log"),
        dir.join("welcome"),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| file(&folder, e))?;
    }
    Ok(())
}

/// Takes back what was made of a vault that was not: the next try begins as this one did.
fn clear(dir: &Path, there: bool) {
    for folder in ["data", "welcome"] {
        // What stays is told by the next try.
        let _ = fs::remove_dir_all(dir.join(folder));
    }
    for file in ["node.pem", "log.key", "pins.json", "keyturnd.toml"] {
        let _ = fs::remove_file(dir.join(file));
    }
    if !there {
        let _ = fs::remove_dir(dir);
    }
}

fn make_store(data: &Path, objects: &[&[u8]], vault: &rows::Vault) -> Result<(), InitError> {
    let wrong = |error: &dyn fmt::Display| InitError::Store(error.to_string());
    let store = RedbStore::create(&data.join("store.redb")).map_err(|e| wrong(&e))?;
    // One by one: all attestations of a large founding are more than a transaction holds.
    let object = |bytes: &&[u8]| {
        let key = store::Name::Object(Digest::of(bytes)).key();
        Txn::new().put(key, [&[ENTRY_FORMAT], *bytes].concat())
    };
    let mut txns: Vec<_> = objects.iter().map(object).collect();
    let row = rows::encode(vault).map_err(|e| wrong(&e))?;
    txns.push(Txn::new().put(store::Name::Vault.key(), row));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| wrong(&e))?;
    let outcome = runtime.block_on(async {
        let mut outcome = Ok(Outcome::Committed(store::Rev::default()));
        for txn in txns {
            outcome = store.txn(txn).await;
            if !matches!(outcome, Ok(Outcome::Committed(_))) {
                break;
            }
        }
        store.close().await;
        outcome
    });
    match outcome {
        Ok(Outcome::Committed(_)) => Ok(()),
        Ok(Outcome::Conflict(_)) => Err(InitError::Store("it is not empty".to_owned())),
        Err(error) => Err(wrong(&error)),
    }
}

/// Writes a new file.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut out = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
        .map_err(|e| file(path, e))?;
    out.write_all(bytes)
        .and_then(|()| out.sync_all())
        .map_err(|e| file(path, e))
}

/// Where copies go, and the roots of attestations are, as absolute paths of what is there.
pub(crate) struct Places {
    roots: Option<PathBuf>,
    sinks: Vec<PathBuf>,
    head_copy: Option<PathBuf>,
}

pub(crate) fn places(
    sinks: &[PathBuf],
    head_copy: Option<&PathBuf>,
    roots: Option<&Path>,
) -> Result<Places, InitError> {
    let there = |path: &PathBuf| {
        let whole = fs::canonicalize(path).map_err(|error| file(path, error))?;
        if whole.is_dir() {
            Ok(whole)
        } else {
            Err(file(path, io::ErrorKind::NotADirectory.into()))
        }
    };
    let whole = |path: &Path| fs::canonicalize(path).map_err(|error| file(path, error));
    Ok(Places {
        roots: roots.map(whole).transpose()?,
        sinks: sinks.iter().map(there).collect::<Result<_, _>>()?,
        head_copy: head_copy.map(there).transpose()?,
    })
}

/// The configuration of the new vault; every path in it is absolute.
pub(crate) fn config_text(
    origin: &str,
    dir: &Path,
    listen: &[SocketAddr],
    places: &Places,
) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let quoted = |path: &Path| toml::Value::from(path.display().to_string());
    let path = |name: &str| quoted(&dir.join(name));
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "# The daemon of {origin}. `keyturnd check-config` says whether it is good.\n\
         data = {}\n\n[listen]\ngrpc = {}\n\n[keys]\nnode = {}\nlog = {}\ngenesis = {}\n\n",
        path("data"),
        toml::Value::from(listen),
        path("node.pem"),
        path("log.key"),
        path("pins.json"),
    );
    if let Some(roots) = &places.roots {
        let roots = quoted(roots);
        text = format!("{text}[attestation]\nroots = {roots}\n\n");
    }
    if let Some(folder) = &places.head_copy {
        let folder = quoted(folder);
        text = format!("{text}[audit]\nhead_copy = {folder}\n\n");
    }
    if places.sinks.is_empty() {
        return text
            + "# Name a sink on another disk or host, and raise this to 1: until then a lost disk loses what was rotated.\n\
               [copies]\nmin = 0\n";
    }
    text += "# A rotation changes its target when so many of these hold the new version.\n[copies]\nmin = 1\n";
    for (n, folder) in (1..).zip(&places.sinks) {
        let folder = quoted(folder);
        text = format!(
            "{text}\n[[copies.sinks]]\nkind = \"directory\"\nname = \"copies-{n}\"\npath = {folder}\n"
        );
    }
    text
}
