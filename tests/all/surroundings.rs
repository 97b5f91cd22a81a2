//! The surroundings of a master: swapped arguments, storages and blobs that are not copied,
//! and a ZEO that writes to a file which is no longer the master.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::decision_table::{grow, remove_sidecar};
use crate::sshd::Sshd;
use crate::support::{
    History, Holder, Run, Scene, Transport, Zodb, fssync, must, names, python, replace,
    rewrite_end, run, snapshot,
};

/// A pass between these paths, with these options.
fn pass(options: &[&str], master: &Path, slave: &Path) -> Run {
    run(fssync().args(options).arg("--json").arg(master).arg(slave))
}

/// A pass with the master's directory as its argument; over ssh, all of the directory is
/// served.
fn from_directory(transport: Transport, scene: &Scene, options: &[&str]) -> Command {
    let directory = scene.master.parent().expect("a directory");
    let mut command = fssync();
    command.args(options);
    if transport == Transport::Ssh {
        let sshd = Sshd::get();
        command.args(["-e", sshd.quick_rsh(), "--remote-fssync"]);
        command
            .arg(env!("CARGO_BIN_EXE_fssync"))
            .arg(sshd.url(directory));
    } else {
        command.arg(directory);
    }
    command.arg(&scene.slave);
    command
}

fn warnings(run: &Run) -> Vec<String> {
    let report = run.report();
    let warnings = report["warnings"].as_array().expect("warnings").iter();
    let text = |warning: &Value| warning.as_str().expect("a sentence").to_owned();
    warnings.map(text).collect()
}

#[test]
fn swapped_arguments_are_refused_and_nothing_is_created() {
    for transport in Transport::BOTH {
        let mut swapped = Scene::synced(History::get());
        std::mem::swap(&mut swapped.master, &mut swapped.slave);
        let live = swapped.slave.clone();
        let directory = live.parent().unwrap();
        let before = snapshot(directory);
        for options in [&[][..], &["-n"], &["-q"]] {
            let refused = run(&mut from_directory(transport, &swapped, options)).expect(2);
            assert!(refused.stderr.contains("swap the two"), "{refused:?}");
        }
        assert!(snapshot(directory) == before, "{transport:?}");
    }
}

/// A pass that was interrupted or mistyped has left its lock file.
#[test]
fn swapped_arguments_are_refused_until_a_pass_has_ended_well() {
    let mut swapped = Scene::synced(History::get());
    std::mem::swap(&mut swapped.master, &mut swapped.slave);
    fs::write(swapped.beside(".fssync-pass"), "").unwrap();
    let directory = swapped.slave.parent().unwrap();
    let before = snapshot(directory);
    for options in [&["-n"][..], &[], &["-q"]] {
        let refused = swapped.pass(options).expect(2);
        assert!(refused.stderr.contains("swap the two"), "{refused:?}");
        assert!(snapshot(directory) == before, "{options:?}");
    }
    // A refused pass of another master has left a sidecar.
    fs::write(swapped.beside(".fssync"), r#"{"left":null,"pass":null}"#).unwrap();
    for options in [&["-n"][..], &[]] {
        let refused = swapped.pass(options).expect(2);
        assert!(refused.stderr.contains("swap the two"), "{refused:?}");
    }
    swapped.pass(&["--full"]).expect(0);
    // From now on it is the slave.
    fs::remove_file(swapped.beside(".fssync-pass")).unwrap();
    swapped.pass(&[]).expect(0);
}

#[test]
fn a_slave_that_is_the_master_is_refused_and_nothing_is_created() {
    let scene = Scene::with_master("commits");
    let directory = scene.master.parent().unwrap();
    let link = directory.join("link.fs");
    fs::hard_link(&scene.master, &link).unwrap();
    let empty = directory.join("empty");
    fs::create_dir(&empty).unwrap();
    let before = snapshot(directory);
    let missing = directory.join("missing.fs");
    for slave in [&scene.master, &directory.to_owned(), &link] {
        for options in [&[][..], &["-n"], &["--full"], &["-q", "--watch"]] {
            for master in [&scene.master, &directory.to_owned()] {
                let refused = run(fssync().args(options).args([master, slave])).expect(2);
                assert!(refused.stderr.contains("the master itself"), "{refused:?}");
                assert!(snapshot(directory) == before, "{options:?} {slave:?}");
            }
        }
    }
    for same in [&missing, &empty] {
        for options in [&[][..], &["-q", "--watch"]] {
            let refused = run(fssync().args(options).args([same, same])).expect(2);
            assert!(refused.stderr.contains("the master itself"), "{refused:?}");
            assert!(snapshot(directory) == before, "{options:?} {same:?}");
            assert_eq!(names(&empty), [""; 0]);
        }
    }
}

#[test]
fn a_copy_of_a_copy_is_allowed() {
    let scene = Scene::synced(History::get());
    let third = scene.directory.path().join("third");
    fs::create_dir(&third).unwrap();
    pass(&[], &scene.slave, &third).expect(0);
    // The same with a slave that is seeded by hand.
    fs::remove_dir_all(&third).unwrap();
    fs::create_dir(&third).unwrap();
    fs::copy(&scene.slave, third.join("Data.fs")).unwrap();
    let seeded = pass(&[], &scene.slave, &third).expect(0).report();
    assert_eq!(seeded["action"], "up-to-date");
    // And from the end of the chain to a copy of its start.
    let twin = scene.directory.path().join("twin.fs");
    fs::copy(&scene.master, &twin).unwrap();
    pass(&[], &third, &twin).expect(0);
}

#[test]
fn a_failback_is_not_mistaken_for_swapped_arguments() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let forced = pass(&["--whole"], &scene.slave, &scene.master).expect(0);
    assert_eq!(forced.report()["action"], "full-copy");

    let scene = Scene::synced(History::get());
    grow(&scene, &mut zodb);
    let appended = pass(&[], &scene.slave, &scene.master).expect(0);
    assert_eq!(appended.report()["action"], "append");
    zodb.assert_in_sync(&scene.slave, &scene.master);

    // The roles are exchanged for good, and nothing was written yet.
    let scene = Scene::synced(History::get());
    zodb.call(&json!({"cmd": "open", "name": "z", "path": scene.slave}));
    pass(&[], &scene.slave, &scene.master).expect(0);
    zodb.call(&json!({"cmd": "close", "name": "z"}));
}

#[test]
fn a_first_pass_does_not_touch_a_slave_that_is_served() {
    let scene = Scene::synced(History::get());
    remove_sidecar(&scene);
    for lock in [".fssync-pass", ".fssync-step"] {
        fs::remove_file(scene.beside(lock)).unwrap();
    }
    let _zeo = Holder::of(&scene.beside(".lock"));
    let directory = scene.slave.parent().unwrap();
    let before = snapshot(directory);
    scene.pass(&[]).expect(13);
    assert!(snapshot(directory) == before);
}

/// The line that a pass with `-q` prints, if any.
fn quiet_line(scene: &Scene) -> String {
    one_line(&mut scene.command(&["-q"]))
}

fn one_line(command: &mut Command) -> String {
    let run = run(command).expect(0);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.lines().count() <= 1, "{run:?}");
    run.stderr
}

#[test]
fn other_storages_are_reported_once() {
    let history = History::get();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history);
        let beside = |name: &str| scene.master.with_file_name(name);
        for name in ["sessions.fs", "zodb.catalog.fs", "Data.fs.old", "notes.txt"] {
            fs::write(beside(name), "FS30").unwrap();
        }
        fs::create_dir(beside("directory.fs")).unwrap();
        let quiet_line = || one_line(&mut from_directory(transport, &scene, &["-q"]));
        // One of them has a slave.
        fs::write(scene.slave.with_file_name("sessions.fs.fssync"), "{}").unwrap();
        assert_eq!(
            quiet_line(),
            "",
            "a pass that only follows the master does not look"
        );
        replace(&scene.master, &history.before);
        let line = quiet_line();
        assert!(line.contains("\"zodb.catalog.fs\""), "{line}");
        assert!(
            !line.contains("sessions") && !line.contains("old"),
            "{line}"
        );
        replace(&scene.master, &history.before);
        assert_eq!(quiet_line(), "", "it was reported before");
        let status = scene.status_against().expect(0).report();
        let printed = status["warnings"].as_array().unwrap();
        assert_eq!(printed.len(), 1, "{status}");
        fs::write(beside("another.fs"), "FS30").unwrap();
        let full = run(&mut from_directory(
            transport,
            &scene,
            &["--full", "--json"],
        ))
        .expect(0);
        assert_eq!(warnings(&full).len(), 1, "{full:?}");
        assert!(warnings(&full)[0].contains("\"another.fs\""), "{full:?}");
        for name in ["1.fs", "2.fs", "3.fs", "4.fs", "5.fs", "6.fs"] {
            fs::write(beside(name), "FS30").unwrap();
        }
        let status = scene.status_against().expect(0).report();
        let warning = status["warnings"][0].as_str().unwrap();
        assert!(warning.contains("\"5.fs\" and 3 more; "), "{warning}");
        assert!(!warning.contains("another"), "{warning}");
    }
}

/// Commits an object with ZODB, as a blob or not.
fn commit(path: &Path, blobs: &Path, is_blob: bool) {
    let script = "import sys, transaction\n\
                  from ZODB import DB\n\
                  from ZODB.blob import Blob\n\
                  from ZODB.FileStorage import FileStorage\n\
                  db = DB(FileStorage(sys.argv[1], blob_dir=sys.argv[2]))\n\
                  root = db.open().root()\n\
                  root[len(root)] = Blob(b'data') if sys.argv[3] == 'True' else 'text'\n\
                  transaction.commit()\n\
                  db.close()\n";
    let mut command = Command::new(python());
    command
        .args(["-W", "ignore", "-c", script])
        .arg(path)
        .arg(blobs);
    must(command.arg(if is_blob { "True" } else { "False" }));
}

#[test]
fn blobs_are_reported_once() {
    let mut scene = Scene::new();
    let blobs = scene.master.with_file_name("blobs");
    commit(&scene.master, &blobs, false);
    assert_eq!(quiet_line(&scene), "");
    commit(&scene.master, &blobs, false);
    assert_eq!(quiet_line(&scene), "");
    commit(&scene.master, &blobs, true);
    assert!(quiet_line(&scene).contains("refers to blobs"));
    commit(&scene.master, &blobs, true);
    assert_eq!(quiet_line(&scene), "");
    // A first copy finds them too.
    scene.slave = scene.slave.with_file_name("other.fs");
    assert!(quiet_line(&scene).contains("refers to blobs"));
    // Whoever gives `--no-blobs` knows of them.
    scene.slave = scene.slave.with_file_name("declined.fs");
    let pass = run(&mut scene.command(&["-q", "--no-blobs"])).expect(0);
    assert_eq!(pass.stderr, "");
    let status = run(&mut scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["blobs_replicated"], false, "{status}");
}

/// What happens to the old master when another file replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldSlave {
    Deleted,
    Renamed,
}

#[test]
fn a_zeo_that_writes_to_a_replaced_master_is_reported() {
    let history = History::get();
    for (transport, old) in [
        (Transport::Path, OldSlave::Deleted),
        (Transport::Path, OldSlave::Renamed),
        (Transport::Ssh, OldSlave::Deleted),
        (Transport::Ssh, OldSlave::Renamed),
    ] {
        let scene = Scene::synced(history).over(transport);
        let mut zeo = Zodb::start();
        zeo.call(&json!({"cmd": "open", "name": "live", "path": scene.master}));
        assert_eq!(
            scene.status_against().expect(0).report()["verdict"],
            "in-sync"
        );
        // A failback puts another file in the place of the master.
        let backup = scene.master.with_file_name("Data.fs.before-failback");
        if old == OldSlave::Renamed {
            fs::rename(&scene.master, backup).unwrap();
        }
        replace(&scene.master, &history.before);
        zeo.call(&json!({"cmd": "commit", "name": "live"}));
        let status = scene.status_against().expect(20).report();
        assert_eq!(status["verdict"], "unknown", "{status}");
        let pid = format!("process {} writes to", zeo.pid());
        assert!(
            status["failover"].as_str().unwrap().contains(&pid),
            "{status}"
        );
        let line = quiet_line(&scene);
        assert!(line.contains(&pid), "{transport:?} {old:?}: {line}");
        let handle = line.split("copy /proc/").nth(1).expect("where it is");
        let handle = PathBuf::from("/proc").join(handle.split(' ').next().unwrap());
        let kept = fs::read(handle).expect("the only copy");
        assert!(kept.len() > history.before.len() && kept.starts_with(&history.before));
        zeo.call(&json!({"cmd": "close", "name": "live"}));
        scene.status_against().expect(0);
    }
}

#[test]
fn a_zeo_that_packs_its_file_is_not_reported() {
    let scene = Scene::synced(History::get());
    let mut zeo = Zodb::start();
    zeo.call(&json!({"cmd": "open", "name": "live", "path": scene.master}));
    for _ in 0..3 {
        zeo.call(&json!({"cmd": "commit", "name": "live"}));
        zeo.call(&json!({"cmd": "pack", "name": "live", "keep": 0}));
        let status = scene.status_against();
        assert_eq!(status.report()["warnings"], json!([]), "{status:?}");
        let packed = scene.pass(&[]).expect(0);
        assert!(!packed.stderr.contains("writes to"), "{packed:?}");
    }
    let left = names(scene.master.parent().unwrap());
    assert!(left.contains(&"Data.fs.old".to_owned()), "{left:?}");
    // A backup that reads an old file does not write to it.
    let old = fs::File::open(&scene.master).unwrap();
    rewrite_end(&scene.master, &fs::read(&scene.master).unwrap());
    replace(&scene.master, &fs::read(&scene.master).unwrap());
    zeo.call(&json!({"cmd": "close", "name": "live"}));
    assert_eq!(scene.status_against().report()["warnings"], json!([]));
    drop(old);
}

#[test]
fn a_refusal_asks_first_whether_the_arguments_are_swapped() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    // The live master is given as the slave, and its copy as the master. Without the sidecar,
    // nothing shows which is the copy.
    remove_sidecar(&scene);
    let swapped = run(fssync().arg(&scene.slave).arg(&scene.master)).expect(20);
    let hint = swapped.stderr.find("swapped").expect("a question");
    let full = swapped.stderr.find("--full").expect("advice");
    assert!(hint < full, "{swapped:?}");
    assert_eq!(fs::read(&scene.master).unwrap(), history.after);
    zodb.check(&scene.master);
}
