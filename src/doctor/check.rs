//! The results of an examination.

use serde::Serialize;

use crate::plan::outcome::{Exit, Outcome};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// It works, but not as well as it could, or not in every case.
    Warn,
    /// Replication or a failover does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which never changes.
    pub check: &'static str,
    /// How it ended.
    pub level: Level,
    /// What was seen.
    pub seen: String,
    /// What to do; empty if there is nothing to do.
    pub advice: String,
    /// Whether it is about the set-up, and not about a state that may be over soon.
    #[serde(skip)]
    pub is_set_up: bool,
}

impl Check {
    /// A check that found nothing wrong.
    #[must_use]
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            seen: seen.into(),
            advice: String::new(),
            is_set_up: true,
        }
    }

    /// A check that found something to improve.
    #[must_use]
    pub fn warn(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            advice: advice.into(),
            ..Self::ok(check, seen)
        }
    }

    /// A check that found a mistake of the set-up.
    #[must_use]
    pub fn fail(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, seen, advice)
        }
    }

    /// The same check, which is about the state of the files and not about the set-up.
    #[must_use]
    pub fn of_state(self) -> Self {
        Self {
            is_set_up: false,
            ..self
        }
    }
}

/// The checks of a storage.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The checks in their order.
    pub checks: Vec<Check>,
    /// The outcome of a dry run; `None` if the two locations are invalid.
    pub next_pass: Option<Outcome>,
}

impl Report {
    /// Adds a check.
    pub(super) fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// The exit code: 2 if a check of the set-up failed, otherwise that of the next pass.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let is_mistake = |check: &Check| check.level == Level::Fail && check.is_set_up;
        match &self.next_pass {
            Some(outcome) if !self.checks.iter().any(is_mistake) => outcome.exit,
            _ => Exit::Usage,
        }
    }
}
