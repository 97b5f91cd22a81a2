//! Walks backwards from a known boundary, by the length at the end of each transaction.
//!
//! This is cheap if only the last transactions are needed. It checks only that the two lengths
//! of a transaction agree. That is enough before a boundary that a scan has checked, or at
//! which a running ZODB appends.

use super::record::{MAGIC_LEN, MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader, be_u64};
use super::scan::Transaction;

/// Positional reads.
pub trait ReadAt {
    /// Error of a read.
    type Error;

    /// Fills `buffer` with the bytes from `offset` on. Fails if there are fewer.
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Self::Error>;
}

/// The number of bytes to read at once, so that several small transactions need only one read.
const WINDOW_LEN: u64 = 64 * 1024;

/// The transactions before a boundary, the last one first.
#[derive(Debug)]
pub struct Backward<R> {
    reader: R,
    /// The boundary at which the next transaction ends.
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

/// The transaction before a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preceding {
    /// There is a transaction.
    Transaction(Transaction),
    /// There is none, because the boundary is the start of the file.
    Start,
    /// The bytes before the boundary are not the end of a transaction.
    Incoherent,
}

impl<R: ReadAt> Backward<R> {
    /// Starts at `position`.
    pub fn new(reader: R, position: u64) -> Self {
        Self {
            reader,
            position,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// Goes back by one transaction. Does not move at the start of the file, or if the bytes
    /// are incoherent.
    pub fn step(&mut self) -> Result<Preceding, R::Error> {
        let end = self.position;
        if end == MAGIC_LEN {
            return Ok(Preceding::Start);
        }
        if end < MAGIC_LEN + MIN_TXN_LEN {
            return Ok(Preceding::Incoherent);
        }
        let tlen = be_u64(&self.read::<{ TRAILER_LEN as usize }>(end - TRAILER_LEN)?);
        let start = (end - TRAILER_LEN).checked_sub(tlen);
        let Some(position) =
            start.filter(|&start| start >= MAGIC_LEN && end - start >= MIN_TXN_LEN)
        else {
            return Ok(Preceding::Incoherent);
        };
        let header = TxnHeader::decode(&self.read::<TXN_HEADER_LEN>(position)?);
        if header.tlen != tlen || header.header_len() > tlen {
            return Ok(Preceding::Incoherent);
        }
        self.position = position;
        Ok(Preceding::Transaction(Transaction {
            position,
            end,
            header,
        }))
    }

    /// The start of the user name and of the description of a transaction. Bytes that are not
    /// UTF-8 are replaced.
    pub fn user_and_description(
        &mut self,
        transaction: &Transaction,
    ) -> Result<(String, String), R::Error> {
        let header = &transaction.header;
        let user_len = usize::from(header.user_len);
        let mut strings = vec![0; user_len + usize::from(header.description_len)];
        self.reader
            .read_exact_at(&mut strings, transaction.position + TXN_HEADER_LEN as u64)?;
        let (user, description) = strings.split_at(user_len);
        Ok((clip(user), clip(description)))
    }

    /// Reads `N` bytes at `offset`. If they are not in the window, moves the window so that it
    /// ends with them, because the next reads are before them.
    fn read<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], R::Error> {
        let end = offset + N as u64;
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || end > window_end {
            let start = end.saturating_sub(WINDOW_LEN);
            self.window.resize((end - start) as usize, 0);
            self.window_start = start;
            if let Err(error) = self.reader.read_exact_at(&mut self.window, start) {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (offset - self.window_start) as usize;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.window[from..from + N]);
        Ok(bytes)
    }
}

/// The start of a string, which may have 64 kB.
fn clip(bytes: &[u8]) -> String {
    const CHARS: usize = 100;
    String::from_utf8_lossy(bytes).chars().take(CHARS).collect()
}
