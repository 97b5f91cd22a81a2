//! Handles the signals that stop the program, and one that must not.

use std::fs;
use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fssync::config::MasterConfig;
use fssync::error::Error;
use fssync::plan::outcome::Exit;
use fssync::source::ssh::Process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Signals within this time count as one: `timeout` of coreutils and some supervisors send
/// SIGTERM to the program and then to its process group.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Makes a write beyond the limit on file sizes (`ulimit -f`) fail with EFBIG instead of
/// killing the process. Child processes keep the default action.
pub(crate) fn survive_file_size_limit() {
    if let Err(error) = flag::register(SIGXFSZ, Arc::default()) {
        tracing::debug!("a write beyond the file size limit will kill fssync: {error}");
    }
}

/// The signals that stop the program in an orderly way.
#[derive(Debug)]
pub(crate) struct ExitSignals(Vec<i32>);

impl Default for ExitSignals {
    fn default() -> Self {
        Self(vec![SIGINT, SIGTERM, SIGQUIT])
    }
}

impl ExitSignals {
    /// The signals for a command that reads this master. If it is on another host, SIGHUP is
    /// among them, so that the connection does not survive a closed terminal; under `nohup`,
    /// SIGHUP stays ignored.
    pub(crate) fn for_master(master: Option<&MasterConfig>) -> Self {
        Self::for_masters(master)
    }

    /// The same for a command that reads several masters.
    pub(crate) fn for_masters<'a>(masters: impl IntoIterator<Item = &'a MasterConfig>) -> Self {
        let mut exit_signals = Self::default();
        let is_remote = masters.into_iter().any(MasterConfig::is_remote);
        if is_remote && !is_ignored(SIGHUP) {
            exit_signals.0.push(SIGHUP);
        }
        exit_signals
    }
}

/// The programs that connect to other hosts, which must be ended before this program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Mutex<Vec<Process>>>);

impl Connections {
    /// A single connection.
    pub(crate) fn of(process: &Process) -> Self {
        let connections = Self::default();
        connections.add(process);
        connections
    }

    /// Adds a connection.
    pub(crate) fn add(&self, process: &Process) {
        self.lock().push(process.clone());
    }

    /// Ends all programs.
    fn close(&self) {
        for process in self.lock().iter() {
            process.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a signal was ignored when this process was started.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Returns a flag that the first of the `exit_signals` sets. Another one more than a second
/// later closes the `connections` and ends this process at once.
///
/// `then` is called after each of these signals and of the `others`, with its number, in a separate
/// thread.
/// Without `then`, the thread is not essential, since the flag is set by a signal handler.
pub(crate) fn listen(
    connections: &Connections,
    ExitSignals(exit_signals): ExitSignals,
    others: &[i32],
    then: Option<Box<dyn Fn(i32) + Send>>,
) -> Result<Arc<AtomicBool>, Error> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Start { what, source }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for &signal in &exit_signals {
        flag::register(signal, Arc::clone(&interrupted)).map_err(failed("to handle signals"))?;
    }
    let signals = Signals::new(exit_signals.iter().chain(others));
    let signals = signals.map_err(failed("to handle signals"))?;
    let is_needed = then.is_some();
    let started = thread::Builder::new().name("signals".to_owned()).spawn({
        let connections = connections.clone();
        move || follow(signals, &exit_signals, &connections, then.as_deref())
    });
    match started {
        Err(error) if is_needed => Err(failed("a thread for signals")(error)),
        _ => Ok(interrupted),
    }
}

/// Waits for signals forever.
fn follow(
    mut signals: Signals,
    exit_signals: &[i32],
    connections: &Connections,
    then: Option<&(dyn Fn(i32) + Send)>,
) {
    let mut first: Option<Instant> = None;
    for signal in signals.forever() {
        if let Some(then) = then {
            then(signal);
        }
        if !exit_signals.contains(&signal) {
            continue;
        }
        match first {
            None => first = Some(Instant::now()),
            Some(first) if first.elapsed() < ONE_SIGNAL => {}
            Some(_) => {
                connections.close();
                process::exit(Exit::Failure as i32);
            }
        }
    }
}
