//! Does the harness find what is wrong? One of the cast does something wrong: of the
//! schedules in which the first is preempted once, one must be told of, and for what it is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::schedule::Schedule;
use super::{Harness, PASS, zodb, zodb_behind};
use crate::crash::actor::Actor::{Off, Verify};
use crate::crash::actor::Session::{CommitAndClose, CommitAndStay, OpenAndClose};
use crate::crash::actor::{Actor, Race};
use crate::crash::scenario;
use crate::support::said_by;

/// A program that can take the slave's locks and append what the master has more.
macro_rules! script {
    ($($line:literal)*) => { concat!(
        "import fcntl, os, sys, time\n",
        "master, slave = sys.argv[1:]\n",
        "new = open(master, 'rb').read()\n",
        "def take(suffix, how=fcntl.LOCK_EX):\n",
        "    held = open(slave + suffix, 'a')\n",
        "    while True:\n",
        "        try: fcntl.flock(held, how | fcntl.LOCK_NB)\n",
        "        except BlockingIOError: time.sleep(0.001)\n",
        "        else: return held\n",
        "def append():\n",
        "    with open(slave, 'r+b', buffering=0) as to:\n",
        "        at = to.seek(0, 2)\n",
        "        to.write(new[at:at + 300])\n",
        "        to.write(new[at + 300:])\n",
        $($line, "\n",)*
    ) };
}

/// Fails unless something is told, with these words, where the first of the cast is
/// preempted once.
fn assert_found(race: &Race<'_>, words: &str) {
    let mut harness = Harness::open();
    for calls in 1.. {
        let schedule = Schedule::of_one(0, calls);
        let ran = catch_unwind(AssertUnwindSafe(|| harness.run(race, &schedule)));
        match ran {
            Ok(lens) => assert!(lens[0] > calls, "nothing is found"),
            Err(panic) => return assert!(said_by(&*panic).contains(words), "{words}"),
        }
    }
}

#[test]
fn a_pass_without_a_lock_is_found() {
    let faulty = Actor::Faulty(script!("append()"), &PASS);
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[faulty, zodb(CommitAndStay)],
    };
    assert_found(&race, "written to, which ZODB had");
}

#[test]
fn a_pass_without_zodbs_lock_is_found() {
    let script = script!("step = take('.fssync-step')" "append()");
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[Actor::Faulty(script, &PASS), zodb(CommitAndClose)],
    };
    assert_found(&race, "written to, which ZODB had");
}

#[test]
fn a_pass_that_reads_the_switch_before_its_step_is_found() {
    let script = script!(
        "is_off = os.path.exists(slave + '.fssync-switch')"
        "step = take('.fssync-step')"
        "zodb = take('.lock')"
        "if is_off: sys.exit(10)"
        "append()"
    );
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[Actor::Faulty(script, &PASS), Off],
    };
    assert_found(&race, "written behind Off");
}

#[test]
fn an_off_that_does_not_wait_for_a_step_is_found() {
    let script = script!("open(slave + '.fssync-switch', 'w').write('SYNCING=0\\n')");
    let off = Actor::Faulty(script, &Off);
    for (actors, words) in [
        (&[PASS, off][..], "behind Off"),
        (&[PASS, off, zodb_behind(1)], "its lock is held"),
    ] {
        let scenario = &scenario::APPEND;
        assert_found(&Race { scenario, actors }, words);
    }
}

#[test]
fn a_full_copy_that_leaves_an_instant_without_a_slave_is_found() {
    let script = script!(
        "step = take('.fssync-step')"
        "open(slave + '.fssync-tmp', 'wb').write(new)"
        "os.rename(slave, slave + '.diverged-0')"
        "os.rename(slave + '.fssync-tmp', slave)"
        "os.remove(slave + '.index')"
    );
    let race = Race {
        scenario: &scenario::FULL_COPY_AND_SET_ASIDE,
        actors: &[Actor::Faulty(script, &PASS), zodb(OpenAndClose)],
    };
    assert_found(&race, "no boundary");
}

#[test]
fn a_verify_that_glances_at_zodbs_lock_is_found() {
    let script = script!(
        "lock = open(slave + '.lock', 'a')"
        "try: fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)"
        "except BlockingIOError: pass"
    );
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[Actor::Faulty(script, &Verify), zodb(CommitAndStay)],
    };
    assert_found(&race, "it cannot be opened");
}
