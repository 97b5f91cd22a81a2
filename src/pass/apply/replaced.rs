//! What becomes of the slave that a full copy replaces, and what a person should know of it.

use std::fmt;
use std::path::Path;

use crate::compare::succession::Succession;
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::human::bytes;
use crate::io::progress::Monitor;
use crate::pass::reader::Feed;
use crate::pass::survey::Survey;
use crate::plan::{Fate, Loss, OldSlave, Reason, Refusal, SlaveState};

/// The old slave, judged by a copy of the whole master.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replaced {
    /// Whether it is kept under another name.
    pub(super) is_kept: bool,
    loss: Option<Loss>,
    reason: Reason,
    /// The positions of the old slave and of the copy, in bytes.
    from: Option<u64>,
    to: u64,
}

/// Whether something was done or would be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tense {
    Done,
    Planned,
}

/// The join of a copy with the slave that it is to replace, if that is a FileStorage.
pub(super) fn succession(survey: &Survey) -> Option<Succession<'_>> {
    let SlaveState::Storage(slave) = &survey.observation.slave else {
        return None;
    };
    let file = survey.slave_file()?;
    Some(Succession::new(file, slave.position, slave.last_tid))
}

impl Replaced {
    /// Judges by all that the feed has read. Fails if the master is not the slave's successor.
    pub(super) fn judge(
        survey: &Survey,
        (old, reason): (OldSlave, Reason),
        feed: &mut Feed<'_>,
    ) -> Result<Self, Error> {
        let loss = feed.take_evidence().and_then(|evidence| {
            tracing::debug!("the old slave and the copy: {evidence:?}");
            evidence.loss()
        });
        // A damaged master ends early, which explains nothing.
        let fate = match feed.damage() {
            Some(_) if old != OldSlave::None => Fate::Kept,
            _ => old.fate(loss),
        };
        if fate == Fate::Stays {
            let comparison = survey.observation.comparison.clone().unwrap_or_default();
            return Err(Error::Refused(Refusal::Diverged(comparison.lacking)));
        }
        Ok(Self {
            is_kept: fate == Fate::Kept,
            loss,
            reason,
            from: survey.position.filter(|&it| it > MAGIC_LEN),
            to: feed.position(),
        })
    }

    /// Warns of what a person should know; `name` is the one under which the old slave is kept,
    /// if it is.
    pub(super) fn warn(
        &self,
        tense: Tense,
        slave: &Path,
        name: Option<&Path>,
        monitor: &dyn Monitor,
    ) {
        let (is_kept, shrinks) = match tense {
            Tense::Done => ("is kept", "shrinks"),
            Tense::Planned => ("would be kept", "would shrink"),
        };
        if let Some(name) = name.filter(|_| self.is_kept) {
            let name = name.display();
            monitor.warn(format!("the old slave {is_kept} as {name}: {self}"));
        }
        if let Some(from) = self.from.filter(|&from| self.to < from / 2) {
            let (slave, from, to) = (slave.display(), bytes(from), bytes(self.to));
            monitor.warn(format!(
                "{slave} {shrinks} from {from} to {to}: make sure that the master is the right file"
            ));
        }
    }
}

impl fmt::Display for Replaced {
    /// Why the old slave is kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.loss, self.reason) {
            (Some(Loss::Transactions(run)), _) => write!(
                f,
                "the master lacks {run}, or parts of them, and no pack explains it; \
                 `fssync verify` compares it with the master"
            ),
            (Some(Loss::Altered(run)), _) => write!(
                f,
                "the master has other data in {run}, which only a repair or an editor changes; \
                 `fssync verify` compares it with the master"
            ),
            (Some(Loss::Doubtful(run)), _) => {
                write!(f, "the master lacks {run}, which its last pack may have dropped")
            }
            (Some(Loss::Unknown), _) => {
                f.write_str("it could not be read to its end, so it may hold what the master lacks")
            }
            (None, Reason::PackedAway) => {
                f.write_str("a pack of the master dropped its last transactions")
            }
            (None, Reason::Rewritten) => f.write_str(
                "a pass found the master damaged before, and a repair may have dropped transactions",
            ),
            (None, _) => f.write_str("it may hold what the master lacks"),
        }
    }
}
