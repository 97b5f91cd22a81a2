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

use crate::support::{project, python, spawn};

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program of the virtual environment's.
pub fn program(name: &str) -> PathBuf {
    python().with_file_name(name)
}

/// Where a ZEO server listens, what it serves, and its configuration.
pub struct Place {
    pub port: u16,
    pub configuration: PathBuf,
}

impl Place {
    /// A server that is not started yet; its own files go into a directory,
    /// which is made, and away from the database.
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
        // runzeo knows no `runner`, and zeoctl insists on it.
        let (server, _) = text.split_once("<runner>").expect("both parts");
        fs::write(directory.join("zeo.conf"), server).expect("zeo.conf");
        let configuration = directory.join("zeoctl.conf");
        fs::write(&configuration, &text).expect("zeoctl.conf");
        Self {
            port,
            configuration,
        }
    }

    /// What runzeo is to be given.
    pub fn zeo_conf(&self) -> PathBuf {
        self.configuration.with_file_name("zeo.conf")
    }

    /// Starts `runzeo`, as a child of this process.
    pub fn start(&self) -> Server {
        let log = fs::File::create(self.configuration.with_file_name("log")).expect("its log");
        let mut command = Command::new(program("runzeo"));
        command.arg("-C").arg(self.zeo_conf()).stderr(log);
        let server = Server(spawn(&mut command));
        eventually("ZEO listens", || self.listens());
        server
    }

    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

/// A running `runzeo`; it is killed when it is dropped.
pub struct Server(Child);

impl Server {
    /// Ends it as an administrator does.
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
    /// When its writer knew, in seconds since 1970.
    pub time: f64,
}

/// What a client says.
#[derive(Debug)]
enum Said {
    Acknowledged(Acknowledged),
    /// A server was refused that lacks what the client has seen.
    Refused,
    Failed,
}

impl Said {
    fn parse(line: &str) -> Self {
        let said: Value = serde_json::from_str(line).expect("JSON");
        if let Some(tid) = said["acknowledged"].as_str() {
            let time = said["time"].as_f64().expect("a time");
            let tid = tid.to_owned();
            return Self::Acknowledged(Acknowledged { tid, time });
        }
        if said["refused"].is_string() {
            Self::Refused
        } else {
            Self::Failed
        }
    }
}

/// A client that is given all servers and keeps writing; see
/// `tests/zodb/client.py`. It is killed when it is dropped.
pub struct Client {
    process: Child,
    ports: Vec<u16>,
    said: Receiver<Said>,
    /// All that were acknowledged, to those that were restarted too.
    pub acknowledged: Vec<Acknowledged>,
    /// How often the client had to be restarted, for a server that lacked what it
    /// had seen.
    pub restarts: u32,
}

impl Client {
    pub fn start(ports: &[u16]) -> Self {
        let (process, said) = Self::run(ports);
        Self {
            process,
            ports: ports.to_vec(),
            said,
            acknowledged: Vec::new(),
            restarts: 0,
        }
    }

    fn run(ports: &[u16]) -> (Child, Receiver<Said>) {
        let mut command = Command::new(python());
        command.arg(project("tests/zodb/client.py"));
        command.args(ports.iter().map(u16::to_string));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = spawn(command.stdout(Stdio::piped()));
        let lines = BufReader::new(process.stdout.take().expect("its standard output")).lines();
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(Said::parse(&line));
            }
        });
        (process, said)
    }

    /// Takes in what was said until `enough`; a client that refuses a server is
    /// restarted, with an empty cache.
    #[track_caller]
    pub fn listen_until(&mut self, what: &str, enough: impl Fn(&[Acknowledged]) -> bool) {
        let started = Instant::now();
        while !enough(&self.acknowledged) {
            assert!(started.elapsed() < PATIENCE, "never: {what}");
            match self.said.recv_timeout(Duration::from_millis(100)) {
                Ok(Said::Acknowledged(one)) => self.acknowledged.push(one),
                Ok(Said::Refused) => self.restart(),
                Ok(Said::Failed) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the client has ended: {what}"),
            }
        }
    }

    /// Waits until so many more were acknowledged.
    #[track_caller]
    pub fn listen_to(&mut self, more: usize) {
        let goal = self.acknowledged.len() + more;
        self.listen_until("acknowledged transactions", |all| all.len() >= goal);
    }

    /// Waits until one was acknowledged after a moment.
    #[track_caller]
    pub fn listen_past(&mut self, time: f64) {
        self.listen_until("a transaction after the failover", |all| {
            all.last().is_some_and(|last| last.time > time)
        });
    }

    fn restart(&mut self) {
        self.stop();
        (self.process, self.said) = Self::run(&self.ports);
        self.restarts += 1;
    }

    /// Ends it, and takes in what it had said.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for said in &self.said {
            if let Said::Acknowledged(one) = said {
                self.acknowledged.push(one);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
