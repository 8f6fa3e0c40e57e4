//! Durable appends to the log through the owner, each answered when it is durable.

use std::{path::Path, sync::Arc};

use keyturn_hsm::device::DeviceKey;
use keyturn_tests::Outcome;
use keyturn_vault::{
    charter::Charter,
    jcs::Document as _,
    text::{Heartbeat, SignedText},
};
use keyturnd::{
    clock::Clock,
    config::Config,
    connector::Connectors,
    desk::Desks,
    health::Health,
    identity::Node,
    keys::{self, Pinned},
    log::Objects,
    owner::{self, Needs, Owner, core::Core},
    peers::Peers,
    rotation::Workshop,
    rows::{self, object, read},
    store::{Name, RedbStore, Store},
    verify,
};
use tokio::sync::watch;

use crate::{
    figures::{Section, Times, count, instant, rate, time},
    place::Place,
};

/// Appends of one caller.
const ALONE: usize = 4_000;
/// Appends of each of 256 callers.
const TOGETHER: usize = 1_000;

/// A signed sign of life of bob.
async fn heartbeat(place: &Place) -> Outcome<SignedText> {
    let (bob, line) = (place.vault.who("bob")?, place.vault.line("bob").await?);
    let facts = &place.vault.facts;
    bob.sign(&Heartbeat {
        vault: facts.charter.origin.clone(),
        person: bob.person.clone(),
        token: bob.token,
        charter: facts.reference,
        log: line.head(&facts.vkey).await?,
        signed: keyturn_tests::raw::now().stamp(),
        confirmations: Vec::new(),
    })
}

/// The owner of a vault whose daemon is stopped.
async fn open(vault: &Path) -> Outcome<Owner> {
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
        owner::outbox::Outbox::new(Vec::new(), keyturnd::metrics::Metrics::new()),
    );
    let charter = (Arc::new(charter), reference);
    let core = Core::open(store.as_ref(), charter, row, key, clock, parts).await?;
    let (health, _) = Health::starting().await;
    let (owner, _) = owner::start(core, store, Arc::new(watch::Sender::new(health)));
    Ok(owner)
}

/// The table.
pub(crate) async fn measure() -> Outcome<Section> {
    let place = Place::new().await?;
    let heartbeat = heartbeat(&place).await?;
    let facts = place.vault.facts.clone();
    let verified = verify::text(&facts.charter, heartbeat)?;
    let by = place.vault.who("bob")?.person.clone();
    let world = place.halt()?;
    let owner = open(&world.vault()).await?;
    let mut section = Section::new(
        "Durable appends",
        "A heartbeat through the owner: stepped, encoded, hashed, committed with an `fsync`, answered. Signatures are \
         verified by the callers beforehand and not part of it.",
        &["", "p50", "p99", "appends per second"],
    );
    for (callers, each) in [(1, ALONE), (256, TOGETHER)] {
        let begun = instant();
        let mut running = Vec::new();
        for _ in 0..callers {
            let (owner, verified, by) = (owner.clone(), verified.clone(), by.clone());
            running.push(tokio::spawn(async move {
                let mut times = Times::default();
                for _ in 0..each {
                    let (verified, by) = (verified.clone(), by.clone());
                    let begun = instant();
                    let step = move |core: &mut Core, txn: &mut owner::Txn| {
                        core.heartbeat(txn, verified, &by)
                    };
                    owner
                        .ask(Needs::nothing(), step)
                        .await
                        .map_err(|error| error.to_string())?;
                    times.push(begun.elapsed());
                }
                Result::<_, String>::Ok(times)
            }));
        }
        let mut times = Times::default();
        for task in running {
            times.extend(&task.await??);
        }
        let took = begun.elapsed();
        section.row([
            if callers == 1 {
                "1 caller".to_owned()
            } else {
                format!("{callers} callers")
            },
            time(times.p50()),
            time(times.p99()),
            count(rate(times.count(), took)),
        ]);
    }
    Ok(section)
}
