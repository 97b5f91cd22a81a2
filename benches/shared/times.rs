//! Times, and their output.

use std::time::Duration;

/// The minimum, the median and the maximum of several times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) min: Duration,
    pub(crate) median: Duration,
    pub(crate) max: Duration,
}

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self {
            min: times[0],
            median: times[times.len() / 2],
            max: times[times.len() - 1],
        }
    }

    /// All three, in milliseconds.
    pub(crate) fn in_short(self) -> String {
        let [min, median, max] =
            [self.min, self.median, self.max].map(|time| time.as_secs_f64() * 1000.0);
        format!("{min:.1} / {median:.1} / {max:.1}")
    }
}

/// A time in milliseconds.
pub(crate) fn show(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Whether a target was reached, if there is one.
pub(crate) fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "",
    }
}
