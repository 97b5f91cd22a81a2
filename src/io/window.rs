//! Reads small fields of a file in order, with few calls.

use std::fs::File;
use std::io::{self, ErrorKind};

use super::read::read_fully;
use crate::filestorage::backward::ReadAt;

/// A buffered part of a file.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    file: &'a File,
    /// Bytes per read, if not more are requested.
    len: usize,
    start: u64,
    read: Vec<u8>,
}

impl<'a> Window<'a> {
    /// A window of `len` bytes, which is empty at first.
    pub(crate) fn new(file: &'a File, len: usize) -> Self {
        Self {
            file,
            len,
            start: 0,
            read: Vec::new(),
        }
    }

    /// Returns the `len` bytes at `offset`. A read fills the rest of the window, too.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = self.start + self.read.len() as u64;
        if offset < self.start || offset.saturating_add(len as u64) > end {
            self.read.resize(self.len.max(len), 0);
            self.start = offset;
            let read = read_fully(self.file, &mut self.read, offset);
            self.read.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let from = (offset - self.start) as usize;
        let bytes = self.read.get(from..from + len);
        bytes.ok_or(ErrorKind::UnexpectedEof.into())
    }

    /// Returns the `N` bytes at `offset`.
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        let bytes = self.bytes(offset, N)?.first_chunk();
        bytes.copied().ok_or(ErrorKind::UnexpectedEof.into())
    }
}

impl ReadAt for Window<'_> {
    type Error = io::Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.copy_from_slice(self.bytes(offset, buffer.len())?);
        Ok(())
    }
}
