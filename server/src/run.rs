//! `keyturnd run` and `keyturnd check-config`.
//!
//! # Invariants
//! 1. Memory is protected before the first key is read.
//! 2. What `check-config` accepts, `run` does not refuse for its configuration, keys or data.

use std::{io, path::Path, sync::Arc, time::Duration};

use keyturn_hsm::{
    device::{DeviceError, DeviceKey},
    private::{self, FileError},
};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tonic::service::Routes;

use crate::{
    attest,
    chain::VaultError,
    clock::Clock,
    config::{Config, ConfigError},
    connector::Connectors,
    daemon::Vault,
    health::Health,
    memory::{self, MemoryError, Protection},
    metrics::Metrics,
    mode,
    notice::{self, Notice},
    notify,
    peers::Peers,
    program::executable,
    serve::{Bound, ServeError, serve},
    shell::Shell,
    systemd,
    tally::Tally,
    telemetry::{self, whole},
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

/// Serves until SIGTERM or SIGINT.
pub fn run(path: &Path) -> Result<(), RunError> {
    let config = Config::load(path)?;
    telemetry::begin(&config.telemetry);
    // Before any thread is there and any key is read (invariant 1).
    if memory::protect(config.memory.require_lock)? == Protection::Swappable {
        tracing::warn!(
            "memory can be swapped out: start with LimitMEMLOCK=infinity, or without swap"
        );
    }
    let found = inspect(&config);
    for warning in found.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(error) = found.errors.into_iter().next() {
        return Err(error);
    }
    let node = Arc::new(DeviceKey::load(config.keys.node.as_ref()).map_err(RunError::NodeKey)?);
    // One more than there are cores: the owner's blocks while it commits.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_add(1))
        .enable_all()
        .build()
        .map_err(RunError::System)?;
    let outcome = runtime.block_on(serve_until_stopped(&config, &node));
    // A place for copies that hangs must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Sends a test notice to a notifier of a configuration; gives the notice's id.
pub fn notify_test(path: &Path, name: &str) -> Result<String, RunError> {
    let config = Config::load(path)?;
    let notifiers = notify::notifiers(&config.notify);
    let notifier = notifiers.into_iter().find(|one| one.name == name);
    let notifier = notifier.ok_or_else(|| RunError::NoNotifier(name.to_owned()))?;
    // The published checkpoint begins with the vault's name; before the founding there is none.
    let data: &Path = config.data.as_ref();
    let checkpoint = std::fs::read_to_string(data.join("log/checkpoint")).unwrap_or_default();
    let named = checkpoint.lines().next().and_then(|line| line.parse().ok());
    let origin = match named {
        Some(origin) => origin,
        None => notice::UNNAMED
            .parse()
            .map_err(|_| RunError::NoNotifier(name.to_owned()))?,
    };
    let notice = Notice::test(origin, Clock::system().now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let sent = runtime
        .map_err(RunError::System)?
        .block_on(notifier.channel.send(&notice));
    sent.map_err(|source| RunError::NotTaken {
        name: name.to_owned(),
        source,
    })?;
    Ok(notice.id)
}

/// A vault that could not be opened is tried again this often.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

async fn serve_until_stopped(config: &Config, node: &Arc<DeviceKey>) -> Result<(), RunError> {
    let stop = stop_signal()?;
    let (health, _) = Health::starting().await;
    let shell = Shell {
        clock: Clock::system(),
        metrics: Metrics::new(),
        peers: Peers::nobody(),
        health,
        tally: Tally::default(),
    };
    let watchdog = systemd::watchdog();
    try_connectors(config);
    let mut outcome = Ok(());
    while outcome.is_ok() && !*stop.borrow() {
        outcome = match open(config, node, &shell).await {
            Ok(vault) => serve_vault(config, node, &shell, vault, stop.clone()).await,
            Err(error) => {
                let why = whole(&error);
                tracing::error!(%why, "the vault is not served; trying again");
                serve_reason(config, node, &shell, &why, stop.clone()).await
            }
        };
    }
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    tracing::info!("stopped");
    outcome
}

/// Becomes true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::System)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("stopping: calls under way get their time");
        systemd::stopping();
        stop.send_replace(true);
    });
    Ok(stopped)
}

async fn open(config: &Config, node: &Arc<DeviceKey>, shell: &Shell) -> Result<Vault, VaultError> {
    Vault::open(config, Arc::clone(node), shell.clone()).await
}

/// Serves a vault until the daemon is stopped.
async fn serve_vault(
    config: &Config,
    node: &DeviceKey,
    shell: &Shell,
    vault: Vault,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (health, service) = Health::starting().await;
    let shell = Shell {
        health,
        ..shell.clone()
    };
    vault.report_to(shell.health.clone());
    let streams = vault.stopping();
    let stop = async move {
        // The sender lives as long as the process: waiting cannot fail.
        let _ = stop.wait_for(|stop| *stop).await;
        streams.send_replace(true);
    };
    let bound = bind(config).await?;
    systemd::ready();
    match vault.waits_for_restore() {
        Some(why) => {
            shell.health.not_serving(&why).await;
            let (health, mut mode) = (shell.health.clone(), vault.mode());
            tokio::spawn(async move {
                if mode::served(&mut mode).await {
                    health.serving().await;
                }
            });
        }
        None => shell.health.serving().await,
    }
    let outcome = serve(bound, node, shell, (vault.routes.clone(), service), stop).await;
    vault.close().await;
    Ok(outcome?)
}

/// Serves health with the reason why no vault is served, until it is worth trying again.
async fn serve_reason(
    config: &Config,
    node: &DeviceKey,
    shell: &Shell,
    why: &str,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (health, service) = Health::starting().await;
    health.not_serving(why).await;
    let shell = Shell {
        health,
        ..shell.clone()
    };
    let again = async move {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => (),
            () = tokio::time::sleep(REOPEN_EVERY) => (),
        }
    };
    let bound = bind(config).await?;
    systemd::ready();
    Ok(serve(bound, node, shell, (Routes::default(), service), again).await?)
}

async fn bind(config: &Config) -> Result<Bound, RunError> {
    let bound = Bound::new(config).await?;
    for address in bound.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = bound.metrics_address() {
        tracing::info!(%address, "metrics and health over HTTP");
    }
    Ok(bound)
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

/// Says in the daemon's own log which connectors cannot work. Rotations will say so too; nothing waits
/// for this.
fn try_connectors(config: &Config) {
    let connectors = Connectors::of(&config.connectors);
    tokio::spawn(async move {
        for (connector, outcome) in connectors.check_all().await {
            match outcome {
                Ok(whom) => tracing::info!(connector, whom, "the connector is ready"),
                Err(failure) => {
                    tracing::warn!(connector, %failure, "the connector cannot work; its rotations will fail");
                }
            }
        }
    });
}

fn inspect(config: &Config) -> Found {
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
