//! Whether syncing is on: all switches, `fssync off` and `fssync on`, and the promise of `off`
//! during a pass.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fssync::human::bytes;
use fssync::plan::outcome::Exit;
use serde_json::{Value, json};

use crate::hanging_pass::HangingPass;
use crate::support::{
    History, Holder, Run, Scene, Zodb, append_killed_at_sync, as_nobody, fssync, must,
    require_root, rewrite_end, run, tool,
};

const ON: &str = "SYNCING=1\n";
const OFF: &str = "SYNCING=0\n";

/// A scene in which a pass would copy, if it may.
fn scene() -> Scene {
    Scene::with_master("commits")
}

/// A pass with `--status-file`.
fn pass_named(scene: &Scene, switch: &Path) -> Run {
    scene.pass(&["--status-file", switch.to_str().unwrap()])
}

/// Fails unless the pass did nothing because of `switch`.
fn assert_off(scene: &Scene, run: Run, switch: &Path) {
    let report = run.expect(10).report();
    assert_eq!(report["action"], "off");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains(switch.to_str().unwrap()), "{reason}");
    assert!(!scene.slave.exists());
    assert!(!scene.beside(".fssync").exists());
}

/// Possible contents of a switch, and whether they mean on.
fn contents() -> Vec<(Vec<u8>, bool)> {
    let mut long = b"SYNCING=1".to_vec();
    long.extend([b'\n'; 100]);
    long.extend(OFF.as_bytes());
    vec![
        (b"SYNCING=1".to_vec(), true),
        (b"SYNCING=1\r\n".to_vec(), true),
        (b"SYNCING=1 \t\n\n".to_vec(), true),
        (ON.into(), true),
        (OFF.into(), false),
        (b"".to_vec(), false),
        (b"\n".to_vec(), false),
        (b"SYNCING=".to_vec(), false),
        (b"SYNCING=2\n".to_vec(), false),
        (b"SYNCING=10\n".to_vec(), false),
        (b"SYNCING=1 but not today\n".to_vec(), false),
        (b"SYNCING=1\nSYNCING=0\n".to_vec(), false),
        (b"syncing=1\n".to_vec(), false),
        (b"SYNCING = 1\n".to_vec(), false),
        (b" SYNCING=1\n".to_vec(), false),
        (b"# SYNCING=1\n".to_vec(), false),
        (b"1\n".to_vec(), false),
        (b"SYNCING=1\n\xff\xfe\n".to_vec(), false),
        (vec![0; 4096], false),
        (long, false),
    ]
}

fn assert_obeyed(scene: &Scene, run: Run, switch: &Path, on: bool) {
    let content = fs::read(switch).unwrap().escape_ascii().to_string();
    assert_eq!(run.code, if on { 0 } else { 10 }, "{content}: {run:?}");
    if !on {
        assert_off(scene, run, switch);
    }
}

#[test]
fn a_named_switch_is_on_only_if_it_contains_a_plain_1() {
    for (content, on) in contents() {
        let scene = scene();
        let switch = scene.directory.path().join("status");
        fs::write(&switch, &content).unwrap();
        assert_obeyed(&scene, pass_named(&scene, &switch), &switch, on);
    }
}

#[test]
fn a_switch_beside_the_slave_is_on_only_if_it_contains_a_plain_1() {
    for (content, on) in contents() {
        let scene = scene();
        let switch = scene.beside(".fssync-switch");
        fs::write(&switch, &content).unwrap();
        assert_obeyed(&scene, scene.pass(&[]), &switch, on);
    }
}

#[test]
fn a_named_switch_that_is_missing_is_off() {
    let scene = scene();
    let switch = scene.directory.path().join("status");
    assert_off(&scene, pass_named(&scene, &switch), &switch);
    let nowhere = scene.directory.path().join("no/such/directory/status");
    assert_off(&scene, pass_named(&scene, &nowhere), &nowhere);
}

#[test]
fn a_switch_that_cannot_be_read_is_off() {
    let scene = scene();
    let named = scene.directory.path().join("status");
    fs::create_dir(&named).unwrap();
    assert_off(&scene, pass_named(&scene, &named), &named);
    let beside = scene.beside(".fssync-switch");
    fs::create_dir(&beside).unwrap();
    assert_off(&scene, scene.pass(&[]), &beside);
    fs::remove_dir(&beside).unwrap();
    must(Command::new("mkfifo").arg(&beside));
    assert_off(&scene, scene.pass(&[]), &beside);
}

#[test]
fn a_switch_without_read_permission_is_off() {
    let scene = scene();
    let switch = scene.directory.path().join("status");
    fs::write(&switch, ON).unwrap();
    let mut command = as_nobody(&scene);
    command.arg("--json").arg("--status-file").arg(&switch);
    command.args([&scene.master, &scene.slave]);
    chown(&switch, Some(0), Some(0)).unwrap();
    let may = |mode| fs::set_permissions(&switch, Permissions::from_mode(mode)).unwrap();
    may(0o600);
    assert_off(&scene, run(&mut command), &switch);
    may(0o644);
    run(&mut command).expect(0);
}

/// Runs a command in a mount namespace in which /var/run has only these files.
fn with_var_run(files: &[(&str, &str)], command: &Command) -> Run {
    require_root();
    let mut script = "mount -t tmpfs tmpfs \"$(readlink -f /var/run)\" || exit 99\n".to_owned();
    for (name, content) in files {
        script += "printf '";
        script += content;
        script += "' > /var/run/";
        script += name;
        script += "\n";
    }
    script += "exec \"$@\"";
    run(tool("unshare", "util-linux")
        .args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"])
        .arg(command.get_program())
        .args(command.get_args()))
}

const MACHINE_WIDE: [&str; 2] = ["fssync.status", "syncPozo.status"];

#[test]
fn machine_wide_switches_are_obeyed_if_they_exist() {
    for name in MACHINE_WIDE {
        for (content, code) in [(OFF, 10), ("", 10), ("SYNCING=yes", 10), (ON, 0)] {
            let scene = scene();
            let mut command = fssync();
            command.arg("--json").args([&scene.master, &scene.slave]);
            let run = with_var_run(&[(name, content)], &command);
            assert_eq!(run.code, code, "{name} {content:?}: {run:?}");
            if code == 10 {
                assert_off(&scene, run, &Path::new("/var/run").join(name));
            }
        }
    }
}

#[test]
fn any_switch_that_is_off_wins() {
    for off in 0..=4 {
        let scene = scene();
        let says = |nth| if nth == off { OFF } else { ON };
        let named = scene.directory.path().join("status");
        fs::write(&named, says(0)).unwrap();
        fs::write(scene.beside(".fssync-switch"), says(1)).unwrap();
        let machine_wide = [(MACHINE_WIDE[0], says(2)), (MACHINE_WIDE[1], says(3))];
        let mut command = fssync();
        command.arg("--status-file").arg(&named);
        command.args([&scene.master, &scene.slave]);
        let run = with_var_run(&machine_wide, &command);
        assert_eq!(run.code, if off == 4 { 0 } else { 10 }, "{off}: {run:?}");
    }
}

/// `fssync off` or `fssync on`.
fn flip(verb: &str, slave: &Path) -> Run {
    run(fssync().arg(verb).arg(slave))
}

#[test]
fn off_and_on_write_the_switch_beside_the_slave_and_report_it() {
    let scene = scene();
    let report = scene.expect("full-copy");
    let switch = scene.beside(".fssync-switch");
    let off = flip("off", &scene.slave).expect(0);
    assert_eq!(fs::read_to_string(&switch).unwrap(), OFF);
    let first = format!("syncing is off ({})\n", switch.display());
    assert!(off.stdout.starts_with(&first), "{off:?}");
    assert!(
        off.stdout.contains(report["last_tid"].as_str().unwrap()),
        "{off:?}"
    );
    let age = off.stdout.trim_end().rsplit_once("), ").expect("an age").1;
    assert!(age.ends_with(" h ago"), "a fixture is days old: {off:?}");
    scene.pass(&[]).expect(10);
    let on = flip("on", &scene.slave).expect(0);
    assert_eq!(on.stdout, format!("syncing is on ({})\n", switch.display()));
    assert_eq!(fs::read_to_string(&switch).unwrap(), ON);
    scene.expect("up-to-date");
}

#[test]
fn off_and_on_accept_a_directory() {
    let scene = scene();
    scene.expect("full-copy");
    flip("off", scene.slave.parent().unwrap()).expect(0);
    scene.pass(&[]).expect(10);
    flip("on", scene.slave.parent().unwrap()).expect(0);
    scene.expect("up-to-date");
}

#[test]
fn off_and_on_write_only_the_named_switch() {
    let scene = scene();
    scene.expect("full-copy");
    let switch = scene.directory.path().join("status");
    let named = |verb| {
        let mut command = fssync();
        command.args([verb, "--status-file"]).arg(&switch);
        run(command.arg(&scene.slave)).expect(0)
    };
    named("off");
    assert_eq!(fs::read_to_string(&switch).unwrap(), OFF);
    pass_named(&scene, &switch).expect(10);
    named("on");
    assert_eq!(fs::read_to_string(&switch).unwrap(), ON);
    assert!(!scene.beside(".fssync-switch").exists());
    pass_named(&scene, &switch).expect(0);
}

/// Runs a subcommand with its options for the slave, as root with this umask.
fn flip_under_umask(umask: &str, verb: &[&str], scene: &Scene) -> Run {
    let script = format!("umask {umask}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_fssync")).args(verb);
    run(command.arg(&scene.slave))
}

#[test]
fn the_slaves_owner_can_read_each_switch_that_root_writes() {
    for (has_slave, before) in [
        (true, None),
        (false, None),
        (true, Some(0o600)),
        (true, Some(0o640)),
        (false, Some(0o640)),
        (true, Some(0o644)),
    ] {
        for verbs in [["off", "on"], ["on", "off"]] {
            for is_named in [false, true] {
                let scene = scene();
                if has_slave {
                    scene.expect("full-copy");
                }
                let mut nobody = as_nobody(&scene);
                let named = scene.directory.path().join("status");
                let option = format!("--status-file={}", named.display());
                let switch = if is_named {
                    named
                } else {
                    scene.beside(".fssync-switch")
                };
                if let Some(mode) = before {
                    fs::write(&switch, "SYNCING=0\n").unwrap();
                    fs::set_permissions(&switch, Permissions::from_mode(mode)).unwrap();
                }
                for verb in verbs {
                    let mut verb = vec![verb, "--force"];
                    if is_named {
                        verb.push(&option);
                    }
                    let done = flip_under_umask("077", &verb, &scene).expect(0);
                    let read = tool("setpriv", "util-linux")
                        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
                        .arg(&switch)
                        .output();
                    let read = read.unwrap();
                    assert!(
                        read.status.success(),
                        "{before:?} {verb:?}: {done:?} {read:?}"
                    );
                }
                if is_named {
                    nobody.arg(&option);
                }
                let code = if verbs[1] == "off" { 10 } else { 0 };
                run(nobody.args([&scene.master, &scene.slave])).expect(code);
            }
        }
    }
}

#[test]
fn on_is_not_written_to_a_directory_that_the_slaves_owner_cannot_enter() {
    let scene = scene();
    scene.expect("full-copy");
    drop(as_nobody(&scene));
    let closed = scene.directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let option = format!("--status-file={}", closed.join("status").display());
    let switch = closed.join("status");
    for (verb, code, content) in [("on", 1, None), ("off", 0, Some(OFF)), ("on", 1, Some(OFF))] {
        let done = flip_under_umask("022", &[verb, &option], &scene).expect(code);
        let warning = format!("no access to {}", closed.display());
        assert!(done.stderr.contains(&warning), "{done:?}");
        assert_eq!(fs::read_to_string(&switch).ok().as_deref(), content);
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
    let done = flip_under_umask("022", &["on", &option], &scene).expect(0);
    assert_eq!(done.stderr, "");
}

/// The switch belongs to root and to a group of the slave's owner.
#[test]
fn on_is_written_if_another_group_of_the_slaves_owner_has_access() {
    let scene = scene();
    scene.expect("full-copy");
    drop(as_nobody(&scene));
    let switch = scene.directory.path().join("status");
    fs::write(&switch, OFF).unwrap();
    chown(&switch, Some(0), Some(4242)).unwrap();
    fs::set_permissions(&switch, Permissions::from_mode(0o660)).unwrap();
    let mut command = tool("setpriv", "util-linux");
    command.args(["--reuid=65534", "--regid=65534", "--groups=4242"]);
    command.arg(scene.directory.path().join("fssync"));
    command.args(["on", "--status-file"]).arg(&switch);
    run(command.arg(&scene.slave)).expect(0);
    assert_eq!(fs::read_to_string(&switch).unwrap(), ON);
}

/// The slave and the switch belong to other users than the one who runs `on`.
#[test]
fn on_is_not_written_if_the_slaves_owner_could_not_read_it() {
    let scene = scene();
    scene.expect("full-copy");
    let mut nobody = as_nobody(&scene);
    let switch = scene.directory.path().join("status");
    fs::write(&switch, OFF).unwrap();
    chown(&switch, Some(0), Some(65534)).unwrap();
    fs::set_permissions(&switch, Permissions::from_mode(0o660)).unwrap();
    chown(&scene.slave, Some(4242), Some(4242)).unwrap();
    fs::set_permissions(&scene.slave, Permissions::from_mode(0o666)).unwrap();
    nobody.args(["on", "--force", "--status-file"]).arg(&switch);
    let failed = run(nobody.arg(&scene.slave)).expect(1);
    let message = format!("cannot let the slave's owner read {}", switch.display());
    assert!(failed.stderr.contains(&message), "{failed:?}");
    assert_eq!(fs::read_to_string(&switch).unwrap(), OFF);
    assert_eq!(fs::metadata(&switch).unwrap().uid(), 0);
}

#[test]
fn on_reports_another_switch_that_is_still_off() {
    let scene = scene();
    let mut command = fssync();
    command.arg("on").arg(&scene.slave);
    let run = with_var_run(&[(MACHINE_WIDE[1], OFF)], &command).expect(10);
    assert!(
        run.stderr
            .contains("/var/run/syncPozo.status contains SYNCING=0"),
        "{run:?}"
    );
    assert_eq!(run.stdout, "");
}

#[test]
fn off_works_if_there_is_no_slave_yet() {
    let scene = scene();
    let off = |path: &Path| run(fssync().args(["off", "--force"]).arg(path)).expect(0);
    let run = off(&scene.slave);
    let message = format!("there is no {} yet\n", scene.slave.display());
    assert!(run.stdout.ends_with(&message), "{run:?}");
    let directory = scene.slave.parent().unwrap();
    let run = off(directory);
    assert!(run.stdout.ends_with(&message), "{run:?}");
    scene.pass(&[]).expect(10);
}

#[test]
fn off_truncates_the_unfinished_tail_of_a_killed_pass() {
    // First only the header, then the whole batch with its marker.
    let history = History::get();
    let whole = (history.after.len() - history.before.len()) as u64;
    for (sync, len) in [(1, 23), (2, whole)] {
        let scene = append_killed_at_sync(sync);
        let size = fs::metadata(&scene.slave).unwrap().len();
        assert_eq!(size, history.before.len() as u64 + len);
        let run = flip("off", &scene.slave).expect(0);
        let message = format!("an unfinished append of {} was truncated", bytes(len));
        assert!(run.stdout.contains(&message), "{run:?}");
        assert!(fs::read(&scene.slave).unwrap() == history.before);
        assert!(
            !scene.beside(".tr0").exists(),
            "fssync's own tail is not saved"
        );
        flip("on", &scene.slave).expect(0);
        scene.expect("append");
    }
}

#[test]
fn off_does_not_truncate_a_foreign_tail() {
    let scene = Scene::synced(History::get());
    let voted = History::get().voted[..History::get().voted.len() - 7].to_vec();
    fs::write(&scene.slave, &voted).unwrap();
    let run = flip("off", &scene.slave).expect(0);
    assert!(!run.stdout.contains("cut"), "{run:?}");
    assert!(fs::read(&scene.slave).unwrap() == voted);
}

#[test]
fn off_works_while_zodb_has_the_slave_open_and_does_not_touch_it() {
    let scene = append_killed_at_sync(1);
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "vote", "name": "s", "objects": 2}));
    let had = fs::read(&scene.slave).unwrap();
    flip("off", &scene.slave).expect(0);
    assert!(fs::read(&scene.slave).unwrap() == had);
    zodb.call(&json!({"cmd": "finish", "name": "s"}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    scene.pass(&[]).expect(10);
}

#[test]
fn off_fails_after_ten_seconds_of_a_step_and_reports_its_process() {
    let scene = Scene::synced(History::get());
    let holder = Holder::of(&scene.beside(".fssync-step"));
    let started = Instant::now();
    let run = flip("off", &scene.slave).expect(1);
    let elapsed = started.elapsed().as_secs();
    assert!((10..13).contains(&elapsed), "{elapsed} s");
    let by = format!("held by process {}", holder.pid());
    assert!(run.stderr.contains(&by), "{run:?}");
    assert!(run.stderr.contains("Data.fs.fssync-step"), "{run:?}");
    assert_eq!(run.stdout, "", "it must not report that syncing is off");
    drop(holder);
    scene.pass(&[]).expect(10);
}

#[test]
fn off_returns_at_once_while_a_pass_hangs_and_zodb_can_open_the_slave() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let pass = HangingPass::start(&scene);

    let started = Instant::now();
    let off = flip("off", &scene.slave).expect(0);
    assert!(started.elapsed() < Duration::from_secs(2), "it waits");
    assert!(off.stdout.contains("an unfinished append"), "{off:?}");
    let mut zodb = Zodb::start();
    let open = json!({"cmd": "open", "name": "s", "path": scene.slave});
    assert_eq!(zodb.call(&open)["position"], History::get().before.len());
    zodb.call(&json!({"cmd": "commit", "name": "s"}));
    let serving = fs::read(&scene.slave).unwrap();

    let outcome = pass.release();
    assert_eq!(outcome.exit, Exit::Off, "{outcome:?}");
    assert!(
        fs::read(&scene.slave).unwrap() == serving,
        "the slave was written after `off`"
    );
    assert_eq!(
        zodb.call(&json!({"cmd": "close", "name": "s"}))["warnings"],
        Value::from([0; 0])
    );
}
