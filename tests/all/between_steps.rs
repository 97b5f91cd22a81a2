//! Events between two steps of a pass: ZODB opens the slave, the switch changes, one of the
//! files is replaced. Each event is tried at every call that the pass makes of its source, in
//! an append and in a full copy.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fssync::error::Error;
use fssync::pass::PassReport;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;
use fssync::source;
use fssync::source::path::MountedPath;
use serde_json::json;

use crate::faults::Mount;
use crate::support::{
    Call, History, Holder, Hooked, Scene, Zodb, fssync, replace, report_here, require_root,
    rewrite_end, run, run_in_a_pass,
};

/// Several reads per batch, several batches per pass.
const TUNING: Tuning = Tuning {
    chunk_len: 4096,
    batch_len: 10_000,
    blob_batch_len: 2,
};

/// The action of the pass.
#[derive(Clone, Copy, Debug)]
enum Case {
    Append,
    /// The same, and the master ends with a vote.
    AppendBeforeVote,
    FullCopy,
}

const BOTH: [Case; 2] = [Case::Append, Case::FullCopy];

impl Case {
    /// A slave that was in sync, and a master that has changed since.
    fn scene(self) -> Scene {
        let history = History::get();
        let scene = Scene::synced(history);
        match self {
            Self::Append => rewrite_end(&scene.master, &history.after),
            Self::AppendBeforeVote => rewrite_end(&scene.master, &history.voted),
            Self::FullCopy => replace(&scene.master, &history.packed),
        }
        scene
    }
}

/// A pass in this process, with a hook in its source.
fn pass(
    scene: &Scene,
    hook: impl FnMut(Call) -> Result<(), source::Error> + Send + 'static,
) -> PassReport {
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook,
    };
    report_here(&scene.job(source, TUNING))
}

/// The files of a pass, and a ZODB, for an event during the pass.
#[derive(Clone)]
struct Site {
    master: PathBuf,
    slave: PathBuf,
    zodb: Arc<Mutex<Zodb>>,
}

impl Site {
    /// ZODB opens the slave for writing.
    fn open(&self) {
        self.call(&json!({"cmd": "open", "name": "s", "path": self.slave}));
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.slave.display()))
    }

    fn close(&self) {
        self.call(&json!({"cmd": "close", "name": "s"}));
    }

    fn call(&self, command: &serde_json::Value) {
        self.zodb.lock().unwrap().call(command);
    }

    /// Fails unless ZODB finds a prefix of this history in the slave. Returns its position.
    fn assert_prefix_of(&self, history: &[u8], scene: &Scene) -> u64 {
        let found = self.zodb.lock().unwrap().check(&scene.slave);
        let position = found["position"].as_u64().expect("a position");
        let slave = fs::read(&scene.slave).unwrap();
        assert!(slave[..position as usize] == history[..position as usize]);
        position
    }

    /// Fails unless the next pass brings the slave in sync.
    fn assert_heals(&self, scene: &Scene) {
        scene.pass(&[]).expect(0);
        let mut zodb = self.zodb.lock().unwrap();
        zodb.assert_in_sync(&scene.master, &scene.slave);
        zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        scene.assert_documented_names();
    }
}

/// Acts while no step is in progress. The pass reads ahead, so it may be writing while its
/// source is asked.
fn between_steps<T>(act: impl Fn(&Site) -> T) -> impl Fn(&Site) -> T {
    move |site| {
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false);
        let lock = lock.open(site.beside(".fssync-step"));
        let lock = lock.expect("the step lock's file");
        lock.lock().expect("the step lock");
        act(site)
    }
}

/// Makes one pass for each call of its source, acts just before the source answers that call,
/// and checks the result. In the last pass there is no such call, and it must succeed.
fn at_every_call<T: Send + 'static>(
    case: Case,
    act: impl Fn(&Site) -> T + Send + Sync + 'static,
    check: impl Fn(&Scene, &Site, &Outcome, T),
) {
    at_every_call_with_report(case, act, |scene, site, report, result| {
        check(scene, site, &report.outcome, result);
    });
}

/// The same, for a check that needs the whole report.
fn at_every_call_with_report<T: Send + 'static>(
    case: Case,
    act: impl Fn(&Site) -> T + Send + Sync + 'static,
    check: impl Fn(&Scene, &Site, &PassReport, T),
) {
    let zodb = Arc::new(Mutex::new(Zodb::start()));
    let act = Arc::new(act);
    for nth in 0.. {
        let scene = case.scene();
        let site = Site {
            master: scene.master.clone(),
            slave: scene.slave.clone(),
            zodb: Arc::clone(&zodb),
        };
        let acted = Arc::new(Mutex::new(None));
        let hook = {
            let (site, act, acted) = (site.clone(), Arc::clone(&act), Arc::clone(&acted));
            let mut calls = 0;
            move |call| {
                if calls == nth {
                    let mut acted = acted.lock().unwrap();
                    *acted = Some((call, act(&site)));
                }
                calls += 1;
                Ok(())
            }
        };
        let report = pass(&scene, hook);
        let Some((call, result)) = acted.lock().unwrap().take() else {
            assert_eq!(report.outcome.exit, Exit::Success, "{report:?}");
            assert!(nth > 5, "a pass asks its source more than {nth} times");
            return;
        };
        eprintln!("{case:?}, call {nth}, before {call:?}: {report:?}");
        check(&scene, &site, &report, result);
        scene.assert_documented_names();
    }
}

#[test]
fn a_pass_ends_if_zodb_opens_the_slave_and_keeps_it_open() {
    for case in BOTH {
        let open = |site: &Site| {
            site.open();
            fs::read(&site.slave).unwrap()
        };
        at_every_call(case, between_steps(open), |scene, site, outcome, opened| {
            assert_eq!(outcome.exit, Exit::InUse);
            assert!(
                fs::read(&scene.slave).unwrap() == opened,
                "the slave was written while ZODB had it open"
            );
            assert!(!scene.beside(".fssync-tmp").exists());
            scene.pass(&[]).expect(13);
            site.close();
            site.assert_prefix_of(&History::get().after, scene);
            site.assert_heals(scene);
        });
    }
}

#[test]
fn a_pass_surveys_again_after_zodb_opened_and_closed_the_slave() {
    for case in BOTH {
        let visit = |site: &Site| {
            site.open();
            site.close();
        };
        at_every_call(case, between_steps(visit), |scene, site, outcome, ()| {
            assert_eq!(outcome.exit, Exit::Success);
            let mut zodb = site.zodb.lock().unwrap();
            zodb.assert_in_sync(&scene.master, &scene.slave);
            let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
            assert_eq!(opened["position"], outcome.copied.position.unwrap());
        });
    }
}

#[test]
fn a_transaction_committed_to_the_slave_ends_the_pass_and_is_kept() {
    for case in BOTH {
        let grow = |site: &Site| {
            site.open();
            site.call(&json!({"cmd": "commit", "name": "s", "description": "only here"}));
            site.close();
            fs::read(&site.slave).unwrap()
        };
        at_every_call(case, between_steps(grow), |scene, _, outcome, grown| {
            assert_eq!(outcome.exit, Exit::Diverged);
            let reason = &outcome.reason;
            assert!(reason.contains("has grown since last syncing"), "{reason}");
            assert!(reason.contains("only here"), "{reason}");
            assert!(fs::read(&scene.slave).unwrap() == grown);
            scene.pass(&[]).expect(20);
            assert!(fs::read(&scene.slave).unwrap() == grown);
        });
    }
}

#[test]
fn switching_off_ends_the_pass() {
    for case in BOTH {
        let off = |site: &Site| {
            fs::write(site.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
            fs::read(&site.slave).unwrap()
        };
        at_every_call(case, between_steps(off), |scene, site, outcome, seen| {
            assert_eq!(outcome.exit, Exit::Off);
            assert!(
                fs::read(&scene.slave).unwrap() == seen,
                "the slave was written after the switch"
            );
            site.assert_prefix_of(&History::get().after, scene);
            fs::remove_file(scene.beside(".fssync-switch")).unwrap();
            site.assert_heals(scene);
        });
    }
}

#[test]
fn a_zodb_started_after_a_bare_echo_loses_nothing() {
    for case in BOTH {
        // This may also be in the middle of a step.
        let serve = |site: &Site| {
            fs::write(site.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
            let mut zodb = site.zodb.lock().unwrap();
            zodb.open_as_supervised(&site.slave);
            zodb.call(&json!({"cmd": "commit", "name": "s", "description": "only here"}));
            fs::read(&site.slave).unwrap()
        };
        at_every_call(case, serve, |scene, site, outcome, serving| {
            assert!(matches!(outcome.exit, Exit::Off | Exit::InUse));
            assert!(
                fs::read(&scene.slave).unwrap() == serving,
                "the slave was written"
            );
            scene.pass(&[]).expect(10);
            site.close();
            fs::remove_file(scene.beside(".fssync-switch")).unwrap();
            scene.pass(&[]).expect(20);
            assert!(
                fs::read(&scene.slave).unwrap() == serving,
                "the slave was overwritten"
            );
        });
    }
}

#[test]
fn off_during_a_pass_leaves_only_whole_transactions() {
    for case in BOTH {
        let off = |site: &Site| {
            run_in_a_pass(fssync().arg("off").arg(&site.slave)).expect(0);
            fs::read(&site.slave).unwrap()
        };
        at_every_call(case, off, |scene, site, outcome, seen| {
            assert_eq!(outcome.exit, Exit::Off);
            assert!(
                fs::read(&scene.slave).unwrap() == seen,
                "the slave was written after off"
            );
            let position = site.assert_prefix_of(&History::get().after, scene);
            assert_eq!(seen.len() as u64, position, "no unfinished tail is left");
            run(fssync().arg("on").arg(&scene.slave)).expect(0);
            site.assert_heals(scene);
        });
    }
}

/// Fails unless the pass ended in sync.
fn assert_made_in_sync(scene: &Scene, site: &Site, outcome: &Outcome) {
    assert_eq!(outcome.exit, Exit::Success);
    let mut zodb = site.zodb.lock().unwrap();
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn a_slave_replaced_by_the_same_bytes_is_surveyed_again() {
    for case in BOTH {
        let act = |site: &Site| replace(&site.slave, &fs::read(&site.slave).unwrap());
        at_every_call(case, between_steps(act), |scene, site, outcome, ()| {
            assert_made_in_sync(scene, site, outcome);
        });
    }
}

#[test]
fn a_slave_that_is_deleted_is_copied_again() {
    for case in BOTH {
        let act = |site: &Site| fs::remove_file(&site.slave).unwrap();
        at_every_call(case, between_steps(act), |scene, site, outcome, ()| {
            assert_made_in_sync(scene, site, outcome);
        });
    }
}

#[test]
fn a_slave_that_is_unmounted_is_not_copied_to_the_mount_point() {
    require_root();
    for case in BOTH {
        let cover = |site: &Site| Mount::empty_in_a_pass(site.slave.parent().unwrap());
        at_every_call_with_report(case, between_steps(cover), |scene, site, report, mount| {
            let mut left = scene.beside_slave();
            // A step may just have waited for its lock.
            left.retain(|name| !["Data.fs.fssync-step", "Data.fs.lock"].contains(&&**name));
            assert_eq!(left, [""; 0], "{report:?}");
            // The pass succeeded without its sidecar, or noticed the mount.
            match report.outcome.exit {
                Exit::Success => assert!(report.record_error.is_some(), "{report:?}"),
                exit => assert_eq!(exit, Exit::Failure),
            }
            drop(mount);
            site.assert_heals(scene);
        });
    }
}

#[test]
fn no_sidecar_is_written_to_a_mount_point() {
    require_root();
    let scene = Scene::synced(History::get());
    let place = SlavePaths::new(&scene.slave).unwrap();
    let sidecar = Sidecar::load(&place).unwrap();
    let mount = Mount::empty_in_a_pass(place.directory());
    let stored = sidecar.store(&place);
    assert!(matches!(stored, Err(Error::Moved { .. })), "{stored:?}");
    assert_eq!(scene.beside_slave(), [""; 0]);
    drop(mount);
    sidecar.store(&place).unwrap();
}

#[test]
fn a_slave_that_is_truncated_is_completed_or_copied_or_refused() {
    for case in BOTH {
        for keep in [0, 2, 4, 30, History::get().before.len() as u64 - 700] {
            let cut = move |site: &Site| {
                let file = File::options().write(true).open(&site.slave).unwrap();
                file.set_len(keep).unwrap();
                fs::read(&site.slave).unwrap()
            };
            at_every_call(case, between_steps(cut), |scene, site, outcome, cut| {
                let is_short = keep <= 30; // Less than a transaction.
                match case {
                    Case::FullCopy if !is_short => {
                        assert_eq!(outcome.exit, Exit::Diverged, "not as we left it");
                        assert!(fs::read(&scene.slave).unwrap() == cut);
                    }
                    _ => assert_made_in_sync(scene, site, outcome),
                }
            });
        }
    }
}

#[test]
fn a_master_that_aborts_its_last_transaction_does_no_harm() {
    let cut = |site: &Site| rewrite_end(&site.master, &History::get().after);
    at_every_call_with_a_vote(cut, assert_made_in_sync);
}

#[test]
fn a_master_that_commits_in_the_place_of_an_aborted_transaction_does_no_harm() {
    let other = |site: &Site| {
        rewrite_end(&site.master, &History::get().after);
        site.call(&json!({"cmd": "open", "name": "m", "path": site.master, "seed": 9}));
        site.call(&json!({"cmd": "commit", "name": "m", "objects": 2, "size": 900}));
        site.call(&json!({"cmd": "abandon", "name": "m"}));
    };
    at_every_call_with_a_vote(other, |scene, site, outcome| {
        assert_eq!(outcome.exit, Exit::Success);
        site.assert_prefix_of(&fs::read(&scene.master).unwrap(), scene);
        site.assert_heals(scene);
    });
}

#[test]
fn a_vote_that_is_finished_during_a_pass_is_copied_by_this_pass_or_the_next() {
    let finish = |site: &Site| {
        let at = History::get().after.len() + 16;
        let mut finished = History::get().voted.clone();
        finished[at] = b' ';
        rewrite_end(&site.master, &finished);
    };
    at_every_call_with_a_vote(finish, |scene, site, outcome| {
        assert_eq!(outcome.exit, Exit::Success);
        site.assert_prefix_of(&fs::read(&scene.master).unwrap(), scene);
        site.assert_heals(scene);
    });
}

/// The master ends with a vote when the pass starts.
fn at_every_call_with_a_vote(
    act: impl Fn(&Site) + Send + Sync + 'static,
    check: impl Fn(&Scene, &Site, &Outcome),
) {
    at_every_call(Case::AppendBeforeVote, act, |scene, site, outcome, ()| {
        check(scene, site, outcome);
    });
}

#[test]
fn a_master_that_is_packed_during_a_pass_is_copied_by_the_next_pass() {
    for case in BOTH {
        let pack = |site: &Site| replace(&site.master, &History::get().packed_away);
        at_every_call(case, pack, |scene, site, outcome, ()| {
            assert_eq!(outcome.exit, Exit::Success);
            site.assert_heals(scene);
        });
    }
}

/// Changes the master's bytes just before the pass confirms them, the first `times` times.
fn change_when_confirmed(scene: &Scene, times: u32) -> Outcome {
    let master = scene.master.clone();
    let mut left = times;
    let report = pass(scene, move |call| {
        if let Call::Confirm(range) = call
            && left > 0
        {
            left -= 1;
            let mut bytes = fs::read(&master).unwrap();
            // In the last pickle of the range, before the length at its end.
            bytes[range.end as usize - 20] ^= 1;
            rewrite_end(&master, &bytes);
        }
        Ok(())
    });
    report.outcome
}

#[test]
fn bytes_that_the_master_does_not_confirm_do_not_become_visible() {
    for case in BOTH {
        let scene = case.scene();
        let before = fs::read(&scene.slave).unwrap();
        let outcome = change_when_confirmed(&scene, u32::MAX);
        assert_eq!(outcome.exit, Exit::Unreachable, "{outcome:?}");
        assert!(fs::read(&scene.slave).unwrap() == before, "{case:?}");
        assert!(!scene.beside(".fssync-tmp").exists());
    }
}

#[test]
fn bytes_that_the_master_has_changed_are_read_again() {
    for case in BOTH {
        let scene = case.scene();
        let outcome = change_when_confirmed(&scene, 1);
        assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
        Zodb::start().assert_in_sync(&scene.master, &scene.slave);
    }
}

#[test]
fn a_second_pass_does_not_disturb_the_first() {
    for case in BOTH {
        let second = |site: &Site| run_in_a_pass(fssync().arg(&site.master).arg(&site.slave));
        at_every_call(case, second, |scene, site, outcome, second| {
            assert_eq!(second.code, 11, "{second:?}");
            let pid = format!("by process {}", std::process::id());
            assert!(second.stderr.contains(&pid), "{second:?}");
            assert_made_in_sync(scene, site, outcome);
        });
    }
}

#[test]
fn the_lock_of_a_killed_pass_is_free() {
    let scene = Case::Append.scene();
    let holder = Holder::of(&scene.beside(".fssync-pass"));
    let busy = scene.pass(&[]).expect(11).report();
    let by = format!("by process {}", holder.pid());
    assert!(busy["reason"].as_str().unwrap().contains(&by), "{busy}");
    drop(holder);
    scene.expect("append");
}
