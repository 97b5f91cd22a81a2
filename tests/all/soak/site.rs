//! The site, and its weeks: after every event, the slave must catch up.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::acknowledged::AckLedger;
use super::background::{Background, Disturbance, Disturbances, Endpoints, named};
use super::counts::Counts;
use super::network::{Cut, Network, Route};
use super::week::{self, Event, Operation, SIDECAR, SiteFault};
use crate::failover::{self, Manager};
use crate::rng::Rng;
use crate::support::{Transport, Zodb, must};
use crate::watcher::Watcher;
use crate::zeo::{self, Client, Server, eventually};

const AUTHORS: usize = 3;

/// How many attempts an author makes in a second.
const RATE: &str = "6";

/// An author that prints nothing for this long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(4);

/// The whole site.
pub struct Site {
    /// Dropped first, which releases processes that are stuck on a mount.
    pub(super) network: Network,
    pub(super) background: Option<Background>,
    pub(super) watch: Option<Watcher>,
    pub(super) authors: Vec<Client>,
    /// ZEO on the first machine.
    pub(super) zeo: Option<Server>,
    pub(super) machines: failover::Site,
    pub(super) disturbances: Disturbances,
    pub(super) acks: AckLedger,
    pub(super) counts: Counts,
    pub(super) zodb: Zodb,
    pub(super) route: Route,
    /// The number of handles of the watch at the end of the first week on this route.
    pub(super) handles: Option<u64>,
    /// How often an author was restarted because it hung.
    pub(super) hung: u64,
    /// The unfinished tails that ZEO has left in the slave this week.
    pub(super) tails: Vec<Vec<u8>>,
    /// The length and time of the slave when `fssync off` had returned.
    when_off: Option<(u64, SystemTime)>,
    rng: Rng,
    seed: u64,
    pub(super) week: u64,
    started: Instant,
}

impl Site {
    pub fn new(seed: u64) -> Self {
        let machines = failover::Site::new(Transport::Path, Manager::Shell);
        let route = route(0);
        let ports = [machines.first.port, machines.second.port];
        let zeo = machines.first.start();
        let seed_of_authors = seed.to_string();
        let author = |n: usize| {
            let name = format!("author{n}");
            let options = ["--name", &name, "--seed", &seed_of_authors, "--rate", RATE];
            let mut author = Client::running("author.py", &ports, &options);
            // The first author creates the database.
            author.listen_to(1);
            author
        };
        Self {
            network: Network::new(route, &machines.scene.master),
            background: None,
            watch: None,
            authors: (0..AUTHORS).map(author).collect(),
            zeo: Some(zeo),
            machines,
            disturbances: Disturbances::default(),
            acks: AckLedger::default(),
            counts: Counts::default(),
            zodb: Zodb::start(),
            route,
            handles: None,
            hung: 0,
            tails: Vec::new(),
            when_off: None,
            rng: Rng::new(seed),
            seed,
            week: 0,
            started: Instant::now(),
        }
    }

    /// Runs a week and the checks at its end.
    pub fn run_week(&mut self) {
        self.log(&format!("a week over {:?}", self.route));
        self.start_week();
        for event in week::events(&mut self.rng, spares_the_watch(self.week)) {
            self.log(&format!("{event:?}"));
            match event {
                Event::Fault(fault, operations) => {
                    self.begin(fault);
                    for operation in operations {
                        self.pause();
                        self.operate(operation);
                    }
                    self.pause();
                    self.end_of(fault);
                }
                Event::Operation(operation) => self.operate(operation),
                Event::Failover(cut) => self.fail_over_and_back(cut),
            }
            self.wait_for_slave();
        }
        self.log("the end of the week");
        let next = route(self.week + 1);
        self.end_week(next != self.route);
        if next != self.route {
            self.route = next;
            self.network = Network::new(next, &self.machines.scene.master);
            self.handles = None;
        }
        self.week += 1;
    }

    fn start_week(&mut self) {
        if self.zeo.is_none() {
            self.zeo = Some(self.machines.first.start());
            self.authors.iter_mut().for_each(Client::restart);
        }
        self.authors_write();
        if self.watch.is_none() {
            self.start_watch();
        }
        let slave = &self.machines.scene.slave;
        eventually("the slave", || slave.exists());
        let background = Background::start(self.endpoints(), self.disturbances.clone());
        self.background = Some(background);
    }

    /// Prints an event, so that a run that fails shows how far it came.
    fn log(&self, what: &str) {
        let (seed, week) = (self.seed, self.week);
        eprintln!(
            "soak {seed}, week {week}, {:.1?}: {what}",
            self.started.elapsed()
        );
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        Endpoints::of(&self.machines.scene, self.network.master_arguments())
    }

    fn start_watch(&mut self) {
        let options = ["--watch", "--interval", "0.5", "--timeout", "5"];
        let mut command = self.endpoints().pass(&options);
        let mut watch = Watcher::of(&self.machines.scene, &mut command);
        // From now on it handles signals.
        watch.expect("Start syncing");
        self.watch = Some(watch);
    }

    /// Takes the watch, which is about to end, and counts its reports.
    pub(super) fn take_watch(&mut self) -> Watcher {
        let watch = self.watch.take().expect("it runs");
        for report in watch.reports() {
            let is_sound = [0, 10, 11, 12].contains(&report["exit_code"].as_i64().unwrap());
            assert!(is_sound, "{report}: {}", watch.log());
            self.counts
                .one(&named("passes that the watch reported", &report));
        }
        watch
    }

    /// Waits for a random time.
    pub(super) fn pause(&mut self) {
        thread::sleep(Duration::from_millis(self.rng.below(700) as u64));
    }

    fn begin(&mut self, fault: SiteFault) {
        self.counts.one(&format!("faults: {fault:?}"));
        match fault {
            SiteFault::ZeoStopped => self.zeo.take().expect("it runs").stop(),
            SiteFault::ZeoKilled => drop(self.zeo.take()),
            SiteFault::WatchEnded => assert_eq!(self.take_watch().end().0, 0),
            SiteFault::WatchKilled => {
                self.wait_for_an_append();
                drop(self.take_watch());
            }
            SiteFault::Cut(how) => {
                self.cut(how);
                let watch = self.watch.as_ref().expect("it runs");
                // Or a pass from cron does, which holds the lock.
                eventually("the watch misses its master", || {
                    let reports = watch.reports();
                    reports.last().is_some_and(|last| last["exit_code"] != 0)
                });
            }
            SiteFault::SwitchedOff => {
                self.disturbances.begin(Disturbance::Off);
                self.endpoints().verb("off", &[]).expect(0);
                self.when_off = Some(self.touched());
            }
            SiteFault::EchoedOff => {
                self.disturbances.begin(Disturbance::Off);
                self.echo("SYNCING=0\n");
            }
        }
    }

    fn end_of(&mut self, fault: SiteFault) {
        match fault {
            SiteFault::ZeoStopped | SiteFault::ZeoKilled => {
                self.zeo = Some(self.machines.first.start());
            }
            SiteFault::WatchEnded | SiteFault::WatchKilled => self.start_watch(),
            SiteFault::Cut(_) => self.heal(),
            SiteFault::SwitchedOff => {
                assert_eq!(self.when_off.take(), Some(self.touched()), "it is off");
                self.endpoints().verb("on", &[]).expect(0);
                self.disturbances.end(Disturbance::Off);
            }
            SiteFault::EchoedOff => {
                self.echo("SYNCING=1\n");
                self.disturbances.end(Disturbance::Off);
            }
        }
    }

    /// The length of the slave, and when it was written.
    fn touched(&self) -> (u64, SystemTime) {
        let found = fs::metadata(&self.machines.scene.slave).expect("the slave");
        (found.len(), found.modified().expect("a time"))
    }

    /// Waits until a pass runs, and some milliseconds more.
    fn wait_for_an_append(&mut self) {
        let slave = &self.machines.scene.slave;
        let len = || fs::metadata(slave).map_or(0, |found| found.len());
        let before = len();
        eventually("the slave grows", || len() != before);
        thread::sleep(Duration::from_millis(self.rng.below(20) as u64));
    }

    pub(super) fn cut(&self, how: Cut) {
        self.disturbances.begin(Disturbance::Cut);
        self.network.cut(how);
    }

    pub(super) fn heal(&self) {
        self.network.heal();
        self.disturbances.end(Disturbance::Cut);
    }

    fn echo(&self, line: &str) {
        fs::write(self.machines.scene.beside(".fssync-switch"), line).expect("the switch");
    }

    fn operate(&mut self, operation: Operation) {
        self.counts.one(&format!("operations: {operation:?}"));
        match operation {
            Operation::Pack => {
                let mut zeopack = Command::new(zeo::program("zeopack"));
                let address = format!("127.0.0.1:{}", self.machines.first.port);
                must(zeopack.args(["-d", "0", &address]));
            }
            Operation::Remove(suffix) => {
                let path = self.machines.scene.beside(suffix);
                // There may be none at the moment, for example after a pack.
                let _ = fs::remove_file(&path);
                if suffix == SIDECAR {
                    eventually("the next pass writes the sidecar", || path.exists());
                }
            }
        }
    }

    /// Waits until each author has written. An author that hangs is restarted: if ZEO's client
    /// (6.2) connects to one of several servers in the moment in which this server dies, it does
    /// not try this server again before another one has answered.
    pub(super) fn authors_write(&mut self) {
        let started = Instant::now();
        for author in &mut self.authors {
            author.catch_up();
            let goal = author.acknowledged.len() + 1 + self.rng.below(3);
            let patience = HANGS_AFTER.saturating_sub(started.elapsed());
            if !author.listen_for(patience, |all| all.len() >= goal) {
                author.restart();
                self.hung += 1;
                author.listen_to(1);
            }
        }
        self.collect_acks();
    }

    /// Enters the output of the authors into the ledger.
    pub(super) fn collect_acks(&mut self) {
        for (n, author) in self.authors.iter_mut().enumerate() {
            author.catch_up();
            self.acks.take(n, author.said.drain(..));
        }
    }

    /// Waits until each author has written, and all of it is in the slave.
    pub(super) fn wait_for_slave(&mut self) {
        self.authors_write();
        let last = |author: &Client| Some(author.acknowledged.last()?.tid.clone());
        let written = self.authors.iter().filter_map(last).max();
        let endpoints = self.endpoints();
        eventually("the slave catches up", || {
            let report = endpoints.verb("status", &["--json"]).expect(0).report();
            report["last_tid"].as_str().map(str::to_owned) >= written
        });
        self.background.as_mut().expect("background jobs").check();
    }

    /// The serial numbers of all entries in a file.
    pub(super) fn serials(&mut self, path: &Path) -> Vec<String> {
        let answer = self.zodb.call(&json!({"cmd": "serials", "path": path}));
        let serials = answer["serials"].as_array().expect("a list").iter();
        serials
            .map(|serial| serial.as_str().expect("a serial number").to_owned())
            .collect()
    }
}

impl Drop for Site {
    /// Prints the end of the watch's log if the run fails.
    fn drop(&mut self) {
        if let (true, Some(watch)) = (thread::panicking(), &self.watch) {
            let log = watch.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the watch: {:#?}", &lines[lines.len().saturating_sub(20)..]);
        }
    }
}

/// Two weeks over ssh, then two over a mount, and so on.
fn route(week: u64) -> Route {
    if week % 4 < 2 {
        Route::Ssh
    } else {
        Route::Mount
    }
}

/// In the second week on a route, the watch of the first one continues.
fn spares_the_watch(week: u64) -> bool {
    week % 2 == 1
}
