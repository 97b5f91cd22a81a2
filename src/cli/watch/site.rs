//! The watch of all storages of a configuration file: a thread for each of them.
//!
//! The threads share nothing that one of them could hold while it waits, so a storage whose
//! master hangs does not delay the others. The main thread only handles signals:
//!
//! - SIGHUP: the file is read again. Storages that were removed or changed are stopped, new and
//!   changed ones are started, and all others make a pass at once. If the file is wrong, the error
//!   is logged and nothing changes. Nobody waits for the end of a storage that is stopped, since its
//!   thread may hang on a file system. If it was changed, its old and its new watch may overlap:
//!   they exclude each other by their locks, as any two passes do.
//! - SIGINT, SIGTERM, SIGQUIT: all storages are stopped. A thread that hangs is not waited for
//!   longer than [`MAX_END`].
//!
//! A watch ends by itself if its configuration cannot be right now, for example because the disk of
//! the slave is not mounted yet. As long as other storages are watched, it is started again after
//! a delay. The program ends if all watches have ended.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use fssync::config::{NamedStorage, Site};
use fssync::error::Error;
use fssync::metrics::{Textfile, TextfileThread};
use fssync::plan::outcome::Exit;
use fssync::source::ssh::Process;
use fssync::watch::{WakeReason, Wakeups};
use signal_hook::consts::SIGHUP;

use super::running::Running;
use super::storage::Watched;
use crate::cli::args::ProgressMode;
use crate::cli::log::End;
use crate::cli::notify::Notify;
use crate::cli::signals::{self, Connections, ExitSignals};
use crate::cli::storage::{Output, Selected, Selection};
use crate::cli::systemd::{self, Service};

/// The first and the longest delay before a watch that has ended by itself is started again.
const FIRST_DELAY: Duration = Duration::from_secs(5);
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 60);

/// How long the threads of the storages may take to end.
const MAX_END: Duration = Duration::from_secs(20);

/// Watches the storages of a site until a signal arrives, and returns the most severe exit code.
/// `load` reads the configuration again.
pub(super) fn run(
    site: Site,
    load: &dyn Fn() -> Result<Selected, Error>,
    output: Output,
) -> Result<Exit, End> {
    let (sender, messages) = mpsc::channel();
    let connections = Connections::default();
    let signals = sender.clone();
    let forward = move |signal| {
        let message = if signal == SIGHUP {
            Message::Reload
        } else {
            Message::Stop
        };
        // If the main thread is past its loop, the program is about to end.
        let _ = signals.send(message);
    };
    let then = Some(Box::new(forward) as Box<_>);
    signals::listen(&connections, ExitSignals::default(), &[SIGHUP], then)?;
    let mut watch = SiteWatch {
        // Several bars would overwrite each other.
        output: Output {
            progress: match output.progress {
                ProgressMode::Auto => ProgressMode::Never,
                progress => progress,
            },
            ..output
        },
        service: Arc::default(),
        notify: Arc::default(),
        connections,
        sender,
        running: BTreeMap::new(),
        removed: Vec::new(),
        next: 0,
        exits: Vec::new(),
        ended: Vec::new(),
        metrics: TextfileThread::start(Textfile::of_site(&site))?,
    };
    watch.apply(site);
    systemd::ready();
    watch.handle(&messages, load);
    systemd::stopping();
    let stopped = watch.stop(|_| true);
    let until = Instant::now() + MAX_END;
    watch
        .exits
        .extend(stopped.into_iter().map(|it| it.wait(until)));
    // They do not count, but may be at work on their files.
    for removed in watch.removed {
        removed.wait(until);
    }
    watch.notify.finish();
    tracing::info!("Stopped syncing all storages");
    let ended = watch.ended.iter().map(|it| it.exit);
    Ok(Exit::most_severe(watch.exits.into_iter().chain(ended)))
}

/// A message to the main thread.
enum Message {
    /// SIGHUP arrived.
    Reload,
    /// A signal that ends the program arrived.
    Stop,
    /// The watch with this number has ended by itself.
    Ended(usize),
}

/// A watch that has ended by itself.
struct Ended {
    storage: NamedStorage,
    exit: Exit,
    /// When it is started again.
    at: Instant,
    /// The delay if it ends once more.
    delay: Duration,
}

struct SiteWatch {
    output: Output,
    service: Arc<Service>,
    notify: Arc<Notify>,
    connections: Connections,
    sender: Sender<Message>,
    /// The watches, by their numbers.
    running: BTreeMap<usize, Running>,
    /// The watches that a reload has stopped, until they have ended.
    removed: Vec<Running>,
    /// The number of the next watch.
    next: usize,
    /// The exit codes of the watches that were stopped, or could not be started.
    exits: Vec<Exit>,
    ended: Vec<Ended>,
    metrics: TextfileThread,
}

impl SiteWatch {
    /// Handles messages until a signal ends the program, or all watches have ended.
    fn handle(&mut self, messages: &Receiver<Message>, load: &dyn Fn() -> Result<Selected, Error>) {
        while !self.running.is_empty() {
            let now = Instant::now();
            let next = self.ended.iter().map(|it| it.at).min();
            let wait = next.map_or(LONGEST_DELAY, |at| at.saturating_duration_since(now));
            match messages.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => self.start_again(),
                Ok(Message::Reload) => {
                    systemd::reloading();
                    self.reload(load);
                    systemd::ready();
                }
                Ok(Message::Ended(number)) => self.note_end(number),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return self.notify.interrupt();
                }
            }
        }
    }

    /// Reads the configuration again.
    fn reload(&mut self, load: &dyn Fn() -> Result<Selected, Error>) {
        match load() {
            Ok(Selected::Site(site)) => {
                tracing::info!("{}: read again", site.path.display());
                self.metrics.replace(Textfile::of_site(&site));
                self.apply(site);
            }
            // The paths on the command line do not change.
            Ok(Selected::Paths(_)) => {}
            Err(error) => {
                let why = error.display_chain();
                tracing::error!("{why}; the storages are watched as before");
            }
        }
    }

    /// Remembers a watch that has ended by itself.
    fn note_end(&mut self, number: usize) {
        // A reload may have stopped it in the meantime.
        if let Some(running) = self.running.remove(&number) {
            self.ended.push(Ended {
                storage: running.storage,
                exit: running.thread.join().unwrap_or(Exit::Failure),
                at: Instant::now() + running.delay,
                delay: LONGEST_DELAY.min(running.delay * 2),
            });
        }
    }

    /// Starts the watches whose delay is over.
    fn start_again(&mut self) {
        let now = Instant::now();
        let (due, rest) = mem::take(&mut self.ended)
            .into_iter()
            .partition::<Vec<_>, _>(|it| it.at <= now);
        self.ended = rest;
        for ended in due {
            self.start(ended.storage, ended.delay);
        }
    }

    /// Watches the storages of `site` and no others.
    fn apply(&mut self, site: Site) {
        let is_kept = |it: &Running| site.storages.iter().any(|other| it.storage.is_same(other));
        let removed: Vec<_> = (self.running.iter())
            .filter(|(_, it)| !is_kept(it))
            .map(|(&number, _)| number)
            .collect();
        let stopped = self.stop(|number| removed.contains(&number));
        self.removed.retain(Running::is_alive);
        self.removed.extend(stopped);
        self.exits.clear();
        self.ended.clear();
        self.notify.watch(&site);
        for running in self.running.values() {
            running.waker.wake(WakeReason::Signal);
        }
        for storage in site.storages {
            let is_running = self.running.values().any(|it| it.storage.is_same(&storage));
            if !is_running {
                self.start(storage, FIRST_DELAY);
            }
        }
    }

    fn start(&mut self, storage: NamedStorage, delay: Duration) {
        let number = self.next;
        self.next += 1;
        let process = Process::default();
        let interrupted = Arc::new(AtomicBool::new(false));
        let wakeups = Wakeups::default();
        let waker = wakeups.waker();
        let member = Arc::new(self.service.add(storage.name.to_string()));
        self.connections.add(&process);
        let started = thread::Builder::new().name("watch".to_owned()).spawn({
            let (storage, output) = (storage.clone(), self.output);
            let (member, interrupted) = (Arc::clone(&member), Arc::clone(&interrupted));
            let (sender, notify) = (self.sender.clone(), Arc::clone(&self.notify));
            let metrics = self.metrics.clone();
            move || {
                let storage = Selection::of(&storage);
                let _span = storage.span().entered();
                let watched = Watched {
                    storage,
                    output,
                    member,
                    notify: &notify,
                    process: &process,
                    wakeups: &wakeups,
                    metrics: Some(metrics),
                };
                let exit = watched.run(Ok(interrupted), || {});
                // If the main thread is past its loop, it waits for this thread already.
                let _ = sender.send(Message::Ended(number));
                exit
            }
        });
        match started {
            Ok(thread) => {
                let running = Running {
                    storage,
                    interrupted,
                    waker,
                    member,
                    thread,
                    delay,
                };
                self.running.insert(number, running);
            }
            Err(error) => {
                let name = &storage.name;
                tracing::error!("NOT SYNCING storage {name}: cannot start a thread: {error}");
                self.exits.push(Exit::Failure);
                member.leave();
            }
        }
    }

    /// Asks the watches with these numbers to end.
    fn stop(&mut self, is_stopped: impl Fn(usize) -> bool) -> Vec<Running> {
        let running = mem::take(&mut self.running).into_iter();
        let (stopped, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            running.partition(|(number, _)| is_stopped(*number));
        self.running = kept;
        stopped.values().for_each(Running::stop);
        stopped.into_values().collect()
    }
}
