//! What the service manager is told (`sd_notify(3)`). Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// Start-up is finished.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// Gives a sign of life twice in each watchdog period, as long as tasks get their turn.
pub fn watchdog() -> Option<JoinHandle<()>> {
    let period = sd_notify::watchdog_enabled()?;
    Some(tokio::spawn(async move {
        let half = Duration::from_millis(100).max(period.checked_div(2).unwrap_or(period));
        loop {
            tell(&[NotifyState::Watchdog]);
            tokio::time::sleep(half).await;
        }
    }))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
