//! Does the harness find mistakes? One of the actors is faulty. At least one of the schedules in
//! which the first actor is preempted once must be found, and for the right reason.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::schedule::Schedule;
use super::{COMMITS, Entrant, Harness, OFF, OPENS, PASS, Race, SERVES, STAYS, VERIFY};
use crate::crash::actor::Actor;
use crate::crash::scenario;
use crate::support::said_by;

/// A program that can take the slave's locks, and add the blobs and transactions that are missing.
macro_rules! script {
    ($($line:literal)*) => { concat!(
        "import fcntl, os, shutil, sys, time\n",
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
        "def place():\n",
        "    theirs, ours = (os.path.dirname(it) + '/blobstorage' for it in (master, slave))\n",
        "    for directory, _, names in os.walk(theirs):\n",
        "        to = ours + directory[len(theirs):]\n",
        "        os.makedirs(to, exist_ok=True)\n",
        "        for name in names:\n",
        "            if not os.path.exists(to + '/' + name):\n",
        "                shutil.copy2(directory + '/' + name, to)\n",
        $($line, "\n",)*
    ) };
}

/// Preempts the first actor once, after each of its calls, until a check fails with this message.
fn assert_found(race: &Race<'_>, message: &str) {
    let mut harness = Harness::start();
    for calls in 1.. {
        let schedule = Schedule::of_one(0, calls);
        let ran = catch_unwind(AssertUnwindSafe(|| harness.run(race, &schedule)));
        match ran {
            Ok(lens) => assert!(lens[0] > calls, "not found"),
            Err(panic) => return assert!(said_by(&*panic).contains(message), "{message}"),
        }
    }
}

const fn faulty(script: &'static str, actor: &'static Actor) -> Entrant {
    Entrant::new(Actor::Faulty(script, actor))
}

#[test]
fn a_pass_without_a_lock_is_found() {
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[faulty(script!("append()"), &PASS.actor), SERVES],
    };
    assert_found(&race, "written to while ZODB had it open");
}

#[test]
fn a_pass_without_zodbs_lock_is_found() {
    let script = script!("step = take('.fssync-step')" "append()");
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[faulty(script, &PASS.actor), COMMITS],
    };
    assert_found(&race, "written to while ZODB had it open");
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
        actors: &[faulty(script, &PASS.actor), OFF],
    };
    assert_found(&race, "written after Off");
}

#[test]
fn a_pass_that_places_blobs_outside_a_step_is_found() {
    let script = script!(
        "is_off = lambda: os.path.exists(slave + '.fssync-switch')"
        "if is_off(): sys.exit(10)"
        "place()"
        "step = take('.fssync-step')"
        "if is_off(): sys.exit(10)"
        "zodb = take('.lock')"
        "append()"
    );
    let places_only = script!("place()" "sys.exit(13)");
    for (script, other, message) in [
        (script, OFF, "blobs changed after Off"),
        (places_only, STAYS, "blobs changed while ZODB had them open"),
    ] {
        let race = Race {
            scenario: &scenario::APPEND_WITH_BLOBS,
            actors: &[faulty(script, &PASS.actor), other],
        };
        assert_found(&race, message);
    }
}

#[test]
fn an_off_that_does_not_wait_for_a_step_is_found() {
    let script = script!("open(slave + '.fssync-switch', 'w').write('SYNCING=0\\n')");
    let off = faulty(script, &OFF.actor);
    for (actors, message) in [
        (&[PASS, off][..], "after Off"),
        (&[PASS, off, SERVES.after(1)], "its lock is held"),
    ] {
        let scenario = &scenario::APPEND;
        assert_found(&Race { scenario, actors }, message);
    }
}

#[test]
fn a_full_copy_that_leaves_a_moment_without_a_slave_is_found() {
    let script = script!(
        "step = take('.fssync-step')"
        "open(slave + '.fssync-tmp', 'wb').write(new)"
        "os.rename(slave, slave + '.diverged-0')"
        "os.rename(slave + '.fssync-tmp', slave)"
        "os.remove(slave + '.index')"
    );
    let race = Race {
        scenario: &scenario::FULL_COPY_AND_SET_ASIDE,
        actors: &[faulty(script, &PASS.actor), OPENS],
    };
    assert_found(&race, "not a transaction boundary");
}

#[test]
fn a_verify_that_takes_zodbs_lock_is_found() {
    let script = script!(
        "lock = open(slave + '.lock', 'a')"
        "try: fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)"
        "except BlockingIOError: pass"
    );
    let race = Race {
        scenario: &scenario::APPEND,
        actors: &[faulty(script, &VERIFY.actor), SERVES],
    };
    assert_found(&race, "it cannot be opened");
}
