//! ZODB creates, changes, undoes, aborts and packs while passes or a watch run.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::site::Site;
use crate::support::{Setup, Transport, blobs_beside, number, project, python, spawn};
use crate::watcher::Watcher;
use crate::zeo::eventually_in_sync;

/// A writer to the master, which ends by itself.
fn write(site: &mut Site, seed: u64) -> Child {
    site.call(&json!({"cmd": "close", "name": "m"}));
    let seconds = number("FSSYNC_WRITER_SECONDS").unwrap_or(6);
    let mut command = Command::new(python());
    command.arg(project("tests/zodb/agent.py"));
    command.args(["write", "--pack", "--rate", "60"]);
    command.args(["--setup", site.setup.as_str()]);
    command.args(["--seed", &seed.to_string()]);
    command.args(["--seconds", &seconds.to_string()]);
    command.arg("--blobs").arg(blobs_beside(&site.scene.master));
    command.arg("--journal").arg(site.journal());
    let log = site.scene.directory.path().join("writer.log");
    command.stdout(File::create(log).expect("its log"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    spawn(command.arg(&site.scene.master).stdin(Stdio::null()))
}

fn assert_written(site: &Site, mut writer: Child) {
    assert!(writer.wait().expect("its end").success());
    let log = site.scene.directory.path().join("writer.log");
    let log = std::fs::read_to_string(log).expect("its log");
    assert!(log.lines().count() > 20, "{log}");
}

/// Passes follow a writer.
fn follow_by_passes(setup: Setup, transport: Transport, seed: u64) {
    let mut site = Site::bushy(setup, transport);
    let mut writer = write(&mut site, seed);
    let mut blobs = 0;
    while writer.try_wait().expect("a state").is_none() {
        let report = site.scene.pass(&[]).expect(0).report();
        blobs += report["blobs"].as_u64().expect("a number");
    }
    assert!(blobs > 5, "passes have fetched {blobs} blobs");
    assert_written(&site, writer);
    site.pass(&[]);
    let reachable = site.load(true)["missing_reachable"].clone();
    assert_eq!(reachable, site.load(false)["missing_reachable"]);
}

/// A watch follows a writer.
fn follow_by_watch(setup: Setup, transport: Transport, seed: u64) {
    let mut site = Site::bushy(setup, transport);
    let watcher = Watcher::start(&site.scene, &["--json"]);
    let writer = write(&mut site, seed);
    assert_written(&site, writer);
    eventually_in_sync(&site.scene, &mut site.zodb);
    let (code, _) = watcher.end();
    assert_eq!(code, 0);
    site.assert_in_sync();
    let reachable = site.load(true)["missing_reachable"].clone();
    assert_eq!(reachable, site.load(false)["missing_reachable"]);
}

#[test]
fn passes_follow_a_filestorage() {
    follow_by_passes(Setup::FileStorage, Transport::Path, 1);
}

#[test]
fn passes_follow_a_blobstorage_through_ssh() {
    follow_by_passes(Setup::Proxy, Transport::Ssh, 2);
}

#[test]
fn a_watch_follows_a_filestorage_through_ssh() {
    follow_by_watch(Setup::FileStorage, Transport::Ssh, 3);
}

#[test]
fn a_watch_follows_a_blobstorage() {
    follow_by_watch(Setup::Proxy, Transport::Path, 4);
}
