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
        "def release(*locks):\n",
        "    for held in locks: fcntl.flock(held, fcntl.LOCK_UN)\n",
        "def is_off():\n",
        "    return os.path.exists(slave + '.fssync-switch')\n",
        "def install():\n",
        "    with open(slave + '.fssync-tmp', 'wb') as to: to.write(new)\n",
        "    os.rename(slave + '.fssync-tmp', slave)\n",
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
        "was_off = is_off()"
        "step = take('.fssync-step')"
        "zodb = take('.lock')"
        "if was_off: sys.exit(10)"
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
fn a_first_copy_that_is_visible_before_its_blobs_is_found() {
    let script = script!(
        "step = take('.fssync-step')"
        "if is_off(): sys.exit(10)"
        "zodb = take('.lock')"
        "install()"
        "release(zodb, step)"
        "step = take('.fssync-step')"
        "if is_off(): sys.exit(10)"
        "zodb = take('.lock')"
        "place()"
    );
    let race = Race {
        scenario: &scenario::FIRST_COPY_WITH_BLOBS,
        actors: &[faulty(script, &PASS.actor), OFF],
    };
    assert_found(&race, "transactions without a blob directory");
}

#[test]
fn a_full_copy_that_is_installed_before_the_old_blobs_are_set_aside_is_found() {
    let script = script!(
        "old = open(slave, 'rb').read()"
        "tid = old[len(old) - 8 - int.from_bytes(old[-8:], 'big'):][:8].hex()"
        "step = take('.fssync-step')"
        "if is_off(): sys.exit(10)"
        "zodb = take('.lock')"
        "place()"
        "os.link(slave, slave + '.diverged-' + tid)"
        "os.remove(slave + '.index')"
        "install()"
        "release(zodb, step)"
        "step = take('.fssync-step')"
        "if is_off(): sys.exit(10)"
        "zodb = take('.lock')"
        "blobs = os.path.dirname(slave) + '/blobstorage'"
        "shutil.copytree(blobs, blobs + '/.fssync/aside-' + tid, copy_function=os.link,"
        "    ignore=shutil.ignore_patterns('.fssync'))"
    );
    let race = Race {
        scenario: &scenario::FULL_COPY_WITH_BLOBS_AND_SET_ASIDE,
        actors: &[faulty(script, &PASS.actor), OFF],
    };
    assert_found(&race, "the old slave has no blobs");
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
        "os.rename(slave, slave + '.diverged-0')"
        "install()"
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
