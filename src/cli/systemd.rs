//! What systemd is sent, where it started us: readiness, a line of status, and
//! that we are alive.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How often the status is sent anew while nothing but the position changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often the watchdog is fed in the time that it gives.
const TIMES_ALIVE: u32 = 4;

/// A service, if it is one.
pub(crate) struct Service {
    /// How often it is sent to be alive, if that is wanted.
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
    /// Tells that it is alive, as often as is wanted.
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

    /// Tells how it stands; what is no news is not sent more than once a second.
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

/// Tells that the service is ready.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells that it ends.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Best effort: nothing depends on whether anybody listens.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
