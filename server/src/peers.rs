//! Who is behind a connection: from the pin of a TLS key to a person of the charter.
//!
//! # Invariants
//! 1. Who somebody is depends on the pin of their key and the charter in force at the moment of the
//!    call, on nothing else: neither names, nor addresses, nor what was true when they connected.
//! 2. A stranger is somebody whom no charter knows; strangers may join, and nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use keyturn_vault::{
    charter::{Charter, Role},
    digest::Digest,
    id::DeviceId,
    key::PublicKey,
    reference::PersonRef,
};
use tonic::{Code, Extensions, Status};

use crate::refusal;

/// The only calls a stranger may make (invariant 2).
pub const OPEN_TO_STRANGERS: [&str; 2] =
    ["/keyturn.v1.Charter/Join", "/keyturn.v1.Charter/JoinDevice"];

/// The other end of a connection, as TLS proved it. Every request carries it in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// SHA-256 of its public key.
    pub pin: Digest,
    /// Its public key.
    pub key: PublicKey,
    /// Where it calls from: for logs and limits only.
    pub address: SocketAddr,
}

/// A person of the charter, and the device they use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub person: PersonRef,
    /// What they may do.
    pub roles: BTreeSet<Role>,
    /// The device.
    pub device: DeviceId,
    /// The device's key is the charter's, so it can sign; otherwise a token signed it in for transport only.
    pub device_signs: bool,
}

/// A device that a custodian's token signed in (`device.joined`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedDevice {
    /// Whose it is.
    pub person: keyturn_vault::id::PersonId,
    /// Which one it is.
    pub id: DeviceId,
    /// The pin of its key.
    pub pin: Digest,
}

/// Everybody who is known; clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<RwLock<Arc<HashMap<Digest, Caller>>>>);

impl Peers {
    /// Nobody is known.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// From now on those whom this charter knows, and the devices that were signed in for them.
    pub fn follow<'a>(
        &self,
        charter: &Charter,
        joined: impl IntoIterator<Item = &'a JoinedDevice>,
    ) {
        let mut known = HashMap::new();
        for device in joined {
            if let Some(person) = charter
                .persons
                .iter()
                .find(|person| person.id == device.person)
            {
                known.insert(
                    device.pin,
                    Caller {
                        person: person.reference(),
                        roles: person.roles.clone(),
                        device: device.id,
                        device_signs: false,
                    },
                );
            }
        }
        for person in &charter.persons {
            for device in &person.devices {
                known.insert(
                    device.key.pin(),
                    Caller {
                        person: person.reference(),
                        roles: person.roles.clone(),
                        device: device.id,
                        device_signs: true,
                    },
                );
            }
        }
        self.replace(known);
    }

    /// From now on these, and nobody else, by their pins.
    pub fn replace(&self, known: HashMap<Digest, Caller>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// Whose device has this pin, if anybody's.
    pub fn caller(&self, pin: &Digest) -> Option<Caller> {
        self.known().get(pin).cloned()
    }

    /// Is this the pin of a known device?
    pub fn knows(&self, pin: &Digest) -> bool {
        self.known().contains_key(pin)
    }

    /// Who makes this request.
    pub fn of<T>(&self, request: &tonic::Request<T>) -> Result<Caller, Status> {
        let peer = peer(request.extensions())?;
        self.caller(&peer.pin).ok_or_else(unknown_device)
    }

    /// Who makes this request, if they have one of these roles.
    pub fn of_role<T>(
        &self,
        request: &tonic::Request<T>,
        roles: &[Role],
    ) -> Result<Caller, Status> {
        let caller = self.of(request)?;
        if roles.iter().any(|role| caller.roles.contains(role)) {
            return Ok(caller);
        }
        let message = format!("{} does not have the role for this", caller.person.name);
        let hint =
            "`keyturn charter show` tells who has which role; a change of the charter gives one";
        Err(refusal::status(
            Code::PermissionDenied,
            "role-missing",
            message,
            hint,
        ))
    }

    fn known(&self) -> Arc<HashMap<Digest, Caller>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The other end of the connection that a request came by.
pub fn peer(extensions: &Extensions) -> Result<&Peer, Status> {
    extensions.get::<Peer>().ok_or_else(unknown_device)
}

/// The refusal of a stranger.
pub fn unknown_device() -> Status {
    refusal::status(
        Code::Unauthenticated,
        "unknown-device",
        "this device is in no charter of this vault",
        "use a computer that has joined; your token signs in another one: keyturn join --device",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyturn_vault::jcs::Document as _;
    use tonic::Request;

    const FIRST: &[u8] = include_bytes!("../../vault/testdata/valid/charter.first.json");

    fn request(key: &PublicKey) -> Request<()> {
        let mut request = Request::new(());
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        request.extensions_mut().insert(Peer {
            pin: key.pin(),
            key: key.clone(),
            address,
        });
        request
    }

    #[test]
    fn a_caller_is_who_the_charter_says_at_that_moment() {
        let charter = Charter::from_bytes(FIRST).unwrap();
        let bob = charter
            .persons
            .iter()
            .find(|person| person.has(Role::Custodian))
            .unwrap();
        let nobody = charter.nodes.first().unwrap().key.clone();
        let peers = Peers::nobody();
        let laptop = &bob.devices.first().unwrap().key;
        assert_eq!(
            peers.of(&request(laptop)).unwrap_err().code(),
            Code::Unauthenticated
        );

        peers.follow(&charter, []);
        let caller = peers.of(&request(laptop)).unwrap();
        assert_eq!(
            (caller.person, caller.device_signs),
            (bob.reference(), true),
            "invariant 1"
        );
        assert!(
            peers
                .of_role(&request(laptop), &[Role::Auditor, Role::Custodian])
                .is_ok()
        );
        let refused = peers
            .of_role(&request(laptop), &[Role::Operator])
            .unwrap_err();
        assert_eq!(
            refused.metadata().get("keyturn-code").unwrap(),
            "role-missing"
        );
        let stranger = peers.of(&request(&nobody)).unwrap_err();
        assert_eq!(
            stranger.metadata().get("keyturn-code").unwrap(),
            "unknown-device",
            "invariant 2"
        );
        assert!(
            peers.of(&Request::new(())).is_err(),
            "no connection, no caller"
        );

        // A device that a token signed in is known, and signs nothing; one of the charter stays what it is.
        let id = bob.devices.first().unwrap().id;
        let joined = [&nobody, laptop].map(|key| JoinedDevice {
            person: bob.id,
            id,
            pin: key.pin(),
        });
        peers.follow(&charter, &joined);
        assert!(!peers.of(&request(&nobody)).unwrap().device_signs);
        assert!(peers.of(&request(laptop)).unwrap().device_signs);

        let mut without = charter.clone();
        without.persons.retain(|person| person.id != bob.id);
        peers.follow(&without, &joined);
        assert!(
            !peers.knows(&laptop.pin()) && !peers.knows(&nobody.pin()),
            "invariant 1"
        );
    }
}
