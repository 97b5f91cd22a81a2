//! Predicts whether ZODB accepts an index for a file: does the same as
//! `FileStorage._check_sanity`, which ZODB runs when it opens a file with an index.
//!
//! ZODB goes back from the position of the index to the last transaction that has data records
//! (and does not have the status `u`), and looks up its first five data records in the index.
//! If one of them differs, ZODB ignores the index and scans the whole file. If all transactions
//! before the position are empty, ZODB 6.4 goes back beyond the start of the file and **fails
//! to open it** with an `OSError`. There must be no index beside such a file, although ZODB
//! itself writes one.

use super::Index;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{
    DATA_HEADER_LEN, DataHeader, MAGIC_LEN, MIN_TXN_LEN, TRAILER_LEN, TxnHeader, TxnStatus, be_u64,
};

/// The least position of an index that ZODB accepts.
pub const MIN_POSITION: u64 = 100;

/// The maximum number of data records that ZODB looks up.
const MAX_CHECKED: usize = 5;

/// A data record that ZODB looks up in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedRecord {
    /// Object id.
    pub oid: u64,
    /// Position of the record.
    pub position: u64,
}

/// The data records that ZODB looks up in an index of `position`. There are none if ZODB accepts no index of this position, because it is too small, is not
/// the end of a transaction, or is not preceded by any data record.
///
/// `size` is the size of the file in bytes. Reads a few bytes near the position.
pub fn checked_records<R: ReadAt>(
    mut file: R,
    size: u64,
    position: u64,
) -> Result<Vec<CheckedRecord>, R::Error> {
    let mut end = position;
    if position < MIN_POSITION || position > size {
        return Ok(Vec::new());
    }
    while end >= MAGIC_LEN + MIN_TXN_LEN {
        let tlen = be_u64(&read::<{ TRAILER_LEN as usize }, _>(
            &mut file,
            end - TRAILER_LEN,
        )?);
        let start = (end - TRAILER_LEN).checked_sub(tlen);
        let Some(start) = start.filter(|&it| it >= MAGIC_LEN && end - it >= MIN_TXN_LEN) else {
            break;
        };
        // Follow the same statuses as ZODB: skip empty and undone transactions, and stop at the
        // first one that has data records.
        let header = TxnHeader::decode(&read(&mut file, start)?);
        let is_coherent = header.tlen == tlen && tlen >= header.header_len();
        match header.status {
            TxnStatus::UNDONE if header.tlen == tlen => end = start,
            TxnStatus::COMMITTED | TxnStatus::PACKED if is_coherent => {
                if tlen > header.header_len() {
                    return first_records(&mut file, start, &header);
                }
                end = start;
            }
            _ => break,
        }
    }
    Ok(Vec::new())
}

/// Whether there are any such data records, and the index contains all of them.
#[must_use]
pub fn is_accepted(index: &Index, records: &[CheckedRecord]) -> bool {
    !records.is_empty()
        && records
            .iter()
            .all(|record| index.get(record.oid) == Some(record.position))
}

/// The first data records of a transaction, or none if one of them is damaged.
fn first_records<R: ReadAt>(
    file: &mut R,
    start: u64,
    header: &TxnHeader,
) -> Result<Vec<CheckedRecord>, R::Error> {
    let end = start + header.tlen;
    let mut at = start + header.header_len();
    let mut found = Vec::new();
    while at < end && found.len() < MAX_CHECKED {
        if end - at <= DATA_HEADER_LEN as u64 {
            return Ok(Vec::new());
        }
        let data = DataHeader::decode(&read(file, at)?);
        let left = end - at - DATA_HEADER_LEN as u64;
        if data.body_len() > left || data.tloc != start || data.version_len != 0 {
            return Ok(Vec::new());
        }
        found.push(CheckedRecord {
            oid: data.oid,
            position: at,
        });
        at += DATA_HEADER_LEN as u64 + data.body_len();
    }
    Ok(found)
}

fn read<const N: usize, R: ReadAt>(file: &mut R, offset: u64) -> Result<[u8; N], R::Error> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
