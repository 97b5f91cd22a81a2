//! Decides which passes of `fssync -q --remind` print a line. Pure: no I/O and no clock.
//!
//! A pass has one of three outcomes here:
//!
//! | outcome | line |
//! | --- | --- |
//! | *trouble*: an exit code other than 0, 10 and 11, or a warning | if it is news, and each time that the interval is over |
//! | *quiet*: 10 or 11 without a warning | none; the trouble before may continue afterwards |
//! | *in sync*: 0 without a warning | one, after trouble that was reported |
//!
//! Trouble is news if its exit code differs from the reported one. Outcomes with exit code 0, 10
//! or 11 are distinguished by their warnings, and 10 also by its reason, which contains the
//! content of an invalid switch. The reasons of other exit codes may differ at each attempt.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::outcome::{Exit, Outcome};

/// cron may start a pass this much earlier within its minute than the one before.
const JITTER: SignedDuration = SignedDuration::from_secs(15);

/// The trouble that was last reported.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Trouble {
    /// The exit code.
    pub exit_code: u8,
    /// The texts that distinguish it from other trouble with this exit code.
    pub about: Vec<String>,
    /// When a pass first had this exit code.
    pub since: Timestamp,
    /// When it was last reported.
    pub reported: Timestamp,
}

/// The line to print after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// No line.
    Nothing,
    /// The outcome is news.
    News,
    /// The outcome has lasted since this time, and the interval is over.
    Reminder(Timestamp),
    /// The slave is in sync again. The trouble had this exit code, and began at this time.
    Recovery(u8, Timestamp),
}

/// The decision about a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The line to print.
    pub report: Report,
    /// The trouble to remember for the next pass.
    pub trouble: Option<Trouble>,
}

/// Decides about a pass with this outcome that ends at `now`, after the trouble `last` was
/// reported. Reminders are due every `every`.
#[must_use]
pub fn decide(
    outcome: &Outcome,
    last: Option<&Trouble>,
    now: Timestamp,
    every: Duration,
) -> Decision {
    if outcome.exit.is_quiet() && outcome.warnings.is_empty() {
        return match last {
            Some(last) if outcome.exit == Exit::Success => Decision {
                report: Report::Recovery(last.exit_code, last.since),
                trouble: None,
            },
            _ => Decision {
                report: Report::Nothing,
                trouble: last.cloned(),
            },
        };
    }
    let exit_code = outcome.exit as u8;
    let same_code = last.filter(|last| last.exit_code == exit_code);
    let trouble = Trouble {
        exit_code,
        about: about(outcome),
        since: same_code.map_or(now, |last| last.since),
        reported: now,
    };
    match same_code.filter(|last| last.about == trouble.about) {
        None => Decision {
            report: Report::News,
            trouble: Some(trouble),
        },
        Some(last) if is_due(last.reported, now, every) => Decision {
            report: Report::Reminder(last.since),
            trouble: Some(trouble),
        },
        Some(last) => Decision {
            report: Report::Nothing,
            trouble: Some(last.clone()),
        },
    }
}

fn about(outcome: &Outcome) -> Vec<String> {
    let reason = (outcome.exit == Exit::Off).then(|| outcome.reason.clone());
    let warnings = outcome.exit.is_quiet().then_some(&outcome.warnings);
    let warnings = warnings.into_iter().flatten().cloned();
    reason.into_iter().chain(warnings).collect()
}

/// Whether a reminder is due. A report in the future counts as overdue: the clock was set back.
fn is_due(reported: Timestamp, now: Timestamp, every: Duration) -> bool {
    let age = now.duration_since(reported);
    let every = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX);
    age.is_negative() || age.saturating_add(JITTER) >= every
}

#[cfg(test)]
mod tests;
