//! Copies a run of transactions into a FileStorage of its own.
//!
//! After a failover, the old master has transactions that the new one lacks. They are set aside in
//! a file that ZODB opens without the transactions before them. It has the magic of the source,
//! and its transactions in the same order. Their fields are:
//!
//! | field | in the new file |
//! | --- | --- |
//! | tid, status, user, description, extension, oid, pickle | unchanged |
//! | tloc | the position of the transaction in the new file |
//! | prev | the position of the object's previous data record in the new file, or 0 |
//! | plen, back pointer | a back pointer becomes the pickle that it leads to; 0 remains 0 |
//! | tlen | the new length |
//!
//! ZODB does not read the data records of a transaction with status `u`. They are not changed.
//!
//! The memory depends on the number of objects (17 bytes each), not on the sizes of transactions.

use std::io::{self, Write};
use std::ops::Range;

use super::backward::ReadAt;
use super::index::Index;
use super::record::{
    BACK_POINTER_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, MIN_TXN_LEN, TRAILER_LEN,
    TXN_HEADER_LEN, TxnHeader, TxnStatus, be_u64,
};

/// How many bytes of a pickle are copied at once.
const PIECE_LEN: u64 = 64 * 1024;

/// Where the length is in a transaction header, in bytes.
const TLEN: Range<usize> = 8..16;

/// Why transactions could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The source could not be read.
    #[error("reading failed: {0}")]
    Read(#[source] io::Error),
    /// The record at this position of the source is invalid, or points to an invalid one.
    #[error("the record at {0} is invalid")]
    Invalid(u64),
    /// The copy could not be written.
    #[error("writing failed: {0}")]
    Write(#[source] io::Error),
}

/// Copies the transactions of `range`, which starts and ends at a boundary of `source`, and the
/// magic. Returns the length of the copy in bytes.
pub fn extract(
    source: &mut impl ReadAt<Error = io::Error>,
    range: Range<u64>,
    to: &mut impl Write,
) -> Result<u64, ExtractError> {
    let mut extraction = Extraction {
        end: range.end,
        at: 0,
        index: Index::default(),
        source,
        to,
    };
    let magic = extraction.read::<{ MAGIC_LEN as usize }>(0)?;
    extraction.write(&magic)?;
    let mut position = range.start;
    while position < range.end {
        position = extraction.transaction(position)?;
    }
    Ok(extraction.at)
}

struct Extraction<'a, R, W> {
    source: &'a mut R,
    /// The end of the last transaction in the source, in bytes.
    end: u64,
    to: &'a mut W,
    /// The length of the copy so far, in bytes.
    at: u64,
    /// The last data record of each object in the copy.
    index: Index,
}

/// A data record of the source.
struct SourceRecord {
    header: DataHeader,
    pickle: Option<Range<u64>>,
    /// End of the record, in bytes.
    end: u64,
}

impl SourceRecord {
    /// Its length in the copy, in bytes.
    fn new_len(&self) -> u64 {
        let pickle = self.pickle.as_ref();
        let body = pickle.map_or(BACK_POINTER_LEN, |it| it.end - it.start);
        DATA_HEADER_LEN as u64 + body
    }
}

impl<R: ReadAt<Error = io::Error>, W: Write> Extraction<'_, R, W> {
    /// Copies the transaction at `position`. Returns its end in the source.
    fn transaction(&mut self, position: u64) -> Result<u64, ExtractError> {
        let invalid = || ExtractError::Invalid(position);
        if self.end - position < MIN_TXN_LEN {
            return Err(invalid());
        }
        let mut raw = self.read::<TXN_HEADER_LEN>(position)?;
        let header = TxnHeader::decode(&raw);
        let end = header.end(position).filter(|&end| end <= self.end);
        let end = end.filter(|_| header.header_len() <= header.tlen);
        let end = end.ok_or_else(invalid)?;
        let records = position + header.header_len()..end - TRAILER_LEN;
        let has_records = header.status != TxnStatus::UNDONE;
        // The header comes first and contains the length, so the records are read twice.
        let mut tlen = header.tlen;
        if has_records {
            tlen = header.header_len();
            let mut at = records.start;
            while at < records.end {
                let record = self.record(at, records.end)?;
                tlen = tlen.checked_add(record.new_len()).ok_or_else(invalid)?;
                at = record.end;
            }
        }
        let tloc = self.at;
        raw[TLEN].copy_from_slice(&tlen.to_be_bytes());
        self.write(&raw)?;
        self.copy(position + TXN_HEADER_LEN as u64..records.start)?;
        if has_records {
            let mut at = records.start;
            while at < records.end {
                let record = self.record(at, records.end)?;
                self.write_record(&record, tloc)?;
                at = record.end;
            }
        } else {
            self.copy(records)?;
        }
        self.write(&tlen.to_be_bytes())?;
        Ok(end)
    }

    /// Reads the data record at `at`, of a transaction whose records end at `records_end`.
    fn record(&mut self, at: u64, records_end: u64) -> Result<SourceRecord, ExtractError> {
        let invalid = || ExtractError::Invalid(at);
        let start = at + DATA_HEADER_LEN as u64;
        if start > records_end {
            return Err(invalid());
        }
        let header = DataHeader::decode(&self.read(at)?);
        let end = start.checked_add(header.body_len());
        let end = end.filter(|&end| end <= records_end).ok_or_else(invalid)?;
        let pickle = self.resolve(at, header, records_end)?;
        Ok(SourceRecord {
            header,
            pickle,
            end,
        })
    }

    /// Finds the pickle of the record at `at`, by its back pointers. Returns `None` if the creation
    /// of the object was undone. No pickle ends beyond `limit`.
    fn resolve(
        &mut self,
        at: u64,
        header: DataHeader,
        limit: u64,
    ) -> Result<Option<Range<u64>>, ExtractError> {
        let (mut record, mut plen) = (at, header.plen);
        loop {
            let start = record + DATA_HEADER_LEN as u64;
            if plen > 0 {
                let end = start.checked_add(plen).filter(|&end| end <= limit);
                return Ok(Some(start..end.ok_or(ExtractError::Invalid(at))?));
            }
            let back = be_u64(&self.read::<{ BACK_POINTER_LEN as usize }>(start)?);
            if back == 0 {
                return Ok(None);
            }
            // A pointer must lead to an older record, so this loop ends.
            if !(MAGIC_LEN..record).contains(&back) {
                return Err(ExtractError::Invalid(at));
            }
            record = back;
            plen = DataHeader::decode(&self.read(record)?).plen;
        }
    }

    fn write_record(&mut self, record: &SourceRecord, tloc: u64) -> Result<(), ExtractError> {
        let SourceRecord { header, pickle, .. } = record;
        let prev = self.index.insert(header.oid, self.at).unwrap_or(0);
        let plen = pickle.as_ref().map_or(0, |it| it.end - it.start);
        for number in [header.oid, header.tid.0, prev, tloc] {
            self.write(&number.to_be_bytes())?;
        }
        self.write(&header.version_len.to_be_bytes())?;
        self.write(&plen.to_be_bytes())?;
        match pickle {
            Some(pickle) => self.copy(pickle.clone()),
            None => self.write(&0u64.to_be_bytes()),
        }
    }

    /// Copies bytes of the source.
    fn copy(&mut self, range: Range<u64>) -> Result<(), ExtractError> {
        let mut piece = vec![0; PIECE_LEN.min(range.end - range.start) as usize];
        let mut at = range.start;
        while at < range.end {
            let piece = &mut piece[..(range.end - at).min(PIECE_LEN) as usize];
            let read = self.source.read_exact_at(piece, at);
            read.map_err(ExtractError::Read)?;
            self.write(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn read<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], ExtractError> {
        let mut bytes = [0; N];
        let read = self.source.read_exact_at(&mut bytes, offset);
        read.map_err(ExtractError::Read)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExtractError> {
        self.to.write_all(bytes).map_err(ExtractError::Write)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
