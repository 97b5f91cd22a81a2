//! Walking backwards, from a known boundary, by the redundant lengths.
//!
//! Cheap where only the last transactions matter. What precedes a boundary
//! that was proven by a scan, or that a live ZODB keeps, is trusted as far as
//! each record's two lengths agree.

use super::record::{MAGIC_LEN, MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader, be_u64};
use super::scan::Transaction;

/// Bytes at an offset.
pub trait ReadAt {
    /// What reading can fail with.
    type Error;

    /// Fills `buffer` from `offset` on; too few bytes are an error.
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Self::Error>;
}

/// How many bytes are read at once, so that small transactions cost no read
/// each.
const WINDOW_LEN: u64 = 64 * 1024;

/// The transactions before a boundary, the last one first.
#[derive(Debug)]
pub struct Backward<R> {
    reader: R,
    /// The boundary that the next transaction ends at.
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

/// The transaction before a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preceding {
    /// This one.
    Transaction(Transaction),
    /// None: the boundary is the start of the file.
    Start,
    /// The bytes before the boundary are no end of a transaction.
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

    /// Goes one transaction back. At the start and at an incoherence it stays
    /// where it is.
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

    /// The user name and the description of a transaction found here, the start
    /// of them, as far as they are UTF-8.
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

    /// `N` bytes at `offset`, out of a window that ends there or beyond.
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

/// The start of a string that may have 64 kB.
fn clip(bytes: &[u8]) -> String {
    const CHARS: usize = 100;
    String::from_utf8_lossy(bytes).chars().take(CHARS).collect()
}
