//! The units of systemd.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{assert_followed, assert_in_sync, boot, configure, shipped};
use crate::blobs::derived::on_disk;
use crate::machine::Machine;
use crate::sshd::Sshd;
use crate::support::{Scene, Setup, Zodb, blobs_beside, must, project, run, tool, write_program};
use crate::zeo::eventually;

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
    for unit in ["fssync.service", "fssync@.service"] {
        // The highest exposure is 100.
        let mut analyze = tool("systemd-analyze", "systemd");
        analyze.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]);
        run(analyze.arg(units.join(unit))).expect(0);
    }
}

#[test]
fn a_systemd_timer_runs_a_pass() {
    let (scene, machine) = boot();
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
        "--storage",
        "plone",
    ];
    machine.run(&off).expect(0);
    // systemd keeps the exit status of a service that has a timer.
    // Each unit is started only once.
    let other = "[storage.other]\nmaster = '/mnt/master/var/filestorage'\n\
                 slave = '/srv/plone/var/filestorage/other.fs'\n";
    let path = machine.file("etc/fssync/fssync.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + other).unwrap();
    machine
        .run(&["fssync", "off", "--storage", "other"])
        .expect(0);
    machine
        .run(&["systemctl", "start", "fssync@other.timer"])
        .expect(0);
    machine
        .run(&["systemctl", "start", "fssync@other.service"])
        .expect(0);
    let status = machine.property("fssync@other.service", "ExecMainStatus");
    assert_eq!(status, "10", "off is not a failure");
}

#[test]
fn systemd_restarts_a_watch() {
    let (scene, machine) = boot();
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
    let (scene, machine) = boot();
    let (key, rsh) = Sshd::get().rsh_with_key("/etc/fssync-key");
    let copy = machine.file("etc/fssync-key");
    fs::copy(key, &copy).unwrap();
    must(
        Command::new("chown")
            .arg("--reference")
            .args([scene.slave.parent().unwrap(), &copy]),
    );
    let url = Sshd::get().url(&scene.master);
    let rsh = format!("rsh = \"{rsh}\"");
    configure(
        &machine,
        &[
            ("master = \"/mnt/master/var/filestorage\"", ""),
            (
                "#master = \"zope@first:/srv/plone/var/filestorage\"",
                &format!("master = '{url}'"),
            ),
            ("#rsh = \"ssh -i /home/zope/.ssh/fssync\"", &rsh),
        ],
    );
    // The program at the other end is not in the search path there.
    let options = format!(
        "FSSYNC_OPTIONS=--remote-fssync={}\n",
        env!("CARGO_BIN_EXE_fssync")
    );
    fs::write(machine.file("etc/default/fssync"), options).unwrap();
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    assert_followed(&scene, &mut Zodb::start());
    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "0");
}

#[test]
fn systemd_runs_a_watch_that_copies_blobs() {
    let scene = Scene::plone();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 3}));
    // New directories of blobs then are set-group-ID, too.
    let var = blobs_beside(&scene.slave).with_file_name("");
    must(Command::new("chmod").args(["-R", "g+s"]).arg(&var));
    let machine = Machine::boot(&scene);
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 2}));
    let master = fs::read(&scene.master).unwrap();
    eventually("the slave has the master's bytes", || {
        fs::read(&scene.slave).is_ok_and(|slave| slave == master)
    });
    let blobs = blobs_beside(&scene.slave);
    assert_eq!(on_disk(&blobs), on_disk(&blobs_beside(&scene.master)));
    let blobs = fs::metadata(blobs).unwrap();
    assert_eq!(blobs.mode() & 0o2000, 0o2000, "it is set-group-ID");
    let owner = blobs.uid();
    assert_eq!(owner, fs::metadata(&scene.slave).unwrap().uid());
    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "0");
}

/// The storage number `n` of twenty: a section of `fssync.toml`.
fn section(n: u32) -> String {
    let [master, slave] = ["mnt/master", "srv/plone"].map(|it| format!("/{it}/var/filestorage"));
    format!("[storage.s{n}]\nmaster = '{master}/s{n}.fs'\nslave = '{slave}/s{n}.fs'\n")
}

#[test]
fn systemd_runs_one_watch_for_twenty_storages() {
    let scene = Scene::plone();
    for n in 1..=21 {
        let master = scene.master.with_file_name(format!("s{n}.fs"));
        fs::copy(project("fixtures/commits.fs"), master).unwrap();
    }
    let machine = Machine::boot(&scene);
    let toml = machine.file("etc/fssync/fssync.toml");
    let mut text = String::new();
    for n in 1..=20 {
        let _ = writeln!(text, "{}", section(n));
    }
    fs::write(&toml, &text).unwrap();
    let drop_in = machine.file("etc/systemd/system/fssync.service.d/test.conf");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    fs::write(drop_in, "[Service]\nWatchdogSec=8s\nTimeoutAbortSec=1s\n").unwrap();
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    let has_status = |parts: &[&str]| {
        eventually(&format!("{parts:?}"), || {
            let status = machine.property("fssync", "StatusText");
            parts.iter().all(|part| status.contains(part))
        });
    };

    // It ends when systemd has received READY=1.
    machine.run(&["systemctl", "start", "fssync"]).expect(0);
    has_status(&["20 of 20 in sync"]);
    for n in 1..=20 {
        let name = format!("s{n}.fs");
        let [master, slave] = [&scene.master, &scene.slave].map(|it| it.with_file_name(&name));
        assert_eq!(
            fs::read(slave).unwrap(),
            fs::read(master).unwrap(),
            "{name}"
        );
    }
    machine.run(&["fssync", "off", "--storage", "s7"]).expect(0);
    has_status(&["19 of 20 in sync", "s7"]);
    let _ = writeln!(text, "{}", section(21));
    fs::write(&toml, text).unwrap();
    machine.run(&["systemctl", "reload", "fssync"]).expect(0);
    has_status(&["20 of 21 in sync", "s7"]);

    assert_eq!(machine.property("fssync", "NRestarts"), "0");
    let pid = machine.property("fssync", "MainPID");
    machine.run(&["kill", "-STOP", &pid]).expect(0);
    eventually("a restart by the watchdog", || {
        machine.property("fssync", "NRestarts") == "1"
    });
    has_status(&["20 of 21 in sync", "s7"]);
    let started = Instant::now();
    machine.run(&["systemctl", "stop", "fssync"]).expect(0);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!(machine.property("fssync", "Result"), "success");
}

#[test]
fn systemd_does_not_restart_a_misconfigured_watch() {
    let (_scene, machine) = boot();
    configure(&machine, &[("slave = ", "slaves = ")]);
    assert_ne!(machine.run(&["systemctl", "start", "fssync"]).code, 0);
    assert_eq!(machine.property("fssync", "ExecMainStatus"), "2");
    assert_eq!(machine.property("fssync", "ActiveState"), "failed");
}
