//! Lists of the master's transactions. A slave compares them with its own transactions if the
//! bytes of the two files differ.
//!
//! The number of scanned bytes, the number of entries and the time are limited, so that an
//! answer arrives soon, even if the file or a single transaction is very long. The list
//! contains the position that the scan reached. An entry in a frame has [`ENTRY_LEN`] bytes,
//! big-endian:
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

/// The length of an entry, in bytes.
const ENTRY_LEN: usize = Tid::LEN + 8 + 1;

/// The maximum length of a list, in bytes.
pub const MAX_LIST_LEN: usize = 256 * 1024;

/// The maximum number of bytes to scan for one list.
const MAX_SCANNED: u64 = 16 * 1024 * 1024;

/// The length of a read, in bytes. A transaction has at least [`MIN_TXN_LEN`] bytes, so the
/// transactions of one read fit into a list.
const READ_LEN: u64 = 128 * 1024;

/// The maximum time for one list.
const MAX_TIME: Duration = Duration::from_secs(1);

/// The committed transactions from a position on, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// The transactions, in the order of the file.
    pub entries: Vec<TransactionEntry>,
    /// The end of the scan.
    pub reached: Reached,
}

/// One of the [`Transactions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEntry {
    /// Transaction id.
    pub tid: Tid,
    /// Length of the whole record, in bytes.
    pub len: u64,
    /// Status.
    pub status: TxnStatus,
}

/// The point where a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reached {
    /// Offset up to which it has read: the end of the last transaction in the list, or later.
    pub offset: u64,
    /// The tail that ended it, or `None` if the next list continues.
    pub end: Option<Tail>,
}

impl Transactions {
    /// Continues a scan until the list is full. `read` fills a buffer with the bytes from an
    /// offset on, and returns their number.
    pub(crate) fn scan<E>(
        scanner: &mut Scanner,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let (from, started) = (scanner.offset(), Instant::now());
        let mut entries = Vec::new();
        let mut buffer = AlignedBuf::default();
        let end = loop {
            let offset = scanner.offset();
            let len = scanner.left().min(READ_LEN) as usize;
            let got = match scanner.stopped() {
                None if len > 0 => read(buffer.room(len, offset), offset)?,
                _ => 0,
            };
            if got == 0 {
                break Some(scanner.tail());
            }
            scanner.feed(&buffer[..got], &mut |event| {
                if let Event::Transaction(found) = event {
                    entries.push(TransactionEntry {
                        tid: found.header.tid,
                        len: found.end - found.position,
                        status: found.header.status,
                    });
                }
            });
            // Stop unless the transactions of another read would certainly fit.
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

    /// Whether the file has become shorter than `size`: the scan met its end earlier, and not
    /// between two transactions.
    pub(crate) fn is_truncated(&self, size: u64) -> bool {
        self.reached.end == Some(Tail::Short) && self.reached.offset < size
    }

    /// Encodes the entries for a frame, in at most [`MAX_LIST_LEN`] bytes.
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

    /// Decodes a frame that contains the transactions from `from` on, of a file of `size`
    /// bytes. Returns `None` if these cannot be transactions of such a file.
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

    /// A file with this number of empty transactions.
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
    fn lists_are_limited_and_continue_each_other() {
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
    fn a_truncated_file_is_distinguished_from_an_end() {
        let file = file(3);
        let size = file.len() as u64 + 31;
        for (len, is_truncated) in [
            (file.len(), false),
            (file.len() - 1, true),
            (4 + 31 + 5, true),
        ] {
            let list = scan(&mut Scanner::new(size), &file[..len]);
            assert_eq!(list.is_truncated(size), is_truncated, "{len}");
        }
        let list = scan(&mut Scanner::new(size - 33), &file);
        assert_eq!(list.reached.end, Some(Tail::Torn));
    }

    #[test]
    fn an_impossible_list_is_not_decoded() {
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
