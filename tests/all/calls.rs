//! Faults at every system call that a process makes on the slave's files, or on the master.
//!
//! The actor of a [scenario](crate::crash::scenario) is traced once, to list its calls
//! ([`fault::points`]). Then the scenario is prepared again for each of them, and `strace` kills
//! the actor at this call, or makes the call fail ([`trace`]). The exit code and the messages
//! are checked here, and the slave by the [oracle](crate::crash::oracle).
//!
//! Each test takes a fixed sample of the calls, the same in each run. All calls, in some minutes:
//!
//! ```sh
//! FSSYNC_CALLS=all cargo test --test all -- calls::
//! ```
//!
//! `FSSYNC_CALLS=N` takes N calls, `FSSYNC_CALLS_SEED` selects others. Partial reads and writes
//! are tested in [`crate::power`].

mod fault;
mod master;
mod reading;
mod slave;
mod switching;
pub mod trace;
mod watching;

use self::fault::{CallFault, Point};
use self::trace::{Subject, TracedCase};
use crate::crash::scenario;
use crate::support::{Run, Zodb};

/// Checks a case after its actor was disturbed.
type Check = fn(&TracedCase, &Run, &mut Zodb);

/// The calls at which a fault can be injected.
fn points(subject: Subject, fault: CallFault, zodb: &mut Zodb) -> Vec<Point> {
    let traced = TracedCase::prepare(subject, zodb);
    let trace = format!("trace={}", fault.calls());
    traced
        .run(&["-e", &trace])
        .expect(traced.case.scenario.exit_code);
    fault::points(&traced.log())
}

/// Injects a fault at a sample of the calls, one at a time, and checks each case.
fn disturb(subject: Subject, fault: CallFault, check: impl FnMut(&TracedCase, &Run, &mut Zodb)) {
    inject(subject, fault, CallFault::at, check);
}

/// The same; the fault lasts, for all later calls of the same name.
fn disturb_for_good(
    subject: Subject,
    fault: CallFault,
    check: impl FnMut(&TracedCase, &Run, &mut Zodb),
) {
    inject(subject, fault, CallFault::from, check);
}

fn inject(
    subject: Subject,
    fault: CallFault,
    injection: fn(CallFault, &Point) -> String,
    mut check: impl FnMut(&TracedCase, &Run, &mut Zodb),
) {
    let mut zodb = Zodb::start();
    let points = points(subject, fault, &mut zodb);
    assert!(points.len() > 3, "{points:?}");
    let (mut injected, mut all) = (0, 0);
    for point in fault::sample(points, subject.scenario) {
        let injection = injection(fault, &point);
        eprintln!("{injection}");
        let traced = TracedCase::prepare(subject, &mut zodb);
        let run = traced.run(&["-e", &injection]);
        all += 1;
        injected += u32::from(fault.was_injected(&run, &traced.log()));
        check(&traced, &run, &mut zodb);
    }
    // The number of calls differs from run to run, so the last ones may not be made.
    let few = 1 + all / 10;
    assert!(injected + few >= all, "injected in {injected} of {all}");
}

/// Interrupts every other call by a signal, which makes no difference, and checks each case.
fn interrupt(subject: Subject, check: Check) {
    let mut zodb = Zodb::start();
    for first in [1, 2] {
        let traced = TracedCase::prepare(subject, &mut zodb);
        let interrupted = CallFault::Error("EINTR").at_every_other(first);
        let run = traced.run(&["-e", &interrupted]).expect(0);
        assert!(traced.log().contains("(INJECTED)"));
        let output = format!("{}{}", run.stdout, run.stderr);
        assert!(!output.contains("Interrupted"), "{output}");
        check(&traced, &run, &mut zodb);
    }
}

/// Checks the slave after a pass: it is sound, in sync if the pass reported that, and the next
/// pass repairs it.
fn check_slave(traced: &TracedCase, run: &Run, zodb: &mut Zodb) {
    let case = &traced.case;
    case.assert_sound(zodb);
    if run.code == 0 {
        case.assert_done(zodb);
    }
    traced.run_again().expect(0);
    case.assert_recovered(zodb);
}

/// Calls that may fail without a message: a lock is released, which the kernel does at the end
/// of the process; the holder of ZODB's lock is looked up; the switch is read for work that the
/// next pass can do; a tail is searched among those that were saved before.
const SILENT: [&str; 4] = [
    "LOCK_UN",
    "Data.fs.tr0\", AT_STATX_SYNC_AS_STAT",
    "Data.fs.lock\", AT_STATX_SYNC_AS_STAT, ",
    "Data.fs.fssync-switch\", O_RDONLY",
];

/// Whether only such calls have failed.
fn is_silent(traced: &TracedCase) -> bool {
    let log = traced.log();
    let mut failed = log.lines().filter(|line| line.contains("(INJECTED)"));
    failed.all(|line| SILENT.iter().any(|part| line.contains(part)))
}

/// Faults are injected at each call that an actor makes, except those that release a handle or
/// read its flags.
#[test]
fn no_call_is_forgotten() {
    let mut zodb = Zodb::start();
    let at_slave = slave::SCENARIOS.iter().copied();
    let others = [
        &scenario::OFF,
        &scenario::ON,
        &scenario::VERIFY,
        &scenario::STATUS,
    ];
    let at_slave = at_slave.chain(others).map(Subject::slave);
    for subject in at_slave.chain(master::SUBJECTS.iter().copied()) {
        let traced = TracedCase::prepare(subject, &mut zodb);
        traced.run(&[]).expect(0);
        let of_any_kind = fault::points(&traced.log());
        assert!(of_any_kind.len() > 10, "{of_any_kind:?}");
        for Point { call, .. } in of_any_kind {
            let is_listed = CallFault::Error("EIO").affects(&call);
            let is_harmless = ["close", "fcntl"].contains(&&*call);
            assert!(is_listed || is_harmless, "{call}");
        }
    }
}
