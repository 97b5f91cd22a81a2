//! The script that starts ZEO for a cluster manager, and the drop-in of ZEO's unit.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{boot, shipped};
use crate::site::support::SiteScene;
use crate::support::{Run, Scene, must, project, python, run, tool};
use crate::zeo;

#[test]
fn shellcheck_finds_nothing_wrong_with_the_script() {
    let mut shellcheck = tool("shellcheck", "shellcheck");
    shellcheck
        .current_dir(project(""))
        .args(["--external-sources", "--shell=sh"]);
    must(shellcheck.arg("contrib/failover/fssync-zeo"));
}

#[test]
fn zeo_is_started_when_syncing_is_off() {
    let (scene, machine) = boot();
    scene.expect("full-copy");
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
    let (scene, machine) = boot();
    scene.expect("full-copy");
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
    let (scene, machine) = boot();
    scene.expect("full-copy");
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
    script_in(scene.directory.path(), verb)
}

fn script_in(directory: &Path, verb: &str) -> Run {
    let path = std::env::var("PATH").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_fssync")).parent().unwrap();
    let mut command = Command::new(project("contrib/failover/fssync-zeo"));
    command.current_dir(directory);
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

/// A site of two storages that one ZEO serves, and the script that starts this ZEO.
struct Pair {
    site: SiteScene,
    zeo: zeo::Instance,
}

impl Pair {
    fn new() -> Self {
        let site = SiteScene::of(&["site", "catalog"]);
        site.run(&[]).expect(0);
        let zeo = zeo::Instance::new(&site.slave("site"), &site.at("zeo"));
        let catalog = site.slave("catalog");
        let section = format!(
            "<filestorage 2>\n  path {}\n</filestorage>\n",
            catalog.display()
        );
        for path in [zeo.zeo_conf(), zeo.configuration.clone()] {
            let text = fs::read_to_string(&path).unwrap();
            let (address, rest) = text.split_once("<filestorage 1>").unwrap();
            fs::write(&path, format!("{address}{section}<filestorage 1>{rest}")).unwrap();
        }
        let pair = Self { site, zeo };
        pair.configure("");
        pair
    }

    /// Configures the script for all storages, with more settings.
    fn configure(&self, more: &str) {
        let zeoctl = zeo::program("zeoctl").display().to_string();
        let zeoctl = |verb| format!("{zeoctl} -C {} {verb}", self.zeo.configuration.display());
        let settings = format!(
            "FSSYNC_OFF='fssync off --config {}'\nZEO_CONF='{}'\nZEO_START='{}'\n\
             ZEO_STOP='{}'\nZEO_STATUS='{}'\n{more}\n",
            self.site.config().display(),
            self.zeo.zeo_conf().display(),
            zeoctl("start"),
            zeoctl("stop"),
            zeoctl("status"),
        );
        fs::write(self.site.at("my.conf"), settings).unwrap();
    }

    fn script(&self, verb: &str) -> Run {
        script_in(self.site.directory.path(), verb)
    }

    /// Fails unless the script refuses to start ZEO with this error, and leaves syncing on.
    #[track_caller]
    fn refuses(&self, code: i32, why: &str) {
        let refused = self.script("start").expect(code);
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert!(refused.stderr.contains("ZEO is not started"), "{refused:?}");
        self.script("status").expect(3);
        assert!(!self.is_off("site") && !self.is_off("catalog"));
    }

    fn is_off(&self, name: &str) -> bool {
        let switch = fs::read_to_string(self.site.beside(name, ".fssync-switch"));
        switch.is_ok_and(|text| text == "SYNCING=0\n")
    }

    /// The last transaction of each storage that ZEO serves, according to a client.
    fn served(&self) -> String {
        let script = "import sys\nfrom ZEO.ClientStorage import ClientStorage\n\
                      for name in sys.argv[2:]:\n\
                      \x20   it = ClientStorage(('127.0.0.1', int(sys.argv[1])), storage=name)\n\
                      \x20   print(len(it), it.lastTransaction().hex())\n\
                      \x20   it.close()\n";
        let mut client = Command::new(python());
        client.args(["-c", script, &self.zeo.port.to_string(), "1", "2"]);
        run(&mut client).expect(0).stdout
    }

    fn on(&self) {
        self.site.run(&["on", "--force"]).expect(0);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.script("stop");
    }
}

#[test]
fn zeo_serves_all_storages_of_a_configuration() {
    let pair = Pair::new();
    let started = pair.script("start").expect(0);
    for name in ["site", "catalog"] {
        assert!(pair.is_off(name), "{name}: {started:?}");
    }
    let served = pair.served();
    let lines: Vec<_> = served.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{served}");
    assert!(lines[0].ends_with("0405ff9284444444"), "{served}");
    pair.site.run(&[]).expect(10);
    // A program has the slaves open.
    pair.site.run(&["on"]).expect(13);
    pair.script("stop").expect(0);
    pair.script("status").expect(3);
}

#[test]
fn zeo_is_not_started_unless_all_of_its_storages_can_be_served() {
    let pair = Pair::new();
    let zeo_conf = fs::read_to_string(pair.zeo.zeo_conf()).unwrap();
    let (_, site) = zeo_conf.split_once("<filestorage 1>").unwrap();
    fs::write(pair.zeo.zeo_conf(), format!("<filestorage 1>{site}")).unwrap();
    pair.refuses(1, "does not name the slave");
    fs::write(pair.zeo.zeo_conf(), &zeo_conf).unwrap();

    let toml = fs::read_to_string(pair.site.config()).unwrap();
    fs::write(pair.site.config(), format!("{toml}wrong = 1\n")).unwrap();
    pair.refuses(6, "unknown field");
    fs::write(pair.site.config(), &toml).unwrap();

    let slave = pair.site.slave("catalog");
    let away = pair.site.at("away");
    fs::rename(&slave, &away).unwrap();
    pair.refuses(1, "missing or empty");
    fs::rename(&away, &slave).unwrap();

    let mut damaged = fs::read(&slave).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&slave, damaged).unwrap();
    pair.site
        .run(&["verify", "--storage", "catalog"])
        .expect(31);
    pair.refuses(1, "catalog");
    // Another ZEO serves the other storage.
    let site = "FSSYNC_OFF=\"$FSSYNC_OFF --storage site\"";
    pair.configure(site);
    pair.script("start").expect(0);
    assert!(pair.is_off("site") && !pair.is_off("catalog"));
    pair.script("stop").expect(0);
    pair.on();
    // An administrator may have no better copy.
    pair.configure("FSSYNC_STATUS=:");
    pair.script("start").expect(0);
    assert!(pair.is_off("site") && pair.is_off("catalog"));
    pair.script("stop").expect(0);
}

#[test]
fn zeo_is_not_started_if_syncing_of_another_storage_is_switched_off() {
    let pair = Pair::new();
    let slave = pair.site.slave("catalog");
    let other = format!(
        "FSSYNC_OFF=\"$FSSYNC_OFF --storage=site\" SLAVE={}",
        slave.display()
    );
    pair.configure(&other);
    pair.refuses(1, "but FSSYNC_OFF names");
}
