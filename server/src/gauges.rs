//! What the vault tells Prometheus of itself: what is counted every few seconds.

use std::time::Duration;

use keyturn_vault::ceremony::State;

use crate::{
    metrics::Metrics,
    owner::{Core, Needs},
    service::{Context, census},
};

/// How often what is counted is counted anew.
pub const EVERY: Duration = Duration::from_secs(15);

/// Counts every few seconds, until the daemon stops.
pub async fn keep(context: Context, metrics: Metrics) {
    let mut stop = context.stop.clone();
    loop {
        if let Err(refused) = count(&context, &metrics).await {
            tracing::debug!(%refused, "not everything was counted");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn count(context: &Context, metrics: &Metrics) -> Result<(), crate::refusal::Refused> {
    let set = |name, help, labels: &[(&'static str, &str)], value: u64| {
        metrics.gauge(name, help, labels).set(value);
    };
    set(
        "keyturn_log_entries",
        "Entries of the log.",
        &[],
        context.published.committed(),
    );
    let newest = context.published.newest();
    set(
        "keyturn_log_published_entries",
        "Entries under the published checkpoint.",
        &[],
        newest.map_or(0, |newest| newest.size()),
    );
    set(
        "keyturn_restore_mode",
        "1 when nothing changes before an `accept-restore`.",
        &[],
        u64::from(!context.mode.borrow().serves()),
    );
    copies(context, &set);
    if let Some(seen) = context.space.seen() {
        let help = "Bytes left on the disk of `data`.";
        set("keyturn_space_free_bytes", help, &[], seen.room.free_bytes);
        let help = "1 when deposits, rotations and refusal entries wait for room.";
        let low = u64::from(context.space.is_low());
        set("keyturn_space_low", help, &[], low);
    }
    let census = census::count(context).await?;
    let help = "Live versions with fewer copies than wanted.";
    set("keyturn_versions_few_copies", help, &[], census.few_copies);
    let look = |core: &Core| Ok(core.ceremonies_by_state());
    for (state, count) in context.owner.look(Needs::nothing(), look).await? {
        let help = "Ceremonies that are not over, by state.";
        set("keyturn_ceremonies", help, &[("state", state)], count);
    }
    Ok(())
}

fn copies(
    context: &Context,
    set: &impl Fn(&'static str, &'static str, &[(&'static str, &str)], u64),
) {
    for place in context.copies.status() {
        let labels = [("sink", place.name.as_str())];
        let help = "1 when the place for copies took the last thing it was given.";
        set(
            "keyturn_sink_reachable",
            help,
            &labels,
            place.reachable.into(),
        );
        let help = "Entries of the log that the place lacks.";
        set("keyturn_sink_behind_entries", help, &labels, place.behind);
    }
    let head = context.head_copy.borrow().clone();
    if head.wanted {
        let help = "When the head was last copied, in seconds since 1970; 0 never.";
        let at = head.copied.map_or(0, |at| at.ms() / 1000);
        set("keyturn_head_copied_timestamp_seconds", help, &[], at);
    }
}

impl Core {
    /// How many ceremonies that are not over stand where.
    pub fn ceremonies_by_state(&self) -> [(&'static str, u64); 4] {
        let of = |wanted: fn(&State) -> bool| {
            let states = self.live.values().map(|live| &live.machine.row.state);
            u64::try_from(states.filter(|state| wanted(state)).count()).unwrap_or(u64::MAX)
        };
        [
            ("open", of(|state| matches!(state, State::Open { .. }))),
            (
                "waiting",
                of(|state| matches!(state, State::Waiting { .. })),
            ),
            (
                "approved",
                of(|state| matches!(state, State::Approved { .. })),
            ),
            (
                "authorized",
                of(|state| matches!(state, State::Authorized { .. })),
            ),
        ]
    }
}
