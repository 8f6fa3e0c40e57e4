//! `keyturnd run`.
//!
//! # Invariants
//! 1. Memory is protected before the first key is read.
//! 2. What `check-config` accepts, `run` does not refuse for its configuration, keys or data.

use std::{path::Path, sync::Arc, time::Duration};

use keyturn_hsm::device::DeviceKey;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tonic::service::Routes;

use crate::{
    chain::VaultError,
    check,
    clock::Clock,
    config::Config,
    connector::Connectors,
    daemon::Vault,
    health::Health,
    memory::{self, Protection},
    metrics::Metrics,
    mode,
    notice::{self, Notice},
    notify,
    peers::Peers,
    serve::{Bound, serve},
    shell::Shell,
    systemd,
    tally::Tally,
    telemetry::{self, whole},
};

pub use crate::check::RunError;

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
    let found = check::inspect(&config);
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
