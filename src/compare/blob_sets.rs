//! Compares the blobs of the old slave's log with those of the copy that replaces it.
//!
//! After a pack of the master, the copy of its log refers to some of the old slave's blobs, and
//! to new ones. [`BlobSets`] finds the *new* blobs, which must be fetched, and the *gone* ones,
//! which can be removed later. It does not look at the blob files.
//!
//! Both logs are in the order of their tids, so one pass over each is enough: this module reads
//! the old slave's log while the copy arrives, and compares the keys of equal tids. The memory
//! depends on the largest transaction only.
//!
//! # If the logs cannot be compared
//!
//! 1. *Tids decrease in one of the logs*, which ZODB tolerates: the join may have passed a
//!    transaction of the old log before its counterpart arrives.
//! 2. *The old log cannot be read up to its position*, for example because of a bad sector.
//!
//! A warning is logged. From then on, all blobs of the copy count as new, and none as gone. The
//! results from before remain safe: a blob that did not count as new was found in the old log. A
//! blob that was reported as gone, however, may be in the copy after all. So a report alone is
//! not sufficient to remove a file: the log must be searched for the blob first.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::path::Path;

use crate::error::Error;
use crate::filestorage::blob::{BlobKey, BlobReference};
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::slave::scan::blobs::BlobScan;

/// Joins the blobs of an old slave with those of a copy.
#[derive(Debug)]
pub struct BlobSets<'a> {
    /// `None` once it was read, or if the logs cannot be compared.
    old: Option<BlobScan<'a>>,
    /// The position of the old slave, in bytes.
    old_position: u64,
    /// Blobs of the old slave that the join has not reached.
    next: VecDeque<BlobReference>,
    /// The tid of the last blobs in `next`.
    last_old: Option<Tid>,
    /// The tid of the last blobs of the copy.
    last_copied: Option<Tid>,
    is_comparable: bool,
}

/// Functions that a comparison calls.
#[expect(missing_debug_implementations, reason = "functions")]
pub struct Callbacks<'a> {
    /// Fails if the pass was cancelled. It is called before each read.
    pub check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    /// Takes a blob of the old slave that the copy does not refer to.
    pub gone: &'a mut dyn FnMut(BlobKey) -> Result<(), Error>,
}

impl<'a> BlobSets<'a> {
    /// Starts a comparison with the old slave `file`, whose committed transactions end at
    /// `position`. Its `path` is used for messages only.
    #[must_use]
    pub fn new(file: &'a File, path: &Path, position: u64) -> Self {
        Self {
            old: Some(BlobScan::new(file, path, MAGIC_LEN, position)),
            old_position: position,
            next: VecDeque::new(),
            last_old: None,
            last_copied: None,
            is_comparable: true,
        }
    }

    /// Takes the next blobs of the copy, in log order; all blobs of a transaction at once.
    /// Returns those that are new, in the same order. Reports the gone blobs of the old slave up
    /// to the last of these transactions. Fails if a callback does.
    pub fn take(
        &mut self,
        copied: &[BlobReference],
        callbacks: &mut Callbacks<'_>,
    ) -> Result<Vec<BlobReference>, Error> {
        let mut new = Vec::new();
        for transaction in copied.chunk_by(|a, b| a.key.tid == b.key.tid) {
            let tid = transaction[0].key.tid;
            if self.is_comparable && self.last_copied >= Some(tid) {
                self.give_up("tids decrease in the copy");
            }
            self.last_copied = Some(tid);
            while self.next_tid(callbacks)?.is_some_and(|old| old < tid) {
                self.report_next(callbacks)?;
            }
            self.join(tid, transaction, &mut new, callbacks)?;
        }
        Ok(new)
    }

    /// Reports the gone blobs after the last transaction of the copy.
    pub fn finish(&mut self, callbacks: &mut Callbacks<'_>) -> Result<(), Error> {
        while self.next_tid(callbacks)?.is_some() {
            self.report_next(callbacks)?;
        }
        Ok(())
    }

    /// Whether the logs could be compared so far. If not, the blobs that were reported as gone
    /// may still be needed.
    #[must_use]
    pub fn is_comparable(&self) -> bool {
        self.is_comparable
    }

    /// Compares a transaction of the copy with that of the old slave with the same tid, if there
    /// is one.
    fn join(
        &mut self,
        tid: Tid,
        copied: &[BlobReference],
        new: &mut Vec<BlobReference>,
        callbacks: &mut Callbacks<'_>,
    ) -> Result<(), Error> {
        let mut old = BTreeSet::new();
        while self.next_tid(callbacks)? == Some(tid) {
            old.extend(self.next.pop_front().map(|it| it.key));
        }
        let copied_keys: BTreeSet<_> = copied.iter().map(|it| it.key).collect();
        new.extend(copied.iter().filter(|it| !old.contains(&it.key)));
        for &key in old.difference(&copied_keys) {
            (callbacks.gone)(key)?;
        }
        Ok(())
    }

    fn report_next(&mut self, callbacks: &mut Callbacks<'_>) -> Result<(), Error> {
        match self.next.pop_front() {
            Some(reference) => (callbacks.gone)(reference.key),
            None => Ok(()),
        }
    }

    /// The tid of the old slave's next blob; `None` if there is none, or if the logs cannot be
    /// compared.
    fn next_tid(&mut self, callbacks: &Callbacks<'_>) -> Result<Option<Tid>, Error> {
        while self.next.is_empty()
            && let Some(old) = &mut self.old
        {
            (callbacks.check_cancelled)()?;
            match old.next_slice() {
                Ok(Some(slice)) => self.receive(slice),
                Ok(None) if old.position() == self.old_position => self.old = None,
                Ok(None) => self.give_up("it does not end at its position"),
                Err(error) => self.give_up(&error.display_chain()),
            }
        }
        Ok(self.next.front().map(|it| it.key.tid))
    }

    /// Takes a slice of the old log, whose transactions are complete.
    fn receive(&mut self, slice: Vec<BlobReference>) {
        let tids = slice.iter().map(|it| it.key.tid);
        let is_later = slice
            .first()
            .is_none_or(|it| self.last_old < Some(it.key.tid));
        if !is_later || !tids.is_sorted() {
            return self.give_up("tids decrease in it");
        }
        self.last_old = slice.last().map(|it| it.key.tid).or(self.last_old);
        self.next.extend(slice);
    }

    fn give_up(&mut self, cause: &str) {
        tracing::warn!(
            "the blobs that only the old slave refers to will not be removed, because its log \
             cannot be compared with the copy: {cause}; `fssync verify --orphans` lists them"
        );
        self.is_comparable = false;
        self.old = None;
        self.next.clear();
    }
}

#[cfg(test)]
mod tests;
