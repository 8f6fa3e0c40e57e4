//! A daemon on a disk that fills up or takes no writes: a real one, a small file system in mount namespaces of the
//! test's own. It works as root, and as a user where user namespaces are allowed.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails where it stands; it fills a disk, and finds itself by its environment"
)]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use keyturn_audit::{note::SignedCheckpoint, tree::verify_consistency};
use keyturn_proto::{CODE_TRAILER, v1};
use keyturn_tests::{
    raw::Founded,
    story::{Asked, Ballot, SealedVersion, release},
};
use keyturn_vault::{definition::Definition, text::CredentialLine};

const APART: &str = "KEYTURN_TEST_APART";
const STEP: Duration = Duration::from_millis(200);
/// A minute.
const STEPS: u32 = 300;
const MIB: u64 = 1 << 20;
const SECRET: &[u8] = b"the first password";

/// Runs a test in mount namespaces of its own: the same test, started once more.
fn apart(name: &str, test: impl AsyncFnOnce()) {
    if env::var_os(APART).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(test());
    }
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(env::current_exe().unwrap());
    command
        .args(["--exact", &format!("disk::{name}"), "--nocapture"])
        .env(APART, "1");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// A vault whose data are on a disk of 48 MiB, low below 8 and critical below 1.
struct Stage {
    vault: Founded,
    data: PathBuf,
    http: SocketAddr,
}

/// A file system in memory.
fn memory(_: &Path, disk: &str) {
    run("mount", &["-t", "tmpfs", "-o", "size=48m", "tmpfs", disk]);
}

/// One with a journal, in a file; as often as it is mounted.
fn image(folder: &Path, disk: &str) {
    let image = folder.join("image");
    if !image.exists() {
        fs::File::create(&image).unwrap().set_len(48 * MIB).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    }
    run("mount", &["-o", "loop", image.to_str().unwrap(), disk]);
}

impl Stage {
    async fn new() -> Self {
        Self::on(memory).await
    }

    async fn on(mount: impl Fn(&Path, &str)) -> Self {
        let mut vault = Founded::new("").await.unwrap();
        vault.world.stop().unwrap();
        let data = vault.world.vault().join("data");
        let seed = data.with_extension("seed");
        fs::rename(&data, &seed).unwrap();
        fs::create_dir(&data).unwrap();
        let (disk, from) = (data.to_str().unwrap(), seed.join("."));
        mount(vault.world.folder(), disk);
        run("cp", &["-a", from.to_str().unwrap(), disk]);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = free.local_addr().unwrap();
        drop(free);
        let path = vault.world.vault().join("keyturnd.toml");
        let config = fs::read_to_string(&path).unwrap();
        let listen = format!("[listen]\nmetrics = \"{http}\"\n");
        let config = config.replace("[listen]\n", &listen);
        let hear = vault.world.folder().join("hear");
        let told = vault.world.folder().join("told");
        fs::write(&hear, format!("#!/bin/sh\ncat >> {}\n", told.display())).unwrap();
        fs::set_permissions(&hear, fs::Permissions::from_mode(0o755)).unwrap();
        let store = "[store]\nlow_water_mib = 8\nballast_mib = 4\n";
        let hear = hear.display();
        let notify = format!("[notify.all]\nkind = \"exec\"\ncommand = \"{hear}\"\n");
        fs::write(&path, format!("{config}\n{store}\n{notify}")).unwrap();
        Self { vault, data, http }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.data).unwrap();
        stat.f_bavail.saturating_mul(stat.f_frsize)
    }

    /// Fills the disk until so little is left.
    fn fill(&self, leave: u64) {
        let filler = self.data.join("filler");
        let mut filler = fs::File::options()
            .create(true)
            .append(true)
            .open(filler)
            .unwrap();
        let block = vec![7; 4096];
        while self.free() > leave && filler.write_all(&block).is_ok() {}
    }

    /// Waits until people are told of this kind.
    fn until_told(&self, kind: &str) {
        let told = self.vault.world.folder().join("told");
        for _ in 0..STEPS {
            if fs::read_to_string(&told).is_ok_and(|told| told.contains(kind)) {
                return;
            }
            std::thread::sleep(STEP);
        }
        panic!("nobody is told of {kind}");
    }

    /// Waits until the ballast is gone; what the daemon itself gives back meanwhile is taken again.
    fn until_given_up(&self) {
        for _ in 0..STEPS {
            if !ballast(&self.data) {
                return;
            }
            self.fill(MIB / 2);
            std::thread::sleep(STEP);
        }
        panic!("the ballast is kept");
    }

    fn ask(&self, page: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.http) else {
            return String::new();
        };
        let _ = write!(stream, "GET {page} HTTP/1.1\r\n\r\n");
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        reply
    }

    /// Waits until health says this.
    fn until(&self, what: &str) {
        let mut last = String::new();
        for _ in 0..STEPS {
            last = self.ask("/health");
            if last.contains(what) {
                return;
            }
            std::thread::sleep(STEP);
        }
        let log = self.vault.world.daemon_log().unwrap();
        panic!("not {what:?} but {last}\n{log}");
    }

    /// Two custodians open the credential; the word of the refusal otherwise.
    async fn open(&self, named: &CredentialLine) -> Result<Vec<u8>, String> {
        let word = |status: tonic::Status| {
            let word = status.metadata().get(CODE_TRAILER);
            word.map_or("none", |word| word.to_str().unwrap())
                .to_owned()
        };
        let alice = self.vault.who("alice").unwrap();
        let line = self.vault.line("alice").await.unwrap();
        let asked = Asked::new(&self.vault.facts, &line, alice, vec![named.clone()])
            .await
            .unwrap();
        line.ceremonies()
            .open(asked.open(alice).unwrap())
            .await
            .map_err(word)?;
        for who in ["bob", "carol"] {
            let (who, line) = (
                self.vault.who(who).unwrap(),
                self.vault.line(who).await.unwrap(),
            );
            let ballot = Ballot::new(&self.vault.facts, &line, who, &asked.id())
                .await
                .unwrap();
            line.ceremonies()
                .approve(ballot.call().unwrap())
                .await
                .map_err(word)?;
        }
        let release = release(&line, &asked.id()).await.unwrap().unwrap();
        let mut secrets = asked.receive(&self.vault.facts, &release).unwrap();
        Ok(secrets.remove(0))
    }

    async fn deposit(&self, definition: &Definition, number: u64) -> Result<(), tonic::Status> {
        let (olga, line) = (
            self.vault.who("olga").unwrap(),
            self.vault.line("olga").await.unwrap(),
        );
        let sealed = SealedVersion::new(&self.vault.facts, definition, number, b"another").unwrap();
        let deposit = sealed.deposit(olga).unwrap();
        line.credentials().deposit(deposit).await.map(drop)
    }

    async fn head(&self) -> SignedCheckpoint {
        let line = self.vault.line("olga").await.unwrap();
        line.checkpoint(&self.vault.facts.vkey).await.unwrap()
    }

    /// The log continues this.
    async fn continues(&self, before: &SignedCheckpoint) {
        let now = self.head().await;
        let line = self.vault.line("olga").await.unwrap();
        let ask = v1::ConsistencyRequest {
            from_size: before.size(),
            from_root: before.root().to_vec(),
            to_size: now.size(),
        };
        let proof = line.log().consistency(ask).await.unwrap().into_inner();
        let hash = |hash: &Vec<u8>| hash.as_slice().try_into().unwrap();
        let proof: Vec<[u8; 32]> = proof.hashes.iter().map(hash).collect();
        let (old, new) = ((before.size(), before.root()), (now.size(), now.root()));
        verify_consistency(old, new, &proof).unwrap();
    }

    async fn status(&self) -> v1::ShowStatusReply {
        let line = self.vault.line("olga").await.unwrap();
        line.status().await.unwrap()
    }
}

fn ballast(data: &Path) -> bool {
    data.join("ballast").exists()
}

#[test]
fn a_disk_that_fills_up_keeps_its_last_room_for_ceremonies() {
    let name = "a_disk_that_fills_up_keeps_its_last_room_for_ceremonies";
    apart(name, async || {
        let mut stage = Stage::new().await;
        stage.vault.world.start().unwrap();
        let pid = stage.vault.world.pid();
        let (definition, named) = stage.vault.seal("accounts/root", SECRET).await.unwrap();
        stage.until("serving");
        assert!(ballast(&stage.data));

        stage.fill(5 * MIB);
        stage.until("low on space");
        stage.until_told("vault.low-space");
        let refused = stage.deposit(&definition, 2).await.unwrap_err();
        let word = refused.metadata().get(CODE_TRAILER).unwrap();
        assert_eq!(word.to_str().unwrap(), "low-space");
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        assert!(ballast(&stage.data), "not yet");
        let status = stage.status().await;
        assert!(status.space.unwrap().low);
        assert!(status.findings.iter().any(|one| one.code == "low-space"));

        // By whoever is first: the look that comes every few seconds, or a commit that finds no room.
        stage.fill(MIB / 2);
        stage.until_given_up();
        assert!(stage.free() > 3 * MIB);
        stage.until(" 200 ");
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);

        stage.fill(0);
        let mut refused = None;
        for _ in 0..200 {
            if let Err(word) = stage.open(&named).await {
                refused = Some(word);
                break;
            }
            stage.fill(0);
        }
        assert_eq!(refused.as_deref(), Some("store"), "full");
        stage.until("no space is left");
        let findings = stage.status().await.findings;
        assert!(findings.iter().any(|one| one.code == "not-serving"));

        fs::remove_file(stage.data.join("filler")).unwrap();
        stage.until("serving");
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        stage.deposit(&definition, 2).await.unwrap();
        assert_eq!(stage.vault.world.pid(), pid);
        let metrics = stage.ask("/metrics");
        assert!(metrics.contains("keyturn_space_low"), "{metrics}");
        stage.vault.world.stop().unwrap();
    });
}

#[test]
fn a_disk_that_takes_no_writes_is_said_and_tried_again() {
    let name = "a_disk_that_takes_no_writes_is_said_and_tried_again";
    apart(name, async || {
        let mut stage = Stage::new().await;
        let disk = stage.data.to_str().unwrap().to_owned();
        run("mount", &["-o", "remount,ro", &disk]);
        stage.vault.world.start().unwrap();
        let pid = stage.vault.world.pid();
        stage.until("ead-only");
        assert!(stage.ask("/health").contains(" 503 "));
        run("mount", &["-o", "remount,rw", &disk]);
        stage.until("serving");
        let (_, named) = stage.vault.seal("accounts/root", SECRET).await.unwrap();
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        assert_eq!(stage.vault.world.pid(), pid);
        stage.vault.world.stop().unwrap();
    });
}

#[test]
fn a_disk_that_turns_read_only_under_a_daemon_is_said_and_served_from_again() {
    let name = "a_disk_that_turns_read_only_under_a_daemon_is_said_and_served_from_again";
    apart(name, async || {
        let mut stage = Stage::new().await;
        let disk = stage.data.to_str().unwrap().to_owned();
        stage.vault.world.start().unwrap();
        let pid = stage.vault.world.pid();
        let (definition, named) = stage.vault.seal("accounts/root", SECRET).await.unwrap();
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);

        // A file that is open for writing keeps a disk from being remounted, but not from being covered.
        run("mount", &["--bind", &disk, &disk]);
        run("mount", &["-o", "remount,bind,ro", &disk]);
        assert_eq!(stage.open(&named).await.unwrap_err(), "store");
        stage.until("ead-only");
        assert!(stage.ask("/health").contains(" 503 "));
        let refused = stage.deposit(&definition, 2).await.unwrap_err();
        assert_eq!(refused.metadata().get(CODE_TRAILER).unwrap(), "store");
        let findings = stage.status().await.findings;
        assert!(findings.iter().any(|one| one.code == "not-serving"));

        run("umount", &["--lazy", &disk]);
        stage.until("serving");
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        stage.deposit(&definition, 2).await.unwrap();
        assert_eq!(stage.vault.world.pid(), pid);
        stage.vault.world.stop().unwrap();
    });
}

/// What the kernel does to a file system whose disk fails: it takes nothing any more, and what was written and not
/// synced is lost.
#[test]
fn a_disk_that_fails_under_a_daemon_loses_nothing_that_was_acknowledged() {
    let name = "a_disk_that_fails_under_a_daemon_loses_nothing_that_was_acknowledged";
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("{name}: not tried, for a file system in a file takes root and loop devices");
        return;
    }
    apart(name, async || {
        let mut stage = Stage::on(image).await;
        let disk = stage.data.to_str().unwrap().to_owned();
        stage.vault.world.start().unwrap();
        let (definition, named) = stage.vault.seal("accounts/root", SECRET).await.unwrap();
        for _ in 0..5 {
            assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        }
        let before = stage.head().await;

        run("mount", &["-o", "remount,abort", &disk]);
        let refused = stage.deposit(&definition, 2).await.unwrap_err();
        // A kernel that lets a write pass and fails its sync stops the daemon instead.
        let log = stage.vault.world.daemon_log().unwrap();
        if !log.contains("cannot say whether a change is durable") {
            assert_eq!(refused.metadata().get(CODE_TRAILER).unwrap(), "store");
            stage.until("ead-only");
        }
        // It is not served from before it is mended.
        stage.vault.world.start().unwrap();
        stage.until("ead-only");
        stage.vault.world.stop().unwrap();
        run("umount", &[&disk]);
        image(stage.vault.world.folder(), &disk);
        stage.vault.world.start().unwrap();
        stage.until("serving");
        assert_eq!(stage.open(&named).await.unwrap(), SECRET);
        stage.deposit(&definition, 2).await.unwrap();
        stage.continues(&before).await;
        stage.vault.world.stop().unwrap();
        run("umount", &[&disk]);
    });
}

/// Whether the store's file would have to be mended: a bit behind redb's magic number, see its design document.
fn is_open(store: &Path) -> bool {
    fs::read(store)
        .unwrap()
        .get(9)
        .is_some_and(|byte| byte & 2 != 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_leaves_nothing_to_mend() {
    let mut vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("db/main", b"hunter2").await.unwrap();
    vault.open(vec![named]).await.unwrap();
    let store = vault.world.vault().join("data/store.redb");
    assert!(is_open(&store), "it runs");
    vault.world.stop().unwrap();
    assert!(!is_open(&store));
}
