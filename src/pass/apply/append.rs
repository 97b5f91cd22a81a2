//! Appends the master's new transactions, batch by batch.

use std::mem;

use super::{Apply, add_up};
use crate::error::Error;
use crate::filestorage::blob::BlobSearch;
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

/// Both ends of an append that is under way.
struct Transfer<'a> {
    plan: AppendPlan,
    survey: &'a Survey,
    reader: TransactionReader<'a>,
    counter: RecordCounter,
    append: Append<'a>,
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
            counter: RecordCounter::default(),
            append: Append::open(self.slave, seen, plan.from, plan.trim)?,
        };
        let mut blobs = BlobSearch::default();
        let result = self.append_batches(&mut transfer, &mut blobs, sidecar, copied);
        let Transfer { reader, append, .. } = transfer;
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
        blobs: &mut BlobSearch,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let from = transfer.plan.from;
        loop {
            let Transfer {
                reader,
                counter,
                append,
                ..
            } = transfer;
            let is_full = append.batch_len() >= self.tuning.batch_len;
            // A full batch ends at the next boundary.
            let cut = if is_full {
                Cut::AtBoundary
            } else {
                Cut::Anywhere
            };
            let Some(bytes) = reader.next(cut, counter)? else {
                break;
            };
            append.write(bytes, sidecar)?;
            blobs.take(bytes);
            let (position, size) = (reader.position(), reader.size());
            self.monitor
                .progress("appending", position - from, size - from);
            if reader.is_at_boundary() && append.batch_len() >= self.tuning.batch_len {
                self.finish_batch(transfer, sidecar)?;
                add_up(copied, &transfer.reader, from);
                sidecar.store(&self.slave.paths)?;
            }
        }
        // The start of a damaged or unfinished transaction may have been written.
        if transfer.append.truncate_batch(transfer.reader.position())? {
            self.finish_batch(transfer, sidecar)?;
            add_up(copied, &transfer.reader, from);
        }
        Ok(())
    }

    /// Makes the batch visible, once it is durable on both ends and the master has confirmed it.
    fn finish_batch(
        &self,
        transfer: &mut Transfer<'_>,
        sidecar: &mut Sidecar,
    ) -> Result<(), Error> {
        let Transfer {
            survey,
            reader,
            counter,
            append,
            ..
        } = transfer;
        append.start_sync();
        let from = append.position();
        // The first status byte of the batch still marks it as unfinished.
        let start = from + STATUS_OFFSET + 1;
        let asked = self.ask_to_confirm(append.file(), start..reader.position(), reader)?;
        append.sync()?;
        self.confirmed(asked)?;
        append.commit()?;
        sidecar.batch = None;
        let records = mem::take(&mut counter.complete);
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
