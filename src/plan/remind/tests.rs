//! Each line of `--remind`, pass by pass.

use super::*;
use crate::plan::outcome::{Action, Copied};

const HOUR: Duration = Duration::from_secs(3600);

fn outcome(exit: Exit, reason: &str, warnings: &[&str]) -> Outcome {
    Outcome {
        action: Action::UpToDate,
        exit,
        reason: reason.to_owned(),
        hint: None,
        copied: Copied::default(),
        warnings: warnings.iter().map(|&it| it.to_owned()).collect(),
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap()
}

/// Makes passes at these minutes, and checks the line of each.
#[track_caller]
fn check(passes: &[(i64, Outcome, Report)]) {
    let mut trouble = None;
    for (minute, outcome, expected) in passes {
        let decision = decide(outcome, trouble.as_ref(), at(*minute), HOUR);
        assert_eq!(
            decision.report, *expected,
            "at minute {minute}: {outcome:?}"
        );
        trouble = decision.trouble;
    }
}

fn in_sync() -> Outcome {
    outcome(Exit::Success, "the master has nothing new", &[])
}

fn unreachable(reason: &str) -> Outcome {
    outcome(Exit::Unreachable, reason, &[])
}

fn off() -> Outcome {
    outcome(Exit::Off, "Data.fs.fssync-switch contains SYNCING=0", &[])
}

fn invalid_switch(content: &str) -> Outcome {
    outcome(Exit::Off, content, &["a switch must be a file"])
}

#[test]
fn an_outage_is_reported_at_its_begin_every_hour_and_at_its_end() {
    check(&[
        (0, in_sync(), Report::Nothing),
        (1, unreachable("refused"), Report::News),
        (2, unreachable("timed out"), Report::Nothing),
        (60, unreachable("refused"), Report::Nothing),
        (61, unreachable("refused"), Report::Reminder(at(1))),
        (62, unreachable("refused"), Report::Nothing),
        (121, unreachable("refused"), Report::Reminder(at(1))),
        (122, in_sync(), Report::Recovery(12, at(1))),
        (123, in_sync(), Report::Nothing),
        (124, unreachable("refused"), Report::News),
    ]);
}

#[test]
fn another_exit_code_is_news() {
    for exit in [
        Exit::Failure,
        Exit::Usage,
        Exit::InUse,
        Exit::Diverged,
        Exit::MasterDamaged,
        Exit::SlaveDamaged,
    ] {
        check(&[
            (1, unreachable("refused"), Report::News),
            (2, outcome(exit, "another", &[]), Report::News),
            (
                3,
                outcome(exit, "a different reason", &["a warning"]),
                Report::Nothing,
            ),
            (70, outcome(exit, "another", &[]), Report::Reminder(at(2))),
            (71, in_sync(), Report::Recovery(exit as u8, at(2))),
        ]);
    }
}

#[test]
fn a_plain_off_or_a_short_pass_at_work_is_not_news_and_ends_no_trouble() {
    let busy = || outcome(Exit::Busy, "another pass is at work, for 3 min", &[]);
    for quiet in [off(), busy()] {
        check(&[
            (0, quiet.clone(), Report::Nothing),
            (1, unreachable("refused"), Report::News),
            (2, quiet.clone(), Report::Nothing),
            (3, unreachable("refused"), Report::Nothing),
            (4, quiet.clone(), Report::Nothing),
            (300, quiet, Report::Nothing),
            (301, in_sync(), Report::Recovery(12, at(1))),
        ]);
    }
}

/// The warning does not change as time passes, but the age in the reason does.
#[test]
fn a_pass_at_work_is_news_once_it_has_a_warning() {
    let overdue = |age| {
        outcome(
            Exit::Busy,
            age,
            &["the pass at work has run for more than an hour"],
        )
    };
    check(&[
        (0, outcome(Exit::Busy, "for 59 min", &[]), Report::Nothing),
        (2, overdue("for 1 h 1 min"), Report::News),
        (3, overdue("for 1 h 2 min"), Report::Nothing),
        (62, overdue("for 2 h 1 min"), Report::Reminder(at(2))),
        (63, in_sync(), Report::Recovery(11, at(2))),
    ]);
}

#[test]
fn an_invalid_switch_is_news_and_so_is_another_content() {
    check(&[
        (0, invalid_switch("contains \"maybe\""), Report::News),
        (1, invalid_switch("contains \"maybe\""), Report::Nothing),
        (2, invalid_switch("contains \"later\""), Report::News),
        (
            62,
            invalid_switch("contains \"later\""),
            Report::Reminder(at(0)),
        ),
        (63, off(), Report::Nothing),
        (64, in_sync(), Report::Recovery(10, at(0))),
    ]);
}

#[test]
fn a_warning_of_a_pass_in_sync_is_repeated_every_hour() {
    let warned = |warning| outcome(Exit::Success, "the master has nothing new", &[warning]);
    check(&[
        (0, warned("damage"), Report::News),
        (1, warned("damage"), Report::Nothing),
        (2, warned("little space"), Report::News),
        (63, warned("little space"), Report::Reminder(at(0))),
        (64, in_sync(), Report::Recovery(0, at(0))),
    ]);
}

#[test]
fn a_reminder_is_due_despite_jitter_and_after_the_clock_was_set_back() {
    let begin = decide(&unreachable("x"), None, at(0), HOUR)
        .trouble
        .unwrap();
    let report = |now| decide(&unreachable("x"), Some(&begin), now, HOUR).report;
    let second = SignedDuration::from_secs(1);
    assert_eq!(report(at(60) - second), Report::Reminder(at(0)));
    assert_eq!(report(at(59)), Report::Nothing);
    assert_eq!(report(at(0) - second), Report::Reminder(at(0)));
    let never = decide(&unreachable("x"), Some(&begin), at(999), Duration::MAX);
    assert_eq!(never.report, Report::Nothing);
}
