//! The parts of a running daemon, put together: store, owner, log, services.

use std::{path::Path, sync::Arc};

use keyturn_audit::{note::LogKey, publish::Dir};
use keyturn_hsm::device::DeviceKey;
use keyturn_proto::{MAX_MESSAGE, v1};
use keyturn_vault::charter::Chain;
use tokio::{sync::watch, task::JoinHandle};
use tonic::service::Routes;

use crate::{
    attest, backup,
    chain::{self, VaultError},
    clock::Clock,
    config::Config,
    connector::Connectors,
    copies::{Copies, LogKeys, head, sinks},
    desk::Desks,
    gauges,
    health::{Health, Reporter},
    identity::Node,
    keys::{self, Pinned},
    log::{Objects, Printer, Published},
    metrics::Metrics,
    mode::{self, Mode},
    notice::{Kind, Severity},
    notify,
    owner::{self, Needs, Txn, WeakOwner, core::Core, meter::Meter, outbox::Outbox, places},
    restore::begin,
    rotation::Workshop,
    rows::{self, read},
    service::{self, Context, census::Last},
    shell::Shell,
    store::{
        Name, RedbStore, Store,
        space::{Bounds, Space},
    },
};

/// A vault that is served.
pub struct Vault {
    /// The gRPC services.
    pub routes: Routes,
    owner: JoinHandle<()>,
    printer: JoinHandle<()>,
    /// Places for copies, and the head's copy: they end with the printer.
    copying: Vec<JoinHandle<()>>,
    /// What looks at the vault and changes nothing that matters; ended at the stop.
    watching: Vec<JoinHandle<()>>,
    mode: watch::Receiver<Mode>,
    notifiers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    store: Arc<RedbStore>,
    health: Reporter,
}

impl Vault {
    /// Opens the vault of a configuration.
    pub async fn open(
        config: &Config,
        key: Arc<DeviceKey>,
        shell: Shell,
    ) -> Result<Self, VaultError> {
        Self::open_with(config, Connectors::of(&config.connectors), key, shell).await
    }

    /// Opens it with these connectors.
    #[expect(
        clippy::too_many_lines,
        reason = "the parts of a daemon, put together one after the other"
    )]
    pub async fn open_with(
        config: &Config,
        connectors: Connectors,
        key: Arc<DeviceKey>,
        shell: Shell,
    ) -> Result<Self, VaultError> {
        let Shell {
            clock,
            peers,
            health,
            tally,
            metrics,
        } = shell;
        let health = Arc::new(watch::Sender::new(health));
        let data: &Path = config.data.as_ref();
        let store = open_store(data).await?;
        let view: Arc<dyn Store> = Arc::<RedbStore>::clone(&store);
        let Recognised {
            vault,
            chain,
            pinned,
            log_key,
            restoring,
        } = recognise(config, view.as_ref()).await?;
        let anchors = Arc::new(tokens(config, view.as_ref(), &chain).await?);
        let node = Node::new(vault.node, key);
        let (desks, objects, census) = (Desks::default(), Objects::default(), Last::default());
        let workshop = Workshop::new(
            connectors,
            node.clone(),
            clock.clone(),
            config.rotation.concurrent.size(),
        );
        let notifiers = notify::notifiers(&config.notify);
        let outbox = Outbox::new(notify::routes(&notifiers), metrics.clone());
        let posted = outbox.posted();
        let parts = (
            desks.clone(),
            peers.clone(),
            (Arc::clone(&objects), census.changed()),
            workshop,
            pinned,
            outbox,
        );
        let (reference, charter) = chain
            .newest()
            .ok_or(VaultError::Foreign("it has no charter"))?;
        let origin = charter.origin.clone();
        let mut core = Core::open(
            view.as_ref(),
            (Arc::new(charter.clone()), reference),
            vault.clone(),
            Arc::clone(&log_key),
            clock.clone(),
            parts,
        )
        .await?;
        core.tally = tally;
        core.metrics = metrics.clone();
        let space = Space::of(data, Bounds::of(&config.store)).await;
        core.space = space.clone();
        core.meter = Meter::of(&metrics);
        let workshop = core.workshop.clone();
        let (known, heads) = (core.known(), core.heads());
        let dir = Dir::new(data.join("log"));
        let (printer, published) =
            Printer::open(dir, Arc::clone(&view), Arc::clone(&log_key), objects, heads);
        let mode = begin(
            (config, view.as_ref()),
            (&vault, &chain, restoring),
            (&log_key, &node),
            &mut core,
        )
        .await?;
        let keys = LogKeys::of(log_key.vkey(), &chain);
        let copying = copy(config, &keys, (&view, &published, &mode), &clock);
        workshop.copy_to(copying.places.clone(), config.copies.min.size());
        let (owner, owner_task) = owner::start(core, Arc::clone(&view), Arc::clone(&health));
        let printer = tokio::spawn(printer.run(mode.clone()));
        let notifiers = notify::start(notifiers, &owner, &posted, &clock, (&mode, &origin));
        let (stop, stopping) = watch::channel(false);
        let mut copying = copying;
        copying.tasks.push(tokio::spawn(backup::serve(
            data.to_owned(),
            Arc::clone(&view),
            published.clone(),
            mode.clone(),
            stopping.clone(),
        )));
        let context = Context {
            owner,
            store: view,
            known,
            peers,
            desks,
            node,
            anchors,
            clock,
            published,
            log_key,
            copies: copying.places,
            copies_min: config.copies.min.size(),
            workshop,
            space,
            health: Arc::clone(&health),
            census,
            head_copy: copying.head,
            mode: mode.clone(),
            stop: stopping,
        };
        let watching = watch_over(&context, metrics);
        Ok(Self {
            routes: routes(&context),
            watching,
            owner: owner_task,
            printer,
            copying: copying.tasks,
            mode,
            notifiers,
            stop,
            store,
            health,
        })
    }

    /// Says from now on there whether the store takes changes.
    pub fn report_to(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// Why the vault changes nothing, if it does not go on.
    pub fn waits_for_restore(&self) -> Option<String> {
        self.mode.borrow().why()
    }

    /// Whether the vault goes on, as that changes.
    pub fn mode(&self) -> watch::Receiver<Mode> {
        self.mode.clone()
    }

    /// Ends the streams, so that calls under way can end.
    pub fn stopping(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Waits until everything committed is published and copied, and closes the store.
    pub async fn close(self) {
        let Self {
            routes,
            owner,
            printer,
            copying,
            notifiers,
            watching,
            stop,
            store,
            ..
        } = self;
        stop.send_replace(true);
        // A delivery that is cut off is made again: at least once.
        for notifier in &notifiers {
            notifier.abort();
        }
        for task in watching {
            task.abort();
            // Aborted is as good as ended: what it held is given back.
            let _ = task.await;
        }
        // The services hold the way to the owner; without them it ends, and then the printer does.
        drop(routes);
        let finish = async {
            let _ = owner.await;
            let _ = printer.await;
            for task in copying {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(10), finish)
            .await
            .is_err()
        {
            tracing::warn!("log and copies are not complete; the next start goes on with them");
        }
        if let Some(store) = Arc::into_inner(store) {
            store.close().await;
        }
    }
}

async fn open_store(data: &Path) -> Result<Arc<RedbStore>, VaultError> {
    let path = data.join("store.redb");
    let store = tokio::task::spawn_blocking(move || RedbStore::open(&path));
    let store = store
        .await
        .map_err(|_| VaultError::Foreign("it could not be read"))?;
    Ok(Arc::new(store?))
}

/// What a store is, as pins and keys of this machine have it.
struct Recognised {
    vault: rows::Vault,
    chain: Chain,
    restoring: Option<rows::Restoring>,
    pinned: Pinned,
    log_key: Arc<LogKey>,
}

/// Checks that the store is this vault's: its chain of charters from the pins on, and its log's key.
async fn recognise(config: &Config, store: &dyn Store) -> Result<Recognised, VaultError> {
    let vault: rows::Vault = read(store, &Name::Vault.key())
        .await?
        .ok_or(VaultError::Foreign("it was never founded"))?;
    let path: &Path = config.keys.genesis.as_ref();
    let pins = keys::read_pins(path).map_err(VaultError::Pins)?;
    let chain = chain::walk(&pins, store, &vault).await?;
    let (_, charter) = chain
        .newest()
        .ok_or(VaultError::Foreign("it has no charter"))?;
    let log_key = keys::read_log_key(config.keys.log.as_ref(), charter.origin.as_str())?;
    let restoring: Option<rows::Restoring> = read(store, &Name::Restore.key()).await?;
    if restoring.is_none() && log_key.vkey().to_string() != charter.log_key.as_str() {
        return Err(VaultError::Foreign(
            "its charter names another log key than `keys.log`",
        ));
    }
    Ok(Recognised {
        vault,
        chain,
        restoring,
        pinned: Pinned {
            path: path.to_owned(),
            genesis: pins.genesis,
        },
        log_key: Arc::new(log_key),
    })
}

/// The roots of attestations; a token of the charter in force that they do not vouch for is said.
async fn tokens(
    config: &Config,
    store: &dyn Store,
    chain: &Chain,
) -> Result<keyturn_hsm::attestation::Anchors, VaultError> {
    let (_, charter) = chain
        .newest()
        .ok_or(VaultError::Foreign("it has no charter"))?;
    let roots = config.attestation.roots.as_ref().map(AsRef::as_ref);
    let anchors = attest::roots_or_nobody(roots);
    for (token, why) in attest::unproven(&anchors, store, charter, None).await {
        tracing::warn!(token = %token.reference(), %why, "the charter's attestation of a token does not hold");
    }
    Ok(anchors)
}

/// Whether the vault goes on, and what is put before the quorum if it does not.
async fn begin(
    (config, store): (&Config, &dyn Store),
    (vault, chain, restoring): (&rows::Vault, &Chain, Option<rows::Restoring>),
    (log_key, node): (&LogKey, &Node),
    core: &mut Core,
) -> Result<watch::Receiver<Mode>, VaultError> {
    let why = restoring.as_ref().map(|row| row.why.clone());
    let (keys, edge) = (LogKeys::of(log_key.vkey(), chain), core.edge());
    let mode = mode::of(config, &keys, edge, store, (vault, why)).await;
    if let Some(why) = mode.why() {
        tracing::error!(%why, "nothing changes until a quorum accepts it");
    }
    let start = begin::Start {
        config,
        store,
        chain,
        log_key,
        node,
        edge,
    };
    let restoring = begin::begin(&start, &mode, restoring).await?;
    Ok(core.begin(mode, restoring))
}

/// What copies to other places.
struct Copying {
    places: Copies,
    head: watch::Receiver<head::Status>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts the copies of what is published; they begin when the vault goes on.
fn copy(
    config: &Config,
    keys: &LogKeys,
    (store, published, mode): (&Arc<dyn Store>, &Published, &watch::Receiver<Mode>),
    clock: &Clock,
) -> Copying {
    let newest = published.follow();
    let sinks = sinks(&config.copies, config.data.as_ref(), keys);
    let (places, mut tasks) = Copies::start(sinks, store, &newest, mode);
    let status = watch::Sender::new(head::Status {
        wanted: config.audit.head_copy.is_some(),
        ..head::Status::default()
    });
    let head = status.subscribe();
    if let Some(folder) = &config.audit.head_copy {
        let (folder, mut mode, clock) = (folder.as_ref().to_owned(), mode.clone(), clock.clone());
        let (keys, store) = (keys.clone(), Arc::clone(store));
        tasks.push(tokio::spawn(async move {
            if mode::served(&mut mode).await {
                head::resume(&folder, &keys, store.as_ref()).await;
                head::keep(folder, keys, newest, status, clock).await;
            }
        }));
    }
    Copying {
        places,
        head,
        tasks,
    }
}

/// Starts what looks at room, metrics and places for copies.
fn watch_over(context: &Context, metrics: Metrics) -> Vec<JoinHandle<()>> {
    let places = context.copies.follow().into_iter();
    let owner = context.owner.downgrade();
    let mut tasks: Vec<_> = places
        .map(|place| {
            let (owner, mut mode) = (owner.clone(), context.mode.clone());
            tokio::spawn(async move {
                if mode::served(&mut mode).await {
                    let alarm = places::alarm(place.clone(), owner.clone());
                    tokio::join!(places::log(place, owner), alarm);
                }
            })
        })
        .collect();
    tasks.push(tokio::spawn(tell_low_space(context.space.clone(), owner)));
    let (space, health) = (context.space.clone(), Arc::clone(&context.health));
    tasks.push(tokio::spawn(space.watch(health)));
    tasks.push(tokio::spawn(gauges::keep(context.clone(), metrics)));
    tasks
}

/// Tells people each time that room on the disk becomes low.
async fn tell_low_space(space: Space, owner: WeakOwner) {
    while space.until(true).await {
        let told = (Kind::SpaceLow, Severity::Alert);
        let step = move |core: &mut Core, txn: &mut Txn| core.tell_of_place(txn, told, None);
        if let Err(refused) = owner.insist(Needs::nothing(), step).await {
            tracing::warn!(%refused, "nobody is told that room is low");
        }
        space.until(false).await;
    }
}

fn routes(context: &Context) -> Routes {
    let ceremony =
        v1::ceremony_server::CeremonyServer::new(service::ceremony::Service(context.clone()));
    let credential =
        v1::credential_server::CredentialServer::new(service::credential::Service(context.clone()));
    let charter =
        v1::charter_server::CharterServer::new(service::charter::Service(context.clone()));
    let audit = v1::audit_server::AuditServer::new(service::audit::Service(context.clone()));
    let rotation =
        v1::rotation_server::RotationServer::new(service::rotation::Service(context.clone()));
    let status = v1::status_server::StatusServer::new(service::status::Service(context.clone()));
    Routes::new(ceremony.max_decoding_message_size(MAX_MESSAGE))
        .add_service(credential.max_decoding_message_size(MAX_MESSAGE))
        .add_service(charter.max_decoding_message_size(MAX_MESSAGE))
        .add_service(audit.max_decoding_message_size(MAX_MESSAGE))
        .add_service(rotation.max_decoding_message_size(MAX_MESSAGE))
        .add_service(status.max_decoding_message_size(MAX_MESSAGE))
}
