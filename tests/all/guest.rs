//! A virtual machine with Debian's kernel, which has an NFS server and NFS clients: this machine
//! may lack them. See `tests/nfs/`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::environment::kept;
use crate::support::{Run, project, python, require_root, run, spawn, tool};

/// How long the machine may take to boot; its processor is emulated.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take for any other answer.
const PATIENCE: Duration = Duration::from_secs(180);

/// The machine. It ends when its standard input ends, at the latest with this process.
struct Guest {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guest {
    fn boot() -> Self {
        require_root();
        // The machine uses these programs of this one, and its Python.
        tool("ip", "iproute2");
        tool("mkfs.ext4", "e2fsprogs");
        tool("nsenter", "util-linux");
        tool("strace", "strace");
        let parts = parts();
        let disks = ["disk", "coarse"].map(|name| parts.with_extension(name));
        for disk in &disks {
            let made = File::create(disk).and_then(|file| file.set_len(1 << 30));
            made.expect("a disk for the machine");
        }
        let share = |path: &Path, tag: &str| {
            format!(
                "local,path={},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
                path.display()
            )
        };
        let mut qemu = tool("qemu-system-x86_64", "qemu-system-x86");
        // Only emulation behaves in the same way everywhere.
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.arg("-no-reboot")
            .arg("-kernel")
            .arg(parts.join("vmlinuz"));
        qemu.arg("-initrd").arg(parts.join("initramfs"));
        qemu.arg("-append").arg(format!(
            "console=ttyS0 quiet mitigations=off panic=-1 start={} python={}",
            project("tests/nfs/guest.sh").display(),
            python().display()
        ));
        qemu.arg("-serial");
        qemu.arg(format!("file:{}", parts.join("console").display()));
        for disk in &disks {
            qemu.arg("-drive").arg(format!(
                "file={},format=raw,if=virtio,cache=unsafe",
                disk.display()
            ));
        }
        qemu.args(["-device", "virtio-serial", "-device"]);
        qemu.args(["virtserialport,chardev=commands", "-chardev"]);
        qemu.arg("stdio,id=commands,signal=off");
        qemu.arg("-virtfs").arg(share(Path::new("/"), "host"));
        qemu.arg("-virtfs")
            .arg(share(&parts.join("root"), "packages"));
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = spawn(&mut qemu);
        let mut guest = Self {
            commands: process.stdin.take().expect("its standard input"),
            answers: BufReader::new(process.stdout.take().expect("its standard output")),
            process,
        };
        let booted = guest.answer(&json!({"cmd": "reset"}), BOOT_PATIENCE);
        assert_eq!(booted["ok"], true, "{booted}");
        // The machine keeps them open.
        for disk in disks {
            fs::remove_file(disk).expect("a disk");
        }
        guest
    }

    /// Gives a command of `tests/nfs/guest.py`; returns the answer, which may be a failure.
    fn attempt(&mut self, command: &Value) -> Value {
        self.answer(command, PATIENCE)
    }

    fn answer(&mut self, command: &Value, patience: Duration) -> Value {
        let (answered, late) = mpsc::channel::<()>();
        let pid = Pid::from_raw(self.process.id().cast_signed()).expect("its process id");
        let watchdog = thread::spawn(move || {
            if late.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let _ = writeln!(self.commands, "{command}");
        let mut answer = String::new();
        let _ = self.answers.read_line(&mut answer);
        drop(answered);
        let _ = watchdog.join();
        serde_json::from_str(&answer).unwrap_or_else(|_| {
            let console = fs::read(parts().join("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            panic!("the virtual machine does not answer {command}:\n{console}")
        })
    }

    /// Gives a command that must succeed.
    #[track_caller]
    fn call(&mut self, command: &Value) -> Value {
        let answer = self.attempt(command);
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }
}

/// The kernel and the files from which the machine boots.
fn parts() -> PathBuf {
    let [packages, first] = ["packages.sh", "first.sh"].map(|name| project("tests/nfs").join(name));
    let recipe = [&packages, &first].map(|path| fs::read(path).expect("a script"));
    kept("nfs", &recipe.concat(), |directory| {
        let made = run(Command::new("sh").arg(&packages).arg(directory));
        assert_eq!(
            made.code, 0,
            "cannot make the virtual machine: it needs apt-get and dpkg-deb, and the Debian packages \
             linux-image-amd64, busybox-static, nfs-kernel-server and nfs-common. \
             {made:?}"
        );
    })
}

/// A master on the server's disk and a slave on the client's disk. Both are in the one machine
/// that all tests share.
pub struct Site {
    guest: MutexGuard<'static, Option<Guest>>,
    /// The master's directory, on the server.
    pub directory: String,
    /// The same directory, as the client has it mounted.
    pub mounted: String,
    /// The slave.
    pub slave: String,
}

impl Site {
    /// A site without either file. The client has mounted the master's directory with this
    /// version of NFS.
    fn new(version: &str) -> Self {
        Self::below(version, "")
    }

    /// The same, in a directory of the server's export, with a slash at its end.
    fn below(version: &str, parent: &str) -> Self {
        static GUEST: Mutex<Option<Guest>> = Mutex::new(None);
        static BOOTING: AtomicBool = AtomicBool::new(false);
        static SITES: AtomicU32 = AtomicU32::new(0);
        let mut guest = GUEST.lock().unwrap_or_else(PoisonError::into_inner);
        if guest.is_none() {
            let failed_before = BOOTING.swap(true, Ordering::Relaxed);
            assert!(!failed_before, "the virtual machine did not boot");
            *guest = Some(Guest::boot());
        }
        let n = SITES.fetch_add(1, Ordering::Relaxed);
        let mut site = Self {
            guest,
            directory: format!("/srv/export/{parent}{n}"),
            mounted: format!("/mnt/{version}/{parent}{n}"),
            slave: format!("/srv/slave/{n}/Data.fs"),
        };
        site.call(&json!({"cmd": "reset"}));
        site.server("repair");
        site.must(&["mkdir", &site.directory.clone(), &format!("/srv/slave/{n}")]);
        site
    }

    /// A site with a master that ZODB has open as `m`.
    pub fn with_master(version: &str) -> Self {
        Self::new(version).create(&json!({}))
    }

    /// The same, on a file system of the server whose times are whole seconds.
    pub fn with_coarse_times(version: &str) -> Self {
        Self::below(version, "coarse/").create(&json!({}))
    }

    /// A site with a master that has blobs in this layout, and that ZODB has open as `m`.
    pub fn with_blobs(version: &str, layout: &str) -> Self {
        let site = Self::new(version);
        let blobs = site.blobs();
        let mut site = site.create(&json!({"blobs": blobs, "layout": layout}));
        site.commit_blobs(3);
        site
    }

    fn create(mut self, options: &Value) -> Self {
        let mut open = json!({"cmd": "open", "name": "m", "path": self.master(), "create": true,
            "seed": 1});
        let options = options.as_object().expect("options").clone();
        open.as_object_mut().expect("a command").extend(options);
        self.call(&open);
        self.commit(3);
        self
    }

    /// The master's file, on the server.
    pub fn master(&self) -> String {
        format!("{}/Data.fs", self.directory)
    }

    /// The master's blob directory, on the server.
    pub fn blobs(&self) -> String {
        format!("{}/blobs", self.directory)
    }

    /// Gives a command that must succeed.
    #[track_caller]
    pub fn call(&mut self, command: &Value) -> Value {
        self.guest.as_mut().expect("it has booted").call(command)
    }

    /// Commits a transaction to the master, through ZODB.
    pub fn commit(&mut self, objects: u32) {
        self.call(&json!({"cmd": "commit", "name": "m", "objects": objects}));
    }

    /// Commits a transaction with new blobs to the master.
    pub fn commit_blobs(&mut self, blobs: u32) {
        self.call(&json!({"cmd": "commit", "name": "m", "blobs": blobs}));
    }

    /// Fails unless the slave is in sync, and has all blobs that ZODB can load from it. Nobody
    /// may write to the master at the moment.
    #[track_caller]
    pub fn assert_in_sync_with_blobs(&mut self) {
        self.assert_in_sync();
        self.assert_blobs();
    }

    /// Fails unless ZODB can load all blobs of the slave, with the master's bytes.
    #[track_caller]
    pub fn assert_blobs(&mut self) {
        let blobs = self.slave.replace("Data.fs", "blobstorage");
        let check = json!({"cmd": "check_blobs", "path": self.slave, "blobs": blobs,
            "expected": self.blobs()});
        let found = self.call(&check);
        for list in ["missing", "different", "unknown"] {
            assert_eq!(found[list], json!([]), "{list}: {found}");
        }
        assert!(found["blobs"].as_u64() > Some(0), "{found}");
    }

    /// Runs a program to its end.
    #[track_caller]
    pub fn run(&mut self, arguments: &[&str]) -> Run {
        as_run(&self.call(&json!({"cmd": "run", "arguments": arguments})))
    }

    /// Runs a program that must succeed.
    #[track_caller]
    pub fn must(&mut self, arguments: &[&str]) -> Run {
        self.run(arguments).expect(0)
    }

    /// Runs a command of `tests/nfs/server.sh` on the server.
    #[track_caller]
    pub fn server(&mut self, what: &str) {
        let script = project("tests/nfs/server.sh");
        self.must(&["sh", script.to_str().expect("UTF-8"), what]);
    }

    /// The program with these options, its master and its slave.
    pub fn command(&self, options: &[&str]) -> Vec<String> {
        let program = [env!("CARGO_BIN_EXE_fssync")];
        let mut words: Vec<_> = program
            .iter()
            .chain(options)
            .map(ToString::to_string)
            .collect();
        let directory = self.slave.trim_end_matches("/Data.fs").to_owned();
        words.extend([self.mounted.clone(), directory]);
        words
    }

    /// One pass, that prints its report.
    #[track_caller]
    pub fn pass(&mut self, options: &[&str]) -> Run {
        let mut command = self.command(options);
        command.push("--json".to_owned());
        as_run(&self.call(&json!({"cmd": "run", "arguments": command})))
    }

    /// Runs a subcommand whose only argument is the slave.
    #[track_caller]
    pub fn run_verb(&mut self, verb: &str) -> Run {
        let slave = self.slave.clone();
        self.run(&[env!("CARGO_BIN_EXE_fssync"), verb, &slave])
    }

    /// Fails unless `fssync doctor` succeeds, and a check has this level and has seen this.
    #[track_caller]
    pub fn expect_check(&mut self, check: &str, level: &str, seen: &str) {
        let command = self.command(&["doctor", "--json"]);
        let answer = self.call(&json!({"cmd": "run", "arguments": command}));
        let report = as_run(&answer).expect(0).report();
        let checks = report["checks"].as_array().expect("checks");
        let found = checks.iter().find(|it| it["check"] == check);
        let found = found.unwrap_or_else(|| panic!("no {check}: {report}"));
        let text = found["seen"].as_str().expect("a text");
        assert!(found["level"] == level && text.contains(seen), "{found}");
    }

    /// Starts the program in the background, under a name.
    pub fn start(&mut self, name: &str, options: &[&str]) {
        let command = self.command(options);
        self.call(&json!({"cmd": "start", "program": name, "arguments": command}));
    }

    /// The number of processes that run the program.
    pub fn running(&mut self) -> usize {
        let found = self.call(&json!({"cmd": "running", "name": "fssync"}));
        found["running"].as_array().expect("process ids").len()
    }

    /// Switches syncing off, and checks that ZODB can open the slave.
    #[track_caller]
    pub fn off(&mut self) {
        self.run_verb("off").expect(0);
        let slave = self.slave.clone();
        self.call(&json!({"cmd": "open", "name": "s", "path": slave}));
        self.call(&json!({"cmd": "close", "name": "s"}));
    }

    /// Mounts the master's directory once more, writable.
    pub fn mount_writable(&mut self) {
        self.mount("hard");
        let file = format!("{}/file", self.mounted);
        self.must(&["touch", &file]);
        self.must(&["rm", &file]);
    }

    /// Mounts the master's directory once more, with these options.
    pub fn mount(&mut self, options: &str) {
        let (_, n) = self.directory.rsplit_once('/').expect("a path");
        let (version, n) = (
            self.mounted[5..]
                .split('/')
                .next()
                .expect("a version")
                .to_owned(),
            n.to_owned(),
        );
        let place = format!("/mnt/{options}-{version}");
        let options = format!("{options},nolock,vers={version}");
        let from = if version == "3" {
            "10.0.0.1:/srv/export"
        } else {
            "10.0.0.1:/"
        };
        self.must(&["mkdir", "-p", &place]);
        self.must(&["mount", "-t", "nfs", "-o", &options, from, &place]);
        self.mounted = format!("{place}/{n}");
    }

    /// Waits until a pass runs.
    #[track_caller]
    pub fn await_pass(&mut self) {
        self.await_that("pass", |site| {
            let slave = site.slave.clone();
            let status = site.run(&[env!("CARGO_BIN_EXE_fssync"), "status", &slave]);
            if status.stdout.contains("pass now      none") {
                Err(status.stdout)
            } else {
                Ok(())
            }
        });
    }

    /// Waits for the end of a started program.
    #[track_caller]
    pub fn end_of(&mut self, name: &str) -> Run {
        as_run(&self.call(&json!({"cmd": "wait", "program": name})))
    }

    /// Waits until a started program has logged these parts of lines, in this order.
    #[track_caller]
    pub fn expect_log(&mut self, name: &str, parts: &[&str]) {
        self.await_that(&format!("{parts:?}"), |site| {
            let found = site.call(&json!({"cmd": "look", "program": name}));
            let log = found["stderr"].as_str().expect("a log").to_owned();
            assert!(found["code"].is_null(), "it has ended: {log}");
            let mut rest = &log[..];
            let is_there = parts.iter().all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            });
            if is_there { Ok(()) } else { Err(log) }
        });
    }

    /// Waits until the slave is in sync.
    #[track_caller]
    pub fn await_sync(&mut self) {
        self.await_that("slave in sync", Self::in_sync);
    }

    #[track_caller]
    fn await_that(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> Result<(), String>) {
        let started = Instant::now();
        while let Err(seen) = is_so(self) {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "no {what}: {seen}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Fails unless ZODB opens the slave and its bytes are the master's committed bytes. Nobody
    /// may write to the master at the moment.
    #[track_caller]
    pub fn assert_in_sync(&mut self) {
        let in_sync = self.in_sync();
        assert_eq!(in_sync, Ok(()));
    }

    fn in_sync(&mut self) -> Result<(), String> {
        let master = self.master();
        let committed = self.call(&json!({"cmd": "check", "path": master}));
        let found = self.compare(&master)?;
        let wanted = [&committed["position"]; 2];
        if [&found["slave"], &found["same"]] == wanted {
            Ok(())
        } else {
            Err(format!("{committed} {found}"))
        }
    }

    /// Fails unless ZODB opens the slave and it is a prefix of the master, as the master is or as
    /// it was before a pack.
    #[track_caller]
    pub fn assert_prefix(&mut self) {
        let slave = self.slave.clone();
        let ours = self.call(&json!({"cmd": "check", "path": slave}));
        assert_eq!(ours["position"], ours["size"], "{ours}");
        let masters = [self.master(), format!("{}.old", self.master())];
        let found = masters.clone().map(|master| self.compare(&master));
        let its = found.iter().position(|found| {
            found
                .as_ref()
                .is_ok_and(|found| found["same"] == ours["position"])
        });
        let its = its.unwrap_or_else(|| panic!("{ours} {found:?}"));
        // ZODB may warn of a master that was packed.
        let theirs = self.call(&json!({"cmd": "check", "path": masters[its]}));
        let count = |checked: &Value| checked["warnings"].as_array().map(Vec::len);
        assert!(count(&ours) <= count(&theirs), "{ours} {theirs}");
    }

    /// The lengths of master and slave, and of their common prefix.
    fn compare(&mut self, master: &str) -> Result<Value, String> {
        let command = json!({"cmd": "compare", "master": master, "slave": self.slave});
        let found = self
            .guest
            .as_mut()
            .expect("it has booted")
            .attempt(&command);
        if found["ok"] == true {
            Ok(found)
        } else {
            Err(found.to_string())
        }
    }
}

fn as_run(answer: &Value) -> Run {
    let text = |key: &str| answer[key].as_str().expect("text").to_owned();
    Run {
        code: answer["code"].as_i64().expect("an exit code") as i32,
        stdout: text("stdout"),
        stderr: text("stderr"),
    }
}
