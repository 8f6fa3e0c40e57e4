//! A tiny vault: custodians 1 to 4, a requester 9, one or two credentials.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyturn_vault::{
    ceremony::{Event, Purpose, Request, ValidShare, Voice},
    charter::{
        Charter, Device, Format, Group, GroupRules, Node, Person, Policy, Role, Token, Waiver,
    },
    definition::{Definition, Kind},
    digest::Digest,
    id::{CeremonyId, CredentialId, DeviceId, NodeId, PersonId, TokenId},
    jcs::Document as _,
    key::{PublicKey, ShareKey, VerifierKey},
    machine::{Millis, Now},
    manifest::{Holder, Manifest, SealedGroup},
    name::{GroupName, Origin},
    quorum::{Ask, Says, Vote},
    reference::{CharterRef, Signer, TokenKind, Version},
    text::SignedText,
    time::{Span, Time},
    world::{Holding, Life, Sealed, Stage, VersionId, World},
};

pub(crate) const ALICE: u8 = 9;
pub(crate) const BOB: u8 = 1;
pub(crate) const CAROL: u8 = 2;
pub(crate) const DAVE: u8 = 3;
pub(crate) const ERIN: u8 = 4;

pub(crate) fn person(i: u8) -> PersonId {
    PersonId::from_parts(Time::from_ms(1), [i; 10])
}

pub(crate) fn token(i: u8) -> TokenId {
    TokenId::from_parts(Time::from_ms(2), [i; 10])
}

pub(crate) fn device(i: u8) -> DeviceId {
    DeviceId::from_parts(Time::from_ms(3), [i; 10])
}

pub(crate) fn credential(i: u8) -> CredentialId {
    CredentialId::from_parts(Time::from_ms(4), [i; 10])
}

pub(crate) fn ceremony_id(i: u8) -> CeremonyId {
    CeremonyId::from_parts(Time::from_ms(5), [i; 10])
}

pub(crate) fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

pub(crate) fn version(credential_: u8, number: u64) -> VersionId {
    VersionId {
        credential: credential(credential_),
        version: Version::new(number).unwrap(),
    }
}

/// A P-256 key in shape; nobody here checks a signature.
pub(crate) fn key(i: u8) -> PublicKey {
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
    let mut der: Vec<u8> = (0..prefix.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap())
        .collect();
    der.extend([i; 64]);
    PublicKey::from_der(&der).unwrap()
}

/// An age recipient whose 32 bytes are all `i` (BIP-173).
pub(crate) fn share_key(i: u8) -> ShareKey {
    const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let bits: Vec<u8> = [i; 32]
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let mut values: Vec<u8> = bits
        .chunks(5)
        .map(|chunk| {
            (0..5).fold(0, |value, at| {
                value << 1 | chunk.get(at).copied().unwrap_or(0)
            })
        })
        .collect();
    let checked = b"age"
        .iter()
        .map(|b| b >> 5)
        .chain([0])
        .chain(b"age".iter().map(|b| b & 31));
    let polymod = checked
        .chain(values.iter().copied())
        .chain([0; 6])
        .fold(1_u32, |sum, value| {
            let top = sum >> 25;
            let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
            let terms = [
                0x3b6a_57b2,
                0x2650_8e6d,
                0x1ea1_19fa,
                0x3d42_33dd,
                0x2a14_62b3,
            ];
            (0..5).fold(sum, |sum, bit| {
                if top >> bit & 1 == 1 {
                    sum ^ terms[bit]
                } else {
                    sum
                }
            })
        })
        ^ 1;
    values.extend((0..6).map(|at| u8::try_from(polymod >> (5 * (5 - at)) & 31).unwrap()));
    let data: String = values
        .iter()
        .map(|value| char::from(CHARSET[usize::from(*value)]))
        .collect();
    format!("age1{data}").parse().unwrap()
}

pub(crate) fn log_key(i: u8) -> VerifierKey {
    let key = [[1].as_slice(), &[i; 32]].concat();
    let hash = Digest::of(&[b"vault.example.org/prod\n".as_slice(), &key].concat()).to_string();
    format!(
        "vault.example.org/prod+{}+{}",
        &hash[..8],
        STANDARD.encode(key)
    )
    .parse()
    .unwrap()
}

pub(crate) fn origin() -> Origin {
    "vault.example.org/prod".parse().unwrap()
}

/// A charter whose governing group `ops` has these custodians.
pub(crate) fn charter(index: u64, k: u8, custodians: &[u8]) -> Charter {
    let mut persons: Vec<Person> = custodians
        .iter()
        .map(|i| Person {
            id: person(*i),
            name: format!("custodian{i}").parse().unwrap(),
            roles: BTreeSet::from([Role::Custodian]),
            tokens: vec![Token {
                id: token(*i),
                kind: TokenKind::Software,
                serial: None,
                approval_key: key(*i),
                share_key: share_key(*i),
                attestation: None,
            }],
            devices: vec![Device {
                id: device(*i),
                name: "laptop".parse().unwrap(),
                key: key(100 + i),
            }],
        })
        .collect();
    persons.push(Person {
        id: person(ALICE),
        name: "alice".parse().unwrap(),
        roles: BTreeSet::from([Role::Requester, Role::Operator]),
        tokens: Vec::new(),
        devices: vec![Device {
            id: device(ALICE),
            name: "desk".parse().unwrap(),
            key: key(100 + ALICE),
        }],
    });
    let mut policy = Policy::named("standard".parse().unwrap());
    policy.require_attestation = false;
    Charter {
        restored: None,
        format: Format::V1,
        origin: origin(),
        index,
        previous: (index > 1).then(|| Digest::of(b"the one before")),
        persons,
        groups: vec![Group {
            name: group("ops"),
            k,
            members: custodians.iter().map(|i| person(*i)).collect(),
            governing: true,
            allow_no_spare: false,
            rules: GroupRules::default(),
        }],
        policies: vec![policy],
        scenarios: Vec::new(),
        nodes: vec![Node {
            id: NodeId::from_parts(Time::from_ms(6), [1; 10]),
            name: "node-1".parse().unwrap(),
            key: key(200),
        }],
        log_key: log_key(1),
        witnesses: Vec::new(),
        joins: BTreeSet::new(),
    }
}

pub(crate) fn reference(charter: &Charter) -> CharterRef {
    CharterRef {
        index: charter.index,
        digest: Digest::of(&charter.to_bytes().unwrap()),
    }
}

pub(crate) fn commitment(line: VersionId, i: u8) -> Digest {
    Digest::of(format!("{line} {i}").as_bytes())
}

pub(crate) fn definition(i: u8) -> Definition {
    Definition {
        format: keyturn_vault::definition::Format::V1,
        origin: origin(),
        credential: credential(i),
        path: format!("aws/root-{i}").parse().unwrap(),
        kind: Kind::Text,
        group: group("ops"),
        fallback: None,
        policy: "standard".parse().unwrap(),
        connector: None,
        canary: false,
        metadata: BTreeMap::new(),
        previous: None,
    }
}

pub(crate) fn manifest(line: VersionId, k: u8, holders: &[u8], charter: &Charter) -> Manifest {
    let holders: Vec<Holder> = holders
        .iter()
        .zip(1_u8..)
        .map(|(i, x)| Holder {
            person: person(*i),
            x,
            tokens: BTreeSet::from([token(*i)]),
            commitment: commitment(line, *i),
            envelope: Digest::of(b"envelope"),
        })
        .collect();
    Manifest {
        format: keyturn_vault::manifest::Format::V1,
        origin: origin(),
        definition: Digest::of(b"definition"),
        credential: line.credential,
        version: line.version,
        kind: Kind::Text,
        charter: reference(charter),
        ciphertext: Digest::of(b"ciphertext"),
        groups: vec![SealedGroup {
            group: group("ops"),
            k,
            n: u8::try_from(holders.len()).unwrap(),
            holders,
        }],
    }
}

pub(crate) fn life(stage: Stage) -> Life {
    Life {
        stage,
        proven: stage == Stage::Current || stage == Stage::Superseded,
        rolled: false,
    }
}

/// A credential with versions 1, 2, … in these stages, sealed to these custodians.
pub(crate) fn holding(
    i: u8,
    stages: &[Stage],
    k: u8,
    holders: &[u8],
    charter: &Charter,
) -> Holding {
    let versions = stages.iter().zip(1_u64..).map(|(stage, number)| {
        let line = version(i, number);
        let manifest = manifest(line, k, holders, charter);
        let digest = Digest::of(&manifest.to_bytes().unwrap());
        (
            line.version,
            Sealed {
                life: life(*stage),
                digest,
                manifest: manifest.into(),
            },
        )
    });
    let definition = definition(i);
    let digest = Digest::of(&definition.to_bytes().unwrap());
    Holding {
        definition: definition.into(),
        digest,
        versions: versions.collect(),
        out: BTreeMap::new(),
    }
}

/// A charter in force and its credentials.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) charter: Charter,
    pub(crate) in_force: CharterRef,
    pub(crate) holdings: BTreeMap<CredentialId, Holding>,
}

impl Tiny {
    /// Three custodians, two of whom suffice; one credential with version 1.
    pub(crate) fn new() -> Self {
        let charter = charter(1, 2, &[BOB, CAROL, DAVE]);
        let holding = holding(1, &[Stage::Current], 2, &[BOB, CAROL, DAVE], &charter);
        Self {
            in_force: reference(&charter),
            charter,
            holdings: BTreeMap::from([(credential(1), holding)]),
        }
    }

    pub(crate) fn world(&self) -> World<'_> {
        World {
            charter: &self.charter,
            in_force: self.in_force,
            holdings: &self.holdings,
        }
    }

    pub(crate) fn policy(&mut self) -> &mut Policy {
        &mut self.charter.policies[0]
    }

    pub(crate) fn digest(&self, line: VersionId) -> Digest {
        self.holdings[&line.credential].versions[&line.version].digest
    }

    /// A request for the live versions of these credentials.
    pub(crate) fn request(&self, i: u8, credentials: &[u8]) -> Request {
        let lines = credentials.iter().flat_map(|i| {
            let live = self.holdings[&credential(*i)].live();
            live.map(|(number, sealed)| {
                (
                    VersionId {
                        credential: credential(*i),
                        version: number,
                    },
                    sealed.digest,
                )
            })
        });
        Request {
            id: ceremony_id(i),
            text: Digest::of(&[i]),
            purpose: Purpose::Unseal,
            ask: Ask {
                requester: person(ALICE),
                lines: lines.collect(),
                group: None,
                needs: BTreeSet::new(),
                waive: BTreeSet::new(),
            },
            base: None,
            charter: self.in_force,
            scenario: None,
            ticket: false,
            check_out: Some(Span::from_hours(2)),
            valid_for: Span::from_hours(4),
            waiting: Span::ZERO,
            signed: signed("request", Signer::Device(device(ALICE))),
        }
    }

    /// What a custodian would truthfully approve of these lines.
    pub(crate) fn vote(&self, request: Digest, lines: &BTreeMap<VersionId, Digest>, i: u8) -> Vote {
        let says = lines.keys().map(|line| {
            let sealed = &self.holdings[&line.credential].versions[&line.version];
            let held = sealed.manifest.groups[0].holder(person(i));
            let says = held.map_or(Says::NotHeld, |held| Says::Share {
                x: held.x,
                commitment: held.commitment,
            });
            (*line, says)
        });
        Vote {
            text: Digest::of(&[*request.as_bytes(), [i; 32]].concat()),
            request,
            person: person(i),
            token: token(i),
            key: key(i).pin(),
            device: Some(device(i)),
            broken: BTreeSet::<Waiver>::new(),
            says: says.collect(),
        }
    }

    /// The shares of these lines that a custodian has.
    pub(crate) fn shares(&self, lines: &BTreeMap<VersionId, Digest>, i: u8) -> Vec<ValidShare<u8>> {
        let held = lines.keys().filter_map(|line| {
            let sealed = &self.holdings[&line.credential].versions[&line.version];
            let held = sealed.manifest.groups[0].holder(person(i))?;
            Some(ValidShare {
                version: *line,
                group: group("ops"),
                x: held.x,
                share: i,
            })
        });
        held.collect()
    }
}

pub(crate) fn approve<S>(vote: Vote) -> Event<S> {
    let signed = signed("approval", Signer::Token(vote.token));
    Event::Approve(vote, signed)
}

/// A refusal, or a retraction of what has this digest.
pub(crate) fn voice(request: Digest, i: u8, earlier: Option<Digest>) -> Voice {
    let word = if earlier.is_some() {
        "retract"
    } else {
        "refuse"
    };
    Voice {
        request,
        person: person(i),
        token: token(i),
        key: key(i).pin(),
        earlier,
        signed: signed(&format!("{word} {i}"), Signer::Token(token(i))),
    }
}

pub(crate) fn signed(text: &str, signer: Signer) -> SignedText {
    SignedText {
        text: text.to_owned(),
        signature: Vec::new(),
        signer,
    }
}

/// Everything runs, nothing is ever down.
pub(crate) fn now(ms: u64) -> Now {
    Now {
        wall: Time::from_ms(ms),
        ran: Millis(ms),
        lived: Millis(ms),
    }
}
