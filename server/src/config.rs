//! `keyturnd.toml`: facts of this machine only, never who may do what.
//!
//! Values are parsed, not validated: a [`Config`] cannot hold a limit out of bounds or a relative
//! path. So every error comes with its line, says what is wrong, and what would be right.
//!
//! # Invariants
//! 1. A field that is not known is an error, not a wish.
//! 2. The metrics listener is on a loopback address: it asks nobody who they are.
//! 3. No path is inside another one's place: sinks and the head's copy are elsewhere than the data.

mod connector;
mod notify;
mod value;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use keyturn_vault::definition::MANUAL;
use serde::Deserialize;
use thiserror::Error;

use self::notify::MAX_NOTIFIERS;

pub use self::connector::{
    Account, Aws, AwsHost, AwsPassword, AwsRoot, CharacterClass, Check, Connector, Endpoint, Exec,
    Guide, Host, Ldap, Manual, Postgres, Region, RoleArn, SecretRules, Security, Slots,
};
pub use self::notify::Notify;
pub use self::value::{AbsolutePath, Addresses, HostName, Label, Loopback, WebUrl, Within};

/// Where the daemon looks when it is not told.
pub const DEFAULT_PATH: &str = "/etc/keyturn/keyturnd.toml";

/// The largest configuration file that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// What this machine contributes to a vault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Everything the daemon writes: store, log, proposals. Backups are made of it.
    pub data: AbsolutePath,
    /// Addresses.
    pub listen: Listen,
    /// Files with private keys and pins; outside `data` and outside backups.
    pub keys: Keys,
    /// The embedded store.
    #[serde(default)]
    pub store: Store,
    /// Who is believed about tokens.
    #[serde(default)]
    pub attestation: Attesting,
    /// The log's second home.
    #[serde(default)]
    pub audit: Audit,
    /// Copies of sealed versions and documents.
    #[serde(default)]
    pub copies: Copies,
    /// Programs and addresses that learn of events.
    #[serde(default)]
    pub notify: BTreeMap<Label, Notify>,
    /// Connectors that definitions may name.
    #[serde(default)]
    pub connectors: BTreeMap<Label, Connector>,
    /// Bounds of everything that a peer can make grow.
    #[serde(default)]
    pub limits: Limits,
    /// How rotations run.
    #[serde(default)]
    pub rotation: Rotation,
    /// Keeping secrets off the disk.
    #[serde(default)]
    pub memory: Memory,
    /// Logs of the daemon's own running.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// Addresses to listen on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// gRPC over pinned mutual TLS.
    pub grpc: Addresses,
    /// Metrics and health over plain HTTP, on loopback only; absent: none.
    pub metrics: Option<Loopback>,
}

/// Files that make this node who it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The node's key and certificate, PEM, 0600.
    pub node: AbsolutePath,
    /// The log's Ed25519 key, 0600.
    pub log: AbsolutePath,
    /// The digest of the genesis charter, and the newest charter seen.
    pub genesis: AbsolutePath,
}

/// The embedded store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Memory for its cache, in MiB.
    pub cache_mib: Within<1, 4096, 16>,
    /// A file that is deleted when the disk is full, so that ceremonies go on, in MiB.
    pub ballast_mib: Within<0, 1024, 16>,
    /// Below this much free space deposits and rotations stop, in MiB.
    pub low_water_mib: Within<1, 65_536, 64>,
}

/// Who is believed about tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attesting {
    /// A file with the roots of attestations and their pins; absent: Yubico's, which are built in.
    pub roots: Option<AbsolutePath>,
}

/// The log's second home.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// A folder on another mount or host that keeps the newest head.
    pub head_copy: Option<AbsolutePath>,
}

/// Copies of sealed versions and documents.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Copies {
    /// How many a rotation waits for before it changes the target.
    pub min: Within<0, 16, 1>,
    /// Where they go.
    pub sinks: Vec<Sink>,
}

/// One place for copies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Sink {
    /// A folder, on another mount.
    Directory {
        /// For `status` and the log.
        name: Label,
        /// The folder; it must exist.
        path: AbsolutePath,
    },
}

impl Sink {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Directory { name, .. } => name.as_ref(),
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. } => path.as_ref(),
        }
    }
}

/// Bounds of everything that a peer can make grow. A message is never larger than 4 MiB: that bound
/// is the interface's own ([`keyturn_proto::MAX_MESSAGE`]).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once, in all.
    pub connections: Within<1, 65_535, 1024>,
    /// Connections at once from one source (an IPv4 address, or an IPv6 /64).
    pub connections_per_source: Within<1, 65_535, 64>,
    /// Connections at once by devices that no charter knows; they may only join. 0: none.
    pub stranger_connections: Within<0, 1024, 16>,
    /// New connections a minute from one source.
    pub new_per_source_minute: Within<1, 100_000, 600>,
    /// Failed handshakes a minute after which a source waits for the next minute.
    pub strikes_per_source_minute: Within<1, 10_000, 20>,
    /// Sources that are remembered; beyond, the longest unseen is forgotten.
    pub sources: Within<16, 1_000_000, 4096>,
    /// A TLS handshake must end in this time.
    pub handshake_secs: Within<1, 60, 10>,
    /// Calls and streams at once on one connection.
    pub streams_per_connection: Within<1, 1024, 64>,
    /// A unary call must be answered in this time.
    pub call_secs: Within<1, 600, 60>,
    /// A quiet connection is asked for a sign of life after this time.
    pub keep_alive_secs: Within<1, 600, 20>,
    /// It is closed when the sign does not come in this time.
    pub keep_alive_timeout_secs: Within<1, 60, 10>,
    /// Headers of one call, in KiB.
    pub headers_kib: Within<4, 64, 16>,
    /// Calls that are under way get this time when the daemon stops.
    pub stop_secs: Within<1, 300, 20>,
}

/// How rotations run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// How many run at once.
    pub concurrent: Within<1, 256, 8>,
}

/// Keeping secrets off the disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Refuse to start when memory cannot be locked.
    pub require_lock: bool,
}

/// Logs of the daemon's own running.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How a line looks.
    pub format: LogFormat,
    /// The least that is told.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least that is told.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Only what stops the daemon from its work.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And how.
    Debug,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is absurdly large.
    #[error("the configuration {} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Two parts of it do not go together.
    #[error("{}: {problem}", path.display())]
    Together {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl ConfigError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "name the file with --config, and let the daemon's user read it",
            Self::TooLarge { .. } => "name the right file with --config",
            Self::Line { .. } | Self::Together { .. } => {
                "correct the file and try `keyturnd check-config`"
            }
        }
    }
}

impl Config {
    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
            });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(read)?)
    }

    /// Reads the text of a configuration; `path` is for the errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Line {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            problem: error.message().replace('\n', ", "),
        })?;
        config.check().map_err(|problem| ConfigError::Together {
            path: path.to_owned(),
            problem,
        })?;
        Ok(config)
    }

    /// What no single value can tell (invariant 3).
    fn check(&self) -> Result<(), String> {
        let data = self.data.as_ref();
        let apart = [
            ("keys.node", Some(&self.keys.node)),
            ("keys.log", Some(&self.keys.log)),
        ];
        let head = [("audit.head_copy", self.audit.head_copy.as_ref())];
        for (key, path) in apart.into_iter().chain(head) {
            if path.is_some_and(|path| path.as_ref().starts_with(data)) {
                return Err(format!(
                    "`{key}` is inside `data`: it must not be lost or copied with it"
                ));
            }
        }
        for (i, sink) in self.copies.sinks.iter().enumerate() {
            let name = sink.name();
            if sink.path().starts_with(data) || data.starts_with(sink.path()) {
                return Err(format!(
                    "sink `{name}` and `data` are in one place: a copy must be elsewhere"
                ));
            }
            if self
                .copies
                .sinks
                .iter()
                .take(i)
                .any(|other| other.name() == name)
            {
                return Err(format!(
                    "two sinks are called `{name}`: give each its own name"
                ));
            }
        }
        if self.notify.len() > MAX_NOTIFIERS {
            return Err(format!(
                "{} notifiers: at most {MAX_NOTIFIERS} are told",
                self.notify.len()
            ));
        }
        for (name, connector) in &self.connectors {
            if connector.is_manual() != (name.as_ref() == MANUAL) {
                return Err(format!(
                    "connector `{}`: the name and the kind `{MANUAL}` belong together",
                    name.as_ref()
                ));
            }
            let checked = connector.check();
            checked.map_err(|problem| format!("connector `{}`: {problem}", name.as_ref()))?;
        }
        if self.copies.sinks.len() < self.copies.min.size() {
            return Err(format!(
                "`copies.min` is {} and there are {} sinks: add sinks, or lower it (0 means that \
                 a lost disk loses what was rotated)",
                self.copies.min.value(),
                self.copies.sinks.len()
            ));
        }
        Ok(())
    }

    /// What works but somebody should know.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.copies.min.value() == 0 {
            warnings.push("`copies.min` is 0: a lost disk loses what was rotated".to_owned());
        }
        if let Some(roots) = &self.attestation.roots {
            warnings.push(format!(
                "`attestation.roots` is set: tokens are believed by {}, not by Yubico's roots",
                roots.as_ref().display()
            ));
        }
        if self.audit.head_copy.is_none() {
            warnings.push(
                "`audit.head_copy` is not set: a restored old disk is noticed by clients only"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// The line, counted from 1, of a place in a text.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SMALL: &str = r#"
data = "/var/lib/keyturn"
[listen]
grpc = ["0.0.0.0:7400"]
[keys]
node = "/etc/keyturn/node.pem"
log = "/etc/keyturn/log.key"
genesis = "/etc/keyturn/genesis"
[copies]
min = 0
"#;

    fn check(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("k.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = check(SMALL).unwrap();
        assert_eq!(config.limits.handshake_secs.secs(), Duration::from_secs(10));
        assert_eq!(config.listen.metrics, None);
        assert_eq!(config.telemetry.format, LogFormat::Text);
        assert_eq!(config.warnings().len(), 2, "{:?}", config.warnings());
    }

    #[test]
    fn all_of_it_can_be_said() {
        let text = format!(
            "{SMALL}{}",
            r#"
[[copies.sinks]]
kind = "directory"
name = "nas"
path = "/mnt/nas/keyturn"
[notify.pager]
kind = "exec"
command = "/usr/local/bin/page"
args = ["--urgent"]
deadline_secs = 5
least = "warning"
[notify.chat]
kind = "webhook"
url = "https://chat.example.org/hooks/keyturn"
key = "/etc/keyturn/chat.key"
kinds = ["request.*", "unseal.released"]
[audit]
head_copy = "/mnt/nas/head"
[limits]
connections = 10
[memory]
require_lock = true
[telemetry]
format = "json"
level = "debug"
[connectors.accounts]
kind = "exec"
command = "/usr/lib/keyturn/accounts"
env = { ACCOUNTS = "https://accounts.example.org" }
[rotation]
concurrent = 4
[store]
cache_mib = 32
"#
        )
        .replace("min = 0", "min = 1")
        .replace("[listen]", "[listen]\nmetrics = \"[::1]:7401\"");
        let config = check(&text).unwrap();
        assert_eq!(config.limits.connections.value(), 10);
        assert!(config.memory.require_lock && config.warnings().is_empty());
        assert_eq!(config.copies.sinks[0].name(), "nas");
        assert!(config.notify.contains_key("pager") && config.notify.contains_key("chat"));
        assert!(config.connectors.contains_key("accounts"));
    }

    fn refused(name: &str, from: &str, to: &str, want: &str) {
        let text = SMALL.replace(from, to);
        assert_ne!(text, SMALL, "{name}: the row changes nothing");
        let error = check(&text).expect_err(name);
        assert!(error.contains(want), "{name}: {error}");
        assert!(error.starts_with("k.toml:"), "{name}: {error}");
    }

    const NAS: &str =
        "[[copies.sinks]]\nkind = \"directory\"\nname = \"nas\"\npath = \"/mnt/nas\"\n";

    #[test]
    fn errors_say_where_what_and_how() {
        for (name, from, to, want) in [
            (
                "unknown section",
                "[copies]",
                "[copys]",
                "k.toml:9: unknown field `copys`, expected one of `data`",
            ),
            (
                "unknown field",
                "min = 0",
                "min = 0\nmax = 2",
                "k.toml:11: unknown field `max`, expected `min` or",
            ),
            (
                "missing",
                "data = \"/var/lib/keyturn\"\n",
                "",
                "missing field `data`",
            ),
            ("not TOML", "min = 0", "min = ", "k.toml:10: "),
            (
                "another type",
                "min = 0",
                "min = \"0\"",
                "k.toml:10: invalid type: string \"0\"",
            ),
            (
                "too large",
                "min = 0",
                "min = 17",
                "k.toml:10: 17 is out of bounds: write 0 to 16",
            ),
            (
                "negative",
                "min = 0",
                "min = -1",
                "k.toml:10: -1 is out of bounds: write 0 to 16",
            ),
            (
                "relative path",
                "\"/etc/keyturn/node",
                "\"node",
                "k.toml:6: `node.pem` must begin with `/`",
            ),
            (
                "dots",
                "/etc/keyturn/node",
                "/etc/../node",
                "k.toml:6: `/etc/../node.pem` must be written without",
            ),
            (
                "no address",
                "[\"0.0.0.0:7400\"]",
                "[]",
                "k.toml:4: name 1 to 8 addresses",
            ),
            (
                "not an address",
                "0.0.0.0:7400",
                "localhost",
                "k.toml:4: invalid socket address syntax",
            ),
            (
                "metrics for the world (invariant 2)",
                "[listen]",
                "[listen]\nmetrics = \"0.0.0.0:1\"",
                "k.toml:4: 0.0.0.0:1 can be reached from elsewhere",
            ),
            (
                "sink's name",
                "min = 0\n",
                &NAS.replace("nas", "N S"),
                "`N S` must be 1 to 32 of a-z",
            ),
            (
                "a kind of notice that is none",
                "min = 0\n",
                "min = 0\n[notify.a]\nkind = \"exec\"\ncommand = \"/a\"\nkinds = [\"unseal.gone\"]\n",
                "`unseal.gone` is no kind of notice",
            ),
            (
                "a way that is none",
                "min = 0\n",
                "min = 0\n[notify.a]\nkind = \"webhook\"\nkey = \"/k\"\nurl = \"ftp://a/\"\n",
                "write a URL like https://hooks.example.org/keyturn",
            ),
            (
                "twice",
                "min = 0",
                "min = 0\nmin = 1",
                "k.toml:11: duplicate key",
            ),
        ] {
            refused(name, from, to, want);
        }
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused() {
        for (name, from, to, want) in [
            (
                "key in data (invariant 3)",
                "/etc/keyturn/log",
                "/var/lib/keyturn/log",
                "`keys.log` is inside `data`",
            ),
            (
                "too few sinks",
                "min = 0",
                "min = 1",
                "`copies.min` is 1 and there are 0 sinks",
            ),
            (
                "sink in data (invariant 3)",
                "min = 0\n",
                "min = 0\n[[copies.sinks]]\nkind = \"directory\"\nname = \"a\"\npath = \"/var/lib/keyturn/c\"\n",
                "sink `a` and `data` are in one place",
            ),
            (
                "sinks alike",
                "min = 0\n",
                &format!("min = 0\n{NAS}{NAS}"),
                "two sinks are called `nas`",
            ),
        ] {
            refused(name, from, to, want);
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = Config::load(&folder.path().join("none.toml")).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }) && error.hint().contains("--config"));
        let large = folder.path().join("large.toml");
        fs::File::create(&large)
            .unwrap()
            .set_len(MAX_BYTES + 1)
            .unwrap();
        assert!(matches!(
            Config::load(&large),
            Err(ConfigError::TooLarge { .. })
        ));
    }
}
