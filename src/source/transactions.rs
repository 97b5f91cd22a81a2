//! Lists of transactions, as the master's end finds them: what a slave compares
//! with its own where the bytes differ.
//!
//! A list is bounded in bytes scanned, in entries and in time, so that an answer
//! comes soon, however long the file or one transaction is; it says how far the
//! scan came. In a frame, an entry takes [`ENTRY_LEN`] bytes, big-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | tid |
//! | 8 | 8 | length of the whole record, in bytes |
//! | 16 | 1 | status |

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::filestorage::record::{MIN_TXN_LEN, be_u64};
use crate::filestorage::scan::{Event, Scanner, Tail};
use crate::filestorage::{Tid, TxnStatus};
use crate::io::read::AlignedBuf;

/// The length of an entry in a frame, in bytes.
const ENTRY_LEN: usize = Tid::LEN + 8 + 1;

/// The most bytes that a list takes in a frame.
pub const MAX_LIST_LEN: usize = 256 * 1024;

/// The most bytes that are scanned for one list.
const MAX_SCANNED: u64 = 16 * 1024 * 1024;

/// How many bytes are read at once. A transaction has [`MIN_TXN_LEN`] or more of
/// them, so that what they hold fits into a list.
const READ_LEN: u64 = 128 * 1024;

/// For how long a list is made.
const MAX_TIME: Duration = Duration::from_secs(1);

/// The committed transactions from a position on, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// Each of them.
    pub entries: Vec<TransactionEntry>,
    /// How far the scan came.
    pub reached: Reached,
}

/// One of the [`Transactions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEntry {
    /// Its id.
    pub tid: Tid,
    /// The length of its whole record, in bytes.
    pub len: u64,
    /// Its status.
    pub status: TxnStatus,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reached {
    /// The offset up to which it has read: at the end of the last transaction of
    /// the list, or beyond.
    pub offset: u64,
    /// What ended it; `None` if it goes on with the next list.
    pub end: Option<Tail>,
}

impl Transactions {
    /// Scans on, as far as a list goes. `read` fills the buffer from an offset on
    /// and says how many bytes there were.
    pub(crate) fn scan<E>(
        scanner: &mut Scanner,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let (from, started) = (scanner.offset(), Instant::now());
        let mut entries = Vec::new();
        let mut piece = AlignedBuf::default();
        let end = loop {
            let offset = scanner.offset();
            let len = scanner.left().min(READ_LEN) as usize;
            let got = match scanner.stopped() {
                None if len > 0 => read(piece.room(len, offset), offset)?,
                _ => 0,
            };
            if got == 0 {
                break Some(scanner.tail());
            }
            scanner.feed(&piece[..got], &mut |event| {
                if let Event::Transaction(found) = event {
                    entries.push(TransactionEntry {
                        tid: found.header.tid,
                        len: found.end - found.position,
                        status: found.header.status,
                    });
                }
            });
            let is_full = (entries.len() + READ_LEN as usize / MIN_TXN_LEN as usize + 1)
                * ENTRY_LEN
                > MAX_LIST_LEN;
            let is_enough =
                is_full || scanner.offset() - from >= MAX_SCANNED || started.elapsed() >= MAX_TIME;
            if is_enough && scanner.stopped().is_none() && scanner.left() > 0 {
                break None;
            }
        };
        let offset = scanner.offset();
        let reached = Reached { offset, end };
        Ok(Self { entries, reached })
    }

    /// Whether the scan came to the end of the file before the `size` that it was to
    /// have, and not between two transactions: the file is shorter by now.
    pub(crate) fn is_cut(&self, size: u64) -> bool {
        self.reached.end == Some(Tail::Short) && self.reached.offset < size
    }

    /// The entries as they are in a frame: at most [`MAX_LIST_LEN`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        for entry in &self.entries {
            bytes.extend(entry.tid.0.to_be_bytes());
            bytes.extend(entry.len.to_be_bytes());
            bytes.push(entry.status.0);
        }
        bytes
    }

    /// The list of a file of `size` bytes, from `from` on, that came in a frame;
    /// `None` if it can be none.
    #[must_use]
    pub fn decode(bytes: &[u8], reached: Reached, from: u64, size: u64) -> Option<Self> {
        let (entries, []) = bytes.as_chunks::<ENTRY_LEN>() else {
            return None;
        };
        let entries: Vec<_> = entries.iter().map(TransactionEntry::decode).collect();
        let end = entries.iter().try_fold(from, |position, entry| {
            let is_long_enough = entry.len >= MIN_TXN_LEN;
            position.checked_add(entry.len).filter(|_| is_long_enough)
        })?;
        let is_within = end <= reached.offset && reached.offset <= size.max(from);
        is_within.then_some(Self { entries, reached })
    }
}

impl TransactionEntry {
    fn decode(bytes: &[u8; ENTRY_LEN]) -> Self {
        Self {
            tid: Tid(be_u64(&bytes[0..])),
            len: be_u64(&bytes[Tid::LEN..]),
            status: TxnStatus(bytes[ENTRY_LEN - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A file of many transactions that hold nothing.
    fn file(count: u64) -> Vec<u8> {
        let mut bytes = b"FS30".to_vec();
        for tid in 1..=count {
            bytes.extend(tid.to_be_bytes());
            bytes.extend(23u64.to_be_bytes());
            bytes.extend([TxnStatus::COMMITTED.0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(23u64.to_be_bytes());
        }
        bytes
    }

    fn scan(scanner: &mut Scanner, file: &[u8]) -> Transactions {
        let found = Transactions::scan(scanner, |buffer, at| {
            let rest = file.get(at as usize..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok::<_, Infallible>(len)
        });
        let Ok(list) = found;
        list
    }

    #[test]
    fn lists_are_bounded_and_follow_each_other() {
        let file = file(30_000);
        let size = file.len() as u64;
        let mut scanner = Scanner::new(size);
        let mut tids = Vec::new();
        let mut lists = 0;
        loop {
            let list = scan(&mut scanner, &file);
            let bytes = list.encode();
            assert!(bytes.len() <= MAX_LIST_LEN, "{}", bytes.len());
            let from = 4 + 31 * tids.len() as u64;
            let read = Transactions::decode(&bytes, list.reached, from, size);
            assert_eq!(read.as_ref(), Some(&list));
            tids.extend(list.entries.iter().map(|entry| entry.tid.0));
            lists += 1;
            if list.reached.end.is_some() {
                assert_eq!(list.reached.end, Some(Tail::Clean));
                break;
            }
        }
        assert!(tids.iter().copied().eq(1..=30_000));
        assert!((3..10).contains(&lists), "{lists}");
    }

    #[test]
    fn a_long_transaction_takes_more_than_one_list() {
        let len = 3 * MAX_SCANNED;
        let mut header = Vec::new();
        header.extend(b"FS30");
        header.extend(1u64.to_be_bytes());
        header.extend((len - 12).to_be_bytes());
        header.extend([TxnStatus::UNDONE.0, 0, 0, 0, 0, 0, 0]);
        let mut scanner = Scanner::new(len);
        let mut offsets = Vec::new();
        let end = loop {
            let Ok(list) = Transactions::scan(&mut scanner, |buffer, at| {
                buffer.fill(0);
                if at == 4 {
                    buffer[..23].copy_from_slice(&header[4..]);
                }
                Ok::<_, Infallible>(buffer.len())
            });
            assert_eq!(list.entries, []);
            offsets.push(list.reached.offset);
            if list.reached.end.is_some() {
                break list.reached.end;
            }
        };
        assert!(offsets.len() >= 3 && offsets.is_sorted(), "{offsets:?}");
        assert!(matches!(end, Some(Tail::Damaged(_))), "{end:?}");
    }

    #[test]
    fn a_file_that_became_shorter_is_told_from_one_that_ends() {
        let file = file(3);
        let size = file.len() as u64 + 31;
        for (len, is_cut) in [
            (file.len(), false),
            (file.len() - 1, true),
            (4 + 31 + 5, true),
        ] {
            let list = scan(&mut Scanner::new(size), &file[..len]);
            assert_eq!(list.is_cut(size), is_cut, "{len}");
        }
        let list = scan(&mut Scanner::new(size - 33), &file);
        assert_eq!(list.reached.end, Some(Tail::Torn));
    }

    #[test]
    fn what_can_be_no_list_is_none() {
        let file = file(3);
        let size = file.len() as u64;
        let list = scan(&mut Scanner::new(size), &file);
        let bytes = list.encode();
        let reached = |offset| Reached { offset, end: None };
        let decode = |bytes: &[u8], offset| Transactions::decode(bytes, reached(offset), 4, size);
        assert!(decode(&bytes, size).is_some());
        assert!(decode(&[], 4).is_some());
        assert!(decode(&bytes[1..], size).is_none(), "not a whole entry");
        assert!(decode(&bytes, size - 1).is_none(), "not read to its end");
        assert!(decode(&bytes, size + 1).is_none(), "read beyond the file");
        for len in [0, MIN_TXN_LEN - 1, u64::MAX, 1 << 63] {
            let mut bytes = bytes.clone();
            bytes[ENTRY_LEN + 8..ENTRY_LEN + 16].copy_from_slice(&len.to_be_bytes());
            assert!(decode(&bytes, size).is_none(), "{len}");
        }
    }
}
