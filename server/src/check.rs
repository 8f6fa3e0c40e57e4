//! `keyturnd check-config`: looks at everything that `run` needs, and changes nothing; why the daemon does not
//! run.

use std::{io, path::Path};

use keyturn_hsm::{
    device::{DeviceError, DeviceKey},
    private::{self, FileError},
};
use thiserror::Error;

use crate::{
    attest,
    config::{Config, ConfigError},
    connector::Connectors,
    memory::MemoryError,
    notify,
    program::executable,
    serve::ServeError,
    telemetry::whole,
};

/// Why the daemon does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is wrong.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// Memory cannot be protected.
    #[error("memory cannot be protected")]
    Memory(#[from] MemoryError),
    /// The node's key cannot be used.
    #[error("the node's key (`keys.node`) cannot be used")]
    NodeKey(#[source] DeviceError),
    /// The log's key cannot be used.
    #[error("the log's key (`keys.log`) cannot be used")]
    LogKey(#[source] FileError),
    /// The data's folder is missing.
    #[error("`data` is not a folder: {path}")]
    Data {
        /// The folder.
        path: String,
    },
    /// A connector has no rights at its target; seen by `check-config --live` only.
    #[error("connector `{name}` cannot work: {problem}")]
    Connector {
        /// Its name.
        name: String,
        /// What its target or the platform says.
        problem: String,
    },
    /// Nobody can reach it.
    #[error("the daemon cannot serve")]
    Serve(#[from] ServeError),
    /// There is no such notifier.
    #[error("the configuration has no notifier `{0}`")]
    NoNotifier(String),
    /// A notifier did not take a notice.
    #[error("the notifier `{name}` did not take it")]
    NotTaken {
        /// Its name.
        name: String,
        /// Why not.
        source: notify::Failure,
    },
    /// The system gives no threads or signals.
    #[error("the system refused to run the daemon")]
    System(#[source] io::Error),
}

impl RunError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Config(error) => error.hint().to_owned(),
            Self::Memory(error) => error.hint().to_owned(),
            Self::NodeKey(DeviceError::File(error)) | Self::LogKey(error) => error.hint(),
            Self::NodeKey(_) => {
                "restore the key, or replace the node by `accept-restore`".to_owned()
            }
            Self::Data { .. } => "`keyturnd init` makes it; if it is a mount, mount it".to_owned(),
            Self::Connector { .. } => {
                "give the daemon's platform the rights on the connector's page in docs/connectors"
                    .to_owned()
            }
            Self::Serve(_) => "see which program has the address: ss -ltnp".to_owned(),
            Self::NoNotifier(_) => "add `[notify.NAME]`, or name one that is there".to_owned(),
            Self::NotTaken { .. } => {
                "docs/OPERATIONS.md says what a program or a server is sent and must answer"
                    .to_owned()
            }
            Self::System(_) => "see the limits of this service".to_owned(),
        }
    }

    /// What the process exits with: 78 (`EX_CONFIG`) for what a restart cannot mend, otherwise 1.
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Memory(_)
            | Self::NodeKey(_)
            | Self::LogKey(_)
            | Self::Data { .. } => 78,
            Self::Connector { .. }
            | Self::NoNotifier(_)
            | Self::NotTaken { .. }
            | Self::Serve(_)
            | Self::System(_) => 1,
        }
    }
}

/// What `check-config` finds.
#[derive(Debug)]
pub struct Found {
    /// Each of these keeps `run` from starting.
    pub errors: Vec<RunError>,
    /// What works but somebody should know.
    pub warnings: Vec<String>,
    /// What was tried and works.
    pub good: Vec<String>,
}

impl Found {
    /// For programs.
    pub fn json(&self, config: &Path) -> serde_json::Value {
        let error =
            |error: &RunError| serde_json::json!({ "error": whole(error), "hint": error.hint() });
        serde_json::json!({
            "config": config.display().to_string(),
            "good": self.errors.is_empty(),
            "errors": self.errors.iter().map(error).collect::<Vec<_>>(),
            "warnings": self.warnings,
            "tried": self.good,
        })
    }
}

/// Looks at everything that `run` needs. Changes nothing.
pub fn check_config(path: &Path) -> Found {
    load(path).map_or_else(|found| found, |config| inspect(&config))
}

/// As [`check_config`], and asks every connector whether its own credentials work.
pub fn check_config_live(path: &Path) -> Found {
    let config = match load(path) {
        Ok(config) => config,
        Err(found) => return found,
    };
    let mut found = inspect(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let checked = match runtime {
        Ok(runtime) => runtime.block_on(Connectors::of(&config.connectors).check_all()),
        Err(error) => {
            found.errors.push(RunError::System(error));
            return found;
        }
    };
    for (name, outcome) in checked {
        match outcome {
            Ok(whom) if whom.is_empty() => found.good.push(format!("connector `{name}`: ready")),
            Ok(whom) => found
                .good
                .push(format!("connector `{name}`: ready, as {whom}")),
            Err(failure) => found.errors.push(RunError::Connector {
                name,
                problem: failure.to_string(),
            }),
        }
    }
    found
}

fn load(path: &Path) -> Result<Config, Found> {
    Config::load(path).map_err(|error| Found {
        errors: vec![error.into()],
        warnings: Vec::new(),
        good: Vec::new(),
    })
}

/// Looks at what a configuration names.
pub fn inspect(config: &Config) -> Found {
    let mut errors = Vec::new();
    errors.extend(
        DeviceKey::load(config.keys.node.as_ref())
            .err()
            .map(RunError::NodeKey),
    );
    errors.extend(
        private::read(config.keys.log.as_ref())
            .err()
            .map(RunError::LogKey),
    );
    let data: &Path = config.data.as_ref();
    if !data.is_dir() {
        errors.push(RunError::Data {
            path: data.display().to_string(),
        });
    }
    // A copy's place that is away is no reason to refuse a quorum.
    let mut warnings = config.warnings();
    let roots = config.attestation.roots.as_ref().map(AsRef::as_ref);
    if let Err(error) = attest::roots(roots) {
        warnings.push(format!(
            "`attestation.roots` cannot be used: {}; no new token will be believed",
            whole(&error)
        ));
    }
    let head_copy = config
        .audit
        .head_copy
        .iter()
        .map(|path| ("`audit.head_copy`".to_owned(), path.as_ref()));
    let sinks = config.copies.sinks.iter();
    let sinks = sinks.map(|sink| (format!("sink `{}`", sink.name()), sink.path()));
    for (key, path) in head_copy.chain(sinks) {
        if !path.is_dir() {
            warnings.push(format!(
                "{key} is not there: {} is not a folder",
                path.display()
            ));
        }
    }
    for (name, connector) in &config.connectors {
        if let Some(program) = connector.program().filter(|program| !executable(program)) {
            warnings.push(format!(
                "connector `{}`: {} is not a program that can be run; its rotations will fail",
                name.as_ref(),
                program.display()
            ));
        }
    }
    for notifier in notify::notifiers(&config.notify) {
        if let Err(problem) = notifier.channel.check() {
            warnings.push(format!(
                "notifier `{}`: {problem}; nobody will be told by it",
                notifier.name
            ));
        }
    }
    Found {
        errors,
        warnings,
        good: Vec::new(),
    }
}
