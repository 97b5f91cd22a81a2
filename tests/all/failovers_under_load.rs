//! Failovers while the master is written at full speed. A watch, or pass after pass, works on
//! the slave when syncing is switched off with `fssync off` or a bare `echo`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Run, Scene, Zodb, fssync, project, python, run, spawn, wait_for, wait_for_minutes,
};

/// Number of rounds with one master, before a new one replaces it: it grows.
const ROUNDS: u32 = 10;

/// The process that works on the slave.
#[derive(Clone, Copy, Debug)]
enum Syncing {
    Passes,
    Watch,
}

/// The command that switches syncing off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Off,
    Echo,
}

/// A master that is written all the time, and a slave that is synced all the time.
struct Site {
    scene: Scene,
    zodb: Zodb,
    processes: Vec<Child>,
}

impl Site {
    fn start(syncing: Syncing, seed: u32) -> Self {
        let scene = Scene::with_master("commits");
        scene.expect("full-copy");
        let mut writer = Command::new(python());
        writer.arg(project("tests/zodb/agent.py"));
        writer.env("PYTHONDONTWRITEBYTECODE", "1");
        writer.args(["write", "--seconds", "600", "--seed", &seed.to_string()]);
        writer.arg(&scene.master);
        let mut syncer = match syncing {
            // If the shell is killed, its last pass still ends by itself.
            Syncing::Passes => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "while :; do \"$@\"; done", "sh"]);
                shell.arg(env!("CARGO_BIN_EXE_fssync"));
                shell
            }
            Syncing::Watch => {
                let mut watch = fssync();
                watch.arg("--watch");
                watch
            }
        };
        syncer.arg(&scene.master).arg(&scene.slave);
        let processes = [&mut writer, &mut syncer].map(|command| {
            command.stdin(Stdio::null());
            spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
        });
        Self {
            scene,
            zodb: Zodb::start(),
            processes: processes.into(),
        }
    }

    fn slave(&self) -> Vec<u8> {
        fs::read(&self.scene.slave).expect("the slave")
    }

    fn set_switch(&self, line: &str) {
        fs::write(self.scene.beside(".fssync-switch"), line).expect("the switch");
    }

    fn flip(&self, arguments: &[&str]) -> Run {
        run(fssync().args(arguments).arg(&self.scene.slave))
    }

    /// Makes a pass once no other pass is running.
    fn pass(&self, options: &[&str]) -> Run {
        let mut made = self.scene.pass(options);
        // The watch makes one pass after another while the writer is fast.
        wait_for_minutes(1, "pass that is not busy", || {
            made.code != 11 || {
                made = self.scene.pass(options);
                false
            }
        });
        made
    }

    /// Waits until the slave grows, and then for some milliseconds, to reach different moments
    /// of a pass.
    fn wait_for_any_moment(&self, round: u32) {
        let len = || fs::metadata(&self.scene.slave).map_or(0, |found| found.len());
        let before = len();
        wait_for("growing slave", || len() > before);
        thread::sleep(Duration::from_millis(u64::from(round * 7 % 23)));
    }

    /// ZODB opens the slave, which must be a prefix of the master's committed history.
    fn open(&mut self, by: By) {
        let opened = match by {
            By::Off => {
                let slave = &self.scene.slave;
                self.zodb
                    .call(&json!({"cmd": "open", "name": "s", "path": slave}))
            }
            By::Echo => self.zodb.open_as_supervised(&self.scene.slave),
        };
        // After a bare echo there may be an unfinished append, which ZODB truncates.
        if by == By::Off {
            assert_eq!(opened["warnings"], Value::from([0; 0]));
        }
        let slave = self.slave();
        assert_eq!(opened["position"], slave.len());
        let master = fs::read(&self.scene.master).expect("the master");
        assert!(master.starts_with(&slave), "a prefix of the master");
    }

    fn close(&mut self) {
        self.zodb.call(&json!({"cmd": "close", "name": "s"}));
    }

    /// A failover in which nothing is committed: syncing continues.
    fn visit(&mut self, by: By) {
        self.open(by);
        self.close();
        match by {
            By::Off => drop(self.flip(&["on"]).expect(0)),
            By::Echo => self.set_switch("SYNCING=1\n"),
        }
        self.pass(&[]).expect(0);
    }

    /// A failover with a commit. The slave keeps it until a pass with `--full`.
    fn serve(&mut self, by: By) {
        self.open(by);
        self.zodb
            .call(&json!({"cmd": "commit", "name": "s", "description": "only here"}));
        let serving = self.slave();
        thread::sleep(Duration::from_millis(30));
        assert!(
            self.slave() == serving,
            "the slave was written while ZODB served it"
        );
        self.close();
        self.pass(&[]).expect(10);
        match by {
            By::Off => {
                let refused = self.flip(&["on"]).expect(20);
                assert!(
                    refused.stderr.contains("1 transaction, first"),
                    "{refused:?}"
                );
                self.pass(&[]).expect(10);
                self.flip(&["on", "--force"]).expect(0);
            }
            By::Echo => self.set_switch("SYNCING=1\n"),
        }
        let refused = self.pass(&[]).expect(20);
        assert!(
            refused.stderr.contains("has grown since last syncing"),
            "{refused:?}"
        );
        assert!(self.slave() == serving, "the slave was overwritten");
        self.pass(&["--whole"]).expect(0);
        let aside = self.scene.beside_slave();
        let aside = aside.iter().find(|name| name.contains(".diverged-"));
        let aside = self.scene.slave.with_file_name(aside.expect("it is kept"));
        assert!(
            fs::read(&aside).unwrap() == serving,
            "the kept file has the commit"
        );
        fs::remove_file(aside).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.set_switch("SYNCING=0\n");
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn fail_over(by: By, syncing: Syncing, rounds: u32) {
    for first in (0..rounds).step_by(ROUNDS as usize) {
        let mut site = Site::start(syncing, first);
        for round in first..first + ROUNDS {
            site.wait_for_any_moment(round);
            match by {
                By::Off => drop(site.flip(&["off"]).expect(0)),
                By::Echo => site.set_switch("SYNCING=0\n"),
            }
            if round % 2 == 0 {
                site.serve(by);
            } else {
                site.visit(by);
            }
        }
        site.scene.assert_documented_names();
    }
}

#[test]
fn fifty_failovers_with_off_during_passes() {
    fail_over(By::Off, Syncing::Passes, 50);
}

#[test]
fn fifty_failovers_with_off_during_a_watch() {
    fail_over(By::Off, Syncing::Watch, 50);
}

#[test]
fn failovers_with_a_bare_echo_during_passes() {
    fail_over(By::Echo, Syncing::Passes, 20);
}

#[test]
fn failovers_with_a_bare_echo_during_a_watch() {
    fail_over(By::Echo, Syncing::Watch, 20);
}
