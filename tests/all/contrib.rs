//! The files below `contrib`, unchanged and in their places, on a machine with a real systemd.

mod quick_start;
pub mod script;
mod units;

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::machine::Machine;
use crate::support::{Scene, Zodb, project};
use crate::zeo::{self, eventually};

/// A file below `contrib`.
fn shipped(path: &str) -> String {
    fs::read_to_string(project("contrib").join(path)).expect(path)
}

/// A machine whose master is the copy of a fixture. It has no blobs.
fn boot() -> (Scene, Machine) {
    let scene = Scene::plone().copied_from("commits");
    let machine = Machine::boot(&scene);
    configure(&machine, &[("blobs = true", "blobs = false")]);
    (scene, machine)
}

/// Replaces texts in the machine's `fssync.toml`.
fn configure(machine: &Machine, replacements: &[(&str, &str)]) {
    let path = machine.file("etc/fssync/fssync.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from}: {text}");
        text = text.replace(from, to);
    }
    fs::write(path, text).unwrap();
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
fn cron_runs_a_pass_without_output() {
    let (scene, machine) = boot();
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
fn supervisor_restarts_a_watch() {
    let (scene, machine) = boot();
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
