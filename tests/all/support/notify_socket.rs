//! The socket at which systemd receives the notifications of a service.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long to wait for a notification.
const PATIENCE: Duration = Duration::from_secs(30);

/// Receives the notifications of a command.
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    /// The notifications that were not matched yet.
    received: String,
}

impl NotifySocket {
    /// A socket in this directory.
    pub fn in_directory(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self {
            socket,
            path,
            received: String::new(),
        }
    }

    /// Lets a command send its notifications here. `watchdog` is the time within which it must send
    /// heartbeats.
    pub fn serve(&self, command: &mut Command, watchdog: Duration) {
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }

    /// Waits for this text, after the part that was already matched.
    #[track_caller]
    pub fn expect(&mut self, what: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.received.contains(what) {
            let is_in_time = self.receive(until);
            assert!(is_in_time, "no {what:?} in {}", self.received);
        }
        let at = self.received.find(what).expect("it was found");
        self.received.drain(..at + what.len());
    }

    /// Forgets everything that was received before, and returns the notifications of this time.
    pub fn during(&mut self, time: Duration) -> &str {
        while self.receive(Instant::now() + Duration::from_millis(1)) {}
        self.received.clear();
        let until = Instant::now() + time;
        while self.receive(until) {}
        &self.received
    }

    /// Receives a notification; returns whether one came in time.
    fn receive(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.socket.set_read_timeout(Some(left)).expect("a timeout");
        let mut buffer = [0; 4096];
        let Ok(len) = self.socket.recv(&mut buffer) else {
            return false;
        };
        self.received += std::str::from_utf8(&buffer[..len]).expect("UTF-8");
        true
    }
}
