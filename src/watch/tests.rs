//! The outcomes that a watch reports.

use std::path::PathBuf;

use super::*;
use crate::error::Error;

#[test]
fn a_report_of_a_failure_is_repeated_every_half_hour() {
    let moved = Outcome::from(&Error::Moved {
        directory: PathBuf::from("/srv/plone"),
    });
    let start = Instant::now();
    let minutes = |n: u64| start + Duration::from_secs(60 * n);
    let mut filter = ReportFilter::default();
    let reports = [0, 1, 29, 30, 31, 59, 60].map(|n| filter.take(&moved, minutes(n)));
    let expected = [true, false, false, true, false, false, true];
    assert_eq!(reports, expected.map(Some));
}

#[test]
fn a_report_that_the_watch_is_in_sync_or_off_is_not_repeated() {
    let mut outcome = Outcome::from(&Error::Interrupted);
    let start = Instant::now();
    for exit in [Exit::Success, Exit::Off] {
        outcome.exit = exit;
        let mut filter = ReportFilter::default();
        assert_eq!(filter.take(&outcome, start), Some(true));
        assert_eq!(filter.take(&outcome, start + REPEAT_EVERY * 9), Some(false));
    }
}
