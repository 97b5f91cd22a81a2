//! `-q --remind`: a line when the outcome of passes changes, reminders, and a line on recovery.

use std::time::Duration;

use fssync::human::span;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::plan::remind::{self, Report};
use fssync::slave::reminder::{self, Reminder};
use fssync::slave::step::Slave;
use jiff::Timestamp;

use super::log::End;

/// Logs the end of a quiet pass if it is news or if a reminder is due, and returns the exit code.
pub(crate) fn log(mut end: End, outcome: &Outcome, slave: &Slave, every: Duration) -> Exit {
    let now = Timestamp::now();
    let stored = Reminder::load(&slave.paths).unwrap_or(Reminder::Missing);
    let last = stored.trouble();
    let decision = remind::decide(outcome, last, now, every);
    let is_first = stored == Reminder::Missing && outcome.exit == Exit::Success;
    // If it cannot be stored, the next pass reports the same again: rather that than silence.
    if (is_first || decision.trouble.as_ref() != last)
        && let Err(error) = reminder::store(decision.trouble.as_ref(), slave)
    {
        tracing::debug!("{}", error.display_chain());
    }
    let since = |time: Timestamp| span(now.duration_since(time));
    match decision.report {
        // The report could not be printed on standard output.
        Report::Nothing if end.exit != outcome.exit => end.log(true),
        Report::Nothing => end.exit,
        Report::News => end.log(true),
        Report::Reminder(time) => {
            end.line = format!("{}; this lasts since {time:.0}, {}", end.line, since(time));
            end.log(true)
        }
        Report::Recovery(exit_code, time) => {
            end.line = format!(
                "{}; in sync again after {} of trouble with exit code {exit_code}",
                end.line,
                since(time)
            );
            end.log_as_news()
        }
    }
}
