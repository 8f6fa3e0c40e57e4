//! One-time codes on a terminal: the code of now, the next one, and how long the first is good, drawn anew each
//! second until the person has enough of it or the check-out is over.
//!
//! # Invariants
//! 1. What is drawn is codes; the seed stays in memory.

use std::time::Duration;

use tokio::{signal::ctrl_c, time::interval};

use super::Context;
use crate::{
    clock,
    totp::{Codes, Totp},
    ui::live::Live,
};

/// Characters of the bar that runs empty.
const BAR: u64 = 15;

/// A seed whose codes are shown.
pub(super) struct Watched {
    /// What is put before its codes.
    pub(super) name: String,
    /// The seed.
    pub(super) seed: Totp,
}

/// Shows the codes of these seeds until the check-out ends, where it does, or the person ends it.
pub(super) async fn watch(context: &Context, watched: &[Watched], ends_ms: u64) {
    context.ui.note("Codes as they are now; Ctrl-C ends this.");
    let mut live = Live::new(context.ui);
    let mut tick = interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = ctrl_c() => return,
        }
        let now = clock::now().ms();
        if ends_ms > 0 && now >= ends_ms {
            context.ui.note("The check-out is over.");
            return;
        }
        let secs = now.checked_div(1000).unwrap_or_default();
        let lines = watched.iter().filter_map(|one| {
            let codes = one.seed.at(secs)?;
            Some(format!("  {}{}", one.name, line(&codes, one.seed.period())))
        });
        live.show(&[], &lines.collect::<Vec<_>>());
    }
}

/// The code, a bar that runs empty, and the next one.
fn line(codes: &Codes, period_secs: u64) -> String {
    let full = codes.left_secs.saturating_mul(BAR);
    let full = full.checked_div(period_secs).unwrap_or_default();
    let bar: String = (0..BAR)
        .map(|at| if at < full { '#' } else { '.' })
        .collect();
    format!(
        "{}  [{bar}] {:>2} s   next {}",
        codes.code, codes.left_secs, codes.next
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_runs_empty() {
        for (left_secs, want) in [
            (30, "123456  [###############] 30 s   next 654321"),
            (15, "123456  [#######........] 15 s   next 654321"),
            (1, "123456  [...............]  1 s   next 654321"),
        ] {
            let codes = Codes {
                code: "123456".to_owned(),
                next: "654321".to_owned(),
                left_secs,
            };
            assert_eq!(line(&codes, 30), want);
        }
    }
}
