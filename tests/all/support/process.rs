//! Processes: the program under test, and the tools that tests drive.

use std::env;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fssync::io::progress::Silent;
use fssync::pass::{self, Job, PassReport};
use fssync::plan::outcome::Outcome;
use serde_json::Value;

use super::python;

/// Held while a process is started, and during a pass in this process. A process that another
/// thread is starting inherits the pass's locks until it closes the inherited files, so the
/// locks would seem to be taken after the pass has released them.
static FORKS: Mutex<()> = Mutex::new(());

/// Until the guard is dropped, no process is started through this module, except with
/// [`run_in_a_pass`].
pub fn without_forks() -> MutexGuard<'static, ()> {
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a program that can be run at once. A process that another thread is starting would
/// inherit the file that is being written, and as long as it has that file open, the kernel refuses
/// to run the program (ETXTBSY).
pub fn write_program(path: &Path, content: impl AsRef<[u8]>) {
    let _quiet = without_forks();
    fs::write(path, content).expect("a program");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its mode");
}

/// Makes a pass in this process.
pub fn pass_here(job: &Job) -> Outcome {
    report_here(job).outcome
}

/// Makes a pass in this process, and returns all that it reports.
pub fn report_here(job: &Job) -> PassReport {
    let _quiet = without_forks();
    pass::run(job, &Silent)
}

/// Starts a process.
pub fn spawn(command: &mut Command) -> Child {
    let _quiet = without_forks();
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"))
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.wait_with_output().expect("its output")
}

/// A command for a program that the tests drive. If the program is missing, root on Debian
/// installs its package. Elsewhere the test fails and names the package.
pub fn tool(program: &str, package: &str) -> Command {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let is_there = || {
        let paths = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&paths)
            .chain([PathBuf::from("/usr/sbin")])
            .any(|path| path.join(program).exists())
    };
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_there() {
        let script = format!(
            "apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
             apt-get install -y -qq --no-install-recommends {package}"
        );
        let installed = Command::new("sh").args(["-c", &script]).output();
        assert!(
            installed.is_ok_and(|output| output.status.success()) && is_there(),
            "{program} is missing and could not be installed: install {package}"
        );
    }
    Command::new(program)
}

/// Runs a command that must succeed.
pub fn must(command: &mut Command) -> Output {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The program under test.
pub fn fssync() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fssync"))
}

/// The exit code and output of a program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The object that `--json` printed.
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the run ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    Run::of(output(command))
}

/// The resources that a run used.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Processor time in seconds, in user and kernel mode.
    pub cpu_secs: f64,
    /// Peak memory in bytes.
    pub memory: u64,
    /// Number of bytes that it has read from files, pipes and sockets, with some thousands that
    /// the measurement itself reads.
    pub read: u64,
}

/// Runs a command to its end, and measures it. It is killed after a minute of processor time.
pub fn measured(command: &Command) -> (Run, Taken) {
    let measure = "import json, resource, subprocess, sys\n\
                   resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n\
                   read = lambda: int(open('/proc/self/io').readline().split()[1])\n\
                   before = read()\n\
                   code = subprocess.call(sys.argv[2:])\n\
                   used = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                   taken = [used.ru_utime + used.ru_stime, used.ru_maxrss, read() - before]\n\
                   json.dump(taken, open(sys.argv[1], 'w'))\n\
                   sys.exit(code % 256)";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let to = directory.path().join("taken");
    let mut measuring = Command::new(python());
    measuring.args(["-c", measure]).arg(&to);
    measuring
        .arg(command.get_program())
        .args(command.get_args());
    let run = run(&mut measuring);
    let taken = fs::read(to).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let taken = serde_json::from_slice(&taken).expect("JSON");
    let (cpu_secs, kilobytes, read): (f64, u64, u64) = taken;
    let memory = kilobytes * 1024;
    let taken = Taken {
        cpu_secs,
        memory,
        read,
    };
    (run, taken)
}

/// Runs a command from the hook of a pass in this process.
pub fn run_in_a_pass(command: &mut Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().expect("it runs"))
}

/// A command that runs the program under `strace`. The options apply to all calls of the
/// program and its threads that concern these files.
pub fn strace(options: &[&str], files: &[PathBuf]) -> Command {
    let mut command = tracer(&[&["-qq", "-o", "/dev/null"], options].concat(), files);
    command.arg(env!("CARGO_BIN_EXE_fssync"));
    command
}

/// Like `strace`, but the caller appends the program.
pub fn tracer(options: &[&str], files: &[PathBuf]) -> Command {
    let mut command = tool("strace", "strace");
    command.arg("-f").args(options);
    for file in files {
        command.arg("-P").arg(file);
    }
    command
}

/// A process that holds a lock like ZODB, until this is dropped.
pub struct Holder(Child);

impl Holder {
    /// Returns once the lock is taken.
    pub fn of(path: &Path) -> Self {
        let mut command = tool("flock", "util-linux");
        command.arg("--no-fork").arg(path);
        command.args(["sh", "-c", "echo held; exec sleep 600"]);
        let mut process = spawn(command.stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n", "the lock is taken");
        Self(process)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    /// Kills the process.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
