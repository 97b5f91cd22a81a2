//! A watch of several storages.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::support::SiteScene;
use crate::support::{Zodb, project, wait_for};
use crate::watcher::Watcher;

fn watch(site: &SiteScene) -> Watcher {
    Watcher::logging_to(site.directory.path(), &mut site.command(&["--watch"]))
}

/// Whether the slave is equal to its master.
fn is_in_sync(site: &SiteScene, name: &str) -> bool {
    let read = |path: &Path| fs::read(path).ok();
    read(&site.slave(name)) == read(&site.master(name))
}

#[track_caller]
fn wait_for_sync(site: &SiteScene, name: &str) {
    wait_for("slave in sync", || is_in_sync(site, name));
}

/// Adds a storage whose master is a copy of a fixture.
fn add(site: &mut SiteScene, name: &str) {
    site.add(name, &site.master(name).display().to_string(), "");
    fs::copy(project("fixtures/commits.fs"), site.master(name)).expect("the fixture");
}

/// A commit to a master.
fn commit(site: &SiteScene, zodb: &mut Zodb, name: &str) {
    let path = site.master(name);
    zodb.call(&json!({"cmd": "open", "name": name, "path": path}));
    zodb.call(&json!({"cmd": "commit", "name": name}));
    zodb.call(&json!({"cmd": "close", "name": name}));
}

#[test]
fn no_storage_delays_another() {
    let names: Vec<_> = (0..16).map(|n| format!("s{n}")).collect();
    let mut site = SiteScene::of(&["diverged", "off"]);
    for name in &names {
        add(&mut site, name);
    }
    for name in ["hangs1", "hangs2"] {
        site.add_hanging(name, 60);
        fs::copy(project("fixtures/commits.fs"), site.slave(name)).unwrap();
    }
    site.run(&["-q", "--storage", "diverged"]).expect(0);
    site.diverge("diverged");
    site.run(&["off", "--storage", "off", "--force"]).expect(0);
    let watcher = watch(&site);
    wait_for("slaves in sync, and masters that hang", || {
        site.hanging() >= 2 && names.iter().all(|name| is_in_sync(&site, name))
    });
    let mut zodb = Zodb::start();
    for name in &names {
        commit(&site, &mut zodb, name);
    }
    for name in &names {
        wait_for_sync(&site, name);
    }
    let log = watcher.log();
    for line in [
        "site{storage=diverged}: NOT SYNCING FROM MASTER",
        "site{storage=off}: NOT SYNCING FROM MASTER",
        "site{storage=s7}: Finished syncing",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
    assert!(!site.slave("off").exists());

    let started = Instant::now();
    site.run(&["off", "-q"]).expect(0);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    let slaves = || names.iter().map(|name| fs::read(site.slave(name)).unwrap());
    let before: Vec<_> = slaves().collect();
    for name in &names {
        commit(&site, &mut zodb, name);
    }
    // A watch polls its master every second.
    thread::sleep(Duration::from_millis(1500));
    assert!(slaves().eq(before), "a slave was written while off");

    let (code, elapsed) = watcher.end();
    assert_eq!(code, 0, "all storages are off");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn a_watch_ends_with_the_most_severe_exit_code() {
    let mut site = SiteScene::of(&["diverged", "fine"]);
    site.add("nonsense", "host:/srv/Data.fs", "rsh = '/nonexistent'\n");
    site.run(&["-q", "--storage", "diverged"]).expect(0);
    site.diverge("diverged");
    let mut watcher = watch(&site);
    watcher.expect("site{storage=diverged}: NOT SYNCING FROM MASTER");
    wait_for_sync(&site, "fine");
    assert_eq!(watcher.end().0, 20);
}

#[test]
fn sighup_reads_the_configuration_again() {
    let mut site = SiteScene::of(&["kept", "removed"]);
    let mut watcher = watch(&site);
    for name in ["kept", "removed"] {
        wait_for_sync(&site, name);
    }
    let good = fs::read_to_string(site.config()).unwrap();
    let mut zodb = Zodb::start();

    // A file that is being written changes nothing.
    fs::write(site.config(), &good[..good.len() - 20]).unwrap();
    watcher.signal(Signal::HUP);
    watcher.expect("fssync.toml: line ");
    watcher.expect("the storages are watched as before");
    commit(&site, &mut zodb, "removed");
    wait_for_sync(&site, "removed");

    let kept = good.split("[storage.removed]").next().unwrap();
    fs::write(site.config(), kept).unwrap();
    watcher.signal(Signal::HUP);
    watcher.expect("read again");
    let threads_of_watches = || {
        let threads = fs::read_dir(format!("/proc/{}/task", watcher.pid())).unwrap();
        let names = threads.map(|it| fs::read_to_string(it.unwrap().path().join("comm")));
        names.flatten().filter(|name| name == "watch\n").count()
    };
    wait_for("one watch", || threads_of_watches() == 1);
    commit(&site, &mut zodb, "removed");
    commit(&site, &mut zodb, "kept");
    wait_for_sync(&site, "kept");
    assert!(!is_in_sync(&site, "removed"));

    fs::write(site.config(), &good).unwrap();
    add(&mut site, "added");
    watcher.signal(Signal::HUP);
    for name in ["kept", "removed", "added"] {
        wait_for_sync(&site, name);
    }
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn a_slave_whose_disk_is_mounted_late_is_followed() {
    let site = SiteScene::of(&["one", "late"]);
    fs::rename(site.at("late/slave"), site.at("unmounted")).unwrap();
    let mut watcher = watch(&site);
    watcher.expect("site{storage=late}: NOT SYNCING FROM MASTER");
    wait_for_sync(&site, "one");
    fs::rename(site.at("unmounted"), site.at("late/slave")).unwrap();
    wait_for_sync(&site, "late");
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn a_wrong_configuration_ends_a_watch_at_once() {
    let mut site = SiteScene::of(&["one"]);
    site.append("surprise = 1\n");
    let run = site.run(&["--watch"]).expect(2);
    assert!(run.stderr.contains("fssync.toml: line "), "{run:?}");
}

#[test]
fn systemd_receives_the_state_of_all_storages() {
    let mut site = SiteScene::of(&["site"]);
    site.add("gone", "/none/Data.fs", "");
    site.add_hanging("hung", 60);
    let path = site.at("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let timeout = Some(Duration::from_secs(20));
    socket.set_read_timeout(timeout).unwrap();
    let mut heard = String::new();
    let mut hear = |what: &str| {
        while !heard.contains(what) {
            let mut buffer = [0; 4096];
            let len = socket.recv(&mut buffer);
            let len = len.unwrap_or_else(|error| panic!("no {what:?} in {heard}: {error}"));
            heard += std::str::from_utf8(&buffer[..len]).unwrap();
        }
        let at = heard.find(what).unwrap();
        heard.drain(..at + what.len());
    };
    let mut command = site.command(&["--watch"]);
    command.env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "8000000");
    let watcher = Watcher::logging_to(site.directory.path(), &mut command);
    hear("READY=1\n");
    hear("STATUS=1 of 3 in sync; gone: unreachable for ");
    // Every thread works, also the one whose master hangs.
    for _ in 0..3 {
        hear("WATCHDOG=1\n");
    }
    let elapsed = watcher.end().1;
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    hear("STOPPING=1\n");
}
