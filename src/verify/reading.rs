//! Reading a file that may have sectors which cannot be read: what they hold is
//! taken for zeros, and the rest is read all the same.

use std::fs::File;
use std::ops::Range;

use crate::filestorage::backward::ReadAt;
use crate::read::{Piece, read_fully};
use crate::stop::Stop;

/// The length of what is tried by itself where a longer read failed, in bytes.
const PAGE_LEN: u64 = 4096;

/// Is fed the file, each byte once and in order.
///
/// Bytes behind the position that the file had when the reading began may come as
/// they were before they changed.
pub trait Tap {
    /// Takes the next bytes.
    fn feed(&mut self, bytes: &[u8]);

    /// The next bytes cannot be read; the range is where they lie.
    fn unreadable(&mut self, range: Range<u64>);
}

/// Reads single pieces.
pub(super) struct Reading<'a> {
    file: &'a File,
    may_go_on: &'a dyn Fn() -> Result<(), Stop>,
    piece: Piece,
    /// What of the piece cannot be read.
    unreadable: Vec<Range<u64>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a File, may_go_on: &'a dyn Fn() -> Result<(), Stop>) -> Self {
        Self {
            file,
            may_go_on,
            piece: Piece::default(),
            unreadable: Vec::new(),
        }
    }

    /// Reads up to `len` bytes from `offset` on: fewer only where the file ends.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Result<&[u8], Stop> {
        (self.may_go_on)()?;
        self.unreadable.clear();
        let room = self.piece.room(len, offset);
        let got = match read_fully(self.file, room, offset) {
            Ok(got) => got,
            Err(_) => read_pages(self.file, room, offset, self.may_go_on, |range| {
                join(&mut self.unreadable, range);
            })?,
        };
        self.piece.truncate(got);
        Ok(&self.piece)
    }

    /// What was read last.
    pub(super) fn piece(&self) -> &[u8] {
        &self.piece
    }

    /// What of that cannot be read.
    pub(super) fn unreadable(&self) -> &[Range<u64>] {
        &self.unreadable
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
                unreadable(at..at + len as u64);
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
