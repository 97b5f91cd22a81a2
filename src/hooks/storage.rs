//! A storage whose events are reported: its last pass, and its record.

use std::time::Duration;

use jiff::Timestamp;

use super::command::LastPass;
use super::history::{Due, Episode, History, event};
use crate::config::{Event, HookConfig, NamedStorage};
use crate::error::Error;
use crate::plan::outcome::{Exit, Outcome};
use crate::slave::hook_record;

/// A storage whose events are reported.
#[derive(Debug)]
pub(super) struct Storage {
    named: NamedStorage,
    /// The record as it was read or written last.
    history: History,
    /// Whether the record was read, or could not be read.
    is_loaded: bool,
    /// The last pass that compared the two files; `None` while syncing is off.
    last: Option<LastPass>,
    /// Whether the log contains that the record cannot be written.
    is_warned: bool,
}

impl Storage {
    pub(super) fn new(named: NamedStorage) -> Self {
        Self {
            named,
            history: History::default(),
            is_loaded: false,
            last: None,
            is_warned: false,
        }
    }

    /// Takes note of a pass. Only an event that differs from the last one is recorded.
    pub(super) fn passed(&mut self, outcome: &Outcome, elapsed: Duration, hooks: &[HookConfig]) {
        let Some(event) = event(outcome.exit) else {
            if outcome.exit == Exit::Off {
                self.last = None;
            }
            return;
        };
        let NamedStorage { name, storage, .. } = &self.named;
        self.last = Some(LastPass {
            storage: name.to_string(),
            master: storage.master_name(),
            slave: storage.slave_name(),
            outcome: outcome.clone(),
            elapsed,
        });
        if hooks.is_empty() || self.is_loaded && self.recorded_event() == Some(event) {
            return;
        }
        self.is_loaded = true;
        let now = Timestamp::now();
        self.update(|history| history.observe(event, now, hooks));
    }

    /// When a hook must run. If that is now, the run is recorded before it begins, and the last
    /// pass is returned with it.
    pub(super) fn claim(&mut self, hook: &HookConfig) -> Claim {
        let Some(last) = self.last.clone() else {
            return Claim::Never;
        };
        let now = Timestamp::now();
        match self.history.due(hook, now) {
            Due::Never => return Claim::Never,
            Due::At(time) => return Claim::At(time),
            Due::Now(_) => {}
        }
        let event = event(last.outcome.exit);
        // Another process may have reported the event since the record was read, or may have
        // observed another event. Then it is that process's duty to report it.
        let mut due = Due::Never;
        let is_on = self.update(|history| {
            if history.current().map(|it| it.event) != event {
                return;
            }
            due = history.due(hook, now);
            if let Due::Now(episode) = due {
                history.started(hook, episode.event, now);
            }
        });
        match due {
            Due::Now(episode) if is_on => Claim::Now(episode, Box::new(last)),
            Due::At(time) => Claim::At(time),
            _ => Claim::Never,
        }
    }

    /// Takes note that a hook has reported an event.
    pub(super) fn reported(&mut self, hook: &HookConfig, event: Event) {
        self.update(|history| history.ended(hook, event));
    }

    fn recorded_event(&self) -> Option<Event> {
        self.history.current().map(|it| it.event)
    }

    /// Changes the record, or a copy of it in memory if it cannot be written. Does nothing and
    /// returns false if syncing is off. `change` may be called twice.
    fn update(&mut self, mut change: impl FnMut(&mut History)) -> bool {
        let updated = self
            .named
            .storage
            .slave()
            .and_then(|slave| hook_record::update(&slave, &self.history, &mut change));
        match updated {
            Ok(stored) => self.history = stored,
            Err(Error::Off(_)) => return false,
            Err(error) => {
                if !self.is_warned {
                    self.is_warned = true;
                    let why = error.display_chain();
                    tracing::warn!("cannot record which hooks have run: {why}");
                }
                change(&mut self.history);
            }
        }
        true
    }
}

/// When a hook must run for a storage.
#[derive(Debug)]
pub(super) enum Claim {
    /// Now, to report this event and the pass that had it.
    Now(Episode, Box<LastPass>),
    /// At this time.
    At(Timestamp),
    /// Not before the next event.
    Never,
}
