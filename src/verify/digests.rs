//! The slave's bytes against the digests that the ledger has of them.
//!
//! The ledger says what came from the master, segment by segment; the bytes are digested as
//! the walk reads them. A flipped bit that leaves the structure as it is, as one in a
//! pickle does, is found here and nowhere else; where in its segment it lies,
//! only the master can tell.

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

/// How many ranges are told of with the transactions that they hold.
const MAX_LOCATED: usize = 100;

/// What the digests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestState {
    /// They were not asked for.
    Unasked,
    /// There is no ledger, or one of another file.
    NoLedger,
    /// So many bytes have digests, and were compared with them.
    Compared(u64),
}

/// The comparison, as the file comes by.
pub(super) struct DigestCheck {
    entries: Entries,
    /// Where the ledger ended before the slave's size was taken.
    end: u64,
    /// The entry whose bytes come by, or come next.
    entry: Option<LedgerEntry>,
    /// The offset of the byte that comes next.
    at: u64,
    hasher: blake3::Hasher,
    /// Whether all bytes of the entry could be read so far.
    is_readable: bool,
    compared: u64,
    /// Ranges with other bytes than they should have.
    wrong: Vec<Range<u64>>,
    /// How many entries are not as they were written.
    damaged_entries: u64,
    /// Why the ledger could not be read on.
    failed: Option<Error>,
}

impl DigestCheck {
    /// Opens the ledger of `data`, which is the slave; `None` if there is none.
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

    /// Passes over the next bytes, which cannot be read.
    pub(super) fn unreadable(&mut self, range: &Range<u64>) {
        let mut left = range.end - range.start;
        while left > 0 {
            let len = self.next_len(left);
            self.is_readable &= !self.is_within();
            self.advance(len);
            left -= len;
        }
    }

    /// How many of the next bytes are treated alike, `most` at most.
    fn next_len(&mut self, most: u64) -> u64 {
        while self.entry.is_none() {
            match self.entries.next() {
                // Others are of bytes that have come by, or were not committed yet when
                // they were read: a pass is joining them.
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

    /// Whether the next byte is one of the entry's.
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
        // What cannot be read is told of as such.
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

    /// Up to where bytes have digests, without a gap.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What came of it.
    pub(super) fn finish(
        self,
        fields: FieldReader<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<DigestState, Error> {
        let held = holds(fields, self.at, &self.wrong)?;
        for (range, held) in self.wrong.into_iter().zip(held) {
            report(finding(range, held));
        }
        if self.damaged_entries > 0 || self.failed.is_some() {
            let found = match self.failed {
                Some(error) => error.display_chain(),
                None => format!("{} that are not", self.damaged_entries),
            };
            report(Finding::new(
                Kind::Ledger,
                0,
                "entries as they were written",
                found,
            ));
        }
        Ok(DigestState::Compared(self.compared))
    }
}

/// The finding for a range that differs from its digest, and contains these transactions.
fn finding(range: Range<u64>, span: TransactionSpan) -> Finding {
    let found = match (span.first, span.last) {
        (Some(first), Some(last)) if first != last => format!(
            "others, in the {} transactions {} to {}",
            span.count,
            first.with_time(),
            last.with_time()
        ),
        _ => "others".to_owned(),
    };
    Finding {
        end: Some(range.end),
        tid: span.first.filter(|_| span.first == span.last),
        ..Finding::new(
            Kind::Digest,
            range.start,
            "the bytes that came from the master, by their digest",
            found,
        )
    }
}

/// The transactions that lie in each of some ranges, at least in part, as far as the structure
/// can be walked in a file of `size` bytes; pickles are passed over.
fn holds(
    mut fields: FieldReader<'_>,
    size: u64,
    ranges: &[Range<u64>],
) -> Result<Vec<TransactionSpan>, Error> {
    const WINDOW_LEN: u64 = 16 * 1024;
    let mut held = vec![TransactionSpan::default(); ranges.len()];
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
            let hit = located[from..].iter().zip(&mut held[from..]);
            for (_, held) in hit.take_while(|(range, _)| range.start < transaction.end) {
                let len = transaction.end - transaction.position;
                held.push_back(transaction.header.tid, len);
            }
        });
    }
    Ok(held)
}
