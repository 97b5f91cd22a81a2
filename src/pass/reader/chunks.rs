//! Reads the master chunk by chunk, one chunk ahead of its user.

use std::mem;

use crate::error::Error;
use crate::io::read::AlignedBuf;
use crate::source::{Master, Pending};

/// Reads chunks of the master.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    master: &'a Master,
    /// The master's size in bytes: nothing beyond is read.
    pub(super) size: u64,
    /// The length of a chunk, in bytes.
    chunk_len: usize,
    /// The chunk that was requested ahead.
    pending: Option<Pending<AlignedBuf>>,
    /// The first chunk, if somebody else has read it already.
    first: Option<AlignedBuf>,
    current: AlignedBuf,
    /// The buffer of the chunk before, which the next request fills.
    spare: AlignedBuf,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(master: &'a Master, size: u64, chunk_len: usize) -> Self {
        Self {
            master,
            size,
            chunk_len,
            pending: None,
            first: None,
            current: AlignedBuf::default(),
            spare: AlignedBuf::default(),
        }
    }

    /// Uses these bytes as the first chunk; see
    /// [`TransactionReader::begin_with`](super::TransactionReader::begin_with).
    pub(super) fn begin_with(&mut self, first: Option<AlignedBuf>) {
        self.first = first;
        if let Some(first) = &mut self.first {
            first.truncate(self.chunk_len);
        }
    }

    /// Makes the bytes from `offset` on the current chunk. Returns whether there are any. A
    /// chunk that was requested ahead must have been requested for this offset.
    pub(super) fn receive(&mut self, offset: u64) -> Result<bool, Error> {
        if let Some(first) = self.first.take() {
            self.current = first;
            return Ok(!self.current.is_empty());
        }
        if self.pending.is_none() {
            self.request(offset);
        }
        let Some(pending) = self.pending.take() else {
            return Ok(false);
        };
        self.spare = mem::replace(&mut self.current, pending.wait()?);
        Ok(!self.current.is_empty())
    }

    /// Requests the bytes from `offset` on, if there are any.
    pub(super) fn request(&mut self, offset: u64) {
        let left = self.size.saturating_sub(offset);
        let len = left.min(self.chunk_len as u64) as usize;
        if len > 0 {
            let spare = mem::take(&mut self.spare);
            self.pending = Some(self.master.read_into(spare, len, offset));
        }
    }

    /// The current chunk.
    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    /// The current chunk, cut to `len` bytes.
    pub(super) fn cut(&mut self, len: usize) -> &[u8] {
        self.current.truncate(len);
        &self.current
    }
}
