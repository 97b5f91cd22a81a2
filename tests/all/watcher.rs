//! A running `fssync --watch`, whose log is read while it runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Scene, spawn};

/// How long to wait for an event that normally comes at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A watch, which is killed when this is dropped.
pub struct Watcher {
    process: Child,
    log: PathBuf,
    /// How much of the log earlier calls of `expect` have consumed, in bytes.
    read: usize,
}

impl Watcher {
    /// A watch of the scene's master.
    pub fn start(scene: &Scene, options: &[&str]) -> Self {
        Self::of(scene, scene.command(options).arg("--watch"))
    }

    /// A watch that is started with this command.
    pub fn of(scene: &Scene, command: &mut Command) -> Self {
        Self::logging_to(scene.directory.path(), command)
    }

    /// A watch that is started with this command. Its log is in `directory`.
    pub fn logging_to(directory: &Path, command: &mut Command) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let n = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = directory.join(format!("watch-{n}.log"));
        let create = |path: &Path| File::create(path).expect("a log");
        command.stdin(Stdio::null()).stderr(create(&log));
        command.stdout(create(&log.with_extension("out")));
        Self {
            process: spawn(command),
            log,
            read: 0,
        }
    }

    /// The whole log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// The objects that `--json` has printed.
    pub fn reports(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log.with_extension("out")).expect("its output");
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Waits until the log contains this text, after the part that was already matched.
    #[track_caller]
    pub fn expect(&mut self, what: &str) {
        let started = Instant::now();
        loop {
            let log = self.log();
            if let Some(at) = log[self.read..].find(what) {
                self.read += at + what.len();
                return;
            }
            let late = started.elapsed() > PATIENCE;
            let ended = self.process.try_wait().expect("its status");
            assert!(!late && ended.is_none(), "no {what:?} in {log}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the slave has exactly the master's bytes.
    #[track_caller]
    pub fn expect_in_sync(&mut self, scene: &Scene) {
        let ended = self.in_sync_or_ended(scene);
        assert_eq!(ended, None, "{}", self.log());
    }

    /// Waits until the slave is in sync (`None`), or the watch has ended (its exit code).
    #[track_caller]
    pub fn in_sync_or_ended(&mut self, scene: &Scene) -> Option<i32> {
        let started = Instant::now();
        let in_sync = || {
            let master = fs::read(&scene.master).expect("the master");
            fs::read(&scene.slave).is_ok_and(|slave| slave == master)
        };
        while !in_sync() {
            if let Some(status) = self.process.try_wait().expect("its status") {
                return Some(status.code().unwrap_or(-1));
            }
            assert!(started.elapsed() < PATIENCE, "{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("its process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the end; returns the exit code.
    pub fn wait(mut self) -> i32 {
        let status = self.process.wait().expect("its status");
        status.code().unwrap_or(-1)
    }

    /// Sends SIGTERM and waits for the end; returns the exit code and the time that it took.
    pub fn end(mut self) -> (i32, Duration) {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let status = self.process.wait().expect("its status");
        (status.code().unwrap_or(-1), started.elapsed())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
