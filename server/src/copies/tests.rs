//! Places that are well, away, altered, foreign; disks that fail at every step.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use keyturn_audit::{
    note::LogKey,
    publish::{Dir, Disk, Os},
    verify,
};
use keyturn_vault::{
    digest::Digest,
    id::{CeremonyId, NodeId},
    jcs::Document as _,
    layout::{self, LayoutError, Place, SealedVersion},
    reference::{CharterRef, Head},
};

use super::{
    fixture::{Fixture, ORIGIN, number},
    head::{self, HeadCheck},
    sink::Fixed,
    *,
};
use crate::{
    clock::Clock,
    rows,
    store::{Name, Txn},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A disk whose n-th change fails, before or after it took effect.
#[derive(Clone)]
struct Failing {
    left: Arc<AtomicUsize>,
    after: bool,
}

impl Failing {
    fn at(n: usize, after: bool) -> Self {
        let left = Arc::new(AtomicUsize::new(n));
        Self { left, after }
    }

    fn act<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let failure = || Err(io::Error::other("the disk fails"));
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1 if self.after => act().and_then(|_| failure()),
            1 => failure(),
            _ => act(),
        }
    }

    /// Whether the failure came.
    fn failed(&self) -> bool {
        self.left.load(Ordering::SeqCst) > usize::MAX / 2 || self.left.load(Ordering::SeqCst) == 0
    }
}

impl Disk for Failing {
    type File = fs::File;

    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        self.act(|| Os.make_dir(path))
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
        self.act(|| Os.write(path, bytes))
    }
    fn sync(&self, file: &fs::File) -> io::Result<()> {
        self.act(|| Os.sync(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(|| Os.rename(from, to))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.act(|| Os.sync_dir(path))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(|| Os.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.act(|| Os.remove_dir(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Os.list(path)
    }
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        Os.read(path, limit)
    }
}

struct Running {
    copies: Copies,
    newest: watch::Sender<Option<SignedCheckpoint>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    fn new(fixture: &Fixture, places: &[&Path]) -> Self {
        let newest = watch::Sender::new(Some(fixture.checkpoint()));
        let sinks = places.iter().map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let sink: Box<dyn Sink> = Box::new(Directory::new(name, path, fixture.vkey()));
            (sink, false)
        });
        let mode = watch::Sender::new(Mode::Serving).subscribe();
        let (copies, tasks) =
            Copies::start(sinks.collect(), &fixture.store, &newest.subscribe(), &mode);
        Self {
            copies,
            newest,
            tasks,
        }
    }

    /// Waits until the first place is as `want` says.
    async fn until(&self, want: impl Fn(&Status) -> bool) -> Status {
        let mut place = self.copies.follow().remove(0);
        let found = tokio::time::timeout(PATIENCE, place.wait_for(|status| want(status)));
        found.await.expect("in time").unwrap().clone()
    }

    async fn complete(&self) {
        self.until(|status| status.complete && status.behind == 0)
            .await;
    }
}

fn read(folder: &Path, fixture: &Fixture, version: u64) -> Result<SealedVersion, String> {
    let read = |place: &Place, limit| sink::read(folder, place, limit);
    SealedVersion::read(fixture.credential(), number(version), read)
        .map_err(|error: LayoutError<io::Error>| error.to_string())
}

/// Everything is there: the versions, the documents, the log up to the checkpoint.
fn whole(folder: &Path, fixture: &Fixture, versions: &[u64]) {
    for version in versions {
        assert_eq!(
            read(folder, fixture, *version).unwrap(),
            fixture.sealed(*version)
        );
    }
    let dir = Dir::new(folder);
    let anchors = verify::Anchors {
        log: &fixture.vkey(),
        saved: &[],
        threads: 1,
    };
    let verified = verify::tree(&dir, &anchors).unwrap();
    assert_eq!(verified.checkpoint.size(), fixture.edge.size());
    assert!(verify::objects(&dir).unwrap() > 0);
}

#[tokio::test]
async fn a_place_gets_all_there_was_and_all_that_comes() {
    let mut fixture = Fixture::new().await;
    fixture.seal(1).await;
    let folder = tempfile::tempdir().unwrap();
    let running = Running::new(&fixture, &[folder.path()]);
    running.complete().await;
    whole(folder.path(), &fixture, &[1]);
    let readme = fs::read_to_string(folder.path().join("README.txt")).unwrap();
    assert_eq!(readme, layout::README);

    fixture.seal(2).await;
    fixture.destroy(1).await;
    running.newest.send_replace(Some(fixture.checkpoint()));
    running.until(|status| status.complete).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while read(folder.path(), &fixture, 1).is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "not destroyed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.complete().await;
    // The publisher ends, and the tasks with it.
    drop(running.newest);
    for task in running.tasks {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    whole(folder.path(), &fixture, &[2]);
}

/// Invariant 1: what is away is waited for by those who asked, and by nobody else.
#[tokio::test]
async fn a_rotation_waits_for_as_many_places_as_it_wants() {
    let mut fixture = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("here"), folder.path().join("away"));
    fs::create_dir(&here).unwrap();
    let running = Running::new(&fixture, &[&here, &away]);
    fixture.seal(1).await;
    let short = Duration::from_millis(300);
    let credential = fixture.credential();
    for (name, version, min, patience, want) in [
        ("none", 1, 0, short, true),
        ("the one that is there", 1, 1, PATIENCE, true),
        ("again", 1, 1, PATIENCE, true),
        ("both", 1, 2, short, false),
        ("more than there are", 1, 3, short, false),
        ("no such version", 9, 1, short, false),
    ] {
        let waited = running
            .copies
            .wait(credential, number(version), min, patience);
        assert_eq!(waited.await, want, "{name}");
    }
    assert_eq!(read(&here, &fixture, 1).unwrap(), fixture.sealed(1));
    let status = running.copies.status();
    assert!(status[0].reachable && !status[1].reachable);
    assert!(
        status[1]
            .problem
            .as_ref()
            .unwrap()
            .contains("is it mounted?")
    );

    // It comes back while somebody waits.
    let copies = running.copies.clone();
    let both = tokio::spawn(async move { copies.wait(credential, number(1), 2, PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!both.is_finished());
    fs::create_dir(&away).unwrap();
    assert!(both.await.unwrap());
    assert_eq!(read(&away, &fixture, 1).unwrap(), fixture.sealed(1));
}

#[tokio::test]
async fn what_was_altered_or_cut_is_written_anew_when_it_counts() {
    let mut fixture = Fixture::new().await;
    fixture.seal(1).await;
    let folder = tempfile::tempdir().unwrap();
    let running = Running::new(&fixture, &[folder.path()]);
    running.complete().await;
    let version = folder
        .path()
        .join(format!("credentials/{}/v1", fixture.credential()));
    for name in ["payload.age", "manifest.json", "definition.json"] {
        for content in [Vec::new(), b"x".to_vec(), vec![7; 70_000]] {
            let path = version.join(name);
            let file = Os.write(&path, &content).unwrap();
            Os.sync(&file).unwrap();
            assert!(read(folder.path(), &fixture, 1).is_err(), "{name}");
            let waited = running
                .copies
                .wait(fixture.credential(), number(1), 1, PATIENCE);
            assert!(waited.await, "{name}");
            assert_eq!(read(folder.path(), &fixture, 1).unwrap(), fixture.sealed(1));
        }
    }
}

/// Invariant 3 of the module: the evidence of a longer or another log stays.
#[tokio::test]
async fn a_place_with_another_or_a_longer_log_is_left_alone() {
    let mut longer = Fixture::new().await;
    longer.seal(1).await;
    longer.seal(2).await;
    let folder = tempfile::tempdir().unwrap();
    let running = Running::new(&longer, &[folder.path()]);
    running.complete().await;
    let before = fs::read(folder.path().join("checkpoint")).unwrap();

    let mut set_back = Fixture::new().await;
    set_back.history = " after it was set back";
    set_back.seal(2).await;
    let running = Running::new(&set_back, &[folder.path()]);
    let copied = running.copies.wait(
        longer.credential(),
        number(2),
        1,
        Duration::from_millis(300),
    );
    assert!(!copied.await, "no rotation goes on with it");
    let status = running.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("set back"));
    assert_eq!(fs::read(folder.path().join("checkpoint")).unwrap(), before);
    assert_eq!(read(folder.path(), &longer, 2).unwrap(), longer.sealed(2));
    assert!(!folder.path().join(sink::ASIDE).exists());

    let mut forked = Fixture::new().await;
    for version in [3, 4, 5] {
        forked.seal(version).await;
    }
    let running = Running::new(&forked, &[folder.path()]);
    let status = running.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("copy of the log"));
    assert_eq!(fs::read(folder.path().join("checkpoint")).unwrap(), before);
}

/// Invariant 4 of [`sink`]: it may be what a target has now.
#[tokio::test]
async fn what_another_history_left_is_set_aside_and_never_overwritten_or_deleted() {
    let (lost, mut ours) = (Fixture::new().await, Fixture::new().await);
    ours.history = " of ours";
    let credential = ours.credential();
    let (theirs, want) = (lost.sealed(2), ours.sealed(2));
    let digest = |sealed: &SealedVersion| Digest::of(&sealed.manifest.to_bytes().unwrap());
    let fixed = Fixed {
        credential,
        version: number(2),
        manifest: digest(&want),
        payload: Some(want.manifest.ciphertext),
    };
    for (name, without) in [
        ("whole", &[][..]),
        ("cut off before the manifest", &["manifest.json"]),
        ("a share is lost", &["envelope"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sink = Directory::new("a", folder.path(), ours.vkey());
        sink.put(theirs.files().unwrap()).await.unwrap();
        let version = folder.path().join(format!("credentials/{credential}/v2"));
        let names = || {
            let names = fs::read_dir(&version).unwrap();
            names.map(|name| name.unwrap().file_name().into_string().unwrap())
        };
        for name in without {
            let envelope = names().find(|name| name.contains("-x"));
            let name = if *name == "envelope" {
                envelope.unwrap()
            } else {
                (*name).to_owned()
            };
            fs::remove_file(version.join(name)).unwrap();
        }
        let before: BTreeMap<_, _> = names()
            .map(|name| (name.clone(), fs::read(version.join(&name)).unwrap()))
            .collect();
        // Twice: once by what is written there, once by what is destroyed.
        sink.put(want.files().unwrap()).await.unwrap();
        assert_eq!(read(folder.path(), &ours, 2).unwrap(), want, "{name}");
        sink.remove(fixed).await.unwrap();
        assert!(!version.exists(), "{name}: ours is destroyed");
        let tree = folder.path().join(sink::ASIDE).join("1");
        let aside = tree.join(format!("credentials/{credential}/v2"));
        fs::rename(&aside, &version).unwrap();
        sink.remove(fixed).await.unwrap();
        for (file, bytes) in &before {
            assert_eq!(
                fs::read(aside.join(file)).unwrap(),
                *bytes,
                "{name}: {file}"
            );
        }
        assert_eq!(sink.aside().await.unwrap(), 1, "{name}");
        if without.is_empty() {
            assert_eq!(
                read(&tree, &lost, 2).unwrap(),
                theirs,
                "it opens from there"
            );
        }
        // Another history again: beside the first.
        sink.put(theirs.files().unwrap()).await.unwrap();
        sink.put(want.files().unwrap()).await.unwrap();
        assert_eq!(sink.aside().await.unwrap(), 2, "{name}");
        for (file, bytes) in &before {
            assert_eq!(
                fs::read(aside.join(file)).unwrap(),
                *bytes,
                "{name}: {file}"
            );
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_half_deleted_is_deleted_whole() {
    let fixture = Fixture::new().await;
    let sealed = fixture.sealed(1);
    for gone in [&["manifest.json"][..], &["manifest.json", "payload.age"]] {
        let folder = tempfile::tempdir().unwrap();
        let sink = Directory::new("a", folder.path(), fixture.vkey());
        sink.put(sealed.files().unwrap()).await.unwrap();
        let id = fixture.credential();
        let version = folder.path().join(format!("credentials/{id}/v1"));
        for name in gone {
            fs::remove_file(version.join(name)).unwrap();
        }
        let fixed = Fixed {
            credential: id,
            version: number(1),
            manifest: Digest::of(&sealed.manifest.to_bytes().unwrap()),
            payload: Some(sealed.manifest.ciphertext),
        };
        sink.remove(fixed).await.unwrap();
        assert!(!version.exists(), "{gone:?}");
        assert_eq!(sink.aside().await.unwrap(), 0);
        sink.remove(fixed).await.unwrap();
    }
}

/// Invariants 1 and 2 of [`sink`]: at every step that can fail, once before and once after its effect.
#[tokio::test]
async fn after_every_failure_of_the_disk_the_next_try_ends_well() {
    let fixture = Fixture::new().await;
    let files = fixture.sealed(1).files().unwrap();
    for after in [false, true] {
        for n in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let disk = Failing::at(n, after);
            let sink = Directory::on(disk.clone(), "a", folder.path(), fixture.vkey());
            let first = sink.put(files.clone()).await;
            assert_eq!(first.is_err(), disk.failed(), "{n} {after}");
            if first.is_ok() {
                assert!(n > 30, "so few steps cannot be all");
                break;
            }
            let manifest = format!("credentials/{}/v1/manifest.json", fixture.credential());
            if folder.path().join(manifest).exists() {
                assert_eq!(read(folder.path(), &fixture, 1).unwrap(), fixture.sealed(1));
            }
            sink.put(files.clone()).await.unwrap();
            assert_eq!(read(folder.path(), &fixture, 1).unwrap(), fixture.sealed(1));
        }
    }
}

/// The restore that gave up the log of a fixture behind its first entries.
fn restore(lost: &Fixture, size: u64, behind: u64) -> rows::Restored {
    let digest = Digest([0; 32]);
    let root = Digest(lost.edge.root());
    rows::Restored {
        ceremony: CeremonyId::from_bytes([9; 16]),
        charter: CharterRef { index: 1, digest },
        document: digest,
        head: Head {
            size: behind,
            root: digest,
        },
        lost: Some(Head { size, root }),
        shown: Vec::new(),
        entry: behind,
    }
}

async fn accepts(fixture: &Fixture, restores: Vec<rows::Restored>) -> rows::Vault {
    let genesis = CharterRef {
        index: 1,
        digest: Digest([0; 32]),
    };
    let mut vault = rows::Vault::new(NodeId::from_bytes([1; 16]), genesis);
    vault.restores = restores;
    let row = rows::encode(&vault).unwrap();
    let txn = Txn::new().put(Name::Vault.key(), row);
    fixture.store.txn(txn).await.unwrap();
    vault
}

#[tokio::test]
async fn a_log_that_a_quorum_gave_up_is_moved_aside_and_no_other_is() {
    for (name, versions, given_up, moved) in [
        (
            "given up, and longer than the store's",
            1,
            Some((4, 2)),
            true,
        ),
        ("given up, and shorter", 5, Some((4, 2)), true),
        ("nobody gave it up", 1, None, false),
        ("nobody gave it up, and it is shorter", 5, None, false),
        ("more than was given up", 1, Some((3, 2)), false),
        (
            "it was given up later than they part",
            5,
            Some((4, 3)),
            true,
        ),
    ] {
        // Both begin with the definition and a first version.
        let (mut lost, mut ours) = (Fixture::new().await, Fixture::new().await);
        for version in 1..=3 {
            lost.seal(version).await;
        }
        ours.seal(1).await;
        ours.history = " after the restore";
        for version in 2..=versions + 1 {
            ours.seal(version).await;
        }
        let restores = given_up.map(|(size, behind)| restore(&lost, size, behind));
        accepts(&ours, restores.into_iter().collect()).await;
        let folder = tempfile::tempdir().unwrap();
        let running = Running::new(&lost, &[folder.path()]);
        running.complete().await;
        let checkpoint = fs::read(folder.path().join("checkpoint")).unwrap();

        let running = Running::new(&ours, &[folder.path()]);
        let status = running
            .until(|status| status.problem.is_some() || status.complete)
            .await;
        assert_eq!(status.foreign, !moved, "{name}: {:?}", status.problem);
        let before = folder
            .path()
            .join(format!("before-{}", CeremonyId::from_bytes([9; 16])));
        if moved {
            assert_eq!(fs::read(before.join("checkpoint")).unwrap(), checkpoint);
            assert!(before.join("tile/entries").is_dir(), "{name}");
            let all: Vec<_> = (1..=versions + 1).collect();
            assert_eq!(status.aside, 2_usize.min(all.len() - 1), "{name}");
            ours.history = "";
            assert_eq!(read(folder.path(), &ours, 1).unwrap(), ours.sealed(1));
            ours.history = " after the restore";
            whole(folder.path(), &ours, &all[1..]);
        } else {
            assert!(!before.exists(), "{name}");
            let there = fs::read(folder.path().join("checkpoint")).unwrap();
            assert_eq!(there, checkpoint, "{name}");
            assert!(!folder.path().join(sink::ASIDE).exists(), "{name}");
        }
    }
}

/// At a start, the places say whether a quorum is needed.
#[tokio::test]
async fn a_place_with_less_of_what_was_given_up_stops_no_vault_and_one_with_more_does() {
    let folder = tempfile::tempdir().unwrap();
    let (mut lost, mut ours) = (Fixture::new().await, Fixture::new().await);
    ours.seal(1).await;
    lost.seal(1).await;
    let mut places = Vec::new();
    for version in 2..=4 {
        lost.seal(version).await;
        let place = folder.path().join(format!("size-{}", version + 1));
        fs::create_dir(&place).unwrap();
        let sink: Box<dyn Sink> = Box::new(Directory::new("a", &place, lost.vkey()));
        let newest = lost.checkpoint();
        worker::fill(sink, &lost.store, &newest).await.unwrap();
        places.push(place);
    }
    ours.history = " after the restore";
    ours.seal(2).await;
    let keys = LogKeys::from(ours.vkey());
    for (name, restores, sinks, serves) in [
        ("nothing was given up", vec![], 0..1, false),
        (
            "less than what was given up",
            vec![restore(&lost, 4, 2)],
            0..1,
            true,
        ),
        ("as much", vec![restore(&lost, 4, 2)], 0..2, true),
        ("more", vec![restore(&lost, 4, 2)], 0..3, false),
    ] {
        let vault = accepts(&ours, restores).await;
        let places = crate::init::places(&places[sinks], None, None).unwrap();
        let listen = ["127.0.0.1:7443".parse().unwrap()];
        let text = crate::init::config_text(ORIGIN, folder.path(), &listen, &places);
        let path = folder.path().join("keyturnd.toml");
        let config = config::Config::parse(&path, &text).unwrap();
        let store = ours.store.as_ref();
        let mode = mode::of(&config, &keys, &ours.edge, store, (&vault, None)).await;
        assert_eq!(mode.serves(), serves, "{name}: {mode:?}");
    }
}

#[tokio::test]
async fn a_log_is_moved_aside_whole_whatever_fails_in_between() {
    let mut fixture = Fixture::new().await;
    fixture.seal(1).await;
    let ceremony = CeremonyId::from_bytes([9; 16]);
    for after in [false, true] {
        for n in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let running = Running::new(&fixture, &[folder.path()]);
            running.complete().await;
            drop(running);
            let disk = Failing::at(n, after);
            let sink = Directory::on(disk.clone(), "a", folder.path(), fixture.vkey());
            let first = sink.begin_anew(ceremony).await;
            assert_eq!(first.is_err(), disk.failed(), "{n} {after}");
            // As after a crash: another daemon looks at the place.
            let sink = Directory::new("a", folder.path(), fixture.vkey());
            if sink.log_size().await.unwrap() > 0 {
                sink.begin_anew(ceremony).await.unwrap();
            }
            assert_eq!(sink.log_size().await.unwrap(), 0, "{n} {after}");
            let before = folder.path().join(format!("before-{ceremony}"));
            let dir = Dir::new(&before);
            assert!(verify::checkpoint(&dir, &fixture.vkey()).is_ok());
            assert!(before.join("tile/0/000.p").is_dir(), "{n} {after}");
            let left = fs::read_dir(folder.path()).unwrap();
            let left = left.map(|name| name.unwrap().file_name().into_string().unwrap());
            let moving = left.filter(|name| name.starts_with("before-")).count();
            assert_eq!(moving, 1, "{n} {after}");
            if first.is_ok() {
                assert!(n > 6, "so few steps cannot be all");
                break;
            }
        }
    }
}

/// A restore may bring the log a new key; what lies there is signed by the old one.
#[tokio::test]
async fn a_copy_that_an_earlier_key_signed_is_continued() {
    let mut fixture = Fixture::new().await;
    fixture.seal(1).await;
    let folder = tempfile::tempdir().unwrap();
    let running = Running::new(&fixture, &[folder.path()]);
    running.complete().await;
    drop(running);
    let old = fixture.vkey();
    fixture.key = LogKey::from_seed(ORIGIN, &[4; 32]).unwrap();
    fixture.seal(2).await;
    let newest = fixture.checkpoint();
    let stranger: Box<dyn Sink> = Box::new(Directory::new("a", folder.path(), fixture.vkey()));
    assert!(
        worker::fill(stranger, &fixture.store, &newest)
            .await
            .is_err()
    );
    let keys = LogKeys {
        present: fixture.vkey(),
        former: vec![old],
    };
    let sink: Box<dyn Sink> = Box::new(Directory::new("a", folder.path(), keys));
    worker::fill(sink, &fixture.store, &newest).await.unwrap();
    whole(folder.path(), &fixture, &[1, 2]);
}

#[tokio::test]
async fn a_copy_of_the_head_that_was_given_up_is_moved_aside_and_no_other_is() {
    let mut fixture = Fixture::new().await;
    fixture.seal(1).await;
    let (keys, own) = (LogKeys::from(fixture.vkey()), restore(&fixture, 2, 1));
    let other = rows::Restored {
        lost: None,
        ..own.clone()
    };
    let shown = rows::Restored {
        shown: own.lost.into_iter().collect(),
        ..other.clone()
    };
    for (name, restores, moved) in [
        ("none", vec![], false),
        ("another", vec![other], false),
        ("this one", vec![own], true),
        ("one of those that were shown", vec![shown], true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        head::begin_anew(folder.path(), &keys, &restores).unwrap();
        head::write(folder.path(), &fixture.checkpoint(), &keys).unwrap();
        for _ in 0..2 {
            head::begin_anew(folder.path(), &keys, &restores).unwrap();
        }
        let there = head::read(folder.path(), &keys).unwrap();
        assert_eq!(there.is_none(), moved, "{name}");
        let before = format!("before-{}", CeremonyId::from_bytes([9; 16]));
        let aside = head::read(&folder.path().join(before), &keys);
        assert_eq!(aside.is_ok_and(|copy| copy.is_some()), moved, "{name}");
    }
}

#[tokio::test]
async fn the_copy_of_the_head_knows_a_store_that_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new().await;
    let check = async |fixture: &Fixture| {
        let store = fixture.store.as_ref();
        head::check(folder.path(), &fixture.vkey().into(), &fixture.edge, store)
            .await
            .unwrap()
    };
    assert_eq!(check(&fixture).await, HeadCheck::Absent);

    fixture.seal(1).await;
    let newest = watch::Sender::new(Some(fixture.checkpoint()));
    let path = folder.path().to_owned();
    let status = watch::Sender::new(head::Status::default());
    let keeper = tokio::spawn(head::keep(
        path,
        fixture.vkey().into(),
        newest.subscribe(),
        status.clone(),
        Clock::system(),
    ));
    while check(&fixture).await != HeadCheck::Same {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.seal(2).await;
    assert_eq!(check(&fixture).await, HeadCheck::Behind { size: 2 });
    newest.send_replace(Some(fixture.checkpoint()));
    while check(&fixture).await != HeadCheck::Same {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(newest);
    keeper.await.unwrap();
    let kept = status.borrow().clone();
    assert!(kept.copied.is_some() && kept.problem.is_none());

    let (size, root) = (fixture.edge.size(), fixture.edge.root());
    let mut other = Fixture::new().await;
    assert_eq!(check(&other).await, HeadCheck::Ahead { size, root });
    assert!(check(&other).await.needs_restore());
    // An older checkpoint does not replace a newer copy.
    let written = head::write(folder.path(), &other.checkpoint(), &other.vkey().into());
    assert!(matches!(written, Err(head::HeadCopyError::Ahead { .. })));
    assert_eq!(check(&fixture).await, HeadCheck::Same);
    for version in [2, 1] {
        other.seal(version).await;
    }
    assert_eq!(check(&other).await, HeadCheck::Fork { size, root });
    other.seal(3).await;
    assert_eq!(check(&other).await, HeadCheck::Fork { size, root });

    for (name, content) in [("empty", ""), ("text", "hello\n")] {
        Os.write(&folder.path().join("checkpoint"), content.as_bytes())
            .unwrap();
        let read = head::read(folder.path(), &fixture.vkey().into());
        assert!(
            matches!(read, Err(head::HeadCopyError::Foreign { .. })),
            "{name}"
        );
    }
    let absent = head::read(&folder.path().join("away"), &fixture.vkey().into());
    assert!(matches!(absent, Err(head::HeadCopyError::Io { .. })));
}
