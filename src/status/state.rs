//! The state of a storage in one word, for tables, metrics and systemd's status of a watch.

use jiff::Timestamp;
use serde::Serialize;

use super::Status;
use crate::filestorage::MAGIC_LEN;
use crate::human::span;
use crate::plan::SlaveState;
use crate::plan::outcome::Exit;

/// The state of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The last pass succeeded.
    InSync,
    /// Syncing is switched off.
    Off,
    /// Syncing is switched off, and a program has opened the slave: the failover is done.
    Serving,
    /// The master is unreachable.
    Unreachable,
    /// A program has opened the slave, although syncing is on.
    InUse,
    /// Passes fail for another reason, or none is recorded.
    Failing,
    /// The slave is not a copy of the master: a person must decide.
    Diverged,
    /// The master is damaged.
    MasterDamaged,
    /// The slave is damaged.
    SlaveDamaged,
    /// There is no slave yet, or it has no transaction.
    NoSlave,
}

impl State {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::InSync,
        Self::Off,
        Self::Serving,
        Self::Unreachable,
        Self::InUse,
        Self::Failing,
        Self::Diverged,
        Self::MasterDamaged,
        Self::SlaveDamaged,
        Self::NoSlave,
    ];

    /// The state that a status shows. The slave itself comes first, then the switches, and then
    /// the result of passes.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        match &status.state {
            SlaveState::Missing | SlaveState::Short { .. } => return Self::NoSlave,
            SlaveState::Storage(storage) if storage.position == MAGIC_LEN => return Self::NoSlave,
            SlaveState::Foreign | SlaveState::Damaged(_) => return Self::SlaveDamaged,
            SlaveState::Storage(_) if status.found_damage().is_some() => {
                return Self::SlaveDamaged;
            }
            SlaveState::Storage(_) => {}
        }
        match (status.off.is_some(), status.zodb_pid.is_some()) {
            (true, true) => Self::Serving,
            (true, false) => Self::Off,
            (false, true) => Self::InUse,
            (false, false) => Self::of_passes(status),
        }
    }

    /// The result of the next pass, if the master was examined, and otherwise of the last one.
    fn of_passes(status: &Status) -> Self {
        let last = status.last_pass.as_ref();
        let last = last.map_or(Self::Failing, |pass| Self::of_exit_code(pass.exit_code));
        let Some(comparison) = &status.comparison else {
            return last;
        };
        match Self::of_exit_code(comparison.next_pass.exit as u8) {
            Self::InSync if !comparison.strays.is_empty() => Self::Diverged,
            // The examination does not write, and does not read all of the master.
            Self::InSync
                if status.last_pass.is_some()
                    && matches!(
                        last,
                        Self::Failing | Self::MasterDamaged | Self::SlaveDamaged
                    ) =>
            {
                last
            }
            next => next,
        }
    }

    /// The state after a pass with this exit code.
    #[must_use]
    pub fn of_exit_code(code: u8) -> Self {
        let is = |exit: Exit| code == exit as u8;
        match () {
            () if is(Exit::Success) => Self::InSync,
            () if is(Exit::Off) => Self::Off,
            () if is(Exit::Unreachable) => Self::Unreachable,
            () if is(Exit::InUse) => Self::InUse,
            () if is(Exit::Diverged) => Self::Diverged,
            () if is(Exit::MasterDamaged) => Self::MasterDamaged,
            () if is(Exit::SlaveDamaged) => Self::SlaveDamaged,
            () => Self::Failing,
        }
    }

    /// The name, as in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::Off => "off",
            Self::Serving => "serving",
            Self::Unreachable => "unreachable",
            Self::InUse => "in-use",
            Self::Failing => "failing",
            Self::Diverged => "diverged",
            Self::MasterDamaged => "master-damaged",
            Self::SlaveDamaged => "slave-damaged",
            Self::NoSlave => "no-slave",
        }
    }

    /// The name in a sentence.
    #[must_use]
    pub fn in_words(self) -> String {
        self.as_str().replace('-', " ")
    }
}

/// The state of one of several storages.
#[derive(Clone, Debug)]
pub struct StorageState<'a> {
    /// The name of the storage.
    pub name: &'a str,
    /// Its state; `None` if it is not known.
    pub state: Option<State>,
    /// Since when it has this state, if that is known.
    pub since: Option<Timestamp>,
    /// The current work on it, such as a long copy. It is shown instead of the state.
    pub activity: Option<&'a str>,
}

impl StorageState<'_> {
    fn is_in_sync(&self) -> bool {
        self.state == Some(State::InSync) && self.activity.is_none()
    }

    /// Its state in a few words.
    fn describe(&self, now: Timestamp) -> String {
        let name = self.name;
        if let Some(activity) = self.activity {
            return format!("{name}: {activity}");
        }
        let state = self.state.map_or("unknown".to_owned(), State::in_words);
        let since = self.since.map(|since| span(now.duration_since(since)));
        let since = since.map_or_else(String::new, |span| format!(" for {span}"));
        format!("{name}: {state}{since}")
    }
}

/// The largest number of storages that a summary names.
const MAX_NAMED: usize = 5;

/// The states of several storages on one line, such as `3 of 4 in sync; catalog: unreachable for
/// 5 min`.
#[must_use]
pub fn summary(storages: &[StorageState<'_>], now: Timestamp) -> String {
    let others: Vec<_> = storages.iter().filter(|it| !it.is_in_sync()).collect();
    let in_sync = storages.len() - others.len();
    let mut parts = vec![format!("{in_sync} of {} in sync", storages.len())];
    parts.extend(others.iter().take(MAX_NAMED).map(|it| it.describe(now)));
    if others.len() > MAX_NAMED {
        parts.push(format!("and {} more", others.len() - MAX_NAMED));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn every_exit_code_of_a_pass_has_a_state() {
        for (code, expected) in [
            (0, "in-sync"),
            (1, "failing"),
            (2, "failing"),
            (10, "off"),
            (11, "failing"),
            (12, "unreachable"),
            (13, "in-use"),
            (20, "diverged"),
            (30, "master-damaged"),
            (31, "slave-damaged"),
        ] {
            assert_eq!(State::of_exit_code(code).as_str(), expected, "{code}");
        }
    }

    #[test]
    fn a_name_is_the_same_everywhere() {
        for state in State::ALL {
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json, state.as_str());
        }
    }

    #[test]
    fn a_summary_counts_storages_and_names_those_in_trouble() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let storage = |name, state, secs: Option<i64>| StorageState {
            name,
            state,
            since: secs.map(|secs| now - SignedDuration::from_secs(secs)),
            activity: None,
        };
        let good = storage("site", Some(State::InSync), Some(9));
        let lost = storage("catalog", Some(State::Unreachable), Some(312));
        let unknown = storage("a", None, None);
        let busy = StorageState {
            activity: Some("copying 1 GiB of 2 GiB"),
            ..good.clone()
        };
        for (storages, expected) in [
            (vec![good.clone()], "1 of 1 in sync"),
            (
                vec![good.clone(), lost.clone()],
                "1 of 2 in sync; catalog: unreachable for 5 min 12 s",
            ),
            (vec![unknown.clone(), good], "1 of 2 in sync; a: unknown"),
            (vec![busy], "0 of 1 in sync; site: copying 1 GiB of 2 GiB"),
            (
                vec![unknown; 7],
                "0 of 7 in sync; a: unknown; a: unknown; a: unknown; a: unknown; a: unknown; and \
                 2 more",
            ),
        ] {
            assert_eq!(summary(&storages, now), expected);
        }
    }
}
