//! What opens nothing and is decided by a quorum: it takes force with the quorum, and never by what a row of
//! the store says.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeSet;

use keyturn_proto::v1;
use keyturn_tests::{
    raw::{Founded, now, wire_text},
    story::Asked,
};
use keyturn_vault::{
    definition::Definition,
    digest::Digest,
    jcs::Document as _,
    text::{Approval, Change, Decision, Details, Purpose, Text as _},
    time::Span,
};
use keyturnd::store::{Name, RedbStore, Store as _, Txn};
use serde_json::{Value, json};

/// A vault in which alice has a credential checked out, and three requests that would change something.
struct Scene {
    vault: Founded,
    definition: Definition,
    out: Asked,
    /// With its name, in the order in which they were opened.
    asked: Vec<(&'static str, Asked)>,
}

impl Scene {
    async fn new() -> Self {
        let vault = Founded::new("").await.unwrap();
        let (definition, line) = vault.seal("db/main", b"hunter2").await.unwrap();
        let (out, _) = vault.open(vec![line]).await.unwrap();
        let mut scene = Self {
            vault,
            definition,
            out,
            asked: Vec::new(),
        };
        scene.ask_all().await;
        scene
    }

    async fn ask_all(&mut self) {
        let mut new = self.definition.clone();
        let old = Digest::of(&new.to_bytes().unwrap());
        new.previous = Some(old);
        new.metadata
            .insert("account".parse().unwrap(), "42".parse().unwrap());
        let propose = v1::ProposeDefinitionRequest {
            definition: new.to_bytes().unwrap(),
        };
        let olga = self.vault.line("olga").await.unwrap();
        olga.credentials().propose(propose).await.unwrap();
        let checkout = self.out.request.ceremony;
        for (name, purpose) in [
            (
                "definition",
                Purpose::Change(Change::Definition {
                    credential: new.credential,
                    old,
                    new: Digest::of(&new.to_bytes().unwrap()),
                }),
            ),
            (
                "extend",
                Purpose::Extend {
                    checkout,
                    until: now().after(Span::from_mins(90)).stamp(),
                },
            ),
            (
                "erase",
                Purpose::Erase {
                    ceremony: checkout,
                    details: self.out.request.details,
                },
            ),
        ] {
            let by = self.vault.who("alice").unwrap();
            let line = self.vault.line("alice").await.unwrap();
            let mut asked = Asked::new(&self.vault.facts, &line, by, Vec::new())
                .await
                .unwrap();
            asked.request.purpose = purpose;
            asked.request.deliver_to = None;
            asked.request.check_out = None;
            asked.request.waive = BTreeSet::new();
            let open = asked.open(by).unwrap();
            line.ceremonies().open(open).await.unwrap();
            self.asked.push((name, asked));
        }
    }

    /// Somebody agrees, or refuses.
    async fn say(&self, who: &str, asked: &Asked, yes: bool) -> v1::CeremonyView {
        let (who, line) = (
            self.vault.who(who).unwrap(),
            self.vault.line(who).await.unwrap(),
        );
        let reason = Details {
            reason: "not now".parse().unwrap(),
            ..asked.details.clone()
        };
        let decision = if yes {
            Decision::Approve(Vec::new())
        } else {
            Decision::Refuse {
                reason: reason.digest(),
            }
        };
        let approval = Approval {
            request: asked.request.digest(),
            custodian: who.person.clone(),
            token: who.token,
            decision,
            charter: Some(self.vault.facts.reference),
            log: Some(asked.request.log),
            signed: now().stamp(),
        };
        let call = v1::ApproveRequest {
            approval: Some(wire_text(&who.sign(&approval).unwrap())),
            submissions: Vec::new(),
            details: if yes { String::new() } else { reason.to_text() },
            ceremony: asked.id(),
        };
        let reply = line.ceremonies().approve(call).await.unwrap();
        reply.into_inner().ceremony.unwrap()
    }

    /// Whether the definition is the new one, the check-out longer than an hour, the details gone.
    async fn changed(&self) -> (bool, bool, bool) {
        let line = self.vault.line("alice").await.unwrap();
        let show = v1::ShowCredentialRequest {
            credential: Some(v1::CredentialName {
                by: Some(v1::credential_name::By::Id(
                    self.definition.credential.to_string(),
                )),
            }),
            page: None,
            all_versions: false,
        };
        let shown = line.credentials().show(show).await.unwrap().into_inner();
        let definition = shown.definition.unwrap().document;
        let show = v1::ShowRequest {
            id: self.out.id(),
            page: None,
        };
        let shown = line.ceremonies().show(show).await.unwrap().into_inner();
        let out = shown.ceremony.unwrap().checkout.unwrap();
        (
            definition != self.definition.to_bytes().unwrap(),
            out.ends_ms > now().after(Span::from_mins(70)).ms(),
            shown.details_erased,
        )
    }

    /// Somebody with the disk lets carol agree to everything that bob has agreed to.
    async fn forge(&self) {
        let carol = self.vault.who("carol").unwrap();
        let charter = &self.vault.facts.charter;
        let key = &charter.person_of_token(carol.token.id).unwrap().1;
        let path = self.vault.world.vault().join("data/store.redb");
        let store = RedbStore::open(&path).unwrap();
        for (_, asked) in &self.asked {
            let name = Name::Ceremony(asked.request.ceremony).key();
            let (row, _) = store.get(&name).await.unwrap().unwrap();
            let mut row: Value = serde_json::from_slice(&row[1..]).unwrap();
            let mut vote = row["row"]["said"]["votes"][0].clone();
            vote["person"] = json!(carol.person.id);
            vote["token"] = json!(carol.token.id);
            vote["key"] = json!(key.approval_key.pin());
            vote["text"] = json!(Digest::of(b"what carol never said"));
            let votes = row["row"]["said"]["votes"].as_array_mut().unwrap();
            votes.push(vote);
            let mut statement = row["statements"][0].clone();
            let text = statement["signed"]["text"].as_str().unwrap();
            let bob = self.vault.who("bob").unwrap();
            let text = text
                .replace(&bob.person.to_string(), &carol.person.to_string())
                .replace(&bob.token.to_string(), &carol.token.to_string());
            statement["signed"]["text"] = json!(text);
            statement["signed"]["signer"]["token"] = json!(carol.token.id);
            row["statements"].as_array_mut().unwrap().push(statement);
            let bytes = [&[1], row.to_string().as_bytes()].concat();
            store.txn(Txn::new().put(name, bytes)).await.unwrap();
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_store_decides_nothing_and_two_people_do() {
    let mut scene = Scene::new().await;
    let asked = std::mem::take(&mut scene.asked);
    for (name, asked) in &asked {
        let view = scene.say("bob", asked, true).await;
        assert_eq!(view.outcome_code, "", "{name}: one is not enough");
    }
    scene.asked = asked;
    scene.vault.world.stop().unwrap();
    scene.forge().await;
    scene.vault.world.start().unwrap();
    for (name, asked) in &scene.asked {
        // Whatever happens to it, its votes are counted: there is one.
        let view = scene.say("dan", asked, false).await;
        assert_eq!(view.outcome_code, "", "{name}: by its row");
    }
    assert_eq!(scene.changed().await, (false, false, false), "by a row");
    let status = scene.vault.line("olga").await.unwrap().status().await;
    let findings = status.unwrap().findings;
    let told = findings.iter().find(|one| one.code == "store-forged");
    let told = &told.unwrap().message;
    for (name, asked) in &scene.asked {
        assert!(told.contains(&asked.id()), "{name}: {told}");
    }
    for (name, asked) in &scene.asked {
        let view = scene.say("carol", asked, true).await;
        assert_eq!(view.outcome_code, "applied", "{name}: by two people");
    }
    assert_eq!(scene.changed().await, (true, true, true), "by two people");
    // Also as the store has it.
    scene.vault.world.stop().unwrap();
    scene.vault.world.start().unwrap();
    assert_eq!(scene.changed().await, (true, true, true), "started again");
}
