//! People are told, in order, at least once, and nothing that is nobody's business.
//!
//! # Invariants
//! 1. What happened is told once its transaction is durable, also over a kill of the daemon.
//! 2. The notices of one notifier come in their order; a repeated one has the same id.
//! 3. No notice holds a secret or a text of details.
//! 4. What waits and what was given up is bounded; what is dropped for that is counted, and it is the oldest.
//! 5. A notice that nobody takes for a day is given up, and the next one is told.
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{fs, io::Write as _, path::Path, process::Command, time::Duration};

use keyturn_tests::{
    World,
    clocked::Clocked,
    listener::Listener,
    raw::{Founded, now},
    story::Asked,
};
use keyturn_vault::text::{CredentialLine, Text as _};
use keyturnd::{
    notice::{Kind, Notice, Severity},
    owner::outbox::{MAX_UNDELIVERED, MAX_WAITING},
};
use serde_json::{Value, json};

const SECRET: &[u8] = b"nobody is told this";
const MINUTE: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

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

/// A vault by a clock of its own, whose only notifier takes nothing.
async fn unheard() -> (Founded, Listener, Clocked, CredentialLine) {
    let mut vault = Founded::new("").await.unwrap();
    let all = Listener::new(&vault.world, "all", "").unwrap();
    all.goes_down().unwrap();
    vault.world.stop().unwrap();
    let daemon = Clocked::start(&vault.world, now()).unwrap();
    let (_, named) = vault.seal("aws/1/root", SECRET).await.unwrap();
    (vault, all, daemon, named)
}

/// What the status finds about notifiers, by its code.
async fn finding(vault: &Founded, code: &str) -> Option<String> {
    let status = vault.line("olga").await.unwrap().status().await.unwrap();
    let mut found = status.findings.into_iter();
    Some(found.find(|finding| finding.code == code)?.message)
}

/// Waits until this is found; so much time goes by between two looks.
async fn finds(vault: &Founded, daemon: &Clocked, step: Duration, code: &str, wanted: &str) {
    let mut last = None;
    for _ in 0..2000 {
        last = finding(vault, code).await;
        if last.as_ref().is_some_and(|what| what.contains(wanted)) {
            return;
        }
        daemon.advance(step).unwrap();
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(last.as_deref(), Some(wanted), "{code}");
}

/// Waits, minute by minute, until it was told enough; gives all that it was told.
async fn told(daemon: &Clocked, all: &Listener, enough: impl Fn(&[Notice]) -> bool) -> Vec<Notice> {
    let mut told = all.told();
    let mut idle = 0;
    while !enough(&told) && idle < 1000 {
        daemon.advance(MINUTE).unwrap();
        tokio::time::sleep(LOOK).await;
        let now = all.told();
        idle = if now.len() > told.len() { 0 } else { idle + 1 };
        told = now;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_for_a_day_is_given_up_and_shown_and_the_next_is_told() {
    let (vault, all, daemon, named) = unheard().await;
    open(&vault, &named).await;
    let (failing, undelivered) = ("notifier-failing", "notices-undelivered");
    finds(&vault, &daemon, Duration::ZERO, failing, "5 notices wait").await;
    // The whole day it is tried.
    daemon.advance(Duration::from_hours(23)).unwrap();
    for _ in 0..30 {
        daemon.advance(MINUTE).unwrap();
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(finding(&vault, undelivered).await, None);
    daemon.advance(Duration::from_hours(1)).unwrap();
    let given_up = "all: 5 notices were given up and 0 dropped";
    finds(&vault, &daemon, MINUTE, undelivered, given_up).await;
    assert_eq!(all.heard(), "");

    // Nobody returned it: that came later, and is still worth a try.
    all.comes_back().unwrap();
    let ended = |told: &[Notice]| told.iter().any(|one| one.kind == Kind::CheckoutEnded);
    let told = told(&daemon, &all, ended).await;
    assert!(ended(&told), "{told:?}");
    let opening = kinds(&told).iter().any(|kind| OPENING.contains(kind));
    assert!(!opening, "{told:?}");
    let stays = finding(&vault, undelivered).await;
    assert!(stays.is_some_and(|what| what.contains(given_up)));
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_few_and_the_oldest_is_dropped() {
    const ROUNDS: usize = MAX_WAITING / OPENING.len() + 2;
    let (vault, all, daemon, named) = unheard().await;
    for _ in 0..ROUNDS {
        open(&vault, &named).await;
    }
    let (failing, undelivered) = ("notifier-failing", "notices-undelivered");
    let waits = format!("{MAX_WAITING} notices wait");
    finds(&vault, &daemon, Duration::ZERO, failing, &waits).await;
    let dropped = ROUNDS * OPENING.len() - MAX_WAITING;
    let want = format!("notifier all: 0 notices were given up and {dropped} dropped");
    assert_eq!(finding(&vault, undelivered).await, Some(want));

    // A start finds what was kept, and the end of every check-out makes no more of it.
    daemon.kill().unwrap();
    let daemon = Clocked::start(&vault.world, now()).unwrap();
    finds(&vault, &daemon, Duration::ZERO, failing, &waits).await;
    daemon.advance(Duration::from_hours(25)).unwrap();
    let given_up = format!("all: {MAX_UNDELIVERED} notices were given up and ");
    finds(&vault, &daemon, 5 * MINUTE, undelivered, &given_up).await;
    for _ in 0..20 {
        daemon.advance(5 * MINUTE).unwrap();
        tokio::time::sleep(LOOK).await;
    }
    let stays = finding(&vault, undelivered).await.unwrap();
    assert!(stays.contains(&given_up), "{stays}");
    let waits = finding(&vault, failing).await.unwrap();
    let waiting = waits.split(' ').nth(2).map(str::parse::<usize>);
    assert!(waiting.unwrap().unwrap() <= MAX_WAITING, "{waits}");

    // What is told then is the newest.
    let asked = open(&vault, &named).await;
    all.comes_back().unwrap();
    let new = |told: &[Notice]| {
        let of = told.iter().filter_map(|notice| notice.ceremony);
        of.filter(|id| id.to_string() == asked.id()).count() >= OPENING.len()
    };
    let told = told(&daemon, &all, new).await;
    assert!(new(&told), "{} told: {:?}", told.len(), told.last());
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_set_back_is_told_until_somebody_hears_it() {
    let mut world = World::new().unwrap();
    world.add_sink("copies").unwrap();
    let mut vault = Founded::over(world, "").await.unwrap();
    let all = Listener::new(&vault.world, "all", "least = \"alert\"\n").unwrap();
    vault.world.stop().unwrap();
    let folder = vault.world.vault();
    let (data, old) = (folder.join("data"), folder.join("old"));
    let copied = Command::new("cp").arg("-a").args([&data, &old]).status();
    assert!(copied.unwrap().success());
    vault.world.start().unwrap();
    vault.seal("aws/1/root", SECRET).await.unwrap();
    // The daemon ends when its log is copied.
    vault.world.stop().unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&old, &data).unwrap();
    all.goes_down().unwrap();
    vault.world.start().unwrap();
    // Its first tries fail.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(all.heard(), "");
    all.comes_back().unwrap();
    let told = all.until(Kind::RestoreMode).await;
    assert_eq!(kinds(&told), ["vault.restore-mode"]);
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
    for (line, code, key, want) in [
        (vec!["check-config"], 0, "good", json!(true)),
        (
            vec!["notify", "--test", "good"],
            0,
            "notifier",
            json!("good"),
        ),
    ] {
        let line = line.into_iter().chain(["--json", "--config", &config]);
        let reply = vault.world.keyturnd(line).unwrap().exits(code).unwrap();
        let told: Value = serde_json::from_str(&reply.stdout).unwrap();
        assert_eq!(told[key], want, "{told}");
    }
    let broken = config.replace("keyturnd.toml", "none.toml");
    let line = ["check-config", "--json", "--config", &broken];
    let reply = vault.world.keyturnd(line).unwrap().exits(78).unwrap();
    let told: Value = serde_json::from_str(&reply.stdout).unwrap();
    let error = told["errors"][0]["error"].as_str();
    assert!(
        error.is_some_and(|error| error.contains("none.toml")),
        "{told}"
    );
    let told = good.told();
    assert_eq!(kinds(&told), ["notice.test", "notice.test"]);
}
