//! The state of all storages of a process together, for pings. No I/O.

use std::time::Duration;

use super::history::event;
use super::ping::Ping;
use crate::plan::outcome::{Exit, Outcome};

/// The last pass of each storage.
#[derive(Clone, Debug)]
pub(super) struct SiteState {
    storages: Vec<StorageState>,
}

#[derive(Clone, Debug)]
struct StorageState {
    name: String,
    /// The state after the last pass; `None` if no pass has compared the two files yet.
    state: Option<State>,
    /// How long the last pass took.
    elapsed: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    InSync,
    Off,
    /// The event and the reason.
    Problem(String),
}

impl SiteState {
    /// The storages with these names, before their first passes.
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        let storages = names.map(|name| StorageState {
            name,
            state: None,
            elapsed: Duration::ZERO,
        });
        Self {
            storages: storages.collect(),
        }
    }

    /// The number of a storage.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.storages.iter().position(|it| it.name == name)
    }

    /// Takes note of a pass of the storage with this number. A pass that met another pass
    /// changes nothing.
    pub(super) fn passed(&mut self, nth: usize, outcome: &Outcome, elapsed: Duration) {
        let state = match (outcome.exit, event(outcome.exit)) {
            (Exit::Success, _) => State::InSync,
            (Exit::Off, _) => State::Off,
            (_, Some(event)) => State::Problem(format!("{}: {}", event.as_str(), outcome.reason)),
            (_, None) => return,
        };
        let storage = &mut self.storages[nth];
        storage.state = Some(state);
        storage.elapsed = elapsed;
    }

    /// The ping for this state. It is up if all storages are in sync on which syncing is on.
    /// `None` if syncing is off for all, or if the state of one is not known yet.
    pub(super) fn state(&self) -> Option<Ping> {
        let states = self.storages.iter().map(|it| it.state.as_ref());
        let states: Vec<_> = states.collect::<Option<_>>()?;
        let in_sync = states.iter().filter(|it| ***it == State::InSync).count();
        if states.iter().all(|it| **it == State::Off) {
            return None;
        }
        let is_problem = |state: &&&State| matches!(state, State::Problem(_));
        let all = states.len();
        let mut message = match all {
            1 => String::new(),
            _ => format!("{in_sync} of {all} in sync"),
        };
        for (storage, state) in self.storages.iter().zip(&states) {
            let text = match state {
                State::InSync if all > 1 => continue,
                State::InSync => "in sync",
                State::Off => "off",
                State::Problem(text) => text,
            };
            if !message.is_empty() {
                message += "; ";
            }
            message.extend([&storage.name, ": ", text]);
        }
        Some(Ping::State {
            is_up: !states.iter().any(|it| is_problem(&it)),
            message,
            elapsed: self.storages.iter().map(|it| it.elapsed).sum(),
        })
    }
}

#[cfg(test)]
mod tests;
