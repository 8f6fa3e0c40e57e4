//! Disks that are lost, and what a place for copies and two custodians make of it: real daemons, the
//! command line, every step of a rotation.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{fs, path::PathBuf, thread, time::Duration};

use keyturn_audit::note::LogKey;
use keyturn_tests::{Outcome, Reply, World, lanes::side_by_side, program::finish, target::Target};
use keyturnd::store::{KeyRange, Name, RedbStore, Store as _, Txn, key::Family};
use serde_json::Value;

const PATH: &str = "accounts/root";
const USER: &str = "root";
const FIRST: &str = "the first password";
const STEP: Duration = Duration::from_millis(50);
const STEPS: u32 = 600;

/// A founded vault with one place for copies, and a credential that is rotated at a target: alice asks and
/// operates, bob, carol and dan are custodians.
struct Stage {
    world: World,
    target: Target,
    sink: PathBuf,
    genesis: String,
    /// The newest ceremony that the vault had before.
    before: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Stage {
    fn new() -> Outcome<Self> {
        let mut world = World::new()?;
        let sink = world.add_sink("copies")?;
        let people: [(&str, &[&str]); 4] = [
            ("alice", &["requester", "operator"]),
            ("bob", &["custodian"]),
            ("carol", &["custodian"]),
            ("dan", &["custodian"]),
        ];
        let genesis = world.found(&people)?;
        let target = Target::start(&world)?;
        target.set(USER, FIRST.as_bytes())?;
        world.start()?;
        fs::write(world.folder().join("secret"), FIRST)?;
        let add = "credential add accounts/root --kind text --group ops --policy default --connector accounts --set user=root --secret-file secret";
        world.keyturn("alice", add.split(' '))?.ok()?;
        let stage = Self {
            world,
            target,
            sink,
            genesis,
            before: String::new(),
        };
        until("the first version is copied", || {
            let credentials = fs::read_dir(stage.sink.join("credentials"));
            // Who has its folder has seen its entry.
            credentials.is_ok_and(|mut folders| folders.next().is_some())
                && stage.copied_size() >= stage.log_size()
        })?;
        Ok(stage)
    }

    /// Entries of the log that the daemon has published.
    fn log_size(&self) -> u64 {
        size_of(&self.world.log().join("checkpoint"))
    }

    /// Entries of the log in the place for copies.
    fn copied_size(&self) -> u64 {
        size_of(&self.sink.join("checkpoint"))
    }

    fn copied(&self, enough: impl Fn(u64) -> bool) -> Outcome<()> {
        until("the copy is there", || enough(self.copied_size()))
    }

    /// Two custodians open all that is live; gives the ceremony and the secrets.
    fn open(&self) -> Outcome<(String, Vec<String>)> {
        self.open_at(PATH)
    }

    fn open_at(&self, path: &str) -> Outcome<(String, Vec<String>)> {
        let ask = ["--json", "unseal", path, "--reason", "it is needed"];
        let asked = self.world.command("alice", ask)?.spawn()?;
        let (mut ceremony, mut digest) = (String::new(), String::new());
        until("a request waits", || {
            let status = self.world.keyturn("bob", ["--json", "status"]);
            let status = status.and_then(|status| status.ok()?.json()).unwrap();
            let waiting = status["waiting"].as_array().cloned().unwrap_or_default();
            // An opening that the copy has unfinished may wait too; the new one has the highest id.
            let asked = waiting.into_iter().filter(|one| one["purpose"] == "unseal");
            let newest = asked.max_by_key(|one| text(&one["ceremony"]));
            let first = newest
                .filter(|one| text(&one["ceremony"]) > self.before)
                .unwrap_or_default();
            ceremony = text(&first["ceremony"]);
            digest = text(&first["request_sha256"]);
            !ceremony.is_empty()
        })?;
        for who in ["bob", "carol"] {
            let approve = ["--yes-sha256", &digest, "approve", &ceremony, "--no-wait"];
            self.world.keyturn(who, approve)?.ok()?;
        }
        let opened = finish(asked)?.ok()?.json()?;
        let secrets = opened["secrets"].as_array().cloned().unwrap_or_default();
        let secrets = secrets.iter().map(|one| text(&one["secret"]));
        Ok((ceremony, secrets.collect()))
    }

    fn check_in(&self, ceremony: &str) -> Outcome<Reply> {
        self.world.keyturn("alice", ["checkin", ceremony])?.ok()
    }

    /// The disk is gone, with all that was on it; gives the keys where these are to be kept.
    fn lose(&mut self, keys: bool) -> Outcome<()> {
        self.world.kill()?;
        for name in ["log.key", "node.pem"] {
            if keys {
                fs::rename(
                    self.world.vault().join(name),
                    self.world.folder().join(name),
                )?;
            }
        }
        Ok(fs::remove_dir_all(self.world.vault())?)
    }

    /// `keyturnd restore` from this folder to a bare host.
    fn restore(&self, from: &str, keys: bool) -> Outcome<Reply> {
        self.restore_with(from, keys, &[])
    }

    fn restore_with(&self, from: &str, keys: bool, more: &[&str]) -> Outcome<Reply> {
        let address = self.world.address().to_string();
        let genesis = &self.genesis;
        let mut args = vec![
            "restore",
            "--json",
            "--from",
            from,
            "--dir",
            "vault",
            "--genesis",
            genesis,
            "--listen",
            &address,
        ];
        if keys {
            args.extend(["--log-key", "log.key", "--node-key", "node.pem"]);
        }
        args.extend(more);
        self.world.keyturnd(args)
    }

    /// From the bare host to a daemon in restore mode; gives the pin of its server.
    fn restored(&mut self, keys: bool) -> Outcome<String> {
        self.restored_from("copies", keys, &[])
    }

    fn restored_from(&mut self, from: &str, keys: bool, more: &[&str]) -> Outcome<String> {
        let made = self.restore_with(from, keys, more)?.ok()?.json()?;
        assert_eq!(made["findings"], Value::Array(Vec::new()));
        assert_eq!(made["new_log_key"], !keys);
        assert_eq!(made["new_node"], !keys);
        self.target.configure(&self.world)?;
        self.world.start()?;
        Ok(text(&made["server_pin"]))
    }

    /// `keyturn accept-restore` as somebody.
    fn accept(&self, who: &str, pin: &str, more: &[&str]) -> Outcome<Reply> {
        let args = ["--json", "accept-restore", "--server-pin", pin, "--no-wait"];
        self.world.keyturn(who, args.iter().chain(more))
    }

    /// Bob asks and agrees, carol agrees; alice follows.
    fn accepted(&self, pin: &str) -> Outcome<()> {
        self.accepted_for("bob", pin)
    }

    /// The same, as somebody else asked.
    fn accepted_for(&self, who: &str, pin: &str) -> Outcome<()> {
        let asked = self.accept(who, pin, &["--ask-only"])?.ok()?.json()?;
        let digest = text(&asked["sha256"]);
        for (who, state) in [("bob", "open"), ("carol", "applied")] {
            let yes = ["--yes-sha256", &digest];
            let reply = self.accept(who, pin, &yes)?.ok()?.json()?;
            assert_eq!(reply["state"], state, "{who}");
        }
        let follows = self.accept("bob", pin, &[])?.ok()?.json()?;
        assert_eq!(follows["state"], "applied");
        // To alice it is a server at another address, which she keeps.
        let (profile, address) = (
            self.world.home("alice").join("profile.json"),
            self.world.address(),
        );
        let known = fs::read_to_string(&profile)?;
        let elsewhere = known.replace(&address.to_string(), "127.0.0.1:1");
        assert_ne!(known, elsewhere);
        fs::write(&profile, elsewhere)?;
        let endpoint = ["--endpoint", &address.to_string()];
        let follows = self.accept("alice", pin, &endpoint)?.ok()?.json()?;
        assert_eq!(follows["state"], "applied");
        self.world.keyturn("alice", ["status"])?.ok()?;
        Ok(())
    }

    /// Findings of `audit verify` over the whole log.
    fn findings(&self, who: &str) -> Outcome<Vec<String>> {
        let report = self.world.keyturn(who, ["--json", "audit", "verify"])?;
        let report = report.json()?;
        let findings = report["findings"].as_array().cloned().unwrap_or_default();
        let told = |one: &Value| format!("{}: {}", text(&one["code"]), text(&one["what"]));
        Ok(findings.iter().map(told).collect())
    }
}

/// Entries that a checkpoint covers; none where there is none.
fn size_of(checkpoint: &std::path::Path) -> u64 {
    let text = fs::read_to_string(checkpoint).unwrap_or_default();
    let size = text.lines().nth(1).map(str::parse);
    size.and_then(Result::ok).unwrap_or_default()
}

fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let of = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    };
    entries
        .flat_map(|entry| of(entry.unwrap().path()))
        .collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Outcome<()> {
    for _ in 0..STEPS {
        if done() {
            return Ok(());
        }
        thread::sleep(STEP);
    }
    Err(format!("{what}: not in time").into())
}

/// Where the daemon is killed and its disk lost.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Checked out: a rotation is owed.
    Out,
    /// The new version is sealed; no copy of it is begun.
    Sealed,
    /// All of its copy is written but the manifest, which makes it whole.
    HalfCopied,
    /// In this call to the target: before it, or after it took effect.
    Call(&'static str, bool),
    /// After the rotation.
    Done,
}

#[test]
fn the_disk_is_lost_at_every_step_of_a_rotation_and_everything_opens() {
    let cases = [
        (At::Out, false),
        (At::Sealed, true),
        (At::HalfCopied, false),
        (At::Call("apply", false), true),
        (At::Call("apply", true), false),
        (At::Call("test", false), true),
        (At::Call("test", true), false),
        (At::Call("end-sessions", false), true),
        (At::Call("end-sessions", true), false),
        (At::Done, true),
    ];
    let lost = |(), (at, keys)| async move { lost_at(at, keys) };
    side_by_side(3, &cases, || (), lost).unwrap();
}

fn lost_at(at: At, keys: bool) {
    let mut stage = Stage::new().unwrap();
    let (sink, away) = (stage.sink.clone(), stage.sink.with_extension("away"));
    let folder = fs::read_dir(sink.join("credentials")).unwrap().next();
    let second = folder.unwrap().unwrap().path().join("v2");
    match at {
        At::Call(action, after) => stage.target.stops(action, after).unwrap(),
        // Nothing can be written under the name that a manifest has at first.
        At::HalfCopied => fs::create_dir_all(second.join("manifest.new")).unwrap(),
        At::Out | At::Sealed | At::Done => {}
    }
    let (ceremony, _) = stage.open().unwrap();
    if matches!(at, At::Sealed) {
        let size = stage.log_size();
        stage.copied(|there| there >= size).unwrap();
        fs::rename(&sink, &away).unwrap();
    }
    if !matches!(at, At::Out) {
        stage.check_in(&ceremony).unwrap();
    }
    match at {
        At::Out => {}
        At::Sealed | At::HalfCopied => {
            let waits = || {
                let list = stage.world.keyturn("alice", ["--json", "rotate", "list"]);
                list.unwrap().ok().unwrap().stdout.contains("few-copies")
            };
            until("it waits for its copy", waits).unwrap();
            assert!(stage.target.accepts(USER, FIRST.as_bytes()).unwrap());
        }
        At::Call(..) => {
            until(&format!("{at:?}"), || stage.target.reached()).unwrap();
        }
        At::Done => {
            let void = || !stage.target.accepts(USER, FIRST.as_bytes()).unwrap();
            until("rotated", void).unwrap();
        }
    }
    stage.lose(keys).unwrap();
    match at {
        At::Sealed => fs::rename(&away, &sink).unwrap(),
        At::HalfCopied => {
            assert!(second.join("payload.age").exists());
            fs::remove_dir(second.join("manifest.new")).unwrap();
        }
        At::Out | At::Call(..) | At::Done => {}
    }
    let pin = stage.restored(keys).unwrap();
    if matches!(at, At::Call(..)) {
        stage.target.goes_on().unwrap();
    }
    // Who asks is she who has seen the most of what is lost.
    stage.accepted_for("alice", &pin).unwrap();

    stage.before = ceremony;
    let (_, secrets) = stage.open().unwrap();
    let accepted = |secret: &String| stage.target.accepts(USER, secret.as_bytes()).unwrap();
    assert!(
        secrets.iter().any(accepted),
        "{at:?}: {} opened",
        secrets.len()
    );
    let findings = stage.findings("alice").unwrap();
    let odd = findings
        .iter()
        .filter(|what| !what.starts_with("lost-entries"));
    assert_eq!(odd.count(), 0, "{at:?}: {findings:?}");
}

#[test]
fn one_person_alone_accepts_nothing_and_a_restored_vault_does_nothing_else() {
    let mut stage = Stage::new().unwrap();
    stage.lose(false).unwrap();
    let pin = stage.restored(false).unwrap();
    let health = stage.world.keyturn("bob", ["status"]).unwrap();
    assert_ne!(health.code, 0, "the server's key is not the pinned one");

    let asked = stage
        .accept("bob", &pin, &["--ask-only"])
        .unwrap()
        .ok()
        .unwrap();
    let digest = text(&asked.json().unwrap()["sha256"]);
    let yes = ["--yes-sha256", &digest];
    for _ in 0..2 {
        let said = stage.accept("bob", &pin, &yes).unwrap().ok().unwrap();
        assert_eq!(said.json().unwrap()["state"], "open");
    }
    let alone = stage.accept("alice", &pin, &yes).unwrap().ok().unwrap();
    assert_eq!(
        alone.json().unwrap()["state"],
        "open",
        "she is no custodian"
    );
    let other = stage.accept("carol", &pin, &["--yes-sha256", &"0".repeat(64)]);
    other.unwrap().exits(26).unwrap();
    let said = stage.accept("carol", &pin, &yes).unwrap().ok().unwrap();
    assert_eq!(said.json().unwrap()["state"], "applied");
    assert!(said.stderr.contains("new keys"), "{}", said.stderr);

    // Without the pin from an operator nobody comes to the new server; with it everybody follows.
    stage
        .world
        .keyturn("dan", ["status"])
        .unwrap()
        .exits(4)
        .unwrap();
    stage.accept("dan", &pin, &[]).unwrap().ok().unwrap();
    stage
        .world
        .keyturn("dan", ["status"])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(stage.findings("dan").unwrap(), Vec::<String>::new());

    // The accepted restore survives a restart, and is judged from the pins again.
    stage.world.start().unwrap();
    stage
        .world
        .keyturn("dan", ["status"])
        .unwrap()
        .ok()
        .unwrap();
}

#[test]
fn whoever_has_seen_more_says_what_is_lost() {
    let mut stage = Stage::new().unwrap();
    let backup = "backup --json --config vault/keyturnd.toml --to old";
    for _ in 0..2 {
        let made = stage
            .world
            .keyturnd(backup.split(' '))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(made.json().unwrap()["versions"], 1);
    }
    for key in ["log.key", "node.pem"] {
        let key = fs::read_to_string(stage.world.vault().join(key)).unwrap();
        let secret = key.lines().nth(1).unwrap();
        let found = files(&stage.world.folder().join("old"))
            .into_iter()
            .find(|file| {
                let bytes = fs::read(file).unwrap();
                bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes())
            });
        assert_eq!(found, None, "no private key is in a backup");
    }
    stage.open().unwrap();
    stage
        .world
        .keyturn("carol", ["audit", "checkpoint"])
        .unwrap()
        .ok()
        .unwrap();
    stage.lose(true).unwrap();

    let made = stage
        .restore("old", true)
        .unwrap()
        .ok()
        .unwrap()
        .json()
        .unwrap();
    let pin = text(&made["server_pin"]);
    stage.target.configure(&stage.world).unwrap();
    stage.world.start().unwrap();
    // Dan has seen no more than what is there; what he asks for, carol does not sign.
    let asked = stage
        .accept("dan", &pin, &["--ask-only"])
        .unwrap()
        .ok()
        .unwrap();
    let less = text(&asked.json().unwrap()["ceremony"]);
    let asked = stage
        .accept("carol", &pin, &["--ask-only"])
        .unwrap()
        .ok()
        .unwrap();
    let asked = asked.json().unwrap();
    assert_ne!(text(&asked["ceremony"]), less);
    let digest = text(&asked["sha256"]);
    let yes = ["--yes-sha256", &digest];
    let said = stage.accept("carol", &pin, &yes).unwrap().ok().unwrap();
    assert!(said.stderr.contains("possibly released"), "{}", said.stderr);
    let id = text(&asked["ceremony"]);
    let approve = ["--yes-sha256", &digest, "approve", &id, "--no-wait"];
    let _ = stage.world.keyturn("bob", approve).unwrap();
    let said = stage.accept("bob", &pin, &yes).unwrap().ok().unwrap();
    assert_eq!(said.json().unwrap()["state"], "applied");
    stage.accept("alice", &pin, &[]).unwrap().ok().unwrap();
    let (_, secrets) = stage.open().unwrap();
    assert_eq!(secrets, [FIRST]);
    let findings = stage.findings("alice").unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].starts_with("lost-entries"), "{findings:?}");
}

/// Opens, returns and waits until the target has another password.
fn rotated(stage: &Stage) {
    let size = stage.copied_size();
    let (ceremony, _) = stage.open().unwrap();
    stage.check_in(&ceremony).unwrap();
    let void = || !stage.target.accepts(USER, FIRST.as_bytes()).unwrap();
    until("rotated", void).unwrap();
    stage.copied(|now| now > size).unwrap();
    let idle = || {
        let list = stage.world.keyturn("alice", ["--json", "rotate", "list"]);
        let list = list.unwrap().ok().unwrap().json().unwrap();
        list["rotations"].as_array().is_some_and(Vec::is_empty)
    };
    until("the rotation is over", idle).unwrap();
}

/// The only secret that the target accepts lies in the place for copies; the backup knows nothing of it.
#[test]
fn a_restore_from_an_old_backup_takes_back_what_only_a_sink_has_and_overwrites_nothing() {
    let mut stage = Stage::new().unwrap();
    let backup = "backup --config vault/keyturnd.toml --to old";
    let made = stage.world.keyturnd(backup.split(' ')).unwrap();
    made.ok().unwrap();
    rotated(&stage);
    stage.lose(true).unwrap();
    let sink = stage.sink.clone();
    let more = ["--sink", sink.to_str().unwrap()];
    let pin = stage.restored_from("old", true, &more).unwrap();
    stage.accepted(&pin).unwrap();
    let (_, secrets) = stage.open().unwrap();
    let accepted = |secret: &String| stage.target.accepts(USER, secret.as_bytes()).unwrap();
    assert!(secrets.iter().any(accepted), "{} opened", secrets.len());
    assert!(!sink.join("set-aside").exists());
}

fn serves(stage: &Stage) -> bool {
    let status = stage.world.keyturn("dan", ["--json", "status"]).unwrap();
    status.ok().unwrap().json().unwrap()["restore_mode"] == false
}

/// More than one transaction takes back.
#[test]
fn all_that_only_a_sink_has_is_taken_back_however_much_it_is() {
    const MANY: usize = 30;
    let mut stage = Stage::new().unwrap();
    let path = |n: usize| format!("many/{n}");
    let with_secret = ["--secret-file", "secret"];
    for n in 0..MANY {
        let (path, more) = (path(n), "--kind text --group ops --policy default");
        let add = ["credential", "add", &path].into_iter();
        let add = add.chain(more.split(' ')).chain(with_secret);
        stage.world.keyturn("alice", add).unwrap().ok().unwrap();
    }
    let backup = "backup --config vault/keyturnd.toml --to old";
    let made = stage.world.keyturnd(backup.split(' ')).unwrap();
    made.ok().unwrap();
    for n in 0..MANY {
        let path = path(n);
        let deposit = ["credential", "deposit", &path].into_iter();
        let deposit = deposit.chain(with_secret);
        stage.world.keyturn("alice", deposit).unwrap().ok().unwrap();
    }
    // The vault's own word for its newest head, which is published a moment later.
    let newest = ["--json", "audit", "checkpoint"];
    let newest = stage.world.keyturn("alice", newest).unwrap().ok().unwrap();
    let size = newest.json().unwrap()["size"].as_u64().unwrap();
    stage.copied(|there| there >= size).unwrap();
    stage.lose(true).unwrap();
    let sink = stage.sink.clone();
    let more = ["--sink", sink.to_str().unwrap()];
    let pin = stage.restored_from("old", true, &more).unwrap();
    stage.accepted_for("alice", &pin).unwrap();
    until("all is taken back", || serves(&stage)).unwrap();
    for n in [0, 15, 29] {
        let show = ["--json", "credential", "show", &path(n)].map(str::to_owned);
        let shown = stage.world.keyturn("alice", show).unwrap().ok().unwrap();
        let versions = shown.json().unwrap()["versions"].as_array().map(Vec::len);
        assert_eq!(versions, Some(2), "{n}: {}", shown.stdout);
    }
    let findings = stage.findings("alice").unwrap();
    let odd = findings
        .iter()
        .filter(|what| !what.starts_with("lost-entries"));
    assert_eq!(odd.count(), 0, "{findings:?}");
    // It is finished: a restart serves.
    stage.world.start().unwrap();
    assert!(serves(&stage));
}

/// The same, and that place is away until the vault goes on with a version of the same number.
#[test]
fn a_place_that_comes_back_after_a_restore_keeps_the_only_secret_that_works() {
    let mut stage = Stage::new().unwrap();
    let backup = "backup --config vault/keyturnd.toml --to old";
    let made = stage.world.keyturnd(backup.split(' ')).unwrap();
    made.ok().unwrap();
    rotated(&stage);
    stage.lose(true).unwrap();
    let (sink, away) = (stage.sink.clone(), stage.sink.with_extension("away"));
    let more = ["--sink", sink.to_str().unwrap()];
    let made = stage.restore_with("old", true, &more).unwrap();
    let pin = text(&made.ok().unwrap().json().unwrap()["server_pin"]);
    fs::rename(&sink, &away).unwrap();
    stage.target.configure(&stage.world).unwrap();
    stage.world.start().unwrap();
    let warned = stage.accept("bob", &pin, &["--ask-only"]).unwrap();
    let warned = warned.ok().unwrap().stderr;
    assert!(warned.contains("cannot be looked at"), "{warned}");
    stage.accepted_for("alice", &pin).unwrap();
    let deposit = ["credential", "deposit", PATH, "--secret-file", "secret"];
    stage.world.keyturn("alice", deposit).unwrap().ok().unwrap();
    // Its log is another history now; what an operator is told to do makes it take the new one.
    for name in ["checkpoint", "tile"] {
        fs::rename(away.join(name), away.join(format!("{name}.lost"))).unwrap();
    }
    fs::rename(&away, &sink).unwrap();
    let tree = sink.join("set-aside/1");
    until("it is set aside", || tree.exists()).unwrap();
    let told = || {
        let status = stage.world.keyturn("dan", ["--json", "status"]).unwrap();
        status.ok().unwrap().stdout.contains("\"set-aside\"")
    };
    until("it is told", told).unwrap();

    let mut ask = vec!["--json", "recover", "request", PATH, "--reason", "now"];
    let tree = tree.display().to_string();
    ask.extend(["--export", &tree, "--out", "asked"]);
    let asked = stage.world.keyturn("alice", ask).unwrap().ok().unwrap();
    let digest = text(&asked.json().unwrap()["request_sha256"]);
    for who in ["bob", "carol"] {
        let answer = ["recover", "share", "asked", "--export", &tree, "--out", who];
        let yes = ["--yes-sha256", &digest];
        let answered = stage.world.keyturn(who, yes.iter().chain(&answer)).unwrap();
        answered.ok().unwrap();
    }
    let open = [
        "recover", "open", "asked", "bob", "carol", "--export", &tree, "--output", "opened",
    ];
    stage.world.keyturn("alice", open).unwrap().ok().unwrap();
    let secret = fs::read(stage.world.folder().join("opened")).unwrap();
    assert!(stage.target.accepts(USER, &secret).unwrap());
}

#[test]
fn a_copy_that_was_altered_cut_or_is_another_vaults_is_refused() {
    let mut stage = Stage::new().unwrap();
    stage.world.stop().unwrap();
    fs::remove_dir_all(stage.world.vault()).unwrap();
    let sink = &stage.sink;
    let version = {
        let credentials = fs::read_dir(sink.join("credentials")).unwrap().next();
        credentials.unwrap().unwrap().path().join("v1")
    };
    let object = sink.join("objects").join(&stage.genesis);
    let bundle = fs::read_dir(sink.join("tile/entries")).unwrap().next();
    let bundle = bundle.unwrap().unwrap().path();
    let bundle = if bundle.is_dir() {
        fs::read_dir(bundle)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
    } else {
        bundle
    };
    for (name, path, says) in [
        ("a secret", version.join("payload.age"), "is not whole"),
        ("a manifest", version.join("manifest.json"), "is not whole"),
        ("the first charter", object, "first charter"),
        ("the entries", bundle, "does not verify"),
        ("the checkpoint", sink.join("checkpoint"), "does not verify"),
    ] {
        let whole = fs::read(&path).unwrap();
        let mut altered = whole.clone();
        *altered.last_mut().unwrap() ^= 1;
        let cut = whole[..whole.len() / 2].to_vec();
        for bytes in [altered, cut] {
            fs::write(&path, bytes).unwrap();
            let refused = stage.restore("copies", false).unwrap().exits(1).unwrap();
            assert!(refused.stderr.contains(says), "{name}: {}", refused.stderr);
            assert!(refused.stderr.contains("hint:"), "{name}");
            assert!(!stage.world.vault().exists(), "{name}: nothing is made");
        }
        fs::write(&path, whole).unwrap();
    }
    let genesis = std::mem::replace(&mut stage.genesis, "0".repeat(64));
    stage.restore("copies", false).unwrap().exits(1).unwrap();
    stage.genesis = genesis;
    stage.restore("nowhere", false).unwrap().exits(1).unwrap();
    // What an interrupted restore left is made anew; what is there is not touched.
    fs::create_dir_all(stage.world.folder().join("vault.partial/data")).unwrap();
    stage.restore("copies", false).unwrap().ok().unwrap();
    let again = stage.restore("copies", false).unwrap().exits(1).unwrap();
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
}

#[test]
fn a_store_that_was_set_back_goes_on_when_two_accept_it() {
    let mut stage = Stage::new().unwrap();
    let (data, old) = (
        stage.world.vault().join("data"),
        stage.world.folder().join("old"),
    );
    stage.world.stop().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&data)
        .arg(&old)
        .status();
    assert!(copied.unwrap().success());
    stage.world.start().unwrap();
    let before = stage.copied_size();
    let (ceremony, _) = stage.open().unwrap();
    stage.check_in(&ceremony).unwrap();
    let void = || !stage.target.accepts(USER, FIRST.as_bytes()).unwrap();
    until("rotated", void).unwrap();
    stage.copied(|size| size > before).unwrap();
    stage.world.kill().unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(old, &data).unwrap();

    stage.world.start().unwrap();
    let status = stage.world.keyturn("dan", ["--json", "status"]).unwrap();
    assert_eq!(status.ok().unwrap().json().unwrap()["restore_mode"], true);
    let refused = ["unseal", PATH, "--reason", "now"];
    stage
        .world
        .keyturn("alice", refused)
        .unwrap()
        .exits(21)
        .unwrap();
    let pin = "0".repeat(64);
    stage.accepted(&pin).unwrap();
    let (_, secrets) = stage.open().unwrap();
    let accepted = |secret: &String| stage.target.accepts(USER, secret.as_bytes()).unwrap();
    assert!(
        secrets.iter().any(accepted),
        "what only the copy had is taken back"
    );
    // The place for copies has begun anew with the log that goes on.
    stage.copied(|size| size > before).unwrap();
    stage.world.start().unwrap();
    let status = stage
        .world
        .keyturn("dan", ["--json", "accept-restore"])
        .unwrap();
    status.ok().unwrap();
}

/// Spoils the row of a credential in a store that nobody serves; gives the credential's id.
async fn spoil(data: &std::path::Path, path: &str) -> Outcome<String> {
    let store = RedbStore::open(&data.join("store.redb"))?;
    let page = store
        .range(&KeyRange::family(Family::Credential), 10)
        .await?;
    let is = |row: &&keyturnd::store::Row| {
        let row: Value = serde_json::from_slice(&row.value[1..]).unwrap();
        row["path"] == path
    };
    let row = page.rows.iter().find(is).ok_or("no such credential")?;
    let Some(Name::Credential(id)) = row.key.name() else {
        return Err("no credential's key".into());
    };
    store
        .txn(Txn::new().put(row.key.clone(), b"\x01{}".to_vec()))
        .await?;
    store.close().await;
    Ok(id.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_used_keeps_nobody_from_accepting_a_restore() {
    const OTHER: &str = "other/root";
    let mut stage = Stage::new().unwrap();
    let add = format!(
        "credential add {OTHER} --kind text --group ops --policy default --secret-file secret"
    );
    let added = stage.world.keyturn("alice", add.split(' ')).unwrap();
    added.ok().unwrap();
    stage.world.stop().unwrap();
    let (data, old) = (
        stage.world.vault().join("data"),
        stage.world.folder().join("old"),
    );
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&data, &old])
        .status();
    assert!(copied.unwrap().success());
    stage.world.start().unwrap();
    rotated(&stage);
    stage.world.kill().unwrap();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(old, &data).unwrap();
    let id = spoil(&data, PATH).await.unwrap();

    // The place for copies has a newer version of what cannot be used.
    stage.world.start().unwrap();
    let pin = "0".repeat(64);
    let warned = stage.accept("bob", &pin, &["--ask-only"]).unwrap();
    let warned = warned.ok().unwrap().stderr;
    assert!(
        warned.contains(&format!("there is no credential {PATH} that can be used")),
        "{warned}"
    );
    stage.accepted(&pin).unwrap();
    until("the vault goes on", || serves(&stage)).unwrap();
    // What is begun anew there cannot be complete, and says so.
    let told = || {
        let status = stage.world.keyturn("dan", ["--json", "status"]).unwrap();
        let status = status.ok().unwrap().stdout;
        status.contains("sink-behind") && status.contains("a row of the store cannot be read")
    };
    until("it is told", told).unwrap();
    let refused = ["unseal", PATH, "--reason", "now"];
    assert_ne!(stage.world.keyturn("alice", refused).unwrap().code, 0);
    let (_, secrets) = stage.open_at(OTHER).unwrap();
    assert_eq!(secrets, [FIRST]);
    // What the target accepts is where it was.
    let version = stage.sink.join("credentials").join(&id).join("v2");
    assert!(version.join("manifest.json").exists(), "{version:?}");
}

#[test]
fn what_was_kept_under_a_key_that_was_replaced_is_still_held_against_the_log() {
    const SIGNED: &str = "is not signed by this key";
    let mut stage = Stage::new().unwrap();
    let checkpoint = |stage: &Stage, file: &str| {
        let newest = stage.world.keyturn("dan", ["audit", "checkpoint"]);
        let file = stage.world.folder().join(file);
        fs::write(file, newest.unwrap().ok().unwrap().stdout).unwrap();
    };
    checkpoint(&stage, "kept");
    let proof = stage.world.keyturn("dan", ["audit", "proof", "2"]);
    proof.unwrap().ok().unwrap();
    let receipt = stage.world.home("dan").join("receipts/entry-2.tlog-proof");
    fs::copy(receipt, stage.world.folder().join("receipt")).unwrap();
    let size = stage.log_size();
    stage.copied(|there| there >= size).unwrap();
    // What comes now is copied nowhere.
    let away = stage.sink.with_extension("away");
    fs::rename(&stage.sink, &away).unwrap();
    stage.open().unwrap();
    let status = stage.world.keyturn("alice", ["status"]);
    status.unwrap().ok().unwrap();
    // Only dan knows of what he says last.
    let seen = size_of(&stage.world.home("alice").join("checkpoint"));
    let confirm = stage.world.keyturn("dan", ["confirm", PATH]);
    confirm.unwrap().ok().unwrap();
    until("it is published", || {
        checkpoint(&stage, "lost");
        size_of(&stage.world.folder().join("lost")) > seen
    })
    .unwrap();
    stage.lose(false).unwrap();
    fs::rename(&away, &stage.sink).unwrap();
    let pin = stage.restored(false).unwrap();
    stage.accepted_for("alice", &pin).unwrap();

    let folder = stage.world.folder().to_owned();
    let kept = fs::read_to_string(folder.join("kept")).unwrap();
    fs::write(folder.join("altered"), kept.replacen('\n', "\n1", 1)).unwrap();
    let other = LogKey::from_seed("vault.example.org/prod", &[7; 32]).unwrap();
    let forged = other.sign(5, [1; 32]).unwrap();
    fs::write(folder.join("forged"), forged.note().to_string()).unwrap();
    let exported = stage.world.keyturn("bob", ["audit", "export", "log"]);
    exported.unwrap().ok().unwrap();
    let here = ["--dir", "log", "--vkey", "log/vkey", "--genesis"];
    // The log itself tells what a quorum gave up; what dan has proves more.
    let more = "no accepted restore says that they are lost";
    for (name, file, exit, says, lost) in [
        ("a checkpoint", "kept", 98, "\"kept\"", false),
        ("a receipt", "receipt", 98, "\"receipt\"", false),
        ("what nobody gave up", "lost", 98, more, true),
        (
            "what the old key did not sign",
            "altered",
            24,
            SIGNED,
            false,
        ),
        ("what another key signed", "forged", 24, SIGNED, false),
    ] {
        let verify = ["--json", "audit", "verify", "--checkpoint", file];
        for there in [&here[..0], &here[..]] {
            let genesis = (!there.is_empty()).then_some(stage.genesis.as_str());
            let args = verify.iter().chain(there).copied().chain(genesis);
            let said = stage.world.keyturn("bob", args).unwrap();
            assert_eq!(said.code, exit, "{name} {there:?}: {said:?}");
            let told = format!("{}{}", said.stdout, said.stderr);
            assert!(told.contains(says), "{name} {there:?}: {told}");
            assert_eq!(told.contains(more), lost, "{name} {there:?}: {told}");
        }
    }
}
