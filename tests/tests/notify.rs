//! People are told, in order, at least once, and nothing that is nobody's business.
//!
//! # Invariants
//! 1. What happened is told once its transaction is durable, also over a kill of the daemon.
//! 2. The notices of one notifier come in their order; a repeated one has the same id.
//! 3. No notice holds a secret or a text of details.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{fs, io::Write as _, path::Path, time::Duration};

use keyturn_tests::{listener::Listener, raw::Founded, story::Asked};
use keyturn_vault::text::{CredentialLine, Text as _};
use keyturnd::notify::{Kind, Notice, Severity};

const SECRET: &[u8] = b"nobody is told this";

fn kinds(told: &[Notice]) -> Vec<&'static str> {
    told.iter().map(|notice| notice.kind.name()).collect()
}

/// Alice opens; bob and carol approve.
async fn open(vault: &Founded, named: &CredentialLine) -> Asked {
    let (asked, secrets) = vault.open(vec![named.clone()]).await.unwrap();
    assert_eq!(secrets, [SECRET]);
    asked
}

const OPENING: [&str; 5] = [
    // The request waives the rule of check-outs.
    "request.waived",
    "request.approved",
    "request.approved",
    "unseal.authorized",
    "unseal.released",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_in_order_and_over_a_kill() {
    let mut vault = Founded::new("").await.unwrap();
    let all = Listener::new(&vault.world, "all", "").unwrap();
    let pager = Listener::new(
        &vault.world,
        "pager",
        "least = \"alert\"\nkinds = [\"unseal.*\"]\n",
    )
    .unwrap();
    vault.world.start().unwrap();
    let (_, named) = vault.seal("aws/1/root", SECRET).await.unwrap();
    let asked = open(&vault, &named).await;
    let told = all.until(Kind::UnsealReleased).await;
    assert_eq!(kinds(&told), OPENING);
    assert_eq!(
        kinds(&pager.until(Kind::UnsealAuthorized).await),
        ["unseal.authorized"]
    );
    let first = told.first().unwrap();
    assert_eq!(first.severity, Severity::Alert);
    assert_eq!(first.ceremony.unwrap().to_string(), asked.id());
    assert_eq!(first.request_sha256, Some(asked.request.digest()));
    let awaited: Vec<_> = first.awaited.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(awaited, ["bob", "carol", "dan"], "who can approve");
    let names = |notice: &Notice| notice.person.clone().map(|one| one.name);
    let voices: Vec<_> = told.iter().filter_map(names).collect();
    assert_eq!(voices, ["bob", "carol"]);

    // Nobody listens; the daemon is killed with all that waits, and once more.
    all.goes_down().unwrap();
    vault.check_in(&asked, Some(1)).await.unwrap();
    let again = open(&vault, &named).await;
    vault.world.kill().unwrap();
    vault.world.start().unwrap();
    vault.world.kill().unwrap();
    all.comes_back().unwrap();
    vault.world.start().unwrap();
    let mut told = all.told();
    for _ in 0..1000 {
        if told.len() >= 12 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        told = all.told();
    }
    let mut want = OPENING.to_vec();
    want.extend(["checkout.returned", "rotation.manual"]);
    want.extend(OPENING);
    // The check-in's two notices are of one transaction; their order is the machines'.
    let mut got = kinds(&told);
    if let Some(both) = got.get_mut(5..7) {
        both.sort_unstable();
    }
    assert_eq!(got, want, "invariants 1 and 2");
    assert_eq!(
        told.last().unwrap().ceremony.unwrap().to_string(),
        again.id()
    );

    let heard = all.heard();
    for private in [
        std::str::from_utf8(SECRET).unwrap(),
        "the identity provider is down",
        "INC-1",
        "age1",
    ] {
        assert!(!heard.contains(private), "invariant 3: {private}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_is_tried_before_it_is_needed() {
    let vault = Founded::new("").await.unwrap();
    while !vault.world.log().join("checkpoint").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let good = Listener::new(&vault.world, "good", "").unwrap();
    let bad = Listener::new(&vault.world, "bad", "").unwrap();
    bad.goes_down().unwrap();
    let config = vault.world.vault().join("keyturnd.toml");
    let config: &Path = &config;
    let gone = "\n[notify.gone]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\nkey = \"/nonexistent\"\n";
    let mut file = fs::File::options().append(true).open(config).unwrap();
    file.write_all(gone.as_bytes()).unwrap();
    let config = config.display().to_string();
    let check = ["check-config", "--config", &config];
    let checked = vault.world.keyturnd(check).unwrap().ok().unwrap();
    assert!(
        checked
            .stderr
            .contains("notifier `gone`: the key /nonexistent"),
        "{}",
        checked.stderr
    );
    for (name, code, want) in [
        (
            "good",
            0,
            "good: took the notice vault.example.org/prod/test-",
        ),
        ("bad", 1, "the program ended with exit status: 1"),
        ("gone", 1, "the key /nonexistent"),
        ("nobody", 1, "the configuration has no notifier `nobody`"),
    ] {
        let test = ["notify", "--test", name, "--config", &config];
        let reply = vault.world.keyturnd(test).unwrap().exits(code).unwrap();
        let said = format!("{}{}", reply.stdout, reply.stderr);
        assert!(said.contains(want), "{name}: {said}");
    }
    let told = good.told();
    assert_eq!(kinds(&told), ["notice.test"]);
}
