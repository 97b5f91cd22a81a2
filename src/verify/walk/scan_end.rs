//! What is to be done where the scan stops: whether it is the end of what is
//! committed, or damage, and where the walk goes on.
//!
//! A file that is written meanwhile grows behind its last committed transaction,
//! or is cut there. So what looks wrong there is looked at again before it counts.
//! Where whole transactions follow, it is damage, whatever ZODB makes of it: no
//! transaction follows the one that is being written, but in an append of ours,
//! which the sidecar tells.

use super::super::UnfinishedTail;
use super::super::conversion::{of_damage, of_length, of_tail, of_unfinished};
use super::super::finding::Finding;
use super::{MIN_WINDOW_LEN, Walk};
use crate::error::Error;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{DATA_HEADER_LEN, DataHeader, TXN_HEADER_LEN, TxnHeader};
use crate::filestorage::resync::{end_of, is_cut, is_transaction, search};
use crate::filestorage::scan::{Scanner, Tail};

/// How often anything is looked at again: each time costs some milliseconds.
const MAX_ATTEMPTS: usize = 100;

/// How the walk goes on.
pub(super) enum ScanEnd {
    /// From where the scanner stands now.
    Resumed,
    /// Not at all.
    End(Option<UnfinishedTail>),
}

impl Walk<'_> {
    /// How the walk goes on from where the scanner stopped.
    pub(super) fn handle_scan_end(&mut self) -> Result<ScanEnd, Error> {
        let start = self.scanner.position();
        let header = self.header(start)?;
        let bytes = self.limit - start;
        let end = |is_ours| Ok(ScanEnd::End(Some(UnfinishedTail { bytes, is_ours })));
        let tail = self.scanner.tail();
        match tail {
            Tail::Clean => return Ok(ScanEnd::End(None)),
            _ if self.is_ours(start, &header) => return end(true),
            Tail::Short => return end(false),
            Tail::Voted | Tail::Torn | Tail::Damaged(_) => {}
        }
        let is_voted = tail == Tail::Voted;
        let mut next_start = if is_voted {
            self.behind_voted(start)?
        } else {
            let (mut fields, last_tid) = (self.reader.fields(), self.scanner.last_tid());
            end_of(&mut fields, start, self.limit, last_tid)?
        };
        if next_start.is_some() == is_voted && self.read_again()? {
            return Ok(ScanEnd::Resumed);
        }
        if next_start.is_none() && !is_voted {
            let (mut fields, last_tid) = (self.reader.fields(), self.scanner.last_tid());
            next_start = search(&mut fields, start, start + 1, self.limit, last_tid)?;
        }
        let status = TxnHeader::decode(&header).status.0;
        let finding = match (tail, next_start) {
            (Tail::Damaged(damage), None)
                if is_cut(&mut self.reader.fields(), self.limit, &damage)? =>
            {
                return end(false);
            }
            (Tail::Damaged(damage), _) => of_damage(&damage),
            (Tail::Voted, Some(_)) if self.was_left_at(start) => return end(true),
            (Tail::Voted, Some(_)) => of_unfinished(start),
            (Tail::Torn, Some(_)) => of_length(start),
            (Tail::Torn, None) if !status.is_ascii() => of_tail(start, status),
            _ => return end(false),
        };
        self.report_with_ids(finding, &header, next_start.unwrap_or(self.limit))?;
        match next_start {
            Some(next_start) => self.go_on_at(next_start).map(|()| ScanEnd::Resumed),
            None => Ok(ScanEnd::End(None)),
        }
    }

    /// Goes on behind what was not taken.
    fn go_on_at(&mut self, next_start: u64) -> Result<(), Error> {
        self.read_up_to(next_start)?;
        self.checker.pass_over();
        // More that is damaged may follow at once: each time, all of a window is read.
        self.window_len = MIN_WINDOW_LEN;
        self.scanner = Scanner::resume(next_start, self.scanner.last_tid(), self.limit);
        self.compare_index()
    }

    /// Where a whole transaction starts behind one that is voted, if one does.
    fn behind_voted(&self, start: u64) -> Result<Option<u64>, Error> {
        let (mut fields, limit) = (self.reader.fields(), self.limit);
        let last_tid = self.scanner.last_tid();
        let mut from = end_of(&mut fields, start, limit, last_tid)?.unwrap_or(start);
        while from < limit {
            if is_transaction(&mut fields, from, limit, last_tid)? {
                return Ok(Some(from));
            }
            match search(&mut fields, start, from, limit, last_tid)? {
                Some(found) => from = found,
                None => break,
            }
        }
        Ok(None)
    }

    /// Whether an append of ours is under way at `start`, or was left there.
    fn is_ours(&self, start: u64, header: &[u8]) -> bool {
        let len = self.limit.saturating_sub(start).min(header.len() as u64) as usize;
        let batch = self.sidecar().batch;
        batch.is_some_and(|batch| batch.left(start, &header[..len]))
    }

    /// Whether a pass left the slave ending at `start`: then a batch that is not finished
    /// is ours, also where a power cut took back that it was announced.
    fn was_left_at(&self, start: u64) -> bool {
        let left = self.sidecar().last_sync.map(|left| left.slave.position);
        left == Some(start) || self.input.digests_end == Some(start)
    }

    /// The header at `start`; zeros behind the end.
    fn header(&self, start: u64) -> Result<[u8; TXN_HEADER_LEN], Error> {
        let mut header = [0; TXN_HEADER_LEN];
        self.reader.fields().read_exact_at(&mut header, start)?;
        Ok(header)
    }

    /// Whether there may be more after all: what looks wrong is read again, up to
    /// where the file ends now. Where nothing was written all the while, nobody
    /// writes it, and nothing else in it is waited for.
    pub(super) fn read_again(&mut self) -> Result<bool, Error> {
        let (at, seen) = (self.scanner.position(), self.seen()?);
        let (times, before) = match self.reread {
            Some((same, times, before)) if same == at => (times, before),
            _ => (0, seen),
        };
        let Some(&wait) = REREAD_DELAYS.get(times) else {
            self.settled = Some(seen).filter(|seen| *seen == before);
            return Ok(false);
        };
        self.rereads += 1;
        if self.rereads > MAX_ATTEMPTS || self.settled == Some(seen) {
            return Ok(false);
        }
        self.reread = Some((at, times + 1, before));
        retry::wait(wait);
        self.limit = self.seen()?.size.max(at);
        self.reported_to = self.flaws_to;
        self.checker.begin_again();
        self.scanner = Scanner::resume(at, self.scanner.last_tid(), self.limit);
        Ok(true)
    }

    /// Tells of damage that reaches to `end`, with the transaction whose header this
    /// is, and the object.
    fn report_with_ids(
        &mut self,
        finding: Finding,
        header: &[u8; TXN_HEADER_LEN],
        end: u64,
    ) -> Result<(), Error> {
        let mut oid = None;
        if finding.position != self.scanner.position() {
            let mut record = [0; DATA_HEADER_LEN];
            let mut fields = self.reader.fields();
            fields.read_exact_at(&mut record, finding.position)?;
            oid = Some(DataHeader::decode(&record).oid);
        }
        (self.report)(Finding {
            tid: Some(TxnHeader::decode(header).tid),
            oid,
            end: Some(end),
            ..finding
        });
        Ok(())
    }
}
