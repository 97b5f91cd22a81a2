//! The events of a storage, and which hooks are due. No I/O.
//!
//! | event of a pass | hook |
//! | --- | --- |
//! | a problem that the hook lists | runs once the storage has not been in sync for `after`, and again every `repeat` while the problem lasts |
//! | another problem that it lists | runs at once, if the storage has not been in sync for `after` |
//! | `in-sync` | runs once, if the hook lists it and has reported a problem before |
//! | a pass that found syncing off or another pass running | does not change anything |
//!
//! `after` counts from the last time in sync and not from the last event, so that a storage
//! with alternating problems is reported, too. A hook that failed is repeated after
//! [`RETRY_AFTER`] at the latest.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Event, HookConfig};
use crate::plan::outcome::Exit;

/// How long after a failure a hook is run again.
pub const RETRY_AFTER: Duration = Duration::from_secs(300);

/// Identifies a hook in the record: a digest of its command and its events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookId(String);

/// The events of one storage so far, as the record beside the slave contains them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The current event; `None` before the first pass.
    current: Option<Episode>,
    /// When the storage ceased to be in sync; `None` while it is.
    trouble_since: Option<Timestamp>,
    /// For each hook, the last report of each event since the storage was in sync.
    reports: BTreeMap<HookId, BTreeMap<Event, Report>>,
}

/// An event, for as long as all passes have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The event.
    pub event: Event,
    /// The event before it; `None` if the first pass had this one.
    pub from: Option<Event>,
    /// When the first pass with this event ended.
    pub since: Timestamp,
}

/// A run of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    /// When it began.
    at: Timestamp,
    /// Whether it has failed, or has not ended yet.
    failed: bool,
}

/// When a hook must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now, to report this. If an earlier run has reported the same event, `from` is that event.
    Now(Episode),
    /// At this time, unless the event changes.
    At(Timestamp),
    /// Not before the event changes.
    Never,
}

/// The event of a pass with this exit code; `None` if the pass did not compare the two files.
#[must_use]
pub fn event(exit: Exit) -> Option<Event> {
    match exit {
        Exit::Success => Some(Event::InSync),
        Exit::Failure | Exit::Usage => Some(Event::Failing),
        Exit::Unreachable => Some(Event::Unreachable),
        Exit::InUse => Some(Event::InUse),
        Exit::Diverged => Some(Event::Diverged),
        Exit::MasterDamaged => Some(Event::MasterDamaged),
        Exit::SlaveDamaged => Some(Event::SlaveDamaged),
        Exit::Off | Exit::Busy | Exit::Stale => None,
    }
}

impl HookId {
    /// The identifier of a hook.
    #[must_use]
    pub fn of(hook: &HookConfig) -> Self {
        let mut hasher = blake3::Hasher::new();
        for word in &hook.command {
            hasher.update(word.as_bytes()).update(b"\0");
        }
        for event in &hook.on {
            hasher.update(b"\0").update(event.as_str().as_bytes());
        }
        Self(hasher.finalize().to_hex()[..16].to_owned())
    }
}

impl History {
    /// The current event; `None` before the first pass.
    #[must_use]
    pub fn current(&self) -> Option<Episode> {
        self.current
    }

    /// Takes note of the event of a pass that ended now. `hooks` are all configured hooks; the
    /// reports of others are forgotten.
    pub fn observe(&mut self, event: Event, now: Timestamp, hooks: &[HookConfig]) {
        let from = match self.current {
            Some(current) if current.event == event => return,
            before => before.map(|it| it.event),
        };
        self.current = Some(Episode {
            event,
            from,
            since: now,
        });
        if event != Event::InSync {
            self.trouble_since.get_or_insert(now);
            return;
        }
        self.trouble_since = None;
        // A hook that reports recoveries forgets the problem only after it has run.
        let reports_recovery: Vec<_> = hooks
            .iter()
            .filter(|hook| hook.on.contains(&Event::InSync))
            .map(HookId::of)
            .collect();
        self.reports.retain(|id, _| reports_recovery.contains(id));
    }

    /// When a hook must run, if no pass changes the event.
    #[must_use]
    pub fn due(&self, hook: &HookConfig, now: Timestamp) -> Due {
        let Some(current) = self.current.filter(|it| hook.on.contains(&it.event)) else {
            return Due::Never;
        };
        let none = BTreeMap::new();
        let reports = self.reports.get(&HookId::of(hook)).unwrap_or(&none);
        let last = reports.get(&current.event);
        if current.event == Event::InSync && reports.is_empty() {
            return Due::Never;
        }
        let repeat = hook.repeat.filter(|_| current.event != Event::InSync);
        let at = match last {
            None => self
                .trouble_since
                .map_or(now, |since| later(since, hook.after, now)),
            Some(last) if last.failed => {
                let wait = repeat.map_or(RETRY_AFTER, |repeat| repeat.min(RETRY_AFTER));
                later(last.at, wait, now)
            }
            Some(last) => match repeat {
                Some(repeat) => later(last.at, repeat, now),
                None => return Due::Never,
            },
        };
        if at > now {
            return Due::At(at);
        }
        let from = last.map_or(current.from, |_| Some(current.event));
        Due::Now(Episode { from, ..current })
    }

    /// Takes note that a hook starts to report an event. Until [`ended`](Self::ended) is called,
    /// this counts as a failure, so that a report is repeated if fssync is killed meanwhile.
    pub fn started(&mut self, hook: &HookConfig, event: Event, now: Timestamp) {
        let report = Report {
            at: now,
            failed: true,
        };
        let reports = self.reports.entry(HookId::of(hook)).or_default();
        reports.insert(event, report);
    }

    /// Takes note that a hook has reported an event.
    pub fn ended(&mut self, hook: &HookConfig, event: Event) {
        let id = HookId::of(hook);
        if event == Event::InSync {
            self.reports.remove(&id);
        } else if let Some(report) = self.reports.get_mut(&id).and_then(|it| it.get_mut(&event)) {
            report.failed = false;
        }
    }
}

/// The time `wait` after `start`. A start in the future counts as now: the clock was set back.
fn later(start: Timestamp, wait: Duration, now: Timestamp) -> Timestamp {
    let start = start.min(now);
    start.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
