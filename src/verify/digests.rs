//! Compares the slave's bytes with the digests in the ledger.
//!
//! The ledger has a digest of each segment, as the master sent it. The bytes are digested while
//! the walk reads them. This finds flipped bits that leave the structure intact, such as those in
//! a pickle. It narrows a fault down to a segment; only a comparison with the master finds the
//! transaction.

use std::fs::File;
use std::mem;
use std::ops::Range;

use super::finding::{Finding, Kind};
use crate::compare::span::TransactionSpan;
use crate::error::Error;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::scan::{Event, Scanner};
use crate::io::digest::Digest;
use crate::slave::fields::FieldReader;
use crate::slave::ledger::{Entries, Ledger, LedgerEntry};
use crate::slave::paths::{OpenMode, SlavePaths};

/// Number of ranges that are reported with the transactions in them.
const MAX_LOCATED: usize = 100;

/// Result of the comparison with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestState {
    /// The verification was a quick one, without digests.
    Skipped,
    /// There is no ledger, or it belongs to another file.
    NoLedger,
    /// Number of bytes that have digests, and were compared with them.
    Compared(u64),
}

/// The comparison with the ledger, fed with the bytes of the file in order.
pub(super) struct DigestCheck {
    entries: Entries,
    /// End of the ledger before the size of the slave was read, in bytes.
    end: u64,
    /// The entry that contains the next byte, or the first one after it.
    entry: Option<LedgerEntry>,
    /// Offset of the next byte.
    at: u64,
    hasher: blake3::Hasher,
    /// Whether all bytes of this entry could be read so far.
    is_readable: bool,
    compared: u64,
    /// Ranges that differ from their digests.
    wrong: Vec<Range<u64>>,
    /// Number of entries that fail their checksum.
    damaged_entries: u64,
    /// The error that ended the reading of the ledger.
    failed: Option<Error>,
}

impl DigestCheck {
    /// Opens the ledger of the slave `data`; `None` if it has none.
    pub(super) fn open(paths: &SlavePaths, data: &File) -> Result<Option<Self>, Error> {
        let Some(ledger) = Ledger::open(paths, data, OpenMode::Read)? else {
            return Ok(None);
        };
        let found = data
            .metadata()
            .map_err(Error::io("look at", paths.data()))?;
        Ok(Some(Self {
            end: ledger.end(u64::MAX)?,
            entries: ledger.entries(found.len()),
            entry: None,
            at: 0,
            hasher: blake3::Hasher::new(),
            is_readable: true,
            compared: 0,
            wrong: Vec::new(),
            damaged_entries: 0,
            failed: None,
        }))
    }

    /// Takes the next bytes of the file.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = self.next_len(bytes.len() as u64);
            let (part, rest) = bytes.split_at(len as usize);
            if self.is_within() {
                self.hasher.update(part);
            }
            self.advance(len);
            bytes = rest;
        }
    }

    /// Skips a range that cannot be read. It must start with the next byte.
    pub(super) fn unreadable(&mut self, range: &Range<u64>) {
        let mut left = range.end - range.start;
        while left > 0 {
            let len = self.next_len(left);
            self.is_readable &= !self.is_within();
            self.advance(len);
            left -= len;
        }
    }

    /// How many of the next bytes, at most `most`, are all inside of an entry or all outside.
    fn next_len(&mut self, most: u64) -> u64 {
        while self.entry.is_none() {
            match self.entries.next() {
                // Skip entries of bytes that were fed before, or that were not committed when
                // the size was read: a pass may replace entries meanwhile.
                Some(Ok(Some(LedgerEntry { range, digest })))
                    if range.start >= self.at && range.end <= self.end =>
                {
                    self.entry = Some(LedgerEntry { range, digest });
                }
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => self.damaged_entries += 1,
                Some(Err(error)) => self.failed = Some(error),
                None => return most,
            }
        }
        match &self.entry {
            Some(LedgerEntry { range, .. }) if self.at < range.start => {
                most.min(range.start - self.at)
            }
            Some(LedgerEntry { range, .. }) => most.min(range.end - self.at),
            None => most,
        }
    }

    /// Whether the next byte is in the entry.
    fn is_within(&self) -> bool {
        let entry = self.entry.as_ref();
        entry.is_some_and(|entry| entry.range.contains(&self.at))
    }

    fn advance(&mut self, len: u64) {
        self.at += len;
        let Some(entry) = self.entry.take_if(|entry| entry.range.end == self.at) else {
            return;
        };
        let found = Digest::from(self.hasher.finalize());
        self.hasher.reset();
        // A segment with unreadable bytes is reported as unreadable, not as different.
        if mem::replace(&mut self.is_readable, true) {
            self.compared += entry.range.end - entry.range.start;
            if found != entry.digest {
                self.add_wrong(entry.range);
            }
        }
    }

    fn add_wrong(&mut self, range: Range<u64>) {
        match self.wrong.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.wrong.push(range),
        }
    }

    /// Offset up to which the ledger has digests, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Reports the ranges that differ, and damage of the ledger itself.
    pub(super) fn finish(
        self,
        fields: FieldReader<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<DigestState, Error> {
        let spans = locate(fields, self.at, &self.wrong)?;
        for (range, span) in self.wrong.into_iter().zip(spans) {
            report(finding(range, span));
        }
        if self.damaged_entries > 0 || self.failed.is_some() {
            let found = match self.failed {
                Some(error) => error.display_chain(),
                None => format!("{} damaged entries", self.damaged_entries),
            };
            report(Finding::new(Kind::Ledger, 0, "intact entries", found));
        }
        Ok(DigestState::Compared(self.compared))
    }
}

/// The finding for a range that differs from its digest and contains these transactions.
fn finding(range: Range<u64>, span: TransactionSpan) -> Finding {
    let found = match (span.first, span.last) {
        (Some(first), Some(last)) if first != last => format!(
            "different bytes, in the {} transactions {} to {}",
            span.count,
            first.with_time(),
            last.with_time()
        ),
        _ => "different bytes".to_owned(),
    };
    Finding {
        end: Some(range.end),
        tid: span.first.filter(|_| span.first == span.last),
        ..Finding::new(
            Kind::Digest,
            range.start,
            "the bytes that the master sent, according to their digest",
            found,
        )
    }
}

/// Finds the transactions that overlap each of the ranges, in a file of `size` bytes. Reads the
/// structure without the pickles, up to the first damage.
fn locate(
    mut fields: FieldReader<'_>,
    size: u64,
    ranges: &[Range<u64>],
) -> Result<Vec<TransactionSpan>, Error> {
    const WINDOW_LEN: u64 = 16 * 1024;
    let mut spans = vec![TransactionSpan::default(); ranges.len()];
    let located = &ranges[..ranges.len().min(MAX_LOCATED)];
    let last = located.last().map_or(0, |last| last.end);
    let mut scanner = Scanner::new(size);
    let mut window = [0; WINDOW_LEN as usize];
    while scanner.stopped().is_none() && scanner.position() < last {
        scanner.skip();
        let left = scanner.left().min(WINDOW_LEN);
        if left == 0 {
            break;
        }
        let window = &mut window[..left as usize];
        fields.read_exact_at(window, scanner.offset())?;
        scanner.feed(window, &mut |event| {
            let Event::Transaction(transaction) = event else {
                return;
            };
            let from = located.partition_point(|range| range.end <= transaction.position);
            let hit = located[from..].iter().zip(&mut spans[from..]);
            for (_, span) in hit.take_while(|(range, _)| range.start < transaction.end) {
                let len = transaction.end - transaction.position;
                span.push_back(transaction.header.tid, len);
            }
        });
    }
    Ok(spans)
}
