//! Notifies systemd, if it started this process: readiness, a status line, and heartbeats
//! for the watchdog.
//!
//! Each storage of a watch is a [`Member`] of the [`Service`]. The service is alive as long as
//! all members are: a thread that hangs makes the watchdog restart the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fssync::human::span;
use jiff::SignedDuration;
use sd_notify::NotifyState;

/// How often the status is sent while only the position changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The number of heartbeats during the timeout of the watchdog.
const TIMES_ALIVE: u32 = 4;

/// This process as a service of systemd, if it is one.
#[derive(Debug)]
pub(crate) struct Service {
    /// The time between heartbeats, if the watchdog is enabled.
    alive_every: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    alive_sent: Instant,
    status_sent: Option<Instant>,
    /// The storages, by their numbers.
    members: BTreeMap<usize, MemberState>,
    /// The number of the next member.
    next: usize,
}

#[derive(Debug)]
struct MemberState {
    name: String,
    /// Whether it has shown that it is alive since the last heartbeat was sent.
    is_alive: bool,
    status: Option<Status>,
    /// Since when it has had its condition.
    since: Instant,
    updated: Option<Instant>,
}

/// The state of a storage, for the status line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) condition: Condition,
    /// The whole line, if it is the only storage.
    pub(crate) line: String,
}

/// The state of a storage in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The last pass made it equal to its master.
    InSync,
    /// The last pass did not.
    NotInSync(&'static str),
    /// A pass is doing something that takes long.
    Working(String),
}

/// One storage of the service.
#[derive(Debug)]
pub(crate) struct Member {
    service: Arc<Service>,
    number: usize,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            alive_every: sd_notify::watchdog_enabled().map(|limit| limit / TIMES_ALIVE),
            state: Mutex::new(State {
                alive_sent: Instant::now(),
                status_sent: None,
                members: BTreeMap::new(),
                next: 0,
            }),
        }
    }
}

impl Service {
    /// Adds a storage.
    pub(crate) fn add(self: &Arc<Self>, name: String) -> Member {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.members.insert(
            number,
            MemberState {
                name,
                is_alive: false,
                status: None,
                since: Instant::now(),
                updated: None,
            },
        );
        Member {
            service: Arc::clone(self),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Reports that the thread of this storage works. Sends a heartbeat if one is due and all
    /// other threads work, too.
    pub(crate) fn alive(&self) {
        let Some(every) = self.service.alive_every else {
            return;
        };
        let mut state = self.service.lock();
        if let Some(member) = state.members.get_mut(&self.number) {
            member.is_alive = true;
        }
        if state.alive_sent.elapsed() >= every && state.members.values().all(|it| it.is_alive) {
            state.alive_sent = Instant::now();
            for member in state.members.values_mut() {
                member.is_alive = false;
            }
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Removes the storage from the service, because its watch has ended.
    pub(crate) fn leave(&self) {
        self.service.lock().members.remove(&self.number);
    }

    /// Updates the status of this storage, and sends that of the service; at most once a second
    /// unless it is news.
    pub(crate) fn status(&self, is_news: bool, status: impl FnOnce() -> Status) {
        let is_due = |last: Option<Instant>| last.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
        let mut state = self.service.lock();
        let now = Instant::now();
        let Some(member) = state.members.get_mut(&self.number) else {
            return;
        };
        if is_news || is_due(member.updated) {
            let status = status();
            if member.status.as_ref().map(|it| &it.condition) != Some(&status.condition) {
                member.since = now;
            }
            member.status = Some(status);
            member.updated = Some(now);
        }
        if is_news || is_due(state.status_sent) {
            state.status_sent = Some(now);
            let line = line(&state.members, now);
            notify(&[NotifyState::Status(&line)]);
        }
    }
}

/// The status line of a service with these storages.
fn line(members: &BTreeMap<usize, MemberState>, now: Instant) -> String {
    let (mut in_sync, mut others) = (0, Vec::new());
    for member in members.values() {
        let name = &member.name;
        let status = member.status.as_ref();
        if let (1, Some(status)) = (members.len(), status) {
            return status.line.clone();
        }
        let elapsed = || {
            let elapsed = now.saturating_duration_since(member.since);
            span(elapsed.try_into().unwrap_or(SignedDuration::MAX))
        };
        match status.map(|it| &it.condition) {
            Some(Condition::InSync) => in_sync += 1,
            Some(Condition::NotInSync(what)) => {
                others.push(format!("{name}: {what} for {}", elapsed()));
            }
            Some(Condition::Working(what)) => others.push(format!("{name}: {what}")),
            None => others.push(format!("{name}: starting")),
        }
    }
    let count = members.len();
    let mut parts = vec![format!("{in_sync} of {count} in sync")];
    parts.extend(others);
    parts.join("; ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_counts_storages_and_names_those_that_are_not_in_sync() {
        let since = Instant::now();
        let now = since + Duration::from_secs(300);
        let member = |name: &str, condition: Option<Condition>| MemberState {
            name: name.to_owned(),
            is_alive: false,
            status: condition.map(|condition| Status {
                condition,
                line: "the whole line".to_owned(),
            }),
            since,
            updated: None,
        };
        let mut members: BTreeMap<_, _> = [
            member("site", Some(Condition::InSync)),
            member("catalog", Some(Condition::NotInSync("unreachable"))),
            member("old", Some(Condition::Working("copying".to_owned()))),
            member("new", None),
        ]
        .into_iter()
        .enumerate()
        .collect();
        assert_eq!(
            line(&members, now),
            "1 of 4 in sync; catalog: unreachable for 5 min 0 s; old: copying; new: starting"
        );
        members.split_off(&1);
        assert_eq!(line(&members, now), "the whole line");
    }

    #[test]
    fn a_service_is_alive_only_if_all_storages_are() {
        let service = Arc::new(Service {
            alive_every: Some(Duration::ZERO),
            ..Service::default()
        });
        let [first, second] = ["a", "b"].map(|name| service.add(name.to_owned()));
        let sent = || service.lock().alive_sent;
        let begin = sent();
        first.alive();
        first.alive();
        assert_eq!(sent(), begin, "the second one may hang");
        second.alive();
        assert!(sent() > begin);
        let again = sent();
        first.alive();
        assert_eq!(sent(), again);
        // A storage that was removed from the configuration does not count.
        second.leave();
        first.alive();
        assert!(sent() > again);
    }
}
