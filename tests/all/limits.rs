//! Limits on a process: the size of files, and the number of threads and of open files.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::sshd::Sshd;
use crate::support::{
    History, Run, Scene, Zodb, append_sparse, fssync, own, rewrite_end, run, sparse_master, tool,
    write_program,
};
use crate::watcher::Watcher;

/// A command with a limit on the size of files in bytes, which can be raised.
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
fn an_append_beyond_the_file_size_limit_is_truncated() {
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
fn a_full_copy_beyond_the_file_size_limit_is_not_started() {
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
fn a_watch_survives_the_file_size_limit() {
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

/// A command in which each thread fails to start its `nth` thread and all later ones.
fn without_threads(scene: &Scene, nth: usize, command: &Command) -> Command {
    let inject = format!("inject=clone3:error=EAGAIN:when={nth}+");
    let mut tracer = tool("strace", "strace");
    tracer.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]);
    // Signals must go to this process.
    let pid = scene.directory.path().join("pid");
    tracer.args(["sh", "-c", "echo $$ > \"$0\"; exec \"$@\""]);
    tracer.arg(pid).arg(command.get_program());
    tracer.args(command.get_args());
    tracer
}

/// The program with a limit on processes and threads, as a user who has no others.
fn under_process_limit(scene: &Scene, limit: usize) -> Command {
    static USERS: AtomicU32 = AtomicU32::new(0);
    let user = std::process::id() * 16 + USERS.fetch_add(1, Ordering::Relaxed);
    let uid = 20_000 + user % 40_000;
    let mut command = tool("setpriv", "util-linux");
    let identity = [format!("--reuid={uid}"), format!("--regid={uid}")];
    command.args(identity).arg("--clear-groups");
    command.args(["prlimit", &format!("--nproc={limit}"), "--"]);
    command.arg(own(scene, uid));
    command
}

/// A pass through a connection with such a limit.
fn pass_under_process_limit(scene: &Scene, limit: usize) -> Command {
    let rsh = scene.directory.path().join("rsh");
    write_program(&rsh, "#!/bin/sh\neval \"exec $2\"\n");
    let mut command = under_process_limit(scene, limit);
    command.args(["-q", "-e"]).arg(rsh).arg("--remote-fssync");
    command.arg(scene.directory.path().join("fssync"));
    command.arg(format!("host:{}", scene.master.display()));
    command.arg(&scene.slave);
    command
}

/// The most threads and processes that a pass needs.
const THREADS: usize = 8;

#[test]
fn a_pass_without_threads_is_an_ordinary_error() {
    const LEN: u64 = 24 << 20;
    let history = History::get();
    for nth in 1..=3 {
        let scene = Scene::synced(history);
        append_sparse(&scene.master, LEN, u64::MAX >> 1);
        let append = run(&mut without_threads(&scene, nth, &scene.command(&["-q"])));
        expect_in_sync_or_error(&scene, &append, &history.before);

        let scene = Scene::new();
        sparse_master(&scene.master, LEN);
        let copy = run(&mut without_threads(&scene, nth, &scene.command(&["-q"])));
        expect_in_sync_or_error(&scene, &copy, b"");
    }
}

#[test]
fn a_connection_without_threads_or_processes_is_an_ordinary_error() {
    let mut codes = Vec::new();
    for limit in 1..=THREADS {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        let pass = run(&mut pass_under_process_limit(&scene, limit));
        expect_in_sync_or_error(&scene, &pass, &History::get().before);
        codes.push(pass.code);
    }
    assert!(codes.is_sorted_by_key(|code| 1 - code), "{codes:?}");
    assert_eq!((codes[0], codes[THREADS - 1]), (1, 0), "{codes:?}");
}

/// Fails unless the slave is in sync, or unchanged with one line of output.
fn expect_in_sync_or_error(scene: &Scene, run: &Run, before: &[u8]) {
    let slave = fs::read(&scene.slave).unwrap_or_default();
    match run.code {
        0 => assert!(slave == bytes(&scene.master), "{run:?}"),
        1 => {
            assert!(slave == before, "{run:?}");
            assert!(run.stderr.contains("cannot start "), "{run:?}");
            assert!(run.stderr.contains("pids limit"), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        }
        _ => panic!("{run:?}"),
    }
    assert!(!scene.beside(".fssync-tmp").exists());
}

#[test]
fn a_flusher_without_a_thread_syncs_itself() {
    let scene = Scene::new();
    sparse_master(&scene.master, 24 << 20);
    // One thread for signals, one for the master, and no third one.
    let copy = run(&mut without_threads(&scene, 3, &scene.command(&[])));
    copy.expect(0);
    assert!(bytes(&scene.slave) == bytes(&scene.master));
}

#[test]
fn a_watch_without_threads_ends_or_polls() {
    for (nth, says) in [
        (1, "cannot start a thread for signals"),
        (2, "cannot start a thread that reads"),
        (3, "which supports change notifications"),
    ] {
        let scene = Scene::synced(History::get());
        let command = scene.command(&["--watch", "--interval", "0.1"]);
        let mut watcher = Watcher::of(&scene, &mut without_threads(&scene, nth, &command));
        watcher.expect(says);
        if nth == 1 {
            assert_eq!(watcher.wait(), 1);
            continue;
        }
        rewrite_end(&scene.master, &History::get().after);
        if nth > 2 {
            watcher.expect_in_sync(&scene);
        }
        let pid = fs::read_to_string(scene.directory.path().join("pid")).expect("a file");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
        assert!(!watcher.log().contains("panicked"), "{}", watcher.log());
        assert_eq!(watcher.wait(), 0);
    }
}

#[test]
fn a_watch_without_notifications_polls() {
    let scene = Scene::synced(History::get());
    // The main thread, signals and the master.
    let mut command = under_process_limit(&scene, 3);
    command.args(["--watch", "--interval", "0.1"]);
    command.args([&scene.master, &scene.slave]);
    let mut watcher = Watcher::of(&scene, &mut command);
    watcher.expect("WARN cannot watch");
    rewrite_end(&scene.master, &History::get().after);
    watcher.expect_in_sync(&scene);
    assert_eq!(watcher.end().0, 0);
}

/// A local pass needs fewer files, so each file that it opens is once the first one over the
/// limit.
#[test]
fn a_pass_that_may_open_too_few_files_reports_the_limit() {
    let history = History::get();
    let mut codes = Vec::new();
    for (limit, options) in (4..16).flat_map(|it| [(it, "-q"), (it, "-qn")]) {
        let scene = Scene::synced(history);
        rewrite_end(&scene.master, &history.after);
        let command = scene.command(&[options]);
        let mut limited = tool("prlimit", "util-linux");
        limited.arg(format!("--nofile={limit}")).arg("--");
        limited.arg(command.get_program()).args(command.get_args());
        let pass = run(&mut limited);
        codes.push(pass.code);
        if pass.code != 0 {
            assert!([1, 10].contains(&pass.code), "{limit}: {pass:?}");
            assert!(
                pass.stderr.contains("Too many open files"),
                "{limit}: {pass:?}"
            );
            assert!(pass.stderr.contains("ulimit -n"), "{limit}: {pass:?}");
        }
    }
    assert!(
        [0, 1, 10].iter().all(|code| codes.contains(code)),
        "{codes:?}"
    );
}

#[test]
fn a_pass_without_open_files_is_an_ordinary_error() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let rsh = Sshd::get().rsh("");
    let mut codes = Vec::new();
    for limit in 4..32 {
        let mut command = tool("prlimit", "util-linux");
        command.arg(format!("--nofile={limit}")).arg("--");
        command.arg(env!("CARGO_BIN_EXE_fssync")).args(["-e", &rsh]);
        command.args(["--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
        command
            .arg(Sshd::get().url(&scene.master))
            .arg(&scene.slave);
        let pass = run(&mut command);
        assert!([0, 1, 10, 12].contains(&pass.code), "{pass:?}");
        assert!(!pass.stderr.contains("panicked"), "{pass:?}");
        codes.push(pass.code);
    }
    assert!(codes.contains(&1) && codes.contains(&0), "{codes:?}");
    Zodb::start().assert_in_sync(&scene.master, &scene.slave);
}
