//! The clock of the command line, and times as people read them.

use jiff::{Timestamp, tz::TimeZone};
use keyturn_vault::time::Time;

/// Now, by this computer's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the client that reads the clock"
)]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map(|since| since.as_millis()).unwrap_or_default();
    Time::from_ms(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// A time as people read it: local, with UTC where that differs.
pub fn shown(time: Time) -> String {
    shown_in(time, TimeZone::system())
}

fn shown_in(time: Time, zone: TimeZone) -> String {
    let stamp = i64::try_from(time.ms()).ok();
    let Some(stamp) = stamp.and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
        return time.stamp().to_string();
    };
    let utc = stamp.strftime("%Y-%m-%d %H:%M:%S UTC");
    let here = stamp.to_zoned(zone);
    if here.offset().is_zero() {
        return utc.to_string();
    }
    format!(
        "{} ({})",
        here.strftime("%Y-%m-%d %H:%M:%S %Z"),
        stamp.strftime("%H:%M UTC")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_utc() {
        let time = "2026-11-21T02:17:00Z"
            .parse::<keyturn_vault::time::Stamp>()
            .unwrap()
            .time();
        for (zone, want) in [
            (TimeZone::UTC, "2026-11-21 02:17:00 UTC"),
            (
                TimeZone::fixed(jiff::tz::offset(1)),
                "2026-11-21 03:17:00 +01 (02:17 UTC)",
            ),
        ] {
            assert_eq!(shown_in(time, zone), want);
        }
    }
}
