//! Jobs in the background: passes from cron, `fssync status`, `fssync verify`, and checks of the
//! slave.
//!
//! Whatever else happens, ZODB opens the slave, the slave is a prefix of the master's committed
//! history, and its last transaction is never older than before. A pass exits with 0, or with 11
//! because another pass runs. A disturbance must explain any other exit code.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::counts::Counts;
use crate::support::{Run, Scene, Zodb, fssync, run};

/// The pause between two jobs.
const REST: Duration = Duration::from_millis(700);

/// A disturbance that explains the result of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Syncing is off.
    Off,
    /// The network is cut.
    Cut,
    /// ZEO serves the slave.
    Served,
}

/// All disturbances so far.
#[derive(Clone, Default)]
pub struct Disturbances(Arc<Mutex<Vec<Period>>>);

struct Period {
    of: Disturbance,
    /// `None` as long as it lasts.
    until: Option<Instant>,
}

impl Disturbances {
    pub fn begin(&self, of: Disturbance) {
        self.0.lock().unwrap().push(Period { of, until: None });
    }

    pub fn end(&self, of: Disturbance) {
        for period in self.0.lock().unwrap().iter_mut() {
            if period.of == of && period.until.is_none() {
                period.until = Some(Instant::now());
            }
        }
    }

    /// Whether this disturbance was present at any time since then.
    fn was(&self, of: Disturbance, since: Instant) -> bool {
        let is_it =
            |period: &Period| period.of == of && period.until.is_none_or(|until| until >= since);
        self.0.lock().unwrap().iter().any(is_it)
    }
}

/// Both files, and how the second machine reads the first one's.
#[derive(Clone)]
pub struct Endpoints {
    pub master: PathBuf,
    pub slave: PathBuf,
    /// The options for the connection, and the name of the master.
    pub master_arguments: Vec<String>,
}

impl Endpoints {
    pub fn of(scene: &Scene, master_arguments: Vec<String>) -> Self {
        Self {
            master: scene.master.clone(),
            slave: scene.slave.clone(),
            master_arguments,
        }
    }

    /// A pass, or a watch if the options contain `--watch`.
    pub fn pass(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command
            .arg("--json")
            .args(options)
            .args(&self.master_arguments);
        command.arg(&self.slave);
        command
    }

    /// Another subcommand, on the slave.
    pub fn verb(&self, verb: &str, options: &[&str]) -> Run {
        let mut command = fssync();
        command.arg(verb).args(options);
        run(command.arg(&self.slave))
    }

    /// `fssync verify --against` the master.
    pub fn verify_against(&self) -> Run {
        let (master, options) = self.master_arguments.split_last().expect("a master");
        let mut command = fssync();
        command.args(["verify", "--json"]).args(options);
        run(command.arg(&self.slave).arg("--against").arg(master))
    }
}

/// The jobs of a week, in a thread of their own.
pub struct Background {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Counts>>,
    seen: Arc<Mutex<String>>,
}

impl Background {
    pub fn start(endpoints: Endpoints, disturbances: Disturbances) -> Self {
        let (is_over, seen) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let mut worker = Worker {
            endpoints,
            disturbances,
            zodb: Zodb::start(),
            seen: Arc::clone(&seen),
            counts: Counts::default(),
        };
        let is_last = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !is_last.load(Ordering::Relaxed) {
                worker.make();
            }
            worker.counts
        });
        Self {
            is_over,
            thread: Some(thread),
            seen,
        }
    }

    /// The last transaction that a check has found in the slave.
    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Fails if a job has failed.
    pub fn check(&mut self) {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join();
        }
    }

    /// Ends the jobs; returns their counts.
    pub fn end(mut self) -> Counts {
        self.is_over.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Counts {
        let thread = self.thread.take().expect("it was not joined before");
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    endpoints: Endpoints,
    disturbances: Disturbances,
    zodb: Zodb,
    /// The last transaction that a check has found in the slave.
    seen: Arc<Mutex<String>>,
    counts: Counts,
}

impl Worker {
    fn make(&mut self) {
        for one in [
            Self::pass,
            Self::check_slave,
            Self::status,
            Self::check_slave,
            Self::verify,
        ] {
            one(self);
            thread::sleep(REST);
        }
    }

    /// A pass, as from cron.
    fn pass(&mut self) {
        let since = Instant::now();
        let made = run(&mut self.endpoints.pass(&["--timeout", "20"]));
        let is_explained = match made.code {
            0 | 11 => true,
            10 => self.disturbances.was(Disturbance::Off, since),
            12 => self.disturbances.was(Disturbance::Cut, since),
            _ => false,
        };
        assert!(is_explained, "nothing explains this pass: {made:?}");
        self.counts.one(&named("passes from cron", &made.report()));
    }

    fn status(&mut self) {
        let report = self
            .endpoints
            .verb("status", &["--json"])
            .expect(0)
            .report();
        assert_eq!(report["exit_code"], 0, "{report}");
        self.counts.one("background: status");
    }

    fn verify(&mut self) {
        self.endpoints.verb("verify", &["--json"]).expect(0);
        self.counts.one("background: verify");
    }

    /// Checks a copy of the slave.
    fn check_slave(&mut self) {
        let since = Instant::now();
        let slave = fs::read(&self.endpoints.slave).expect("the slave is always there");
        let directory = tempfile::tempdir().expect("a directory");
        let copy = directory.path().join("Data.fs");
        fs::write(&copy, &slave).expect("a copy");
        let found = self.zodb.check(&copy);
        let position = found["position"].as_u64().expect("a position") as usize;
        let is_prefix = self.is_prefix(&slave[..position]);
        let is_served = self.disturbances.was(Disturbance::Served, since);
        assert!(is_prefix || is_served, "not a prefix: {found}");
        let last = found["last_tid"].as_str().expect("it holds a transaction");
        let mut seen = self.seen.lock().unwrap();
        assert!(*seen.as_str() <= *last, "{seen} was there: {found}");
        last.clone_into(&mut seen);
        self.counts.one("background: checks of the slave");
    }

    /// Whether these bytes, which were read before, are a prefix of the master, as it is or as it
    /// was before the last pack.
    fn is_prefix(&self, bytes: &[u8]) -> bool {
        let master = &self.endpoints.master;
        // The order matters: a pack renames the master to `.old`.
        let starts_so = |path: &Path| match fs::read(path) {
            Ok(of) => of.starts_with(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let is_current = || starts_so(master);
        is_current() || starts_so(&master.with_extension("fs.old")) || is_current()
    }
}

/// The name under which a pass is counted.
pub fn named(by: &str, report: &Value) -> String {
    let (code, action) = (&report["exit_code"], &report["action"]);
    format!("{by}: {code} {}", action.as_str().expect("an action"))
}
