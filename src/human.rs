//! Formats times, sizes and numbers for people.

use jiff::{SignedDuration, Timestamp};

/// Units of time: length in seconds, and symbol.
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];

/// The time from `time` to `now`, such as `3 min 12 s ago`.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    let elapsed = now.duration_since(time);
    if elapsed.is_negative() {
        return format!("{} ahead of this machine's clock", span(elapsed));
    }
    format!("{} ago", span(elapsed))
}

/// The absolute length of a time span, in its two largest units, such as `3 min 12 s`.
#[must_use]
pub fn span(elapsed: SignedDuration) -> String {
    let secs = elapsed.as_secs().unsigned_abs();
    let Some(largest) = UNITS.iter().position(|(len, _)| secs >= *len) else {
        return "less than 1 s".to_owned();
    };
    let mut left = secs;
    let parts = UNITS[largest..].iter().take(2).map(|(len, unit)| {
        let count = left / len;
        left %= len;
        format!("{count} {unit}")
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// The absolute length of a time span, in its largest unit, such as `3 min`.
#[must_use]
pub fn short_span(elapsed: SignedDuration) -> String {
    let secs = elapsed.as_secs().unsigned_abs();
    let largest = UNITS.iter().find(|(len, _)| secs >= *len);
    largest.map_or_else(
        || "0 s".to_owned(),
        |(len, unit)| format!("{} {unit}", secs / len),
    )
}

/// A size in bytes, such as `9999 bytes` or `10.0 KiB`: exact if it is less than 10,000, and
/// otherwise rounded down to a tenth of the largest unit below it.
#[must_use]
pub fn bytes(len: u64) -> String {
    const SMALL: u64 = 10_000;
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if len < SMALL {
        return count(len, "byte");
    }
    let mut tenths = u128::from(len) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number of things, such as `1 transaction` or `2 transactions`. `thing` is the singular.
#[must_use]
pub fn count(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (millis, expected) in [
            (0, "less than 1 s ago"),
            (999, "less than 1 s ago"),
            (1_000, "1 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 min 0 s ago"),
            (192_400, "3 min 12 s ago"),
            (3_599_000, "59 min 59 s ago"),
            (7_500_000, "2 h 5 min ago"),
            (86_400_000, "1 d 0 h ago"),
            (34_567_890_000, "400 d 2 h ago"),
            (-1, "less than 1 s ahead of this machine's clock"),
            (-61_000, "1 min 1 s ahead of this machine's clock"),
        ] {
            let time = now - SignedDuration::from_millis(millis);
            assert_eq!(ago(time, now), expected);
        }
    }

    #[test]
    fn a_count_of_one_is_singular() {
        for (n, expected) in [(0, "0 files"), (1, "1 file"), (2, "2 files")] {
            assert_eq!(count(n, "file"), expected);
        }
    }

    #[test]
    fn a_small_size_is_exact() {
        for (len, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (9_999, "9999 bytes"),
            (10_240, "10.0 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1024 * 1024, "1.0 MiB"),
            (48_318_382_080, "45.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(len), expected);
        }
    }
}
