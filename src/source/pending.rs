//! Waits for answers of the master, with a timeout, until an interruption.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;

/// Interval between two checks for an interruption.
pub(super) const INTERRUPT_CHECK: Duration = Duration::from_millis(50);

/// Grace period for a signal after a broken connection: the same signal may have ended the
/// program that connects first.
const SIGNAL_GRACE: Duration = Duration::from_millis(100);

/// The time of the last data from the master. It extends the deadline of a slow answer, as long
/// as data or heartbeats arrive.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// Records that data arrived.
    pub fn beat(&self) {
        *lock(&self.0) = Instant::now();
    }

    fn last(&self) -> Instant {
        *lock(&self.0)
    }
}

/// The condition that ends the wait for an answer.
#[derive(Clone)]
pub struct Deadline {
    timeout: Duration,
    heartbeat: Heartbeat,
    is_interrupted: Arc<dyn Fn() -> bool + Send + Sync>,
    give_up: Arc<dyn Fn() + Send + Sync>,
    /// Time of the last check for an interruption.
    checked: Arc<Mutex<Instant>>,
}

impl Deadline {
    /// Ends a wait `timeout` after the last heartbeat, or once `is_interrupted` returns true.
    /// The source records its heartbeats in `heartbeat`.
    #[must_use]
    pub fn new(
        timeout: Duration,
        heartbeat: Heartbeat,
        is_interrupted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            timeout,
            heartbeat,
            is_interrupted: Arc::new(is_interrupted),
            give_up: Arc::new(|| {}),
            checked: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Calls `give_up` when the timeout expires.
    #[must_use]
    pub fn or_else(self, give_up: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            give_up: Arc::new(give_up),
            ..self
        }
    }

    /// Records that the master works.
    pub(super) fn beat(&self) {
        self.heartbeat.beat();
    }

    /// Waits for an answer of the master `name`. `receive` waits for it for a given time.
    pub(super) fn wait_for<T>(
        &self,
        name: &str,
        mut receive: impl FnMut(Duration) -> Result<Result<T, Error>, RecvTimeoutError>,
    ) -> Result<T, Error> {
        let asked = Instant::now();
        loop {
            let left = self.left(asked);
            let answer = receive(left.min(INTERRUPT_CHECK));
            if self.is_cancelled() {
                return Err(Error::Interrupted);
            }
            match answer {
                Ok(answer) => return answer.map_err(|error| self.cause(error)),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => {
                    (self.give_up)();
                    return Err(Error::TimedOut {
                        name: name.to_owned(),
                        timeout: self.timeout,
                    });
                }
            }
        }
    }

    /// The time that is left for a request that was sent at `asked`.
    pub(super) fn left(&self, asked: Instant) -> Duration {
        let quiet = self.heartbeat.last().max(asked).elapsed();
        self.timeout.saturating_sub(quiet)
    }

    /// The true cause of an error. A signal to all processes of a group, as systemd sends it to
    /// those of a unit, may end the program that connects shortly before this process notices
    /// the signal. A broken connection therefore waits for a signal for a moment.
    fn cause(&self, error: Error) -> Error {
        if !matches!(error, Error::Connection { .. }) {
            return error;
        }
        let until = Instant::now() + SIGNAL_GRACE;
        loop {
            if (self.is_interrupted)() {
                return Error::Interrupted;
            }
            if Instant::now() >= until {
                return error;
            }
            thread::sleep(SIGNAL_GRACE / 10);
        }
    }

    /// Whether a wait is to end. Asks the caller only once in a while, as one answer after the
    /// other may be taken.
    fn is_cancelled(&self) -> bool {
        let mut checked = lock(&self.checked);
        if checked.elapsed() < INTERRUPT_CHECK {
            return false;
        }
        *checked = Instant::now();
        drop(checked);
        (self.is_interrupted)()
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An answer that was requested and has not arrived yet.
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

    /// Waits for the answer.
    pub fn wait(self) -> Result<T, Error> {
        let receive = |timeout| self.receiver.recv_timeout(timeout);
        self.deadline.wait_for(&self.name, receive)
    }
}

/// Locks a mutex, even if a thread panicked while it held the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The error of a broken connection if the `nth` check finds an interruption.
    fn broken(nth: u32) -> Error {
        let checks = AtomicU32::new(0);
        let is_interrupted = move || checks.fetch_add(1, Ordering::Relaxed) + 1 >= nth;
        let deadline = Deadline::new(
            Duration::from_secs(60),
            Heartbeat::default(),
            is_interrupted,
        );
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
    fn a_signal_just_after_a_broken_connection_is_its_cause() {
        for nth in 1..=2 {
            assert!(matches!(broken(nth), Error::Interrupted), "{nth}");
        }
        assert!(matches!(broken(u32::MAX), Error::Connection { .. }));
    }
}
