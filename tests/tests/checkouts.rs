//! What is checked out over a restart: the daemon serves before it has looked at any of it, and nothing is forgotten.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use keyturn_proto::v1;
use keyturn_tests::{
    inside::Inside,
    raw::{Founded, Line, now},
};
use keyturn_vault::{definition::Definition, id::CredentialId};
use keyturnd::store::{Name, RedbStore, Store as _, Txn};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_mins(1);

/// What somebody is told of rows that are not what was signed.
async fn forged(vault: &Founded, who: &str) -> Option<String> {
    let status = vault.line(who).await.unwrap().status().await.unwrap();
    let mut findings = status.findings.into_iter();
    let told = findings.find(|one| one.code == "store-forged");
    told.map(|told| told.message)
}

/// A credential as an operator sees it.
async fn shown(line: &Line, definition: &Definition) -> v1::CredentialView {
    let id = definition.credential.to_string();
    let show = v1::ShowCredentialRequest {
        credential: Some(v1::CredentialName {
            by: Some(v1::credential_name::By::Id(id)),
        }),
        page: None,
        all_versions: false,
    };
    let shown = line.credentials().show(show).await.unwrap();
    shown.into_inner().credential.unwrap()
}

/// Somebody with the disk has a version come from another entry than the one that sealed it; gives the row as it was.
async fn forge(vault: &Founded, id: CredentialId) -> Vec<u8> {
    let store = RedbStore::open(&vault.world.vault().join("data/store.redb")).unwrap();
    let name = Name::Credential(id).key();
    let (row, _) = store.get(&name).await.unwrap().unwrap();
    let mut forged: Value = serde_json::from_slice(&row[1..]).unwrap();
    forged["versions"]["1"]["entry"] = json!(0);
    let bytes = [&[1], forged.to_string().as_bytes()].concat();
    store.txn(Txn::new().put(name, bytes)).await.unwrap();
    store.close().await;
    row
}

async fn put_back(vault: &Founded, id: CredentialId, row: Vec<u8>) {
    let store = RedbStore::open(&vault.world.vault().join("data/store.redb")).unwrap();
    let txn = Txn::new().put(Name::Credential(id).key(), row);
    store.txn(txn).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_checked_out_is_looked_at_when_somebody_asks_or_its_time_comes() {
    let mut vault = Founded::new("").await.unwrap();
    let mut out = Vec::new();
    for path in ["db/one", "db/two", "db/three"] {
        let (definition, line) = vault.seal(path, b"secret").await.unwrap();
        let (asked, _) = vault.open(vec![line]).await.unwrap();
        out.push((definition, asked.id()));
    }
    let [one, two, _] = [0, 1, 2].map(|n: usize| out[n].0.clone());
    vault.world.stop().unwrap();
    let row = forge(&vault, two.credential).await;

    let mut inside = Inside::start(&vault.world, now()).await.unwrap();
    assert_eq!(forged(&vault, "olga").await, None, "nobody has used it");
    let mut olga = vault.line("olga").await.unwrap();
    let view = shown(&olga, &one).await;
    assert_eq!(view.checked_out, out[0].1);
    assert!(view.checkout_ends_ms > inside.clock.now().ms(), "{view:?}");
    // Who has them out is shown them all, and the row that is not what was signed is found.
    let alice = vault.line("alice").await.unwrap();
    let status = alice.status().await.unwrap();
    let ids: Vec<_> = status.checked_out.iter().map(|one| &one.id).collect();
    assert_eq!(ids, out.iter().map(|(_, id)| id).collect::<Vec<_>>());
    let told = forged(&vault, "olga").await.unwrap();
    assert!(told.contains(&two.credential.to_string()), "{told}");
    let stopped = inside.stop().await.unwrap();
    put_back(&vault, two.credential, row).await;

    // Started again, nobody asks: each ends when its hour is over, and not before.
    inside = Inside::start(&vault.world, stopped).await.unwrap();
    olga = vault.line("olga").await.unwrap();
    inside.clock.advance(50 * MINUTE);
    assert_eq!(shown(&olga, &one).await.checked_out, out[0].1);
    inside.clock.advance(10 * MINUTE);
    let ended = async {
        for (definition, _) in &out {
            while !shown(&olga, definition).await.checked_out.is_empty() {
                inside.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(MINUTE, ended).await.unwrap();
    let alice = vault.line("alice").await.unwrap();
    let status = alice.status().await.unwrap();
    assert!(status.checked_out.is_empty(), "{:?}", status.checked_out);
    assert_eq!(forged(&vault, "olga").await, None);
    inside.stop().await.unwrap();
}
