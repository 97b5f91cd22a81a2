//! A watch of several storages.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::support::SiteScene;
use crate::fuse::Served;
use crate::support::{NotifySocket, Zodb, project, tool, wait_for, write_program};
use crate::watcher::Watcher;

/// How often a watch polls a master by default.
const INTERVAL: Duration = Duration::from_secs(1);

/// The largest memory of a watch of 20 storages, in kilobytes.
const MAX_MEMORY: u64 = 48 * 1024;

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

/// 16 good storages, one whose master never responds, one whose master stops responding so that a
/// thread hangs in the kernel, one that diverged, and one that is off.
#[test]
fn no_storage_delays_another() {
    let names: Vec<_> = (0..16).map(|n| format!("s{n}")).collect();
    let mut site = SiteScene::of(&["diverged", "off"]);
    for name in &names {
        add(&mut site, name);
    }
    site.add_hanging("silent", 2);
    fs::copy(project("fixtures/commits.fs"), site.slave("silent")).unwrap();
    fs::create_dir(site.at("served")).unwrap();
    fs::copy(project("fixtures/commits.fs"), site.at("served/Data.fs")).unwrap();
    let served = Served::directory(&site.at("served"));
    let master = served.file("Data.fs").display().to_string();
    site.add("stuck", &master, "timeout = 2\n");
    site.run(&["-q", "--storage", "diverged"]).expect(0);
    site.diverge("diverged");
    site.run(&["off", "--storage", "off", "--force"]).expect(0);

    let mut systemd = NotifySocket::in_directory(site.directory.path());
    let mut command = site.command(&["--watch"]);
    systemd.serve(&mut command, Duration::from_secs(8));
    let watcher = Watcher::logging_to(site.directory.path(), &mut command);
    systemd.expect("READY=1\n");
    systemd.expect("STATUS=17 of 20 in sync; diverged: diverged for ");
    let silence = served.silence_at(0);
    served.wait_until_stuck();
    systemd.expect("STATUS=16 of 20 in sync; diverged: diverged for ");
    systemd.expect("; off: off for ");
    systemd.expect("; silent: unreachable for ");
    systemd.expect("; stuck: unreachable for ");

    let mut zodb = Zodb::start();
    let mut delays: Vec<_> = (names.iter())
        .map(|name| {
            commit(&site, &mut zodb, name);
            let committed = Instant::now();
            wait_for_sync(&site, name);
            committed.elapsed()
        })
        .collect();
    delays.sort();
    assert!(delays[8] < INTERVAL, "{delays:?}");
    // Every thread that follows a storage works.
    systemd.during(Duration::ZERO);
    for _ in 0..2 {
        systemd.expect("WATCHDOG=1\n");
    }
    assert!(peak_memory(watcher.pid()) <= MAX_MEMORY);
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
    thread::sleep(INTERVAL.mul_f64(1.5));
    assert!(slaves().eq(before), "a slave was written while off");
    systemd.expect("STATUS=0 of 20 in sync; diverged: off for ");

    // A process with a thread that hangs in the kernel cannot end.
    drop(silence);
    let (code, elapsed) = watcher.end();
    assert_eq!(code, 0, "all storages are off");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// The largest memory that a process had so far, in kilobytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|it| it.parse().ok()).expect("a number")
}

/// The thread of a storage hangs at its switch, on a file system that does not respond.
#[test]
fn a_reload_does_not_wait_for_a_removed_storage_that_hangs() {
    let mut site = SiteScene::of(&["kept"]);
    let without = fs::read_to_string(site.config()).unwrap();
    fs::create_dir(site.at("switches")).unwrap();
    fs::write(site.at("switches/removed"), "SYNCING=1\n").unwrap();
    let served = Served::directory(&site.at("switches"));
    let master = site.master("removed").display().to_string();
    let switch = served.file("removed").display().to_string();
    site.add("removed", &master, &format!("status-file = '{switch}'\n"));
    fs::copy(project("fixtures/commits.fs"), site.master("removed")).unwrap();
    let mut systemd = NotifySocket::in_directory(site.directory.path());
    let mut command = site.command(&["--watch"]);
    systemd.serve(&mut command, Duration::from_secs(4));
    let mut watcher = Watcher::logging_to(site.directory.path(), &mut command);
    systemd.expect("STATUS=2 of 2 in sync");
    let silence = served.silence_at(0);
    served.wait_until_stuck();
    // At most the heartbeats that were due when the thread began to hang.
    let heard = systemd.during(Duration::from_secs(6));
    assert!(heard.matches("WATCHDOG=1").count() <= 2, "{heard}");

    fs::write(site.config(), &without).unwrap();
    watcher.signal(Signal::HUP);
    systemd.expect("RELOADING=1\nMONOTONIC_USEC=");
    systemd.expect("READY=1\n");
    watcher.expect("read again");
    for _ in 0..2 {
        systemd.expect("WATCHDOG=1\n");
    }
    commit(&site, &mut Zodb::start(), "kept");
    wait_for_sync(&site, "kept");
    drop(silence);
    assert_eq!(watcher.end().0, 0);
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

/// Each storage has a thread that reaps orphans. It must leave the programs of the others alone.
#[test]
fn the_first_process_of_a_container_learns_the_exit_codes_of_all_its_programs() {
    let mut site = SiteScene::of(&[]);
    // The child keeps the connection open, so that the program is a zombie for a while. Orphans end
    // all the time.
    let rsh = site.at("exits");
    let script = "#!/bin/sh\nfor n in 1 2 3; do (true &); sleep 0.1; done\nsleep 1 &\nexit 127\n";
    write_program(&rsh, script);
    let names: Vec<_> = (0..6).map(|n| format!("s{n}")).collect();
    for name in &names {
        let keys = format!("rsh = '{}'\n", rsh.display());
        site.add(name, "nowhere:/srv/Data.fs", &keys);
    }
    let watch = site.command(&["--watch"]);
    let mut command = tool("unshare", "util-linux");
    command.args(["-p", "-f", "--kill-child"]);
    command.arg(watch.get_program()).args(watch.get_args());
    let watcher = Watcher::logging_to(site.directory.path(), &mut command);
    let reports = || -> Vec<String> {
        let log = watcher.log();
        let lines = log.lines().filter(|line| line.contains("NOT SYNCING"));
        lines.map(str::to_owned).collect()
    };
    let has_reported = |name| {
        reports()
            .iter()
            .any(|line| line.contains(&format!("={name}}}")))
    };
    wait_for("reports of all storages", || names.iter().all(has_reported));
    for report in reports() {
        assert!(report.contains("exit code 127"), "{report}");
    }
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
    let mut systemd = NotifySocket::in_directory(site.directory.path());
    let mut command = site.command(&["--watch"]);
    systemd.serve(&mut command, Duration::from_secs(8));
    let watcher = Watcher::logging_to(site.directory.path(), &mut command);
    systemd.expect("READY=1\n");
    systemd.expect("STATUS=1 of 3 in sync; gone: unreachable for ");
    // Every thread works, also the one whose master hangs.
    for _ in 0..3 {
        systemd.expect("WATCHDOG=1\n");
    }
    let elapsed = watcher.end().1;
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    systemd.expect("STOPPING=1\n");
}
