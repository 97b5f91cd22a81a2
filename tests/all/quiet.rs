//! The output with `--quiet`: nothing while all is well, and one line if a person should know
//! something.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::{
    History, Holder, Run, Scene, as_nobody, fssync, replace, require_root, run, strace, tool,
    wait_for,
};
use crate::watcher::Watcher;

/// Fails unless the only output is one line that contains these parts.
#[track_caller]
fn assert_one_line(run: &Run, parts: &[&str]) {
    assert_eq!(run.stdout, "", "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?}: {run:?}");
    }
}

/// Fails unless there is no output.
#[track_caller]
fn assert_silent(run: &Run) {
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", ""),
        "{run:?}"
    );
}

/// A quiet pass with `--status-file`.
fn quiet_pass(scene: &Scene, switch: &Path) -> Run {
    let switch = switch.to_str().expect("UTF-8");
    run(&mut scene.command(&["-q", "--status-file", switch]))
}

#[test]
fn a_switch_is_reported_unless_it_contains_a_plain_1_or_0() {
    let scene = Scene::synced(History::get());
    let switch = scene.directory.path().join("status");
    for (content, reported) in [
        ("SYNCING=1\n", None),
        ("SYNCING=1\r\n", None),
        ("SYNCING=0\n", None),
        ("SYNCING=0", None),
        ("SYNCING=0\r\n", None),
        ("", Some("is empty")),
        ("\n", Some("is empty")),
        ("SYNCING = 1\n", Some("but \"SYNCING = 1\"")),
        ("SYNCING=on\n", Some("but \"SYNCING=on\"")),
        (
            "SYNCING=1 # since Monday\n",
            Some("but \"SYNCING=1 # since Monday\""),
        ),
        (
            "SYNCING=0\nSYNCING=1\n",
            Some(r#"but "SYNCING=0\nSYNCING=1""#),
        ),
        ("\u{feff}SYNCING=1\n", Some("\"")),
        (&"SYNCING=1\n".repeat(20), Some("is longer than 63 bytes")),
    ] {
        fs::write(&switch, content).unwrap();
        let run = quiet_pass(&scene, &switch);
        let is_on = content.trim_end() == "SYNCING=1";
        assert_eq!(run.code, if is_on { 0 } else { 10 }, "{content:?}: {run:?}");
        let Some(found) = reported else {
            assert_silent(&run);
            continue;
        };
        let name = switch.to_str().unwrap();
        assert_one_line(&run, &[name, found, "SYNCING=1 or SYNCING=0"]);
    }
}

#[test]
fn a_switch_that_cannot_be_read_is_reported() {
    let scene = Scene::synced(History::get());
    let name = |switch: &Path| switch.display().to_string();
    let directory = scene.directory.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let of_directory = quiet_pass(&scene, &directory).expect(10);
    assert_one_line(&of_directory, &[&name(&directory), "Is a directory"]);
    let device = quiet_pass(&scene, Path::new("/dev/null")).expect(10);
    assert_one_line(&device, &["/dev/null cannot be read: not a regular file"]);
    let within_a_file = scene.master.join("status");
    let below_file = quiet_pass(&scene, &within_a_file).expect(10);
    assert_one_line(&below_file, &[&name(&within_a_file), "Not a directory"]);

    for switch in [
        scene.directory.path().join("status"),
        scene.beside(".fssync-switch"),
    ] {
        fs::write(&switch, "SYNCING=1\n").unwrap();
        let mut command = as_nobody(&scene);
        command
            .arg("-q")
            .arg("--status-file")
            .arg(scene.directory.path().join("status"));
        command.args([&scene.master, &scene.slave]);
        run(&mut command).expect(0);
        chown(&switch, Some(0), Some(0)).unwrap();
        fs::set_permissions(&switch, Permissions::from_mode(0o600)).unwrap();
        let closed = run(&mut command).expect(10);
        assert_one_line(&closed, &[&name(&switch), "Permission denied", "uid 65534"]);
        fs::set_permissions(&switch, Permissions::from_mode(0o644)).unwrap();
    }

    let beside = fs::canonicalize(scene.beside(".fssync-switch")).unwrap();
    let fail = "inject=openat:error=EMFILE:when=1";
    let mut starved = strace(&["-e", fail], &[beside]);
    let starved = run(starved.arg("-q").args([&scene.master, &scene.slave])).expect(10);
    assert_one_line(&starved, &["Data.fs.fssync-switch", "Too many open files"]);
}

/// On a tmpfs the file is gone after a reboot, maybe together with its directory.
#[test]
fn a_named_switch_that_is_missing_is_not_reported() {
    let scene = Scene::synced(History::get());
    for missing in ["status", "no/such/directory/status"] {
        let missing = scene.directory.path().join(missing);
        assert_silent(&quiet_pass(&scene, &missing).expect(10));
    }
}

#[test]
fn a_switch_with_a_plain_0_silences_reports_about_others() {
    let scene = Scene::synced(History::get());
    let named = scene.directory.path().join("status");
    fs::write(&named, "SYNCING=yes\n").unwrap();
    run(fssync().args(["off", "-q"]).arg(&scene.slave)).expect(0);
    assert_silent(&quiet_pass(&scene, &named).expect(10));
    let loud = scene
        .pass(&["--status-file", named.to_str().unwrap()])
        .expect(10);
    let message = "Data.fs.fssync-switch contains SYNCING=0";
    assert!(loud.stderr.contains(message), "{loud:?}");
    assert_eq!(loud.report()["warnings"], json!([]));
    // A missing switch does not explain one that exists.
    fs::write(scene.beside(".fssync-switch"), "SYNCING=yes\n").unwrap();
    fs::remove_file(&named).unwrap();
    assert_one_line(&quiet_pass(&scene, &named).expect(10), &["SYNCING=yes"]);
}

#[test]
fn a_quiet_watch_reports_a_switch_that_becomes_invalid() {
    let scene = Scene::synced(History::get());
    let switch = scene.beside(".fssync-switch");
    fs::write(&switch, "SYNCING=0\n").unwrap();
    let mut watcher = Watcher::start(&scene, &["-q", "--interval", "0.1"]);
    replace(&switch, b"SYNCING=maybe\n");
    watcher.expect("but \"SYNCING=maybe\"");
    replace(&switch, b"SYNCING=later\n");
    watcher.expect("but \"SYNCING=later\"");
    assert_eq!(watcher.log().lines().count(), 2, "{}", watcher.log());
    assert_eq!(watcher.end().0, 0);
}

/// Changes the sidecar: the slave was in sync, and a pass ended, this long ago.
fn age_sidecar(scene: &Scene, in_sync_secs: i64, pass_secs: i64) {
    let ago = |secs| (Timestamp::now() - SignedDuration::from_secs(secs)).to_string();
    scene.edit_sidecar(|sidecar| {
        sidecar["in_sync"] = json!(ago(in_sync_secs));
        sidecar["pass"]["time"] = json!(ago(pass_secs));
    });
}

/// Sets the modification time of a file to this long ago.
fn age_file(path: &Path, secs: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(secs))
        .unwrap();
}

fn quiet_passes(scene: &Scene) -> [Run; 2] {
    [&["-q"][..], &["-q", "-n"]].map(|options| run(&mut scene.command(options)).expect(11))
}

#[test]
fn another_pass_is_reported_once_the_slave_is_out_of_sync_for_an_hour() {
    let scene = Scene::synced(History::get());
    let pass = Holder::of(&scene.beside(".fssync-pass"));
    for run in quiet_passes(&scene) {
        assert_silent(&run);
    }
    age_sidecar(&scene, 3500, 60);
    for run in quiet_passes(&scene) {
        assert_silent(&run);
    }
    age_sidecar(&scene, 2 * 3600 + 300, 60);
    let by = format!("by process {}", pass.pid());
    let message = ["another pass is at work", &by, "was in sync 2 h 5 min ago"];
    for run in quiet_passes(&scene) {
        assert_one_line(&run, &message);
    }
    // The clock was ahead when the last pass ended.
    scene.edit_sidecar(|sidecar| sidecar["pass"]["time"] = json!("2100-01-01T00:00:00Z"));
    for run in quiet_passes(&scene) {
        assert_one_line(&run, &message);
    }
    // While syncing was off, the slave was meant to be out of sync.
    run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);
    for run in quiet_passes(&scene) {
        assert_silent(&run);
    }
    age_file(&scene.beside(".fssync-switch"), 3700);
    for run in quiet_passes(&scene) {
        assert_one_line(&run, &message);
    }
}

/// A first copy may take hours, and nothing is recorded before its end.
#[test]
fn another_pass_is_reported_once_it_runs_for_an_hour() {
    let scene = Scene::with_master("commits");
    let lock = scene.beside(".fssync-pass");
    let pass = Holder::of(&lock);
    age_file(&lock, 2 * 3600 + 300);
    for run in quiet_passes(&scene) {
        assert_silent(&run);
    }
    // In another container, the process that holds the lock is not visible, nor is its start
    // time.
    require_root();
    let program = scene.command(&["-q"]);
    let mut contained = tool("unshare", "util-linux");
    contained.args(["--pid", "--fork", "--mount-proc"]);
    contained
        .arg(program.get_program())
        .args(program.get_args());
    let message = [
        "at work on",
        ", for 2 h 5 min",
        "has run for more than an hour",
    ];
    assert_one_line(&run(&mut contained).expect(11), &message);
    age_file(&lock, 1800);
    assert_silent(&run(&mut contained).expect(11));
    drop(pass);
}

/// A script or a configuration tool may write the same switch again and again.
#[test]
fn a_pass_does_not_seem_younger_because_its_switch_was_written_again() {
    let scene = Scene::synced(History::get());
    let switch = scene.beside(".fssync-switch");
    fs::write(&switch, "SYNCING=1\n").unwrap();
    // It never answers, and ends with the pass.
    let silent = "sh -c 'cat >/dev/null' sh";
    let mut pass = fssync()
        .args(["-q", "-e", silent, "example.org:/Data.fs"])
        .arg(&scene.slave)
        .spawn()
        .unwrap();
    let lock = scene.beside(".fssync-pass");
    wait_for("pass lock", || {
        fssync::io::flock::holder(&lock) == Some(pass.id())
    });
    thread::sleep(Duration::from_secs(3));
    fs::write(&switch, "SYNCING=1\n").unwrap();
    let busy = scene.pass(&[]);
    pass.kill().unwrap();
    pass.wait().unwrap();
    let reason = busy.expect(11).report()["reason"].to_string();
    let age = reason.split(", for ").nth(1).expect("an age");
    for younger in ["less", "1 s", "2 s"] {
        assert!(!age.starts_with(younger), "{reason}");
    }
}

#[test]
fn a_quiet_watch_reports_another_pass_that_lasts_too_long_once() {
    let scene = Scene::synced(History::get());
    age_sidecar(&scene, 7200, 60);
    let pass = Holder::of(&scene.beside(".fssync-pass"));
    let mut watcher = Watcher::start(&scene, &["-q", "--interval", "0.1"]);
    watcher.expect("not been in sync for more than an hour");
    let before = fs::read(scene.beside(".fssync")).unwrap();
    drop(pass);
    wait_for("pass", || {
        fs::read(scene.beside(".fssync")).unwrap() != before
    });
    assert_eq!(watcher.log().lines().count(), 1, "{}", watcher.log());
    assert_eq!(watcher.end().0, 0);
}

/// Subcommands that end with an exit code that has a hint, or with a usage error.
#[test]
fn every_subcommand_prints_at_most_one_line() {
    let scene = Scene::synced(History::get());
    let slave = scene.slave.to_str().unwrap();
    let nowhere = scene.directory.path().join("nowhere/Data.fs");
    let nowhere = nowhere.to_str().unwrap();
    let quiet = |arguments: &[&str]| run(fssync().args(arguments));
    for silent in [
        &["off", "-q", slave][..],
        &["on", "-q", slave],
        &["status", "-q", slave],
        &["verify", "-q", slave],
        &["-q", scene.master.to_str().unwrap(), slave],
    ] {
        assert_silent(&quiet(silent).expect(0));
    }
    // Standard input is empty, as of a connection that ends. Standard output is the protocol.
    let served = quiet(&["serve", "-q", scene.master.to_str().unwrap()]).expect(1);
    assert_eq!(served.stderr.lines().count(), 1, "{served:?}");
    let in_use = Holder::of(&scene.beside(".lock"));
    assert_one_line(&quiet(&["on", "-q", slave]).expect(13), &["is in use by"]);
    drop(in_use);
    for (arguments, code) in [
        (&["status", "-q", slave, "--against", nowhere][..], 12),
        (&["status", "-q", slave, "--max-age", "0.001"], 14),
    ] {
        assert_one_line(&quiet(arguments).expect(code), &[]);
    }
    let mut bytes = fs::read(&scene.slave).unwrap();
    bytes.extend(b"x".repeat(40));
    fs::write(&scene.slave, &bytes).unwrap();
    bytes[4] ^= 1;
    fs::write(&scene.slave, &bytes).unwrap();
    for (arguments, code) in [
        (&["on", "-q", slave][..], 20),
        (&["verify", "-q", slave], 31),
        (&["-q", scene.master.to_str().unwrap(), slave], 20),
        (&["-q", nowhere, slave], 12),
        (&["-q", "-e", "false", "host:/Data.fs", slave], 12),
        (&["verify", "-q", slave, "--against", nowhere], 12),
        (&["--watch", "-q", "host:relative", slave], 2),
        (&["status", "-q", slave, "--against", "host:relative"], 2),
        (&["serve", "-q"], 2),
        (&["off", "-q", nowhere], 2),
        (&["on", "-q", nowhere], 2),
        (&["verify", "-q", nowhere], 2),
        (&["status", "-q", nowhere], 2),
        (&["-q"], 2),
        (&["off", "-q"], 2),
        (&["-nq", "--no-such-option", "m", slave], 2),
        (&["-q", "--timeout", "soon", "m", slave], 2),
    ] {
        assert_one_line(&quiet(arguments).expect(code), &[]);
    }
}

/// The line also contains how the pass ended, whether it succeeded or not.
#[test]
fn a_report_that_cannot_be_printed_is_reported_on_one_line() {
    let scene = Scene::synced(History::get());
    let (master, slave) = (&scene.master, &scene.slave);
    let nowhere = scene.directory.path().join("nowhere/Data.fs");
    let pass = |master: &Path| {
        let mut command = fssync();
        command.args([master, slave]);
        command
    };
    let subcommand = |name: &str| {
        let mut command = fssync();
        command.arg(name).arg(slave);
        command
    };
    for (mut command, parts) in [
        (
            pass(master),
            ["Finished syncing", "cannot print the report"],
        ),
        (pass(&nowhere), ["NOT SYNCING", "cannot print the report"]),
        (
            subcommand("status"),
            ["cannot print the status", "No space"],
        ),
        (
            subcommand("verify"),
            ["cannot print the report", "No space"],
        ),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let child = command
            .args(["-q", "--json"])
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(parts.iter().all(|part| log.contains(part)), "{log}");
    }
}

#[test]
fn on_is_silent_if_another_switch_is_off_on_purpose() {
    let scene = Scene::synced(History::get());
    let named = scene.directory.path().join("status");
    let on = |content: &str| {
        fs::write(scene.beside(".fssync-switch"), content).unwrap();
        let mut command = fssync();
        command.args(["on", "-q", "--status-file"]).arg(&named);
        run(command.arg(&scene.slave)).expect(10)
    };
    assert_silent(&on("SYNCING=0\n"));
    assert_one_line(
        &on("SYNCING=zero\n"),
        &["Data.fs.fssync-switch", "SYNCING=zero"],
    );
}

#[test]
fn a_name_with_a_line_feed_does_not_print_a_second_line() {
    let scene = Scene::with_master("commits");
    let slave = scene.slave.with_file_name("Data\n.fs");
    for (master, code) in [("missing\nmaster", 12), ("a\nb:relative", 2)] {
        let mut command = fssync();
        command
            .current_dir(scene.directory.path())
            .arg("-q")
            .arg(master);
        assert_one_line(&run(command.arg(&slave)).expect(code), &["NOT SYNCING"]);
    }
}
