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
//! 2. The old slave's blobs that the copy does not refer to are added to the gone list, durably.
//!    If the copy is never installed, the list does no harm, because the log is searched before
//!    a blob is removed.
//! 3. If the old slave is kept, all its blobs get second names, durably. Some would otherwise be
//!    removed later, here or by a pack on this machine, and with them the only copies (Law 2).
//! 4. The copy takes the place of the slave ([`slave::replace`](crate::slave::replace)).

use std::fs::File;
use std::path::Path;

use jiff::Timestamp;

use super::Apply;
use super::blobs::BlobTransfer;
use crate::blobs::LARGE_GROUP_LEN;
use crate::compare::blob_sets::{BlobSets, Callbacks};
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::blob::{BlobCandidate, BlobKey, BlobReference};
use crate::human::count;
use crate::pass::survey::Survey;
use crate::slave::blobs::{AsideLinker, BlobsOf, GoneWriter};
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::Sidecar;

/// The blobs of a full copy that is under way.
pub(super) struct CopyBlobs<'a> {
    apply: &'a Apply<'a>,
    survey: &'a Survey,
    pub(super) transfer: BlobTransfer<'a>,
    /// Compares the blobs with those of the old slave; `None` if there is none.
    sets: Option<BlobSets<'a>>,
    /// Whether the old slave has all its blobs, so that only new ones are fetched.
    is_complete: bool,
    gone: GoneBlobs<'a>,
}

/// The blobs to which only the old slave refers.
struct GoneBlobs<'a> {
    writer: GoneWriter<'a>,
    /// Whether the old slave lacks blobs, because the master lacked them.
    has_absent: bool,
    /// Number of gone blobs that are among those.
    absent: u64,
}

impl GoneBlobs<'_> {
    fn add(&mut self, apply: &Apply<'_>, key: BlobKey) -> Result<(), Error> {
        if self.has_absent
            && let Some(blobs) = apply.blobs
            && blobs.directory.stat(key)?.is_none()
        {
            self.absent += 1;
            return Ok(());
        }
        self.writer.add(key)
    }
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
            survey,
            gone: GoneBlobs {
                writer: GoneWriter::new(self.slave, Timestamp::now()),
                has_absent: state.is_some_and(|state| state.absent > 0),
                absent: 0,
            },
            transfer: self.blob_transfer(survey, sidecar, LARGE_GROUP_LEN),
            sets,
            is_complete,
        }
    }

    /// If the pass copies only the log, forgets which blobs the slave has: the positions in the
    /// sidecar are those of the old log, and other transactions take their place. This is
    /// recorded before the copy is installed, because the pass may be killed after that.
    pub(super) fn forget_blobs(&self, sidecar: &mut Sidecar) {
        if self.blobs.is_none()
            && let Some(state) = &mut sidecar.blobs
        {
            state.start_over();
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
        let references = self.transfer.resolve(candidates, file, path)?;
        self.want_new(references)
    }

    fn want_new(&mut self, references: Vec<BlobReference>) -> Result<(), Error> {
        let Self {
            apply, sets, gone, ..
        } = self;
        let mut wanted = references;
        if let Some(sets) = sets {
            let mut callbacks = Callbacks {
                check_cancelled: &|| apply.slave.check_cancelled(),
                gone: &mut |key| gone.add(apply, key),
            };
            let new = sets.take(&wanted, &mut callbacks)?;
            if self.is_complete {
                wanted = new;
            }
        }
        for reference in wanted {
            self.transfer.want(reference)?;
        }
        Ok(())
    }

    /// Makes all blobs durable, and the list of those to which only the old slave refers.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.transfer.finish()?;
        let Self {
            apply, sets, gone, ..
        } = self;
        if let Some(sets) = sets {
            let mut callbacks = Callbacks {
                check_cancelled: &|| apply.slave.check_cancelled(),
                gone: &mut |key| gone.add(apply, key),
            };
            sets.finish(&mut callbacks)?;
        }
        self.gone.writer.finish()
    }

    /// Gives the blobs of the old slave, which is kept, second names.
    pub(super) fn set_aside(&self) -> Result<(), Error> {
        let Self { apply, survey, .. } = self;
        let (Some(blobs), Some(file)) = (apply.blobs, survey.slave_file()) else {
            return Ok(());
        };
        let position = survey.position.unwrap_or(MAGIC_LEN);
        let mut scan = BlobScan::new(file, apply.slave.paths.data(), MAGIC_LEN, position);
        let mut aside = AsideLinker::begin(
            &blobs.directory,
            apply.slave,
            BlobsOf::Slave(survey.last_tid),
        )?;
        loop {
            apply.slave.check_cancelled()?;
            let Some(references) = scan.next_slice()? else {
                break;
            };
            for reference in references {
                aside.add(reference.key)?;
            }
        }
        let aside = aside.finish()?;
        apply.monitor.warn(format!(
            "the {} of the old slave are kept in {}",
            count(aside.files, "blob"),
            aside.path.display()
        ));
        Ok(())
    }

    /// Records in the sidecar that a slave that ends at `position` has all blobs.
    pub(super) fn record(&mut self, sidecar: &mut Sidecar, position: u64) {
        let Some(fetched) = self.transfer.take_fetched() else {
            return;
        };
        if let Some(state) = &mut sidecar.blobs {
            if self.is_complete {
                state.absent = state.absent.saturating_sub(self.gone.absent);
            } else {
                state.start_over();
            }
            state.complete_at(position, fetched.undigested == 0);
            state.add(fetched.files, fetched.bytes, fetched.absent);
        }
    }
}
