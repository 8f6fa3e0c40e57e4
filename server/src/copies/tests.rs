//! Places that are well, away, altered, foreign; disks that fail at every step.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use keyturn_audit::{
    publish::{Dir, Disk, Os},
    verify,
};
use keyturn_vault::layout::{self, LayoutError, Place, SealedVersion};

use super::fixture::{Fixture, number};
use super::head::{self, HeadCheck};
use super::*;
use crate::clock::Clock;

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

    let set_back = Fixture::new().await;
    let running = Running::new(&set_back, &[folder.path()]);
    let status = running.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("set back"));
    assert_eq!(fs::read(folder.path().join("checkpoint")).unwrap(), before);

    let mut forked = Fixture::new().await;
    for version in [3, 4, 5] {
        forked.seal(version).await;
    }
    let running = Running::new(&forked, &[folder.path()]);
    let status = running.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("copy of the log"));
    assert_eq!(fs::read(folder.path().join("checkpoint")).unwrap(), before);
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

#[tokio::test]
async fn the_copy_of_the_head_knows_a_store_that_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new().await;
    let check = async |fixture: &Fixture| {
        let store = fixture.store.as_ref();
        head::check(folder.path(), &fixture.vkey(), &fixture.edge, store)
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
        fixture.vkey(),
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
    let written = head::write(folder.path(), &other.checkpoint(), &other.vkey());
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
        let read = head::read(folder.path(), &fixture.vkey());
        assert!(
            matches!(read, Err(head::HeadCopyError::Foreign { .. })),
            "{name}"
        );
    }
    let absent = head::read(&folder.path().join("away"), &fixture.vkey());
    assert!(matches!(absent, Err(head::HeadCopyError::Io { .. })));
}
