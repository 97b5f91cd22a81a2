//! Every system call: what befalls a process at any of them that concerns the slave, or
//! the master.
//!
//! A process is traced once, which tells its calls ([`fault`]). Then, for each of them, the
//! same is set up again ([`scenario`]), and `strace` kills it there, or has the call fail. How it
//! ended, and what it has left, is checked by ZODB and by the next pass ([`trace`]).
//!
//! Each test takes a share of the calls, the same at each run. All of them, in some minutes:
//!
//! ```sh
//! FSSYNC_CALLS=all cargo test --test all -- calls::
//! ```
//!
//! `FSSYNC_CALLS=N` takes so many, `FSSYNC_CALLS_SEED` others. What is read and written in
//! part is [`crate::power`]'s.

mod fault;
pub mod trace;

use std::cell::Cell;
use std::fs;

use self::fault::{Fault, Point};
use self::trace::Stage;
use crate::crash::scenario::{self, Scenario};
use crate::support::{History, Run, Zodb, fssync, run};
use crate::watcher::Watcher;

/// The calls that a fault can befall.
fn points(scenario: &Scenario, fault: Fault, zodb: &mut Zodb) -> Vec<Point> {
    let stage = Stage::set(scenario, zodb);
    let trace = format!("trace={}", fault.calls());
    stage.run(&["-e", &trace]).expect(0);
    fault::points(&stage.log())
}

/// Has a fault befall a share of the calls, one at a time, and checks each.
fn disturb(scenario: &Scenario, fault: Fault, check: impl Fn(&Stage<'_>, &Run, &mut Zodb)) {
    disturb_as(scenario, fault, Fault::at, check);
}

/// The same, as `injection` says.
fn disturb_as(
    scenario: &Scenario,
    fault: Fault,
    injection: impl Fn(Fault, &Point) -> String,
    check: impl Fn(&Stage<'_>, &Run, &mut Zodb),
) {
    let mut zodb = Zodb::start();
    let points = points(scenario, fault, &mut zodb);
    assert!(points.len() > 3, "{points:?}");
    let (mut befallen, mut all) = (0, 0);
    for point in fault::share(points) {
        let injection = injection(fault, &point);
        eprintln!("{injection}");
        let stage = Stage::set(scenario, &mut zodb);
        let run = stage.run(&["-e", &injection]);
        all += 1;
        befallen += u32::from(fault.has_befallen(&run, &stage.log()));
        check(&stage, &run, &mut zodb);
    }
    // A call that is not made each time may be the last of its name.
    assert!(befallen * 10 >= all * 9, "it befell {befallen} of {all}");
}

/// The process is killed.
fn survives_being_killed(scenario: &Scenario) {
    disturb(scenario, Fault::Kill, |stage, run, zodb| {
        assert!([-1, 0].contains(&run.code), "{run:?}");
        check_slave(stage, run, zodb);
    });
}

/// A call at the slave fails.
fn survives_an_error(scenario: &Scenario, error: &'static str) {
    disturb(scenario, Fault::Error(error), check_failed);
}

/// A call at the slave fails, and so does whatever is tried with it from then on.
fn survives_a_dying_disk(scenario: &Scenario) {
    disturb_as(scenario, Fault::Error("EIO"), Fault::from, check_failed);
}

fn check_failed(stage: &Stage<'_>, run: &Run, zodb: &mut Zodb) {
    assert_documented(stage, run);
    if !run.stderr.contains("cannot remove") {
        stage.assert_tidy();
        // Who cannot cut a tail keeps it, and does not know what is left.
        if !run.stderr.contains("cannot truncate at") {
            stage.assert_no_spare_copy();
        }
    }
    check_slave(stage, run, zodb);
}

/// The slave is sound, in sync if that was said, and the next pass heals it.
fn check_slave(stage: &Stage<'_>, run: &Run, zodb: &mut Zodb) {
    stage.assert_sound(zodb);
    if run.code == 0 {
        zodb.assert_in_sync(&stage.scene.master, &stage.scene.slave);
    }
    stage.assert_heals(zodb);
}

/// Has a signal interrupt every other call, which makes no difference, and checks.
fn interrupt(scenario: &Scenario, check: impl Fn(&Stage<'_>, &Run, &mut Zodb)) {
    let mut zodb = Zodb::start();
    for first in [1, 2] {
        let stage = Stage::set(scenario, &mut zodb);
        let interrupted = Fault::Error("EINTR").at_every_other(first);
        let run = stage.run(&["-e", &interrupted]).expect(0);
        assert!(stage.log().contains("(INJECTED)"));
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains("Interrupted"), "{said}");
        check(&stage, &run, &mut zodb);
    }
}

/// A signal interrupts it, which is nothing to tell of.
fn survives_interruptions(scenario: &Scenario) {
    interrupt(scenario, check_slave);
}

/// What fails without a word: to let a lock go, which the kernel does at the end of the
/// process; to ask who has ZODB's; to look at the switch for work that the next pass can do;
/// to look whether a tail was kept before.
const SILENT: [&str; 4] = [
    "LOCK_UN",
    "Data.fs.tr0\", AT_STATX_SYNC_AS_STAT",
    "Data.fs.lock\", AT_STATX_SYNC_AS_STAT, ",
    "Data.fs.fssync-switch\", O_RDONLY",
];

/// Whether only such calls have failed.
fn is_silent(stage: &Stage<'_>) -> bool {
    let log = stage.log();
    let mut befallen = log.lines().filter(|line| line.contains("(INJECTED)"));
    befallen.all(|line| SILENT.iter().any(|part| line.contains(part)))
}

/// The exit code is one that the failure of a call at the slave may have, and the file
/// is named, with the cause. What is well all the same is told of, too.
fn assert_documented(stage: &Stage<'_>, run: &Run) {
    // A switch that cannot be read is off.
    let is_off = run.stderr.contains("Data.fs.fssync-switch cannot be read");
    match run.code {
        0 => {
            let is_told = run.stderr.contains("os error");
            assert!(is_told || is_silent(stage), "{run:?} {}", stage.log());
        }
        10 if is_off => {}
        1 => {
            let directory = stage.scene.slave.parent().unwrap();
            assert!(run.stderr.contains(directory.to_str().unwrap()), "{run:?}");
            let line = run.stderr.lines().last().unwrap();
            assert!(line.contains("NOT SYNCING FROM MASTER"), "{run:?}");
            assert!(line.contains("os error"), "the cause: {run:?}");
        }
        _ => panic!("{run:?}"),
    }
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_being_killed() {
                super::survives_being_killed(&scenario::$scenario);
            }

            #[test]
            fn survives_an_io_error() {
                survives_an_error(&scenario::$scenario, "EIO");
            }

            #[test]
            fn survives_a_dying_disk() {
                super::survives_a_dying_disk(&scenario::$scenario);
            }

            #[test]
            fn survives_a_full_disk() {
                survives_an_error(&scenario::$scenario, "ENOSPC");
            }

            #[test]
            fn survives_a_quota() {
                survives_an_error(&scenario::$scenario, "EDQUOT");
            }

            #[test]
            fn survives_interruptions() {
                super::survives_interruptions(&scenario::$scenario);
            }
        }
    )* };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_to_a_seed: APPEND_TO_A_SEED;
    an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL;
    an_append_behind_our_own_tail: APPEND_BEHIND_OUR_OWN_TAIL;
    a_full_copy: FULL_COPY;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    a_forced_full_copy: FORCED_FULL_COPY;
    an_index_made_anew: ANOTHER_INDEX;
    an_index_that_is_extended: INDEX_THAT_IS_DUE;
}

/// A call at the master fails, once: another look finds it well.
fn survives_an_error_of_the_master(scenario: &Scenario, error: &'static str) {
    disturb(scenario, Fault::Error(error), |stage, run, zodb| {
        assert_eq!(run.code, 0, "{run:?}");
        check_unreachable(stage, run, zodb);
    });
}

/// A call at the master fails, and goes on failing. All may have been read by then, and what
/// is around the master may be missing without harm.
fn survives_a_master_that_is_lost(scenario: &Scenario, error: &'static str) {
    let fault = Fault::Error(error);
    let (missed, all) = (Cell::new(0), Cell::new(0));
    disturb_as(scenario, fault, Fault::from, |stage, run, zodb| {
        all.update(|all| all + 1);
        missed.update(|missed| missed + u32::from(run.code == 12));
        check_unreachable(stage, run, zodb);
    });
    let (missed, all) = (missed.get(), all.get());
    assert!(missed * 5 > all * 2, "it was missed in {missed} of {all}");
}

/// It is unreachable, and the slave what it was, or in sync as far as it goes. A full copy
/// under way waits for the next pass.
fn check_unreachable(stage: &Stage<'_>, run: &Run, zodb: &mut Zodb) {
    match run.code {
        0 => {}
        12 => {
            let line = run.stderr.lines().last().unwrap();
            let master = stage.scene.master.parent().unwrap().to_str().unwrap();
            assert!(line.contains(master), "{run:?}");
            assert!(line.contains("os error"), "the cause: {run:?}");
        }
        _ => panic!("{run:?}"),
    }
    check_slave(stage, run, zodb);
}

macro_rules! disturbed_at_the_master {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_an_io_error() {
                survives_an_error_of_the_master(&scenario::$scenario, "EIO");
            }

            #[test]
            fn survives_a_stale_handle() {
                survives_an_error_of_the_master(&scenario::$scenario, "ESTALE");
            }

            #[test]
            fn survives_a_master_that_is_lost() {
                super::survives_a_master_that_is_lost(&scenario::$scenario, "ESTALE");
            }

            #[test]
            fn survives_interruptions() {
                super::survives_interruptions(&scenario::$scenario);
            }
        }
    )* };
}

disturbed_at_the_master! {
    an_append_from_a_mount: APPEND_FROM_A_MOUNT;
    a_full_copy_from_a_mount: FULL_COPY_FROM_A_MOUNT;
    an_append_from_an_agent: APPEND_FROM_AN_AGENT;
    a_full_copy_from_an_agent: FULL_COPY_FROM_AN_AGENT;
}

/// A watch in which a call fails goes on by itself, or ends with exit code 1, and a
/// supervisor starts it again.
fn survives_in_a_watch(scenario: &Scenario, fault: Fault) {
    let mut zodb = Zodb::start();
    let points = points(scenario, fault, &mut zodb);
    let (mut befallen, mut all) = (0, 0);
    for point in fault::share(points).into_iter().step_by(2) {
        let injection = fault.at(&point);
        eprintln!("{injection}");
        let stage = Stage::set(scenario, &mut zodb);
        let mut command = stage.traced(&["-D", "-e", &injection]);
        let mut watch = Watcher::of(&stage.scene, command.arg("--watch"));
        let ended = watch.in_sync_or_ended(&stage.scene);
        all += 1;
        befallen += u32::from(stage.log().contains("(INJECTED)"));
        assert!(ended.is_none_or(|code| code == 1), "{ended:?}");
        if ended.is_some() {
            Watcher::start(&stage.scene, &[]).expect_in_sync(&stage.scene);
        }
        drop(watch);
        stage.assert_sound(&mut zodb);
        stage.assert_heals(&mut zodb);
    }
    // It has threads, which make their calls in other numbers than a pass.
    assert!(befallen * 3 > all, "it befell {befallen} of {all}");
}

#[test]
fn a_watch_goes_on_whatever_call_fails() {
    survives_in_a_watch(&scenario::APPEND, Fault::Error("EIO"));
    survives_in_a_watch(&scenario::FULL_COPY, Fault::Error("EIO"));
    survives_in_a_watch(&scenario::FULL_COPY_FROM_A_MOUNT, Fault::Error("ESTALE"));
}

/// `fssync off` says 0 only if it is so: nothing is written from then on, and no part of
/// a batch is left, unless it says that ZODB is to cut it.
fn check_off(stage: &Stage<'_>, ended: &Run, zodb: &mut Zodb) {
    stage.assert_sound(zodb);
    let next = stage.scene.pass(&[]);
    match ended.code {
        0 => {
            next.expect(10);
            let slave = fs::read(&stage.scene.slave).unwrap();
            let is_left_to_zodb = ended.stderr.contains("left to ZODB");
            assert!(
                is_left_to_zodb || slave == History::get().before,
                "{ended:?}"
            );
        }
        1 | -1 => {
            if ended.code == 1 {
                assert!(ended.stderr.contains("os error"), "{ended:?}");
                let directory = stage.scene.slave.parent().unwrap().to_str();
                assert!(ended.stderr.contains(directory.unwrap()), "{ended:?}");
            }
            assert!([0, 10].contains(&next.code), "{next:?}");
        }
        _ => panic!("{ended:?}"),
    }
    stage.run_in_peace().expect(0);
    stage.scene.pass(&[]).expect(10);
    run(fssync().arg("on").arg(&stage.scene.slave)).expect(0);
    stage.scene.pass(&[]).expect(0);
    zodb.assert_in_sync(&stage.scene.master, &stage.scene.slave);
}

#[test]
fn an_off_that_is_killed_leaves_a_slave_that_zodb_opens() {
    disturb(&scenario::OFF, Fault::Kill, check_off);
}

#[test]
fn an_off_keeps_its_word_whatever_call_fails() {
    for error in ["EIO", "ENOSPC", "EDQUOT"] {
        disturb(&scenario::OFF, Fault::Error(error), check_off);
    }
}

/// `fssync on` says 0 only if it is so.
fn check_on(stage: &Stage<'_>, ended: &Run, zodb: &mut Zodb) {
    let next = stage.scene.pass(&[]);
    match ended.code {
        0 => drop(next.expect(0)),
        // A switch that cannot be read is off.
        1 | 10 | -1 => assert!([0, 10].contains(&next.code), "{next:?}"),
        _ => panic!("{ended:?}"),
    }
    stage.run_in_peace().expect(0);
    stage.assert_sound(zodb);
    stage.scene.pass(&[]).expect(0);
}

#[test]
fn an_on_keeps_its_word_whatever_befalls_it() {
    disturb(&scenario::ON, Fault::Kill, check_on);
    for error in ["EIO", "ENOSPC", "EDQUOT"] {
        disturb(&scenario::ON, Fault::Error(error), check_on);
    }
}

#[test]
fn status_and_verify_are_not_told_of_interruptions() {
    for scenario in [&scenario::VERIFY, &scenario::STATUS] {
        interrupt(scenario, |stage, _, _| stage.assert_untouched());
    }
}

/// All that a process calls can fail here, but what gives back a handle or looks at it.
#[test]
fn no_call_is_forgotten() {
    let mut zodb = Zodb::start();
    for scenario in scenario::ALL {
        let stage = Stage::set(scenario, &mut zodb);
        stage.run(&[]).expect(0);
        let of_any_kind = fault::points(&stage.log());
        assert!(of_any_kind.len() > 10, "{of_any_kind:?}");
        for Point { call, .. } in of_any_kind {
            let is_listed = Fault::Error("EIO").befalls(&call);
            let is_harmless = ["close", "fcntl"].contains(&&*call);
            assert!(is_listed || is_harmless, "{call}");
        }
    }
}

#[test]
fn off_and_on_are_not_told_of_interruptions() {
    for scenario in [&scenario::OFF, &scenario::ON] {
        interrupt(scenario, |_, run, _| assert_eq!(run.stderr, ""));
    }
}

/// What cannot be read is told, and nothing is touched.
fn check_look(stage: &Stage<'_>, run: &Run, _: &mut Zodb) {
    let said = format!("{}{}", run.stdout, run.stderr);
    // A finding says where, rather than why.
    let is_told = said.contains("os error") || said.contains("bytes that can be read");
    match run.code {
        0 | 10 => assert!(is_told || is_silent(stage), "{run:?} {}", stage.log()),
        1 | 31 => assert!(is_told, "the cause: {run:?}"),
        _ => panic!("{run:?}"),
    }
    stage.assert_untouched();
    stage.run_in_peace().expect(0);
    stage.assert_untouched();
}

/// The same, unless it can be read when it is read again, which is well.
fn check_second_look(stage: &Stage<'_>, run: &Run, zodb: &mut Zodb) {
    stage.assert_untouched();
    let lasting = |run: &Run| -> Vec<String> {
        let lines = run.stdout.lines().filter(|line| !line.contains(" ago"));
        lines.map(str::to_owned).collect()
    };
    let is_well = run.code == 0 && lasting(run) == lasting(&stage.run_in_peace());
    if !is_well {
        check_look(stage, run, zodb);
    }
}

#[test]
fn status_and_verify_touch_nothing_whatever_call_fails() {
    for scenario in [&scenario::VERIFY, &scenario::STATUS] {
        disturb(scenario, Fault::Error("EIO"), check_second_look);
        disturb_as(scenario, Fault::Error("EIO"), Fault::from, check_look);
    }
}
