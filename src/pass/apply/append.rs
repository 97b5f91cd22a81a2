//! Appending what is new, batch by batch.

use super::{Apply, note};
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::record::STATUS_OFFSET;
use crate::io::progress::Monitor;
use crate::pass::reader::Feed;
use crate::pass::survey::Survey;
use crate::plan::SlaveTail;
use crate::plan::outcome::Copied;
use crate::slave::append::Append;
use crate::slave::sidecar::Sidecar;

impl Apply<'_> {
    pub(super) fn append(
        &self,
        survey: &Survey,
        (from, last_tid, trim): (u64, Option<Tid>, SlaveTail),
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let Some(seen) = survey.seen else {
            return Ok(());
        };
        let mut feed = self.feed(survey, from, last_tid);
        feed.begin_with(survey.take_ahead());
        let mut append = Append::open(self.slave, seen, from, trim)?;
        let mut batches = || {
            loop {
                let is_full = append.batch_len() >= self.tuning.batch_len;
                let Some(piece) = feed.next(is_full)? else {
                    break;
                };
                append.write(piece, sidecar)?;
                monitor.progress("appending", feed.position() - from, feed.size() - from);
                if feed.is_at_boundary() && append.batch_len() >= self.tuning.batch_len {
                    self.finish_batch(&mut append, &mut feed, survey, sidecar)?;
                    note(copied, &feed, from);
                    sidecar.store(&self.slave.paths)?;
                }
            }
            if append.truncate_batch(feed.position())? {
                self.finish_batch(&mut append, &mut feed, survey, sidecar)?;
                note(copied, &feed, from);
            }
            Ok(())
        };
        let result = batches();
        if let Some(warning) = append.warning() {
            monitor.warn(warning);
        }
        if let Err(error) = result {
            append.roll_back();
            return Err(error);
        }
        self.warn_of_blobs(&feed, sidecar, monitor);
        feed.damage()
            .map_or(Ok(()), |damage| Err(self.damaged(damage)))
    }

    /// Makes what was appended visible, once it is durable here and there, and
    /// still what the master has.
    fn finish_batch(
        &self,
        append: &mut Append<'_>,
        feed: &mut Feed<'_>,
        survey: &Survey,
        sidecar: &mut Sidecar,
    ) -> Result<(), Error> {
        append.start_sync();
        let from = append.position();
        // The slave's first status is a mark still.
        let start = from + STATUS_OFFSET + 1;
        let asked = self.ask_to_confirm(append.file(), start..feed.position(), feed)?;
        append.sync()?;
        self.confirmed(asked)?;
        append.commit()?;
        sidecar.batch = None;
        if let Some(index) = &mut sidecar.index {
            index.count(from..feed.position(), feed.take_records());
        }
        self.leave(
            survey,
            append.file(),
            feed.position(),
            feed.last_tid(),
            sidecar,
        )?;
        let digests = append.take_digests()?;
        self.note_digests(append.file(), digests);
        Ok(())
    }
}
