//! Two storages of one real ZEO, and a client that commits across both of them. The second machine
//! has its slaves at the master's paths, as after a failover, in a mount namespace of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sshd::Sshd;
use crate::support::{Blobs, Setup, Zodb, fssync, must, require_root, run, tool};
use crate::watcher::Watcher;
use crate::zeo::{Client, Instance, eventually, program};

/// How often the client commits.
const COMMITS: usize = 150;

/// How often it commits after a failover.
const MORE_COMMITS: usize = 20;

/// A ZEO with the storages `1`, which has blobs, and `catalog`; and the slaves of both.
struct Site {
    directory: TempDir,
    setup: Setup,
    zeo: Instance,
    zodb: Zodb,
}

/// One of the two machines.
#[derive(Clone, Copy)]
enum Machine {
    First,
    Second,
}

impl Site {
    fn new(setup: Setup) -> Self {
        require_root();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = directory.path().join("first");
        let zeo = instance(&first, setup);
        fs::create_dir_all(directory.path().join("second/var")).expect("a directory");
        Self {
            directory,
            setup,
            zeo,
            zodb: Zodb::start(),
        }
    }

    /// The directory of a machine that contains `var`.
    fn home(&self, machine: Machine) -> PathBuf {
        self.directory.path().join(match machine {
            Machine::First => "first",
            Machine::Second => "second",
        })
    }

    fn data(&self, machine: Machine) -> [PathBuf; 2] {
        let var = self.home(machine).join("var");
        [var.join("Data.fs"), var.join("catalog.fs")]
    }

    fn blobs(&self, machine: Machine) -> PathBuf {
        self.home(machine).join("var/blobs")
    }

    /// Makes `fssync.toml` for the second machine from the `zeo.conf`.
    fn configure(&self) {
        let sshd = Sshd::get();
        let prefix = sshd.url(Path::new(""));
        let mut from_zeo = fssync();
        from_zeo
            .args(["config", "from-zeo"])
            .arg(self.zeo.zeo_conf());
        let made = run(from_zeo.args(["--master", &prefix])).expect(0).stdout;
        let defaults = format!(
            "[defaults]\nrsh = '{}'\nremote-fssync = '{}'\n",
            sshd.quick_rsh(),
            env!("CARGO_BIN_EXE_fssync")
        );
        fs::write(self.config(), made + &defaults).expect("fssync.toml");
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("fssync.toml")
    }

    /// A command that runs a program on the second machine.
    fn on_the_second(&self, program: &Path) -> Command {
        let mut command = tool("unshare", "util-linux");
        let script = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";
        command.args(["--mount", "sh", "-ec", script, "sh"]);
        let machines = [Machine::Second, Machine::First];
        command.args(machines.map(|it| self.home(it).join("var")));
        command.arg(program);
        command
    }

    /// fssync with these options on the second machine.
    fn command(&self, options: &[&str]) -> Command {
        let mut command = self.on_the_second(Path::new(env!("CARGO_BIN_EXE_fssync")));
        command.args(options).arg("--config").arg(self.config());
        command
    }

    /// Starts a client that commits until there are this many transactions. Returns once it has
    /// committed one.
    fn client(&self, count: usize) -> Client {
        let ports = [self.zeo.port];
        let mut client = Client::running("across.py", &ports, &["--count", &count.to_string()]);
        client.listen_to(1);
        client
    }

    /// Fails unless each slave is a prefix of its master that ZODB opens, and each reference
    /// between the two resolves if both have its transaction. Returns the number of transactions
    /// that both have.
    fn assert_consistent(&mut self) -> u64 {
        let [masters, slaves] = [Machine::First, Machine::Second].map(|it| self.data(it));
        for (master, slave) in masters.iter().zip(&slaves) {
            let opened = self.zodb.check(slave);
            let position = opened["position"].as_u64().expect("a position") as usize;
            let slave = fs::read(slave).expect("the slave");
            let master = fs::read(master).expect("the master");
            assert!(master.starts_with(&slave[..position]), "{opened}");
        }
        let found = self.references(Machine::Second);
        let number = |key: &str| found[key].as_u64().expect("a number");
        let pairs = number("pages").min(number("entries"));
        assert_eq!(number("pairs"), pairs, "{found}");
        pairs
    }

    /// The references between the two databases, none of which may be wrong.
    fn references(&mut self, machine: Machine) -> Value {
        let [site, catalog] = self.data(machine);
        let found = self
            .zodb
            .call(&json!({"cmd": "check_references", "site": site,
            "blobs": self.blobs(machine), "setup": self.setup.as_str(), "catalog": catalog}));
        assert_eq!(found["wrong"], json!([]), "{found}");
        found
    }

    fn slaves_are_equal(&self) -> bool {
        let [masters, slaves] = [Machine::First, Machine::Second].map(|it| self.data(it));
        let read = |path: &PathBuf| fs::read(path).ok();
        masters.iter().zip(&slaves).all(|(a, b)| read(a) == read(b))
    }

    /// Fails unless both slaves are equal to their masters, and all references resolve.
    fn assert_in_sync(&mut self) {
        assert!(self.slaves_are_equal());
        assert_eq!(self.assert_consistent(), COMMITS as u64);
        let [file, _] = self.data(Machine::Second);
        let [expected, directory] = [Machine::First, Machine::Second].map(|it| self.blobs(it));
        let blobs = Blobs {
            file: &file,
            directory: &directory,
            expected: Some(&expected),
            journal: None,
        };
        let blobs = self.zodb.assert_blobs(&blobs, self.setup);
        assert_eq!(blobs, COMMITS as u64);
    }
}

/// A ZEO instance, as an administrator makes it. `zeo.conf` gets a second storage.
pub(super) fn instance(home: &Path, setup: Setup) -> Instance {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let mut make = Command::new(program("mkzeoinstance"));
    make.arg(home).arg(format!("127.0.0.1:{port}"));
    must(make.arg("-b").arg(home.join("var/blobs")));
    let zeo = Instance {
        port,
        configuration: home.join("etc/zeoctl.conf"),
    };
    let mut text = fs::read_to_string(zeo.zeo_conf()).expect("zeo.conf");
    if setup == Setup::Proxy {
        let blob_dir = format!("  blob-dir {}\n", home.join("var/blobs").display());
        assert!(text.contains(&blob_dir), "{text}");
        text = text.replace(&blob_dir, "");
        let start = format!("<blobstorage 1>\n{blob_dir}<filestorage>\n");
        text = text.replace("<filestorage 1>\n", &start);
        text = text.replace("</filestorage>\n", "</filestorage>\n</blobstorage>\n");
    }
    text += "\n<filestorage catalog>\n  path $INSTANCE/var/catalog.fs\n</filestorage>\n";
    fs::write(zeo.zeo_conf(), text).expect("zeo.conf");
    zeo
}

#[test]
fn a_watch_follows_two_storages_of_one_zeo() {
    let mut site = Site::new(Setup::FileStorage);
    site.configure();
    let server = site.zeo.start();
    let mut client = site.client(COMMITS);
    let watcher = Watcher::logging_to(site.directory.path(), &mut site.command(&["--watch"]));
    eventually("slaves", || {
        site.data(Machine::Second).iter().all(|it| it.exists())
    });
    let mut seen = Vec::new();
    while !client.listen_for(Duration::from_millis(100), |all| all.len() == COMMITS) {
        seen.push(site.assert_consistent());
    }
    assert!(
        seen.is_sorted() && seen.iter().any(|&it| it > 0),
        "{seen:?}"
    );
    eventually("the slaves are in sync", || site.slaves_are_equal());
    server.stop();
    eventually("the slaves are in sync", || site.slaves_are_equal());
    site.assert_in_sync();
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn passes_follow_two_storages_of_one_zeo_until_a_failover() {
    let mut site = Site::new(Setup::Proxy);
    site.configure();
    let server = site.zeo.start();
    let mut client = site.client(COMMITS);
    let mut seen = Vec::new();
    while !client.listen_for(Duration::from_millis(10), |all| all.len() == COMMITS) {
        run(&mut site.command(&["-q"])).expect(0);
        seen.push(site.assert_consistent());
    }
    assert!(
        seen.is_sorted() && seen.iter().any(|&it| it > 0),
        "{seen:?}"
    );
    client.stop();
    server.stop();
    run(&mut site.command(&["-q"])).expect(0);
    site.assert_in_sync();

    // ZEO serves the slaves with the same zeo.conf.
    run(&mut site.command(&["off", "-q"])).expect(0);
    let server = site.zeo.start_with(site.on_the_second(&program("runzeo")));
    let goal = COMMITS + MORE_COMMITS;
    let mut client = site.client(goal);
    client.listen_until("commits", |all| all.len() == MORE_COMMITS);
    client.stop();
    server.stop();
    assert_eq!(site.references(Machine::Second)["pairs"], goal);
    assert_eq!(site.references(Machine::First)["pairs"], COMMITS);
}
