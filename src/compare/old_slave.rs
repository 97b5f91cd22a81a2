//! Reads the transactions of a slave that is about to be replaced.
//!
//! The survey has scanned them and found them valid. If bytes are invalid now, that is an error.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::filestorage::MAGIC_LEN;
use crate::filestorage::record::{
    BACK_POINTER_LEN, DATA_HEADER_LEN, DataHeader, MIN_TXN_LEN, TRAILER_LEN, TxnHeader, be_u64,
};
use crate::filestorage::scan::Transaction;
use crate::io::read::read_fully;
use crate::io::window::Window;

/// Bytes per read: large enough that not every small record needs its own read.
const HEADERS_LEN: usize = 16 * 1024;
const DATA_LEN: usize = 128 * 1024;

/// Reads an old slave forwards, up to its position.
#[derive(Debug)]
pub(super) struct OldSlaveReader<'a> {
    file: &'a File,
    /// Position of the slave, in bytes.
    end: u64,
    /// Offset of the next transaction, in bytes.
    at: u64,
    /// Headers have a window of their own, because they are read ahead of the data.
    headers: Window<'a>,
    data: Window<'a>,
}

/// A data record of an old slave.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldRecord {
    pub(super) oid: u64,
    pub(super) data: OldData,
    /// End of the record, in bytes.
    pub(super) end: u64,
}

/// The location of the data of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum OldData {
    /// The record contains a pickle, at `start` and of `len` bytes.
    Here { start: u64, len: u64 },
    /// The record points back to an older one, at this offset.
    Back(u64),
    /// There is no data, because the creation of the object was undone.
    Undone,
}

impl<'a> OldSlaveReader<'a> {
    /// Starts at the first transaction of `file`, whose committed transactions end at
    /// `position`.
    pub(super) fn new(file: &'a File, position: u64) -> Self {
        Self {
            file,
            end: position,
            at: MAGIC_LEN,
            headers: Window::new(file, HEADERS_LEN),
            data: Window::new(file, DATA_LEN),
        }
    }

    /// Reads the next transaction; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Transaction>> {
        let position = self.at;
        if position >= self.end {
            return Ok(None);
        }
        let header = TxnHeader::decode(&self.headers.array(position)?);
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

    /// Reads the data record at offset `at` of a transaction; `None` at its end.
    pub(super) fn record(
        &mut self,
        transaction: &Transaction,
        at: u64,
    ) -> io::Result<Option<OldRecord>> {
        let end = transaction.end - TRAILER_LEN;
        if at >= end {
            return Ok(None);
        }
        let header = DataHeader::decode(&self.data.array(at)?);
        let start = at + DATA_HEADER_LEN as u64;
        let next = start.checked_add(header.body_len());
        let next = next.filter(|&it| it <= end).ok_or(ErrorKind::InvalidData)?;
        let data = if header.plen > 0 {
            let len = header.plen;
            OldData::Here { start, len }
        } else {
            match be_u64(&self.data.array::<{ BACK_POINTER_LEN as usize }>(start)?) {
                0 => OldData::Undone,
                back => OldData::Back(back),
            }
        };
        Ok(Some(OldRecord {
            oid: header.oid,
            data,
            end: next,
        }))
    }

    /// Follows back pointers, and returns the range of the pickle. Returns `None` if the creation
    /// of the object was undone.
    pub(super) fn resolve(&self, data: OldData) -> io::Result<Option<Range<u64>>> {
        let mut data = data;
        let mut before = self.end;
        loop {
            let at = match data {
                OldData::Here { start, len } => return Ok(Some(start..start + len)),
                OldData::Undone => return Ok(None),
                OldData::Back(at) => at,
            };
            // A pointer must lead to an older record. This also prevents endless loops.
            if !(MAGIC_LEN..before).contains(&at) {
                return Err(ErrorKind::InvalidData.into());
            }
            before = at;
            let mut bytes = [0; DATA_HEADER_LEN + BACK_POINTER_LEN as usize];
            let got = read_fully(self.file, &mut bytes, at)?;
            let header = bytes.first_chunk().filter(|_| got == bytes.len());
            let header = DataHeader::decode(header.ok_or(ErrorKind::UnexpectedEof)?);
            data = match header.plen {
                0 => match be_u64(&bytes[DATA_HEADER_LEN..]) {
                    0 => OldData::Undone,
                    back => OldData::Back(back),
                },
                len => OldData::Here {
                    start: at + DATA_HEADER_LEN as u64,
                    len,
                },
            };
        }
    }

    /// Whether the slave has these bytes at `offset`.
    pub(super) fn has(&mut self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        Ok(self.data.bytes(offset, bytes.len())? == bytes)
    }
}
