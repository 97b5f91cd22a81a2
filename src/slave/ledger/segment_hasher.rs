//! Computes ledger entries from the bytes that are written to the slave.

use std::fs::File;
use std::{fmt, io, mem};

use super::{LedgerEntry, segment_end};
use crate::io::read::{AlignedBuf, read_fully};

/// Computes the entries of consecutive bytes, one for each segment.
pub struct SegmentHasher {
    /// The entries that are complete.
    entries: Vec<LedgerEntry>,
    /// Offset of the first byte in the hasher.
    start: u64,
    /// Offset of the next byte.
    at: u64,
    hasher: blake3::Hasher,
}

impl fmt::Debug for SegmentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentHasher")
            .field("entries", &self.entries.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl SegmentHasher {
    /// Starts with the byte at `offset`.
    #[must_use]
    pub fn new(offset: u64) -> Self {
        Self {
            entries: Vec::new(),
            start: offset,
            at: offset,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Starts after bytes whose entries are known.
    #[must_use]
    pub fn after(entries: Vec<LedgerEntry>) -> Self {
        let offset = entries.last().map_or(0, |last| last.range.end);
        Self {
            entries,
            ..Self::new(offset)
        }
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Adds the next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = segment_end(self.at);
            let len = (end - self.at).min(bytes.len() as u64);
            let (taken, rest) = bytes.split_at(len as usize);
            self.hasher.update(taken);
            self.at += len;
            if self.at == end {
                self.complete();
            }
            bytes = rest;
        }
    }

    /// The entries of all bytes up to `offset` that were added since the last call. If more bytes
    /// were added, the hasher goes back, and reads the last ones before `offset` again from the
    /// file to which they were written.
    pub fn end_at(&mut self, file: &File, offset: u64) -> io::Result<Vec<LedgerEntry>> {
        if self.at != offset {
            self.go_back(file, offset)?;
        }
        self.complete();
        Ok(mem::take(&mut self.entries))
    }

    fn go_back(&mut self, file: &File, offset: u64) -> io::Result<()> {
        const PIECE_LEN: u64 = 1024 * 1024;
        while let Some(last) = self.entries.pop_if(|last| last.range.end > offset) {
            self.start = last.range.start;
        }
        self.at = self.start;
        self.hasher.reset();
        let mut piece = AlignedBuf::default();
        while self.at < offset {
            let len = (offset - self.at).min(PIECE_LEN) as usize;
            let got = read_fully(file, piece.room(len, self.at), self.at)?;
            if got < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.take(&piece);
        }
        Ok(())
    }

    fn complete(&mut self) {
        if self.start < self.at {
            self.entries.push(LedgerEntry {
                range: self.start..self.at,
                digest: self.hasher.finalize().into(),
            });
        }
        self.start = self.at;
        self.hasher.reset();
    }
}
