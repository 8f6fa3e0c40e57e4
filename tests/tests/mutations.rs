//! A real log, changed in one place by somebody who has the log's key and the node's key: each change is
//! found, and named.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong; the table is one list"
)]

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn::{
    refusal::Refusal,
    verify::directory::{Anchor, Report, Subject, verify},
};
use keyturn_audit::{
    entry::Entry,
    note::LogKey,
    publish::{Dir, Publisher},
};
use keyturn_hsm::{attestation::Anchors as Makers, device::DeviceKey};
use keyturn_proto::v1;
use keyturn_tests::{
    Outcome, keep,
    raw::{Facts, Founded, Member, now, wire_text},
    story::{Asked, Ballot, release},
};
use keyturn_vault::{
    digest::Digest,
    replay::Level,
    text::{
        Approval, Checkin, CredentialLine, Decision, Details, Heartbeat, Request, Returned,
        Text as _,
    },
    time::Time,
};
use serde_json::{Value, json};

/// A log, its documents, and every key that was used: the daemon's and the people's.
struct Story {
    vault: Founded,
    entries: Vec<Entry>,
    objects: Vec<Vec<u8>>,
    log: LogKey,
    node: DeviceKey,
}

/// bob, carol and dan see a request of alice's: dan refuses, bob and carol agree, alice returns it. Another
/// request is approved by bob, who takes that back, and withdrawn. Dan sends a sign of life.
async fn tell() -> Outcome<Story> {
    let mut vault = Founded::new("").await?;
    let line = vault.line("alice").await?;
    let (_, first) = vault.seal("aws/1/root", b"hunter2").await?;
    let (_, second) = vault.seal("aws/2/root", b"hunter3").await?;
    let alice = vault.who("alice")?;
    let asked = Asked::new(&vault.facts, &line, alice, vec![first.clone()]).await?;
    line.ceremonies().open(asked.open(alice)?).await?;
    refuse(&vault, &asked, "dan").await?;
    for name in ["bob", "carol"] {
        approve(&vault, &asked, name).await?;
    }
    release(&line, &asked.id())
        .await?
        .map_err(|_| "not released")?;
    give_back(&vault, &asked, &first).await?;
    let again = Asked::new(&vault.facts, &line, alice, vec![second]).await?;
    line.ceremonies().open(again.open(alice)?).await?;
    let approval = approve(&vault, &again, "bob").await?;
    retract(&vault, &again, "bob", approval).await?;
    let withdraw = v1::WithdrawRequest { id: again.id() };
    line.ceremonies().withdraw(withdraw).await?;
    heartbeat(&vault, "dan").await?;
    line.checkpoint(&vault.facts.vkey).await?;
    drop(line);
    vault.world.stop()?;
    let entries = keep::entries(&vault.facts, &vault.world.log())?;
    let folder = vault.world.log().join("objects");
    let mut objects = Vec::new();
    for file in fs::read_dir(folder)? {
        objects.push(fs::read(file?.path())?);
    }
    let origin = vault.facts.charter.origin.clone();
    let log = keyturnd::keys::read_log_key(&vault.world.vault().join("log.key"), origin.as_str())?;
    let node = DeviceKey::load(&vault.world.vault().join("node.pem"))?;
    Ok(Story {
        vault,
        entries,
        objects,
        log,
        node,
    })
}

async fn approve(vault: &Founded, asked: &Asked, name: &str) -> Outcome<Digest> {
    let (who, line) = (vault.who(name)?, vault.line(name).await?);
    let ballot = Ballot::new(&vault.facts, &line, who, &asked.id()).await?;
    line.ceremonies().approve(ballot.call()?).await?;
    Ok(ballot.approval.digest())
}

async fn say(
    vault: &Founded,
    asked: &Asked,
    name: &str,
    decision: Decision,
    details: String,
) -> Outcome<()> {
    let (who, line) = (vault.who(name)?, vault.line(name).await?);
    let approval = who.sign(&spoken(&vault.facts, who, &asked.request, decision))?;
    let call = v1::ApproveRequest {
        approval: Some(wire_text(&approval)),
        submissions: Vec::new(),
        details,
        ceremony: asked.id(),
    };
    line.ceremonies().approve(call).await?;
    Ok(())
}

fn spoken(facts: &Facts, who: &Member, request: &Request, decision: Decision) -> Approval {
    Approval {
        request: request.digest(),
        custodian: who.person.clone(),
        token: who.token,
        decision,
        charter: Some(facts.reference),
        log: Some(request.log),
        signed: now().stamp(),
    }
}

async fn refuse(vault: &Founded, asked: &Asked, name: &str) -> Outcome<()> {
    let details = Details {
        salt: keyturn_vault::digest::Salt([1; 32]),
        reason: "I do not know of this".parse()?,
        contact: None,
        systems: None,
    };
    let reason = details.digest();
    say(
        vault,
        asked,
        name,
        Decision::Refuse { reason },
        details.to_text(),
    )
    .await
}

async fn retract(vault: &Founded, asked: &Asked, name: &str, earlier: Digest) -> Outcome<()> {
    say(
        vault,
        asked,
        name,
        Decision::Retract { earlier },
        String::new(),
    )
    .await
}

async fn give_back(vault: &Founded, asked: &Asked, line: &CredentialLine) -> Outcome<()> {
    let checkin = Checkin {
        vault: asked.request.vault.clone(),
        ceremony: asked.request.ceremony,
        request: asked.request.digest(),
        returned_by: vault.who("alice")?.person.clone(),
        signed: now().stamp(),
        credentials: vec![Returned {
            path: line.path.clone(),
            credential: line.credential,
            worked: None,
            void: None,
        }],
    };
    let checkin = v1::CheckinRequest {
        checkin: Some(wire_text(&vault.who("alice")?.sign_by_device(&checkin)?)),
    };
    vault
        .line("alice")
        .await?
        .ceremonies()
        .checkin(checkin)
        .await?;
    Ok(())
}

async fn heartbeat(vault: &Founded, name: &str) -> Outcome<()> {
    let (who, line) = (vault.who(name)?, vault.line(name).await?);
    let heartbeat = Heartbeat {
        vault: vault.facts.charter.origin.clone(),
        person: who.person.clone(),
        token: who.token,
        charter: vault.facts.reference,
        log: line.head(&vault.facts.vkey).await?,
        signed: now().stamp(),
        confirmations: Vec::new(),
    };
    let heartbeat = v1::HeartbeatRequest {
        heartbeat: Some(wire_text(&who.sign(&heartbeat)?)),
    };
    line.charters().heartbeat(heartbeat).await?;
    Ok(())
}

/// A log in somebody's hands.
#[derive(Clone)]
struct Forged<'a> {
    story: &'a Story,
    entries: Vec<Entry>,
    objects: Vec<Vec<u8>>,
}

impl Story {
    fn forged(&self) -> Forged<'_> {
        Forged {
            story: self,
            entries: self.entries.clone(),
            objects: self.objects.clone(),
        }
    }

    fn who(&self, name: &str) -> &Member {
        self.vault.who(name).unwrap()
    }
}

impl Forged<'_> {
    /// The place of an entry: the `nth` of a kind, from 0.
    fn at(&self, kind: &str, nth: usize) -> usize {
        let mut of = self.entries.iter().enumerate();
        let places: Vec<_> = of
            .by_ref()
            .filter(|(_, entry)| entry.kind == kind)
            .collect();
        assert!(places.len() > nth, "the story has too few of {kind}");
        places[nth].0
    }

    fn drop(mut self, kind: &str, nth: usize) -> Self {
        let at = self.at(kind, nth);
        self.entries.remove(at);
        self
    }

    fn twice(mut self, kind: &str, nth: usize) -> Self {
        let at = self.at(kind, nth);
        self.entries.insert(at + 1, self.entries[at].clone());
        self
    }

    fn swap(mut self, one: &str, other: &str) -> Self {
        let (one, other) = (self.at(one, 0), self.at(other, 0));
        self.entries.swap(one, other);
        self
    }

    fn edit(mut self, kind: &str, nth: usize, change: impl FnOnce(&mut Entry)) -> Self {
        let at = self.at(kind, nth);
        change(&mut self.entries[at]);
        self
    }

    fn body(self, kind: &str, nth: usize, change: impl FnOnce(&mut Value)) -> Self {
        self.edit(kind, nth, |entry| change(&mut entry.body))
    }

    /// An entry like the others of its time, after the `nth` of a kind.
    fn after(mut self, kind: &str, nth: usize, new: &str, body: Value) -> Self {
        let at = self.at(kind, nth);
        let mut entry = self.entries[at].clone();
        (entry.kind, entry.body) = (new.to_owned(), body);
        self.entries.insert(at + 1, entry);
        self
    }

    fn value(&self, kind: &str, nth: usize, field: &str) -> Value {
        self.entries[self.at(kind, nth)].body[field].clone()
    }

    /// A document, changed and kept under its new digest.
    fn object(&mut self, digest: &Value, change: impl FnOnce(&mut Value)) -> Value {
        let of = |bytes: &&Vec<u8>| json!(Digest::of(bytes)) == *digest;
        let bytes = self.objects.iter().find(of).unwrap();
        let mut value: Value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        let bytes = serde_json::to_vec(&value).unwrap();
        let digest = json!(Digest::of(&bytes));
        self.objects.push(bytes);
        digest
    }

    /// Replaces a signed text by another, signed by somebody.
    fn resign(
        self,
        kind: &str,
        nth: usize,
        field: &str,
        by: &Member,
        change: impl FnOnce(String) -> String,
    ) -> Self {
        self.body(kind, nth, |body| {
            let text = change(body[field]["text"].as_str().unwrap().to_owned());
            body[field]["text"] = json!(text);
            body[field]["signature"] = json!(BASE64_STANDARD.encode(sign(by, &text)));
        })
    }

    /// Hashed and signed anew, and verified.
    fn report(&self, genesis: Option<Digest>, saved: &[Anchor]) -> Result<Report, String> {
        let folder = tempfile::tempdir().unwrap();
        self.publish(folder.path());
        self.look(folder.path(), genesis, saved)
    }

    /// What is said of a folder.
    fn look(
        &self,
        folder: &Path,
        genesis: Option<Digest>,
        saved: &[Anchor],
    ) -> Result<Report, String> {
        let makers = Makers::yubico().unwrap();
        let subject = Subject {
            dir: folder,
            log: self.story.log.vkey(),
            makers: &makers,
            genesis,
            saved,
        };
        verify(subject, |_, _| {}, |_, _| {}).map_err(|broken| Refusal::from(broken).code)
    }

    fn publish(&self, folder: &Path) {
        let mut publisher = Publisher::open(Dir::new(folder), self.story.log.vkey()).unwrap();
        for object in &self.objects {
            publisher.object(object).unwrap();
        }
        let entries = self.entries.iter().zip(0..).map(|(entry, n)| {
            let mut entry = entry.clone();
            entry.n = n;
            entry.encode().unwrap()
        });
        publisher.append(&entries.collect::<Vec<_>>()).unwrap();
        let edge = publisher.edge();
        let checkpoint = self.story.log.sign(edge.size(), edge.root()).unwrap();
        publisher.publish(&checkpoint).unwrap();
    }
}

/// A signature of somebody's token over any text.
fn sign(by: &Member, text: &str) -> Vec<u8> {
    by.sign_bytes(text.as_bytes()).unwrap()
}

/// A change and the finding that names it.
type Row<'a> = (&'a str, Forged<'a>, &'a str);

fn of_entries(story: &Story) -> Vec<Row<'_>> {
    let log = || story.forged();
    vec![
        (
            "the founding is not there",
            log().drop("vault.founded", 0),
            "not-founded-yet",
        ),
        (
            "the founding is there twice",
            log().twice("vault.founded", 0),
            "founded-twice",
        ),
        (
            "a definition is not there",
            log().drop("credential.defined", 0),
            "unknown",
        ),
        (
            "a definition is there twice",
            log().twice("credential.defined", 0),
            "path-taken",
        ),
        (
            "a version is not there",
            log().drop("version.sealed", 0),
            "unknown-version",
        ),
        (
            "a version is there twice",
            log().twice("version.sealed", 0),
            "next-version",
        ),
        (
            "a version before its definition",
            log().swap("credential.defined", "version.sealed"),
            "unknown",
        ),
        (
            "a request is not there",
            log().drop("ceremony.opened", 0),
            "unknown",
        ),
        (
            "a request is there twice",
            log().twice("ceremony.opened", 0),
            "known-ceremony",
        ),
        (
            "an approval is not there",
            log().drop("ceremony.approved", 0),
            "not-approved",
        ),
        (
            "the last approval is not there",
            log().drop("ceremony.approved", 1),
            "not-approved",
        ),
        (
            "an approval is there twice",
            log().twice("ceremony.approved", 0),
            "other-entry",
        ),
        (
            "an approval before its request",
            log().swap("ceremony.opened", "ceremony.approved"),
            "unknown",
        ),
        (
            "a retraction is not there",
            log().drop("ceremony.retracted", 0),
            "head",
        ),
        (
            "a refusal is not there",
            log().drop("ceremony.refused", 0),
            "head",
        ),
        (
            "the authorization is not there",
            log().drop("unseal.authorized", 0),
            "unauthorized",
        ),
        (
            "the authorization is there twice",
            log().twice("unseal.authorized", 0),
            "not-approved",
        ),
        (
            "the authorization after the release",
            log().swap("unseal.authorized", "unseal.released"),
            "unauthorized",
        ),
        (
            "the authorization before the last approval",
            {
                let mut log = log();
                let (one, other) = (
                    log.at("ceremony.approved", 1),
                    log.at("unseal.authorized", 0),
                );
                log.entries.swap(one, other);
                log
            },
            "not-approved",
        ),
        (
            "the release is not there",
            log().drop("unseal.released", 0),
            "not-now",
        ),
        (
            "the release is there twice",
            log().twice("unseal.released", 0),
            "unauthorized",
        ),
        (
            "the owed rotation is not there",
            log().drop("rotation.owed", 0),
            "missing-entry",
        ),
        (
            "the rotation is late",
            log().edit("heartbeat.received", 0, |entry| {
                entry.time = Time::from_ms(4_000_000_000_000).to_string();
            }),
            "rotation-late",
        ),
        (
            "the log ends earlier",
            {
                let mut log = log();
                let at = log.at("unseal.authorized", 0);
                log.entries.truncate(at + 1);
                log
            },
            "missing-entry",
        ),
        (
            "a clock that goes back",
            log().edit("ceremony.approved", 1, |entry| {
                entry.time = Time::from_ms(1_000).to_string();
            }),
            "time-back",
        ),
        (
            "another charter in force",
            log().edit("ceremony.approved", 0, |entry| entry.charter = 2),
            "charter",
        ),
        (
            "a kind that nobody knows",
            log().edit("ceremony.approved", 0, |entry| {
                "ceremony.nodded".clone_into(&mut entry.kind);
            }),
            "kind",
        ),
        (
            "a field that nobody knows",
            log().body("unseal.released", 0, |body| body["quietly"] = json!(true)),
            "kind",
        ),
    ]
}

fn of_people(story: &Story) -> Vec<Row<'_>> {
    let log = || story.forged();
    let (bob, dan, alice) = (story.who("bob"), story.who("dan"), story.who("alice"));
    let text = |log: &Forged<'_>, nth| {
        log.value("ceremony.approved", nth, "approval")["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    vec![
        (
            "signatures of two approvals swapped",
            {
                let log = log();
                let (one, other) = (
                    log.value("ceremony.approved", 0, "approval"),
                    log.value("ceremony.approved", 1, "approval"),
                );
                log.body("ceremony.approved", 0, |body| {
                    body["approval"]["signature"] = other["signature"].clone();
                })
                .body("ceremony.approved", 1, |body| {
                    body["approval"]["signature"] = one["signature"].clone();
                })
            },
            "signature",
        ),
        (
            "a signature altered",
            log().body("ceremony.approved", 0, |body| {
                let mut signature = BASE64_STANDARD
                    .decode(body["approval"]["signature"].as_str().unwrap())
                    .unwrap();
                *signature.last_mut().unwrap() ^= 1;
                body["approval"]["signature"] = json!(BASE64_STANDARD.encode(signature));
            }),
            "signature",
        ),
        (
            "an approval in bob's name by dan's token",
            log().resign("ceremony.approved", 0, "approval", dan, |text| text),
            "signature",
        ),
        (
            "an approval by the node",
            log().body("ceremony.approved", 0, |body| {
                let text = body["approval"]["text"].as_str().unwrap().to_owned();
                body["approval"]["signature"] =
                    json!(BASE64_STANDARD.encode(story.node.sign(text.as_bytes()).unwrap()));
                body["approval"]["signer"] =
                    json!({ "node": story.vault.facts.charter.nodes[0].id });
            }),
            "signer",
        ),
        (
            "an approval by a token that is nobody's",
            log().body("ceremony.approved", 0, |body| {
                body["approval"]["signer"] = json!({ "token": "01ARZ3NDEKTSV4RRFFQ69G5FAV" });
            }),
            "signer",
        ),
        (
            "an approval of another request",
            log().resign("ceremony.approved", 0, "approval", bob, |text| {
                text.replacen("request-sha256: ", "request-sha256: 0", 1)
                    .replacen("request-sha256: 0", "request-sha256: ", 1)
                    .replace(&text[40..44], "0000")
            }),
            "wrong-request",
        ),
        (
            "a share line of another version",
            log().resign("ceremony.approved", 0, "approval", bob, |text| {
                text.replace(" v1 ", " v2 ")
            }),
            "wrong-lines",
        ),
        (
            "a share line with another commitment",
            log().resign("ceremony.approved", 0, "approval", bob, |text| {
                let at = text.find("share: ").unwrap();
                let end = at + text[at..].find('\n').unwrap();
                format!("{}{}{}", &text[..end - 4], "0000", &text[end..])
            }),
            "wrong-share",
        ),
        (
            "a refusal as an approval",
            {
                let log = log();
                let refusal = log.value("ceremony.refused", 0, "refusal");
                log.body("ceremony.approved", 0, |body| body["approval"] = refusal)
            },
            "not-approved",
        ),
        (
            "a retraction as a refusal",
            {
                let log = log();
                let retraction = log.value("ceremony.retracted", 0, "retraction");
                log.body("ceremony.refused", 0, |body| body["refusal"] = retraction)
            },
            "text",
        ),
        (
            "the same custodian twice",
            {
                let log = log();
                let approval = log.value("ceremony.approved", 0, "approval");
                log.body("ceremony.approved", 1, |body| body["approval"] = approval)
            },
            "other-entry",
        ),
        (
            "a request by somebody else's device",
            log().body("ceremony.opened", 0, |body| {
                let text = body["request"]["text"].as_str().unwrap().to_owned();
                body["request"]["signature"] =
                    json!(BASE64_STANDARD.encode(bob.device.sign(text.as_bytes()).unwrap()));
                body["request"]["signer"] = json!({ "device": bob.device_id });
            }),
            "signer",
        ),
        (
            "a request by the node",
            log().body("ceremony.opened", 0, |body| {
                let text = body["request"]["text"].as_str().unwrap().to_owned();
                body["request"]["signature"] =
                    json!(BASE64_STANDARD.encode(story.node.sign(text.as_bytes()).unwrap()));
                body["request"]["signer"] =
                    json!({ "node": story.vault.facts.charter.nodes[0].id });
            }),
            "signer",
        ),
        (
            "a request with another word",
            log().body("ceremony.opened", 0, |body| {
                let text = body["request"]["text"]
                    .as_str()
                    .unwrap()
                    .replace("INC-1", "INC-2");
                body["request"]["text"] = json!(text);
            }),
            "signature",
        ),
        (
            "a request for another manifest",
            log().body("ceremony.opened", 0, |body| {
                let text = body["request"]["text"].as_str().unwrap().to_owned();
                let text = format!("{}{}\n", &text[..text.len() - 5], "0000");
                body["request"]["signature"] =
                    json!(BASE64_STANDARD.encode(alice.device.sign(text.as_bytes()).unwrap()));
                body["request"]["text"] = json!(text);
            }),
            "unknown-version",
        ),
        (
            "a request that saw another log",
            log().body("ceremony.opened", 0, |body| {
                let mut request =
                    Request::parse(body["request"]["text"].as_str().unwrap()).unwrap();
                request.log.root = Digest::of(b"another");
                let text = request.to_text();
                body["request"]["signature"] =
                    json!(BASE64_STANDARD.encode(alice.device.sign(text.as_bytes()).unwrap()));
                body["request"]["text"] = json!(text);
            }),
            "head",
        ),
        (
            "a request that saw the future",
            log().body("ceremony.opened", 0, |body| {
                let mut request =
                    Request::parse(body["request"]["text"].as_str().unwrap()).unwrap();
                request.log.size = 10_000;
                let text = request.to_text();
                body["request"]["signature"] =
                    json!(BASE64_STANDARD.encode(alice.device.sign(text.as_bytes()).unwrap()));
                body["request"]["text"] = json!(text);
            }),
            "head",
        ),
        (
            "a founder who did not join",
            log().body("vault.founded", 0, |body| {
                body["joins"].as_array_mut().unwrap().remove(0);
            }),
            "not-founded",
        ),
        (
            "a founder's join by another token",
            log().body("vault.founded", 0, |body| {
                let text = body["joins"][0]["text"].as_str().unwrap().to_owned();
                let by = if text.contains(" bob ") || text.contains(": bob ") {
                    dan
                } else {
                    bob
                };
                body["joins"][0]["signature"] = json!(BASE64_STANDARD.encode(sign(by, &text)));
            }),
            "signature",
        ),
        (
            "a return by somebody else",
            log().body("checkout.returned", 0, |body| {
                body["checkin"]["signer"] = json!({ "device": bob.device_id });
            }),
            "signer",
        ),
        (
            "a sign of life of somebody else",
            log().body("heartbeat.received", 0, |body| {
                body["heartbeat"]["signer"] = json!({ "token": bob.token.id });
            }),
            "signer",
        ),
        (
            "no approval text at all",
            log().body("ceremony.approved", 0, |body| {
                body["approval"]["text"] = json!("");
            }),
            "text",
        ),
        (
            "an approval of the other ceremony",
            {
                let log = log();
                let other = text(&log, 2);
                log.resign("ceremony.approved", 0, "approval", bob, |_| other)
            },
            "wrong-request",
        ),
    ]
}

fn of_the_daemon(story: &Story) -> Vec<Row<'_>> {
    let log = || story.forged();
    let facts = &story.vault.facts;
    let ceremony = || log().value("ceremony.opened", 0, "ceremony");
    vec![
        ("an authorization by one person", log().body("unseal.authorized", 0, |body| {
            let persons = body["openings"][0]["persons"].as_array_mut().unwrap();
            persons.pop();
        }), "other-entry"),
        ("an authorization with a lower k", log().body("unseal.authorized", 0, |body| body["openings"][0]["k"] = json!(1)), "other-entry"),
        ("an authorization by dan, who refused", log().body("unseal.authorized", 0, |body| {
            body["openings"][0]["persons"][0] = json!(story.who("dan").person.id);
            let persons = body["openings"][0]["persons"].as_array_mut().unwrap();
            persons.sort_by_key(ToString::to_string);
        }), "other-entry"),
        ("a release of more than was authorized", log().body("unseal.released", 0, |body| {
            let first = body["delivered"][0].as_str().unwrap().replace(" v1", " v9");
            body["delivered"].as_array_mut().unwrap().push(json!(first));
        }), "unauthorized"),
        ("an expiry before its time", log().after("ceremony.opened", 0, "ceremony.expired", json!({ "ceremony": ceremony() })), "not-now"),
        ("an application of what opens", log().after("ceremony.opened", 0, "ceremony.applied", json!({ "ceremony": ceremony(), "persons": [] })), "other-entry"),
        ("a charter that nobody agreed to", {
            let mut log = log();
            let forged = log.object(&json!(facts.reference.digest), |charter| {
                charter["index"] = json!(2);
                charter["previous"] = json!(facts.reference.digest);
                charter["groups"][0]["k"] = json!(3);
            });
            let body = json!({ "charter": { "index": 2, "digest": forged }, "ceremony": ceremony() });
            let at = log.entries.len() - 1;
            let kind = log.entries[at].kind.clone();
            let nth = log.entries.iter().filter(|entry| entry.kind == kind).count() - 1;
            log.after(&kind, nth, "charter.in-force", body)
        }, "undecided"),
        ("a definition that nobody agreed to", {
            let mut log = log();
            let defined = log.entries[log.at("credential.defined", 0)].body.clone();
            let digest = defined["definition"].clone();
            let forged = log.object(&digest, |definition| {
                definition["previous"] = digest.clone();
                definition["metadata"] = json!({ "account": "666" });
            });
            let mut body = defined;
            body["definition"] = forged;
            body["ceremony"] = ceremony();
            log.after("ceremony.opened", 0, "credential.defined", body)
        }, "undecided"),
        ("a definition signed by the node", log().body("credential.defined", 0, |body| {
            let definition: Digest = body["definition"].as_str().unwrap().parse().unwrap();
            let bytes = story.objects.iter().find(|bytes| Digest::of(bytes) == definition).unwrap();
            body["signature"] = json!({ "signer": { "node": facts.charter.nodes[0].id }, "signature": BASE64_STANDARD.encode(story.node.sign(bytes).unwrap()) });
        }), "signer"),
        ("a manifest of the daemon's in a person's name", {
            let mut log = log();
            let sealed = log.entries[log.at("version.sealed", 0)].body.clone();
            let forged = log.object(&sealed["manifest"], |manifest| manifest["ciphertext"] = json!(Digest::of(b"another")));
            log.body("version.sealed", 0, |body| body["manifest"] = forged)
        }, "signature"),
        ("a manifest of the daemon's as a rotation's", {
            let mut log = log();
            let sealed = log.entries[log.at("version.sealed", 1)].body.clone();
            let forged = log.object(&sealed["manifest"], |manifest| manifest["version"] = json!(2));
            let bytes = log.objects.last().unwrap().clone();
            let mut body = sealed;
            body["manifest"] = forged;
            body["version"] = json!(body["version"].as_str().unwrap().replace(" v1", " v2"));
            body["maker"] = json!("rotation");
            body["signature"] = json!({ "signer": { "node": facts.charter.nodes[0].id }, "signature": BASE64_STANDARD.encode(story.node.sign(&bytes).unwrap()) });
            log.after("version.sealed", 1, "version.sealed", body)
        }, "no-connector"),
        ("a manifest that is not there", {
            let mut log = log();
            let digest = log.value("version.sealed", 0, "manifest");
            log.objects.retain(|bytes| json!(Digest::of(bytes)) != digest);
            log
        }, "document-missing"),
        ("a version that retires by itself", {
            let sealed = log().entries[log().at("version.sealed", 0)].body.clone();
            let id = sealed["version"].as_str().unwrap().split(' ').next().unwrap().to_owned();
            log().after("version.sealed", 0, "version.retired", json!({ "credential": id, "versions": [1] }))
        }, "other-entry"),
        ("a version that is destroyed while it lives", {
            let sealed = log().entries[log().at("version.sealed", 0)].body.clone();
            log().after("version.sealed", 0, "version.destroyed", json!({ "version": sealed["version"] }))
        }, "unknown"),
        ("details that nobody decided to erase", log().after("ceremony.opened", 0, "details.erased", json!({
            "of": ceremony(), "details": Digest::of(b"x"), "ceremony": ceremony(),
        })), "undecided"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_in_a_log_is_found_and_named() {
    let story = tell().await.unwrap();
    let genesis = story.vault.facts.reference.digest;
    let honest = story.forged().report(Some(genesis), &[]).unwrap();
    assert_eq!(honest.findings, [], "the story itself");
    assert!(honest.heads > 0 && honest.signatures > 10 && honest.openings == 1);
    let owed = |note: &keyturn::verify::directory::Finding| note.code == "rotation-owed";
    assert!(
        honest.notes.iter().any(owed),
        "an unseal without a connector owes a rotation"
    );

    let mut rows = of_entries(&story);
    rows.extend(of_people(&story));
    rows.extend(of_the_daemon(&story));
    assert!(rows.len() >= 40, "{} changes", rows.len());
    let mut wrong = Vec::new();
    for (name, log, want) in rows {
        let report = log.report(Some(genesis), &[]).unwrap();
        let all: Vec<_> = report
            .findings
            .iter()
            .chain(&report.notes)
            .map(|finding| format!("{} {}", finding.n, finding.code))
            .collect();
        let named = report
            .findings
            .iter()
            .chain(report.notes.iter().filter(|note| note.level == Level::Info))
            .any(|finding| finding.code == want);
        if !named {
            wrong.push(format!("{name}: {want} is not among {all:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_elsewhere_finds_a_log_that_is_right_by_itself() {
    let story = tell().await.unwrap();
    let genesis = Some(story.vault.facts.reference.digest);
    let whole = story.forged();
    let folder = tempfile::tempdir().unwrap();
    whole.publish(folder.path());
    let kept = keyturn_audit::verify::checkpoint(&Dir::new(folder.path()), story.log.vkey());
    let saved = [Anchor {
        name: "alice's".to_owned(),
        checkpoint: kept.unwrap().checkpoint().clone(),
    }];
    let report = whole.report(genesis, &saved).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.anchors.len(), 3, "{:?}", report.anchors);
    assert!(!whole.report(None, &[]).unwrap().is_anchored());

    let last = |log: &mut Forged<'_>| drop(log.entries.pop());
    let shrunk = {
        let mut log = story.forged();
        last(&mut log);
        log
    };
    let forked = {
        let mut log = story.forged();
        last(&mut log);
        let at = log.entries.len() - 1;
        let mut alive = log.entries[at].clone();
        (alive.kind, alive.body) = ("alive".to_owned(), json!({}));
        log.entries.push(alive);
        log
    };
    for (name, log) in [("shrunk", shrunk), ("forked", forked)] {
        let alone = log.report(genesis, &[]).unwrap();
        assert_eq!(alone.findings, [], "{name}: by itself nothing is wrong");
        let found = log.report(genesis, &saved);
        assert_eq!(found.err().as_deref(), Some("verification"), "{name}");
    }

    let other = Some(Digest::of(b"another charter"));
    let report = whole.report(other, &[]).unwrap();
    let genesis_code = |finding: &keyturn::verify::directory::Finding| finding.code == "genesis";
    assert!(report.findings.iter().any(genesis_code), "another vault");

    // One byte of any file.
    let mut files = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 6, "{files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        fs::remove_file(&file).unwrap();
        fs::write(&file, flipped).unwrap();
        let found = whole.look(folder.path(), genesis, &[]);
        assert_eq!(
            found.err().as_deref(),
            Some("verification"),
            "{}",
            file.display()
        );
        fs::write(&file, bytes).unwrap();
    }
    assert!(whole.look(folder.path(), genesis, &[]).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_tells_what_is_not_signed_by_whom_it_names() {
    let story = tell().await.unwrap();
    let world = &story.vault.world;
    let backup = "backup --json --config vault/keyturnd.toml --to backup";
    world.keyturnd(backup.split(' ')).unwrap().ok().unwrap();
    for key in ["log.key", "node.pem"] {
        fs::copy(world.vault().join(key), world.folder().join(key)).unwrap();
    }
    let folder = world.folder().join("backup");
    let genesis = story.vault.facts.reference.digest.to_string();
    let dan = story.vault.who("dan").unwrap();
    let approval = |text| text;
    for (name, log, want) in [
        ("honest", story.forged(), false),
        (
            "false",
            story
                .forged()
                .resign("ceremony.approved", 0, "approval", dan, approval),
            true,
        ),
    ] {
        fs::remove_dir_all(folder.join("tile")).unwrap();
        fs::remove_file(folder.join("checkpoint")).unwrap();
        log.publish(&folder);
        let restore = [
            "restore",
            "--json",
            "--from",
            "backup",
            "--dir",
            name,
            "--genesis",
            &genesis,
            "--listen",
            "127.0.0.1:1",
            "--log-key",
            "log.key",
            "--node-key",
            "node.pem",
        ];
        let made = world.keyturnd(restore).unwrap().ok().unwrap();
        let made = made.json().unwrap();
        let findings = made["findings"].as_array().unwrap();
        let signature = |one: &Value| one.as_str().is_some_and(|one| one.contains(": signature:"));
        assert_eq!(findings.iter().any(signature), want, "{name}: {made}");
    }
}
