//! Power goes at every write, sync and acknowledgement of a history; what is left is opened again.
//!
//! Cites the invariants of `keyturnd::store`.

use crate::disk::{Dice, Disk, Loss, PowerCut};
use crate::*;

/// Enough for the journal to go round twice.
const STEPS: usize = 70;
const FEWEST_POINTS: usize = 500;

/// Runs the history on a disk. Gives the disk's first image, its record, and what the store holds after
/// each number of transactions.
async fn record() -> (disk::Bytes, Vec<disk::Event>, Vec<Rows>) {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    let first = disk.bytes();
    disk.take_record();
    let mut history = History::new();
    let mut states = vec![history.rows.clone()];
    for count in 1..=STEPS {
        let txn = history.next();
        assert_committed(&store.txn(txn.clone()).await);
        disk.acknowledge(count);
        history.done(txn);
        states.push(history.rows.clone());
    }
    let record = disk.take_record();
    store.close().await;
    (first, record, states)
}

/// Invariants 1 and 2: everything acknowledged is there, the one under way is there whole or not at all, and
/// the store takes more.
async fn assert_whole(disk: &Disk, states: &[Rows], acknowledged: usize, why: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{why}: {error}"));
    let mut held = rows(&store).await;
    // It is this function's own; before a second power cut it may have become durable or not.
    held.remove(&Name::Probe.key());
    let may_be = &states[acknowledged..states.len().min(acknowledged + 2)];
    assert!(may_be.contains(&held), "{why}: lost or half applied");
    assert_head_equals_entries(&held);
    store.probe().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn no_power_cut_loses_or_halves_a_transaction() {
    let (first, record, states) = record().await;
    let mut cut = PowerCut::new(first);
    let mut dice = Dice(0x6b65_7974_7572_6e31);
    let mut points = 0;
    let mut second_points = 0;
    for (at, event) in record.iter().enumerate() {
        cut.follow(event);
        for loss in [Loss::All, Loss::Torn, Loss::None] {
            let why = format!("event {at} of {}, {loss:?}", record.len());
            let image = cut.image(loss, &mut dice);
            let before = image.bytes();
            assert_whole(&image, &states, cut.acknowledged, &why).await;
            points += 1;

            // Power goes again while the store is being mended.
            let mending = image.take_record();
            let length = u64::try_from(mending.len()).unwrap();
            let until = usize::try_from(dice.below(length)).unwrap();
            let mut again = PowerCut::new(before);
            mending[..=until]
                .iter()
                .for_each(|event| again.follow(event));
            let mended = again.image(Loss::Torn, &mut dice);
            let why = format!("{why}, then event {until} of {length}");
            assert_whole(&mended, &states, cut.acknowledged, &why).await;
            second_points += 1;
        }
    }
    assert_eq!(
        cut.acknowledged, STEPS,
        "the record was followed to its end"
    );
    assert!(points >= FEWEST_POINTS && second_points >= FEWEST_POINTS);
    println!("{points} power cuts, each followed by a second one");
}

/// The test above would see nothing on a disk that forgets nothing.
#[tokio::test]
async fn the_images_lose_what_was_not_synced() {
    let (first, record, states) = record().await;
    let mut cut = PowerCut::new(first);
    for event in record {
        if !matches!(event, disk::Event::Sync(_)) {
            cut.follow(&event);
        }
    }
    let image = cut.image(Loss::All, &mut Dice(1));
    let held = rows(&open(&image).unwrap()).await;
    assert_eq!(cut.acknowledged, STEPS);
    assert_ne!(held, states[STEPS], "nothing was lost without a sync");
}
