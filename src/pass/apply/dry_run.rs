//! A dry run: reads and checks everything that the plan would read, and writes nothing.

use super::copy_visitor::CopyVisitor;
use super::warnings::{Own, Replaced};
use super::{Apply, add_up};
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::blob::{BlobCollector, CandidateData};
use crate::filestorage::scan::{Event, Visitor};
use crate::pass::reader::{Cut, TransactionReader};
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::plan::{AppendPlan, CopyPlan, Plan, PlannedAction, Reason, RewindPlan};
use crate::slave::{set_aside, space};

/// Counts the blobs of new transactions. Those of undone changes do not count: the slave does not
/// have the records to which their back pointers may lead.
#[derive(Debug, Default)]
struct BlobCounter {
    collector: BlobCollector,
    count: u64,
}

impl Visitor for BlobCounter {
    fn event(&mut self, event: Event) {
        self.collector.event(event);
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        self.collector.bytes(offset, bytes);
        let found = self.collector.take();
        let blobs = found.iter().filter(|it| it.data == CandidateData::Pickle);
        self.count += blobs.count() as u64;
    }
}

impl Apply<'_> {
    /// Does the same as [`run`](Self::run), except for the writes.
    pub fn dry_run(&self, plan: &Plan, survey: &Survey, copied: &mut Copied) -> Result<(), Error> {
        match plan.action {
            PlannedAction::Nothing => Ok(()),
            PlannedAction::Append(append) => self.dry_run_append(survey, append, copied),
            PlannedAction::Rewind(rewind) => self.dry_run_rewind(survey, rewind, copied),
            PlannedAction::FullCopy(copy) => {
                self.dry_run_full_copy(survey, copy, plan.reason, copied)
            }
        }
    }

    fn dry_run_append(
        &self,
        survey: &Survey,
        plan: AppendPlan,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let mut reader = self.reader(survey, plan.from, plan.last_tid);
        let mut blobs = BlobCounter::default();
        self.read_to_end(&mut reader, &mut blobs)?;
        space::check_append(self.slave, reader.position())?;
        add_up(copied, &reader, plan.from);
        copied.blobs = blobs.count;
        self.check_undamaged(&reader)
    }

    fn dry_run_rewind(
        &self,
        survey: &Survey,
        plan: RewindPlan,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let (paths, fork) = (&self.slave.paths, plan.fork);
        space::check_set_aside(paths, fork.set_aside_len)?;
        let mut reader = self.reader(survey, fork.position, fork.last_tid);
        let mut blobs = BlobCounter::default();
        self.read_to_end(&mut reader, &mut blobs)?;
        let set_aside = set_aside::free_name(paths, fork.own);
        self.warn_of_own(&Own {
            is_dry_run: true,
            run: fork.own,
            path: &set_aside,
            blobs: None,
        });
        add_up(copied, &reader, fork.position);
        copied.blobs = blobs.count;
        copied.own_transactions = fork.own.count;
        copied.set_aside = Some(set_aside);
        self.check_undamaged(&reader)
    }

    fn dry_run_full_copy(
        &self,
        survey: &Survey,
        plan: CopyPlan,
        reason: Reason,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        space::check_next_copy(self.slave, survey.master_stat.size)?;
        let mut visitor = CopyVisitor::new(survey, plan.required_tid);
        let mut reader = self.reader(survey, MAGIC_LEN, None);
        self.read_to_end(&mut reader, &mut visitor)?;
        let keep = self.judge(survey, plan, reason, &reader, &mut visitor)?;
        let replaced = Replaced {
            is_dry_run: true,
            kept: keep.map(|reason| (reason, self.slave.paths.free_aside(survey.last_tid))),
        };
        self.warn_of_replacement(survey, &reader, &replaced);
        copied.set_aside = replaced.kept.map(|(_, path)| path);
        add_up(copied, &reader, 0);
        self.check_undamaged(&reader)
    }

    fn read_to_end(
        &self,
        reader: &mut TransactionReader<'_>,
        visitor: &mut impl Visitor,
    ) -> Result<(), Error> {
        while reader.next(Cut::Anywhere, visitor)?.is_some() {
            let (position, size) = (reader.position(), reader.size());
            self.monitor.progress("reading", position, size);
        }
        Ok(())
    }
}
