//! The headers of transaction and data records: sizes, fields and decoding.
//!
//! A transaction record:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | tid |
//! | 8 | 8 | tlen: length of the whole record − 8 |
//! | 16 | 1 | status |
//! | 17 | 2 | length of the user name, in bytes |
//! | 19 | 2 | length of the description |
//! | 21 | 2 | length of the extension |
//! | 23 | … | user name, description, extension |
//! | … | … | data records |
//! | tlen | 8 | tlen once more |
//!
//! A data record:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | oid |
//! | 8 | 8 | tid |
//! | 16 | 8 | prev: position of the object's previous record, or 0 |
//! | 24 | 8 | tloc: position of the transaction record |
//! | 32 | 2 | length of a version name, always 0 |
//! | 34 | 8 | plen: length of the pickle |
//! | 42 | plen, or 8 | the pickle; if plen is 0, a back pointer |

use super::Tid;

/// The length of the magic at the head of the file, in bytes; the position of
/// the first transaction.
pub const MAGIC_LEN: u64 = 4;

/// The length of the fixed part of a transaction header, in bytes.
pub const TXN_HEADER_LEN: usize = Tid::LEN + 8 + 1 + 2 + 2 + 2;

/// The offset of the status byte in a transaction record.
pub const STATUS_OFFSET: u64 = Tid::LEN as u64 + 8;

/// The length of the redundant length that ends a transaction, in bytes.
pub const TRAILER_LEN: u64 = 8;

/// The length of a data record's header, in bytes.
pub const DATA_HEADER_LEN: usize = 8 + Tid::LEN + 8 + 8 + 2 + 8;

/// The length of a back pointer, in bytes.
pub const BACK_POINTER_LEN: u64 = 8;

/// The shortest transaction record there can be, in bytes: no strings, no data
/// records.
pub const MIN_TXN_LEN: u64 = TXN_HEADER_LEN as u64 + TRAILER_LEN;

/// Which Python wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// `FS21`, Python 2.
    Fs21,
    /// `FS30`, Python 3.
    Fs30,
}

impl Magic {
    /// The magic at the start of a file, or `None` if it is not a FileStorage.
    #[must_use]
    pub fn decode(head: &[u8]) -> Option<Self> {
        match head.get(..MAGIC_LEN as usize)? {
            b"FS21" => Some(Self::Fs21),
            b"FS30" => Some(Self::Fs30),
            _ => None,
        }
    }
}

/// A transaction's status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnStatus(pub u8);

impl TxnStatus {
    /// Committed.
    pub const COMMITTED: Self = Self(b' ');
    /// Committed, and kept by a pack.
    pub const PACKED: Self = Self(b'p');
    /// Undone by an old version of ZODB. ZODB skips its data records.
    pub const UNDONE: Self = Self(b'u');
    /// Voted, but not finished. ZODB truncates the file here when it opens it.
    pub const VOTED: Self = Self(b'c');

    /// Whether ZODB accepts this status without a warning.
    #[must_use]
    pub fn is_usual(self) -> bool {
        matches!(
            self,
            Self::COMMITTED | Self::PACKED | Self::UNDONE | Self::VOTED
        )
    }
}

/// The fixed part of a transaction record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnHeader {
    /// The transaction's id.
    pub tid: Tid,
    /// The length of the whole record − 8, in bytes; unchecked.
    pub tlen: u64,
    /// Whether the transaction is finished.
    pub status: TxnStatus,
    /// The length of the user name, in bytes.
    pub user_len: u16,
    /// The length of the description, in bytes.
    pub description_len: u16,
    /// The length of the extension (a pickle), in bytes.
    pub extension_len: u16,
}

impl TxnHeader {
    /// Decodes the fixed part. Any bytes can be decoded, because the fields are not checked.
    #[must_use]
    pub fn decode(bytes: &[u8; TXN_HEADER_LEN]) -> Self {
        Self {
            tid: Tid(be_u64(&bytes[0..])),
            tlen: be_u64(&bytes[8..]),
            status: TxnStatus(bytes[STATUS_OFFSET as usize]),
            user_len: be_u16(&bytes[17..]),
            description_len: be_u16(&bytes[19..]),
            extension_len: be_u16(&bytes[21..]),
        }
    }

    /// The length of the header with its three strings, in bytes.
    #[must_use]
    pub fn header_len(&self) -> u64 {
        TXN_HEADER_LEN as u64 + self.strings_len()
    }

    /// The length of the three strings, in bytes.
    #[must_use]
    pub fn strings_len(&self) -> u64 {
        u64::from(self.user_len) + u64::from(self.description_len) + u64::from(self.extension_len)
    }

    /// The end of a record that starts at `position`, or `None` if it exceeds 64 bits.
    #[must_use]
    pub fn end(&self, position: u64) -> Option<u64> {
        position.checked_add(self.tlen)?.checked_add(TRAILER_LEN)
    }
}

/// The header of a data record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The object's id.
    pub oid: u64,
    /// The transaction's id, repeated.
    pub tid: Tid,
    /// The position of the object's previous data record, or 0.
    pub prev: u64,
    /// The position of the transaction record that holds this one.
    pub tloc: u64,
    /// The length of a version name: 0 since ZODB 3.9.
    pub version_len: u16,
    /// The length of the pickle, in bytes. If it is 0, a back pointer follows.
    pub plen: u64,
}

impl DataHeader {
    /// Decodes a header. The fields are not checked.
    #[must_use]
    pub fn decode(bytes: &[u8; DATA_HEADER_LEN]) -> Self {
        Self {
            oid: be_u64(&bytes[0..]),
            tid: Tid(be_u64(&bytes[8..])),
            prev: be_u64(&bytes[16..]),
            tloc: be_u64(&bytes[24..]),
            version_len: be_u16(&bytes[32..]),
            plen: be_u64(&bytes[34..]),
        }
    }

    /// The length of the pickle or the back pointer, in bytes.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        if self.plen == 0 {
            BACK_POINTER_LEN
        } else {
            self.plen
        }
    }
}

/// The big-endian integer in the first 8 bytes.
#[must_use]
pub fn be_u64(bytes: &[u8]) -> u64 {
    bytes[..8]
        .iter()
        .fold(0, |n, &byte| n << 8 | u64::from(byte))
}

fn be_u16(bytes: &[u8]) -> u16 {
    u16::from(bytes[0]) << 8 | u16::from(bytes[1])
}
