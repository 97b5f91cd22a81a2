//! Transaction ids and the time stamps that they contain.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use serde::{Deserialize, Serialize};

/// A transaction id: 8 bytes, big-endian, which increases with time.
///
/// The upper four bytes count minutes in a calendar of 31-day months since
/// 1900, the lower four are the fraction of that minute in units of
/// 60 s / 2³² (`persistent/timestamp.py`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tid(pub u64);

impl Tid {
    /// The length of a tid in the file, in bytes.
    pub const LEN: usize = 8;

    /// The time of this tid in UTC, to the microsecond. `None` if its calendar date does not
    /// exist, as in an artificial or damaged tid.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        let minutes = self.0 >> 32;
        let fraction = u128::from(self.0 & 0xffff_ffff);
        let micros_of_minute = (fraction * 60_000_000 + (1 << 31)) >> 32;
        let days = minutes / (24 * 60);
        let months = days / 31;
        let date = civil::Date::new(
            i16::try_from(1900 + months / 12).ok()?,
            i8::try_from(months % 12 + 1).ok()?,
            i8::try_from(days % 31 + 1).ok()?,
        )
        .ok()?;
        let time = civil::Time::new(
            i8::try_from(minutes / 60 % 24).ok()?,
            i8::try_from(minutes % 60).ok()?,
            0,
            0,
        )
        .ok()?;
        let zoned = date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?;
        let within = SignedDuration::from_micros(i64::try_from(micros_of_minute).ok()?);
        zoned.timestamp().checked_add(within).ok()
    }

    /// This tid with its time, for messages.
    #[must_use]
    pub fn with_time(self) -> String {
        match self.time() {
            Some(time) => format!("{self} ({time:.3})"),
            None => format!("{self} (not a time)"),
        }
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tid({self})")
    }
}

impl From<Tid> for String {
    fn from(tid: Tid) -> Self {
        tid.to_string()
    }
}

impl FromStr for Tid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() != 2 * Self::LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("{text:?} is not a tid of 16 hex digits"));
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for Tid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TimeStamp(2026, 1, 5, 12, 34, 56.789).raw()` of persistent 6.9.
    const TID: &str = "04060072f24cbb52";

    #[test]
    fn time_is_that_of_persistent_timestamp() {
        let tid: Tid = TID.parse().unwrap();
        assert_eq!(
            format!("{:.3}", tid.time().unwrap()),
            "2026-01-05T12:34:56.789Z"
        );
        assert_eq!(tid.to_string(), TID);
    }

    #[test]
    fn an_impossible_date_has_no_time() {
        // 31 February 2026, at midnight.
        let minutes = (((2026 - 1900) * 12 + 1) * 31 + 30) * 24 * 60;
        assert_eq!(Tid(minutes << 32).time(), None);
    }

    #[test]
    fn only_16_hex_digits_are_a_tid() {
        for text in [
            "",
            "12",
            "+3fd0a92f24cde04",
            "03fd0a92f24cde0g",
            "04060072f24cbb5200",
        ] {
            assert!(text.parse::<Tid>().is_err(), "{text:?}");
        }
    }
}
