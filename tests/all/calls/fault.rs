//! The faults that are injected at single calls, and the calls at which they are possible.

use std::collections::BTreeMap;
use std::env;

use crate::crash::scenario::Scenario;
use crate::rng::Rng;
use crate::support::{Run, number};

/// A fault at one call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The process is killed at the call.
    Kill,
    /// The call does nothing and fails with this error.
    Error(&'static str),
}

/// A call: the `nth` call of this name by one thread, as `strace` counts.
#[derive(Clone, Debug)]
pub struct Point {
    pub call: String,
    pub nth: u32,
}

/// The calls that create, write, rename, sync or lock a file or change its owner. A kill before
/// any other call leaves the same files as a kill before the next one of these. `strace` ignores
/// calls that this architecture does not have.
const CHANGES: &str = "?pwrite64,?write,?ftruncate,?fallocate,?rename,?renameat,?renameat2,?link,\
                       ?linkat,?unlink,?unlinkat,?fsync,?fdatasync,?fchmod,?fchown,?openat,?flock,\
                       ?fsetxattr,?fremovexattr,?mkdir,?mkdirat,?fchownat,?utimensat,?syncfs";

/// The calls that only read.
const READS: &str = "?openat2,?read,?pread64,?stat,?newfstatat,?fstat,?statx,?statfs,?fstatfs,\
                     ?getdents64,?readlink,?readlinkat,?lseek,?llistxattr,?lgetxattr,\
                     ?fgetxattr";

/// The calls that may fail because the disk is full or a quota is used up.
const ALLOCATIONS: &str = "?pwrite64,?write,?fallocate,?ftruncate,?rename,?renameat,?renameat2,\
                         ?link,?linkat,?fsync,?fdatasync,?openat,?mkdir,?mkdirat";

/// The calls that a signal may interrupt. It cannot interrupt `fcntl`, which fssync only uses to
/// duplicate a handle (fcntl(2): only waiting for a lock is interrupted).
const INTERRUPTIBLE: &str = "?openat,?openat2,?read,?pread64,?write,?pwrite64,?ftruncate,?fallocate,\
                    ?fsync,?fdatasync,?flock,?statfs,?fstatfs";

impl CallFault {
    /// The calls at which it is possible, in the syntax of `strace`.
    pub fn calls(self) -> String {
        match self {
            Self::Kill => CHANGES.to_owned(),
            Self::Error("ENOSPC" | "EDQUOT") => ALLOCATIONS.to_owned(),
            Self::Error("EINTR") => INTERRUPTIBLE.to_owned(),
            Self::Error(_) => format!("{CHANGES},{READS}"),
        }
    }

    /// Whether it is possible at a call of this name.
    pub fn affects(self, call: &str) -> bool {
        let calls = self.calls();
        calls
            .split(',')
            .any(|it| it.trim_start_matches('?') == call)
    }

    /// Whether it was injected, by the exit code of the process and the log of `strace`.
    pub fn was_injected(self, run: &Run, log: &str) -> bool {
        match self {
            Self::Kill => run.code == -1,
            Self::Error(_) => log.contains("(INJECTED)"),
        }
    }

    /// The option of `strace` that injects it at a call.
    pub fn at(self, Point { call, nth }: &Point) -> String {
        format!("inject={call}:{self}:when={nth}")
    }

    /// The same, at a call and all later calls of its name.
    pub fn from(self, point: &Point) -> String {
        format!("{}+", self.at(point))
    }

    /// The same, at every other call, from the first or the second on.
    pub fn at_every_other(self, first: u32) -> String {
        format!("inject={}:{self}:when={first}+2", self.calls())
    }
}

impl std::fmt::Display for CallFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill => f.write_str("signal=SIGKILL"),
            Self::Error(error) => write!(f, "error={error}"),
        }
    }
}

/// The calls in a log of `strace -f`. If several threads make calls of the same name, the
/// largest number counts.
pub fn points(log: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in log.lines().filter(|line| !line.contains("resumed>")) {
        let (thread, rest) = line.split_once(' ').expect("a thread and its call");
        // `strace` logs `???` for a call during which the process ended.
        let call = rest.trim_start().split_once('(');
        if let Some((call, _)) = call.filter(|(call, _)| !call.contains('?')) {
            *counts.entry((call, thread)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in counts {
        let entry = most.entry(call).or_insert(0);
        *entry = count.max(*entry);
    }
    let all = most.into_iter().flat_map(|(call, count)| {
        (1..=count).map(|nth| Point {
            call: call.to_owned(),
            nth,
        })
    });
    all.collect()
}

/// How many calls each test takes, unless `FSSYNC_CALLS` is a number or `all`.
const SAMPLE: usize = 20;

/// The same with blobs: a case takes more time, because ZODB then loads each blob.
const SAMPLE_WITH_BLOBS: usize = 4;

/// A sample of the calls of a scenario: the same in each run, or the one of `FSSYNC_CALLS_SEED`.
pub fn sample(mut points: Vec<Point>, scenario: &Scenario) -> Vec<Point> {
    let usual = if scenario.has_blobs {
        SAMPLE_WITH_BLOBS
    } else {
        SAMPLE
    };
    let count = match env::var("FSSYNC_CALLS").as_deref() {
        Ok("all") => return points,
        _ => number("FSSYNC_CALLS").unwrap_or(usual),
    };
    let mut rng = Rng::new(number("FSSYNC_CALLS_SEED").unwrap_or(1) as u64);
    let mut taken = Vec::new();
    while taken.len() < count && !points.is_empty() {
        taken.push(points.swap_remove(rng.below(points.len())));
    }
    taken
}
