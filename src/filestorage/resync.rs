//! What lies behind a transaction that a scan could not take: whether there is
//! more, and where a scan can go on.
//!
//! Where a transaction ends is told by its length, twice. Where the two agree, or
//! a transaction starts where the first one says, that is where the next one is.
//! Else the rest of the file is searched for its end (a number that is the distance
//! from its start) or for another transaction. What is in a pickle is not taken for
//! one: a number of 64 bits must agree with its place, and what lies around it must
//! fit.

use std::ops::RangeInclusive;

use super::Tid;
use super::backward::ReadAt;
use super::record::{
    DATA_HEADER_LEN, DataHeader, MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader, TxnStatus,
    be_u64,
};
use super::scan::{Cause, Damage};

/// How much is searched at once, in bytes: at first, as what is searched for may be near,
/// and then ever more.
const WINDOW_LENS: RangeInclusive<usize> = 1024..=256 * 1024;

/// The end of the transaction at `start` where its length says so twice, or where
/// another one follows, with a higher tid than `last_tid`.
pub fn end_of<R: ReadAt>(
    file: &mut R,
    start: u64,
    limit: u64,
    last_tid: Option<Tid>,
) -> Result<Option<u64>, R::Error> {
    if limit.saturating_sub(start) < MIN_TXN_LEN {
        return Ok(None);
    }
    let header = TxnHeader::decode(&read(file, start)?);
    let end = header.end(start).filter(|&end| end <= limit);
    let Some(end) = end.filter(|_| header.tlen >= TXN_HEADER_LEN as u64) else {
        return Ok(None);
    };
    let trailer = be_u64(&read::<{ TRAILER_LEN as usize }, _>(
        file,
        end - TRAILER_LEN,
    )?);
    let is_end = trailer == header.tlen || is_transaction(file, end, limit, last_tid)?;
    Ok(is_end.then_some(end))
}

/// Whether a whole transaction with a higher tid than `last_tid` starts at a
/// position: its lengths agree, and its first data record points to it.
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

/// Searches the bytes from `from` on for the end of the transaction at `start`, or
/// for the start of another one with a higher tid than `last_tid`. `None` if there
/// is neither up to `limit`. Reads as far as it searches.
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
            let is_length =
                be_u64(number) == here - start && here - start >= MIN_TXN_LEN - TRAILER_LEN;
            let end = here + TRAILER_LEN;
            if is_length && may_follow(file, end, limit, last_tid)? {
                return Ok(Some(end));
            }
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

/// Whether a transaction may start there, finished or not, or the file ends.
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
    let is_voted = header.status == TxnStatus::VOTED && header.tlen >= header.header_len();
    Ok(is_voted && Some(header.tid) > last_tid || is_likely(&header, start, limit, last_tid))
}

/// Whether ZODB takes this damage for what a crash left at the end of the file, of
/// `size` bytes, and cuts it: it does so for a header that cannot be, unless the last
/// 8 bytes of the file are the length of a transaction behind it.
pub fn is_cut<R: ReadAt>(file: &mut R, size: u64, damage: &Damage) -> Result<bool, R::Error> {
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

/// Whether a header may be that of a transaction that starts there.
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
