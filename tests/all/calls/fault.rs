//! What affects a call, and which calls it can befall.

use std::collections::BTreeMap;
use std::env;

use crate::rng::Rng;
use crate::support::{Run, number};

/// What affects one call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed there.
    Kill,
    /// The call does nothing but fail with this error.
    Error(&'static str),
}

/// A call: the `nth` of its name that a thread makes, as `strace` counts.
#[derive(Clone, Debug)]
pub struct Point {
    pub call: String,
    pub nth: u32,
}

/// The calls that create, write, rename, own, lock or make durable. What a kill before any
/// other call leaves, a kill before the next one of these leaves, too. Those that this
/// machine's architecture lacks are passed over.
const CHANGES: &str = "?pwrite64,?write,?ftruncate,?fallocate,?rename,?renameat,?renameat2,?link,\
                       ?linkat,?unlink,?unlinkat,?fsync,?fdatasync,?fchmod,?fchown,?openat,?flock,\
                       ?fsetxattr,?fremovexattr";

/// Those that only look.
const LOOKS: &str = "?openat2,?read,?pread64,?stat,?newfstatat,?fstat,?statx,?statfs,?fstatfs,\
                     ?getdents64,?readlink,?readlinkat,?lseek,?llistxattr,?lgetxattr,\
                     ?fgetxattr";

/// Those that may find the disk full, or the owner's share of it.
const TAKE_ROOM: &str = "?pwrite64,?write,?fallocate,?ftruncate,?rename,?renameat,?renameat2,\
                         ?link,?linkat,?fsync,?fdatasync,?openat";

/// Those that a signal may interrupt.
const WAIT: &str = "?openat,?openat2,?read,?pread64,?write,?pwrite64,?ftruncate,?fallocate,\
                    ?fsync,?fdatasync,?flock,?statfs,?fstatfs,?fcntl";

impl Fault {
    /// The calls that it can befall, as `strace` takes them.
    pub fn calls(self) -> String {
        match self {
            Self::Kill => CHANGES.to_owned(),
            Self::Error("ENOSPC" | "EDQUOT") => TAKE_ROOM.to_owned(),
            Self::Error("EINTR") => WAIT.to_owned(),
            Self::Error(_) => format!("{CHANGES},{LOOKS}"),
        }
    }

    /// Whether it can befall a call of this name.
    pub fn affects(self, call: &str) -> bool {
        let calls = self.calls();
        calls
            .split(',')
            .any(|it| it.trim_start_matches('?') == call)
    }

    /// Whether it befell a process, of which `strace` has said this.
    pub fn was_injected(self, run: &Run, log: &str) -> bool {
        match self {
            Self::Kill => run.code == -1,
            Self::Error(_) => log.contains("(INJECTED)"),
        }
    }

    /// Has `strace` make it befall a call.
    pub fn at(self, Point { call, nth }: &Point) -> String {
        format!("inject={call}:{self}:when={nth}")
    }

    /// Has `strace` make it befall a call, and all that follow of its name.
    pub fn from(self, point: &Point) -> String {
        format!("{}+", self.at(point))
    }

    /// Has `strace` make it befall every other call, from the first or the second on.
    pub fn at_every_other(self, first: u32) -> String {
        format!("inject={}:{self}:when={first}+2", self.calls())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill => f.write_str("signal=SIGKILL"),
            Self::Error(error) => write!(f, "error={error}"),
        }
    }
}

/// The calls in a log of `strace -f`, each as often as the thread makes it that makes it
/// most often.
pub fn points(log: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in log.lines().filter(|line| !line.contains("resumed>")) {
        let (thread, rest) = line.split_once(' ').expect("a thread and its call");
        // A thread that the end of the process meets in a call has `???` there.
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

/// How many calls each test takes, unless `FSSYNC_CALLS` says how many, or `all`.
const SAMPLE: usize = 20;

/// A share of the calls, the same each time, or that of `FSSYNC_CALLS_SEED`.
pub fn sample(mut points: Vec<Point>) -> Vec<Point> {
    let count = match env::var("FSSYNC_CALLS").as_deref() {
        Ok("all") => return points,
        _ => number("FSSYNC_CALLS").unwrap_or(SAMPLE),
    };
    let mut rng = Rng::new(number("FSSYNC_CALLS_SEED").unwrap_or(1) as u64);
    let mut taken = Vec::new();
    while taken.len() < count && !points.is_empty() {
        taken.push(points.swap_remove(rng.below(points.len())));
    }
    taken
}
