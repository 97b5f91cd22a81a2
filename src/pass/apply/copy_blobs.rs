//! The blobs of a full copy.
//!
//! If the old slave has all its blobs, the blobs of both logs are compared by their keys, and only
//! the new ones are fetched. Otherwise all are, and those that are there are recognised by their
//! size and time.
//!
//! # Order
//!
//! 1. New blobs become durable while the log is copied. They stay if the pass is killed: the next
//!    one finds them.
//! 2. The copy takes the place of the slave ([`slave::replace`](crate::slave::replace)).

use std::fs::File;
use std::path::Path;

use super::Apply;
use super::blobs::{BlobTransfer, resolve};
use crate::blobs::LARGE_GROUP_LEN;
use crate::compare::blob_sets::{BlobSets, Callbacks};
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::blob::{BlobCandidate, BlobReference};
use crate::pass::survey::Survey;
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::Sidecar;

/// The blobs of a full copy that is under way.
pub(super) struct CopyBlobs<'a> {
    apply: &'a Apply<'a>,
    pub(super) transfer: BlobTransfer<'a>,
    /// Compares the blobs with those of the old slave; `None` if there is none.
    sets: Option<BlobSets<'a>>,
    /// Whether the old slave has all its blobs, so that only new ones are fetched.
    is_complete: bool,
}

impl<'a> Apply<'a> {
    /// Prepares to follow the blobs of a full copy.
    pub(super) fn copy_blobs(&'a self, survey: &'a Survey, sidecar: &Sidecar) -> CopyBlobs<'a> {
        let sets = self.blobs.and_then(|_| self.blob_sets(survey));
        let state = sidecar.blobs.as_ref();
        let is_complete = sets.is_some()
            && state
                .zip(survey.position)
                .is_some_and(|(state, position)| state.is_complete_at(position));
        CopyBlobs {
            apply: self,
            transfer: self.blob_transfer(survey, LARGE_GROUP_LEN),
            sets,
            is_complete,
        }
    }

    /// A comparison with the blobs of the old slave, if there is one with transactions.
    fn blob_sets(&self, survey: &'a Survey) -> Option<BlobSets<'a>> {
        let position = survey.position.filter(|&it| it > MAGIC_LEN)?;
        let file = survey.slave_file()?;
        Some(BlobSets::new(file, self.slave.paths.data(), position))
    }
}

impl CopyBlobs<'_> {
    /// Takes the blobs of the part of the copy that an earlier pass has made: up to `end`.
    pub(super) fn take_range(&mut self, file: &File, path: &Path, end: u64) -> Result<(), Error> {
        if !self.transfer.copies() || end <= MAGIC_LEN {
            return Ok(());
        }
        let mut scan = BlobScan::new(file, path, MAGIC_LEN, end);
        loop {
            self.apply.slave.check_cancelled()?;
            let Some(references) = scan.next_slice()? else {
                return Ok(());
            };
            self.want_new(references)?;
        }
    }

    /// Takes the candidates of complete transactions whose bytes are in the copy.
    pub(super) fn take(
        &mut self,
        candidates: Vec<BlobCandidate>,
        file: &File,
        path: &Path,
    ) -> Result<(), Error> {
        self.transfer.note(&candidates);
        if !self.transfer.copies() {
            return Ok(());
        }
        let mut references = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            references.extend(resolve(candidate, file, path)?);
        }
        self.want_new(references)
    }

    fn want_new(&mut self, references: Vec<BlobReference>) -> Result<(), Error> {
        let Self {
            apply,
            sets,
            is_complete,
            ..
        } = self;
        let mut wanted = references;
        if let Some(sets) = sets {
            let new = sets.take(
                &wanted,
                &mut Callbacks {
                    check_cancelled: &|| apply.slave.check_cancelled(),
                    gone: &mut |_| Ok(()),
                },
            )?;
            if *is_complete {
                wanted = new;
            }
        }
        for reference in wanted {
            self.transfer.want(reference)?;
        }
        Ok(())
    }

    /// Makes all blobs durable.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.transfer.finish()
    }

    /// Records in the sidecar that a slave that ends at `position` has all blobs.
    pub(super) fn record(&mut self, sidecar: &mut Sidecar, position: u64) {
        let Some(fetched) = self.transfer.take_fetched() else {
            return;
        };
        if let Some(state) = &mut sidecar.blobs {
            if !self.is_complete {
                state.start_over(false);
            }
            state.complete_at(position);
            state.add(fetched.files, fetched.bytes, fetched.absent);
        }
    }
}
