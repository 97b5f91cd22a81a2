//! Which transactions of the slave have their blobs, as the sidecar records it.
//!
//! Two ranges of the log have all their blobs:
//!
//! 1. from the start of the log to `complete`: an upkeep task extends this range;
//! 2. from `since` to `until`: passes append there in lock-step.
//!
//! If the first range reaches the second, they are joined. Usually both have been joined long
//! ago, and the whole log has its blobs.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::filestorage::MAGIC_LEN;

/// The blobs of a slave whose passes copy them, or did so once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlobCoverage {
    /// Whether passes copy blobs. If not, a pass with `--no-blobs` has ended that.
    pub is_on: bool,
    /// The slave's blob directory.
    pub directory: PathBuf,
    /// The random id of that directory, which is also in its file `.fssync/id`.
    pub id: String,
    /// The master's blob directory.
    pub master_directory: String,
    /// Position before which no transaction lacks a blob, in bytes.
    pub complete: u64,
    /// Start of the range that was appended in lock-step, in bytes.
    pub since: u64,
    /// End of that range, in bytes.
    pub until: u64,
    /// Position before which the blob ledger has the digests of all blobs, in bytes.
    #[serde(default)]
    pub digested: u64,
    /// Whether the blobs before `complete` are those that were compared again by their digests,
    /// and the others are still to be compared.
    #[serde(default)]
    pub rechecks: bool,
    /// Number of blob files that passes have found or placed.
    pub files: u64,
    /// Their total size in bytes.
    pub bytes: u64,
    /// Number of blobs that the master itself lacks.
    pub absent: u64,
    /// When the master was last asked for the absent ones again.
    #[serde(default)]
    pub absent_asked: Option<Timestamp>,
}

impl BlobCoverage {
    /// The state of a blob directory of which nothing is known yet, for a slave that ends at
    /// `position`.
    #[must_use]
    pub fn new(directory: PathBuf, id: String, master_directory: String, position: u64) -> Self {
        Self {
            is_on: true,
            directory,
            id,
            master_directory,
            complete: MAGIC_LEN,
            since: position,
            until: position,
            digested: MAGIC_LEN,
            rechecks: false,
            files: 0,
            bytes: 0,
            absent: 0,
            absent_asked: None,
        }
    }

    /// Adapts the ranges to a slave that ends at `position`. Another program may have
    /// appended to it or truncated it, or passes may have copied only the log.
    pub fn adapt_to(&mut self, position: u64) {
        self.complete = self.complete.min(position);
        self.digested = self.digested.min(position);
        if self.until != position {
            self.since = position;
            self.until = position;
        }
        self.join();
    }

    /// Extends the range of the lock-step to `position`. `has_digests` if the ledger has the
    /// digests of the blobs in between.
    pub fn append_to(&mut self, position: u64, has_digests: bool) {
        if has_digests && self.digested >= self.until {
            self.digested = position;
        }
        self.until = position;
        self.join();
    }

    /// Extends the range from the start to `position`. `has_digests` as in
    /// [`append_to`](Self::append_to).
    pub fn complete_to(&mut self, position: u64, has_digests: bool) {
        if has_digests && self.digested >= self.complete {
            self.digested = self.digested.max(position);
        }
        self.complete = self.complete.max(position);
        self.join();
    }

    /// Records that another log, which ends at `position`, has all blobs. `has_digests` if the
    /// ledger has the digests of those that the old log did not have.
    pub fn complete_at(&mut self, position: u64, has_digests: bool) {
        let is_old_log_digested = self.digested >= self.until;
        self.digested = if has_digests && is_old_log_digested {
            position
        } else {
            MAGIC_LEN
        };
        self.complete = position;
        self.since = position;
        self.until = position;
        self.rechecks = false;
    }

    /// Adds numbers of blobs: those that the slave has, their bytes, and those that neither end
    /// has.
    pub fn add(&mut self, files: u64, bytes: u64, absent: u64) {
        self.files += files;
        self.bytes += bytes;
        self.absent += absent;
    }

    /// Subtracts blobs that were removed.
    pub fn subtract(&mut self, files: u64, bytes: u64) {
        self.files = self.files.saturating_sub(files);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Forgets which blobs are there, so that each is looked up again. A comparison by digests
    /// that has begun starts over, too.
    pub fn start_over(&mut self) {
        self.complete = MAGIC_LEN;
        self.digested = MAGIC_LEN;
        self.since = self.until;
        self.rechecks &= self.until > MAGIC_LEN;
        self.files = 0;
        self.bytes = 0;
        self.absent = 0;
        self.absent_asked = None;
    }

    /// Forgets which blobs are there, so that each is compared by its digest.
    pub fn recheck(&mut self) {
        self.rechecks = true;
        self.start_over();
    }

    /// Whether the whole log up to `position` has its blobs.
    #[must_use]
    pub fn is_complete_at(&self, position: u64) -> bool {
        self.complete >= position
    }

    fn join(&mut self) {
        if self.complete >= self.since {
            self.complete = self.complete.max(self.until);
            self.rechecks = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(position: u64) -> BlobCoverage {
        BlobCoverage::new(PathBuf::new(), String::new(), String::new(), position)
    }

    fn ranges(state: &BlobCoverage) -> (u64, u64, u64) {
        (state.complete, state.since, state.until)
    }

    #[test]
    fn the_ranges_are_joined_once_the_gap_is_closed() {
        let mut state = state(1000);
        state.append_to(1200, true);
        state.complete_to(600, true);
        assert_eq!(ranges(&state), (600, 1000, 1200));
        state.complete_to(1000, true);
        assert_eq!(ranges(&state), (1200, 1000, 1200));
        state.append_to(1300, true);
        assert!(state.is_complete_at(1300));
    }

    #[test]
    fn a_new_slave_is_complete() {
        let mut state = state(MAGIC_LEN);
        state.append_to(500, true);
        assert!(state.is_complete_at(500));
    }

    #[test]
    fn transactions_that_came_without_blobs_are_a_gap() {
        let mut state = state(MAGIC_LEN);
        state.append_to(500, true);
        state.adapt_to(700);
        assert_eq!(ranges(&state), (500, 700, 700));
        state.append_to(800, true);
        assert!(!state.is_complete_at(800));
        state.complete_to(700, true);
        assert!(state.is_complete_at(800));
    }

    #[test]
    fn a_truncated_slave_shortens_both_ranges() {
        let mut state = state(MAGIC_LEN);
        state.append_to(500, true);
        state.adapt_to(300);
        assert!(state.is_complete_at(300));
        state.append_to(400, true);
        assert_eq!(state.complete, 400);
    }

    #[test]
    fn missing_digests_are_asked_for_once() {
        let mut state = state(MAGIC_LEN);
        state.append_to(500, true);
        assert_eq!(state.digested, 500);
        state.append_to(600, false);
        state.append_to(700, true);
        assert_eq!(state.digested, 500);
        // After a pack, the ledger may lack digests of the old log as well.
        state.complete_at(300, true);
        assert_eq!(state.digested, MAGIC_LEN);
        state.digested = 300;
        state.complete_at(200, true);
        assert_eq!(state.digested, 200);
    }
}
