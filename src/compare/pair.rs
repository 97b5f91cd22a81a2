//! Both ends of a comparison: the same range digested on each, at the same time.

use std::ops::Range;

use super::join::ListedTransaction;
use crate::error::Error;
use crate::filestorage::TxnHeader;
use crate::filestorage::backward::Backward;
use crate::filestorage::record::TXN_HEADER_LEN;
use crate::filestorage::scan::Transaction;
use crate::io::digest::Digest;
use crate::slave::fields::FieldReader;
use crate::source::{Master, Pending};

/// How many bytes are digested at once, in pieces that start at multiples of it.
pub(crate) const SEGMENT_LEN: u64 = 4 * 1024 * 1024;

/// The slave and its master.
#[derive(Clone, Copy)]
pub(crate) struct FilePair<'a> {
    /// The slave.
    pub(crate) slave: FieldReader<'a>,
    /// The master.
    pub(crate) master: &'a Master,
}

impl<'a> FilePair<'a> {
    /// Compares a range piece by piece.
    pub(crate) fn segments(self, range: Range<u64>) -> Segments<'a> {
        let mut segments = Segments {
            pair: self,
            left: range,
            asked: None,
        };
        segments.asked = segments.ask();
        segments
    }

    /// Whether a range has the same bytes on both ends.
    pub(crate) fn is_equal(&self, range: Range<u64>) -> Result<bool, Error> {
        let mut segments = self.segments(range);
        while let Some((_, is_equal)) = segments.next(&mut |_| {})? {
            if !is_equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Who made a transaction of the slave's and what for, if its header is still
    /// that of this transaction.
    pub(crate) fn by(&self, txn: &ListedTransaction) -> Result<Option<(String, String)>, Error> {
        let mut header = [0; TXN_HEADER_LEN];
        self.slave.read(&mut header, txn.position)?;
        let header = TxnHeader::decode(&header);
        let is_its = header.tid == txn.tid
            && header.end(txn.position) == Some(txn.end)
            && header.header_len() <= header.tlen;
        if !is_its {
            return Ok(None);
        }
        let transaction = Transaction {
            position: txn.position,
            end: txn.end,
            header,
        };
        let strings = Backward::new(self.slave, txn.end).user_and_description(&transaction)?;
        Ok(Some(strings))
    }
}

/// The pieces of a range. The master is asked for the next one before its answer
/// to the last one is waited for.
pub(crate) struct Segments<'a> {
    pair: FilePair<'a>,
    left: Range<u64>,
    asked: Option<(Range<u64>, Pending<Option<Digest>>)>,
}

impl Segments<'_> {
    /// Compares the next piece: which one it is, and whether it is equal. `seen` is
    /// given the slave's bytes of it, in their order.
    pub(crate) fn next(
        &mut self,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<(Range<u64>, bool)>, Error> {
        let Some((piece, theirs)) = self.asked.take() else {
            return Ok(None);
        };
        self.asked = self.ask();
        let mut is_whole = true;
        let ours = Digest::of_range(piece.clone(), |buffer, offset| {
            is_whole &= self.pair.slave.read(buffer, offset)?;
            seen(buffer);
            Ok::<_, Error>(buffer.len())
        })?;
        let is_equal = is_whole && theirs.wait()? == ours;
        Ok(Some((piece, is_equal)))
    }

    fn ask(&mut self) -> Option<(Range<u64>, Pending<Option<Digest>>)> {
        let Range { start, end } = self.left;
        if start >= end {
            return None;
        }
        let boundary = (start / SEGMENT_LEN + 1).saturating_mul(SEGMENT_LEN);
        let piece = start..end.min(boundary);
        self.left.start = piece.end;
        Some((piece.clone(), self.pair.master.digest(piece)))
    }
}
