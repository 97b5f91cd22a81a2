//! Notifies systemd, if it started this process: readiness, a status line, and heartbeats
//! for the watchdog.
//!
//! Each storage of a watch is a [`Member`] of the [`Service`]. The service is alive as long as
//! all members are: a thread that hangs makes the watchdog restart the process.

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fssync::status::{State, StorageState, summary};
use jiff::Timestamp;
use sd_notify::NotifyState;

/// How often the status is sent while only the position changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The activity of a storage before its first pass.
const STARTING: &str = "starting";

/// The number of heartbeats during the timeout of the watchdog.
const TIMES_ALIVE: u32 = 4;

/// This process as a service of systemd, if it is one.
#[derive(Debug)]
pub(crate) struct Service {
    /// Whether systemd waits for notifications.
    has_socket: bool,
    /// The time between heartbeats, if the watchdog is enabled.
    alive_every: Option<Duration>,
    state: Mutex<ServiceState>,
}

#[derive(Debug)]
struct ServiceState {
    alive_sent: Instant,
    status_sent: Option<Instant>,
    /// Whether a storage has changed since then.
    is_outdated: bool,
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
    /// Its state; `None` before the first pass has ended.
    state: Option<State>,
    /// Since when it has had this state.
    since: Timestamp,
    /// The current work.
    activity: Option<String>,
    /// The status line, if it is the only storage.
    line: String,
}

/// The state of a storage after a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// The status line, if it is the only storage.
    pub(crate) line: String,
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
            has_socket: env::var_os("NOTIFY_SOCKET").is_some(),
            alive_every: sd_notify::watchdog_enabled().map(|limit| limit / TIMES_ALIVE),
            state: Mutex::new(ServiceState {
                alive_sent: Instant::now(),
                status_sent: None,
                is_outdated: false,
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
                state: None,
                since: Timestamp::now(),
                activity: Some(STARTING.to_owned()),
                line: STARTING.to_owned(),
            },
        );
        Member {
            service: Arc::clone(self),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, ServiceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Reports that the thread of this storage works. Sends a heartbeat if one is due and all
    /// other threads work, too, and a status that was held back.
    pub(crate) fn alive(&self) {
        if !self.service.has_socket {
            return;
        }
        let mut state = self.service.lock();
        state.send_status(false);
        let Some(every) = self.service.alive_every else {
            return;
        };
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

    /// Removes the storage from the service, because its watch has ended or is being stopped.
    pub(crate) fn leave(&self) {
        let mut state = self.service.lock();
        state.members.remove(&self.number);
        state.is_outdated = true;
    }

    /// Updates the status of this storage after a pass. Unless it is news, that of the service is
    /// sent at most once a second.
    pub(crate) fn passed(&self, is_news: bool, status: impl FnOnce() -> Status) {
        self.update(is_news, |member| {
            let Status { state, line } = status();
            if member.state.replace(state) != Some(state) {
                member.since = Timestamp::now();
            }
            member.activity = None;
            member.line = line;
        });
    }

    /// The same during a pass. `activity` describes the work and its progress.
    pub(crate) fn works(&self, activity: impl FnOnce() -> String) {
        self.update(false, |member| {
            member.line = activity();
            member.activity = Some(member.line.clone());
        });
    }

    fn update(&self, is_news: bool, update: impl FnOnce(&mut MemberState)) {
        if !self.service.has_socket {
            return;
        }
        let mut state = self.service.lock();
        if let Some(member) = state.members.get_mut(&self.number) {
            update(member);
            state.is_outdated = true;
            state.send_status(is_news);
        }
    }
}

impl ServiceState {
    /// Sends the status if it has changed, and is news or was last sent a second ago.
    fn send_status(&mut self, is_news: bool) {
        let is_due = |at: Instant| at.elapsed() >= STATUS_EVERY;
        if self.is_outdated && (is_news || self.status_sent.is_none_or(is_due)) {
            self.is_outdated = false;
            self.status_sent = Some(Instant::now());
            let line = line(&self.members, Timestamp::now());
            notify(&[NotifyState::Status(&line)]);
        }
    }
}

/// The status line of a service with these storages.
fn line(members: &BTreeMap<usize, MemberState>, now: Timestamp) -> String {
    if let (1, Some(only)) = (members.len(), members.values().next()) {
        return only.line.clone();
    }
    let states: Vec<_> = members
        .values()
        .map(|it| StorageState {
            name: &it.name,
            state: it.state,
            since: Some(it.since),
            activity: it.activity.as_deref(),
        })
        .collect();
    summary(&states, now)
}

/// Reports that the service is ready.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the service reads its configuration again, until the next [`ready`]. In a service
/// of `Type=notify-reload`, systemd waits for both after it has sent SIGHUP.
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
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
        let since = Timestamp::now();
        let now = since + Duration::from_secs(300);
        let member = |name: &str, state: Option<State>, activity: Option<&str>| MemberState {
            name: name.to_owned(),
            is_alive: false,
            state,
            since,
            activity: activity.map(str::to_owned),
            line: "the whole line".to_owned(),
        };
        let mut members: BTreeMap<_, _> = [
            member("site", Some(State::InSync), None),
            member("catalog", Some(State::MasterDamaged), None),
            member("old", Some(State::InSync), Some("copying 1 GiB of 2 GiB")),
            member("new", None, Some(STARTING)),
        ]
        .into_iter()
        .enumerate()
        .collect();
        assert_eq!(
            line(&members, now),
            "1 of 4 in sync; catalog: master damaged for 5 min 0 s; old: copying 1 GiB of 2 GiB; \
             new: starting"
        );
        members.split_off(&1);
        assert_eq!(line(&members, now), "the whole line");
    }

    #[test]
    fn a_state_lasts_since_the_pass_that_found_it_first() {
        let service = Arc::new(Service {
            has_socket: true,
            ..Service::default()
        });
        let member = service.add("site".to_owned());
        let passed = |state| {
            let line = String::new();
            member.passed(true, || Status { state, line });
            service.lock().members[&0].since
        };
        let since = passed(State::Unreachable);
        std::thread::sleep(Duration::from_millis(2));
        member.works(|| "copying".to_owned());
        assert_eq!(passed(State::Unreachable), since);
        assert!(passed(State::InSync) > since);
        assert_eq!(service.lock().members[&0].activity, None);
    }

    #[test]
    fn a_service_is_alive_only_if_all_storages_are() {
        let service = Arc::new(Service {
            has_socket: true,
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
