//! The parts of a running daemon, put together: store, owner, log, services.

mod recognise;

use std::{path::Path, sync::Arc};

use keyturn_audit::publish::Dir;
use keyturn_hsm::{attestation::Anchors, device::DeviceKey};
use keyturn_proto::{MAX_MESSAGE, v1};
use tokio::{sync::watch, task::JoinHandle};
use tonic::service::Routes;

use self::recognise::{Recognised, open_store, recognise, tokens};
use crate::{
    backup,
    chain::VaultError,
    clock::Clock,
    config::Config,
    connector::Connectors,
    copies::{Copies, LogKeys, head, sinks},
    desk::Desks,
    gauges,
    health::{Health, Reporter},
    identity::Node,
    log::{Objects, Printer, Published},
    metrics::Metrics,
    mode::{self, Mode},
    notice::{Kind, Severity},
    notify::{self, Notifier},
    owner::{self, Needs, Txn, WeakOwner, core::Core, meter::Meter, outbox::Outbox, places},
    restore::begin,
    rotation::Workshop,
    service::{self, Context, census::Last},
    shell::Shell,
    store::{
        RedbStore, Store,
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
    pub async fn open_with(
        config: &Config,
        connectors: Connectors,
        key: Arc<DeviceKey>,
        shell: Shell,
    ) -> Result<Self, VaultError> {
        let opened = Opened::read(config, connectors, key, &shell).await?;
        opened.start(config, shell).await
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
        // Also where somebody still has it: to mend a file that was not closed takes half a second for each million rows.
        store.close().await;
    }
}

/// A vault that is read and of which nothing runs yet.
struct Opened {
    store: Arc<RedbStore>,
    known: Recognised,
    anchors: Arc<Anchors>,
    node: Node,
    core: Core,
    /// Documents that were committed and are not published yet.
    objects: Objects,
    census: Last,
    notifiers: Vec<Notifier>,
    /// Grows when there is more to tell them.
    posted: watch::Receiver<u64>,
}

impl Opened {
    /// Whose store it is, by pins and keys; then the state that its owner begins with.
    async fn read(
        config: &Config,
        connectors: Connectors,
        key: Arc<DeviceKey>,
        shell: &Shell,
    ) -> Result<Self, VaultError> {
        let data: &Path = config.data.as_ref();
        let store = open_store(data).await?;
        let known = recognise(config, store.as_ref()).await?;
        let anchors = Arc::new(tokens(config, store.as_ref(), &known.charter).await);
        let node = Node::new(known.vault.node, key);
        let (objects, census) = (Objects::default(), Last::default());
        let notifiers = notify::notifiers(&config.notify);
        let outbox = Outbox::new(notify::routes(&notifiers), shell.metrics.clone());
        let posted = outbox.posted();
        let at_once = config.rotation.concurrent.size();
        let workshop = Workshop::new(connectors, node.clone(), shell.clock.clone(), at_once);
        let mut core = Core::open(
            store.as_ref(),
            (Arc::clone(&known.charter), known.reference),
            known.vault.clone(),
            Arc::clone(&known.log_key),
            shell.clock.clone(),
            (
                Desks::default(),
                shell.peers.clone(),
                (Arc::clone(&objects), census.changed()),
                workshop,
                known.pinned.clone(),
                outbox,
            ),
        )
        .await?;
        core.tally = shell.tally.clone();
        core.metrics = shell.metrics.clone();
        core.meter = Meter::of(&shell.metrics);
        core.space = Space::of(data, Bounds::of(&config.store)).await;
        Ok(Self {
            store,
            known,
            anchors,
            node,
            core,
            objects,
            census,
            notifiers,
            posted,
        })
    }

    /// Starts the owner, what follows its commits, and the services.
    async fn start(self, config: &Config, shell: Shell) -> Result<Vault, VaultError> {
        let Self {
            store,
            known,
            node,
            mut core,
            ..
        } = self;
        let (clock, log_key) = (shell.clock, Arc::clone(&known.log_key));
        let health = Arc::new(watch::Sender::new(shell.health));
        let view: Arc<dyn Store> = Arc::<RedbStore>::clone(&store);
        let dir = Dir::new(config.data.as_ref().join("log"));
        let (signer, heads) = (Arc::clone(&log_key), core.heads());
        let (printer, published) =
            Printer::open(dir, Arc::clone(&view), signer, self.objects, heads);
        let mode = begin(config, view.as_ref(), &known, &node, &mut core).await?;
        let (stop, stopping) = watch::channel(false);
        let keys = LogKeys::of(log_key.vkey(), &known.chain);
        let copying = copy(config, &keys, (&view, &published, &mode), &clock, &stopping);
        let copies_min = config.copies.min.size();
        core.workshop.copy_to(copying.places.clone(), copies_min);

        let announced = core.known();
        let (desks, workshop) = (core.desks.clone(), core.workshop.clone());
        let space = core.space.clone();
        let (owner, owner_task) = owner::start(core, Arc::clone(&view), Arc::clone(&health));
        let printer = tokio::spawn(printer.run(mode.clone()));
        let told = (&mode, &known.charter.origin);
        let notifiers = notify::start(self.notifiers, &owner, &self.posted, &clock, told);
        let context = Context {
            owner,
            store: view,
            known: announced,
            peers: shell.peers,
            desks,
            node,
            anchors: self.anchors,
            clock,
            published,
            log_key,
            copies: copying.places,
            copies_min,
            workshop,
            space,
            health: Arc::clone(&health),
            census: self.census,
            head_copy: copying.head,
            mode: mode.clone(),
            stop: stopping,
        };
        Ok(Vault {
            watching: watch_over(&context, shell.metrics),
            routes: routes(&context),
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
}

/// Whether the vault goes on, and what is put before the quorum if it does not.
async fn begin(
    config: &Config,
    store: &dyn Store,
    known: &Recognised,
    node: &Node,
    core: &mut Core,
) -> Result<watch::Receiver<Mode>, VaultError> {
    let (chain, log_key) = (&known.chain, &known.log_key);
    let why = known.restoring.as_ref().map(|row| row.why.clone());
    let (keys, edge) = (LogKeys::of(log_key.vkey(), chain), core.edge());
    let mode = mode::of(config, &keys, edge, store, (&known.vault, why)).await;
    let start = begin::Start {
        config,
        store,
        chain,
        log_key,
        node,
        edge,
    };
    let restoring = begin::begin(&start, &mode, known.restoring.clone()).await?;
    Ok(core.begin(mode, restoring))
}

/// What copies to other places.
struct Copying {
    places: Copies,
    head: watch::Receiver<head::Status>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts the copies of what is published, which begin when the vault goes on, and backups.
fn copy(
    config: &Config,
    keys: &LogKeys,
    (store, published, mode): (&Arc<dyn Store>, &Published, &watch::Receiver<Mode>),
    clock: &Clock,
    stopping: &watch::Receiver<bool>,
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
    tasks.push(tokio::spawn(backup::serve(
        config.data.as_ref().to_owned(),
        Arc::clone(store),
        published.clone(),
        mode.clone(),
        stopping.clone(),
    )));
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
