//! Times and spans, as entries and texts write them.
//!
//! # Invariants
//! 1. A [`Time`] lies in the years 1970 to 9999, so that it can always be written.
//! 2. Each type has exactly one spelling for a value; any other is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const MS_PER_SEC: u64 = 1_000;
const SECS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;
/// The longest span that can be written: 100 years of 365 days.
pub const MAX_SPAN_SECS: u64 = 36_500 * SECS_PER_DAY;

/// A time that is not written as RFC 3339 in UTC with the expected precision.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TimeError {
    /// A time with milliseconds was expected.
    #[error("not a time: write it like 2026-11-21T02:17:00.123Z")]
    Time,
    /// A time to the second was expected.
    #[error("not a time: write it like 2026-11-21T02:17:00Z")]
    Stamp,
    /// A span was expected.
    #[error(
        "not a span of time: write it like 45s, 30m, 2h or 7d, with the largest unit that fits"
    )]
    Span,
}

/// Milliseconds since 1970-01-01T00:00:00Z; written like `2026-11-21T02:17:00.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The time at these milliseconds since 1970; the end of the year 9999 is the last one.
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > LAST_MS { LAST_MS } else { ms })
    }

    /// Milliseconds since 1970.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// This time and a span later.
    #[must_use]
    pub const fn after(self, span: Span) -> Self {
        Self::from_ms(self.0.saturating_add(span.ms()))
    }

    /// How many milliseconds have gone by since `earlier`; 0 when it is later.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time without its milliseconds.
    pub const fn stamp(self) -> Stamp {
        Stamp(self.0 / MS_PER_SEC)
    }
}

/// A time to the second, as signed texts carry it; written like `2026-11-21T02:17:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// The same time with milliseconds, which are 0.
    pub const fn time(self) -> Time {
        Time::from_ms(self.0.saturating_mul(MS_PER_SEC))
    }
}

impl From<Time> for Stamp {
    fn from(time: Time) -> Self {
        time.stamp()
    }
}

/// A span of whole seconds; written like `45s`, `30m`, `2h`, `7d`, in JSON as a number of seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of seconds; 100 years is the longest one.
    pub const fn from_secs(secs: u64) -> Self {
        Self(if secs > MAX_SPAN_SECS {
            MAX_SPAN_SECS
        } else {
            secs
        })
    }

    /// A span of minutes.
    pub const fn from_mins(mins: u64) -> Self {
        Self::from_secs(mins.saturating_mul(60))
    }

    /// A span of hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_secs(hours.saturating_mul(3_600))
    }

    /// A span of days of 24 hours.
    pub const fn from_days(days: u64) -> Self {
        Self::from_secs(days.saturating_mul(SECS_PER_DAY))
    }

    /// Whole seconds.
    pub const fn secs(self) -> u64 {
        self.0
    }

    /// Milliseconds.
    pub const fn ms(self) -> u64 {
        self.0.saturating_mul(MS_PER_SEC)
    }

    /// Reads what a person types: as the strict spelling, but any whole number of any unit.
    pub fn typed(text: &str) -> Result<Self, TimeError> {
        let unit = text.chars().last().ok_or(TimeError::Span)?;
        let number = text.strip_suffix(unit).ok_or(TimeError::Span)?;
        let (_, secs) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(TimeError::Span)?;
        decimal(number)
            .and_then(|count| count.checked_mul(*secs))
            .filter(|secs| *secs <= MAX_SPAN_SECS)
            .map(Self)
            .ok_or(TimeError::Span)
    }
}

/// Units from the largest to the smallest.
const UNITS: [(char, u64); 4] = [('d', SECS_PER_DAY), ('h', 3_600), ('m', 60), ('s', 1)];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, secs) in UNITS {
            if let (Some(count), Some(0)) = (self.0.checked_div(secs), self.0.checked_rem(secs))
                && count > 0
            {
                return write!(f, "{count}{name}");
            }
        }
        f.write_str("0s")
    }
}

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span = Self::typed(text)?;
        if span.to_string() == text {
            Ok(span)
        } else {
            Err(TimeError::Span)
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secs = u64::deserialize(deserializer)?;
        if secs > MAX_SPAN_SECS {
            return Err(serde::de::Error::custom("longer than 100 years"));
        }
        Ok(Self(secs))
    }
}

/// A decimal number without sign, leading zeros or anything else around it.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits {
        text.parse().ok()
    } else {
        None
    }
}

/// Year, month, day of a day counted from 1970-01-01 in the Gregorian calendar.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "invariant 1 keeps days below 3 million"
)]
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that a leap day ends one; day 0 is 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The day counted from 1970-01-01; for dates before it, and none in the calendar, some other day.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let (era, of_era) = (year / 400, year % 400);
    let month = if month > 2 {
        month.checked_sub(3)?
    } else {
        month.checked_add(9)?
    };
    let of_year = 153_u64.checked_mul(month)?.checked_add(2)? / 5;
    let of_year = of_year.checked_add(day)?.checked_sub(1)?;
    let leap = (of_era / 4).checked_sub(of_era / 100)?;
    let of_era = of_era
        .checked_mul(365)?
        .checked_add(leap)?
        .checked_add(of_year)?;
    era.checked_mul(146_097)?
        .checked_add(of_era)?
        .checked_sub(719_468)
}

fn write_secs(f: &mut fmt::Formatter<'_>, secs: u64) -> fmt::Result {
    let (year, month, day) = date(secs / SECS_PER_DAY);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    write!(
        f,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    )
}

/// Seconds since 1970 of `YYYY-MM-DDThh:mm:ss`, not yet known to be a date of the calendar.
fn read_secs(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let days = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let hours = days.checked_mul(24)?.checked_add(number(11, 13)?)?;
    let minutes = hours.checked_mul(60)?.checked_add(number(14, 16)?)?;
    minutes.checked_mul(60)?.checked_add(number(17, 19)?)
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_secs(f, self.0)?;
        f.write_str("Z")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_secs(f, self.0 / MS_PER_SEC)?;
        write!(f, ".{:03}Z", self.0 % MS_PER_SEC)
    }
}

impl FromStr for Stamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Writing it again (invariant 2) refuses dates and hours that do not exist.
        read_secs(text)
            .map(|secs| Time::from_ms(secs.saturating_mul(MS_PER_SEC)).stamp())
            .filter(|stamp| stamp.to_string() == text)
            .ok_or(TimeError::Stamp)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ms = || {
            let millis = text.get(20..23)?;
            let millis = millis
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(millis)?;
            read_secs(text)?
                .checked_mul(MS_PER_SEC)?
                .checked_add(millis.parse().ok()?)
        };
        ms().map(Self::from_ms)
            .filter(|time| time.to_string() == text)
            .ok_or(TimeError::Time)
    }
}

macro_rules! debug_as_display {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_as_display!(Time Stamp Span);
crate::jcs::as_string!(Time);
crate::jcs::as_string!(Stamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_spelling() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("1972-02-29T12:34:56.789Z", 68_214_896_789),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2000-03-01T00:00:00.000Z", 951_868_800_000),
            ("2026-11-21T02:17:00.123Z", 1_795_227_420_123),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000),
            ("9999-12-31T23:59:59.999Z", LAST_MS),
        ] {
            assert_eq!(Time::from_ms(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Time::from_ms(ms)), "{text}");
        }
        assert_eq!(Time::from_ms(u64::MAX), Time::from_ms(LAST_MS));
    }

    #[test]
    fn every_day_is_read_as_it_is_written() {
        const CYCLE: u64 = 146_097; // days in 400 years, after which the calendar repeats
        for day in 0..=CYCLE {
            let stamp = Stamp(day * SECS_PER_DAY + day % SECS_PER_DAY);
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
    }

    #[test]
    fn other_spellings_of_times_are_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T02:17:00",
            "2026-11-21t02:17:00Z",
            "2026-11-21 02:17:00Z",
            "2026-11-21T02:17:00z",
            "2026-11-21T02:17:00+00:00",
            "2026-11-21T02:17:00.000Z",
            "2026-11-21T02:17:60Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T02:60:00Z",
            "2026-13-21T02:17:00Z",
            "2026-00-21T02:17:00Z",
            "2026-11-31T02:17:00Z",
            "2026-11-00T02:17:00Z",
            "2026-02-29T02:17:00Z",
            "2100-02-29T02:17:00Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+026-11-21T02:17:00Z",
            "2026-11-21T02:17:00Z ",
            "２026-11-21T02:17:00Z",
        ] {
            assert_eq!(text.parse::<Stamp>(), Err(TimeError::Stamp), "{text}");
        }
        for text in [
            "2026-11-21T02:17:00Z",
            "2026-11-21T02:17:00.12Z",
            "2026-11-21T02:17:00.1234Z",
        ] {
            assert_eq!(text.parse::<Time>(), Err(TimeError::Time), "{text}");
        }
    }

    #[test]
    fn spans_have_one_spelling() {
        for (text, secs) in [
            ("0s", 0),
            ("1s", 1),
            ("90s", 90),
            ("1m", 60),
            ("90m", 5_400),
            ("2h", 7_200),
            ("7d", 604_800),
            ("36500d", MAX_SPAN_SECS),
        ] {
            assert_eq!(Span::from_secs(secs).to_string(), text);
            assert_eq!(text.parse(), Ok(Span::from_secs(secs)), "{text}");
        }
        for text in [
            "",
            "s",
            "2",
            "02h",
            "2H",
            "2 h",
            "-2h",
            "+2h",
            "2.5h",
            "1h30m",
            "60s",
            "120m",
            "24h",
            "0h",
            "36501d",
            "2w",
            "99999999999999999999s",
        ] {
            assert_eq!(text.parse::<Span>(), Err(TimeError::Span), "{text}");
        }
        assert_eq!(
            Span::typed("120m"),
            Ok(Span::from_hours(2)),
            "people may type it"
        );
    }
}
