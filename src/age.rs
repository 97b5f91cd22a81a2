//! How long ago something was, for a person to read.

use jiff::{SignedDuration, Timestamp};

/// Units of time in seconds, and what they are called.
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];

/// How long before `now` something was, such as `3 min 12 s ago`.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    let elapsed = now.duration_since(time);
    if elapsed.is_negative() {
        return format!("{} ahead of this machine's clock", span(elapsed));
    }
    format!("{} ago", span(elapsed))
}

/// A time without its sign, in its two largest units.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_two_units() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (millis, said) in [
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
            assert_eq!(ago(time, now), said);
        }
    }
}
