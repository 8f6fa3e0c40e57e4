//! The replay: one honest log, and what is found when anything in it is otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::tiny::*;
use keyturn_vault::{
    check::Check,
    definition::{Connector, Definition},
    digest::{Digest, Salt},
    event::{Answer, Call, Cause, Event, Evidence, Maker, Seal},
    id::NodeId,
    jcs::Document as _,
    manifest::Manifest,
    quorum::Opening,
    reference::{Head, PersonRef, Signer, TokenKind, TokenRef, Version},
    refusal::Refusal,
    replay::{CODES, Finding, Level, Record, Replay},
    text::{
        Approval, Checkin, CredentialLine, Decision, Join, Purpose, Request, Returned, ShareLine,
        ShareState, SignedText, Text,
    },
    time::{Span, Time},
    world::VersionId,
};

const MINUTE: u64 = 60_000;

/// A log under construction.
#[derive(Clone)]
struct Log {
    tiny: Tiny,
    definition: Definition,
    documents: BTreeMap<Digest, Vec<u8>>,
    records: Vec<Record>,
}

fn who(i: u8) -> PersonRef {
    let name = if i == ALICE {
        "alice".to_owned()
    } else {
        format!("custodian{i}")
    };
    PersonRef {
        name: name.parse().unwrap(),
        id: person(i),
    }
}

fn token_of(i: u8) -> TokenRef {
    TokenRef {
        id: token(i),
        kind: TokenKind::Software,
        serial: None,
    }
}

fn by_token(i: u8, text: &impl Text) -> SignedText {
    signed(&text.to_text(), Signer::Token(token(i)))
}

fn by_device(i: u8, text: &impl Text) -> SignedText {
    signed(&text.to_text(), Signer::Device(device(i)))
}

fn head() -> Head {
    Head {
        size: 1,
        root: Digest::of(b"root"),
    }
}

impl Log {
    fn new() -> Self {
        let tiny = Tiny::new();
        let mut definition = definition(1);
        definition.connector = Some(Connector {
            name: "exec".parse().unwrap(),
            settings: BTreeMap::new(),
        });
        let mut log = Self {
            tiny,
            definition,
            documents: BTreeMap::new(),
            records: Vec::new(),
        };
        let bytes = log.tiny.charter.to_bytes().unwrap();
        log.document(bytes);
        log
    }

    fn document(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.documents.insert(digest, bytes);
        digest
    }

    fn add(&mut self, event: Event) {
        let n = u64::try_from(self.records.len()).unwrap();
        let record = Record {
            n,
            time: Time::from_ms(n * MINUTE),
            charter: 1,
            actor: "node-1".to_owned(),
            event,
        };
        self.records.push(record);
    }

    fn found(&mut self) {
        let charter = self.tiny.in_force;
        let join = |i| Join {
            vault: origin(),
            genesis: charter.digest,
            charter,
            enrolment: Digest::of(b"enrolment"),
            person: who(i),
            token: token_of(i),
            nonce: Salt([i; 32]),
            signed: Time::from_ms(0).stamp(),
        };
        let joins = [BOB, CAROL, DAVE].map(|i| by_token(i, &join(i))).to_vec();
        self.add(Event::VaultFounded { charter, joins });
    }

    fn define(&mut self) {
        let bytes = self.definition.to_bytes().unwrap();
        let definition = self.document(bytes);
        self.add(Event::CredentialDefined {
            credential: credential(1),
            path: self.definition.path.clone(),
            definition,
            signature: Seal {
                signer: Signer::Device(device(ALICE)),
                signature: vec![1],
            },
            ceremony: None,
        });
    }

    fn manifest(&mut self, number: u64) -> (VersionId, Digest) {
        let line = version(1, number);
        let mut manifest: Manifest = manifest(line, 2, &[BOB, CAROL, DAVE], &self.tiny.charter);
        manifest.definition = Digest::of(&self.definition.to_bytes().unwrap());
        for holder in &mut manifest.groups[0].holders {
            holder.envelope = Digest::of(holder.commitment.as_bytes());
        }
        let bytes = manifest.to_bytes().unwrap();
        (line, self.document(bytes))
    }

    fn deposit(&mut self, number: u64) {
        let (version, manifest) = self.manifest(number);
        let signature = Seal {
            signer: Signer::Device(device(ALICE)),
            signature: vec![1],
        };
        self.add(Event::VersionSealed {
            version,
            manifest,
            maker: Maker::Deposit(person(ALICE)),
            signature,
        });
    }

    fn line(&mut self, number: u64) -> CredentialLine {
        let (version, manifest) = self.manifest(number);
        let path = self.definition.path.clone();
        CredentialLine {
            path,
            credential: version.credential,
            version: version.version,
            manifest,
        }
    }

    fn request(&mut self, i: u8, number: u64) -> Request {
        let credentials = vec![self.line(number)];
        Request {
            vault: origin(),
            ceremony: ceremony_id(i),
            purpose: Purpose::Unseal,
            scenario: None,
            group: None,
            requested_by: who(ALICE),
            used_by: None,
            deliver_to: Some(share_key(50)),
            ticket: None,
            details: Digest::of(b"details"),
            check_out: Some(Span::from_hours(2)),
            waive: BTreeSet::new(),
            charter: self.tiny.in_force,
            log: head(),
            opened: Time::from_ms(0).stamp(),
            valid_for: Span::from_hours(4),
            salt: Salt([i; 32]),
            credentials,
        }
    }

    fn open(&mut self, request: &Request) {
        let signed = by_device(ALICE, request);
        self.add(Event::CeremonyOpened {
            ceremony: request.ceremony,
            request: signed,
        });
    }

    fn approval(&self, request: &Request, i: u8, at: u64) -> Approval {
        let lines = request.credentials.iter().map(|line| {
            let id = VersionId {
                credential: line.credential,
                version: line.version,
            };
            ShareLine {
                path: line.path.clone(),
                version: line.version,
                state: ShareState::Held {
                    x: i,
                    commitment: commitment(id, i),
                },
            }
        });
        Approval {
            request: request.digest(),
            custodian: who(i),
            token: token_of(i),
            decision: Decision::Approve(lines.collect()),
            charter: Some(self.tiny.in_force),
            log: Some(head()),
            signed: Time::from_ms(at * 1000).stamp(),
        }
    }

    fn approve(&mut self, request: &Request, i: u8) {
        let approval = by_token(i, &self.approval(request, i, 0));
        let (ceremony, device) = (request.ceremony, Some(device(i)));
        self.add(Event::CeremonyApproved {
            ceremony,
            approval,
            device,
            broken: BTreeSet::new(),
        });
    }

    fn authorize(&mut self, request: &Request, persons: &[u8]) {
        let persons: BTreeSet<_> = persons.iter().map(|i| person(*i)).collect();
        let openings = request.credentials.iter().map(|line| Opening {
            version: VersionId {
                credential: line.credential,
                version: line.version,
            },
            group: group("ops"),
            counts: true,
            k: 2,
            persons: persons.clone(),
            shares: persons.clone(),
        });
        self.add(Event::UnsealAuthorized {
            ceremony: request.ceremony,
            openings: openings.collect(),
        });
        let cause = Cause::Unseal(request.ceremony);
        self.add(Event::RotationOwed {
            credential: credential(1),
            cause,
        });
    }

    fn release(&mut self, request: &Request) {
        let delivered = request.credentials.iter();
        let delivered = delivered.map(|line| VersionId {
            credential: line.credential,
            version: line.version,
        });
        self.add(Event::UnsealReleased {
            ceremony: request.ceremony,
            ciphertext: Some(Digest::of(b"release")),
            delivered: delivered.collect(),
            missing: BTreeSet::new(),
        });
    }

    fn check_in(&mut self, request: &Request, worked: Option<u64>) {
        let checkin = Checkin {
            vault: origin(),
            ceremony: request.ceremony,
            request: request.digest(),
            returned_by: who(ALICE),
            signed: Time::from_ms(0).stamp(),
            credentials: vec![Returned {
                path: self.definition.path.clone(),
                credential: credential(1),
                worked: worked.and_then(Version::new),
                void: None,
            }],
        };
        let worked = worked
            .map(|number| version(1, number))
            .into_iter()
            .collect();
        let checkin = by_device(ALICE, &checkin);
        self.add(Event::CheckoutReturned {
            ceremony: request.ceremony,
            checkin,
            worked,
        });
    }

    fn rotate(&mut self, number: u64) {
        let (version, manifest) = self.manifest(number);
        let signer = Signer::Node(NodeId::from_parts(Time::from_ms(6), [1; 10]));
        let signature = Seal {
            signer,
            signature: vec![1],
        };
        self.add(Event::VersionSealed {
            version,
            manifest,
            maker: Maker::Rotation,
            signature,
        });
        self.add(Event::RotationStarted { version });
        self.add(Event::RotationAttempted {
            version,
            call: Call::Apply,
            answer: Answer::Done,
        });
        self.add(Event::RotationAttempted {
            version,
            call: Call::Test,
            answer: Answer::Done,
        });
        self.add(Event::RotationPromoted { version });
        let retired = BTreeSet::from([Version::new(number - 1).unwrap()]);
        self.add(Event::RotationDone {
            version,
            evidence: Evidence::NotObservable,
            retired,
        });
    }

    /// 0 founded, 1 defined, 2 sealed, 3 opened, 4 and 5 approved, 6 authorized, 7 owed, 8 released,
    /// 9 fetched, 10 returned, 11 to 16 rotated.
    fn honest() -> Self {
        let mut log = Self::new();
        log.found();
        log.define();
        log.deposit(1);
        let request = log.request(1, 1);
        log.open(&request);
        log.approve(&request, BOB);
        log.approve(&request, CAROL);
        log.authorize(&request, &[BOB, CAROL]);
        log.release(&request);
        log.add(Event::UnsealFetched {
            ceremony: request.ceremony,
            person: person(ALICE),
        });
        log.check_in(&request, None);
        log.rotate(2);
        log
    }

    fn judge(&self) -> (Vec<Finding>, Vec<Check>) {
        let mut replay = Replay::new(self.tiny.in_force.digest);
        let (mut findings, mut checks) = (Vec::new(), Vec::new());
        for record in &self.records {
            let judgement = replay.step(record, &self.documents);
            findings.extend(judgement.findings);
            checks.extend(judgement.checks);
        }
        findings.extend(replay.finish());
        (findings, checks)
    }

    /// Leaves an entry out; those after it move up.
    fn without(mut self, n: usize) -> Self {
        self.records.remove(n);
        for (n, record) in (0..).zip(&mut self.records) {
            record.n = n;
        }
        self
    }

    fn with(mut self, n: usize, change: impl FnOnce(&mut Record)) -> Self {
        change(&mut self.records[n]);
        self
    }
}

#[test]
fn an_honest_log_has_no_findings_and_every_signature_is_to_be_checked() {
    let log = Log::honest();
    let (findings, checks) = log.judge();
    assert_eq!(findings, []);
    let texts = checks
        .iter()
        .filter(|check| matches!(check, Check::Text { .. }))
        .count();
    let documents = checks
        .iter()
        .filter(|check| matches!(check, Check::Document { .. }))
        .count();
    let heads = checks
        .iter()
        .filter(|check| matches!(check, Check::Head(_)))
        .count();
    assert_eq!((texts, documents, heads), (3 + 1 + 2 + 1, 1 + 2, 1 + 2));
    assert!(
        !checks
            .iter()
            .any(|check| matches!(check, Check::NoKey { .. }))
    );
}

#[test]
fn whatever_is_otherwise_is_found() {
    type Case = (&'static str, fn(Log) -> Log, Option<&'static str>);
    let cases: [Case; 29] = [
        (
            "without the founding",
            |log| log.without(0),
            Some("charter"),
        ),
        (
            "without the definition",
            |log| log.without(1),
            Some("unknown"),
        ),
        (
            "without the version",
            |log| log.without(2),
            Some("unknown-version"),
        ),
        ("without the request", |log| log.without(3), Some("unknown")),
        (
            "without an approval",
            |log| log.without(4),
            Some("not-approved"),
        ),
        (
            "without the authorization",
            |log| log.without(6),
            Some("unauthorized"),
        ),
        (
            "without the owed rotation",
            |log| log.without(7),
            Some("missing-entry"),
        ),
        ("without the release", |log| log.without(8), Some("not-now")),
        ("without the check-in", |log| log.without(10), None),
        (
            "without the login",
            |log| log.without(14),
            Some("other-entry"),
        ),
        ("an entry twice", |log| twice(log, 5), Some("order")),
        (
            "the clock back",
            |log| log.with(9, |it| it.time = Time::from_ms(1)),
            Some("time-back"),
        ),
        (
            "another charter",
            |log| log.with(9, |it| it.charter = 2),
            Some("charter"),
        ),
        (
            "a skipped number",
            |log| log.with(9, |it| it.n = 20),
            Some("order"),
        ),
        (
            "released after its time",
            |mut log| {
                for record in &mut log.records[8..] {
                    record.time = Time::from_ms(record.time.ms() + 300 * MINUTE);
                }
                log
            },
            Some("too-late"),
        ),
        (
            "authorized by others",
            |log| log.with(6, |it| others(&mut it.event)),
            Some("not-approved"),
        ),
        (
            "more is said to agree",
            |log| log.with(6, |it| more(&mut it.event)),
            Some("other-entry"),
        ),
        (
            "fetched by another",
            |log| log.with(9, |it| it.event = fetched(BOB)),
            Some("not-yours"),
        ),
        (
            "approved by the token of another",
            |log| {
                log.with(5, |it| {
                    let Event::CeremonyApproved { approval, .. } = &mut it.event else {
                        return;
                    };
                    approval.signer = Signer::Token(token(BOB));
                })
            },
            Some("signer"),
        ),
        (
            "a text that is cut",
            |log| {
                log.with(5, |it| {
                    let Event::CeremonyApproved { approval, .. } = &mut it.event else {
                        return;
                    };
                    approval.text.truncate(50);
                })
            },
            Some("text"),
        ),
        (
            "a document that is lost",
            |mut log| {
                let digest = log.manifest(1).1;
                log.documents.remove(&digest);
                log
            },
            Some("document-missing"),
        ),
        (
            "a document that is another",
            |mut log| {
                let digest = log.manifest(1).1;
                log.documents.insert(digest, b"{}".to_vec());
                log
            },
            Some("document"),
        ),
        (
            "a version signed by nobody who may",
            |log| {
                log.with(2, |it| {
                    let Event::VersionSealed { signature, .. } = &mut it.event else {
                        return;
                    };
                    signature.signer = Signer::Device(device(BOB));
                })
            },
            Some("signer"),
        ),
        (
            "retired though it is current",
            |log| {
                log.with(16, |it| {
                    let Event::RotationDone { retired, .. } = &mut it.event else {
                        return;
                    };
                    retired.insert(Version::new(2).unwrap());
                })
            },
            Some("other-entry"),
        ),
        (
            "something took force that nobody decided",
            |mut log| {
                log.add(Event::DetailsErased {
                    of: ceremony_id(1),
                    details: Digest::of(b"details"),
                    ceremony: ceremony_id(2),
                });
                log
            },
            Some("undecided"),
        ),
        (
            "the secret was not the real one, and is again",
            |mut log| {
                log.add(Event::VersionDiverged {
                    version: version(1, 2),
                    evidence: None,
                });
                log.add(Event::VersionMatches {
                    version: version(1, 2),
                });
                log
            },
            None,
        ),
        (
            "what diverged is not current",
            |mut log| {
                log.add(Event::VersionDiverged {
                    version: version(1, 1),
                    evidence: None,
                });
                log
            },
            Some("unknown"),
        ),
        (
            "what matches again was never there",
            |mut log| {
                log.add(Event::VersionMatches {
                    version: version(1, 3),
                });
                log
            },
            Some("unknown"),
        ),
        (
            "opened, not rotated",
            |mut log| {
                log.records.truncate(11);
                log
            },
            Some("rotation-owed"),
        ),
    ];
    for (name, change, want) in cases {
        let (findings, _) = change(Log::honest()).judge();
        // What follows from the first finding is found too.
        assert_eq!(
            findings.first().map(|finding| finding.code),
            want,
            "{name}: {findings:#?}"
        );
    }
}

fn twice(mut log: Log, n: usize) -> Log {
    let again = log.records[n].clone();
    log.records.insert(n + 1, again);
    log
}

fn fetched(i: u8) -> Event {
    Event::UnsealFetched {
        ceremony: ceremony_id(1),
        person: person(i),
    }
}

fn others(event: &mut Event) {
    let Event::UnsealAuthorized { openings, .. } = event else {
        return;
    };
    openings[0].persons = BTreeSet::from([person(BOB), person(DAVE)]);
    openings[0].shares = openings[0].persons.clone();
}

fn more(event: &mut Event) {
    let Event::UnsealAuthorized { openings, .. } = event else {
        return;
    };
    openings[0].persons.insert(person(DAVE));
}

#[test]
fn levels_say_how_bad_it_is() {
    let owed = {
        let mut log = Log::honest();
        log.records.truncate(11);
        log
    };
    let late = Log::honest().with(9, |it| it.time = Time::from_ms(1));
    let forged = Log::honest().without(6);
    for (name, log, want) in [
        ("still owed", owed, Level::Info),
        ("a clock that was set back", late, Level::Warning),
        ("a release without its entry", forged, Level::Error),
    ] {
        let worst = log.judge().0.into_iter().map(|finding| finding.level).max();
        assert_eq!(worst, Some(want), "{name}");
    }
}

#[test]
fn a_check_in_that_worked_promotes_and_retires() {
    let mut log = Log::new();
    log.definition.connector = None;
    log.found();
    log.define();
    log.deposit(1);
    log.deposit(2);
    let mut request = log.request(1, 1);
    request.credentials.push(log.line(2));
    log.open(&request);
    for i in [BOB, CAROL] {
        log.approve(&request, i);
    }
    log.authorize(&request, &[BOB, CAROL]);
    let last = log.records.len() - 2;
    if let Event::UnsealAuthorized { openings, .. } = &mut log.records[last].event {
        openings[1].counts = false;
    }
    log.release(&request);
    log.check_in(&request, Some(2));
    let missing: Vec<_> = log.judge().0.iter().map(|it| it.code).collect();
    assert_eq!(missing, ["missing-entry", "missing-entry", "rotation-owed"]);
    let worked = keyturn_vault::event::Proof::Worked(ceremony_id(1));
    log.add(Event::VersionPromoted {
        version: version(1, 2),
        proof: worked,
    });
    let versions = BTreeSet::from([Version::FIRST]);
    log.add(Event::VersionRetired {
        credential: credential(1),
        versions,
    });
    let left: Vec<_> = log.judge().0.iter().map(|it| it.code).collect();
    assert_eq!(left, ["rotation-owed"]);
    let unasked = keyturn_vault::event::Proof::Worked(ceremony_id(9));
    log.add(Event::VersionPromoted {
        version: version(1, 1),
        proof: unasked,
    });
    assert!(log.judge().0.iter().any(|it| it.level == Level::Error));
}

#[test]
fn codes_are_told_apart() {
    let all: BTreeSet<_> = CODES
        .iter()
        .map(|(code, _)| *code)
        .chain(Refusal::ALL.iter().map(|it| it.code()))
        .collect();
    assert_eq!(all.len(), CODES.len() + Refusal::ALL.len());
}

/// Two custodians change the charter: 3 proposed, 4 and 5 agreed, 6 applied, 7 in force, 8 by the new one.
fn changed() -> Log {
    let mut log = Log::new();
    log.found();
    log.define();
    log.deposit(1);
    let mut new = log.tiny.charter.clone();
    new.index = 2;
    new.previous = Some(log.tiny.in_force.digest);
    new.policies[0].waiting_secs = Span::from_hours(1);
    let digest = log.document(new.to_bytes().unwrap());
    let charter = reference(&new);
    assert_eq!(charter.digest, digest);
    let mut request = log.request(2, 1);
    request.purpose = Purpose::Change(keyturn_vault::text::Change::Charter(charter));
    (request.credentials, request.check_out, request.deliver_to) = (Vec::new(), None, None);
    log.open(&request);
    log.approve(&request, CAROL);
    log.approve(&request, DAVE);
    let persons = BTreeSet::from([person(CAROL), person(DAVE)]);
    log.add(Event::CeremonyApplied {
        ceremony: request.ceremony,
        persons,
    });
    log.add(Event::CharterInForce {
        charter,
        ceremony: request.ceremony,
    });
    log.add(Event::Alive {});
    log.records[8].charter = 2;
    log
}

#[test]
fn a_charter_takes_force_only_by_its_quorum() {
    for (name, log, want) in [
        ("as it should be", changed(), None),
        (
            "in force by the number of the new one",
            changed().with(7, |it| it.charter = 2),
            None,
        ),
        (
            "the old one goes on",
            changed().with(8, |it| it.charter = 1),
            Some("charter"),
        ),
        ("one agreed", changed().without(5), Some("other-entry")),
        ("nobody was asked", changed().without(3), Some("unknown")),
        (
            "agreed, and not applied",
            changed().without(6),
            Some("missing-entry"),
        ),
        (
            "applied, and not in force",
            changed().without(7),
            Some("charter"),
        ),
        ("in force twice", twice(changed(), 7), Some("order")),
        (
            "another number",
            changed().with(7, another),
            Some("undecided"),
        ),
    ] {
        let (findings, _) = log.judge();
        assert_eq!(
            findings.first().map(|finding| finding.code),
            want,
            "{name}: {findings:#?}"
        );
    }
}

fn another(record: &mut Record) {
    if let Event::CharterInForce { charter, .. } = &mut record.event {
        charter.index = 3;
    }
}
