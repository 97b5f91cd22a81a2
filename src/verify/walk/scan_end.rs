//! Decides, at the point where the scan stopped, whether it is the end of the committed
//! transactions or damage, and where the walk continues.
//!
//! While the file is verified, ZODB or a pass may append after the last committed transaction, or
//! truncate the file there. So a position that looks wrong is read again before it counts as
//! damage. The cases are:
//!
//! 1. *Less than a header is left, or the sidecar has announced an append there.* It is a tail.
//! 2. *Whole transactions follow.* It is damage, whatever ZODB does with it: ZODB writes nothing
//!    after an unfinished transaction. Only an interrupted batch of a pass may contain more than
//!    one transaction: the sidecar announces it, or it starts where the last pass ended.
//! 3. *No transaction follows.* It is a tail, unless ZODB fails on it.

use super::super::UnfinishedTail;
use super::super::conversion::{of_damage, of_length, of_tail, of_unfinished};
use super::super::finding::Finding;
use super::{MIN_WINDOW_LEN, Reread, Walk};
use crate::error::Error;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{DATA_HEADER_LEN, DataHeader, TXN_HEADER_LEN, TxnHeader};
use crate::filestorage::resync::{end_of, is_transaction, search, zodb_truncates};
use crate::filestorage::scan::{Scanner, Tail};

/// Number of times that positions are read again in a walk; each time takes some milliseconds.
const MAX_REREADS: usize = 100;

/// How the walk continues after the scan stopped.
pub(super) enum ScanEnd {
    /// The scanner was set to the position at which it continues.
    Resumed,
    /// The walk is at its end, perhaps with a tail.
    End(Option<UnfinishedTail>),
}

impl Walk<'_> {
    /// Handles the position at which the scanner stopped.
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
        // Is there a whole transaction after this one? It starts where this one should end; or, if
        // this one is voted, anywhere after it.
        let is_voted = tail == Tail::Voted;
        let mut next_start = if is_voted {
            self.next_after_voted(start)?
        } else {
            let (mut fields, last_tid) = (self.reader.fields(), self.scanner.last_tid());
            end_of(&mut fields, start, self.limit, last_tid)?
        };
        // It looks damaged: a voted transaction that others follow, or a header that nothing
        // follows. Another process may just have been writing it, so read it again.
        if next_start.is_some() == is_voted && self.read_again()? {
            return Ok(ScanEnd::Resumed);
        }
        // The length may be damaged, too: search for any transaction.
        if next_start.is_none() && !is_voted {
            let (mut fields, last_tid) = (self.reader.fields(), self.scanner.last_tid());
            next_start = search(&mut fields, start, start + 1, self.limit, last_tid)?;
        }
        let status = TxnHeader::decode(&header).status.0;
        let finding = match (tail, next_start) {
            (Tail::Damaged(damage), None)
                if zodb_truncates(&mut self.reader.fields(), self.limit, &damage)? =>
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
            Some(next_start) => self.resume_at(next_start).map(|()| ScanEnd::Resumed),
            None => Ok(ScanEnd::End(None)),
        }
    }

    /// Continues after a damaged range, at the transaction at `next_start`.
    fn resume_at(&mut self, next_start: u64) -> Result<(), Error> {
        self.read_up_to(next_start)?;
        self.checker.skip_transaction();
        // There may be much damage, and each time a whole window is read: so keep it small.
        self.window_len = MIN_WINDOW_LEN;
        self.scanner = Scanner::resume(next_start, self.scanner.last_tid(), self.limit);
        self.compare_index()
    }

    /// Start of the next whole transaction after a voted one; `None` if there is none.
    fn next_after_voted(&self, start: u64) -> Result<Option<u64>, Error> {
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

    /// Whether a pass is appending at `start`, or an append was interrupted there.
    fn is_ours(&self, start: u64, header: &[u8]) -> bool {
        let len = self.limit.saturating_sub(start).min(header.len() as u64) as usize;
        let batch = self.sidecar().batch;
        batch.is_some_and(|batch| batch.has_written(start, &header[..len]))
    }

    /// Whether the last pass left the slave with its end at `start`. Then an unfinished batch there
    /// is from a pass, even if a power cut has undone its announcement in the sidecar.
    fn was_left_at(&self, start: u64) -> bool {
        let left = self.sidecar().last_sync.map(|left| left.slave.position);
        left == Some(start) || self.input.digests_end == Some(start)
    }

    /// The header at `start`; zeros after the end of the file.
    fn header(&self, start: u64) -> Result<[u8; TXN_HEADER_LEN], Error> {
        let mut header = [0; TXN_HEADER_LEN];
        self.reader.fields().read_exact_at(&mut header, start)?;
        Ok(header)
    }

    /// Waits, and prepares to read a position again that looks wrong, up to the current end of the
    /// file. Returns `false` if it was read often enough. If the file did not change all the time,
    /// nobody writes it; then no other position is read again either.
    pub(super) fn read_again(&mut self) -> Result<bool, Error> {
        let (position, now) = (self.scanner.position(), self.file_stat()?);
        let earlier = self.reread.filter(|it| it.position == position);
        let mut reread = earlier.unwrap_or(Reread {
            position,
            times: 0,
            before: now,
        });
        let Some(&wait) = REREAD_DELAYS.get(reread.times) else {
            self.settled = Some(now).filter(|now| *now == reread.before);
            return Ok(false);
        };
        self.rereads += 1;
        if self.rereads > MAX_REREADS || self.settled == Some(now) {
            return Ok(false);
        }
        reread.times += 1;
        self.reread = Some(reread);
        retry::wait(wait);
        self.limit = self.file_stat()?.size.max(position);
        self.reported_to = self.flaws_to;
        self.checker.restart_transaction();
        self.scanner = Scanner::resume(position, self.scanner.last_tid(), self.limit);
        Ok(true)
    }

    /// Reports damage up to offset `end`, with the tid from this header and the object.
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
