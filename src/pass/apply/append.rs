//! Appends the master's new transactions, batch by batch.
//!
//! The blobs of a batch are durable before the batch becomes visible (Law 7).

use std::mem;

use super::blobs::BlobTransfer;
use super::{Apply, add_up};
use crate::blobs::GROUP_LEN;
use crate::error::Error;
use crate::filestorage::blob::BlobCollector;
use crate::filestorage::record::STATUS_OFFSET;
use crate::filestorage::scan::{Event, Visitor};
use crate::pass::reader::{Cut, TransactionReader};
use crate::pass::survey::Survey;
use crate::plan::AppendPlan;
use crate::plan::outcome::Copied;
use crate::slave::append::Append;
use crate::slave::index::coverage::RecordCount;
use crate::slave::sidecar::Sidecar;

/// Counts the records that are appended, which the index does not cover.
#[derive(Debug, Default)]
struct RecordCounter {
    /// Those of complete transactions.
    complete: RecordCount,
    /// Data records of the transaction that is being read.
    begun: u64,
}

impl Visitor for RecordCounter {
    fn event(&mut self, event: Event) {
        match event {
            // A transaction that is read again counts once.
            Event::Begun { .. } => self.begun = 0,
            Event::Record { .. } => self.begun += 1,
            Event::Transaction(_) => {
                self.complete.transactions += 1;
                self.complete.data += mem::take(&mut self.begun);
            }
            Event::Blemish { .. } => {}
        }
    }
}

/// Visits the transactions that are appended.
#[derive(Debug, Default)]
struct AppendVisitor {
    counter: RecordCounter,
    blobs: BlobCollector,
}

impl Visitor for AppendVisitor {
    fn event(&mut self, event: Event) {
        self.counter.event(event);
        self.blobs.event(event);
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        self.blobs.bytes(offset, bytes);
    }
}

/// Both ends of an append that is under way.
struct Transfer<'a> {
    plan: AppendPlan,
    survey: &'a Survey,
    reader: TransactionReader<'a>,
    visitor: AppendVisitor,
    append: Append<'a>,
    blobs: BlobTransfer<'a>,
}

impl Apply<'_> {
    pub(super) fn append(
        &self,
        survey: &Survey,
        plan: AppendPlan,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let Some(seen) = survey.seen else {
            return Ok(());
        };
        let mut reader = self.reader(survey, plan.from, plan.last_tid);
        reader.begin_with(survey.take_read_ahead());
        let mut transfer = Transfer {
            plan,
            survey,
            reader,
            visitor: AppendVisitor::default(),
            append: Append::open(self.slave, seen, plan.from, plan.trim)?,
            blobs: self.blob_transfer(survey, sidecar, GROUP_LEN),
        };
        let result = self.append_batches(&mut transfer, sidecar, copied);
        let Transfer {
            reader,
            append,
            blobs,
            ..
        } = transfer;
        if let Some(warning) = append.warning() {
            self.monitor.warn(warning);
        }
        if let Err(error) = result {
            append.roll_back();
            return Err(error);
        }
        self.warn_of_blobs(&blobs, sidecar);
        self.check_undamaged(&reader)
    }

    fn append_batches(
        &self,
        transfer: &mut Transfer<'_>,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let from = transfer.plan.from;
        loop {
            let Transfer {
                reader,
                visitor,
                append,
                blobs,
                ..
            } = transfer;
            let is_full = |append: &Append<'_>, blobs: &BlobTransfer<'_>| {
                append.batch_len() >= self.tuning.batch_len || blobs.is_full()
            };
            // A full batch ends at the next boundary.
            let cut = if is_full(append, blobs) {
                Cut::AtBoundary
            } else {
                Cut::Anywhere
            };
            let Some(bytes) = reader.next(cut, visitor)? else {
                break;
            };
            append.write(bytes, sidecar)?;
            // Only now the slave has the records to which back pointers may lead.
            blobs.take(visitor.blobs.take(), append.file(), self.slave.paths.data())?;
            let (position, size) = (reader.position(), reader.size());
            self.monitor
                .progress("appending", position - from, size - from);
            if reader.is_at_boundary() && is_full(append, blobs) {
                self.finish_batch(transfer, sidecar)?;
                add_up(copied, &transfer.reader, from);
                transfer.blobs.add_to(copied);
                sidecar.store(&self.slave.paths)?;
            }
        }
        // The start of a damaged or unfinished transaction may have been written.
        if transfer.append.truncate_batch(transfer.reader.position())? {
            self.finish_batch(transfer, sidecar)?;
            add_up(copied, &transfer.reader, from);
            transfer.blobs.add_to(copied);
        }
        Ok(())
    }

    /// Makes the batch visible, once its blobs are durable, it is durable on both ends itself,
    /// and the master has confirmed it.
    fn finish_batch(
        &self,
        transfer: &mut Transfer<'_>,
        sidecar: &mut Sidecar,
    ) -> Result<(), Error> {
        let Transfer {
            survey,
            reader,
            visitor,
            append,
            blobs,
            ..
        } = transfer;
        append.start_sync();
        blobs.finish()?;
        let from = append.position();
        // The first status byte of the batch still marks it as unfinished.
        let start = from + STATUS_OFFSET + 1;
        let asked = self.ask_to_confirm(append.file(), start..reader.position(), reader)?;
        append.sync()?;
        self.confirmed(asked)?;
        append.commit()?;
        sidecar.batch = None;
        blobs.record_batch(sidecar, reader.position());
        let records = mem::take(&mut visitor.counter.complete);
        if let Some(index) = &mut sidecar.index {
            index.count(from..reader.position(), records);
        }
        self.describe_slave(
            survey,
            append.file(),
            reader.position(),
            reader.last_tid(),
            sidecar,
        )?;
        let digests = append.take_digests()?;
        self.record_digests(append.file(), digests);
        Ok(())
    }
}
