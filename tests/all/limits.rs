//! Limits on what a process may use: the size of files, and the number of threads.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{History, Scene, Zodb, fssync, rewrite_end, run, tool};
use crate::watcher::Watcher;

/// A command under a limit on the size of files, in bytes, that can be raised.
fn under_file_size_limit(command: &Command, limit: usize) -> Command {
    let mut limited = tool("prlimit", "util-linux");
    limited.arg(format!("--fsize={limit}:")).arg("--");
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file")
}

#[test]
fn an_append_beyond_the_file_size_limit_is_cut_back() {
    let history = History::get();
    let (before, after) = (&history.before, &history.after);
    for limit in [before.len(), before.len() + 10, after.len() - 1] {
        let scene = Scene::synced(history);
        rewrite_end(&scene.master, after);
        let pass = run(&mut under_file_size_limit(&scene.command(&[]), limit)).expect(1);
        assert!(pass.stderr.contains("File too large"), "{pass:?}");
        assert!(pass.stderr.contains("ulimit -f"), "{pass:?}");
        assert!(bytes(&scene.slave) == *before, "{limit}");
        Zodb::start().assert_prefix(&scene.master, &scene.slave);
        scene.expect("append");
    }
}

#[test]
fn a_full_copy_beyond_the_file_size_limit_is_not_begun() {
    let scene = Scene::new();
    fs::write(&scene.master, &History::get().after).expect("the master");
    let limit = History::get().after.len() - 1;
    let pass = run(&mut under_file_size_limit(&scene.command(&[]), limit)).expect(1);
    assert!(pass.stderr.contains("File too large"), "{pass:?}");
    assert!(!scene.slave.exists());
    assert!(!scene.beside(".fssync-tmp").exists());
    scene.expect("full-copy");
}

#[test]
fn a_watch_outlives_the_file_size_limit() {
    let history = History::get();
    let scene = Scene::synced(history);
    let command = scene.command(&["--watch", "--interval", "0.1"]);
    let mut limited = under_file_size_limit(&command, history.before.len());
    let mut watcher = Watcher::of(&scene, &mut limited);
    watcher.expect("Finished syncing");
    rewrite_end(&scene.master, &history.after);
    watcher.expect("File too large");
    let mut raise = tool("prlimit", "util-linux");
    raise.arg(format!("--pid={}", watcher.pid()));
    run(raise.arg("--fsize=unlimited:")).expect(0);
    watcher.expect_in_sync(&scene);
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn a_switch_beyond_the_file_size_limit_is_an_error() {
    let scene = Scene::synced(History::get());
    let mut off = fssync();
    off.arg("off").arg(&scene.slave);
    let off = run(&mut under_file_size_limit(&off, 0)).expect(1);
    assert!(off.stderr.contains("File too large"), "{off:?}");
}
