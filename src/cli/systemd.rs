//! Notifies systemd, if it started this process: readiness, a status line, and heartbeats
//! for the watchdog.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How often the status is sent while only the position changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The number of heartbeats during the timeout of the watchdog.
const TIMES_ALIVE: u32 = 4;

/// This process as a service of systemd, if it is one.
pub(crate) struct Service {
    /// The time between heartbeats, if the watchdog is enabled.
    alive_every: Option<Duration>,
    sent: Mutex<Sent>,
}

struct Sent {
    alive: Instant,
    status: Option<Instant>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            alive_every: sd_notify::watchdog_enabled().map(|limit| limit / TIMES_ALIVE),
            sent: Mutex::new(Sent {
                alive: Instant::now(),
                status: None,
            }),
        }
    }
}

impl Service {
    /// Sends a heartbeat if one is due.
    pub(crate) fn alive(&self) {
        let Some(every) = self.alive_every else {
            return;
        };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.alive.elapsed() >= every {
            sent.alive = Instant::now();
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Sends the status; at most once a second unless it is news.
    pub(crate) fn status(&self, is_news: bool, status: impl FnOnce() -> String) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = sent
            .status
            .is_none_or(|last| last.elapsed() >= STATUS_EVERY);
        if is_news || is_due {
            sent.status = Some(Instant::now());
            notify(&[NotifyState::Status(&status())]);
        }
    }
}

/// Reports that the service is ready.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the service is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Best effort: fssync does not depend on systemd.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
