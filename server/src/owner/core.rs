//! What the owner holds in memory: a cache of the store, the clocks, and what watches it.
//!
//! Credentials and ceremonies are loaded when a step needs them, so that start-up and memory do not
//! grow with the vault. Manifests and definitions come in by digest and are checked against it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use keyturn_audit::{note::LogKey, tree::Edge};
use keyturn_proto::v1;
use keyturn_vault::{
    ceremony::{Ceremony, State},
    charter::Charter,
    digest::Digest,
    id::{CeremonyId, CredentialId, PersonId},
    machine::{Millis, Now},
    name::CredentialPath,
    reference::CharterRef,
    rotation::Slot,
    text::{self, Change, Purpose},
    world::{Holding, Holdings, World},
};
use tokio::sync::watch;

pub use super::load::put_object;
use super::{
    WeakOwner, change::Proposal, meter::Meter, outbox::Outbox, restore::Restoring, time::Due,
    txn::Changed,
};
use crate::{
    chain::Known,
    clock::Clock,
    desk::{Desks, Share},
    keys::Pinned,
    log::Objects,
    metrics::Metrics,
    mode::Mode,
    peers::Peers,
    refusal::Refused,
    rotation::Workshop,
    rows::{self, Clocks, read},
    store::{self, Name, Rev, Store, space::Space},
    tally::Tally,
};

/// Credentials held in memory at most; beyond it the cache starts anew.
pub const MAX_HELD: usize = 2048;
/// Ceremonies that somebody watches, before it is looked who has gone.
pub const MAX_WATCHERS: usize = 64;
/// Ceremonies that are over and still held in memory at most.
pub const MAX_OVER: usize = 1024;
/// How often the vault's own clocks are stored.
pub const CLOCKS_EVERY: Duration = Duration::from_mins(1);

/// The rows that a step looks at.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Ceremonies, with the credentials that they name.
    pub ceremonies: Vec<CeremonyId>,
    /// Credentials.
    pub credentials: Vec<CredentialId>,
    /// Credentials by path.
    pub paths: Vec<CredentialPath>,
    /// Documents that somebody proposed.
    pub proposals: Vec<Digest>,
    /// Every credential: what a change of the charter is judged by.
    pub everything: bool,
    /// Whether the rest goes on where the row of a credential or ceremony cannot be used.
    pub lenient: bool,
}

impl Needs {
    /// Nothing but what is always there.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// One ceremony.
    pub fn ceremony(id: CeremonyId) -> Self {
        Self {
            ceremonies: vec![id],
            ..Self::default()
        }
    }

    /// What a request names, besides its own ceremony.
    pub fn request(request: &text::Request) -> Self {
        let mut needs = Self::ceremony(request.ceremony);
        needs.credentials = request
            .credentials
            .iter()
            .map(|line| line.credential)
            .collect();
        match &request.purpose {
            Purpose::Change(Change::Charter(new)) => {
                needs.proposals.push(new.digest);
                needs.everything = true;
            }
            Purpose::Change(Change::Definition {
                credential, new, ..
            }) => {
                needs.credentials.push(*credential);
                needs.proposals.push(*new);
            }
            Purpose::Extend { checkout, .. } => needs.ceremonies.push(*checkout),
            Purpose::Erase { ceremony, .. } => needs.ceremonies.push(*ceremony),
            Purpose::AcceptRestore(accepted) => needs.proposals.push(accepted.documents),
            Purpose::Unseal | Purpose::Drill | Purpose::Reshare(_) => {}
        }
        needs
    }

    /// Those of these credentials whose rows can be used.
    pub fn listed(ids: impl IntoIterator<Item = CredentialId>) -> Self {
        Self {
            lenient: true,
            ..Self::credentials(ids)
        }
    }

    /// These credentials.
    pub fn credentials(ids: impl IntoIterator<Item = CredentialId>) -> Self {
        Self {
            credentials: ids.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// A credential in memory.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its row.
    pub row: rows::Credential,
    /// The same as the machines want it.
    pub holding: Holding,
    /// Its slot: the lives of its versions, and its rotation.
    pub slot: Slot,
}

/// A ceremony in memory.
#[derive(Clone, Debug)]
pub struct Live {
    /// The machine, with the shares.
    pub machine: Ceremony<Share>,
    /// The parsed request.
    pub request: Arc<text::Request>,
    /// Everything that is stored; its `row` is the machine's.
    pub row: rows::Ceremony,
    /// What was opened, from `Opened` until the commit that keeps it.
    pub opened: Option<rows::Release>,
    /// The receipt of `unseal.authorized`, from the commit that appended it.
    pub receipt: Option<v1::Receipt>,
}

/// A ceremony as its watchers see it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it stands.
    pub state: State,
    /// Whether it combines shares.
    pub opens: bool,
    /// Who asked.
    pub requester: PersonId,
    /// For display.
    pub view: v1::CeremonyView,
    /// What was opened with its receipts, while it is at hand.
    pub release: Option<Arc<v1::Release>>,
}

/// The state of the vault.
pub struct Core {
    pub(super) vault: rows::Vault,
    pub(crate) known: Arc<Known>,
    pub(super) held: BTreeMap<CredentialId, Held>,
    pub(super) paths: HashMap<CredentialPath, CredentialId>,
    /// Definitions that were followed back to their first ones, and manifests whose sealers signed them.
    pub(super) proven: HashSet<Digest>,
    /// The charter that is not in force and was looked at last.
    pub(super) earlier: Option<(CharterRef, Arc<Charter>)>,
    /// Rows of the store that are not what was signed.
    pub(super) distrusted: BTreeSet<String>,
    /// Shared with what would put an older state back.
    pub(crate) live: BTreeMap<CeremonyId, Arc<Live>>,
    pub(crate) due: Due,
    /// Ceremonies that are not over: by requester, and in all.
    pub(super) open_of: BTreeMap<PersonId, usize>,
    pub(super) open: usize,
    pub(super) bounds: Bounds,
    pub(super) proposals: HashMap<Digest, Proposal>,
    pub(super) kept: rows::Proposals,
    pub(super) outbox: Outbox,
    pub(crate) desks: Desks,
    pub(super) peers: Peers,
    pub(super) objects: Objects,
    pub(super) changed: Changed,
    pub(super) edge: Edge,
    pub(super) head_rev: Rev,
    pub(super) key: Arc<LogKey>,
    pub(super) clock: Clock,
    pub(super) base: Clocks,
    /// The running time of the process at which `base` was read.
    pub(super) based: Duration,
    pub(super) clocks_stored: Duration,
    /// What operators count.
    pub(crate) metrics: Metrics,
    /// Refusals that the log does not have yet.
    pub(crate) tally: Tally,
    pub(super) announce: watch::Sender<Arc<Known>>,
    pub(super) heads: watch::Sender<u64>,
    pub(super) watchers: HashMap<CeremonyId, watch::Sender<Arc<Seen>>>,
    pub(super) limits: store::Limits,
    /// Credentials whose rotation was running when the daemon stopped; until the first step.
    pub(super) interrupted: Vec<CredentialId>,
    /// Charters by which not all rosters were looked at when the daemon stopped; until the first step.
    pub(super) rosters: Vec<u64>,
    pub(crate) workshop: Workshop,
    pub(super) pinned: Pinned,
    pub(super) owner: Option<WeakOwner>,
    /// Whether the vault goes on.
    pub(crate) mode: watch::Sender<Mode>,
    /// The room on the disk.
    pub(crate) space: Space,
    /// What commits cost.
    pub(crate) meter: Meter,
    /// What Prometheus was last told of rotations, and of secrets that are not the real ones.
    pub(super) counted: Option<(v1::RotationCounts, u64)>,
    /// What waits to be accepted, in restore mode.
    pub(super) restoring: Option<Arc<Restoring>>,
    /// The step under way is one of the ceremony that ends restore mode.
    pub(super) let_through: bool,
}

/// When caches are looked into; see [`Core::trim`].
pub(super) struct Bounds {
    pub(super) held: usize,
    pub(super) over: usize,
    pub(super) watchers: usize,
}

/// What a core works with beside its store.
pub type Parts = (Desks, Peers, (Objects, Changed), Workshop, Pinned, Outbox);

pub(super) struct HeldCredentials<'a>(pub(super) &'a BTreeMap<CredentialId, Held>);

impl Holdings for HeldCredentials<'_> {
    fn holding(&self, id: CredentialId) -> Option<&Holding> {
        self.0.get(&id).map(|held| &held.holding)
    }
}

impl Core {
    /// Everything that a start needs from the store; nothing that grows with the vault.
    pub async fn open(
        store: &dyn Store,
        charter: (Arc<Charter>, CharterRef),
        vault: rows::Vault,
        key: Arc<LogKey>,
        clock: Clock,
        (desks, peers, (objects, changed), workshop, pinned, outbox): Parts,
    ) -> Result<Self, Refused> {
        let (edge, head_rev) = match store.get(&Name::Head.key()).await? {
            Some((bytes, rev)) => (
                Edge::from_bytes(&bytes).map_err(|_| rows::RowError::Damaged)?,
                rev,
            ),
            None => (Edge::new(), Rev::ABSENT),
        };
        let stored: Option<Clocks> = read(store, &Name::Clock.key()).await?;
        let now = clock.now();
        let base = stored.map_or(
            Clocks {
                wall: now,
                ran: Millis(0),
                lived: Millis(0),
                spoke: Millis(0),
                size: 0,
            },
            |stored| {
                // Downtime counts only where the wall clock says that there was some.
                let down = now.ms().saturating_sub(stored.wall.ms());
                Clocks {
                    wall: now,
                    ran: stored.ran,
                    lived: stored.lived.after(down),
                    ..stored
                }
            },
        );
        let founded = vault.in_force.is_some();
        let known = Arc::new(Known {
            charter: charter.0,
            reference: charter.1,
            founded,
        });
        let (size, limits) = (edge.size(), store.limits());
        let mut core = Self {
            vault,
            known: Arc::clone(&known),
            held: BTreeMap::new(),
            paths: HashMap::new(),
            proven: HashSet::new(),
            earlier: None,
            distrusted: BTreeSet::new(),
            live: BTreeMap::new(),
            due: Due::default(),
            open_of: BTreeMap::new(),
            open: 0,
            bounds: Bounds {
                held: MAX_HELD,
                over: MAX_OVER,
                watchers: MAX_WATCHERS,
            },
            proposals: HashMap::new(),
            kept: rows::Proposals::default(),
            outbox,
            desks,
            peers,
            objects,
            changed,
            edge,
            head_rev,
            key,
            based: clock.running(),
            clocks_stored: clock.running(),
            clock,
            base,
            tally: Tally::default(),
            metrics: Metrics::new(),
            announce: watch::Sender::new(known),
            heads: watch::Sender::new(size),
            watchers: HashMap::new(),
            limits,
            interrupted: Vec::new(),
            rosters: Vec::new(),
            workshop,
            pinned,
            owner: None,
            mode: watch::Sender::new(Mode::Serving),
            space: Space::default(),
            meter: Meter::default(),
            counted: None,
            restoring: None,
            let_through: false,
        };
        core.peers.follow(&core.known.charter, &core.vault.joined());
        core.wake(store).await?;
        Ok(core)
    }

    pub(super) fn attach(&mut self, owner: WeakOwner) {
        self.owner = Some(owner);
    }

    /// Whether there is room for what can wait.
    pub(super) fn spare(&self) -> Result<(), Refused> {
        if self.space.is_low() {
            Err(Refused::LowSpace)
        } else {
            Ok(())
        }
    }

    /// Whether the vault goes on; said once, before the owner runs.
    pub fn begin(&mut self, mode: Mode, restoring: Option<Restoring>) -> watch::Receiver<Mode> {
        self.restoring = restoring.map(Arc::new);
        self.mode.send_replace(mode);
        self.mode.subscribe()
    }

    /// The way back to the owner, for what follows a commit; it does not keep the owner alive.
    pub(super) fn owner(&self) -> Option<&WeakOwner> {
        self.owner.as_ref()
    }

    /// The charter by which handlers verify, as it changes.
    pub fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.announce.subscribe()
    }

    /// The size of the log, as it grows.
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.heads.subscribe()
    }

    /// The committed right edge of the log.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// The key that signs checkpoints.
    pub fn log_key(&self) -> &Arc<LogKey> {
        &self.key
    }

    /// The clocks, for one step.
    pub fn now(&self) -> Now {
        let since = self.clock.running().saturating_sub(self.based);
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Now {
            wall: self.clock.now(),
            ran: self.base.ran.after(since),
            lived: self.base.lived.after(since),
        }
    }

    /// What the machines judge by.
    pub fn world<'a>(&'a self, holdings: &'a dyn Holdings) -> World<'a> {
        World {
            charter: &self.known.charter,
            in_force: self.known.reference,
            holdings,
        }
    }

    /// Runs `act` with what the machines judge by.
    pub(super) fn judge<T>(&self, act: impl FnOnce(World<'_>) -> T) -> T {
        act(self.world(&HeldCredentials(&self.held)))
    }

    /// A credential that was loaded.
    pub fn credential(&self, id: CredentialId) -> Result<&Held, Refused> {
        self.held
            .get(&id)
            .ok_or(Refused::NotFound("no such credential"))
    }

    /// The id to which a path is bound, once it was loaded.
    pub fn at_path(&self, path: &CredentialPath) -> Option<CredentialId> {
        self.paths.get(path).copied()
    }

    /// A ceremony that was loaded.
    pub fn ceremony(&self, id: CeremonyId) -> Result<&Live, Refused> {
        self.live
            .get(&id)
            .map(AsRef::as_ref)
            .ok_or(Refused::NotFound("no such ceremony"))
    }
}
