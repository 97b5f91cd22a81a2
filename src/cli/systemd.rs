//! What systemd is told, where it started us: readiness, a line of status, and
//! that we are alive.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How often the status is told anew while nothing but the position changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often the watchdog is fed in the time that it gives.
const TIMES_ALIVE: u32 = 4;

/// A service, if it is one.
pub(crate) struct Service {
    /// How often it is told to be alive, if that is wanted.
    alive_every: Option<Duration>,
    told: Mutex<Told>,
}

struct Told {
    alive: Instant,
    status: Option<Instant>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            alive_every: sd_notify::watchdog_enabled().map(|limit| limit / TIMES_ALIVE),
            told: Mutex::new(Told {
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
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.alive.elapsed() >= every {
            told.alive = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Tells how it stands; what is no news is not told more than once a second.
    pub(crate) fn status(&self, is_news: bool, status: impl FnOnce() -> String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told
            .status
            .is_none_or(|last| last.elapsed() >= STATUS_EVERY);
        if is_news || is_due {
            told.status = Some(Instant::now());
            tell(&[NotifyState::Status(&status())]);
        }
    }
}

/// Tells that the service is ready.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that it ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Best effort: nothing depends on whether anybody listens.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
