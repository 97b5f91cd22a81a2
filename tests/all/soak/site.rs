//! The site, and how it lives through its weeks: after every event, the slave must follow again.

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
use super::schedule::{self, Event, Fault, Operation, SIDECAR};
use crate::failover::{self, Manager};
use crate::rng::Rng;
use crate::support::{Transport, Zodb, must};
use crate::watcher::Watcher;
use crate::zeo::{self, Client, Server, eventually};

const AUTHORS: usize = 3;

/// How many things an author tries in a second.
const RATE: &str = "6";

/// How long an author must say nothing to be taken for one who hangs.
const HANGS_AFTER: Duration = Duration::from_secs(4);

/// The whole site.
pub struct Site {
    /// Dropped first: it lets go of whoever is stuck on a mount.
    pub(super) network: Network,
    pub(super) background: Option<Background>,
    pub(super) watch: Option<Watcher>,
    pub(super) authors: Vec<Client>,
    /// On the first machine.
    pub(super) zeo: Option<Server>,
    pub(super) machines: failover::Site,
    pub(super) disturbances: Disturbances,
    pub(super) acks: AckLedger,
    pub(super) counts: Counts,
    pub(super) zodb: Zodb,
    pub(super) route: Route,
    /// Of the watch, at the end of the first week on this way.
    pub(super) handles: Option<u64>,
    /// How many authors were restarted since they hung.
    pub(super) hung: u64,
    /// What ZEO has left in the slave this week that was not finished.
    pub(super) tails: Vec<Vec<u8>>,
    /// The slave when `fssync off` had returned.
    at_rest: Option<(u64, SystemTime)>,
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
            // The first one makes the database.
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
            at_rest: None,
            rng: Rng::new(seed),
            seed,
            week: 0,
            started: Instant::now(),
        }
    }

    /// Lives a week, and counts at its end.
    pub fn live_a_week(&mut self) {
        self.tell(&format!("a week over {:?}", self.route));
        self.start_week();
        for event in schedule::week(&mut self.rng, spares_the_watch(self.week)) {
            self.tell(&format!("{event:?}"));
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
            self.follow_again();
        }
        self.tell("the end of the week");
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

    /// Says where we are: the last that is seen of a run that fails.
    fn tell(&self, what: &str) {
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
        let options = ["--watch", "--interval", "0.5", "--timeout", "2"];
        let mut command = self.endpoints().pass(&options);
        let mut watch = Watcher::of(&self.machines.scene, &mut command);
        // Signals are handled by now.
        watch.expect("Start syncing");
        self.watch = Some(watch);
    }

    /// The watch, whose end is near; what it has told is counted.
    pub(super) fn take_watch(&mut self) -> Watcher {
        let watch = self.watch.take().expect("it runs");
        for report in watch.reports() {
            let is_sound = [0, 10, 11, 12].contains(&report["exit_code"].as_i64().unwrap());
            assert!(is_sound, "{report}: {}", watch.log());
            self.counts
                .one(&named("passes of the watch that were news", &report));
        }
        watch
    }

    /// A moment, any.
    pub(super) fn pause(&mut self) {
        thread::sleep(Duration::from_millis(self.rng.below(700) as u64));
    }

    fn begin(&mut self, fault: Fault) {
        self.counts.one(&format!("faults: {fault:?}"));
        match fault {
            Fault::ZeoStopped => self.zeo.take().expect("it runs").stop(),
            Fault::ZeoKilled => drop(self.zeo.take()),
            Fault::WatchEnded => assert_eq!(self.take_watch().end().0, 0),
            Fault::WatchKilled => {
                self.wait_for_an_append();
                drop(self.take_watch());
            }
            Fault::Cut(how) => {
                self.cut(how);
                let watch = self.watch.as_ref().expect("it runs");
                // Or it finds that a pass from cron does, which has the lock.
                eventually("the watch misses its master", || {
                    let told = watch.reports();
                    told.last().is_some_and(|last| last["exit_code"] != 0)
                });
            }
            Fault::SwitchedOff => {
                self.disturbances.begin(Disturbance::Off);
                self.endpoints().verb("off", &[]).expect(0);
                self.at_rest = Some(self.touched());
            }
            Fault::EchoedOff => {
                self.disturbances.begin(Disturbance::Off);
                self.echo("SYNCING=0\n");
            }
        }
    }

    fn end_of(&mut self, fault: Fault) {
        match fault {
            Fault::ZeoStopped | Fault::ZeoKilled => {
                self.zeo = Some(self.machines.first.start());
            }
            Fault::WatchEnded | Fault::WatchKilled => self.start_watch(),
            Fault::Cut(_) => self.heal(),
            Fault::SwitchedOff => {
                assert_eq!(self.at_rest.take(), Some(self.touched()), "it is off");
                self.endpoints().verb("on", &[]).expect(0);
                self.disturbances.end(Disturbance::Off);
            }
            Fault::EchoedOff => {
                self.echo("SYNCING=1\n");
                self.disturbances.end(Disturbance::Off);
            }
        }
    }

    /// How long the slave is, and when it was written.
    fn touched(&self) -> (u64, SystemTime) {
        let found = fs::metadata(&self.machines.scene.slave).expect("the slave");
        (found.len(), found.modified().expect("a time"))
    }

    /// Waits until a pass is at work, then some milliseconds more.
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
                // Where there is none just now, as after a pack, there is none to remove.
                let _ = fs::remove_file(&path);
                if suffix == SIDECAR {
                    eventually("the next pass notes what it left", || path.exists());
                }
            }
        }
    }

    /// Everybody writes something. Who hangs is restarted: where ZEO's client (6.2) connects
    /// to one of several servers in the instant in which that dies, it never tries this one
    /// again before another has answered.
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
        self.take_in();
    }

    /// Takes into the acks what the authors have said.
    pub(super) fn take_in(&mut self) {
        for (n, author) in self.authors.iter_mut().enumerate() {
            author.catch_up();
            self.acks.take(n, author.said.drain(..));
        }
    }

    /// Waits until everybody writes, and what they have written is in the slave.
    pub(super) fn follow_again(&mut self) {
        self.authors_write();
        let last = |author: &Client| Some(author.acknowledged.last()?.tid.clone());
        let written = self.authors.iter().filter_map(last).max();
        let endpoints = self.endpoints();
        eventually("the slave follows", || {
            let told = endpoints.verb("status", &["--json"]).expect(0).report();
            told["last_tid"].as_str().map(str::to_owned) >= written
        });
        self.background.as_mut().expect("they are made").check();
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
    /// Shows what the watch did last in a run that fails.
    fn drop(&mut self) {
        if let (true, Some(watch)) = (thread::panicking(), &self.watch) {
            let log = watch.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the watch: {:#?}", &lines[lines.len().saturating_sub(20)..]);
        }
    }
}

/// Two weeks each way, in turn.
fn route(week: u64) -> Route {
    if week % 4 < 2 {
        Route::Ssh
    } else {
        Route::Mount
    }
}

/// In the second week of a way one watch lives for longer than a week.
fn spares_the_watch(week: u64) -> bool {
    week % 2 == 1
}
