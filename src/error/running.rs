//! The pass that holds the pass lock, as seen by another process.

use jiff::SignedDuration;

use crate::human::span;

/// How long a pass may run, or a slave may be out of sync, before a warning is due.
const OVERDUE: SignedDuration = SignedDuration::from_hours(1);

/// A running pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningPass {
    /// Its process, if the kernel reports it.
    pub pid: Option<u32>,
    /// How long it has been running.
    pub age: Option<SignedDuration>,
    /// How long ago the slave was last in sync, if a pass has recorded that.
    pub in_sync_age: Option<SignedDuration>,
    /// How long the slave has been out of sync while syncing was on.
    pub lagging: Option<SignedDuration>,
}

impl RunningPass {
    /// The warning if it has taken too long. The text does not change as time passes.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let is_overdue = |age: Option<SignedDuration>| age.is_some_and(|age| age > OVERDUE);
        if is_overdue(self.age) {
            let which = match self.pid {
                Some(pid) => format!("process {pid}"),
                None => "its process, which is in another container".to_owned(),
            };
            return Some(format!(
                "the pass at work has run for more than an hour: if the slave does not grow, \
                 find out what {which} is waiting for, and end it"
            ));
        }
        is_overdue(self.lagging)
            .then(|| "the slave has not been in sync for more than an hour".to_owned())
    }

    /// The process, its age and the last time in sync, as the end of a sentence.
    pub(crate) fn in_words(&self) -> String {
        let by = self.pid.map(|pid| format!(" by process {pid}"));
        let age = self.age.map(|age| format!(", for {}", span(age)));
        let in_sync =
            (self.in_sync_age).map(|age| format!("; the slave was in sync {} ago", span(age)));
        [by, age, in_sync].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(age_secs: i64, lagging_secs: Option<i64>) -> RunningPass {
        RunningPass {
            age: Some(SignedDuration::from_secs(age_secs)),
            lagging: lagging_secs.map(SignedDuration::from_secs),
            ..RunningPass::default()
        }
    }

    #[test]
    fn a_pass_is_overdue_after_an_hour() {
        for (running, warned) in [
            (running(3600, None), false),
            (running(3601, None), true),
            (running(60, Some(3600)), false),
            (running(60, Some(3601)), true),
            (RunningPass::default(), false),
        ] {
            assert_eq!(running.warning().is_some(), warned, "{running:?}");
        }
    }
}
