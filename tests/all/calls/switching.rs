//! Faults at the calls of `fssync off` and `fssync on`.

use std::fs;

use super::fault::CallFault;
use super::trace::{Subject, TracedCase};
use super::{disturb, interrupt};
use crate::crash::scenario;
use crate::support::{History, Run, Zodb, fssync, run};

const OFF: Subject = Subject::slave(&scenario::OFF);
const ON: Subject = Subject::slave(&scenario::ON);

/// If `fssync off` exits with 0, nothing is written to the slave from then on, and no part of a
/// batch is left, unless a message says that ZODB is to truncate it.
fn check_off(traced: &TracedCase, off: &Run, zodb: &mut Zodb) {
    let case = &traced.case;
    case.assert_sound(zodb);
    let next = case.scene.pass(&[]);
    match off.code {
        0 => {
            next.expect(10);
            let slave = fs::read(&case.scene.slave).unwrap();
            let is_left_to_zodb = off.stderr.contains("left to ZODB");
            assert!(is_left_to_zodb || slave == History::get().before, "{off:?}");
        }
        1 | -1 => {
            if off.code == 1 {
                assert!(off.stderr.contains("os error"), "{off:?}");
                let directory = case.scene.slave.parent().unwrap().to_str();
                assert!(off.stderr.contains(directory.unwrap()), "{off:?}");
            }
            assert!([0, 10].contains(&next.code), "{next:?}");
        }
        _ => panic!("{off:?}"),
    }
    traced.run_again().expect(0);
    case.scene.pass(&[]).expect(10);
    run(fssync().arg("on").arg(&case.scene.slave)).expect(0);
    case.scene.pass(&[]).expect(0);
    zodb.assert_in_sync(&case.scene.master, &case.scene.slave);
}

#[test]
fn an_off_that_is_killed_leaves_a_slave_that_zodb_opens() {
    disturb(OFF, CallFault::Kill, check_off);
}

#[test]
fn an_off_that_exits_with_0_is_off_whatever_call_fails() {
    for error in ["EIO", "ENOSPC", "EDQUOT"] {
        disturb(OFF, CallFault::Error(error), check_off);
    }
}

/// If `fssync on` exits with 0, syncing is on.
fn check_on(traced: &TracedCase, on: &Run, zodb: &mut Zodb) {
    let case = &traced.case;
    let next = case.scene.pass(&[]);
    match on.code {
        0 => drop(next.expect(0)),
        // A switch that cannot be read is off.
        1 | 10 | -1 => assert!([0, 10].contains(&next.code), "{next:?}"),
        _ => panic!("{on:?}"),
    }
    traced.run_again().expect(0);
    case.assert_sound(zodb);
    case.scene.pass(&[]).expect(0);
}

#[test]
fn an_on_that_exits_with_0_is_on_whatever_call_fails() {
    disturb(ON, CallFault::Kill, check_on);
    for error in ["EIO", "ENOSPC", "EDQUOT"] {
        disturb(ON, CallFault::Error(error), check_on);
    }
}

#[test]
fn off_and_on_do_not_report_interruptions() {
    for subject in [OFF, ON] {
        interrupt(subject, |_, run, _| assert_eq!(run.stderr, ""));
    }
}
