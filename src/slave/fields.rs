//! Reads fields of a file on a disk that may have unreadable sectors.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;
use crate::filestorage::backward::ReadAt;
use crate::io::read::read_fully;

/// Length of the reads that are tried after a longer read failed, in bytes.
const PAGE_LEN: u64 = 4096;

/// How to treat bytes that cannot be read.
#[derive(Clone, Copy)]
pub(crate) enum Unreadable<'a> {
    /// They count as zeros.
    Zeros,
    /// They are an error that names this file.
    Error(&'a Path),
}

/// Reads fields at given offsets. Bytes after the end of the file are zeros.
#[derive(Clone, Copy)]
pub(crate) struct FieldReader<'a> {
    file: &'a File,
    check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    unreadable: Unreadable<'a>,
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(
        file: &'a File,
        unreadable: Unreadable<'a>,
        check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    ) -> Self {
        Self {
            file,
            check_cancelled,
            unreadable,
        }
    }

    /// Fills the buffer. Returns whether every byte was read from the file.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<bool, Error> {
        (self.check_cancelled)()?;
        let mut is_whole = true;
        let got = match read_fully(self.file, buffer, offset) {
            Ok(got) => got,
            Err(error) => {
                let hole = |_| is_whole = false;
                let got = read_pages(self.file, buffer, offset, self.check_cancelled, hole)?;
                if !is_whole && let Unreadable::Error(path) = self.unreadable {
                    return Err(Error::io(format!("read at {offset} in"), path)(error));
                }
                got
            }
        };
        buffer[got..].fill(0);
        Ok(is_whole && got == buffer.len())
    }
}

impl ReadAt for FieldReader<'_> {
    type Error = Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.read(buffer, offset).map(drop)
    }
}

/// Reads page by page. Passes the range of each unreadable page to `unreadable`, and fills it
/// with zeros. Returns the number of bytes up to the end of the file.
pub(crate) fn read_pages(
    file: &File,
    buffer: &mut [u8],
    offset: u64,
    check_cancelled: &dyn Fn() -> Result<(), Error>,
    mut unreadable: impl FnMut(Range<u64>),
) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        check_cancelled()?;
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
