//! One short test for each bug that was not found by a test.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Exit;
use fssync::source::path::MountedPath;
use serde_json::{Value, json};

use crate::support::{Call, History, Hooked, Scene, Zodb, fssync, pass_here, run, spawn};

/// Changes the slave's sidecar.
fn alter_sidecar(scene: &Scene, alter: impl FnOnce(&mut Value)) {
    let path = scene.beside(".fssync");
    let mut sidecar = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    alter(&mut sidecar);
    fs::write(&path, sidecar.to_string()).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// The master is written so fast that each survey finds the next transaction half written, and
/// each read finds it finished. That is not damage.
#[test]
fn a_master_that_is_always_being_written_is_not_damaged() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let path = scene.master.clone();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": path, "create": true}));
    let mut ends = Vec::new();
    for _ in 0..6 {
        let done = zodb.call(&json!({"cmd": "commit", "name": "m", "size": 2000}));
        ends.push(done["position"].as_u64().unwrap() as usize);
    }
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let whole = fs::read(&scene.master).unwrap();
    // Each read finds another half of a transaction.
    let halves: Vec<_> = ends
        .windows(2)
        .map(|ends| ends[0].midpoint(ends[1]))
        .collect();
    fs::write(&scene.master, &whole[..halves[0]]).unwrap();
    let mut grow = halves[1..]
        .iter()
        .copied()
        .chain([whole.len()])
        .collect::<Vec<_>>();
    grow.reverse();
    let (source, master) = (MountedPath::new(scene.master.clone()), scene.master.clone());
    let hook = move |call: Call| {
        if matches!(call, Call::Read(_))
            && let Some(to) = grow.pop()
        {
            let from = fs::metadata(&master).unwrap().len() as usize;
            append(&master, &whole[from..to]);
        }
        Ok(())
    };
    let job = scene.job(Hooked { path: source, hook }, Tuning::default());
    let outcome = pass_here(&job);
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    zodb.assert_prefix(&scene.master, &scene.slave);
}

/// A damaged transaction that is longer than several chunks of a read. When it is read again,
/// the chunks begin and end elsewhere.
#[test]
fn a_long_transaction_of_the_master_with_a_damaged_end_is_damage() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    let first = zodb.call(&json!({"cmd": "commit", "name": "m", "size": 600_000}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "size": 5_000_000}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let master = OpenOptions::new().write(true).open(&scene.master).unwrap();
    let len = master.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&master, b"damaged.", len - 8).unwrap();
    scene.pass(&[]).expect(30);
    assert_eq!(fs::metadata(&scene.slave).unwrap().len(), first["position"]);
    scene.pass(&[]).expect(30);
    scene.pass(&["--full"]).expect(30);
}

/// The bytes after the slave's position turn from a vote into a transaction, without a change
/// of size or inode.
#[test]
fn a_vote_on_the_slave_that_is_finished_during_a_pass_is_not_truncated() {
    let history = History::get();
    let scene = Scene::synced(history);
    let mut zodb = Zodb::start();
    let slave = scene.slave.clone();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": slave}));
    zodb.call(&json!({"cmd": "vote", "name": "s", "user": "on the slave"}));
    zodb.call(&json!({"cmd": "abandon", "name": "s"}));
    fs::write(&scene.master, &history.after).unwrap();
    let status = history.before.len() as u64 + 16;
    let mut done = false;
    let hook = move |call: Call| {
        if matches!(call, Call::Read(_)) && !std::mem::replace(&mut done, true) {
            let file = OpenOptions::new().write(true).open(&slave).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b" ", status).unwrap();
        }
        Ok(())
    };
    let path = MountedPath::new(scene.master.clone());
    let outcome = pass_here(&scene.job(Hooked { path, hook }, Tuning::default()));
    assert_eq!(outcome.exit, Exit::Diverged, "{outcome:?}");
    assert!(outcome.reason.contains("on the slave"), "{outcome:?}");
    let held = zodb.check(&scene.slave);
    assert!(held["position"].as_u64().unwrap() > history.before.len() as u64);
}

#[test]
fn a_sidecar_without_the_last_tid_does_not_empty_the_slave() {
    let scene = Scene::synced(History::get());
    alter_sidecar(&scene, |sidecar| {
        sidecar["left"]["slave"]["last_tid"] = Value::Null;
    });
    let other = Scene::with_master("site");
    fs::copy(&other.master, &scene.master).unwrap();
    scene.pass(&[]).expect(20);
    assert_eq!(fs::read(&scene.slave).unwrap(), History::get().before);
}

#[test]
fn a_sidecar_that_claims_a_committed_transaction_does_not_truncate_it() {
    let scene = Scene::synced(History::get());
    let header: Vec<u8> = History::get().before[4..27].to_vec();
    alter_sidecar(&scene, |sidecar| {
        sidecar["batch"] = json!({"from": 4, "header": header});
    });
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    assert_eq!(fs::read(&scene.slave).unwrap(), History::get().before);
}

#[test]
fn long_descriptions_do_not_make_the_sidecar_unreadable() {
    let scene = Scene::synced(History::get());
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    let description = "x".repeat(60_000);
    for _ in 0..3 {
        let commit = json!({"cmd": "commit", "name": "s", "description": description});
        zodb.call(&commit);
    }
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    for _ in 0..2 {
        let run = scene.pass(&[]).expect(20);
        assert!(
            run.stderr.contains("has grown since last syncing"),
            "{run:?}"
        );
        assert!(run.stderr.len() < 10_000);
    }
}

#[test]
fn off_succeeds_even_if_its_output_cannot_be_written() {
    let scene = Scene::synced(History::get());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = fssync();
    command
        .arg("off")
        .arg(&scene.slave)
        .stdout(Stdio::from(full));
    let mut process = spawn(&mut command);
    assert_eq!(process.wait().unwrap().code(), Some(0));
    scene.pass(&[]).expect(10);
}
