//! A daemon inside the test, whose clock the test moves by hand.

use std::{path::Path, sync::Arc, time::Duration};

use keyturn_hsm::device::DeviceKey;
use keyturn_vault::{charter::Charter, jcs::Document as _, time::Time};
use keyturnd::{
    clock::Clock,
    config::Config,
    connector::Connectors,
    daemon::Vault,
    desk::Desks,
    health::Health,
    identity::Node,
    keys::{self, Pinned},
    log::Objects,
    metrics::Metrics,
    owner::{self, Owner, core::Core, outbox::Outbox},
    peers::Peers,
    rotation::Workshop,
    rows::{self, object, read},
    serve::{Bound, ServeError, serve},
    shell::Shell,
    store::{Name, RedbStore, Store},
    tally::Tally,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{World, harness::Outcome};

/// A daemon over the folder of a [`World`], whose own daemon is stopped.
pub struct Inside {
    /// Its clock.
    pub clock: Clock,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Inside {
    /// Starts it; by its clock it is `wall`.
    pub async fn start(world: &World, wall: Time) -> Outcome<Self> {
        Self::at(&world.vault().join("keyturnd.toml"), wall).await
    }

    /// The same, over a configuration.
    pub async fn at(config: &Path, wall: Time) -> Outcome<Self> {
        let config = Config::load(config)?;
        let connectors = Connectors::of(&config.connectors);
        Self::serving(config, connectors, Clock::by_hand(wall)).await
    }

    /// Starts it with these connectors and this clock.
    pub async fn serving(config: Config, connectors: Connectors, clock: Clock) -> Outcome<Self> {
        let key: &Path = config.keys.node.as_ref();
        let key = Arc::new(DeviceKey::load(key)?);
        let (health, service) = Health::starting().await;
        let shell = Shell {
            clock: clock.clone(),
            metrics: Metrics::new(),
            peers: Peers::nobody(),
            health,
            tally: Tally::default(),
        };
        // On the heap: a vault that opens is a large state.
        let opening = Vault::open_with(&config, connectors, Arc::clone(&key), shell.clone());
        let vault = Box::pin(opening).await?;
        shell.health.serving().await;
        let bound = Bound::new(&config).await?;
        let (stop, stopped) = oneshot::channel();
        let streams = vault.stopping();
        let task = tokio::spawn(async move {
            let until = async move {
                // Dropped is as good as sent.
                let _ = stopped.await;
                streams.send_replace(true);
            };
            let routes = (vault.routes.clone(), service);
            let served = serve(bound, &key, shell, routes, until).await;
            vault.close().await;
            served
        });
        Ok(Self { clock, stop, task })
    }

    /// Stops it; what it had in memory is gone.
    pub async fn stop(self) -> Outcome<Time> {
        let now = self.clock.now();
        drop(self.stop);
        tokio::time::timeout(Duration::from_mins(1), self.task).await???;
        Ok(now)
    }
}

/// The owner over what a stopped daemon left, without anything around it.
pub async fn owner(vault: &Path) -> Outcome<Owner> {
    let config = Config::load(&vault.join("keyturnd.toml"))?;
    let data: &Path = config.data.as_ref();
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&data.join("store.redb"))?);
    let row: rows::Vault = read(store.as_ref(), &Name::Vault.key())
        .await?
        .ok_or("no vault")?;
    let reference = row.in_force.ok_or("no charter is in force")?;
    let charter = Charter::from_bytes(&object(store.as_ref(), reference.digest).await?)?;
    let key = Arc::new(keys::read_log_key(
        config.keys.log.as_ref(),
        charter.origin.as_str(),
    )?);
    let device = Arc::new(DeviceKey::load(config.keys.node.as_ref())?);
    let (node, clock) = (Node::new(row.node, device), Clock::system());
    let workshop = Workshop::new(Connectors::of(&config.connectors), node, clock.clone(), 1);
    let parts = (
        Desks::default(),
        Peers::nobody(),
        <(Objects, owner::Changed)>::default(),
        workshop,
        Pinned {
            path: AsRef::<Path>::as_ref(&config.keys.genesis).to_owned(),
            genesis: row.genesis,
        },
        Outbox::new(Vec::new(), Metrics::new()),
    );
    let charter = (Arc::new(charter), reference);
    let core = Core::open(store.as_ref(), charter, row, key, clock, parts).await?;
    let (health, _) = Health::starting().await;
    let (owner, _) = owner::start(core, store, Arc::new(watch::Sender::new(health)));
    Ok(owner)
}
