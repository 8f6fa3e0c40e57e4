//! Verifying the log of a vault that was used: beside the limit that its signatures set.

use keyturn::verify::directory::{Subject, verify};
use keyturn_hsm::{attestation::Anchors, device::DeviceKey};
use keyturn_tests::Outcome;

use crate::{
    figures::{Section, Times, count, instant, rate, time},
    place::{LANES, Place, race},
    unseal::go,
};

/// Rounds of openings before; each is one of every lane's depth.
const ROUNDS: usize = 8;
/// Verifications; the fastest says least of the other programs on the machine.
const RUNS: usize = 5;
/// Signatures that are verified to know what one costs.
const SIGNATURES: usize = 2_000;

/// The table.
pub(crate) async fn measure() -> Outcome<Section> {
    let mut place = Place::new().await?;
    for _ in 0..ROUNDS {
        let ready = place.prepare(LANES).await?;
        race(ready, go).await?;
    }
    place.published(1).await?;
    let vkey = place.vault.facts.vkey.clone();
    let world = place.halt()?;

    let makers = Anchors::yubico()?;
    let dir = world.log();
    let subject = Subject {
        dir: &dir,
        log: &vkey,
        makers: &makers,
        genesis: None,
        saved: &[],
    };
    let mut times = Times::default();
    let mut size = 0;
    let mut signatures = 0;
    for _ in 0..RUNS {
        let begun = instant();
        let report = verify(subject, |_, _| (), |_, _| ())?;
        times.push(begun.elapsed());
        if !report.findings.is_empty() {
            return Err(format!("the log does not verify: {:?}", report.findings).into());
        }
        (size, signatures) = (report.size, report.signatures);
    }
    let took = times.percentile(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = signatures_alone(usize::try_from(signatures)?, threads)?;
    let mut section = Section::new(
        "The log of a vault that was used, verified whole",
        format!(
            "Every rule replayed, every signature checked, as `keyturn audit verify` does: {} entries of openings with {} \
             signatures. The limit is as many P-256 verifications on {threads} threads and nothing else. The best of {RUNS} runs.",
            count(f64::from(u32::try_from(size)?)),
            count(f64::from(u32::try_from(signatures)?)),
        ),
        &["", "took", "per second", "÷ limit"],
    );
    let ratio = format!("{:.2}", took.as_secs_f64() / limit.as_secs_f64());
    let entries = rate(usize::try_from(size)?, took);
    let alone = rate(usize::try_from(signatures)?, limit);
    section.row([
        "verified whole".to_owned(),
        time(took),
        format!("{} entries", count(entries)),
        ratio,
    ]);
    section.row([
        "its signatures alone".to_owned(),
        time(limit),
        format!("{} signatures", count(alone)),
        "1.00".to_owned(),
    ]);
    Ok(section)
}

/// What so many signatures cost on so many threads.
fn signatures_alone(signatures: usize, threads: usize) -> Outcome<std::time::Duration> {
    let device = DeviceKey::generate("bench")?;
    let text = "x".repeat(900);
    let signature = device.sign(text.as_bytes())?;
    let key = device.public();
    let mut best = Times::default();
    for _ in 0..RUNS {
        let begun = instant();
        let whole = std::thread::scope(|scope| {
            let verify =
                || (0..SIGNATURES).all(|_| key.verify(text.as_bytes(), &signature).is_ok());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(verify)).collect();
            threads
                .into_iter()
                .all(|thread| thread.join().is_ok_and(|all| all))
        });
        best.push(begun.elapsed());
        if !whole {
            return Err("a signature does not verify".into());
        }
    }
    let share = rate(signatures, std::time::Duration::from_secs(1))
        / rate(SIGNATURES * threads, std::time::Duration::from_secs(1));
    Ok(best.percentile(0).mul_f64(share))
}
