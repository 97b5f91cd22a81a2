//! Faults at the calls of `fssync verify` and `fssync status`, which read only.

use super::fault::CallFault;
use super::trace::{Subject, TracedCase};
use super::{disturb, disturb_for_good, interrupt, is_silent};
use crate::crash::scenario;
use crate::support::{Run, Zodb};

const VERIFY: Subject = Subject::slave(&scenario::VERIFY);
const STATUS: Subject = Subject::slave(&scenario::STATUS);

#[test]
fn status_and_verify_do_not_report_interruptions() {
    for subject in [VERIFY, STATUS] {
        interrupt(subject, |traced, _, _| traced.case.assert_untouched());
    }
}

/// A failed read is reported, and nothing is written.
fn check_read(traced: &TracedCase, run: &Run, _: &mut Zodb) {
    let output = format!("{}{}", run.stdout, run.stderr);
    // A finding contains the position instead of the cause.
    let is_reported = output.contains("os error") || output.contains("bytes that can be read");
    match run.code {
        0 | 10 => assert!(is_reported || is_silent(traced), "{run:?} {}", traced.log()),
        1 | 31 => assert!(is_reported, "the cause: {run:?}"),
        _ => panic!("{run:?}"),
    }
    traced.case.assert_untouched();
    traced.run_again().expect(0);
    traced.case.assert_untouched();
}

/// The same, unless the second read succeeds: then the output is that of a sound slave.
fn check_read_again(traced: &TracedCase, run: &Run, zodb: &mut Zodb) {
    traced.case.assert_untouched();
    let lasting = |run: &Run| -> Vec<String> {
        let lines = run.stdout.lines().filter(|line| !line.contains(" ago"));
        lines.map(str::to_owned).collect()
    };
    let is_well = run.code == 0 && lasting(run) == lasting(&traced.run_again());
    if !is_well {
        check_read(traced, run, zodb);
    }
}

#[test]
fn status_and_verify_write_nothing_whatever_call_fails() {
    for subject in [VERIFY, STATUS] {
        disturb(subject, CallFault::Error("EIO"), check_read_again);
        disturb_for_good(subject, CallFault::Error("EIO"), check_read);
    }
}
