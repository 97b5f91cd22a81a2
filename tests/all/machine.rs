//! The second machine: namespaces in which the shipped files are installed at their documented
//! paths, with a real systemd as the first process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Run, Scene, must, project, require_root, run, spawn, tool};
use crate::zeo::eventually;

/// The user of ZEO and fssync on this machine.
const ZOPE: u32 = 990;

/// The shipped files, and the paths at which they are installed.
const INSTALLED: [(&str, &str); 9] = [
    ("cron.d/fssync", "etc/cron.d/fssync"),
    ("failover/fssync-zeo", "usr/local/sbin/fssync-zeo"),
    ("failover/fssync-zeo.conf", "etc/fssync-zeo.conf"),
    ("fssync.toml", "etc/fssync/fssync.toml"),
    (
        "supervisor/fssync.conf",
        "etc/supervisor/conf.d/fssync.conf",
    ),
    (
        "systemd/fssync.service",
        "etc/systemd/system/fssync.service",
    ),
    (
        "systemd/fssync@.service",
        "etc/systemd/system/fssync@.service",
    ),
    ("systemd/fssync@.timer", "etc/systemd/system/fssync@.timer"),
    (
        "systemd/zeo.service.d/fssync.conf",
        "etc/systemd/system/zeo.service.d/fssync.conf",
    ),
];

/// The targets that the units refer to. No unit of the real machine is started.
const TARGETS: [&str; 8] = [
    "basic",
    "fssync-test",
    "multi-user",
    "network-online",
    "remote-fs",
    "shutdown",
    "sysinit",
    "timers",
];

/// A running machine. All of its processes are killed when it is dropped.
///
/// Each unit is started only once: on a busy machine, systemd 252 may fail to start a unit again
/// while it removes the control group of this unit (219/CGROUP).
pub struct Machine {
    unshare: Child,
    first_process: u32,
    cgroup: String,
    files: PathBuf,
}

impl Machine {
    /// Boots it with a [site of Plone](Scene::plone). The directory `var` of the master is
    /// `/mnt/master/var` there, and that of the slave, which belongs to the user zope from then on,
    /// is `/srv/plone/var`.
    pub fn boot(scene: &Scene) -> Self {
        require_root();
        tool("systemctl", "systemd");
        let files = scene.directory.path().join("second-machine");
        install(&files);
        let [master, slave] = [&scene.master, &scene.slave].map(|file| {
            let directory = file.parent().expect("a directory");
            assert!(directory.ends_with("filestorage"), "it is a site of Plone");
            directory.parent().expect("a directory")
        });
        must(
            Command::new("chown")
                .args(["-R", &format!("{ZOPE}:{ZOPE}")])
                .arg(slave),
        );
        let cgroup = format!(
            "fssync-test-{}",
            scene.directory.path().file_name().unwrap().display()
        );
        let log = File::create(files.join("log")).expect("a log");
        let mut unshare = tool("unshare", "util-linux");
        unshare.args([
            "--pid",
            "--mount",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
        ]);
        unshare.arg(project("tests/machine.sh"));
        unshare.args([&files, master, slave]).arg(&cgroup);
        unshare
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut machine = Self {
            unshare: spawn(&mut unshare),
            first_process: 0,
            cgroup,
            files,
        };
        machine.await_boot();
        machine
    }

    fn await_boot(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        eventually("the first process", || {
            let children = fs::read_to_string(&children).expect("its children");
            self.first_process = children.trim().parse().unwrap_or(0);
            self.first_process != 0
        });
        eventually("systemd has booted", || {
            self.run(&["systemctl", "is-system-running"]).stdout == "running\n"
        });
    }

    /// The path of one of its files, as this machine has it.
    pub fn file(&self, path: &str) -> PathBuf {
        self.files.join(path)
    }

    /// A command that runs on the machine.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = tool("nsenter", "util-linux");
        command.args(["--pid", "--mount", "--uts", "--target"]);
        command.arg(self.first_process.to_string()).args(words);
        command
    }

    /// Runs a command on the machine, to its end.
    pub fn run(&self, words: &[&str]) -> Run {
        run(&mut self.command(words))
    }

    /// A property of a unit, from systemd.
    pub fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.run(&["systemctl", "show", "--value", "-p", property, unit]);
        shown.expect(0).stdout.trim().to_owned()
    }
}

impl Drop for Machine {
    /// Kills the first process, and so all others in its namespace.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.first_process.cast_signed());
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        } else {
            let _ = self.unshare.kill();
        }
        let _ = self.unshare.wait();
        let remove = format!(
            "mount -t cgroup2 cgroup2 /mnt; cd /mnt; for n in $(seq 50); do \
             find {0} -depth -type d -exec rmdir {{}} +; test -d {0} || exit 0; sleep 0.1; done",
            self.cgroup
        );
        let mut unshare = Command::new("unshare");
        let _ = run(unshare.args(["--mount", "sh", "-c", &remove]));
    }
}

/// Installs the files of the machine.
fn install(files: &Path) {
    let beside = |name: &str| {
        let path = files.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        path
    };
    must(Command::new("cp").arg("-a").arg("/etc").arg(beside("etc")));
    for (from, to) in INSTALLED {
        fs::copy(project("contrib").join(from), beside(to)).expect(from);
    }
    fs::copy(env!("CARGO_BIN_EXE_fssync"), beside("usr/local/bin/fssync")).expect("fssync");
    for target in TARGETS {
        let unit = beside(&format!("usr/lib/systemd/system/{target}.target"));
        fs::write(unit, "[Unit]\n").expect("a target");
    }
    let zeo =
        "[Service]\nUser=zope\nStandardError=append:/var/log/zeo.log\nExecStart=sleep infinity\n";
    fs::write(beside("etc/systemd/system/zeo.service"), zeo).expect("a unit");
    for (name, line) in [
        ("etc/passwd", format!("zope:x:{ZOPE}:{ZOPE}::/:/bin/sh\n")),
        ("etc/group", format!("zope:x:{ZOPE}:\n")),
    ] {
        let text = fs::read_to_string(beside(name)).expect(name);
        fs::write(beside(name), text + &line).expect(name);
    }
}
