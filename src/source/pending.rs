//! Waiting for the master's answers: how long, and what ends it early.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;

/// How long it may go unnoticed that an answer is no longer wanted.
const HALT_CHECK: Duration = Duration::from_millis(50);

/// How long a signal may come after a broken connection that it has broken too.
const SIGNAL_GRACE: Duration = Duration::from_millis(100);

/// When something last came from the master: an answer that takes its time is
/// waited for as long as there are signs of life.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// Something came.
    pub fn beat(&self) {
        *lock(&self.0) = Instant::now();
    }

    fn last(&self) -> Instant {
        *lock(&self.0)
    }
}

/// How long an answer is waited for.
#[derive(Clone)]
pub struct Deadline {
    timeout: Duration,
    heartbeat: Heartbeat,
    halt: Arc<dyn Fn() -> bool + Send + Sync>,
    give_up: Arc<dyn Fn() + Send + Sync>,
    /// When `halt` was last asked.
    asked: Arc<Mutex<Instant>>,
}

impl Deadline {
    /// As long as `timeout` since the last sign of life, of which the source
    /// tells `heartbeat`, and only until `halt` says that no answer is wanted any
    /// more; it is asked some times a second.
    #[must_use]
    pub fn new(
        timeout: Duration,
        heartbeat: Heartbeat,
        halt: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            timeout,
            heartbeat,
            halt: Arc::new(halt),
            give_up: Arc::new(|| {}),
            asked: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Has `give_up` called once it is over.
    #[must_use]
    pub fn or_else(self, give_up: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            give_up: Arc::new(give_up),
            ..self
        }
    }

    /// How much is left of it, for a question that was asked then.
    pub(super) fn left(&self, asked: Instant) -> Duration {
        let quiet = self.heartbeat.last().max(asked).elapsed();
        self.timeout.saturating_sub(quiet)
    }

    /// What ended the wait for an answer that failed. Whoever stops this process, as
    /// systemd does with all processes of a unit, may have stopped the one that connects
    /// a moment before.
    fn cause(&self, error: Error) -> Error {
        if !matches!(error, Error::Connection { .. }) {
            return error;
        }
        let until = Instant::now() + SIGNAL_GRACE;
        loop {
            if (self.halt)() {
                return Error::Interrupted;
            }
            if Instant::now() >= until {
                return error;
            }
            thread::sleep(SIGNAL_GRACE / 10);
        }
    }

    fn is_halted(&self) -> bool {
        let mut asked = lock(&self.asked);
        if asked.elapsed() < HALT_CHECK {
            return false;
        }
        *asked = Instant::now();
        drop(asked);
        (self.halt)()
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An answer that is under way.
#[derive(Debug)]
pub struct Pending<T> {
    name: String,
    deadline: Deadline,
    receiver: mpsc::Receiver<Result<T, Error>>,
}

impl<T> Pending<T> {
    pub(super) fn new(
        name: &str,
        deadline: &Deadline,
        receiver: mpsc::Receiver<Result<T, Error>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            deadline: deadline.clone(),
            receiver,
        }
    }

    /// Waits for it.
    pub fn wait(self) -> Result<T, Error> {
        let asked = Instant::now();
        loop {
            let left = self.deadline.left(asked);
            let answer = self.receiver.recv_timeout(left.min(HALT_CHECK));
            if self.deadline.is_halted() {
                return Err(Error::Interrupted);
            }
            match answer {
                Ok(answer) => return answer.map_err(|error| self.deadline.cause(error)),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => {
                    (self.deadline.give_up)();
                    return Err(Error::TimedOut {
                        name: self.name,
                        timeout: self.deadline.timeout,
                    });
                }
            }
        }
    }
}

/// What a mutex guards, whatever befell who held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// What comes of a connection that broke, where a halt is seen at the `nth` look.
    fn broken(nth: u32) -> Error {
        let looks = AtomicU32::new(0);
        let halt = move || looks.fetch_add(1, Ordering::Relaxed) + 1 >= nth;
        let deadline = Deadline::new(Duration::from_secs(60), Heartbeat::default(), halt);
        let (sender, receiver) = mpsc::channel();
        let name = "m".to_owned();
        let what = "the connection ended".to_owned();
        let hint = "";
        let answer: Pending<()> = Pending::new("m", &deadline, receiver);
        sender
            .send(Err(Error::Connection { name, what, hint }))
            .unwrap();
        answer.wait().unwrap_err()
    }

    #[test]
    fn a_signal_that_follows_a_broken_connection_is_its_cause() {
        for nth in 1..=2 {
            assert!(matches!(broken(nth), Error::Interrupted), "{nth}");
        }
        assert!(matches!(broken(u32::MAX), Error::Connection { .. }));
    }
}
