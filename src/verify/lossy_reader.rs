//! Reading a file that may have sectors which cannot be read: what they hold is
//! taken for zeros, and the rest is read all the same.

use std::fs::File;
use std::ops::Range;

use super::digests::DigestCheck;
use super::finding::{Finding, Kind};
use crate::error::Error;
use crate::io::read::{AlignedBuf, read_fully};
use crate::slave::fields::{FieldReader, Unreadable, read_pages};

/// Reads a file piece by piece.
pub(super) struct LossyReader<'a> {
    file: &'a File,
    check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    /// Has each byte come by once, in order.
    digests: Option<DigestCheck>,
    piece: AlignedBuf,
    /// What of the piece cannot be read.
    holes: Vec<Range<u64>>,
    /// Up to where the file was read.
    read_to: u64,
    bytes_read: u64,
}

impl<'a> LossyReader<'a> {
    /// Has nothing read yet.
    pub(super) fn new(
        file: &'a File,
        digests: Option<DigestCheck>,
        check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    ) -> Self {
        Self {
            file,
            check_cancelled,
            digests,
            piece: AlignedBuf::default(),
            holes: Vec::new(),
            read_to: 0,
            bytes_read: 0,
        }
    }

    /// Reads a range, fewer bytes only where the file ends; says how many. What is
    /// read again is neither told nor digested again.
    pub(super) fn read(
        &mut self,
        range: Range<u64>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<u64, Error> {
        (self.check_cancelled)()?;
        self.holes.clear();
        let (start, holes) = (range.start, &mut self.holes);
        let room = self.piece.room((range.end - start) as usize, start);
        let got = match read_fully(self.file, room, start) {
            Ok(got) => got,
            Err(_) => read_pages(self.file, room, start, self.check_cancelled, |hole| {
                join(holes, hole);
            })?,
        };
        self.piece.truncate(got);
        self.bytes_read += got as u64;
        self.pass_on(start, report);
        Ok(got as u64)
    }

    /// Tells what of the piece, which lies at `start`, cannot be read, and feeds
    /// the rest to the digests.
    fn pass_on(&mut self, start: u64, report: &mut dyn FnMut(Finding)) {
        let end = start + self.piece.len() as u64;
        let mut at = start.max(self.read_to);
        let piece = &self.piece;
        let part = |from: u64, to: u64| &piece[(from - start) as usize..(to - start) as usize];
        for hole in &self.holes {
            let hole = hole.start.max(at)..hole.end;
            if hole.is_empty() {
                continue;
            }
            report(Finding {
                end: Some(hole.end),
                ..Finding::new(
                    Kind::Unreadable,
                    hole.start,
                    "bytes that can be read",
                    format!("an error for {} bytes", hole.end - hole.start),
                )
            });
            if let Some(digests) = &mut self.digests {
                digests.feed(part(at, hole.start));
                digests.unreadable(&hole);
            }
            at = hole.end;
        }
        if at < end {
            if let Some(digests) = &mut self.digests {
                digests.feed(part(at, end));
            }
            at = end;
        }
        self.read_to = at.max(self.read_to);
    }

    /// The digests, once all was read.
    pub(super) fn take_digests(&mut self) -> Option<DigestCheck> {
        self.digests.take()
    }

    /// What was read last.
    pub(super) fn piece(&self) -> &[u8] {
        &self.piece
    }

    /// Whether all of it could be read.
    pub(super) fn is_whole(&self) -> bool {
        self.holes.is_empty()
    }

    /// Up to where the file was read, in bytes.
    pub(super) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// A reader of single fields.
    pub(super) fn fields(&self) -> FieldReader<'a> {
        FieldReader::new(self.file, Unreadable::Zeros, self.check_cancelled)
    }
}

/// Adds a range behind others.
fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
