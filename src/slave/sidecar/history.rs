//! The history of passes in the sidecar: the last outcome, since when it lasts, and counters.
//!
//! Counters are statistics. They are stored together with the outcome of a pass and are not
//! synced, so that a pass with nothing new still writes the sidecar at most once. A counter can
//! therefore miss passes:
//!
//! 1. Passes that store nothing are kept in an [`Unrecorded`] and are added by the next pass of
//!    the same process that stores the sidecar. If the process ends before, they are lost. They
//!    are passes of a watch that found nothing new, and passes that found syncing off or another
//!    pass at work.
//! 2. After a power cut, the sidecar may be an earlier one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::outcome::{Action, Outcome};

/// The result of a pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pass {
    /// Time at which it ended.
    pub time: Timestamp,
    /// The action that it took.
    pub action: Action,
    /// Its exit code.
    pub exit_code: u8,
    /// The reason, as it was logged.
    pub reason: String,
    /// Advice to a person, if there was any.
    #[serde(default)]
    pub hint: Option<String>,
    /// End of the first recorded pass in a row with this exit code; `None` if a version of fssync
    /// stored the result that did not record it.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// How long it took, in milliseconds; `None` as for `since`.
    #[serde(default)]
    pub elapsed_ms: Option<u64>,
}

impl Pass {
    /// A pass that began at `began`, ends at `time` and has this outcome, after the recorded pass
    /// `last`.
    #[must_use]
    pub fn new(outcome: &Outcome, began: Timestamp, time: Timestamp, last: Option<&Self>) -> Self {
        let exit_code = outcome.exit as u8;
        let since = last
            .filter(|last| last.exit_code == exit_code)
            .map_or(time, |last| last.since.unwrap_or(last.time));
        let elapsed = time.duration_since(began);
        Self {
            time,
            action: outcome.action,
            exit_code,
            reason: outcome.reason.clone(),
            hint: outcome.hint.clone(),
            since: Some(since),
            elapsed_ms: Some(u64::try_from(elapsed.as_millis()).unwrap_or(0)),
        }
    }

    /// How long it took, if that is recorded.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.elapsed_ms.map(Duration::from_millis)
    }

    /// Whether two passes had the same result, apart from the time.
    #[must_use]
    pub fn has_same_result(&self, other: &Self) -> bool {
        (self.action, self.exit_code, &self.reason)
            == (other.action, other.exit_code, &other.reason)
    }
}

/// Counters of passes, since the sidecar was created. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Counters {
    /// Number of passes, by exit code.
    pub passes: BTreeMap<u8, u64>,
    /// Number of copied bytes, of `Data.fs` and of blobs, by the action of the pass.
    pub copied_bytes: BTreeMap<Action, u64>,
    /// Number of copied transactions.
    pub copied_transactions: u64,
    /// Number of copied blob files.
    pub copied_blobs: u64,
}

impl Counters {
    /// Counts a pass with this outcome.
    fn count(&mut self, outcome: &Outcome) {
        let copied = &outcome.copied;
        increase(self.passes.entry(outcome.exit as u8).or_default(), 1);
        let bytes = copied.bytes.saturating_add(copied.blob_bytes);
        if bytes > 0 {
            increase(self.copied_bytes.entry(outcome.action).or_default(), bytes);
        }
        increase(&mut self.copied_transactions, copied.transactions);
        increase(&mut self.copied_blobs, copied.blobs);
    }

    /// Adds the counters of later passes.
    pub fn add(&mut self, later: &Self) {
        for (exit_code, number) in &later.passes {
            increase(self.passes.entry(*exit_code).or_default(), *number);
        }
        for (action, bytes) in &later.copied_bytes {
            increase(self.copied_bytes.entry(*action).or_default(), *bytes);
        }
        increase(&mut self.copied_transactions, later.copied_transactions);
        increase(&mut self.copied_blobs, later.copied_blobs);
    }
}

/// The sidecar may contain any number.
fn increase(counter: &mut u64, number: u64) {
    *counter = counter.saturating_add(number);
}

/// Counters of passes of this process that are not yet in the sidecar.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Counters>);

impl Unrecorded {
    /// Counts a pass.
    pub fn count(&self, outcome: &Outcome) {
        self.lock().count(outcome);
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().clone()
    }

    /// Starts again at zero, after the counters were stored.
    pub fn clear(&self) {
        *self.lock() = Counters::default();
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
