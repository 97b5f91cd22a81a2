//! The first machine dies while a client keeps writing, the second takes over, and the first
//! comes back. The tests use the script in `contrib` and the steps of
//! `docs/failover.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use serde_json::json;

use crate::support::{
    History, Run, Scene, Transport, Zodb, fssync, must, names, project, rewrite_end, run,
};
use crate::watcher::Watcher;
use crate::zeo::{self, Acknowledged, Client, Server, eventually, eventually_in_sync};

/// Seconds since 1970, as the client prints them.
pub fn now() -> f64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    since.as_secs_f64()
}

/// The program that starts ZEO on the second machine.
#[derive(Clone, Copy)]
pub enum Manager {
    /// zdaemon, as in Plone.
    Zdaemon,
    /// A shell, in the background.
    Shell,
}

/// Two machines: ZEO on the first, the script on the second.
pub struct Site {
    pub scene: Scene,
    pub first: zeo::Instance,
    pub second: zeo::Instance,
    script: PathBuf,
}

impl Site {
    pub fn new(transport: Transport, manager: Manager) -> Self {
        let scene = Scene::new().over(transport);
        let directory = scene.directory.path();
        let first = zeo::Instance::new(&scene.master, &directory.join("zeo1"));
        let second = zeo::Instance::new(&scene.slave, &directory.join("zeo2"));
        let script = directory.join("fssync-zeo.conf");
        let configuration = configuration(&scene, &second, manager);
        fs::write(&script, configuration).expect("the script's configuration");
        Self {
            scene,
            first,
            second,
            script,
        }
    }

    /// Runs the script like heartbeat.
    pub fn script(&self, verb: &str) -> Run {
        let mut command = Command::new(project("contrib/failover/fssync-zeo"));
        run(command.arg(&self.script).arg(verb))
    }

    /// When the script last started ZEO, in seconds since 1970.
    fn zeo_started(&self) -> f64 {
        let text = fs::read_to_string(self.script.with_file_name("zeo-started"));
        let text = text.expect("the script has started ZEO");
        text.trim().parse().expect("seconds")
    }

    fn client(&self) -> Client {
        Client::start(&[self.first.port, self.second.port])
    }

    /// The tids of all transactions in a file.
    fn tids(zodb: &mut Zodb, path: &Path) -> Vec<String> {
        let answer = zodb.call(&json!({"cmd": "transactions", "path": path}));
        let all = answer["transactions"].as_array().expect("transactions");
        let tid = |one: &serde_json::Value| one["tid"].as_str().expect("a tid").to_owned();
        all.iter().map(tid).collect()
    }
}

impl Drop for Site {
    /// Stops what the script has started.
    fn drop(&mut self) {
        self.script("stop");
    }
}

/// The configuration of the script.
fn configuration(scene: &Scene, zeo: &zeo::Instance, manager: Manager) -> String {
    let directory = scene.directory.path().display();
    let (start, stop, status) = match manager {
        Manager::Zdaemon => {
            let zeoctl = zeo::program("zeoctl").display().to_string();
            let zeoctl = |verb| format!("{zeoctl} -C {} {verb}", zeo.configuration.display());
            (zeoctl("start"), zeoctl("stop"), zeoctl("status"))
        }
        Manager::Shell => {
            let pid = format!("$(cat {directory}/zeo2/pid)");
            let runs = format!("grep -q \"State:.[^Z]\" /proc/{pid}/status");
            let start = format!(
                "{} -C {} >{directory}/zeo2/log 2>&1 & echo $! >{directory}/zeo2/pid",
                zeo::program("runzeo").display(),
                zeo.zeo_conf().display()
            );
            let wait = format!("for n in $(seq 100); do {runs} || exit 0; sleep 0.1; done");
            (start, format!("kill {pid}; {wait}; kill -KILL {pid}"), runs)
        }
    };
    format!(
        "FSSYNC_OFF='{} off {}'\n\
         ZEO_START='date +%s.%N >{directory}/zeo-started; {start}'\n\
         ZEO_STOP='{stop}'\nZEO_STATUS='{status}'\n",
        env!("CARGO_BIN_EXE_fssync"),
        scene.slave.display(),
    )
}

/// The duration of a failover, and the transactions that it lost.
struct Failover {
    killed: f64,
    zeo_started: f64,
    listening: f64,
    /// The first transaction that the second machine acknowledged.
    back: f64,
    /// The transactions that the first machine acknowledged and the second lacks.
    lost: Vec<Acknowledged>,
    /// The transactions that would be lost if the first machine's files had gone with its ZEO.
    behind: Vec<Acknowledged>,
    restarts: u32,
}

impl Failover {
    /// Kills ZEO on the first machine, lets the script start it on the second, and waits until
    /// the client writes there.
    fn of(site: &Site, master: Server, client: &mut Client) -> Self {
        let killed = now();
        drop(master);
        let at_death = site.scene.directory.path().join("slave-at-death");
        fs::copy(&site.scene.slave, &at_death).expect("a copy");
        let (started, listening) = thread::scope(|scope| {
            let listening = scope.spawn(|| {
                eventually("ZEO listens on the second machine", || {
                    site.second.listens()
                });
                now()
            });
            let started = site.script("start").expect(0);
            (started, listening.join().expect("the time"))
        });
        let zeo_started = site.zeo_started();
        client.listen_past(zeo_started);
        let is_first = |one: &&Acknowledged| one.time < zeo_started;
        let first: Vec<_> = client.acknowledged.iter().filter(is_first).collect();
        Self {
            killed,
            zeo_started,
            listening,
            back: client.acknowledged[first.len()].time,
            lost: lost(site, &started, &first),
            behind: missing(&Site::tids(&mut Zodb::start(), &at_death), &first),
            restarts: client.restarts,
        }
    }

    /// Prints the measurements.
    fn report(&self, how: &str) {
        let ms = |from: f64, to: f64| format!("{:.0} ms", (to - from) * 1000.0);
        let age = |one: &Acknowledged| ms(one.time, self.killed);
        eprintln!(
            "failover, {how}: no writes for {} (fssync off after {}, ZEO listens after {} more, \
             the client writes after {} more, restarted {} times); lost {} acknowledged \
             transactions, {} were not on the slave when the master died{}",
            ms(self.killed, self.back),
            ms(self.killed, self.zeo_started),
            ms(self.zeo_started, self.listening),
            ms(self.listening, self.back),
            self.restarts,
            self.lost.len(),
            self.behind.len(),
            self.behind
                .first()
                .map_or_else(String::new, |one| format!(", the oldest {} old", age(one))),
        );
    }
}

/// The acknowledged transactions that a file lacks.
fn missing(tids: &[String], acknowledged: &[&Acknowledged]) -> Vec<Acknowledged> {
    let is_missing = |one: &&&Acknowledged| !tids.contains(&one.tid);
    let missing = acknowledged.iter().filter(is_missing);
    missing.map(|&one| one.clone()).collect()
}

/// The transactions that the first machine acknowledged and the second lacks. Fails unless the
/// second has a prefix of the first one's history, which ends with the transaction that `off`
/// printed, and has everything that was acknowledged up to that transaction.
fn lost(site: &Site, off: &Run, first: &[&Acknowledged]) -> Vec<Acknowledged> {
    let mut zodb = Zodb::start();
    let master = Site::tids(&mut zodb, &site.scene.master);
    let slave = Site::tids(&mut zodb, &site.scene.slave);
    let same = master.iter().zip(&slave).take_while(|(a, b)| a == b);
    let replicated = &slave[..same.count()];
    let end = replicated.last().expect("something was replicated");
    let message = format!("ends with transaction {end}");
    assert!(off.stdout.contains(&message), "{message}: {off:?}");
    for tid in &slave[replicated.len()..] {
        assert!(!master.contains(tid), "{tid} comes after a gap");
    }
    let lost = missing(replicated, first);
    for one in &lost {
        assert!(master.contains(&one.tid), "{one:?} was committed");
        assert!(one.tid > *end, "{one:?} is missing, {end} is not");
    }
    lost
}

/// The tids of acknowledged transactions.
fn tids_of(acknowledged: &[Acknowledged]) -> Vec<&str> {
    acknowledged.iter().map(|one| one.tid.as_str()).collect()
}

/// Copies the slave's data back to the first machine with the command of `docs/failover.md`,
/// on one machine. Returns the path of the first machine's own data, if it was kept.
pub fn copy_back(scene: &Scene) -> Option<PathBuf> {
    let [master, slave] = [&scene.master, &scene.slave].map(|file| {
        let directory = file.parent().expect("a directory");
        directory.to_str().expect("UTF-8").to_owned()
    });
    let page = fs::read_to_string(project("docs/failover.md")).expect("the page");
    let mut lines = page.lines().map(str::trim_start);
    let command = lines.find(|line| line.starts_with("fssync --full --blobs zope@second:"));
    let command = command.expect("the page has the command");
    let words = command.split(' ').skip(1).map(|word| match word {
        "zope@second:/srv/plone/var/filestorage" => slave.as_str(),
        "/srv/plone/var/filestorage" => master.as_str(),
        word => word,
    });
    // These sites have no blobs.
    let words = words.filter(|word| *word != "--blobs");
    let before = kept_at_failback(&master);
    must(fssync().args(words));
    let after = kept_at_failback(&master);
    let mut new = after.difference(&before);
    let kept = new.next().map(|name| Path::new(&master).join(name));
    assert!(
        before.is_subset(&after) && new.next().is_none(),
        "{after:?}"
    );
    kept
}

/// The files that failbacks have kept on the first machine.
fn kept_at_failback(directory: &str) -> BTreeSet<String> {
    let names = names(Path::new(directory)).into_iter();
    names
        .filter(|name| name.starts_with("Data.fs.diverged-"))
        .collect()
}

#[test]
fn a_second_failback_keeps_the_files_of_the_first() {
    let history = History::get();
    let scene = Scene::synced(history);
    // The last transactions of the first machine did not reach the second one.
    rewrite_end(&scene.master, &history.after);
    let kept = copy_back(&scene).expect("the old file is kept");
    assert_eq!(fs::read(&scene.master).unwrap(), history.before);
    rewrite_end(&scene.master, &history.after);
    let kept_now = copy_back(&scene).expect("the old file is kept");
    assert_ne!(kept, kept_now);
    for kept in [kept, kept_now] {
        assert_eq!(fs::read(kept).unwrap(), history.after);
    }
    assert_eq!(fs::read(&scene.master).unwrap(), history.before);
    // The second machine has everything, so there is nothing to keep.
    rewrite_end(&scene.slave, &history.after);
    assert_eq!(copy_back(&scene), None);
    assert_eq!(fs::read(&scene.master).unwrap(), history.after);
}

#[test]
fn with_cron_the_second_machine_takes_over_and_fails_back() {
    let site = Site::new(Transport::Path, Manager::Zdaemon);
    let master = site.first.start();
    let mut client = site.client();
    client.listen_to(20);
    site.scene.expect("full-copy");
    client.listen_past(now());
    site.scene.expect("append");
    // The first transaction that is acknowledged may have been committed before the pass; the
    // second was not.
    client.listen_past(now());
    client.listen_to(1);

    let failover = Failover::of(&site, master, &mut client);
    failover.report("passes from cron, zdaemon");
    assert!(
        !failover.lost.is_empty(),
        "the last transaction came after the last pass"
    );
    assert!(
        client.restarts > 0,
        "ZEO's client refuses a server that lags"
    );
    assert_eq!(site.script("status").expect(0).stdout, "running\n");
    site.script("start").expect(0);
    client.listen_to(10);
    assert_eq!(site.scene.pass(&[]).expect(10).report()["action"], "off");
    run(fssync().arg("on").arg(&site.scene.slave)).expect(13);

    // 1: ZEO is stopped on the second machine.
    site.script("stop").expect(0);
    assert_eq!(site.script("status").expect(3).stdout, "stopped\n");
    site.script("stop").expect(0);
    // 2: the data is copied back, and the lost transactions are kept.
    let kept = copy_back(&site.scene).expect("the lost transactions are kept");
    let mut zodb = Zodb::start();
    let kept = Site::tids(&mut zodb, &kept);
    assert!(
        tids_of(&failover.lost)
            .iter()
            .all(|tid| kept.iter().any(|kept| kept == tid))
    );
    // 3: ZEO is started on the first machine; the client reconnects by itself.
    let restarts = client.restarts;
    let master = site.first.start();
    client.listen_past(now());
    client.listen_to(10);
    assert_eq!(
        client.restarts, restarts,
        "no transaction was lost, so the client accepts the server"
    );
    // 4: syncing is switched on, and a pass continues from the slave.
    let on = |options: &[&str]| run(fssync().arg("on").args(options).arg(&site.scene.slave));
    on(&[]).expect(20);
    let forced = on(&["--force"]).expect(0);
    assert!(forced.stdout.starts_with("syncing is on"), "{forced:?}");
    let report = site.scene.pass(&[]).expect(0).report();
    // ZEO may have been stopped between a vote and its end.
    let went_on = ["append", "trim-append"].contains(&report["action"].as_str().unwrap());
    assert!(went_on, "{report}");

    client.stop();
    master.stop();
    site.scene.pass(&[]).expect(0);
    zodb.assert_in_sync(&site.scene.master, &site.scene.slave);
    let slave = Site::tids(&mut zodb, &site.scene.slave);
    for one in &client.acknowledged {
        let was_lost = failover.lost.iter().any(|lost| lost.tid == one.tid);
        assert_ne!(slave.contains(&one.tid), was_lost, "{one:?}");
    }
}

#[test]
fn a_master_packed_after_a_failback_is_copied_only_with_full() {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let mut zodb = Zodb::start();
    let mut write_to = |path: &Path, then: &str| {
        zodb.call(&json!({"cmd": "open", "name": "s", "path": path, "seed": 1}));
        for _ in 0..3 {
            zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 2, "size": 100}));
        }
        zodb.call(&json!({"cmd": then, "name": "s"}));
        zodb.attempt(&json!({"cmd": "close", "name": "s"}));
    };
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    write_to(&scene.slave, "close");
    copy_back(&scene);
    write_to(&scene.master, "pack");
    run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);

    let refused = scene.pass(&[]).expect(20).report();
    eprintln!("{refused}");
    let copied = scene.pass(&["--full"]).expect(0).report();
    assert_eq!(copied["action"], "full-copy");
    zodb.assert_in_sync(&scene.master, &scene.slave);
    let is_aside = |name: &String| name.contains(".diverged-");
    assert!(scene.beside_slave().iter().any(is_aside));
}

#[test]
fn a_watch_follows_up_to_the_failover_and_after_the_failback() {
    for transport in Transport::BOTH {
        let site = Site::new(transport, Manager::Shell);
        let master = site.first.start();
        let mut client = site.client();
        client.listen_past(0.0);
        let _watch = Watcher::start(&site.scene, &[]);
        eventually("the slave", || site.scene.slave.exists());
        client.listen_to(200);

        let failover = Failover::of(&site, master, &mut client);
        failover.report(&format!("watch, {transport:?}, runzeo"));
        client.listen_to(10);
        assert_eq!(site.scene.pass(&[]).expect(10).report()["action"], "off");

        site.script("stop").expect(0);
        eventually("ZEO has ended", || site.script("status").code == 3);
        copy_back(&site.scene);
        let master = site.first.start();
        client.listen_past(now());
        run(fssync().args(["on", "--force"]).arg(&site.scene.slave)).expect(0);
        client.listen_to(10);
        client.stop();
        master.stop();
        let mut zodb = Zodb::start();
        eventually_in_sync(&site.scene, &mut zodb);
        let slave = Site::tids(&mut zodb, &site.scene.slave);
        for one in &client.acknowledged {
            let was_lost = failover.lost.iter().any(|lost| lost.tid == one.tid);
            assert_ne!(slave.contains(&one.tid), was_lost, "{one:?}");
        }
    }
}
