//! Copies to other places, over real daemons: what waits for them, what never does, and what they know when the
//! store was set back.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

use keyturn_proto::{
    CODE_TRAILER,
    v1::{self, RotationState},
};
use keyturn_tests::{
    World,
    raw::{Founded, Line, now},
    story::{Asked, SealedVersion, definition},
    target::Target,
};
use keyturn_vault::{
    definition::{Connector, Definition},
    digest::Digest,
    jcs::Document as _,
    layout,
    reference::Version,
    text::CredentialLine,
};

const USER: &str = "root";
const FIRST: &[u8] = b"the first password";
const STEP: Duration = Duration::from_millis(50);
/// Far longer than anything here takes.
const STEPS: u32 = 1200;

/// A vault with one sink, a target, and a credential that is rotated there.
struct Stage {
    vault: Founded,
    target: Target,
    sink: PathBuf,
    definition: Definition,
    line: Line,
}

impl Stage {
    async fn new() -> Self {
        let mut world = World::new().unwrap();
        let sink = world.add_sink("copies").unwrap();
        let mut vault = Founded::over(world, "").await.unwrap();
        let target = Target::start(&vault.world).unwrap();
        target.set(USER, FIRST).unwrap();
        vault.world.start().unwrap();
        let (olga, line) = (
            vault.who("olga").unwrap(),
            vault.line("olga").await.unwrap(),
        );
        let mut definition = definition(&vault.facts, "accounts/root").unwrap();
        definition.connector = Some(Connector {
            name: "accounts".parse().unwrap(),
            settings: [("user".parse().unwrap(), USER.parse().unwrap())].into(),
        });
        let document = olga.sign_document(definition.to_bytes().unwrap()).unwrap();
        let add = v1::AddRequest {
            definition: Some(document),
        };
        line.credentials().add(add).await.unwrap();
        let sealed = SealedVersion::new(&vault.facts, &definition, 1, FIRST).unwrap();
        line.credentials()
            .deposit(sealed.deposit(olga).unwrap())
            .await
            .unwrap();
        Self {
            vault,
            target,
            sink,
            definition,
            line,
        }
    }

    /// Opens what is live and gives it back: a rotation is due.
    async fn rotate(&self) {
        let (asked, _) = self.open().await;
        self.vault.check_in(&asked, None).await.unwrap();
    }

    async fn rotation(&self) -> v1::RotationView {
        let list = v1::ListRotationsRequest {
            all: true,
            ..Default::default()
        };
        let reply = self.line.rotations().list(list).await.unwrap();
        reply.into_inner().rotations.remove(0)
    }

    /// Waits until the rotation stands like this.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&v1::RotationView) -> bool,
    ) -> v1::RotationView {
        let mut last = self.rotation().await;
        for _ in 0..STEPS {
            if wanted(&last) {
                return last;
            }
            tokio::time::sleep(STEP).await;
            last = self.rotation().await;
        }
        panic!(
            "{what}: {last:?}\n{}",
            self.vault.world.daemon_log().unwrap()
        )
    }

    /// Every live version, as a request names it.
    async fn named(&self) -> Vec<CredentialLine> {
        let id = self.definition.credential.to_string();
        let show = v1::ShowCredentialRequest {
            credential: Some(v1::CredentialName {
                by: Some(v1::credential_name::By::Id(id)),
            }),
            page: None,
            all_versions: false,
        };
        let shown = self.line.credentials().show(show).await.unwrap();
        let gone = [v1::VersionState::Retired, v1::VersionState::Destroyed];
        let mut named: Vec<_> = shown
            .into_inner()
            .versions
            .iter()
            .filter(|version| !gone.contains(&version.state()))
            .map(|version| CredentialLine {
                path: self.definition.path.clone(),
                credential: self.definition.credential,
                version: Version::new(version.version).unwrap(),
                manifest: Digest(version.manifest_sha256.as_slice().try_into().unwrap()),
            })
            .collect();
        named.sort_by_key(|line| line.version);
        named
    }

    /// Two custodians open every live version; gives their secrets, oldest first.
    async fn open(&self) -> (Asked, Vec<Vec<u8>>) {
        self.vault.open(self.named().await).await.unwrap()
    }

    /// Waits until so many places have everything, and each says so of every version.
    async fn complete(&self, places: usize) {
        let mut last = None;
        for _ in 0..STEPS {
            let status = self.line.status().await.unwrap();
            let copies = status.copies.unwrap();
            let newest = self.line.checkpoint(&self.vault.facts.vkey).await.unwrap();
            let done = copies.places.iter().filter(|one| one.complete).count();
            if done == places && copies.behind == 0 && self.copied() >= newest.size() {
                return;
            }
            last = Some((copies, newest.size()));
            tokio::time::sleep(STEP).await;
        }
        panic!("not complete: {last:?}");
    }

    /// The number of entries of the log in the sink.
    fn copied(&self) -> u64 {
        let text = fs::read_to_string(self.sink.join("checkpoint")).unwrap_or_default();
        text.lines().nth(1).map_or(0, |size| size.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_its_copy_and_nothing_else_does() {
    let stage = Stage::new().await;
    let away = stage.sink.with_extension("away");
    fs::rename(&stage.sink, &away).unwrap();
    stage.rotate().await;
    let waits = stage
        .until("it says what it waits for", |view| {
            view.problem_code == "few-copies"
        })
        .await;
    assert_eq!(waits.state(), RotationState::Applying);
    assert!(waits.problem.contains("is it mounted?"), "{waits:?}");
    assert!(!waits.hint.is_empty());
    let status = stage.line.status().await.unwrap();
    assert!(status.findings.iter().any(|one| one.code == "sink-away"));
    let copies = status.copies.unwrap();
    assert_eq!((copies.sinks, copies.sinks_reachable), (1, 0));
    let counts = status.rotations.unwrap();
    assert_eq!((counts.running, counts.late), (1, 0), "{counts:?}");
    assert!(
        stage.target.accepts(USER, FIRST).unwrap(),
        "the target is not changed before"
    );
    let (_, secrets) = stage.open().await;
    assert_eq!(secrets.len(), 2, "a quorum opens all that is live");
    assert_eq!(secrets[0], FIRST);

    fs::rename(&away, &stage.sink).unwrap();
    stage
        .until("it goes on by itself", |view| view.version == 0)
        .await;
    assert!(!stage.target.accepts(USER, FIRST).unwrap());
    assert!(stage.target.accepts(USER, &secrets[1]).unwrap());
    let copy = layout::Place::Version(
        stage.definition.credential,
        Version::new(2).unwrap(),
        layout::Part::Manifest,
    );
    assert!(stage.sink.join(copy.to_string()).exists());
    stage.complete(1).await;
    let status = stage.line.status().await.unwrap();
    assert_eq!(status.copies.unwrap().behind, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_swapped_for_an_empty_one_and_a_second_one_catch_up() {
    let mut stage = Stage::new().await;
    let (asked, _) = stage.open().await;
    stage.complete(1).await;
    let old = stage.sink.with_extension("old");
    fs::rename(&stage.sink, &old).unwrap();
    fs::create_dir(&stage.sink).unwrap();
    let second = stage.vault.world.folder().join("second");
    fs::create_dir(&second).unwrap();
    let config = stage.vault.world.vault().join("keyturnd.toml");
    let mut config = fs::File::options().append(true).open(config).unwrap();
    let path = second.display();
    write!(
        config,
        "\n[[copies.sinks]]\nkind = \"directory\"\nname = \"second\"\npath = \"{path}\"\n"
    )
    .unwrap();
    stage.vault.world.start().unwrap();
    stage.line = stage.vault.line("olga").await.unwrap();
    stage.complete(2).await;
    let first = fs::read(old.join("checkpoint")).unwrap();
    assert!(!first.is_empty());
    for sink in [&stage.sink, &second] {
        let copy = layout::Place::Version(
            stage.definition.credential,
            Version::new(1).unwrap(),
            layout::Part::Manifest,
        );
        let copy = copy.to_string();
        assert_eq!(
            fs::read(sink.join(&copy)).unwrap(),
            fs::read(old.join(&copy)).unwrap()
        );
    }

    // What was opened before the restart is shown to who has it.
    let alice = stage.vault.line("alice").await.unwrap();
    let out = alice.status().await.unwrap().checked_out;
    assert_eq!(out[0].id, asked.id());
    assert!(out[0].checkout.as_ref().unwrap().ends_ms > now().ms());

    let log = stage.vault.world.log().join("tile/entries");
    for _ in 0..STEPS {
        let mut grep = Command::new("grep");
        grep.args(["-rq", r#""sink":"second".*copies.changed"#])
            .arg(&log);
        if grep.status().unwrap().success() {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
    panic!("the log does not say that a place came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_set_back_changes_nothing() {
    let mut stage = Stage::new().await;
    let vault = stage.vault.world.vault();
    let world = stage.vault.world.folder().to_owned();
    let copy = |from: &str, to: &str| {
        let (from, to) = (vault.join(from), world.join(to));
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(status.unwrap().success());
    };
    // A vault in restore mode names no head that a request could answer to.
    let line = stage.vault.line("alice").await.unwrap();
    let alice = stage.vault.who("alice").unwrap();
    let asked = Asked::new(&stage.vault.facts, &line, alice, stage.named().await);
    let open = asked.await.unwrap().open(alice).unwrap();
    stage.vault.world.stop().unwrap();
    copy("data", "old");
    stage.vault.world.start().unwrap();
    stage.line = stage.vault.line("olga").await.unwrap();
    stage.rotate().await;
    stage
        .until("done", |view| view.state() == RotationState::Idle)
        .await;
    stage.vault.world.stop().unwrap();
    let known = stage.copied();
    let newest = fs::read(stage.sink.join("checkpoint")).unwrap();

    fs::rename(vault.join("data"), vault.join("newest")).unwrap();
    fs::rename(world.join("old"), vault.join("data")).unwrap();
    stage.vault.world.start().unwrap();
    let line = stage.vault.line("olga").await.unwrap();
    assert!(line.status().await.unwrap().restore_mode);
    stage.line = line;
    let line = stage.vault.line("alice").await.unwrap();
    let refused = line.ceremonies().open(open).await.unwrap_err();
    let word = refused.metadata().get(CODE_TRAILER).unwrap();
    assert_eq!(word.to_str().unwrap(), "restore-mode");
    let log = stage.vault.world.daemon_log().unwrap();
    assert!(
        log.contains(&format!("copies-1 has {known} entries of the log")),
        "{log}"
    );
    stage.vault.world.stop().unwrap();
    let there = fs::read(stage.sink.join("checkpoint")).unwrap();
    assert_eq!(there, newest, "what the sink knows is not overwritten");

    fs::remove_dir_all(vault.join("data")).unwrap();
    fs::rename(vault.join("newest"), vault.join("data")).unwrap();
    stage.vault.world.start().unwrap();
    let line = stage.vault.line("olga").await.unwrap();
    assert!(!line.status().await.unwrap().restore_mode);
}
