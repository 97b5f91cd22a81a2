//! Reads a file on a failing disk. Sectors that cannot be read are reported, and replaced by zeros,
//! so that the rest of the file can be checked.

use std::fs::File;
use std::ops::Range;

use super::digests::DigestCheck;
use super::finding::{Finding, Kind};
use crate::error::Error;
use crate::io::read::{AlignedBuf, read_fully};
use crate::slave::fields::{FieldReader, Unreadable, read_pages};

/// Reads a file window by window.
pub(super) struct LossyReader<'a> {
    file: &'a File,
    check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    /// Gets each byte of the file once, in order.
    digests: Option<DigestCheck>,
    window: AlignedBuf,
    /// Ranges of the window that cannot be read.
    holes: Vec<Range<u64>>,
    /// Offset up to which the file was read, in bytes.
    read_to: u64,
    bytes_read: u64,
}

impl<'a> LossyReader<'a> {
    /// A reader at the start of `file`.
    pub(super) fn new(
        file: &'a File,
        digests: Option<DigestCheck>,
        check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    ) -> Self {
        Self {
            file,
            check_cancelled,
            digests,
            window: AlignedBuf::default(),
            holes: Vec::new(),
            read_to: 0,
            bytes_read: 0,
        }
    }

    /// Reads a range, and returns how many bytes there are: fewer if the file ends. A range may be
    /// read again; its faults are reported and its bytes digested only the first time.
    pub(super) fn read(
        &mut self,
        range: Range<u64>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<u64, Error> {
        (self.check_cancelled)()?;
        self.holes.clear();
        let (start, holes) = (range.start, &mut self.holes);
        let room = self.window.room((range.end - start) as usize, start);
        let got = match read_fully(self.file, room, start) {
            Ok(got) => got,
            Err(_) => read_pages(self.file, room, start, self.check_cancelled, |hole| {
                join(holes, hole);
            })?,
        };
        self.window.truncate(got);
        self.bytes_read += got as u64;
        self.process_window(start, report);
        Ok(got as u64)
    }

    /// Reports the unreadable ranges of the window, which is at offset `start`, and feeds the rest
    /// to the digests.
    fn process_window(&mut self, start: u64, report: &mut dyn FnMut(Finding)) {
        let end = start + self.window.len() as u64;
        let mut at = start.max(self.read_to);
        let window = &self.window;
        let part = |from: u64, to: u64| &window[(from - start) as usize..(to - start) as usize];
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

    /// Removes the comparison with the digests, after the last read.
    pub(super) fn take_digests(&mut self) -> Option<DigestCheck> {
        self.digests.take()
    }

    /// The bytes of the last read.
    pub(super) fn window(&self) -> &[u8] {
        &self.window
    }

    /// Whether the last read succeeded for all of its bytes.
    pub(super) fn is_whole(&self) -> bool {
        self.holes.is_empty()
    }

    /// Offset up to which the file was read, in bytes.
    pub(super) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Number of bytes read, repeated reads included.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// A reader for single fields, independent of the window.
    pub(super) fn fields(&self) -> FieldReader<'a> {
        FieldReader::new(self.file, Unreadable::Zeros, self.check_cancelled)
    }
}

/// Adds a range after the others, and merges it with the last one if they are adjacent.
fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
