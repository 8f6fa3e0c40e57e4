//! Durable appends to the log through the owner, each answered when it is durable.

use keyturn_tests::{Outcome, inside::owner};
use keyturn_vault::text::{Heartbeat, SignedText};
use keyturnd::{
    owner::{self, Needs, core::Core},
    verify,
};

use crate::{
    figures::{Section, Times, count, instant, rate, time},
    place::Place,
};

/// Appends of one caller.
const ALONE: usize = 4_000;
/// Appends of each of 256 callers.
const TOGETHER: usize = 1_000;

/// A signed sign of life of bob.
async fn heartbeat(place: &Place) -> Outcome<SignedText> {
    let (bob, line) = (place.vault.who("bob")?, place.vault.line("bob").await?);
    let facts = &place.vault.facts;
    bob.sign(&Heartbeat {
        vault: facts.charter.origin.clone(),
        person: bob.person.clone(),
        token: bob.token,
        charter: facts.reference,
        log: line.head(&facts.vkey).await?,
        signed: keyturn_tests::raw::now().stamp(),
        confirmations: Vec::new(),
    })
}

/// The table.
pub(crate) async fn measure() -> Outcome<Section> {
    let place = Place::new().await?;
    let heartbeat = heartbeat(&place).await?;
    let facts = place.vault.facts.clone();
    let verified = verify::text(&facts.charter, heartbeat)?;
    let by = place.vault.who("bob")?.person.clone();
    let world = place.halt()?;
    let owner = owner(&world.vault()).await?;
    let mut section = Section::new(
        "Durable appends",
        "A heartbeat through the owner: stepped, encoded, hashed, committed with an `fsync`, answered. Signatures are \
         verified by the callers beforehand and not part of it.",
        &["", "p50", "p99", "appends per second"],
    );
    for (callers, each) in [(1, ALONE), (256, TOGETHER)] {
        let begun = instant();
        let mut running = Vec::new();
        for _ in 0..callers {
            let (owner, verified, by) = (owner.clone(), verified.clone(), by.clone());
            running.push(tokio::spawn(async move {
                let mut times = Times::default();
                for _ in 0..each {
                    let (verified, by) = (verified.clone(), by.clone());
                    let begun = instant();
                    let step = move |core: &mut Core, txn: &mut owner::Txn| {
                        core.heartbeat(txn, verified, &by)
                    };
                    owner
                        .ask(Needs::nothing(), step)
                        .await
                        .map_err(|error| error.to_string())?;
                    times.push(begun.elapsed());
                }
                Result::<_, String>::Ok(times)
            }));
        }
        let mut times = Times::default();
        for task in running {
            times.extend(&task.await??);
        }
        let took = begun.elapsed();
        section.row([
            if callers == 1 {
                "1 caller".to_owned()
            } else {
                format!("{callers} callers")
            },
            time(times.p50()),
            time(times.p99()),
            count(rate(times.count(), took)),
        ]);
    }
    Ok(section)
}
