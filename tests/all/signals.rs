//! Signals that end a pass or a watch.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{History, Scene, Transport, append_sparse, spawn, wait_for};
use crate::watcher::Watcher;

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).expect("it runs");
}

/// Whether a process has the thread that handles signals.
fn handles_signals(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let names = tasks
        .flatten()
        .flatten()
        .map(|task| task.path().join("comm"));
    names
        .flat_map(fs::read_to_string)
        .any(|name| name == "signals\n")
}

/// While the watch is stopped, both signals are pending, so they arrive at the same time.
#[test]
fn two_signals_at_once_count_as_one() {
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let mut watcher = Watcher::start(&scene, &[]);
        watcher.expect("Finished syncing");
        for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
            watcher.signal(signal);
        }
        assert_eq!(watcher.wait(), 0, "{transport:?}");
    }
}

#[test]
fn two_signals_at_once_end_an_append_cleanly() {
    let scene = Scene::synced(History::get());
    append_sparse(&scene.master, 8 << 30, u64::MAX >> 1);
    let pass = spawn(scene.command(&[]).stderr(Stdio::piped()));
    let before = History::get().before.len() as u64;
    let len = || fs::metadata(&scene.slave).expect("the slave").len();
    wait_for("append", || len() > before + (10 << 20));
    for it in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
        signal(&pass, it);
    }
    let output = pass.wait_with_output().expect("its end");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("interrupted by a signal"), "{log}");
    assert_eq!(len(), before, "the tail is truncated");
}

/// The pass blocks because nobody reads its output.
#[test]
fn a_second_signal_ends_a_pass_that_hangs() {
    let scene = Scene::synced(History::get());
    let pass = scene.command(&["--json"]);
    let mut command = Command::new("sh");
    let fill = "head -c 65536 /dev/zero; exec \"$@\"";
    command.args(["-c", fill, "sh"]).arg(pass.get_program());
    let mut pass = spawn(command.args(pass.get_args()).stdout(Stdio::piped()));
    wait_for("pass that handles signals", || handles_signals(pass.id()));
    signal(&pass, Signal::TERM);
    thread::sleep(Duration::from_millis(1500));
    assert!(pass.try_wait().expect("its status").is_none(), "it hangs");
    signal(&pass, Signal::TERM);
    assert_eq!(pass.wait().expect("its status").code(), Some(1));
}
