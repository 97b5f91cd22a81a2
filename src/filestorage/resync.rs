//! Resynchronisation: finds the next valid transaction after damage.
//!
//! A transaction contains its length twice, at its start and at its end. There are two ways to
//! find the position where a scan can continue:
//!
//! 1. [`end_of`]: the two lengths agree, or another transaction starts at the end that the
//!    first length gives. The scan continues there.
//! 2. [`search`]: otherwise, the rest of the file is searched for the second length (a number
//!    that equals its distance from the start), or for the start of another transaction.
//!
//! Bytes in a pickle are not mistaken for a transaction: a number of 64 bits must agree with
//! its position, and the bytes around it must fit too.

use std::ops::RangeInclusive;

use super::Tid;
use super::backward::ReadAt;
use super::record::{
    DATA_HEADER_LEN, DataHeader, MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader, TxnStatus,
    be_u64,
};
use super::scan::{Cause, Damage};

/// The number of bytes to read at once in a search. It doubles with each read, because the
/// next transaction is often near.
const WINDOW_LENS: RangeInclusive<usize> = 1024..=256 * 1024;

/// The end of the transaction at `start`, if its two lengths agree, or if another transaction
/// with a tid greater than `last_tid` follows at the end that its first length gives.
pub fn end_of<R: ReadAt>(
    file: &mut R,
    start: u64,
    limit: u64,
    last_tid: Option<Tid>,
) -> Result<Option<u64>, R::Error> {
    if limit.saturating_sub(start) < MIN_TXN_LEN {
        return Ok(None);
    }
    // A damaged header may contain any length, so check it before it is used as an offset.
    let header = TxnHeader::decode(&read(file, start)?);
    let end = header.end(start).filter(|&end| end <= limit);
    let Some(end) = end.filter(|_| header.tlen >= TXN_HEADER_LEN as u64) else {
        return Ok(None);
    };
    let trailer = be_u64(&read::<{ TRAILER_LEN as usize }, _>(
        file,
        end - TRAILER_LEN,
    )?);
    // If the second length is damaged too, a transaction at the computed end still proves it.
    let is_end = trailer == header.tlen || is_transaction(file, end, limit, last_tid)?;
    Ok(is_end.then_some(end))
}

/// Whether a complete transaction with a tid greater than `last_tid` is at `start`: its two
/// lengths agree, and its first data record refers to it.
pub fn is_transaction<R: ReadAt>(
    file: &mut R,
    start: u64,
    limit: u64,
    last_tid: Option<Tid>,
) -> Result<bool, R::Error> {
    if limit.saturating_sub(start) < MIN_TXN_LEN {
        return Ok(false);
    }
    let header = TxnHeader::decode(&read(file, start)?);
    if !is_likely(&header, start, limit, last_tid) {
        return Ok(false);
    }
    let trailer = read::<{ TRAILER_LEN as usize }, _>(file, start + header.tlen)?;
    if be_u64(&trailer) != header.tlen {
        return Ok(false);
    }
    // Two equal numbers may also occur in a pickle. The first data record is better evidence,
    // because it contains the position of its transaction.
    let data_len = header.tlen - header.header_len();
    if data_len == 0 || header.status == TxnStatus::UNDONE {
        return Ok(true);
    }
    if data_len <= DATA_HEADER_LEN as u64 {
        return Ok(false);
    }
    let data = DataHeader::decode(&read(file, start + header.header_len())?);
    Ok(data.tloc == start && data.version_len == 0)
}

/// Searches from `from` to `limit` for the end of the transaction at `start`, or for the start
/// of another transaction with a tid greater than `last_tid`. Returns the position of whichever
/// comes first.
pub fn search<R: ReadAt>(
    file: &mut R,
    start: u64,
    from: u64,
    limit: u64,
    last_tid: Option<Tid>,
) -> Result<Option<u64>, R::Error> {
    let mut window = Vec::new();
    let mut window_len = *WINDOW_LENS.start();
    let mut at = from;
    while at + TRAILER_LEN <= limit {
        // Windows overlap by a header, so that none is missed at the edge between two.
        let len = (limit - at).min((window_len + TXN_HEADER_LEN) as u64) as usize;
        window.resize(len, 0);
        file.read_exact_at(&mut window, at)?;
        let last = at + len as u64 == limit;
        let searched = if last { len } else { window_len };
        for offset in 0..searched {
            let here = at + offset as u64;
            let Some(number) = window.get(offset..offset + TRAILER_LEN as usize) else {
                break;
            };
            // The second length of the damaged transaction: followed by something plausible, as
            // a pickle may contain the same number by chance.
            let is_length =
                be_u64(number) == here - start && here - start >= MIN_TXN_LEN - TRAILER_LEN;
            let end = here + TRAILER_LEN;
            if is_length && may_follow(file, end, limit, last_tid)? {
                return Ok(Some(end));
            }
            // The header of another transaction. Check the bytes in the window first, because
            // the complete check reads the file.
            let raw = window.get(offset..).and_then(<[u8]>::first_chunk);
            if raw.is_some_and(|raw| is_likely(&TxnHeader::decode(raw), here, limit, last_tid))
                && is_transaction(file, here, limit, last_tid)?
            {
                return Ok(Some(here));
            }
        }
        at += searched as u64;
        window_len = (2 * window_len).min(*WINDOW_LENS.end());
    }
    Ok(None)
}

/// Whether a transaction may start at `start`, finished or not, or the file ends there.
fn may_follow<R: ReadAt>(
    file: &mut R,
    start: u64,
    limit: u64,
    last_tid: Option<Tid>,
) -> Result<bool, R::Error> {
    if limit.saturating_sub(start) < MIN_TXN_LEN {
        return Ok(true);
    }
    let header = TxnHeader::decode(&read(file, start)?);
    // A voted transaction may reach past the end of the file, so its length proves nothing.
    let is_voted = header.status == TxnStatus::VOTED && header.tlen >= header.header_len();
    Ok(is_voted && Some(header.tid) > last_tid || is_likely(&header, start, limit, last_tid))
}

/// Whether ZODB truncates a file of `size` bytes at this damage, because it assumes that a
/// crash has left it. ZODB does so for an impossible length in a header, unless the last 8
/// bytes of the file are the length of a transaction that starts after it.
pub fn zodb_truncates<R: ReadAt>(
    file: &mut R,
    size: u64,
    damage: &Damage,
) -> Result<bool, R::Error> {
    if !matches!(damage.cause, Cause::ShorterThanHeader { .. }) {
        return Ok(false);
    }
    let len = be_u64(&read::<{ TRAILER_LEN as usize }, _>(
        file,
        size - TRAILER_LEN,
    )?);
    let start = size.checked_sub(len);
    Ok(start.is_none_or(|start| start < damage.position) || len < TXN_HEADER_LEN as u64)
}

/// Whether this may be the header of a transaction at `start`.
fn is_likely(header: &TxnHeader, start: u64, limit: u64, last_tid: Option<Tid>) -> bool {
    header.tlen >= header.header_len()
        && header.end(start).is_some_and(|end| end <= limit)
        && matches!(
            header.status,
            TxnStatus::COMMITTED | TxnStatus::PACKED | TxnStatus::UNDONE
        )
        && Some(header.tid) > last_tid
}

fn read<const N: usize, R: ReadAt>(file: &mut R, offset: u64) -> Result<[u8; N], R::Error> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
