//! What a restored vault is made of beside the log: its keys, and a store that is being filled.

use std::path::Path;

use keyturn_audit::note::LogKey;
use keyturn_hsm::device::DeviceKey;
use keyturn_vault::{
    charter::{Charter, Node},
    id::NodeId,
    key::PublicKey,
    layout::SealedVersion,
    name::Name as NodeName,
    world::VersionId,
};

use super::{Request, RestoreError};
use crate::{
    clock::Clock,
    keys, rows,
    store::{Key, Name, Outcome, RedbStore, Store as _, Txn},
    telemetry::whole,
};

/// The name of the first node where no charter names one.
const FIRST_NODE: &str = "node-1";
/// Less than the store's limits, so that a row more always fits.
const BATCH_OPERATIONS: usize = 90;
const BATCH_BYTES: usize = 768 * 1024;

/// The keys of the new vault.
pub(super) struct Keys {
    pub(super) log: LogKey,
    pub(super) node: Node,
}

impl Keys {
    /// The old keys where they are given, new ones where not.
    pub(super) fn take(
        request: &Request,
        dir: &Path,
        charter: &Charter,
        clock: &Clock,
    ) -> Result<Self, RestoreError> {
        let wrong = |error: &dyn std::error::Error| RestoreError::Key(whole(error));
        let origin = charter.origin.as_str();
        let log = match &request.log_key {
            Some(path) => keys::read_log_key(path, origin).map_err(|error| wrong(&error))?,
            None => LogKey::generate(origin).map_err(|error| wrong(&error))?,
        };
        keys::write_log_key(&dir.join("log.key"), &log).map_err(|error| wrong(&error))?;
        let path = dir.join("node.pem");
        let key = match &request.node_key {
            Some(old) => {
                let bytes = keyturn_hsm::private::read(old).map_err(|error| wrong(&error))?;
                keyturn_hsm::private::create(&path, &bytes).map_err(|error| wrong(&error))?;
                DeviceKey::load(&path).map_err(|error| wrong(&error))?
            }
            None => DeviceKey::create(&path, origin).map_err(|error| wrong(&error))?,
        };
        let key = PublicKey::from_der(key.public().spki()).map_err(|error| wrong(&error))?;
        let known = charter.nodes.iter().find(|node| node.key == key).cloned();
        let node = match known {
            Some(node) => node,
            None => new_node(charter, key, clock)?,
        };
        Ok(Self { log, node })
    }
}

fn new_node(charter: &Charter, key: PublicKey, clock: &Clock) -> Result<Node, RestoreError> {
    let wrong = |error: &dyn std::error::Error| RestoreError::Key(whole(error));
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| wrong(&error))?;
    Ok(Node {
        id: NodeId::from_parts(clock.now(), random),
        name: node_name(charter)?,
        key,
    })
}

/// A new node takes the place of the charter's.
pub(super) fn node_name(charter: &Charter) -> Result<NodeName, RestoreError> {
    match charter.nodes.first() {
        Some(node) => Ok(node.name.clone()),
        None => FIRST_NODE
            .parse()
            .map_err(|_| RestoreError::Key("a name for the node".to_owned())),
    }
}

/// A sealed value as the store has it.
pub(crate) fn blob(sealed: SealedVersion) -> rows::Blob {
    let holders = sealed.manifest.groups.iter().flat_map(|group| {
        let holders = group.holders.iter();
        holders.map(|holder| (group.group.clone(), holder.person, holder.x))
    });
    let envelopes = holders.zip(sealed.envelopes);
    rows::Blob {
        envelopes: envelopes
            .map(|((group, person, x), envelope)| rows::Envelope {
                group,
                person,
                x,
                envelope,
            })
            .collect(),
        signature: sealed.signature,
        ciphertext: sealed.payload,
    }
}

/// A store that is being filled.
pub(super) struct Filler {
    runtime: tokio::runtime::Runtime,
    store: RedbStore,
    txn: Txn,
}

impl Filler {
    pub(super) fn create(path: &Path) -> Result<Self, RestoreError> {
        let wrong = |error: &dyn std::error::Error| RestoreError::Store(whole(error));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Ok(Self {
            runtime: runtime.map_err(|error| wrong(&error))?,
            store: RedbStore::create(path).map_err(|error| wrong(&error))?,
            txn: Txn::new(),
        })
    }

    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) -> Result<(), RestoreError> {
        let bytes = self.txn.bytes().saturating_add(value.len());
        if self.txn.operations() >= BATCH_OPERATIONS || bytes > BATCH_BYTES {
            self.commit()?;
        }
        self.txn = std::mem::take(&mut self.txn).put(key, value);
        Ok(())
    }

    pub(super) fn row<T: serde::Serialize>(
        &mut self,
        name: &Name<'_>,
        row: &T,
    ) -> Result<(), RestoreError> {
        let row = rows::encode(row).map_err(|_| RestoreError::Rows)?;
        self.put(name.key(), row)
    }

    pub(super) fn blob(
        &mut self,
        version: VersionId,
        sealed: SealedVersion,
    ) -> Result<(), RestoreError> {
        let key = Name::Version(version.credential, version.version.number());
        self.row(&key, &blob(sealed))
    }

    fn commit(&mut self) -> Result<(), RestoreError> {
        let txn = std::mem::take(&mut self.txn);
        match self.runtime.block_on(self.store.txn(txn)) {
            Ok(Outcome::Committed(_)) => Ok(()),
            Ok(Outcome::Conflict(_)) => Err(RestoreError::Rows),
            Err(error) => Err(RestoreError::Store(whole(&error))),
        }
    }

    pub(super) fn finish(mut self) -> Result<(), RestoreError> {
        self.commit()?;
        self.runtime.block_on(self.store.close());
        Ok(())
    }
}
