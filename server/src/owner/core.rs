//! What the owner holds in memory: a cache of the store, the clocks, and what watches it.
//!
//! Credentials and ceremonies are loaded when a step needs them, so that start-up and memory do not
//! grow with the vault. Manifests and definitions come in by digest and are checked against it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keyturn_audit::{entry::Entry, note::LogKey, tree::Edge};
use keyturn_proto::v1;
use keyturn_seal as seal;
use keyturn_vault::{
    ceremony::{Ceremony, State},
    charter::Charter,
    definition::Definition,
    digest::Digest,
    event::Event,
    id::{CeremonyId, CredentialId, PersonId},
    jcs::Document,
    machine::{Millis, Now},
    manifest::Manifest,
    name::CredentialPath,
    reference::CharterRef,
    text::{self, Text as _},
    time::Time,
    world::{Holding, Holdings, Sealed, Stage, World},
};
use tokio::sync::{
    mpsc::{Sender, WeakSender},
    watch,
};

use super::{
    Committed, Work,
    rows::{self, Clocks},
    txn::{After, Row, Txn},
};
use crate::{
    clock::Clock,
    desk::Desks,
    peers::Peers,
    refusal::Refused,
    service::ceremony::wire_release,
    store::{self, Key, Name, Rev, Store},
};

/// A share that was checked against its commitment; the machine cannot look at it.
#[derive(Clone)]
pub struct Share(pub Arc<seal::ValidShare>);

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share(x{})", self.0.x())
    }
}

impl PartialEq for Share {
    /// By the commitment: the share itself is looked at by nobody.
    fn eq(&self, other: &Self) -> bool {
        self.0.commitment() == other.0.commitment()
    }
}

/// Credentials held in memory at most; beyond it the cache starts anew.
pub const MAX_HELD: usize = 2048;
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
}

/// A ceremony in memory.
#[derive(Clone, Debug)]
pub struct Live {
    /// The machine, with the shares.
    pub machine: Ceremony<Share>,
    /// The parsed request.
    pub request: Arc<text::Request>,
    /// Everything else that is stored; its `row` is the machine's when it is written.
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

/// What handlers may know without asking: the charter by which they verify.
#[derive(Clone, Debug)]
pub struct Known {
    /// The charter in force, or the one that the founders are joining.
    pub charter: Arc<Charter>,
    /// Its index and digest.
    pub reference: CharterRef,
    /// Whether it is in force.
    pub founded: bool,
}

/// The state of the vault.
pub struct Core {
    pub(super) vault: rows::Vault,
    pub(crate) known: Arc<Known>,
    pub(super) held: BTreeMap<CredentialId, Held>,
    pub(super) paths: HashMap<CredentialPath, CredentialId>,
    pub(super) live: BTreeMap<CeremonyId, Live>,
    pub(super) due: BTreeSet<(Millis, DueKind, [u8; 16])>,
    pub(super) open_of: BTreeMap<PersonId, usize>,
    pub(crate) desks: Desks,
    pub(super) peers: Peers,
    objects: Objects,
    edge: Edge,
    head_rev: Rev,
    key: Arc<LogKey>,
    clock: Clock,
    base: Clocks,
    /// The running time of the process at which `base` was read.
    based: Duration,
    clocks_stored: Duration,
    announce: watch::Sender<Arc<Known>>,
    heads: watch::Sender<u64>,
    pub(super) watchers: HashMap<CeremonyId, watch::Sender<Arc<Seen>>>,
    limits: store::Limits,
    owner: Option<WeakSender<Work>>,
}

/// Documents that were committed and are not published yet; clones are the same.
pub type Objects = Arc<Mutex<Vec<Digest>>>;

/// What the clock will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueKind {
    /// A ceremony waits or ends.
    Ceremony,
}

impl DueKind {
    fn name(self) -> &'static str {
        match self {
            Self::Ceremony => "ceremony",
        }
    }

    fn of(name: &str) -> Option<Self> {
        (name == "ceremony").then_some(Self::Ceremony)
    }
}

struct HeldCredentials<'a>(&'a BTreeMap<CredentialId, Held>);

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
        (desks, peers, objects): (Desks, Peers, Objects),
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
            },
            |stored| {
                // Downtime counts only where the wall clock says that there was some.
                let down = now.ms().saturating_sub(stored.wall.ms());
                Clocks {
                    wall: now,
                    ran: stored.ran,
                    lived: stored.lived.after(down),
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
            live: BTreeMap::new(),
            due: BTreeSet::new(),
            open_of: BTreeMap::new(),
            desks,
            peers,
            objects,
            edge,
            head_rev,
            key,
            based: clock.running(),
            clocks_stored: clock.running(),
            clock,
            base,
            announce: watch::Sender::new(known),
            heads: watch::Sender::new(size),
            watchers: HashMap::new(),
            limits,
            owner: None,
        };
        core.peers.follow(&core.known.charter, &core.vault.joined());
        core.wake(store).await?;
        Ok(core)
    }

    /// Loads what the clock still has to bring: every ceremony that is not over.
    async fn wake(&mut self, store: &dyn Store) -> Result<(), Refused> {
        let mut next = Some(store::KeyRange::family(store::key::Family::Due));
        let mut ceremonies = Vec::new();
        while let Some(range) = next {
            let page = store.range(&range, store::MAX_PAGE_ROWS).await?;
            for row in &page.rows {
                if let Some(Name::Due { at, kind, id }) = row.key.name()
                    && let Some(kind) = DueKind::of(kind)
                {
                    self.due.insert((Millis(at.ms()), kind, id));
                    ceremonies.push(CeremonyId::from_bytes(id));
                }
            }
            next = page.rest;
        }
        for id in ceremonies {
            self.load(store, &Needs::ceremony(id)).await?;
            if let Some(live) = self.live.get(&id) {
                let open = self
                    .open_of
                    .entry(live.machine.row.ask.requester)
                    .or_default();
                *open = open.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Gives the way back to the owner's own queue, weakly: it closes when nobody else can ask.
    pub(super) fn attach(&mut self, owner: WeakSender<Work>) {
        self.owner = Some(owner);
    }

    pub(super) fn queue(&self) -> Option<Sender<Work>> {
        self.owner.as_ref().and_then(WeakSender::upgrade)
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
            .ok_or(Refused::NotFound("no such ceremony"))
    }

    // ---- one turn of the owner

    /// Steps as one: what fails leaves no trace.
    pub(super) fn whole<T>(
        &mut self,
        txn: &mut Txn,
        step: impl FnOnce(&mut Self, &mut Txn) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mark = txn.mark();
        let result = step(self, txn);
        if result.is_err() {
            txn.back_to(mark, self);
        }
        result
    }

    /// Appends an entry to the transaction; gives its number.
    pub(super) fn log(&self, txn: &mut Txn, actor: &str, event: &Event) -> Result<u64, Refused> {
        let n = self
            .edge
            .size()
            .saturating_add(u64::try_from(txn.entries.len()).unwrap_or(u64::MAX));
        let entry = Entry {
            n,
            time: self.clock.now().to_string(),
            charter: self.known.reference.index,
            actor: actor.to_owned(),
            kind: event.kind().to_owned(),
            body: event.body(),
        };
        let bytes = entry
            .encode()
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        txn.entries.push(bytes);
        Ok(n)
    }

    /// The transaction for the store, and what it appends; none when nothing changed.
    pub(super) fn prepare(
        &self,
        txn: &mut Txn,
    ) -> Result<Option<(store::Txn, Arc<Committed>)>, Refused> {
        if txn.is_empty() {
            return Ok(None);
        }
        let batch = self.edge.append(&txn.entries).map_err(|_| Refused::Full)?;
        let mut out = store::Txn::new().when(Name::Head.key(), self.head_rev);
        out = out.put(Name::Head.key(), batch.edge().to_bytes());
        for (n, entry) in (self.edge.size()..).zip(&txn.entries) {
            let mut value = Vec::with_capacity(entry.len().saturating_add(1));
            value.push(ENTRY_FORMAT);
            value.extend_from_slice(entry);
            out = out.put(Name::Entry(n).key(), value);
        }
        for row in &txn.dirty {
            let (key, value) = self.encode(*row)?;
            out = out.put(key, value);
        }
        for (key, value) in std::mem::take(&mut txn.rows) {
            out = match value {
                Some(value) => out.put(key, value),
                None => out.delete(key),
            };
        }
        out.check(self.limits)
            .map_err(|invalid| Refused::Store(store::StoreError::Invalid(invalid)))?;
        let entries = std::mem::take(&mut txn.entries);
        Ok(Some((
            out,
            Arc::new(Committed::new(batch, entries, Arc::clone(&self.key))),
        )))
    }

    fn encode(&self, row: Row) -> Result<(Key, Vec<u8>), Refused> {
        Ok(match row {
            Row::Vault => (Name::Vault.key(), rows::encode(&self.vault)?),
            Row::Credential(id) => (
                Name::Credential(id).key(),
                rows::encode(&self.credential(id)?.row)?,
            ),
            Row::Ceremony(id) => {
                let live = self.ceremony(id)?;
                let row = rows::Ceremony {
                    row: live.machine.row.clone(),
                    ..live.row.clone()
                };
                (Name::Ceremony(id).key(), rows::encode(&row)?)
            }
        })
    }

    /// An outcome for a turn that changed nothing.
    pub(super) fn nothing(&self) -> Arc<Committed> {
        let batch = self.edge.append::<Vec<u8>>([]);
        // Appending nothing to a tree that is there cannot fail; an empty edge stands in if it does.
        let batch = batch.or_else(|_| Edge::new().append::<Vec<u8>>([]));
        match batch {
            Ok(batch) => Arc::new(Committed::new(batch, Vec::new(), Arc::clone(&self.key))),
            Err(_) => std::process::abort(),
        }
    }

    pub(super) fn advance(&mut self, rev: Rev, committed: &Committed) {
        self.head_rev = rev;
        self.edge = committed.batch.edge().clone();
    }

    pub(super) fn roll_back(&mut self, txn: &mut Txn) {
        let start = Txn::default().mark();
        txn.back_to(start, self);
    }

    /// When the outcome is known and everybody has been answered: what follows a commit.
    pub(super) fn settle(&mut self, txn: Txn, committed: Option<&Committed>) {
        let Some(committed) = committed else { return };
        self.heads.send_replace(self.edge.size());
        for row in &txn.dirty {
            if let Row::Ceremony(id) = row {
                self.show(*id, committed);
            }
        }
        if !txn.objects.is_empty() {
            self.objects
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(txn.objects);
        }
        for after in txn.after {
            match after {
                After::Combine(id, sheaves) => self.combine(id, sheaves),
                After::Forget(id) => self.desks.forget(id),
                After::Charter => {
                    self.peers.follow(&self.known.charter, &self.vault.joined());
                    self.announce.send_replace(Arc::clone(&self.known));
                }
            }
        }
        self.trim();
    }

    /// Shows a ceremony that has changed to those who watch it, with receipts of what was just appended.
    fn show(&mut self, id: CeremonyId, committed: &Committed) {
        if !self.watchers.contains_key(&id) {
            return;
        }
        let authorized = self.live.get(&id).and_then(|live| live.row.authorized);
        if let Some(receipt) = authorized.and_then(|n| committed.wire_receipt(n))
            && let Some(live) = self.live.get_mut(&id)
        {
            live.receipt = Some(receipt);
        }
        let Ok(mut seen) = self.seen(id) else { return };
        if let Some(live) = self.live.get(&id)
            && let Some(release) = &live.row.release
            && let Some(receipt) = live.row.released.and_then(|n| committed.wire_receipt(n))
        {
            let release = v1::Release {
                authorized: live.receipt.clone(),
                released: Some(receipt),
                ..wire_release(id, release)
            };
            seen.release = release.authorized.is_some().then(|| Arc::new(release));
        }
        if let Some(watcher) = self.watchers.get(&id) {
            watcher.send_replace(Arc::new(seen));
        }
    }

    /// A ceremony as its watchers see it.
    pub(super) fn seen(&self, id: CeremonyId) -> Result<Seen, Refused> {
        let live = self.ceremony(id)?;
        let row = &live.machine.row;
        Ok(Seen {
            state: row.state.clone(),
            opens: row.purpose.opens(),
            requester: row.ask.requester,
            view: self.view(id)?,
            release: None,
        })
    }

    /// Keeps the caches within their bounds.
    fn trim(&mut self) {
        self.watchers
            .retain(|_, watcher| watcher.receiver_count() > 0);
        if self.held.len() > MAX_HELD {
            let named: BTreeSet<_> = self
                .live
                .values()
                .flat_map(|live| {
                    live.machine
                        .row
                        .ask
                        .lines
                        .keys()
                        .map(|line| line.credential)
                })
                .collect();
            self.held.retain(|id, _| named.contains(id));
            self.paths.clear();
        }
        let over = |live: &Live| live.machine.row.state.is_final();
        if self.live.values().filter(|live| over(live)).count() > MAX_OVER {
            self.live.retain(|_, live| !over(live));
        }
    }

    // ---- time

    /// Sleeps until something is due, at most until the clocks are to be stored.
    pub(super) fn alarm(&self) -> impl Future<Output = ()> + 'static + use<> {
        let lived = self.now().lived;
        let next = self.due.first().map_or(CLOCKS_EVERY, |(at, ..)| {
            Duration::from_millis(lived.until(*at))
        });
        let clock = self.clock.clone();
        async move {
            clock
                .sleep(next.clamp(Duration::from_millis(1), CLOCKS_EVERY))
                .await;
        }
    }

    /// What a tick looks at.
    pub(super) fn due(&self) -> Needs {
        let now = self.now().lived;
        let ids = self
            .due
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .map(|(.., id)| CeremonyId::from_bytes(*id));
        Needs {
            ceremonies: ids.collect(),
            ..Needs::default()
        }
    }

    /// Steps everything that is due, and stores the clocks.
    pub(super) fn tick(&mut self, txn: &mut Txn) -> Result<(), Refused> {
        let now = self.now();
        let due: Vec<_> = self
            .due
            .iter()
            .take_while(|(at, ..)| *at <= now.lived)
            .copied()
            .collect();
        for (at, kind, id) in due {
            self.undue(txn, at, kind, id);
            match kind {
                DueKind::Ceremony => self.ceremony_tick(txn, CeremonyId::from_bytes(id))?,
            }
        }
        let running = self.clock.running();
        if running.saturating_sub(self.clocks_stored) >= CLOCKS_EVERY {
            self.clocks_stored = running;
            let clocks = Clocks {
                wall: now.wall,
                ran: now.ran,
                lived: now.lived,
            };
            txn.put(Name::Clock.key(), rows::encode(&clocks)?);
        }
        Ok(())
    }

    /// Something is due at a time.
    pub(super) fn set_due(&mut self, txn: &mut Txn, at: Millis, kind: DueKind, id: [u8; 16]) {
        if self.due.insert((at, kind, id)) {
            txn.remember(move |core| {
                core.due.remove(&(at, kind, id));
            });
        }
        txn.put(
            Name::Due {
                at: Time::from_ms(at.0),
                kind: kind.name(),
                id,
            }
            .key(),
            vec![ENTRY_FORMAT],
        );
    }

    /// It is no longer due.
    pub(super) fn undue(&mut self, txn: &mut Txn, at: Millis, kind: DueKind, id: [u8; 16]) {
        if self.due.remove(&(at, kind, id)) {
            txn.remember(move |core| {
                core.due.insert((at, kind, id));
            });
            txn.delete(
                Name::Due {
                    at: Time::from_ms(at.0),
                    kind: kind.name(),
                    id,
                }
                .key(),
            );
        }
    }

    // ---- loading

    /// Makes sure that everything named is in memory, if it exists.
    pub(super) async fn load(&mut self, store: &dyn Store, needs: &Needs) -> Result<(), Refused> {
        for id in &needs.ceremonies {
            if !self.live.contains_key(id)
                && let Some(live) = load_ceremony(store, *id).await?
            {
                self.live.insert(*id, live);
            }
            let named: Vec<_> = self
                .live
                .get(id)
                .map(|live| {
                    live.machine
                        .row
                        .ask
                        .lines
                        .keys()
                        .map(|line| line.credential)
                        .collect()
                })
                .unwrap_or_default();
            for credential in named {
                self.load_credential(store, credential).await?;
            }
        }
        for path in &needs.paths {
            if !self.paths.contains_key(path)
                && let Some((id, _)) = store.get(&Name::Path(path.as_str()).key()).await?
            {
                let id: CredentialId = rows::decode(&id)?;
                self.paths.insert(path.clone(), id);
            }
            if let Some(id) = self.paths.get(path).copied() {
                self.load_credential(store, id).await?;
            }
        }
        for id in &needs.credentials {
            self.load_credential(store, *id).await?;
        }
        Ok(())
    }

    async fn load_credential(
        &mut self,
        store: &dyn Store,
        id: CredentialId,
    ) -> Result<(), Refused> {
        if self.held.contains_key(&id) {
            return Ok(());
        }
        let key = Name::Credential(id).key();
        let Some(row) = read::<rows::Credential>(store, &key).await? else {
            return Ok(());
        };
        let definition: Definition = document(store, row.definition).await?;
        let mut versions = BTreeMap::new();
        for (version, state) in &row.versions {
            if state.life.stage != Stage::Destroyed {
                let manifest: Manifest = document(store, state.manifest).await?;
                versions.insert(
                    *version,
                    Sealed {
                        life: state.life,
                        digest: state.manifest,
                        manifest,
                    },
                );
            }
        }
        let holding = Holding {
            definition,
            digest: row.definition,
            versions,
            out: row.out.clone(),
        };
        self.paths.insert(row.path.clone(), id);
        self.held.insert(id, Held { row, holding });
        Ok(())
    }
}

/// The format byte of entries and of rows that only say that they are there.
pub const ENTRY_FORMAT: u8 = 1;

/// A row of the store, decoded.
pub async fn read<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<T>, Refused> {
    match store.get(key).await? {
        Some((bytes, _)) => Ok(Some(rows::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// The bytes of a document; what does not hash to its digest is not there.
pub async fn object(store: &dyn Store, digest: Digest) -> Result<Vec<u8>, Refused> {
    let found = store.get(&Name::Object(digest).key()).await?;
    let bytes = found.and_then(|(bytes, _)| bytes.split_first().map(|(_, rest)| rest.to_vec()));
    bytes
        .filter(|bytes| Digest::of(bytes) == digest)
        .ok_or(Refused::Row)
}

/// A document by its digest.
pub async fn document<T: Document>(store: &dyn Store, digest: Digest) -> Result<T, Refused> {
    T::from_bytes(&object(store, digest).await?).map_err(|_| Refused::Row)
}

/// Writes a document.
pub fn put_object(txn: &mut Txn, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    txn.objects.push(digest);
    txn.put(
        Name::Object(digest).key(),
        [&[ENTRY_FORMAT], bytes].concat(),
    );
    digest
}

async fn load_ceremony(store: &dyn Store, id: CeremonyId) -> Result<Option<Live>, Refused> {
    let key = Name::Ceremony(id).key();
    let Some(row) = read::<rows::Ceremony>(store, &key).await? else {
        return Ok(None);
    };
    let request = text::Request::parse(&row.request.text).map_err(|_| Refused::Row)?;
    Ok(Some(Live {
        machine: Ceremony::wake(row.row.clone()),
        request: Arc::new(request),
        row,
        opened: None,
        receipt: None,
    }))
}
