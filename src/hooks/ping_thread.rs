//! The thread of one ping.

use std::time::{Duration, Instant};

use super::notifier::{Run, Shared};
use super::ping::{self, LastPing, Ping};
use crate::config::PingConfig;
use crate::io::process;

/// Sends a ping whenever it is due, until the process ends.
pub(super) fn run(shared: &Shared, config: &PingConfig, run: Run) {
    let mut sender = Sender {
        shared,
        config,
        is_warned: false,
    };
    sender.send(&Ping::Start);
    let mut last: Option<LastPing> = None;
    while let Some(moment) = shared.now() {
        let is_last = moment.finishing_since.is_some();
        // A single pass sends its ping once the passes of all storages have ended.
        let state = (run == Run::Watch || is_last)
            .then(|| shared.site().state())
            .flatten();
        let wait = match &state {
            Some(Ping::State { is_up, .. }) => {
                ping::due_in(config.every, last, *is_up, Instant::now())
            }
            _ => None,
        };
        if let (Some(ping @ Ping::State { is_up, .. }), Some(Duration::ZERO)) = (&state, wait) {
            let at = Instant::now();
            last = Some(LastPing {
                at,
                is_up: *is_up,
                has_failed: !sender.send(ping),
            });
        } else if is_last {
            break;
        } else {
            shared.wait_since(moment, wait.unwrap_or(Duration::MAX));
        }
        if is_last {
            break;
        }
    }
}

/// Makes requests.
struct Sender<'a> {
    shared: &'a Shared,
    config: &'a PingConfig,
    /// Whether a failure was logged, and no request has succeeded since.
    is_warned: bool,
}

impl Sender<'_> {
    /// Makes a request, unless the service gets none. Returns false if it fails, and logs only
    /// the first failure. The URL is not logged, since it may be a secret.
    fn send(&mut self, ping: &Ping) -> bool {
        let Some(program) = ping::program(self.config, ping) else {
            return true;
        };
        let sent = process::run(&program, &|| self.shared.is_interrupted());
        match &sent {
            Ok(_) => self.is_warned = false,
            Err(failure) if self.is_warned => tracing::debug!("a ping failed: curl {failure}"),
            Err(failure) => {
                self.is_warned = true;
                tracing::warn!("a ping failed: curl {failure}");
            }
        }
        sent.is_ok()
    }
}
