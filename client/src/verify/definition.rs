//! What a credential is: its first definition as an operator signed it, and each later one with the
//! agreement of those who hold it.
//!
//! To whom a secret is sealed follows from the definition. So a daemon's word for it is never taken: every
//! definition is followed back to the first one, once, and remembered by its digest.
//!
//! # Invariants
//! 1. The first definition of a credential is signed by a person who was an operator when it was logged.
//! 2. A later one names the one before, keeps its identity, and was agreed to by the governing group and by
//!    every group that can open the credential before or after, as the charter had them when it was logged.
//! 3. The entry that put it into force is proven to be in the log and says the same.
//! 4. What a computer has verified only grows: a path keeps its credential, and an older definition is never
//!    taken for the one in force again.

use std::collections::BTreeSet;

use keyturn_audit::note::Vkey;
use keyturn_proto::v1;
use keyturn_vault::{
    change,
    charter::{Chain, Charter, Role},
    definition::Definition,
    digest::Digest,
    event::Event,
    id::{CredentialId, GroupName},
    jcs::Document as _,
    name::CredentialPath,
    reference::CharterRef,
    text::{Change, Purpose},
};
use serde::{Deserialize, Serialize};

use super::{
    VerifyError,
    agreement::{Claim, Record},
    log::{self, Proven},
    wire,
};

/// The verified definitions of one credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Its path.
    pub path: CredentialPath,
    /// Its id.
    pub credential: CredentialId,
    /// The digests, oldest first.
    pub definitions: Vec<Digest>,
}

impl Lineage {
    /// Whether this is the newest, one that a newer follows, or one that is not known (invariant 4).
    pub fn knows(&self, new: &Definition, digest: Digest) -> Result<bool, VerifyError> {
        if (&self.path, self.credential) != (&new.path, new.credential) {
            return Err(VerifyError::Other {
                what: format!("the credential at {}", new.path),
                by: "this computer's earlier verification",
            });
        }
        if self.definitions.last() == Some(&digest) {
            return Ok(true);
        }
        if self.definitions.contains(&digest) {
            return Err(VerifyError::OldDefinition(new.path.to_string()));
        }
        Ok(false)
    }
}

/// Checks the next definition of a credential; `old` is the one before, none for the first.
pub fn follow(
    chain: &Chain,
    log: &Vkey,
    old: Option<&Definition>,
    record: &v1::DefinitionRecord,
) -> Result<(Definition, Proven), VerifyError> {
    let new = Definition::from_bytes(&record.definition)
        .map_err(|source| VerifyError::Document("a definition", source))?;
    let digest = Digest::of(&record.definition);
    let what = format!("the definition of {}", new.path);
    let proven = log::receipt(record.defined.clone(), log)?;
    let named = if let Event::CredentialDefined {
        credential,
        path,
        definition,
        ceremony,
        ..
    } = &proven.event
    {
        Some((*credential, path.clone(), *definition, ceremony.is_some()))
    } else {
        None
    };
    // Invariant 3.
    if named != Some((new.credential, new.path.clone(), digest, old.is_some())) {
        return Err(VerifyError::Other {
            what,
            by: "its entry in the log",
        });
    }
    let in_force = chain.at(proven.charter).ok_or_else(|| VerifyError::Other {
        what: "the charter".to_owned(),
        by: "the entry of a definition",
    })?;
    new.validate(in_force.1)
        .map_err(|source| VerifyError::Definition(new.path.to_string(), source))?;
    match old {
        None => first(in_force.1, &new, record, &what)?,
        Some(old) => changed(chain, in_force, old, &new, record, what)?,
    }
    Ok((new, proven))
}

/// Invariant 1.
fn first(
    charter: &Charter,
    new: &Definition,
    record: &v1::DefinitionRecord,
    what: &str,
) -> Result<(), VerifyError> {
    let (signer, signature) =
        wire::signature(record.signature.clone(), "the signature on a definition")?;
    super::signature(charter, signer, &record.definition, &signature, what)?;
    super::person_of(charter, signer)
        .filter(|person| person.has(Role::Operator))
        .ok_or_else(|| VerifyError::Signer(what.to_owned()))?;
    if new.previous.is_some() {
        return Err(VerifyError::Other {
            what: what.to_owned(),
            by: "a first definition",
        });
    }
    Ok(())
}

/// Invariant 2.
fn changed(
    chain: &Chain,
    in_force: (CharterRef, &Charter),
    old: &Definition,
    new: &Definition,
    record: &v1::DefinitionRecord,
    what: String,
) -> Result<(), VerifyError> {
    let document = |source| VerifyError::Document("a definition", source);
    let before = Digest::of(&old.to_bytes().map_err(document)?);
    new.follows(old, before)
        .map_err(|source| VerifyError::Definition(new.path.to_string(), source))?;
    let mut needs: BTreeSet<GroupName> = change::governing(in_force.1);
    needs.extend(old.groups().chain(new.groups()).cloned());
    let claim = Claim {
        what,
        purpose: Purpose::Change(Change::Definition {
            credential: new.credential,
            old: before,
            new: Digest::of(&record.definition),
        }),
        in_force,
        needs,
    };
    let record = Record {
        request: record.request.clone(),
        statements: record.approvals.clone(),
    };
    claim.check(chain, &record).map(drop)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use keyturn_audit::note::LogKey;
    use keyturn_hsm::device::DeviceKey;
    use keyturn_vault::{
        digest::Salt,
        event::Seal,
        key::PublicKey,
        reference::{Head, Signer},
        text::{Approval, Decision, Request, SignedText, Text},
        time::{Span, Time},
    };

    use super::*;
    use crate::verify::sealed::tests::logged;

    /// The golden charter with keys that this test has.
    pub(in crate::verify) struct Scene {
        pub(in crate::verify) chain: Chain,
        pub(in crate::verify) log: LogKey,
        pub(in crate::verify) keys: BTreeMap<Signer, DeviceKey>,
    }

    impl Scene {
        pub(in crate::verify) fn set() -> Self {
            let mut charter = Charter::from_bytes(include_bytes!(
                "../../../vault/testdata/valid/charter.first.json"
            ))
            .unwrap();
            let log = LogKey::generate(charter.origin.as_str()).unwrap();
            charter.log_key = log.vkey().to_string().parse().unwrap();
            let mut keys = BTreeMap::new();
            let mut new = |signer| {
                let key = DeviceKey::generate("x").unwrap();
                let public = PublicKey::from_der(key.public().spki()).unwrap();
                keys.insert(signer, key);
                public
            };
            for person in &mut charter.persons {
                for token in &mut person.tokens {
                    token.approval_key = new(Signer::Token(token.id));
                }
                for device in &mut person.devices {
                    device.key = new(Signer::Device(device.id));
                }
            }
            for node in &mut charter.nodes {
                node.key = new(Signer::Node(node.id));
            }
            let bytes = charter.to_bytes().unwrap();
            let chain = Chain::begin(&bytes, Digest::of(&bytes)).unwrap();
            Self { chain, log, keys }
        }

        pub(in crate::verify) fn charter(&self) -> &Charter {
            self.chain.newest().unwrap().1
        }

        pub(in crate::verify) fn first(&self) -> Definition {
            let mut first = Definition::from_bytes(include_bytes!(
                "../../../vault/testdata/valid/definition.canary.json"
            ))
            .unwrap();
            first.origin = self.charter().origin.clone();
            first
        }

        /// The first one, for the board.
        fn next(&self) -> Definition {
            Definition {
                group: "board".parse().unwrap(),
                previous: Some(digest(&self.first())),
                ..self.first()
            }
        }

        pub(in crate::verify) fn device(&self, name: &str) -> Signer {
            let person = self.charter().persons.iter();
            let mut person = person.filter(|person| person.name.to_string() == name);
            Signer::Device(person.next().unwrap().devices[0].id)
        }

        fn node(&self) -> Signer {
            Signer::Node(self.charter().nodes[0].id)
        }

        fn sign(&self, signer: Signer, bytes: &[u8]) -> Vec<u8> {
            self.keys[&signer].sign(bytes).unwrap()
        }

        pub(in crate::verify) fn text(&self, signer: Signer, text: &impl Text) -> SignedText {
            let text = text.to_text();
            SignedText {
                signature: self.sign(signer, text.as_bytes()),
                text,
                signer,
            }
        }

        pub(in crate::verify) fn request(&self, by: &str, new: &Definition) -> Request {
            let (charter, document) = self.chain.newest().unwrap();
            let person = document.persons.iter();
            let mut person = person.filter(|person| person.name.to_string() == by);
            let made = Time::from_ms(1_800_000_000_000);
            Request {
                vault: document.origin.clone(),
                ceremony: keyturn_vault::id::CeremonyId::from_parts(made, [7; 10]),
                purpose: Purpose::Change(Change::Definition {
                    credential: new.credential,
                    old: digest(&self.first()),
                    new: digest(new),
                }),
                scenario: None,
                group: None,
                requested_by: person.next().unwrap().reference(),
                used_by: None,
                deliver_to: None,
                ticket: None,
                details: Digest::of(b"why"),
                check_out: None,
                waive: BTreeSet::new(),
                charter,
                log: Head {
                    size: 1,
                    root: Digest::of(b"root"),
                },
                opened: made.stamp(),
                valid_for: Span::from_hours(4),
                salt: Salt([7; 32]),
                credentials: Vec::new(),
            }
        }

        /// What a custodian says with one of their tokens.
        fn said(
            &self,
            name: &str,
            token: usize,
            request: &SignedText,
            decision: Decision,
        ) -> SignedText {
            let person = self.charter().persons.iter();
            let mut person = person.filter(|person| person.name.to_string() == name);
            let person = person.next().unwrap();
            let token = &person.tokens[token];
            let approval = Approval {
                request: request.digest(),
                custodian: person.reference(),
                token: token.reference(),
                decision,
                charter: Some(self.chain.newest().unwrap().0),
                log: None,
                signed: Time::from_ms(1_800_000_000_000).stamp(),
            };
            self.text(Signer::Token(token.id), &approval)
        }

        fn yes(&self, name: &str, request: &SignedText) -> SignedText {
            self.said(name, 0, request, Decision::Approve(Vec::new()))
        }

        /// A record as the daemon sends it, with an entry that the log has.
        fn record(
            &self,
            new: &Definition,
            signer: Option<Signer>,
            request: Option<&SignedText>,
            approvals: &[SignedText],
        ) -> v1::DefinitionRecord {
            let definition = new.to_bytes().unwrap();
            let signature = signer.map(|signer| v1::Signature {
                signature: self.sign(signer, &definition),
                signer: Some(wire::wire_signer(signer)),
            });
            let event = Event::CredentialDefined {
                credential: new.credential,
                path: new.path.clone(),
                definition: Digest::of(&definition),
                signature: Seal {
                    signer: signer.unwrap_or(self.node()),
                    signature: vec![1],
                },
                ceremony: request.map(|request| request.parse::<Request>().unwrap().ceremony),
            };
            v1::DefinitionRecord {
                definition,
                signature,
                request: request.map(wire::wire_text),
                approvals: approvals.iter().map(wire::wire_text).collect(),
                defined: Some(logged(&self.log, &event)),
            }
        }

        fn follow(
            &self,
            old: Option<&Definition>,
            record: &v1::DefinitionRecord,
        ) -> Result<Digest, VerifyError> {
            let (new, proven) = follow(&self.chain, self.log.vkey(), old, record)?;
            assert_eq!(proven.n, 0);
            Ok(digest(&new))
        }
    }

    fn digest(definition: &Definition) -> Digest {
        Digest::of(&definition.to_bytes().unwrap())
    }

    #[test]
    fn only_an_operator_adds_a_credential() {
        let scene = Scene::set();
        let first = scene.first();
        for (name, signer, good) in [
            ("an operator", Some(scene.device("alice")), true),
            ("a requester", Some(scene.device("carol")), false),
            ("an auditor", Some(scene.device("erin")), false),
            ("the daemon's own key", Some(scene.node()), false),
            ("nobody", None, false),
        ] {
            let record = scene.record(&first, signer, None, &[]);
            assert_eq!(
                scene.follow(None, &record).is_ok(),
                good,
                "invariant 1: {name}"
            );
        }
        let mut other = scene.record(&first, Some(scene.device("alice")), None, &[]);
        other.signature.as_mut().unwrap().signature = scene.sign(scene.device("alice"), b"other");
        assert!(scene.follow(None, &other).is_err(), "invariant 1");
        let later = scene.record(&scene.next(), Some(scene.device("alice")), None, &[]);
        assert!(
            scene.follow(None, &later).is_err(),
            "invariant 1: a later one as the first"
        );
        assert!(
            scene.follow(Some(&first), &later).is_err(),
            "invariant 2: an operator alone"
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn a_daemon_changes_no_definition_by_itself() {
        let scene = Scene::set();
        let (first, next) = (scene.first(), scene.next());
        let alice = scene.device("alice");
        let request = scene.text(alice, &scene.request("alice", &next));
        let yes = |name| scene.yes(name, &request);
        let other = scene.text(alice, &scene.request("alice", &first));
        let stranger = scene.text(scene.device("erin"), &scene.request("alice", &next));
        let by_node = scene.text(scene.node(), &scene.request("alice", &next));
        let mut altered = yes("dave");
        altered.signature = yes("bob").signature;
        let mut elsewhere = scene.request("alice", &next);
        elsewhere.charter.index = 2;
        let elsewhere = scene.text(alice, &elsewhere);
        let mut borrowed = yes("dave");
        borrowed.signer = alice;
        borrowed.signature = scene.sign(alice, borrowed.text.as_bytes());
        let bob = yes("bob");
        let back = Decision::Retract {
            earlier: bob.digest(),
        };
        let back = scene.said("bob", 0, &request, back);
        let second = scene.said("bob", 1, &request, Decision::Approve(Vec::new()));
        let no = Decision::Refuse {
            reason: Digest::of(b"no"),
        };
        let carols = scene.said("carol", 0, &request, no.clone());
        let no = scene.said("dave", 0, &request, no);
        let all = || vec![yes("bob"), yes("carol"), yes("dave")];
        for (name, request, approvals, good) in [
            ("all agreed", Some(&request), all(), true),
            (
                "those who must",
                Some(&request),
                vec![yes("bob"), yes("dave")],
                true,
            ),
            (
                "and one who refused",
                Some(&request),
                vec![yes("bob"), carols, yes("dave")],
                true,
            ),
            (
                "one who refused first",
                Some(&request),
                vec![no.clone(), yes("bob"), yes("dave")],
                true,
            ),
            (
                "one who refused in the end",
                Some(&request),
                vec![yes("bob"), yes("carol"), yes("dave"), no.clone()],
                false,
            ),
            ("nobody", Some(&request), vec![], false),
            ("no request", None, all(), false),
            (
                "not the new group",
                Some(&request),
                vec![yes("bob"), yes("carol")],
                false,
            ),
            ("one person", Some(&request), vec![yes("bob")], false),
            (
                "one person twice",
                Some(&request),
                vec![yes("bob"), yes("bob")],
                false,
            ),
            (
                "one person with two tokens",
                Some(&request),
                vec![yes("bob"), second],
                false,
            ),
            ("a refusal", Some(&request), vec![yes("bob"), no], false),
            (
                "what was taken back",
                Some(&request),
                vec![bob, yes("dave"), back],
                false,
            ),
            (
                "somebody else's signature",
                Some(&request),
                vec![yes("bob"), altered],
                false,
            ),
            (
                "a device for a token",
                Some(&request),
                vec![yes("bob"), borrowed],
                false,
            ),
            (
                "agreement to something else",
                Some(&request),
                ["bob", "dave"].map(|name| scene.yes(name, &other)).into(),
                false,
            ),
            (
                "a request for something else",
                Some(&other),
                ["bob", "dave"].map(|name| scene.yes(name, &other)).into(),
                false,
            ),
            (
                "a request of somebody else",
                Some(&stranger),
                ["bob", "dave"]
                    .map(|name| scene.yes(name, &stranger))
                    .into(),
                false,
            ),
            (
                "a request of the daemon",
                Some(&by_node),
                ["bob", "dave"].map(|name| scene.yes(name, &by_node)).into(),
                false,
            ),
            (
                "a charter that is not there",
                Some(&elsewhere),
                ["bob", "dave"]
                    .map(|name| scene.yes(name, &elsewhere))
                    .into(),
                false,
            ),
        ] {
            let record = scene.record(&next, None, request, &approvals);
            let found = scene.follow(Some(&first), &record);
            assert_eq!(found.is_ok(), good, "invariant 2: {name}: {found:?}");
        }
    }

    #[test]
    fn a_definition_is_the_one_that_the_log_has_and_keeps_what_it_is() {
        let scene = Scene::set();
        let (first, next) = (scene.first(), scene.next());
        let alice = scene.device("alice");
        let record = |new: &Definition| {
            let request = scene.text(alice, &scene.request("alice", new));
            let approvals = ["bob", "carol", "dave"].map(|name| scene.yes(name, &request));
            scene.record(new, None, Some(&request), &approvals)
        };
        assert!(scene.follow(Some(&first), &record(&next)).is_ok());
        let mut moved = next.clone();
        moved.path = "some/other".parse().unwrap();
        let mut unlinked = next.clone();
        unlinked.previous = Some(Digest::of(b"another"));
        let mut nobody = next.clone();
        nobody.group = "nobody".parse().unwrap();
        for (name, new) in [
            ("another path", moved),
            ("another one before", unlinked),
            ("a group that is not there", nobody),
        ] {
            assert!(
                scene.follow(Some(&first), &record(&new)).is_err(),
                "invariant 2: {name}"
            );
        }
        let with = |event: Option<&Event>| {
            let defined = event.map(|event| logged(&scene.log, event));
            v1::DefinitionRecord {
                defined,
                ..record(&next)
            }
        };
        for (name, lie) in [
            ("no entry", with(None)),
            ("another entry", with(Some(&Event::Alive {}))),
            (
                "another definition's entry",
                v1::DefinitionRecord {
                    defined: record(&first).defined,
                    ..record(&next)
                },
            ),
        ] {
            assert!(
                scene.follow(Some(&first), &lie).is_err(),
                "invariant 3: {name}"
            );
        }
        let lineage = Lineage {
            path: first.path.clone(),
            credential: first.credential,
            definitions: vec![digest(&first), digest(&next)],
        };
        let knows = |new: &Definition| lineage.knows(new, digest(new));
        assert!(knows(&next).unwrap(), "invariant 4");
        assert_eq!(
            knows(&first).unwrap_err().code(),
            "head-mismatch",
            "invariant 4"
        );
        let mut third = next.clone();
        third.previous = Some(digest(&next));
        assert!(!knows(&third).unwrap(), "invariant 4: a new one");
        third.credential = CredentialId::from_parts(Time::from_ms(1), [1; 10]);
        assert!(knows(&third).is_err(), "invariant 4: another credential");
    }
}
