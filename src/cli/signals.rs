//! Signals: those that end the program, and one that must not.

use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fssync::outcome::Exit;
use fssync::source::ssh::Process;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// How long all signals that end the program count as one: `timeout` of coreutils
/// sends SIGTERM to the program and then to its process group, and supervisors do
/// alike.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Makes a write beyond the limit on file sizes (`ulimit -f`) an error like any other,
/// EFBIG, instead of the end of the process. Programs that this one starts have the
/// signal as they always do.
pub(crate) fn survive_file_size_limit() {
    if let Err(error) = flag::register(SIGXFSZ, Arc::default()) {
        tracing::debug!("a write beyond the file size limit will kill fssync: {error}");
    }
}

/// Returns what the first SIGINT or SIGTERM sets. One that comes more than a second
/// later ends this process at once, and `connection` with it.
///
/// `then` is called, in a thread of its own, after each of these signals and of the
/// `others`.
pub(crate) fn listen(
    connection: &Process,
    others: &[i32],
    then: impl Fn() + Send + 'static,
) -> anyhow::Result<Arc<AtomicBool>> {
    const FAILED: &str = "cannot handle signals";
    let interrupted = Arc::new(AtomicBool::new(false));
    let ending = [SIGINT, SIGTERM];
    for signal in ending {
        flag::register(signal, Arc::clone(&interrupted)).context(FAILED)?;
    }
    let mut signals = Signals::new(ending.iter().chain(others)).context(FAILED)?;
    let connection = connection.clone();
    let mut first: Option<Instant> = None;
    let follow = move || {
        for signal in signals.forever() {
            then();
            if !ending.contains(&signal) {
                continue;
            }
            match first {
                None => first = Some(Instant::now()),
                Some(first) if first.elapsed() < ONE_SIGNAL => {}
                Some(_) => {
                    connection.close();
                    process::exit(Exit::Failure as i32);
                }
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(follow)
        .context("cannot start a thread for signals")?;
    Ok(interrupted)
}
