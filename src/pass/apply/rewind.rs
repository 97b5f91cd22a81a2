//! Rewinds the slave to the point at which it forked from the master.
//!
//! The order of the writes is argued in [`slave::rewind`](crate::slave::rewind). This module gives
//! the own transactions' blobs second names before that, and describes the slave in the sidecar. The
//! master is not read: the survey has proven the prefix.

use jiff::Timestamp;

use super::Apply;
use super::warnings::Own;
use crate::error::Error;
use crate::pass::survey::Survey;
use crate::plan::RewindPlan;
use crate::plan::outcome::Copied;
use crate::slave::blobs::{AsideLinker, BlobsAside, BlobsOf, GoneWriter};
use crate::slave::rewind::Rewind;
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::Sidecar;

impl Apply<'_> {
    /// Sets the slave's own transactions aside and truncates it at the fork point.
    pub(super) fn rewind(
        &self,
        survey: &mut Survey,
        plan: RewindPlan,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let Some(seen) = survey.seen else {
            return Ok(());
        };
        let mut rewind = Rewind::open(self.slave, seen, plan)?;
        let blobs = self.set_own_blobs_aside(survey, plan)?;
        let fork = plan.fork;
        self.describe_slave(survey, rewind.file(), fork.position, fork.last_tid, sidecar)?;
        let path = rewind.set_aside()?;
        rewind.truncate(sidecar)?;
        copied.position = Some(fork.position);
        copied.last_tid = fork.last_tid;
        copied.own_transactions = fork.own.count;
        copied.set_aside = Some(path.clone());
        self.warn_of_own(&Own {
            is_dry_run: false,
            run: fork.own,
            path: &path,
            blobs: blobs.as_ref(),
        });
        self.record_proven(survey)
    }

    /// Gives the blobs of the slave's own transactions second names, and adds them to those that are
    /// removed later. Returns `None` if there are none, or if the pass does not copy blobs.
    fn set_own_blobs_aside(
        &self,
        survey: &Survey,
        plan: RewindPlan,
    ) -> Result<Option<BlobsAside>, Error> {
        let (Some(blobs), Some(file)) = (self.blobs, survey.slave_file()) else {
            return Ok(None);
        };
        let (from, to) = (plan.fork.position, plan.position);
        let mut scan = BlobScan::new(file, self.slave.paths.data(), from, to);
        let mut gone = GoneWriter::new(self.slave, Timestamp::now());
        let mut linker = None;
        loop {
            self.slave.check_cancelled()?;
            let Some(references) = scan.next_slice()? else {
                break;
            };
            for reference in references {
                // Without blobs, no directory is created for them.
                let aside = match &mut linker {
                    Some(aside) => aside,
                    none => none.insert(AsideLinker::begin(
                        &blobs.directory,
                        self.slave,
                        BlobsOf::Run(plan.fork.own),
                    )?),
                };
                aside.add(reference.key)?;
                if blobs.directory.stat(reference.key)?.is_some() {
                    gone.add(reference.key)?;
                }
            }
        }
        let aside = linker.map(AsideLinker::finish).transpose()?;
        // The list does no harm if the slave is not truncated after all: the log is searched
        // before a blob is removed.
        gone.finish()?;
        Ok(aside)
    }
}
