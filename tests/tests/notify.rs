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

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use keyturn_proto::v1;
use keyturn_tests::{
    World,
    harness::write_private,
    raw::{Founded, wire_text},
    story::{Asked, Ballot, release},
};
use keyturn_vault::{
    reference::Version,
    text::{Checkin, CredentialLine, Returned, Text as _},
};
use keyturnd::notify::{Kind, Notice, Severity};

const SECRET: &[u8] = b"nobody is told this";

/// A program that writes down what it is told, unless a file says that it is down.
struct Listener {
    told: PathBuf,
    down: PathBuf,
}

impl Listener {
    fn new(world: &World, name: &str, more: &str) -> Self {
        let folder = world.folder().join(name);
        fs::create_dir(&folder).unwrap();
        let (told, down, program) = (
            folder.join("told"),
            folder.join("down"),
            folder.join("hear"),
        );
        let script = format!(
            "#!/bin/sh\n[ -e {} ] && exit 1\ndoc=$(cat)\nprintf '%s\\n' \"$doc\" >> {}\n",
            down.display(),
            told.display()
        );
        write_private(&program, script.as_bytes()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = world.vault().join("keyturnd.toml");
        let mut config = fs::File::options().append(true).open(config).unwrap();
        write!(
            config,
            "\n[notify.{name}]\nkind = \"exec\"\ncommand = \"{}\"\n{more}",
            program.display()
        )
        .unwrap();
        Self { told, down }
    }

    fn goes_down(&self) {
        write_private(&self.down, b"").unwrap();
    }

    fn comes_back(&self) {
        fs::remove_file(&self.down).unwrap();
    }

    /// What it was told, each notice once.
    fn told(&self) -> Vec<Notice> {
        let text = fs::read_to_string(&self.told).unwrap_or_default();
        let mut seen = BTreeSet::new();
        // A line may be half written; and a daemon that is killed may have told a program nothing yet.
        let notices = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        notices
            .filter(|notice: &Notice| seen.insert(notice.id.clone()))
            .collect()
    }

    /// Waits until it was told this.
    async fn until(&self, kind: Kind) -> Vec<Notice> {
        for _ in 0..1000 {
            let told = self.told();
            if told.iter().any(|notice| notice.kind == kind) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.told()
    }
}

fn kinds(told: &[Notice]) -> Vec<&'static str> {
    told.iter().map(|notice| notice.kind.name()).collect()
}

/// Alice opens; bob and carol approve.
async fn open(vault: &Founded, named: &CredentialLine) -> Asked {
    let (alice, line) = (
        vault.who("alice").unwrap(),
        vault.line("alice").await.unwrap(),
    );
    let asked = Asked::new(&vault.facts, &line, alice, vec![named.clone()]);
    let asked = asked.await.unwrap();
    let open = asked.open(alice).unwrap();
    line.ceremonies().open(open).await.unwrap();
    for name in ["bob", "carol"] {
        let (who, line) = (vault.who(name).unwrap(), vault.line(name).await.unwrap());
        let ballot = Ballot::new(&vault.facts, &line, who, &asked.id())
            .await
            .unwrap();
        line.ceremonies()
            .approve(ballot.call().unwrap())
            .await
            .unwrap();
    }
    let released = release(&line, &asked.id()).await.unwrap().unwrap();
    assert_eq!(asked.receive(&vault.facts, &released).unwrap(), [SECRET]);
    asked
}

async fn check_in(vault: &Founded, asked: &Asked, named: &CredentialLine) {
    let alice = vault.who("alice").unwrap();
    let checkin = Checkin {
        vault: asked.request.vault.clone(),
        ceremony: asked.request.ceremony,
        request: asked.request.digest(),
        returned_by: alice.person.clone(),
        signed: keyturn_tests::raw::now().stamp(),
        credentials: vec![Returned {
            path: named.path.clone(),
            credential: named.credential,
            worked: Version::new(1),
            void: None,
        }],
    };
    let checkin = Some(wire_text(&alice.sign_by_device(&checkin).unwrap()));
    let line = vault.line("alice").await.unwrap();
    let call = v1::CheckinRequest { checkin };
    line.ceremonies().checkin(call).await.unwrap();
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
    let all = Listener::new(&vault.world, "all", "");
    let pager = Listener::new(
        &vault.world,
        "pager",
        "least = \"alert\"\nkinds = [\"unseal.*\"]\n",
    );
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
    all.goes_down();
    check_in(&vault, &asked, &named).await;
    let again = open(&vault, &named).await;
    vault.world.kill().unwrap();
    vault.world.start().unwrap();
    vault.world.kill().unwrap();
    all.comes_back();
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

    let heard = fs::read_to_string(&all.told).unwrap();
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
    let good = Listener::new(&vault.world, "good", "");
    let bad = Listener::new(&vault.world, "bad", "");
    bad.goes_down();
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
