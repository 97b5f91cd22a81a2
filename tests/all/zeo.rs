//! Real ZEO: servers, and a client that keeps writing to them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Scene, Zodb, project, python, spawn};

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the slave has everything that is committed in the master. The master is not
/// written any more, but it may end with an unfinished transaction. The bytes are compared
/// because the slave reaches its length before its last batch is visible.
pub fn eventually_in_sync(scene: &Scene, zodb: &mut Zodb) {
    let position = zodb.check(&scene.master)["position"].as_u64();
    let master = fs::read(&scene.master).expect("the master");
    let committed = &master[..position.expect("a position") as usize];
    eventually("the slave is in sync", || {
        fs::read(&scene.slave).is_ok_and(|slave| slave == committed)
    });
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

/// A program of the virtual environment.
pub fn program(name: &str) -> PathBuf {
    python().with_file_name(name)
}

/// A ZEO that can be started: its port and its configuration.
pub struct Instance {
    pub port: u16,
    pub configuration: PathBuf,
}

impl Instance {
    /// A server that is not started yet. Its own files go into a new directory, apart from the
    /// database.
    pub fn new(data_fs: &Path, directory: &Path) -> Self {
        fs::create_dir(directory).expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let text = format!(
            "<zeo>\n  address 127.0.0.1:{port}\n</zeo>\n\
             <filestorage 1>\n  path {data_fs}\n</filestorage>\n\
             <runner>\n  program {runzeo} -C {directory}/zeo.conf\n  \
             socket-name {directory}/zdsock\n  directory {directory}\n</runner>\n",
            data_fs = data_fs.display(),
            runzeo = program("runzeo").display(),
            directory = directory.display(),
        );
        // runzeo rejects a `runner` section, and zeoctl requires one.
        let (server, _) = text.split_once("<runner>").expect("both parts");
        fs::write(directory.join("zeo.conf"), server).expect("zeo.conf");
        let configuration = directory.join("zeoctl.conf");
        fs::write(&configuration, &text).expect("zeoctl.conf");
        Self {
            port,
            configuration,
        }
    }

    /// The configuration file for runzeo.
    pub fn zeo_conf(&self) -> PathBuf {
        self.configuration.with_file_name("zeo.conf")
    }

    /// Starts `runzeo`, as a child of this process.
    pub fn start(&self) -> Server {
        self.start_with(Command::new(program("runzeo")))
    }

    /// The same with a command that runs `runzeo` with the arguments that are appended.
    pub fn start_with(&self, mut command: Command) -> Server {
        let log = fs::File::create(self.configuration.with_file_name("log")).expect("its log");
        command.arg("-C").arg(self.zeo_conf()).stderr(log);
        let server = Server(spawn(&mut command));
        eventually("ZEO listens", || self.listens());
        server
    }

    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

/// A running `runzeo`, which is killed when this is dropped.
pub struct Server(Child);

impl Server {
    /// Ends the server as an administrator does.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.0.wait().expect("its end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A transaction that a server acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub tid: String,
    /// When the client received the acknowledgement, in seconds since 1970.
    pub time: f64,
}

impl Acknowledged {
    /// Parses a line of a client, if it is an acknowledgement.
    pub fn said(line: &Value) -> Option<Self> {
        let tid = line["acknowledged"].as_str()?.to_owned();
        let time = line["time"].as_f64().expect("a time");
        Some(Self { tid, time })
    }
}

/// A client that knows all servers and keeps writing; see `tests/zodb/client.py`. It is killed
/// when this is dropped.
pub struct Client {
    process: Child,
    script: String,
    arguments: Vec<String>,
    says: Receiver<Value>,
    /// All lines that were received, also from clients before a restart.
    pub said: Vec<Value>,
    /// All acknowledged transactions in these lines.
    pub acknowledged: Vec<Acknowledged>,
    /// Number of restarts, because a server lacked data that the client had seen.
    pub restarts: u32,
}

impl Client {
    pub fn start(ports: &[u16]) -> Self {
        Self::running("client.py", ports, &[])
    }

    /// Runs another script of `tests/zodb`, with more arguments.
    pub fn running(script: &str, ports: &[u16], options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned());
        let arguments: Vec<_> = ports.iter().map(u16::to_string).chain(options).collect();
        let (process, says) = Self::run(script, &arguments);
        Self {
            process,
            script: script.to_owned(),
            arguments,
            says,
            said: Vec::new(),
            acknowledged: Vec::new(),
            restarts: 0,
        }
    }

    fn run(script: &str, arguments: &[String]) -> (Child, Receiver<Value>) {
        let mut command = Command::new(python());
        command.arg(project("tests/zodb").join(script));
        command.args(arguments);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = spawn(command.stdout(Stdio::piped()));
        let lines = BufReader::new(process.stdout.take().expect("its standard output")).lines();
        let (sender, says) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        (process, says)
    }

    fn take_in(&mut self, line: Value) {
        self.acknowledged.extend(Acknowledged::said(&line));
        self.said.push(line);
    }

    /// Receives all lines that were printed up to now.
    pub fn catch_up(&mut self) {
        while let Ok(line) = self.says.try_recv() {
            self.take_in(line);
        }
    }

    /// Receives lines until `enough` holds or the time is up; returns whether it was enough. A
    /// client that refuses a server is restarted with an empty cache.
    #[track_caller]
    pub fn listen_for(&mut self, time: Duration, enough: impl Fn(&[Acknowledged]) -> bool) -> bool {
        let started = Instant::now();
        while !enough(&self.acknowledged) {
            if started.elapsed() >= time {
                return false;
            }
            match self.says.recv_timeout(Duration::from_millis(100)) {
                Ok(line) if line["refused"].is_string() => self.restart(),
                Ok(line) => self.take_in(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the client has ended"),
            }
        }
        true
    }

    /// Like `listen_for`, but fails if it is not enough.
    #[track_caller]
    pub fn listen_until(&mut self, what: &str, enough: impl Fn(&[Acknowledged]) -> bool) {
        assert!(self.listen_for(PATIENCE, enough), "never: {what}");
    }

    /// Waits until this many more transactions are acknowledged.
    #[track_caller]
    pub fn listen_to(&mut self, more: usize) {
        let goal = self.acknowledged.len() + more;
        self.listen_until("acknowledged transactions", |all| all.len() >= goal);
    }

    /// Waits until a transaction is acknowledged after this time.
    #[track_caller]
    pub fn listen_past(&mut self, time: f64) {
        self.listen_until("a transaction after the failover", |all| {
            all.last().is_some_and(|last| last.time > time)
        });
    }

    pub fn restart(&mut self) {
        self.stop();
        (self.process, self.says) = Self::run(&self.script, &self.arguments);
        self.restarts += 1;
    }

    /// Ends the client, and receives its last lines.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        while let Ok(line) = self.says.recv() {
            self.take_in(line);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
