//! `fssync doctor`: each check fails if its part of the set-up is wrong.

mod connection;
mod mounts;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::sshd::Sshd;
use crate::support::{
    Run, Scene, append_sparse, as_nobody, fssync, must, names, own, require_root, run, snapshot_of,
    tool,
};
use crate::zeo::eventually;

/// The checks of a report.
struct Checks(Vec<Value>);

impl Checks {
    fn of(run: &Run) -> Self {
        let report = run.report();
        assert_eq!(report["exit_code"], run.code, "{report}");
        Self(report["checks"].as_array().expect("checks").clone())
    }

    /// The level of a check, and its text with the advice.
    #[track_caller]
    fn find(&self, name: &str) -> (&str, String) {
        let found = self.0.iter().find(|it| it["check"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0));
        let text = |key: &str| found[key].as_str().expect("a text").to_owned();
        let level = found["level"].as_str().expect("a level");
        (level, format!("{} | {}", text("seen"), text("advice")))
    }

    /// Fails unless a check has this level and a text that contains this part. A check that is
    /// not ok says what to do.
    #[track_caller]
    fn expect(&self, name: &str, level: &str, part: &str) {
        let (found, text) = self.find(name);
        assert_eq!(found, level, "{name}: {text}");
        assert!(text.contains(part), "{name}: {text}");
        assert!(level == "ok" || !text.ends_with("| "), "{name}: {text}");
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|it| it["check"] == name)
    }
}

fn command(scene: &Scene) -> Command {
    let mut command = fssync();
    command.args(["doctor", "--json"]);
    command.args([&scene.master, &scene.slave]);
    command
}

/// The files of the master and of the slave, with their times.
fn files(scene: &Scene) -> Vec<impl PartialEq> {
    let paths = [&scene.master, &scene.slave].map(|it| it.parent().unwrap());
    let each = |directory: &Path| {
        let names = names(directory).into_iter();
        let files: Vec<_> = names
            .map(|name| (snapshot_of(&directory.join(&name)), name))
            .collect();
        files
    };
    paths.into_iter().flat_map(each).collect()
}

#[track_caller]
fn examine(scene: &Scene, code: i32) -> Checks {
    Checks::of(&run(&mut command(scene)).expect(code))
}

/// A master, and a slave that was just copied and verified.
fn synced() -> Scene {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    run(&mut scene.verify(&[])).expect(0);
    scene
}

#[test]
fn a_sound_set_up_passes_all_checks_and_nothing_is_changed() {
    let scene = synced();
    let before = files(&scene);
    let checks = examine(&scene, 0);
    assert!(files(&scene) == before);
    for name in [
        "master",
        "master-mount",
        "slave",
        "slave-directory",
        "slave-owner",
        "slave-file-system",
        "slave-space",
        "switches",
        "index",
        "verification",
        "inotify",
        "next-pass",
    ] {
        checks.expect(name, "ok", "");
    }
    let mut text = fssync();
    text.arg("doctor").args([&scene.master, &scene.slave]);
    let lines = run(&mut text).expect(0).stdout;
    assert!(lines.starts_with("ok "), "{lines}");
    assert!(!lines.contains("to do"), "{lines}");
    let quiet = run(text.arg("-q")).expect(0);
    assert_eq!(quiet.stdout, "");
}

#[test]
fn before_the_first_pass_there_is_nothing_to_complain_about() {
    let scene = Scene::with_master("commits");
    let before = files(&scene);
    let checks = examine(&scene, 0);
    checks.expect("slave", "ok", "does not exist yet");
    assert!(!checks.has("verification"));
    assert!(files(&scene) == before);
}

#[test]
fn a_master_that_cannot_be_read_is_found() {
    let scene = synced();
    fs::remove_file(&scene.master).unwrap();
    let checks = examine(&scene, 12);
    checks.expect("master", "fail", "No such file");
    checks.expect("next-pass", "fail", "exit with 12");

    fs::write(&scene.master, "not a FileStorage").unwrap();
    examine(&scene, 12).expect("master", "fail", "bad magic");
    fs::write(&scene.master, "FS30").unwrap();
    let checks = Checks::of(&run(&mut command(&scene)));
    checks.expect("master", "warn", "without transactions");

    let mut same = fssync();
    same.args(["doctor", "--json"]);
    let same = run(same.args([&scene.slave, &scene.slave])).expect(2);
    Checks::of(&same).expect("paths", "fail", "is the master itself");
}

#[test]
fn a_diverged_slave_is_found() {
    let scene = synced();
    fs::copy(crate::support::project("fixtures/site.fs"), &scene.slave).unwrap();
    examine(&scene, 20).expect("next-pass", "fail", "exit with 20");
}

#[test]
fn a_switch_that_is_off_is_found_and_nothing_is_tried() {
    let scene = synced();
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let directory = scene.slave.parent().unwrap();
    // A file that exists only for a moment changes the time of its directory.
    let before = (files(&scene), snapshot_of(directory));
    let checks = examine(&scene, 10);
    assert!((files(&scene), snapshot_of(directory)) == before);
    checks.expect("switches", "warn", "fssync on");
    checks.expect("slave-file-system", "ok", "not tried while syncing is off");
    fs::write(scene.beside(".fssync-switch"), "maybe").unwrap();
    examine(&scene, 10).expect("switches", "warn", "maybe");
}

#[test]
fn a_switch_that_the_owner_of_the_slave_cannot_read_is_found() {
    let scene = synced();
    own(&scene, 65534);
    let switch = scene.beside(".fssync-switch");
    fs::write(&switch, "SYNCING=1\n").unwrap();
    fs::set_permissions(&switch, fs::Permissions::from_mode(0o600)).unwrap();
    examine(&scene, 2).expect("switches", "fail", "permission to read");
}

/// The checks as the user nobody, who owns the scene.
fn examine_as_nobody(scene: &Scene, prepare: impl FnOnce()) -> Checks {
    let mut command = as_nobody(scene);
    prepare();
    command.args(["doctor", "--json"]);
    Checks::of(&run(command.args([&scene.master, &scene.slave])).expect(2))
}

#[test]
fn a_slave_that_cannot_be_written_is_found() {
    let scene = synced();
    let directory = scene.slave.parent().unwrap();
    let checks = examine_as_nobody(&scene, || {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).unwrap();
    });
    checks.expect("slave-directory", "fail", "user that owns");
    checks.expect("slave-file-system", "fail", "");

    let scene = synced();
    let checks = examine_as_nobody(&scene, || {
        must(Command::new("chown").arg("1234").arg(&scene.slave));
        fs::set_permissions(&scene.slave, fs::Permissions::from_mode(0o644)).unwrap();
    });
    checks.expect("slave", "fail", "user that owns");
    checks.expect("slave-owner", "fail", "uid 1234");
}

/// Runs doctor in a mount namespace in which this script was run before.
fn examine_after(scene: &Scene, script: &str) -> Run {
    require_root();
    let mut command = tool("unshare", "util-linux");
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!(
        "set -e; {script}; exec \"$0\" doctor --json \"$@\""
    ));
    command.arg(env!("CARGO_BIN_EXE_fssync"));
    run(command.args([&scene.master, &scene.slave]))
}

fn shown(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn a_slave_that_is_mounted_as_a_single_file_is_found() {
    let scene = synced();
    let script = format!("mount --bind {0} {0}", shown(&scene.slave));
    let checks = Checks::of(&examine_after(&scene, &script).expect(2));
    checks.expect("slave", "fail", "Mount its directory");
}

#[test]
fn a_file_system_that_is_too_small_is_found() {
    let scene = Scene::with_master("commits");
    let size = fs::metadata(&scene.master).unwrap().len();
    must(
        Command::new("truncate")
            .args(["--size", "20M"])
            .arg(&scene.master),
    );
    let directory = scene.slave.parent().unwrap();
    let script = format!("mount -t tmpfs -o size=1m tmpfs {}", shown(directory));
    let checks = Checks::of(&examine_after(&scene, &script).expect(2));
    checks.expect("slave-space", "fail", "larger disk");
    assert!(size < 1024 * 1024);
}

#[test]
fn a_machine_without_change_notifications_is_found() {
    let scene = synced();
    let mut command = tool("unshare", "util-linux");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command
        .arg("echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" doctor --json \"$@\"");
    command.arg(env!("CARGO_BIN_EXE_fssync"));
    let run = run(command.args([&scene.master, &scene.slave])).expect(0);
    Checks::of(&run).expect("inotify", "warn", "sysctl");
}

#[test]
fn the_last_verification_is_judged() {
    let scene = synced();
    let path = scene.beside(".fssync-verified");
    let edit = |key: &str, value: Value| {
        let text = fs::read(&path).unwrap();
        let mut record: Value = serde_json::from_slice(&text).unwrap();
        record[key] = value;
        fs::write(&path, record.to_string()).unwrap();
    };
    edit("time", json!("2020-01-02T03:04:05Z"));
    examine(&scene, 0).expect("verification", "warn", "fssync verify");
    edit("damages", json!(1));
    examine(&scene, 0).expect("verification", "fail", "--full");
    fs::remove_file(&path).unwrap();
    examine(&scene, 0).expect("verification", "warn", "never verified");
}

/// ZODB has to scan more than a gibibyte, which was added while no pass ran.
#[test]
fn an_index_that_makes_a_failover_slow_is_found() {
    let scene = synced();
    examine(&scene, 0).expect("index", "ok", "ZODB reads ");
    append_sparse(&scene.slave, (1 << 30) + 1, 0x0500_0000_0000_0000);
    fs::remove_file(&scene.master).unwrap();
    let checks = examine(&scene, 12);
    checks.expect(
        "index",
        "warn",
        "ZODB must read 1.0 GiB before it opens the slave",
    );
    checks.expect("index", "warn", "let passes complete the index");
}

/// The checks of a master through ssh with this program.
fn examine_remote(scene: &Scene, rsh: &str) -> Run {
    let mut command = fssync();
    command.args(["doctor", "--json", "-e", rsh, "--timeout", "20"]);
    command.args(["--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
    run(command
        .arg(Sshd::get().url(&scene.master))
        .arg(&scene.slave))
}

#[test]
fn the_other_end_of_a_connection_is_examined() {
    let scene = synced();
    let sshd = Sshd::get();
    let program = env!("CARGO_BIN_EXE_fssync");
    let checks = Checks::of(&examine_remote(&scene, &sshd.rsh("")).expect(0));
    checks.expect("connection", "ok", "batch mode");
    checks.expect("forced-command", "warn", "restrict");
    checks.expect("versions", "ok", "at both ends");
    checks.expect("clock", "ok", "");

    let directory = scene.master.parent().unwrap().display();
    let forced = format!("command=\"{program} serve {directory}\",restrict");
    let checks = Checks::of(&examine_remote(&scene, &sshd.rsh(&forced)).expect(0));
    checks.expect("forced-command", "ok", "");
    assert!(!checks.has("versions"));
}

#[test]
fn a_connection_that_would_ask_a_question_is_found() {
    let scene = synced();
    let rsh = Sshd::get().rsh("");
    let unknown = format!(
        "{} -o StrictHostKeyChecking=ask -o UserKnownHostsFile=/dev/null",
        rsh.replace("StrictHostKeyChecking=no", "StrictHostKeyChecking=ask")
    );
    let checks = Checks::of(&examine_remote(&scene, &unknown).expect(2));
    checks.expect("master", "fail", "known_hosts");
    let no_key = "ssh -F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o \
                  IdentityFile=/dev/null -o IdentitiesOnly=yes -o IdentityAgent=none";
    let checks = Checks::of(&examine_remote(&scene, no_key).expect(2));
    checks.expect("master", "fail", "authorized_keys");
}

/// Examines the slave of the second machine, there.
fn examine_on(machine: &Machine) -> Checks {
    let doctor = machine.run(&[
        "fssync",
        "doctor",
        "--json",
        "/mnt/master/var/filestorage",
        "/srv/plone/var/filestorage",
    ]);
    Checks::of(&doctor.expect(0))
}

#[test]
fn the_shipped_units_pass_the_checks() {
    let scene = Scene::plone().copied_from("commits");
    let machine = Machine::boot(&scene);
    let checks = examine_on(&machine);
    checks.expect("zeo-unit", "ok", "");
    checks.expect("unit-paths", "ok", "");
    fs::remove_file(machine.file("etc/systemd/system/zeo.service.d/fssync.conf")).unwrap();
    let checks = examine_on(&machine);
    checks.expect("zeo-unit", "warn", "ExecStartPre");
}

/// A drop-in permits the units to write only another directory.
#[test]
fn units_that_may_not_write_the_slave_are_found() {
    let scene = Scene::plone().copied_from("commits");
    let machine = Machine::boot(&scene);
    let drop_in = "[Service]\nReadWritePaths=\nReadWritePaths=/srv/plone/etc\n";
    for unit in ["fssync.service.d", "fssync@.service.d"] {
        let directory = machine.file("etc/systemd/system").join(unit);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("paths.conf"), drop_in).unwrap();
    }
    let config = machine.file("etc/fssync/fssync.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("blobs = true", "blobs = false")).unwrap();
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    let checks = examine_on(&machine);
    checks.expect(
        "unit-paths",
        "warn",
        "may not write /srv/plone/var/filestorage",
    );
    checks.expect(
        "unit-paths",
        "warn",
        "add ReadWritePaths=/srv/plone/var/filestorage",
    );
    // Under systemd, a pass fails as doctor predicts.
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    eventually("a pass that cannot write", || {
        let status = machine.property("fssync", "StatusText");
        status.contains("NOT SYNCING") && status.contains("Read-only file system")
    });
    assert!(!scene.slave.exists());
}

#[test]
fn a_zeo_that_opens_another_file_is_found() {
    let scene = synced();
    let zeo_conf = scene.directory.path().join("zeo.conf");
    let examine = |path: &Path, code: i32| {
        let text = format!(
            "<filestorage 1>\n path {}\n</filestorage>\n",
            path.display()
        );
        fs::write(&zeo_conf, text).unwrap();
        let mut command = command(&scene);
        Checks::of(&run(command.arg("--zeo-conf").arg(&zeo_conf)).expect(code))
    };
    let link = scene.directory.path().join("link");
    std::os::unix::fs::symlink(scene.slave.parent().unwrap(), &link).unwrap();
    for path in [scene.slave.clone(), link.join("Data.fs")] {
        examine(&path, 0).expect("zeo-conf", "ok", "opens");
    }
    for path in [scene.slave.with_file_name("Other.fs"), link] {
        examine(&path, 2).expect("zeo-conf", "fail", "serve another file");
    }
    examine(Path::new("relative"), 2).expect("zeo-conf", "fail", "absolute");
    let mut missing = command(&scene);
    let missing = run(missing.args(["--zeo-conf", "/nowhere/zeo.conf"])).expect(2);
    Checks::of(&missing).expect("zeo-conf", "fail", "/nowhere/zeo.conf");
}
