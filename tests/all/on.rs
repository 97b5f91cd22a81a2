//! `fssync on` checks the slave first: its findings, its output, and that it does not write
//! the switch if it refuses.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::support::{
    History, Holder, Run, Scene, Zodb, append_killed_at_sync, fssync, rewrite_end, run, spawn,
    strace, wait_for,
};

const ON: &str = "SYNCING=1\n";
const OFF: &str = "SYNCING=0\n";

fn on(scene: &Scene, options: &[&str]) -> Run {
    run(fssync().arg("on").args(options).arg(&scene.slave))
}

fn switch(scene: &Scene) -> Option<String> {
    fs::read_to_string(scene.beside(".fssync-switch")).ok()
}

/// A slave in sync, switched off.
fn switched_off() -> Scene {
    let scene = Scene::synced(History::get());
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    scene
}

/// ZODB opens the slave, commits `times` times and closes it; returns the tids.
fn grow(scene: &Scene, times: u32) -> Vec<String> {
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    let tids = (0..times).map(|_| {
        let tid = &zodb.call(&json!({"cmd": "commit", "name": "s"}))["tid"];
        tid.as_str().unwrap().to_owned()
    });
    let tids = tids.collect();
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    tids
}

/// Fails unless `on` does not write the switch, and with `--force` does.
#[track_caller]
fn assert_refused(scene: &Scene, code: i32) -> Run {
    let before = switch(scene);
    let refused = on(scene, &[]).expect(code);
    assert_eq!(switch(scene), before, "{refused:?}");
    assert_eq!(refused.stdout, "");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    assert!(
        refused.stderr.trim_end().ends_with(')'),
        "with a hint: {refused:?}"
    );
    on(scene, &["--force"]).expect(0);
    assert_eq!(switch(scene).as_deref(), Some(ON));
    refused
}

/// Fails unless `on` switches syncing on and prints one line.
#[track_caller]
fn assert_switched_on(scene: &Scene) {
    let done = on(scene, &[]).expect(0);
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    assert_eq!(switch(scene).as_deref(), Some(ON));
}

#[test]
fn an_unchanged_slave_is_switched_on() {
    let scene = switched_off();
    assert_switched_on(&scene);
    assert_switched_on(&scene);
}

#[test]
fn a_missing_or_empty_slave_is_switched_on() {
    let scene = switched_off();
    for bytes in [&b""[..], b"FS30"] {
        fs::write(&scene.slave, bytes).unwrap();
        assert_switched_on(&scene);
    }
    fs::remove_file(&scene.slave).unwrap();
    assert_switched_on(&scene);
}

#[test]
fn a_slave_in_use_is_not_switched_on_and_not_locked() {
    let scene = switched_off();
    let lock = scene.beside(".lock");
    let holder = Holder::of(&lock);
    let run = assert_refused(&scene, 13);
    let by = format!("is in use by process {}", holder.pid());
    assert!(run.stderr.contains(&by), "{run:?}");
    drop(holder);
    fs::remove_file(&lock).unwrap();
    assert_switched_on(&scene);
    assert!(!lock.exists(), "ZODB's lock file was created");
}

#[test]
fn a_slave_in_use_that_was_on_stays_on() {
    let scene = Scene::synced(History::get());
    let holder = Holder::of(&scene.beside(".lock"));
    on(&scene, &[]).expect(13);
    assert_eq!(switch(&scene), None);
    on(&scene, &["--force"]).expect(0);
    on(&scene, &[]).expect(13);
    assert_eq!(switch(&scene).as_deref(), Some(ON));
    drop(holder);
}

#[test]
fn a_slave_that_has_grown_is_not_switched_on() {
    for (times, message) in [(1, "1 transaction, first"), (3, "3 transactions, first")] {
        let scene = switched_off();
        let tids = grow(&scene, times);
        let run = assert_refused(&scene, 20);
        assert!(
            run.stderr.contains("has grown since last syncing"),
            "{run:?}"
        );
        assert!(run.stderr.contains(message), "{run:?}");
        for tid in [&tids[0], tids.last().unwrap()] {
            assert!(run.stderr.contains(&format!("{tid} (20")), "{run:?}");
        }
        scene.pass(&[]).expect(20);
        // Fail back: the slave is copied to the master.
        fs::copy(&scene.slave, &scene.master).unwrap();
        scene.expect("up-to-date");
        assert_switched_on(&scene);
    }
}

#[test]
fn a_slave_that_was_packed_is_not_switched_on() {
    let scene = switched_off();
    let tids = grow(&scene, 2);
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    assert_eq!(
        zodb.call(&json!({"cmd": "pack", "name": "s", "keep": 2}))["packed"],
        true
    );
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    let run = assert_refused(&scene, 20);
    assert!(
        run.stderr.contains("was changed since the last pass"),
        "{run:?}"
    );
    let message = format!("2 transactions, first {}", tids[0]);
    assert!(run.stderr.contains(&message), "{run:?}");
    assert!(run.stderr.contains(&format!("last {}", tids[1])), "{run:?}");
}

#[test]
fn a_different_slave_is_not_switched_on_and_newer_transactions_are_reported() {
    let history = History::get();
    let scene = switched_off();
    rewrite_end(
        &scene.slave,
        b"FS30 and no more than this, without a transaction",
    );
    let run = assert_refused(&scene, 20);
    assert!(
        run.stderr.contains("newer than the last pass: unknown"),
        "{run:?}"
    );

    let scene = switched_off();
    let mut bytes = history.before.clone();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&scene.slave, &bytes).unwrap();
    let run = assert_refused(&scene, 20);
    assert!(
        run.stderr
            .contains("newer than the last pass: no transaction"),
        "{run:?}"
    );
}

#[test]
fn an_unfinished_or_torn_tail_does_not_count_as_a_change() {
    let history = History::get();
    for sync in [1, 2] {
        assert_switched_on(&append_killed_at_sync(sync));
    }
    let torn = [
        &history.voted[history.before.len()..][..30],
        &history.voted[history.after.len()..],
        b"whatever",
    ];
    for tail in torn {
        let scene = switched_off();
        fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
        assert_switched_on(&scene);
    }
}

#[test]
fn an_unrecorded_batch_is_reported_as_possibly_the_masters() {
    let history = History::get();
    // The third sync is that of the true status.
    let scene = append_killed_at_sync(3);
    assert!(fs::read(&scene.slave).unwrap() == history.after);
    let run = assert_refused(&scene, 20);
    assert!(run.stderr.contains("may be the master's too"), "{run:?}");
    scene.expect("up-to-date");
    assert_switched_on(&scene);
}

#[test]
fn an_unrecorded_single_transaction_is_recognised() {
    let scene = Scene::synced(History::get());
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    zodb.call(&json!({"cmd": "commit", "name": "m"}));
    let slave = fs::canonicalize(&scene.slave).unwrap();
    let kill = ["-e", "inject=fdatasync:signal=SIGKILL:when=3"];
    run(strace(&kill, &[slave]).args([&scene.master, &scene.slave]));
    assert!(fs::read(&scene.slave).unwrap() == fs::read(&scene.master).unwrap());
    assert_switched_on(&scene);
    scene.expect("up-to-date");
}

#[test]
fn on_waits_for_a_pass_that_is_about_to_end() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let slave = fs::canonicalize(&scene.slave).unwrap();
    // The sync of the true status takes a second.
    let delay = ["-e", "inject=fdatasync:delay_enter=1s:when=3"];
    let mut slow = strace(&delay, &[slave]);
    let mut pass = spawn(
        slow.args([&scene.master, &scene.slave])
            .stderr(Stdio::null()),
    );
    wait_for("finished batch", || {
        fs::read(&scene.slave).unwrap() == history.after
    });
    on(&scene, &[]).expect(0);
    assert!(pass.wait().unwrap().success());
}

#[test]
fn on_waits_for_a_pass_that_records_its_batch_slowly() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    // Each rename of a new sidecar takes three seconds.
    let delay = ["-e", "inject=rename:delay_enter=3s"];
    let mut slow = strace(&delay, &[scene.beside(".fssync-new")]);
    let mut pass = spawn(
        slow.args([&scene.master, &scene.slave])
            .stderr(Stdio::null()),
    );
    wait_for("finished batch", || {
        fs::read(&scene.slave).unwrap() == history.after
    });
    on(&scene, &[]).expect(0);
    assert!(pass.wait().unwrap().success());
}

#[test]
fn a_missing_sidecar_is_reported() {
    let scene = switched_off();
    fs::remove_file(scene.beside(".fssync")).unwrap();
    let done = on(&scene, &[]).expect(0);
    assert!(
        done.stdout.contains("no pass has recorded the contents"),
        "{done:?}"
    );
    assert_eq!(switch(&scene).as_deref(), Some(ON));
    scene.expect("up-to-date");
    assert_switched_on(&scene);
}

#[test]
fn a_slave_that_cannot_be_checked_is_not_switched_on() {
    let scene = switched_off();
    fs::remove_file(scene.beside(".fssync")).unwrap();
    fs::create_dir(scene.beside(".fssync")).unwrap();
    on(&scene, &[]).expect(1);
    assert_eq!(switch(&scene).as_deref(), Some(OFF));
    on(&scene, &["--force"]).expect(0);
}

#[test]
fn a_pass_does_not_accept_force() {
    switched_off().pass(&["--force"]).expect(2);
}
