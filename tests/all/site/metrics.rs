//! The textfile of a watch of several storages.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::support::SiteScene;
use crate::fuse::Served;
use crate::support::{Zodb, project, spawn, tool, wait_for, wait_for_minutes};
use crate::watcher::Watcher;

fn watch(site: &SiteScene) -> Watcher {
    Watcher::logging_to(site.directory.path(), &mut site.command(&["--watch"]))
}

/// A commit to a master, which the slave must get.
fn assert_followed(site: &SiteScene, zodb: &mut Zodb, name: &str) {
    let path = site.master(name);
    zodb.call(&json!({"cmd": "open", "name": name, "path": path}));
    zodb.call(&json!({"cmd": "commit", "name": name}));
    zodb.call(&json!({"cmd": "close", "name": name}));
    let read = |path: &Path| fs::read(path).expect("a file");
    let (master, slave) = (site.master(name), site.slave(name));
    wait_for("slave in sync", || read(&slave) == read(&master));
}

/// The file system of the textfile stops answering, like a server that has died.
#[test]
fn a_textfile_directory_that_hangs_delays_no_pass_and_no_watch() {
    let mut site = SiteScene::of(&["site", "catalog"]);
    let directory = site.at("textfiles");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("other.prom"), "x").unwrap();
    let served = Served::directory_for_writing(&directory);
    let textfile = served.file("fssync.prom");
    site.append(&format!("[metrics]\ntextfile = '{}'\n", textfile.display()));

    // A client that is stuck in a read keeps the file system from answering anything else.
    let silence = served.silence_at(0);
    let mut cat = tool("cat", "coreutils");
    cat.arg(served.file("other.prom")).stdout(Stdio::null());
    let mut stuck = spawn(&mut cat);
    served.wait_until_stuck();
    let started = Instant::now();
    let pass = site.run(&[]).expect(0);
    let elapsed = started.elapsed();
    for name in ["site", "catalog"] {
        site.assert_in_sync(name);
    }
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
    let warning = format!("no metrics: {} does not respond", textfile.display());
    assert_eq!(pass.stderr.matches(&warning).count(), 1, "{pass:?}");
    // The exit code of a command is its own.
    site.run(&["off", "-q"]).expect(0);
    site.run(&["-q"]).expect(10);
    site.run(&["on", "-q"]).expect(0);

    let mut watcher = watch(&site);
    watcher.expect("site{storage=site}: Finished syncing");
    let mut zodb = Zodb::start();
    for name in ["site", "catalog", "site", "catalog"] {
        assert_followed(&site, &mut zodb, name);
    }
    drop(silence);
    assert!(stuck.wait().unwrap().success());
    // The thread was waiting for this answer.
    watcher.expect("no metrics: cannot write");
    let (code, elapsed) = watcher.end();
    assert_eq!(code, 0);
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
}

#[test]
fn sighup_replaces_the_textfile_and_its_storages() {
    let site = SiteScene::of(&["kept", "removed"]);
    let storages = fs::read_to_string(site.config()).unwrap();
    let kept = storages.split("[storage.removed]").next().unwrap();
    let with_textfile = |storages: &str, name: &str| {
        let path = site.at(name);
        format!("{storages}[metrics]\ntextfile = '{}'\n", path.display())
    };
    let before = with_textfile(&storages, "before.prom");
    let after = with_textfile(kept, "after.prom");
    fs::write(site.config(), &before).unwrap();
    let watcher = watch(&site);
    let series = |name: &str| format!("fssync_last_pass_exit_code{{storage=\"{name}\"}} 0\n");
    let has = |file: &str, name: &str| {
        let text = fs::read_to_string(site.at(file)).unwrap_or_default();
        text.contains(&series(name))
    };
    wait_for("both storages", || {
        has("before.prom", "kept") && has("before.prom", "removed")
    });

    // Another file, with another storage.
    fs::create_dir_all(site.at("added/master")).unwrap();
    fs::create_dir_all(site.at("added/slave")).unwrap();
    fs::copy(project("fixtures/commits.fs"), site.master("added")).unwrap();
    let added = format!(
        "{after}[storage.added]\nmaster = '{}'\nslave = '{}'\n",
        site.master("added").display(),
        site.slave("added").display()
    );
    fs::write(site.config(), added).unwrap();
    watcher.signal(Signal::HUP);
    wait_for_minutes(1, "the storages of the new file", || {
        has("after.prom", "kept") && has("after.prom", "added")
    });
    assert!(!has("after.prom", "removed"));

    // Without a textfile, none is written any more.
    fs::write(site.config(), kept).unwrap();
    let passes = watcher.log().matches("read again").count();
    watcher.signal(Signal::HUP);
    wait_for("the reload", || {
        watcher.log().matches("read again").count() > passes
    });
    fs::remove_file(site.at("before.prom")).unwrap();
    fs::remove_file(site.at("after.prom")).unwrap();
    assert_followed(&site, &mut Zodb::start(), "kept");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!site.at("before.prom").exists() && !site.at("after.prom").exists());
    assert_eq!(watcher.end().0, 0);
}
