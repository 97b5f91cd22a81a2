//! Whether ZODB takes an index for a file's: what `FileStorage._check_sanity`
//! looks at when it opens one.
//!
//! ZODB goes back from the index's position to the last transaction that has
//! data records (and was not undone long ago), and looks up the first five of
//! them, no more. An index that fails is passed over, and the whole file is
//! scanned. Where all transactions before the position are empty, ZODB 6.4 goes
//! back beyond the start of the file, and **does not open it** (an `OSError`): so
//! no index may lie beside such a file, though ZODB itself puts one there.

use super::Index;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{
    DATA_HEADER_LEN, DataHeader, MAGIC_LEN, MIN_TXN_LEN, TRAILER_LEN, TxnHeader, TxnStatus, be_u64,
};

/// The least position of which ZODB takes an index.
pub const MIN_POSITION: u64 = 100;

/// How many data records are looked up at most.
const MAX_CHECKED: usize = 5;

/// The data records that ZODB looks up in an index of `position`: oids and
/// positions. There are none if it takes no index of that position, as it is
/// too small or no boundary, or no data record precedes it.
///
/// `size` is that of the file. Reads a few bytes near the position.
pub fn witnesses<R: ReadAt>(
    mut file: R,
    size: u64,
    position: u64,
) -> Result<Vec<(u64, u64)>, R::Error> {
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
        let header = TxnHeader::decode(&read(&mut file, start)?);
        let is_coherent = header.tlen == tlen && tlen >= header.header_len();
        match header.status {
            TxnStatus::UNDONE if header.tlen == tlen => end = start,
            TxnStatus::COMMITTED | TxnStatus::PACKED if is_coherent => {
                if tlen > header.header_len() {
                    return records(&mut file, start, &header);
                }
                end = start;
            }
            _ => break,
        }
    }
    Ok(Vec::new())
}

/// Whether an index has these data records, and there are any.
#[must_use]
pub fn is_sane(index: &Index, witnesses: &[(u64, u64)]) -> bool {
    !witnesses.is_empty()
        && witnesses
            .iter()
            .all(|&(oid, position)| index.get(oid) == Some(position))
}

/// The first data records of a transaction; none if one of them is damaged.
fn records<R: ReadAt>(
    file: &mut R,
    start: u64,
    header: &TxnHeader,
) -> Result<Vec<(u64, u64)>, R::Error> {
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
        found.push((data.oid, at));
        at += DATA_HEADER_LEN as u64 + data.body_len();
    }
    Ok(found)
}

fn read<const N: usize, R: ReadAt>(file: &mut R, offset: u64) -> Result<[u8; N], R::Error> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
