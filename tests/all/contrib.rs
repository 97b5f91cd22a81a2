//! The files below `contrib`, unchanged and in their places, on a machine with a real systemd.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::blobs::derived::on_disk;
use crate::machine::Machine;
use crate::sshd::Sshd;
use crate::support::{
    Run, Scene, Setup, Zodb, blobs_beside, must, project, run, tool, write_program,
};
use crate::zeo::{self, eventually};

/// A file below `contrib`.
fn shipped(path: &str) -> String {
    fs::read_to_string(project("contrib").join(path)).expect(path)
}

/// Fails unless the slave equals the master, and no file there belongs to root.
fn assert_in_sync(scene: &Scene, zodb: &mut Zodb) {
    zodb.assert_in_sync(&scene.master, &scene.slave);
    for name in scene.beside_slave() {
        // A temporary file may have been renamed by now.
        if let Ok(file) = fs::metadata(scene.slave.with_file_name(&name)) {
            assert_ne!(file.uid(), 0, "{name} is the user zope's");
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    let programs = root.path().join("usr/bin");
    fs::create_dir_all(units.join("zeo.service.d")).unwrap();
    fs::create_dir_all(&programs).unwrap();
    for program in ["fssync", "kill", "runzeo"] {
        let program = programs.join(program);
        write_program(&program, "#!/bin/sh\n");
    }
    for name in [
        "fssync.service",
        "fssync@.service",
        "fssync@.timer",
        "zeo.service.d/fssync.conf",
    ] {
        fs::write(units.join(name), shipped(&format!("systemd/{name}"))).unwrap();
    }
    fs::write(units.join("zeo.service"), "[Service]\nExecStart=runzeo\n").unwrap();
    for target in ["sysinit", "basic", "shutdown", "timers"] {
        fs::write(units.join(format!("{target}.target")), "[Unit]\n").unwrap();
    }
    let mut analyze = tool("systemd-analyze", "systemd");
    analyze
        .args(["verify", "--man=no", "--root"])
        .arg(root.path());
    analyze.args([
        "fssync.service",
        "fssync@plone.service",
        "fssync@plone.timer",
        "zeo.service",
    ]);
    assert_eq!(run(&mut analyze).expect(0).stderr, "");
}

#[test]
fn shellcheck_finds_nothing_wrong_with_the_script() {
    let mut shellcheck = tool("shellcheck", "shellcheck");
    shellcheck
        .current_dir(project(""))
        .args(["--external-sources", "--shell=sh"]);
    must(shellcheck.arg("contrib/failover/fssync-zeo"));
}

#[test]
fn cron_runs_a_pass_without_output() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let table = shipped("cron.d/fssync");
    let path = table
        .lines()
        .find(|line| line.starts_with("PATH="))
        .unwrap();
    let line = table.lines().last().unwrap();
    let fields: Vec<_> = line.splitn(7, ' ').collect();
    assert_eq!(
        fields[..6],
        ["*", "*", "*", "*", "*", "zope"],
        "each minute"
    );
    let as_zope = ["setpriv", "--reuid=zope", "--regid=zope", "--clear-groups"];
    let command = [&["env", "-i", path], &as_zope[..], &["sh", "-c", fields[6]]].concat();
    let ran = machine.run(&command).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_in_sync(&scene, &mut Zodb::start());
    let page = fs::read_to_string(project("docs/setup.md")).unwrap();
    assert!(page.contains(line), "the page has the same line");
}

#[test]
fn a_systemd_timer_runs_a_pass() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let mut zodb = Zodb::start();
    machine
        .run(&["systemctl", "start", "fssync@plone.service"])
        .expect(0);
    assert_in_sync(&scene, &mut zodb);

    machine
        .run(&["systemctl", "start", "fssync@plone.timer"])
        .expect(0);
    assert_eq!(
        machine.property("fssync@plone.timer", "ActiveState"),
        "active"
    );
    let triggers = machine.property("fssync@plone.timer", "Triggers");
    assert_eq!(triggers, "fssync@plone.service");

    let off = [
        "runuser",
        "-u",
        "zope",
        "--",
        "fssync",
        "off",
        "/srv/plone/var",
    ];
    machine.run(&off).expect(0);
    // systemd keeps the exit status of a service that has a timer.
    machine
        .run(&["systemctl", "start", "fssync@other.timer"])
        .expect(0);
    machine
        .run(&["systemctl", "start", "fssync@other.service"])
        .expect(0);
    let status = machine.property("fssync@other.service", "ExecMainStatus");
    assert_eq!(status, "10", "off is not a failure");
}

/// Commits to the master, and waits until the slave has the transaction.
fn assert_followed(scene: &Scene, zodb: &mut Zodb) {
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 1, "size": 100}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let master = fs::read(&scene.master).unwrap();
    eventually("the slave has the master's bytes", || {
        fs::read(&scene.slave).is_ok_and(|slave| slave == master)
    });
    assert_in_sync(scene, zodb);
}

#[test]
fn systemd_restarts_a_watch() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let mut zodb = Zodb::start();
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    assert_followed(&scene, &mut zodb);
    let status = machine.property("fssync", "StatusText");
    assert!(!status.is_empty(), "systemd has its status");
    machine.run(&["systemctl", "reload", "fssync"]).expect(0);
    assert_followed(&scene, &mut zodb);

    let pid = machine.property("fssync", "MainPID");
    assert_ne!(pid, "0", "it runs");
    machine.run(&["kill", "-KILL", &pid]).expect(0);
    eventually("a restart", || {
        machine.property("fssync", "NRestarts") == "1"
    });
    eventually("a new start", || {
        machine.property("fssync", "ActiveState") == "active"
    });
    assert_followed(&scene, &mut zodb);

    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "0");
    assert_eq!(machine.property("fssync", "Result"), "success");
    scene.assert_documented_names();
}

#[test]
fn systemd_runs_a_watch_through_ssh() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let (key, rsh) = Sshd::get().rsh_with_key("/etc/fssync-key");
    let copy = machine.file("etc/fssync-key");
    fs::copy(key, &copy).unwrap();
    must(
        Command::new("chown")
            .arg("--reference")
            .args([scene.slave.parent().unwrap(), &copy]),
    );
    let settings = format!(
        "MASTER={}\nSLAVE=/srv/plone/var\nFSSYNC_OPTIONS=\"-e '{rsh}' --remote-fssync {}\"\n",
        Sshd::get().url(&scene.master),
        env!("CARGO_BIN_EXE_fssync"),
    );
    fs::write(machine.file("etc/default/fssync"), settings).unwrap();
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    assert_followed(&scene, &mut Zodb::start());
    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "0");
}

#[test]
fn systemd_runs_a_watch_that_copies_blobs() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 3}));
    let machine = Machine::boot(&scene);
    let settings = shipped("default/fssync");
    let line = "FSSYNC_OPTIONS=--blobs\n";
    let settings = settings.replace(&format!("#{line}"), line);
    assert!(
        settings.lines().any(|it| it == line.trim_end()),
        "{settings}"
    );
    fs::write(machine.file("etc/default/fssync"), settings).unwrap();
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 2}));
    let master = fs::read(&scene.master).unwrap();
    eventually("the slave has the master's bytes", || {
        fs::read(&scene.slave).is_ok_and(|slave| slave == master)
    });
    let blobs = scene.slave.with_file_name("blobstorage");
    assert_eq!(on_disk(&blobs), on_disk(&blobs_beside(&scene.master)));
    let owner = fs::metadata(blobs).unwrap().uid();
    assert_eq!(owner, fs::metadata(&scene.slave).unwrap().uid());
    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "0");
}

#[test]
fn systemd_does_not_restart_a_misconfigured_watch() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let wrong = "MASTER=/mnt/master/var\nSLAVE=/srv/plone/var\nFSSYNC_OPTIONS=--wrong\n";
    fs::write(machine.file("etc/default/fssync"), wrong).unwrap();
    assert_ne!(machine.run(&["systemctl", "start", "fssync"]).code, 0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "2");
    assert_eq!(machine.property("fssync", "ActiveState"), "failed");
}

#[test]
fn supervisor_restarts_a_watch() {
    let scene = Scene::with_master("commits");
    let machine = Machine::boot(&scene);
    let mut zodb = Zodb::start();
    let configuration = scene.directory.path().join("supervisord.conf");
    fs::write(&configuration, SUPERVISORD).unwrap();
    let configuration = configuration.to_str().unwrap();
    let supervisor = |program: &str, words: &[&str]| {
        let program = zeo::program(program);
        let words = [&[program.to_str().unwrap(), "-c", configuration], words].concat();
        machine.run(&words)
    };
    let pid = || {
        supervisor("supervisorctl", &["pid", "fssync"])
            .stdout
            .trim()
            .to_owned()
    };
    let log = || {
        machine
            .run(&["cat", "/run/supervisord.log"])
            .expect(0)
            .stdout
    };
    supervisor("supervisord", &[]).expect(0);
    assert_followed(&scene, &mut zodb);

    let first = pid();
    assert_ne!(first, "0", "it runs");
    machine.run(&["kill", "-KILL", &first]).expect(0);
    eventually("a restart", || !["0", &first].contains(&pid().as_str()));
    assert_followed(&scene, &mut zodb);

    supervisor("supervisorctl", &["stop", "fssync"]).expect(0);
    let log = log();
    assert!(log.contains("terminated by SIGKILL; not expected"), "{log}");
    assert!(log.contains("stopped: fssync (exit status 0)"), "{log}");
    let log = machine
        .run(&["cat", "/var/log/supervisor/fssync.log"])
        .expect(0)
        .stdout;
    assert!(log.contains("Start syncing"), "{log}");
}

/// The part of supervisor's configuration that is not about fssync.
const SUPERVISORD: &str = "\
[unix_http_server]
file=/run/supervisor.sock
[supervisord]
user=root
logfile=/run/supervisord.log
pidfile=/run/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///run/supervisor.sock
[include]
files=/etc/supervisor/conf.d/*.conf
";

#[test]
fn zeo_is_started_when_syncing_is_off() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let machine = Machine::boot(&scene);
    machine.run(&["systemctl", "start", "zeo"]).expect(0);
    let switch = fs::read_to_string(scene.beside(".fssync-switch")).unwrap();
    assert_eq!(switch, "SYNCING=0\n");
    machine.run(&["fssync-zeo", "start"]).expect(0);
    let status = machine.run(&["fssync-zeo", "status"]).expect(0);
    assert_eq!(status.stdout, "running\n");
    machine.run(&["fssync-zeo", "stop"]).expect(0);
    machine.run(&["fssync-zeo", "status"]).expect(3);
}

#[test]
fn the_script_accepts_the_arguments_of_each_cluster_manager() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let machine = Machine::boot(&scene);
    let settings = shipped("failover/fssync-zeo.conf")
        .replace("systemctl start zeo", "touch /run/zeo")
        .replace("systemctl stop zeo", "rm /run/zeo")
        .replace("systemctl is-active --quiet zeo", "test -e /run/zeo");
    fs::write(machine.file("etc/fssync-zeo.conf"), settings).unwrap();
    let script = |words: &[&str]| machine.run(&[&["fssync-zeo"], words].concat());
    let is_stopped = |run: Run| assert_eq!(run.expect(3).stdout, "stopped\n");
    let is_running = |run: Run| assert_eq!(run.expect(0).stdout, "running\n");
    for (how, start, stop, status) in [
        ("by hand", &["start"][..], &["stop"][..], &["status"][..]),
        (
            "heartbeat",
            &["/etc/fssync-zeo.conf", "start"],
            &["/etc/fssync-zeo.conf", "stop"],
            &["/etc/fssync-zeo.conf", "status"],
        ),
        (
            "keepalived",
            &["INSTANCE", "VI_1", "MASTER", "100"],
            &["INSTANCE", "VI_1", "BACKUP", "100"],
            &["status"],
        ),
        (
            "keepalived's groups",
            &["GROUP", "G_1", "MASTER", "0"],
            &["GROUP", "G_1", "FAULT", "0"],
            &["status"],
        ),
    ] {
        eprintln!("{how}");
        is_stopped(script(status));
        script(stop).expect(0);
        for _again in 0..2 {
            assert!(script(start).expect(0).stdout.contains("syncing is off"));
            is_running(script(status));
        }
        script(stop).expect(0);
        is_stopped(script(status));
    }
    for wrong in [
        &[][..],
        &["restart"],
        &["INSTANCE", "VI_1", "MASTER_PRIORITY", "100"],
        &["INSTANCE", "VI_1", "MASTER"],
        &["/etc/fssync-zeo.conf", "VI_1", "MASTER", "100"],
    ] {
        script(wrong).expect(2);
    }
    script(&["/etc/no-such-file", "start"]).expect(6);
    let incomplete = shipped("failover/fssync-zeo.conf").replace("FSSYNC_OFF=", "#");
    fs::write(machine.file("etc/incomplete.conf"), incomplete).unwrap();
    script(&["/etc/incomplete.conf", "start"]).expect(6);
    is_stopped(script(&["status"]));
}

#[test]
fn zeo_is_not_started_if_syncing_cannot_be_switched_off() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let machine = Machine::boot(&scene);
    fs::create_dir(scene.beside(".fssync-switch")).unwrap();
    let started = machine.run(&["fssync-zeo", "start"]).expect(1);
    assert!(started.stderr.contains("ZEO is not started"), "{started:?}");
    assert_eq!(machine.property("zeo", "ActiveState"), "inactive");

    assert_ne!(machine.run(&["systemctl", "start", "zeo"]).code, 0);
    assert_eq!(machine.property("zeo", "ActiveState"), "failed");
    let off = machine.property("zeo", "ExecStartPre");
    let failed = off.contains("fssync off") && off.contains("status=1 ");
    assert!(failed, "{off}");
}

/// Runs the script with a configuration in the scene's directory, by its bare name.
pub fn script(scene: &Scene, verb: &str) -> Run {
    let path = std::env::var("PATH").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_fssync")).parent().unwrap();
    let mut command = Command::new(project("contrib/failover/fssync-zeo"));
    command.current_dir(scene.directory.path());
    command.env("PATH", format!("{}:{path}", program.display()));
    run(command.args(["my.conf", verb]))
}

/// Configures the script. ZEO "runs" if a certain file exists in the scene's directory.
pub fn configure(scene: &Scene, more: &str) {
    let slave = scene.slave.parent().unwrap().display();
    let settings = format!(
        "FSSYNC_OFF='fssync off {slave}'\nZEO_START='touch zeo-runs'\n\
         ZEO_STOP='rm zeo-runs'\nZEO_STATUS='test -e zeo-runs'\n{more}\n"
    );
    fs::write(scene.directory.path().join("my.conf"), settings).unwrap();
}

#[test]
fn the_script_finds_its_configuration_in_the_current_directory() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    configure(&scene, "");
    assert_eq!(script(&scene, "status").expect(3).stdout, "stopped\n");
    script(&scene, "start").expect(0);
    assert_eq!(script(&scene, "status").expect(0).stdout, "running\n");
}

#[test]
fn zeo_is_not_started_on_a_file_that_is_missing() {
    let scene = Scene::with_master("commits");
    let says = "missing or empty; ZEO is not started";
    configure(&scene, "");
    let refused = script(&scene, "start").expect(1);
    assert!(refused.stderr.contains(says), "{refused:?}");

    // A FileStorage without a transaction.
    fs::write(&scene.slave, b"FS30").unwrap();
    let refused = script(&scene, "start").expect(1);
    assert!(refused.stderr.contains(says), "{refused:?}");
    fs::remove_file(&scene.slave).unwrap();

    // A pass has failed, or its first copy is in progress: `fssync off` alone would succeed.
    scene.expect("full-copy");
    fs::remove_file(&scene.slave).unwrap();
    let refused = script(&scene, "start").expect(1);
    assert!(refused.stderr.contains(says), "{refused:?}");
    assert!(!scene.beside(".fssync-switch").exists(), "passes go on");
    script(&scene, "status").expect(3);
    scene.expect("full-copy");
    script(&scene, "start").expect(0);
}

#[test]
fn zeo_is_started_only_if_syncing_of_the_same_slave_is_switched_off() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let other = scene.directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(&scene.slave, other.join("Data.fs")).unwrap();
    configure(&scene, &format!("SLAVE={}", other.display()));
    let refused = script(&scene, "start").expect(1);
    assert!(
        refused.stderr.contains("but FSSYNC_OFF names"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("ZEO is not started"), "{refused:?}");
    assert!(!scene.beside(".fssync-switch").exists(), "passes go on");
    script(&scene, "status").expect(3);
    // The same slave by another path, and commands without a path.
    let link = scene.directory.path().join("link");
    std::os::unix::fs::symlink(scene.slave.parent().unwrap(), &link).unwrap();
    for more in [
        format!("SLAVE={}", link.display()),
        format!("SLAVE={} FSSYNC_OFF=:", other.display()),
        format!("SLAVE={} FSSYNC_OFF=/bin/true", other.display()),
        format!(
            "FSSYNC_OFF=\"$FSSYNC_OFF; true /off\" SLAVE={}",
            link.display()
        ),
        format!(
            "FSSYNC_OFF=\"$FSSYNC_OFF --status-file {}/s\" SLAVE={}",
            other.display(),
            scene.slave.display()
        ),
    ] {
        configure(&scene, &more);
        script(&scene, "start").expect(0);
        script(&scene, "stop").expect(0);
    }
}

#[test]
fn zeo_is_started_only_on_the_slave() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let directory = scene.slave.parent().unwrap().to_str().unwrap();
    let zeo_conf = scene.directory.path().join("zeo.conf");
    let settings = [
        format!("ZEO_CONF={}", zeo_conf.display()),
        format!("ZEO_START='touch zeo-runs # {}'", zeo_conf.display()),
        format!(
            "ZEO_CONF={} SLAVE={}",
            zeo_conf.display(),
            scene.slave.display()
        ),
    ];
    let storage = |path: &str| format!("<filestorage 1>\n  path {path}\n</filestorage>\n");
    let slave = storage(&format!("{directory}/Data.fs"));
    let other = scene.directory.path().join("other.fs");
    fs::copy(&scene.master, &other).unwrap();
    let other = storage(other.to_str().unwrap());
    let refused = [
        (other, "does not name the slave"),
        (storage(&format!("{directory}/Date.fs")), "missing or empty"),
        (slave.clone() + &storage("/no/Data.fs"), "missing or empty"),
        (
            "<zeo>\n path /x\n</zeo>\n".to_owned(),
            "does not name the slave",
        ),
    ];
    let defines = format!("%define VAR {directory}\n%define fs $var/Data.fs\n");
    let nested = format!(
        "<ZlibStorage>\n\t<FileStorage>\n\tPath\t{directory}/Data.fs  \n</FileStorage>\n\
         </ZlibStorage>"
    );
    let started = [
        slave,
        storage(&format!("{directory}/../slave/Data.fs")),
        defines + &storage("${FS}"),
        nested,
    ];
    for more in &settings {
        configure(&scene, more);
        for (conf, why) in &refused {
            fs::write(&zeo_conf, conf).unwrap();
            let refused = script(&scene, "start").expect(1);
            assert!(refused.stderr.contains(why), "{refused:?}");
            assert!(refused.stderr.contains("ZEO is not started"), "{refused:?}");
            assert!(refused.stderr.contains("set ZEO_CONF=''"), "{refused:?}");
            script(&scene, "status").expect(3);
        }
        for conf in &started {
            fs::write(&zeo_conf, conf).unwrap();
            let started = script(&scene, "start");
            assert_eq!(started.code, 0, "{conf}: {started:?}");
            script(&scene, "stop").expect(0);
        }
    }
    fs::remove_file(&zeo_conf).unwrap();
    configure(&scene, &settings[0]);
    script(&scene, "start").expect(6);
}
