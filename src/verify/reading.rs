//! Reading a file that may have sectors which cannot be read: what they hold is
//! taken for zeros, and the rest is read all the same.

use std::fs::File;
use std::ops::Range;

use super::digests::DigestCheck;
use super::finding::{Finding, Kind};
use crate::filestorage::backward::ReadAt;
use crate::read::{Piece, read_fully};
use crate::stop::Stop;

/// The length of what is tried by itself where a longer read failed, in bytes.
const PAGE_LEN: u64 = 4096;

/// Reads a file piece by piece.
pub(super) struct Reading<'a> {
    file: &'a File,
    may_go_on: &'a dyn Fn() -> Result<(), Stop>,
    /// Has each byte come by once, in order.
    digests: Option<DigestCheck>,
    piece: Piece,
    /// What of the piece cannot be read.
    holes: Vec<Range<u64>>,
    /// Up to where the file was read.
    read_to: u64,
    bytes_read: u64,
}

impl<'a> Reading<'a> {
    /// Has nothing read yet.
    pub(super) fn new(
        file: &'a File,
        digests: Option<DigestCheck>,
        may_go_on: &'a dyn Fn() -> Result<(), Stop>,
    ) -> Self {
        Self {
            file,
            may_go_on,
            digests,
            piece: Piece::default(),
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
        tell: &mut dyn FnMut(Finding),
    ) -> Result<u64, Stop> {
        (self.may_go_on)()?;
        self.holes.clear();
        let (start, holes) = (range.start, &mut self.holes);
        let room = self.piece.room((range.end - start) as usize, start);
        let got = match read_fully(self.file, room, start) {
            Ok(got) => got,
            Err(_) => read_pages(self.file, room, start, self.may_go_on, |hole| {
                join(holes, hole);
            })?,
        };
        self.piece.truncate(got);
        self.bytes_read += got as u64;
        self.pass_on(start, tell);
        Ok(got as u64)
    }

    /// Tells what of the piece, which lies at `start`, cannot be read, and feeds
    /// the rest to the digests.
    fn pass_on(&mut self, start: u64, tell: &mut dyn FnMut(Finding)) {
        let end = start + self.piece.len() as u64;
        let mut at = start.max(self.read_to);
        let piece = &self.piece;
        let part = |from: u64, to: u64| &piece[(from - start) as usize..(to - start) as usize];
        for hole in &self.holes {
            let hole = hole.start.max(at)..hole.end;
            if hole.is_empty() {
                continue;
            }
            tell(Finding {
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
    pub(super) fn fields(&self) -> Fields<'a> {
        Fields {
            file: self.file,
            may_go_on: self.may_go_on,
        }
    }
}

/// Reads fields by their positions; what cannot be read, or lies behind the end, is
/// zeros.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    file: &'a File,
    may_go_on: &'a dyn Fn() -> Result<(), Stop>,
}

impl Fields<'_> {
    /// Fills the buffer; says whether all of it is what the file holds.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<bool, Stop> {
        (self.may_go_on)()?;
        let mut is_whole = true;
        let got = match read_fully(self.file, buffer, offset) {
            Ok(got) => got,
            Err(_) => read_pages(self.file, buffer, offset, self.may_go_on, |_| {
                is_whole = false;
            })?,
        };
        buffer[got..].fill(0);
        Ok(is_whole && got == buffer.len())
    }
}

impl ReadAt for Fields<'_> {
    type Error = Stop;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Stop> {
        self.read(buffer, offset).map(drop)
    }
}

/// Reads page by page; tells what cannot be read, and leaves zeros there.
fn read_pages(
    file: &File,
    buffer: &mut [u8],
    offset: u64,
    may_go_on: &dyn Fn() -> Result<(), Stop>,
    mut unreadable: impl FnMut(Range<u64>),
) -> Result<usize, Stop> {
    let mut filled = 0;
    while filled < buffer.len() {
        may_go_on()?;
        let at = offset.saturating_add(filled as u64);
        let len = (PAGE_LEN - at % PAGE_LEN).min((buffer.len() - filled) as u64) as usize;
        let page = &mut buffer[filled..filled + len];
        match read_fully(file, page, at) {
            Ok(got) if got < len => return Ok(filled + got),
            Ok(_) => {}
            Err(_) => {
                page.fill(0);
                unreadable(at..at.saturating_add(len as u64));
            }
        }
        filled += len;
    }
    Ok(filled)
}

/// Adds a range behind others.
fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}
