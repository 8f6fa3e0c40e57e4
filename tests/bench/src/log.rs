//! Verifying a large log.

use keyturn_audit::{
    entry::Entry,
    note::LogKey,
    publish::{Dir, Publisher},
    verify::{self, Anchors},
};
use keyturn_tests::Outcome;

use crate::figures::{Section, count, instant, rate, time};

/// Entries of the log that is verified.
pub(crate) const ENTRIES: u64 = 1_000_000;
/// Entries that are written together.
const CHUNK: u64 = 4_096;
/// Runs; the fastest says least of the other programs on the machine.
const RUNS: usize = 3;

/// An entry of about 300 bytes, as most are.
pub(crate) fn entry(n: u64) -> Outcome<Vec<u8>> {
    let entry = Entry {
        n,
        time: "2026-11-21T02:17:00.123Z".to_owned(),
        charter: 1,
        actor: "daemon ".repeat(24),
        kind: "alive".to_owned(),
        body: serde_json::json!({}),
    };
    Ok(entry.encode()?)
}

/// The table.
pub(crate) fn measure() -> Outcome<Section> {
    let folder = tempfile::tempdir()?;
    let dir = Dir::new(folder.path());
    let key = LogKey::generate("bench.example.org/log")?;
    let mut publisher = Publisher::open(dir.clone(), key.vkey())?;
    let begun = instant();
    while publisher.size() < ENTRIES {
        let until = (publisher.size() + CHUNK).min(ENTRIES);
        let entries = (publisher.size()..until).map(entry);
        publisher.append(&entries.collect::<Outcome<Vec<_>>>()?)?;
    }
    publisher.publish(&key.sign(ENTRIES, publisher.edge().root())?)?;
    let published = begun.elapsed();
    let anchors = Anchors {
        log: key.vkey(),
        saved: &[],
        threads: 2,
    };
    let mut section = Section::new(
        "A log of 1,000,000 entries of 300 bytes",
        "Two threads beside the caller's, on two cores; the best of three runs.",
        &["", "took", "entries per second"],
    );
    let entries = usize::try_from(ENTRIES)?;
    let mut row =
        |name: &str, took| section.row([name.to_owned(), time(took), count(rate(entries, took))]);
    row(
        "encoded and published: tiles, `fsync`, checkpoint",
        published,
    );
    let mut tree = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..RUNS {
        let begun = instant();
        verify::tree(&dir, &anchors)?;
        tree.push(begun.elapsed());
        let begun = instant();
        let mut kinds = 0_u64;
        verify::entries(&dir, &anchors, |entry| {
            kinds += u64::from(entry.kind == "alive");
            Result::<_, std::convert::Infallible>::Ok(())
        })?;
        whole.push(begun.elapsed());
        if kinds != ENTRIES {
            return Err("entries are missing".into());
        }
    }
    row(
        "tree, tiles and checkpoint verified",
        tree.into_iter().min().unwrap_or_default(),
    );
    row(
        "the same, every entry decoded and held to its one encoding",
        whole.into_iter().min().unwrap_or_default(),
    );
    Ok(section)
}
