//! The transactions of a slave that is about to be replaced, read by their headers.
//!
//! A scan has found them coherent before. Bytes that make no sense now are an error, never a
//! guess.

use std::fs::File;
use std::io::{self, ErrorKind};

use crate::filestorage::MAGIC_LEN;
use crate::filestorage::record::{
    DATA_HEADER_LEN, DataHeader, MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use crate::filestorage::scan::Transaction;
use crate::read::read_fully;

/// How many bytes are read at once, so that small records cost no read each.
const WINDOW_LEN: usize = 16 * 1024;

/// Walks forwards through an old slave, up to its position.
#[derive(Debug)]
pub(super) struct OldSlave<'a> {
    file: &'a File,
    /// The slave's position, in bytes.
    end: u64,
    /// Where the next transaction starts.
    at: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> OldSlave<'a> {
    /// Starts at the first transaction of `file`, whose committed transactions end at
    /// `position`.
    pub(super) fn new(file: &'a File, position: u64) -> Self {
        Self {
            file,
            end: position,
            at: MAGIC_LEN,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// The next transaction; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Transaction>> {
        let position = self.at;
        if position >= self.end {
            return Ok(None);
        }
        let header = TxnHeader::decode(&self.read::<TXN_HEADER_LEN>(position)?);
        let end = header.end(position).filter(|&end| {
            let is_long_enough = end >= position + MIN_TXN_LEN;
            is_long_enough && header.header_len() <= header.tlen && end <= self.end
        });
        let end = end.ok_or(ErrorKind::InvalidData)?;
        self.at = end;
        Ok(Some(Transaction {
            position,
            end,
            header,
        }))
    }

    /// Calls `visit` with the oid of each data record of a transaction, in file order.
    pub(super) fn for_each_oid(
        &mut self,
        transaction: &Transaction,
        visit: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let end = transaction.end - TRAILER_LEN;
        let mut at = transaction.position + transaction.header.header_len();
        while at < end {
            let header = DataHeader::decode(&self.read::<DATA_HEADER_LEN>(at)?);
            let next = (at + DATA_HEADER_LEN as u64).checked_add(header.body_len());
            at = next.filter(|&it| it <= end).ok_or(ErrorKind::InvalidData)?;
            visit(header.oid);
        }
        Ok(())
    }

    /// `N` bytes at `offset`, out of a window that starts there or before.
    fn read<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        let is_in_window = offset >= self.window_start
            && offset + N as u64 <= self.window_start + self.window.len() as u64;
        if !is_in_window {
            self.window.resize(WINDOW_LEN, 0);
            self.window_start = offset;
            let read = read_fully(self.file, &mut self.window, offset);
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let from = (offset - self.window_start) as usize;
        let bytes = self
            .window
            .get(from..from + N)
            .and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or(ErrorKind::UnexpectedEof.into())
    }
}
