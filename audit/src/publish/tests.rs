mod power;

use power::{Fault, Power, Survives};
use serde_json::json;

use super::*;
use crate::{
    entry::Entry,
    note::{
        LogKey, OpenError,
        tests::{cosign, witness},
    },
    tile, tree, verify,
};

const ROOT: &str = "/log";

fn key() -> LogKey {
    LogKey::from_seed("vault.example.org/prod", &[7; 32]).unwrap()
}

fn entries(count: u64) -> Vec<Vec<u8>> {
    let entry = |n| Entry {
        n,
        time: "2026-11-21T02:17:00.123Z".into(),
        charter: 1,
        actor: "alice".into(),
        kind: "alive".into(),
        body: json!({}),
    };
    (0..count).map(|n| entry(n).encode().unwrap()).collect()
}

/// The publications of a run: how many entries each covers, and how many objects it brings. The third fills a
/// tile that was partial, the fourth adds nothing but a cosignature, the fifth grows one tile only.
const STEPS: [(u64, u8); 5] = [(3, 1), (5, 0), (260, 2), (260, 0), (261, 0)];

/// The checkpoint over the first entries.
fn checkpoint(entries: &[Vec<u8>], size: u64) -> SignedCheckpoint {
    let size = usize::try_from(size).unwrap();
    let batch = Edge::new().append(&entries[..size]).unwrap();
    key()
        .sign(batch.edge().size(), batch.edge().root())
        .unwrap()
}

/// One log, with all that it takes to publish it step by step.
struct Story {
    entries: Vec<Vec<u8>>,
    checkpoints: Vec<SignedCheckpoint>,
}

impl Story {
    fn new() -> Self {
        let entries = entries(261);
        let mut checkpoints: Vec<_> = STEPS
            .iter()
            .map(|(size, _)| checkpoint(&entries, *size))
            .collect();
        let (pair, vkey) = witness("witness.example/w1", 1);
        let line = cosign(&pair, &vkey, 1, checkpoints[3].note().text());
        checkpoints[3].cosign(&line, &vkey).unwrap();
        Self {
            entries,
            checkpoints,
        }
    }

    /// Publishes one step, from wherever the publisher is.
    fn step<D: Disk>(&self, publisher: &mut Publisher<D>, step: usize) -> Result<(), PublishError> {
        let (size, objects) = STEPS[step];
        for object in 0..objects {
            publisher.object(&[object, u8::try_from(step).unwrap()])?;
        }
        let place = |n: u64| usize::try_from(n).unwrap();
        if publisher.size() < size {
            publisher.append(&self.entries[place(publisher.size())..place(size)])?;
        }
        publisher.publish(&self.checkpoints[step])
    }

    /// Opens the log and publishes what is missing; gives how many steps were published when it failed.
    fn run(&self, disk: &Power) -> Result<(), (usize, PublishError)> {
        let dir = Dir::on(disk.clone(), ROOT);
        let mut publisher = Publisher::open(dir, key().vkey()).map_err(|error| (0, error))?;
        let published = publisher.published().map_or(0, SignedCheckpoint::size);
        for (step, (size, _)) in STEPS.iter().enumerate() {
            if *size > published || publisher.published().is_none() {
                self.step(&mut publisher, step)
                    .map_err(|error| (step, error))?;
            }
        }
        Ok(())
    }

    /// A reader finds a whole log: nothing yet, or one of the checkpoints and everything below it, and none
    /// older than what was said to be published.
    fn check_reader(&self, disk: &Power, published: usize, context: &str) {
        let dir = Dir::on(disk.reader(), ROOT);
        let files: tile::tests::Memory = disk
            .files()
            .into_iter()
            .filter_map(|(name, bytes)| {
                let name = name
                    .strip_prefix(ROOT)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                (!name.starts_with(TEMPORARY)).then_some((name, bytes))
            })
            .collect();
        if !files.contains_key(CHECKPOINT) {
            assert_eq!(published, 0, "{context}: the checkpoint is lost");
            return;
        }
        let saved: Vec<_> = self.checkpoints[..published]
            .iter()
            .map(|c| c.checkpoint().clone())
            .collect();
        let log = key();
        let anchors = verify::Anchors {
            log: log.vkey(),
            saved: &saved,
            threads: 1,
        };
        // The signed root stands for the entries.
        let verified = verify::tree(&files, &anchors);
        let verified = verified.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert!(self.checkpoints.contains(&verified.checkpoint), "{context}");
        assert!(verify::objects(&dir).is_ok(), "{context}");
        let size = verified.checkpoint.size();
        let named = files
            .keys()
            .filter(|name| name.starts_with(OBJECTS))
            .count();
        let wanted: u8 = STEPS
            .iter()
            .filter(|(at, _)| *at <= size)
            .map(|(_, objects)| objects)
            .sum();
        assert!(
            named >= usize::from(wanted),
            "{context}: objects are missing"
        );
    }
}

/// The files that matter when all is published: no temporary ones, no partial tile but the newest.
fn essence(disk: &Power) -> Vec<(PathBuf, Vec<u8>)> {
    let superfluous = |name: &Path| {
        let name = name.strip_prefix(ROOT).unwrap().to_str().unwrap();
        let newest =
            |path: TilePath| TilePath::new(path.content(), path.index(), 261) == Some(path);
        name.starts_with(TEMPORARY) || name.parse().is_ok_and(|path| !newest(path))
    };
    disk.files()
        .into_iter()
        .filter(|(name, _)| !superfluous(name))
        .collect()
}

#[test]
fn no_power_cut_shows_a_reader_half_a_log() {
    let story = Story::new();
    let whole = Power::default();
    story.run(&whole).unwrap();
    let total = whole.operations();
    assert!(total > 100, "{total} operations");
    let mut lost_something = 0;
    for at in 0..total {
        for fault in [Fault::CutBefore, Fault::CutAfter] {
            for survives in [
                Survives::Nothing,
                Survives::Everything,
                Survives::Names,
                Survives::Chance(1),
                Survives::Chance(2),
                Survives::Chance(3),
            ] {
                let context = format!("{fault:?} at operation {at}, then {survives:?} survives");
                let disk = Power::default();
                disk.plan(at, fault);
                let published = story.run(&disk).err().map_or(STEPS.len(), |(step, _)| step);
                assert_ne!(disk.struck(), "", "{context}");
                let before = disk.files();
                disk.restart(survives);
                lost_something += u32::from(disk.files() != before);
                story.check_reader(&disk, published, &context);
                // And whoever goes on ends where nothing had happened.
                story
                    .run(&disk)
                    .unwrap_or_else(|error| panic!("{context}: {error:?}"));
                assert_eq!(essence(&disk), essence(&whole), "{context}");
            }
        }
    }
    assert!(
        lost_something > 100,
        "the simulated disk never forgot anything"
    );
}

#[test]
fn a_failed_operation_can_be_repeated_unless_it_was_an_fsync() {
    // Invariant 3.
    let story = Story::new();
    let whole = Power::default();
    story.run(&whole).unwrap();
    let (mut repeated, mut stopped) = (0, 0);
    for at in 0..whole.operations() {
        for fault in [Fault::Fails, Fault::FailsAfterAll] {
            let context = format!("{fault:?} at operation {at}");
            let disk = Power::default();
            disk.plan(at, fault);
            let dir = Dir::on(disk.clone(), ROOT);
            let Ok(mut publisher) = Publisher::open(dir.clone(), key().vkey()) else {
                assert_eq!(at, 0, "{context}: only the first read can fail on opening");
                continue;
            };
            let mut failures = 0;
            for step in 0..STEPS.len() {
                while let Err(error) = story.step(&mut publisher, step) {
                    failures += 1;
                    story.check_reader(&disk, step, &context);
                    if let PublishError::Unsynced { .. } = error {
                        stopped += 1;
                        let again = story.step(&mut publisher, step);
                        let stays = matches!(again, Err(PublishError::Unsynced { .. }));
                        assert!(stays, "{context}: went on after a failed fsync");
                        publisher = Publisher::open(dir.clone(), key().vkey()).unwrap();
                    } else {
                        repeated += 1;
                    }
                }
                story.check_reader(&disk, step + 1, &context);
            }
            assert!(failures <= 1, "{context}");
            // Only superfluous files may stay unnoticed.
            let may = ["list", "remove", "remove_dir", "had failed anyway"];
            assert_eq!(failures == 0, may.contains(&disk.struck()), "{context}");
            assert_eq!(essence(&disk), essence(&whole), "{context}");
        }
    }
    assert!(
        repeated > 50 && stopped > 50,
        "{repeated} repeated, {stopped} stopped"
    );
}

#[test]
fn partial_tiles_go_when_their_full_tile_is_published() {
    // Invariant 2.
    let story = Story::new();
    let disk = Power::default();
    let mut publisher = Publisher::open(Dir::on(disk.clone(), ROOT), key().vkey()).unwrap();
    for step in 0..STEPS.len() {
        story.step(&mut publisher, step).unwrap();
    }
    let tiles: Vec<_> = disk
        .files()
        .into_keys()
        .filter_map(|name| {
            name.strip_prefix(ROOT)
                .unwrap()
                .to_str()
                .unwrap()
                .parse()
                .ok()
        })
        .map(|path: TilePath| path.to_string())
        .collect();
    let want = [
        "tile/0/000",
        "tile/0/001.p/4",
        "tile/0/001.p/5",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/4",
        "tile/entries/001.p/5",
    ];
    assert_eq!(tiles, want);
    assert_eq!(
        disk.list(Path::new("/log/tile/0")).unwrap(),
        ["000", "001.p"]
    );
}

#[test]
fn a_log_on_a_real_disk_is_verified_rebuilt_and_continued() {
    let story = Story::new();
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::new(folder.path().join("not/there/yet"));
    let mut publisher = Publisher::open(dir.clone(), key().vkey()).unwrap();
    assert!(publisher.published().is_none());
    for step in 0..4 {
        story.step(&mut publisher, step).unwrap();
    }
    let mut publisher = Publisher::open(dir.clone(), key().vkey()).unwrap();
    assert_eq!(
        (publisher.size(), publisher.published()),
        (260, Some(&story.checkpoints[3]))
    );
    story.step(&mut publisher, 4).unwrap();
    let log = key();
    let anchors = verify::Anchors {
        log: log.vkey(),
        saved: &[],
        threads: 2,
    };
    let verified = verify::entries(&dir, &anchors, |_| Ok::<_, ()>(())).unwrap();
    assert_eq!(verified.checkpoint, story.checkpoints[4]);
    assert_eq!(verify::objects(&dir).unwrap(), 3);
    let digest: Hash = Sha256::digest([0, 0]).into();
    assert_eq!(verify::object(&dir, &digest).unwrap(), [0, 0]);

    // A damaged tile stops `open`; `rebuild` mends it from the entries.
    let tile = dir.root.join("tile/1/000.p/1");
    Os.write(&tile, &[0; 32]).unwrap();
    let opened = Publisher::open(dir.clone(), key().vkey());
    assert!(matches!(opened, Err(PublishError::Root)));
    Os.remove(&tile).unwrap();
    let opened = Publisher::open(dir.clone(), key().vkey());
    assert!(matches!(opened, Err(PublishError::Tile(_))));
    let mut publisher = Publisher::rebuild(dir.clone());
    for some in story.entries.chunks(100) {
        publisher.append(some).unwrap();
    }
    publisher.publish(&story.checkpoints[4]).unwrap();
    assert!(verify::tree(&dir, &anchors).is_ok());
    assert!(Publisher::open(dir, key().vkey()).is_ok());
}

#[test]
fn only_the_checkpoint_over_the_appended_entries_is_published() {
    // Invariant 1.
    let story = Story::new();
    let disk = Power::default();
    let mut publisher = Publisher::open(Dir::on(disk.clone(), ROOT), key().vkey()).unwrap();
    publisher.append(&story.entries[..5]).unwrap();
    let other = key().sign(5, tree::empty()).unwrap();
    for (name, checkpoint) in [
        ("fewer entries", &story.checkpoints[0]),
        ("more entries", &story.checkpoints[2]),
        ("another root", &other),
    ] {
        let published = publisher.publish(checkpoint);
        assert!(
            matches!(published, Err(PublishError::Mismatch { appended: 5, .. })),
            "{name}"
        );
    }
    assert!(!disk.files().contains_key(Path::new("/log/checkpoint")));
    publisher.publish(&story.checkpoints[1]).unwrap();
    assert_eq!(publisher.published(), Some(&story.checkpoints[1]));
}

#[test]
fn what_is_too_long_is_refused() {
    let disk = Power::default();
    let mut publisher = Publisher::open(Dir::on(disk, ROOT), key().vkey()).unwrap();
    let object = publisher.object(&vec![0; MAX_OBJECT_BYTES + 1]);
    assert!(matches!(object, Err(PublishError::Object)));
    let appended = publisher.append(&[vec![0; 65_536]]);
    assert!(matches!(appended, Err(PublishError::Entry(_))));
    assert_eq!(publisher.size(), 0);
}

#[test]
fn a_foreign_checkpoint_is_not_continued() {
    let story = Story::new();
    let disk = Power::default();
    story.run(&disk).unwrap();
    let dir = Dir::on(disk, ROOT);
    let stranger = LogKey::from_seed("vault.example.org/prod", &[8; 32]).unwrap();
    let opened = Publisher::open(dir, stranger.vkey());
    assert!(matches!(
        opened,
        Err(PublishError::Head(HeadError::Open(OpenError::Unsigned)))
    ));
}

#[test]
fn reading_never_leaves_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    Os.write(&folder.path().join("secret"), b"secret").unwrap();
    Os.make_dir(&folder.path().join("log")).unwrap();
    let dir = Dir::new(folder.path().join("log"));
    let absolute = folder.path().join("secret");
    for path in [
        "../secret",
        "tile/../../secret",
        "./checkpoint",
        absolute.to_str().unwrap(),
    ] {
        let kind = dir.read(path, 100).map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidInput), "{path}");
    }
    let parent = Dir::new(folder.path());
    assert_eq!(parent.read("secret", 6).unwrap(), b"secret");
    let long = parent.read("secret", 5).map_err(|error| error.kind());
    assert_eq!(long, Err(io::ErrorKind::FileTooLarge));
}
