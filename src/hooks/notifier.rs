//! Takes the outcomes of passes, and runs hooks and pings in threads of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::site::SiteState;
use super::storage::Storage;
use super::{hook_thread, ping, ping_thread};
use crate::config::{HookConfig, NamedStorage, PingConfig, StorageName};
use crate::plan::outcome::Outcome;

/// The longest wait before the clock is read again, in case it was set.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The longest time that a hook may take, whatever its configuration.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// How long [`Notifier::finish`] waits beyond the time limits, for killed processes to disappear.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// Whether a process makes a single pass for each storage, or a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// A single pass: pings are sent at its end, whatever their interval.
    Once,
    /// A watch: pings are sent at their interval.
    Watch,
}

/// Reports the outcomes of the passes of this process. There is one thread for each hook and for
/// each ping, so each runs at most once at a time. Without hooks and pings, nothing is done.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    /// How long the threads may take to finish.
    patience: Duration,
}

/// The part that the threads use, too.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hooks: Vec<HookConfig>,
    /// The storages, in the order of [`SiteState`].
    storages: Vec<Mutex<Storage>>,
    state: Mutex<State>,
    changed: Condvar,
    interrupted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    site: SiteState,
    /// Number of passes so far. It lets a thread detect a pass that ended while it was busy.
    passes: u64,
    /// When the last pass of this process had ended; `None` if more may follow.
    finishing_since: Option<Instant>,
    /// Number of threads that have not ended.
    threads: usize,
}

/// The state of the process at one moment, for a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    passes: u64,
    /// When the last pass of this process had ended.
    pub(super) finishing_since: Option<Instant>,
}

impl Notifier {
    /// Starts the threads. `interrupted` is set when a signal asks the process to end; hooks and
    /// pings are killed then. If there are too many threads, a warning is logged, and the hook
    /// or ping does not run.
    #[must_use]
    pub fn start(
        run: Run,
        hooks: &[HookConfig],
        pings: &[PingConfig],
        storages: &[NamedStorage],
        interrupted: Arc<AtomicBool>,
    ) -> Self {
        let names = storages.iter().map(|it| it.name.to_string());
        let shared = Arc::new(Shared {
            hooks: hooks.to_vec(),
            storages: storages
                .iter()
                .map(|it| Mutex::new(Storage::new(it.clone())))
                .collect(),
            state: Mutex::new(State {
                site: SiteState::new(names),
                passes: 0,
                finishing_since: None,
                threads: 0,
            }),
            changed: Condvar::new(),
            interrupted,
        });
        for nth in 0..hooks.len() {
            spawn(&shared, "hook", move |shared| {
                hook_thread::run(shared, nth);
            });
        }
        for ping in pings {
            let ping = ping.clone();
            spawn(&shared, "ping", move |shared| {
                ping_thread::run(shared, &ping, run);
            });
        }
        let timeouts = hooks.iter().map(|hook| hook.timeout);
        let pings = (!pings.is_empty()).then_some(2 * ping::KILL_AFTER);
        let longest = timeouts.chain(pings).max();
        Self {
            shared,
            patience: longest.map_or(Duration::ZERO, |it| it.min(MAX_TIMEOUT) + GRACE_PERIOD),
        }
    }

    /// Hands the outcome of a pass over, which took this long. Call it after the pass has
    /// released its lock. Does not wait for hooks. A storage that was not configured is ignored.
    pub fn passed(&self, name: &StorageName, outcome: &Outcome, elapsed: Duration) {
        let shared = &self.shared;
        let Some(nth) = shared.lock().site.position(name.as_str()) else {
            return;
        };
        shared.storage(nth).passed(outcome, elapsed, &shared.hooks);
        let mut state = shared.lock();
        state.site.passed(nth, outcome, elapsed);
        state.passes += 1;
        shared.changed.notify_all();
    }

    /// Lets the hooks and pings run that are due, and waits for their end: for as long as the
    /// longest of them may take. The last pass must have ended.
    pub fn finish(&self) {
        let mut state = self.shared.finish();
        let until = Instant::now() + self.patience;
        while state.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::debug!("not waiting for {} hooks and pings", state.threads);
                break;
            }
            state = self.shared.wait(state, left);
        }
    }
}

impl Drop for Notifier {
    /// Ends the threads, without waiting for them.
    fn drop(&mut self) {
        drop(self.shared.finish());
    }
}

fn spawn(shared: &Arc<Shared>, name: &str, work: impl FnOnce(&Shared) + Send + 'static) {
    let ours = Arc::clone(shared);
    shared.lock().threads += 1;
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        work(&ours);
        ours.ended();
    });
    if let Err(error) = started {
        tracing::warn!("cannot start a thread for a {name}, which will not run: {error}");
        shared.ended();
    }
}

impl Shared {
    /// The storage with this number.
    pub(super) fn storage(&self, nth: usize) -> MutexGuard<'_, Storage> {
        lock(&self.storages[nth])
    }

    /// All storages, one after the other.
    pub(super) fn storages(&self) -> impl Iterator<Item = MutexGuard<'_, Storage>> {
        self.storages.iter().map(lock)
    }

    /// The state of the process now; `None` if a signal asked it to end.
    pub(super) fn now(&self) -> Option<Moment> {
        let state = self.lock();
        (!self.is_interrupted()).then_some(Moment {
            passes: state.passes,
            finishing_since: state.finishing_since,
        })
    }

    /// The state of the site.
    pub(super) fn site(&self) -> SiteState {
        self.lock().site.clone()
    }

    /// Whether a signal asked the process to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// When the last pass of this process had ended; `None` if more may follow.
    pub(super) fn finishing_since(&self) -> Option<Instant> {
        self.lock().finishing_since
    }

    /// Waits until a pass has ended since `moment`, the process finishes, or the time is over.
    pub(super) fn wait_since(&self, moment: Moment, time: Duration) {
        let state = self.lock();
        let is_same =
            state.passes == moment.passes && state.finishing_since == moment.finishing_since;
        if is_same {
            drop(self.wait(state, time));
        }
    }

    fn finish(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.finishing_since.get_or_insert_with(Instant::now);
        self.changed.notify_all();
        state
    }

    fn ended(&self) {
        self.lock().threads -= 1;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time.min(MAX_WAIT));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
