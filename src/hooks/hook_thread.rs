//! The thread of one hook: runs it for each storage for which it is due.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::command::{self, LastPass};
use super::history::Episode;
use super::notifier::Shared;
use super::storage::Claim;
use crate::config::HookConfig;
use crate::io::process;

/// How long the process waits for a hook beyond its time limit. A hook that was started at the end
/// of the last pass is then killed because of its own limit, and the log contains that.
const SLACK: Duration = Duration::from_secs(1);

/// Runs the `nth` hook whenever it is due, until the process ends.
pub(super) fn run(shared: &Shared, nth: usize) {
    let hook = &shared.hooks[nth];
    loop {
        let Some(moment) = shared.now() else {
            return;
        };
        if is_over(moment.finishing_since, hook.timeout) {
            return;
        }
        let next = match claim(shared, hook) {
            Next::Run(nth, episode, pass) => {
                report(shared, hook, nth, episode, &pass);
                continue;
            }
            // The process does not wait for a time to come.
            _ if moment.finishing_since.is_some() => return,
            Next::Wait(next) => next,
        };
        shared.wait_since(moment, next);
    }
}

/// The next task of the thread.
enum Next {
    /// Report this event of the storage with this number.
    Run(usize, Episode, Box<LastPass>),
    /// Wait for this time, or for a pass.
    Wait(Duration),
}

/// Claims the next run of a hook, if it is due for a storage.
fn claim(shared: &Shared, hook: &HookConfig) -> Next {
    let mut next: Option<Timestamp> = None;
    for (nth, mut storage) in shared.storages().enumerate() {
        match storage.claim(hook) {
            Claim::Now(episode, pass) => return Next::Run(nth, episode, pass),
            Claim::At(time) => next = Some(next.map_or(time, |it| it.min(time))),
            Claim::Never => {}
        }
    }
    let wait = next.map(|next| next.duration_since(Timestamp::now()).unsigned_abs());
    Next::Wait(wait.unwrap_or(Duration::MAX))
}

/// Runs a hook. A failure is logged, with the program and the reason.
fn report(shared: &Shared, hook: &HookConfig, nth: usize, episode: Episode, pass: &LastPass) {
    let program = command::program(hook, episode, pass);
    let limit = hook.timeout.saturating_add(SLACK);
    let halt = || shared.is_interrupted() || is_over(shared.finishing_since(), limit);
    let (name, storage) = (&hook.command[0], &pass.storage);
    let event = episode.event.as_str();
    match process::run(&program, &halt) {
        Ok(_) => {
            tracing::debug!("{storage}: the hook {name} has reported {event}");
            shared.storage(nth).reported(hook, episode.event);
        }
        Err(failure) => {
            tracing::error!("{storage}: the hook {name}, which reports {event}, {failure}");
        }
    }
}

/// Whether the last pass of this process ended so long ago.
fn is_over(finishing_since: Option<Instant>, limit: Duration) -> bool {
    finishing_since.is_some_and(|since| since.elapsed() >= limit)
}
