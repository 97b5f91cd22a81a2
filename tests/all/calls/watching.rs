//! Faults at the calls of a watch.

use super::fault::{self, CallFault};
use super::points;
use super::trace::{Subject, Target, TracedCase};
use crate::crash::scenario;
use crate::support::Zodb;
use crate::watcher::Watcher;

/// A watch in which a call fails continues by itself, or exits with 1, and a supervisor starts
/// it again.
fn survives_in_a_watch(subject: Subject, fault: CallFault) {
    let mut zodb = Zodb::start();
    let points = points(subject, fault, &mut zodb);
    let (mut injected, mut all) = (0, 0);
    for point in fault::sample(points, subject.scenario)
        .into_iter()
        .step_by(2)
    {
        let injection = fault.at(&point);
        eprintln!("{injection}");
        let traced = TracedCase::prepare(subject, &mut zodb);
        let scene = &traced.case.scene;
        let mut command = traced.command(&["-D", "-e", &injection]);
        let mut watch = Watcher::of(scene, command.arg("--watch"));
        let ended = watch.in_sync_or_ended(scene);
        all += 1;
        injected += u32::from(traced.log().contains("(INJECTED)"));
        assert!(ended.is_none_or(|code| code == 1), "{ended:?}");
        if ended.is_some() {
            Watcher::start(scene, &[]).expect_in_sync(scene);
        }
        drop(watch);
        traced.case.assert_sound(&mut zodb);
        traced.run_again().expect(0);
        traced.case.assert_recovered(&mut zodb);
    }
    // The threads of a watch make other numbers of calls than a pass.
    assert!(injected * 3 > all, "injected in {injected} of {all}");
}

#[test]
fn a_watch_continues_whatever_call_fails() {
    survives_in_a_watch(Subject::slave(&scenario::APPEND), CallFault::Error("EIO"));
    survives_in_a_watch(
        Subject::slave(&scenario::FULL_COPY),
        CallFault::Error("EIO"),
    );
    let from_a_mount = Subject {
        scenario: &scenario::FULL_COPY,
        target: Target::MasterDirectory,
    };
    survives_in_a_watch(from_a_mount, CallFault::Error("ESTALE"));
}
