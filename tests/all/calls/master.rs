//! Faults at the calls that a pass, or the program that serves it, makes on the master.

use super::fault::CallFault;
use super::trace::{Subject, Target, TracedCase};
use super::{check_slave, disturb, disturb_for_good, interrupt};
use crate::crash::scenario;
use crate::support::{Run, Zodb};

/// Makes a call fail, once: the pass tries again and succeeds.
fn survives_an_error(subject: Subject, error: &'static str) {
    disturb(subject, CallFault::Error(error), |traced, run, zodb| {
        assert_eq!(run.code, 0, "{run:?}");
        check_unreachable(traced, run, zodb);
    });
}

/// Makes a call fail, and all later ones of its name. The pass may have read everything before,
/// and it may not need the files around the master.
fn survives_a_master_that_is_lost(subject: Subject, error: &'static str) {
    let (mut missed, mut all) = (0, 0);
    disturb_for_good(subject, CallFault::Error(error), |traced, run, zodb| {
        all += 1;
        missed += u32::from(run.code == 12);
        check_unreachable(traced, run, zodb);
    });
    assert!(missed * 5 > all * 2, "it was missed in {missed} of {all}");
}

/// The master may be unreachable. The slave is unchanged or contains some more transactions. A
/// full copy waits for the next pass.
fn check_unreachable(traced: &TracedCase, run: &Run, zodb: &mut Zodb) {
    match run.code {
        0 => {}
        12 => {
            let line = run.stderr.lines().last().unwrap();
            let master = traced.case.scene.master.parent().unwrap();
            assert!(line.contains(master.to_str().unwrap()), "{run:?}");
            assert!(line.contains("os error"), "the cause: {run:?}");
        }
        _ => panic!("{run:?}"),
    }
    check_slave(traced, run, zodb);
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident, $target:ident;)*) => {
        /// The actors of these tests.
        pub const SUBJECTS: &[Subject] = &[$(
            Subject { scenario: &scenario::$scenario, target: Target::$target }
        ),*];

        $(
            mod $name {
                use super::*;

                const SUBJECT: Subject = Subject {
                    scenario: &scenario::$scenario,
                    target: Target::$target,
                };

                #[test]
                fn survives_an_io_error() {
                    survives_an_error(SUBJECT, "EIO");
                }

                #[test]
                fn survives_a_stale_handle() {
                    survives_an_error(SUBJECT, "ESTALE");
                }

                #[test]
                fn survives_a_master_that_is_lost() {
                    super::survives_a_master_that_is_lost(SUBJECT, "ESTALE");
                }

                #[test]
                fn survives_interruptions() {
                    interrupt(SUBJECT, check_slave);
                }
            }
        )*
    };
}

disturbed! {
    an_append_from_a_mount: APPEND, Master;
    a_full_copy_from_a_mount: FULL_COPY, MasterDirectory;
    an_append_from_a_server: APPEND, Server;
    a_full_copy_from_a_server: FULL_COPY, Server;
}
