//! `fssync --watch`: keeps one slave in sync, or all slaves of a configuration file.

mod reporter;
mod running;
mod site;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fssync::error::Error;
use fssync::metrics::TextfileThread;
use fssync::plan::outcome::Exit;
use fssync::source::ssh::Process;
use fssync::watch::{WakeReason, Wakeups};
use signal_hook::consts::SIGHUP;

use self::storage::Watched;
use super::log::End;
use super::notify::Notify;
use super::signals::{self, Connections, ExitSignals};
use super::storage::{Output, Selected, Selection};
use super::systemd::{self, Service};

/// Watches the storages that `load` returns. SIGHUP calls it again if they are those of a
/// configuration file. Fails if the first call fails.
///
/// `textfile` is the given path of a textfile for metrics.
pub(crate) fn run(
    load: &dyn Fn() -> Result<Selected, Error>,
    output: Output,
    textfile: Option<&Path>,
) -> Result<Exit, End> {
    let selected = load()?;
    let textfile = selected.textfile(textfile);
    match selected {
        Selected::Paths(config) => {
            let storage = Selection::of_paths(&config);
            let metrics = textfile
                .map(|it| TextfileThread::start(Some(it)))
                .transpose()?;
            Ok(run_one(storage, output, metrics))
        }
        Selected::Site(site) => site::run(site, load, output),
    }
}

fn run_one(storage: Selection<'_>, output: Output, metrics: Option<TextfileThread>) -> Exit {
    let process = Process::default();
    let wakeups = Wakeups::default();
    let waker = wakeups.waker();
    let wake = Box::new(move |signal| {
        waker.wake(WakeReason::Signal);
        if signal == SIGHUP {
            // There is nothing to read again.
            systemd::reloading();
            systemd::ready();
        }
    });
    let interrupted = signals::listen(
        &Connections::of(&process),
        ExitSignals::default(),
        &[SIGHUP],
        Some(wake),
    );
    let flag = interrupted.as_ref().map(Arc::clone).unwrap_or_default();
    let watched = Watched {
        storage,
        output,
        member: Arc::new(Arc::new(Service::default()).add(String::new())),
        notify: &Notify::default(),
        process: &process,
        wakeups: &wakeups,
        metrics,
    };
    let exit = watched.run(interrupted, systemd::ready);
    systemd::stopping();
    if flag.load(Ordering::Relaxed) {
        tracing::info!("Stopped syncing on a signal");
    }
    exit
}
