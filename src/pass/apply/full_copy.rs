//! Copies the whole master, and puts the copy in the place of the slave.

use std::fs::File;
use std::path::PathBuf;

use jiff::Timestamp;

use super::copy_visitor::CopyVisitor;
use super::warnings::Replaced;
use super::{Apply, add_up};
use crate::compare::digests::prove_equal;
use crate::error::Error;
use crate::filestorage::scan::Scanner;
use crate::filestorage::{MAGIC_LEN, Magic};
use crate::pass::reader::{Cut, TransactionReader};
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::plan::{CopyDecision, CopyPlan, KeepReason, Reason, judge_copy};
use crate::slave::ledger::LedgerEntry;
use crate::slave::replace::{Replacement, SecondName};
use crate::slave::scan::scan_file;
use crate::slave::sidecar::{FullCopy, Sidecar};
use crate::upkeep;

/// A full copy whose start is in the file already.
struct Begun<'a> {
    /// Reads the rest of the master.
    reader: TransactionReader<'a>,
    /// Has visited the start.
    visitor: CopyVisitor<'a>,
    /// Where this pass begins to copy, in bytes.
    from: u64,
}

impl Apply<'_> {
    pub(super) fn full_copy(
        &self,
        survey: &Survey,
        plan: CopyPlan,
        reason: Reason,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let master_stat = &survey.master_stat;
        let mut copy = Replacement::open(self.slave, master_stat.size, master_stat.mode)?;
        tracing::info!("full backup: {reason}");
        let result = self.copy_and_replace(survey, plan, reason, &mut copy, sidecar, copied);
        if let Err(error) = &result {
            // The next pass resumes the copy if a signal or the loss of the master ended this one.
            if self.slave.check_interrupted().is_err() {
                let (path, len) = (copy.path().display(), copy.written());
                tracing::info!("{path} keeps the {len} bytes that were copied, for the next pass");
            } else if !error.is_unreachable() {
                copy.discard();
            }
        }
        result
    }

    fn copy_and_replace(
        &self,
        survey: &Survey,
        plan: CopyPlan,
        reason: Reason,
        copy: &mut Replacement<'_>,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let Begun {
            mut reader,
            mut visitor,
            from,
        } = match self.resume(survey, copy, plan)? {
            Some(begun) => begun,
            None => self.begin(survey, copy, plan)?,
        };
        self.forget_blobs(sidecar);
        self.record_begun(survey.master_stat.size, from, sidecar);
        let mut blobs = self.copy_blobs(survey, sidecar);
        blobs.take_range(copy.file(), copy.path(), from)?;
        visitor.collect_blobs();
        while let Some(bytes) = reader.next(Cut::Anywhere, &mut visitor)? {
            copy.write(bytes)?;
            // Only now the copy has the records to which back pointers may lead.
            blobs.take(visitor.take_blobs(), copy.file(), copy.path())?;
            self.monitor
                .progress("copying", reader.position(), reader.size());
        }
        // The start of a damaged or unfinished transaction may have been written.
        copy.truncate(reader.position())?;
        let keep = self.judge(survey, plan, reason, &reader, &mut visitor)?;
        blobs.finish()?;
        if keep.is_some() {
            blobs.set_aside()?;
        }
        copied.set_aside = self.replace(survey, keep, copy, &reader)?;
        if let Some(warning) = copy.warning() {
            self.monitor.warn(warning);
        }
        add_up(copied, &reader, from);
        self.warn_of_blobs(&blobs.transfer, sidecar);
        blobs.record(sidecar, reader.position());
        blobs.transfer.add_to(copied);
        sidecar.batch = None;
        sidecar.copy = None;
        sidecar.index = None;
        self.describe_slave(
            survey,
            copy.file(),
            reader.position(),
            reader.last_tid(),
            sidecar,
        )?;
        let digests = copy.take_digests()?;
        self.store_digests_and_index(copy.file(), digests, visitor, reader.position(), sidecar);
        self.check_undamaged(&reader)
    }

    /// Notes that a copy is under way, for `fssync status`; the copy does not need it.
    fn record_begun(&self, size: u64, from: u64, sidecar: &mut Sidecar) {
        sidecar.copy = Some(FullCopy {
            since: Timestamp::now(),
            from,
            size,
        });
        upkeep::index::report(sidecar.store(&self.slave.paths));
    }

    /// Stores the digests and the index of the new slave. The sidecar comes first: if a pass
    /// were killed here and the sidecar described the old slave, the new one would look changed.
    fn store_digests_and_index(
        &self,
        file: &File,
        digests: Vec<LedgerEntry>,
        visitor: CopyVisitor<'_>,
        position: u64,
        sidecar: &mut Sidecar,
    ) {
        let index = visitor.into_index(position);
        let stored = sidecar.store(&self.slave.paths).and_then(|()| {
            self.record_digests(file, digests);
            upkeep::index::store_built(self.slave, index, position, sidecar, self.monitor)
        });
        upkeep::index::report(stored);
    }

    /// Resumes the copy that an earlier pass has begun, up to its last complete transaction, if
    /// the master proves to have the same bytes.
    fn resume<'a>(
        &'a self,
        survey: &'a Survey,
        copy: &mut Replacement<'_>,
        plan: CopyPlan,
    ) -> Result<Option<Begun<'a>>, Error> {
        let written = copy.written();
        if written <= MAGIC_LEN {
            return Ok(None);
        }
        let mut visitor = CopyVisitor::new(survey, plan.required_tid);
        let mut scanner = Scanner::new(written);
        let check_cancelled = |offset| {
            self.monitor
                .progress("reading the earlier copy", offset, written);
            self.slave.check_cancelled()
        };
        scan_file(
            copy.file(),
            copy.path(),
            &mut scanner,
            &check_cancelled,
            &mut visitor,
        )?;
        let position = scanner.position();
        if position == MAGIC_LEN {
            return Ok(None);
        }
        let range = 0..position;
        let proven = prove_equal(copy.file(), copy.path(), self.master, range, self.monitor)?;
        let Some(proven) = proven else {
            return Ok(None);
        };
        tracing::info!("resuming the copy of an earlier pass at {position}");
        copy.resume(proven)?;
        Ok(Some(Begun {
            reader: self.reader(survey, position, scanner.last_tid()),
            visitor,
            from: position,
        }))
    }

    /// Begins a copy with the master's magic.
    fn begin<'a>(
        &'a self,
        survey: &'a Survey,
        copy: &mut Replacement<'_>,
        plan: CopyPlan,
    ) -> Result<Begun<'a>, Error> {
        copy.truncate(0)?;
        let magic = self.master.read(MAGIC_LEN as usize, 0).wait()?;
        if Magic::decode(&magic).is_none() {
            return Err(self.changed("it is no longer a FileStorage"));
        }
        copy.write(&magic)?;
        Ok(Begun {
            reader: self.reader(survey, MAGIC_LEN, None),
            visitor: CopyVisitor::new(survey, plan.required_tid),
            from: 0,
        })
    }

    /// Asks the plan about a copy of the whole master. Returns why the old slave is to be kept, if
    /// it is; fails if the copy must not take its place.
    pub(super) fn judge(
        &self,
        survey: &Survey,
        plan: CopyPlan,
        reason: Reason,
        reader: &TransactionReader<'_>,
        visitor: &mut CopyVisitor<'_>,
    ) -> Result<Option<KeepReason>, Error> {
        let damage = reader.damage();
        let findings = visitor.findings(damage.is_some());
        match (
            judge_copy(&survey.observation, plan, reason, self.policy, &findings),
            damage,
        ) {
            (CopyDecision::Install { keep }, _) => Ok(keep),
            (CopyDecision::MasterDamaged, Some(damage)) => Err(self.damaged(damage)),
            (CopyDecision::MasterDamaged | CopyDecision::MasterChanged, _) => {
                Err(self.changed("it no longer has the slave's last transaction"))
            }
            (CopyDecision::Refuse(refusal), _) => Err(Error::Refused(refusal)),
        }
    }

    /// Puts a copy, which ends at the position of the reader, in the place of the slave, once it
    /// is durable on both ends and the master has confirmed it. Returns the path of the old slave, if
    /// it is kept.
    fn replace(
        &self,
        survey: &Survey,
        keep: Option<KeepReason>,
        copy: &mut Replacement<'_>,
        reader: &TransactionReader<'_>,
    ) -> Result<Option<PathBuf>, Error> {
        copy.start_sync();
        let asked = self.ask_to_confirm(copy.file(), 0..reader.position(), reader)?;
        copy.sync()?;
        self.confirmed(asked)?;
        let keep_as = keep.map(|_| SecondName {
            last_tid: survey.last_tid,
        });
        let kept_as = copy.install(survey.seen, keep_as)?;
        let replaced = Replaced {
            is_dry_run: false,
            kept: keep.zip(kept_as.clone()),
        };
        self.warn_of_replacement(survey, reader, &replaced);
        Ok(kept_as)
    }
}
