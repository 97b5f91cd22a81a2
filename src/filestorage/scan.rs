//! Scans a file forwards: finds the end of the committed transactions, and whether ZODB would
//! open the file up to there.
//!
//! A [`Scanner`] is fed the bytes of the file in order, in pieces of any size. It does not keep
//! them, so a transaction of many gigabytes needs no memory. It makes the same checks as
//! `read_index` in ZODB's `FileStorage.py`, with these results:
//!
//! - [`Blemish`]: ZODB logs a warning and continues.
//! - [`Tail`]: ZODB truncates the file here.
//! - [`Damage`]: ZODB panics.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Tid;
use super::record::{
    BACK_POINTER_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TRAILER_LEN, TxnHeader, TxnStatus,
    be_u64,
};

/// The shortest data record there can be, in bytes: a pickle of one byte.
const MIN_DATA_RECORD_LEN: u64 = DATA_HEADER_LEN as u64 + 1;

/// A record that a scan has found.
///
/// Data records are reported before it is known whether their transaction is complete. They
/// are valid only if [`Event::Transaction`] follows. If [`Event::Begun`] follows instead, or
/// nothing, their transaction was damaged or the scan went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The header of a transaction. If the scan [goes back](Scanner::go_back) to it, this event
    /// is reported again.
    Begun {
        /// Position of its record.
        position: u64,
        /// Its header.
        header: TxnHeader,
    },
    /// A data record of that transaction. A transaction with status `u` has none.
    Record {
        /// Its header.
        header: DataHeader,
        /// Position of the record.
        position: u64,
        /// The back pointer, if the record has one instead of a pickle: the position of the
        /// data record with the data, or 0 if the creation of the object was undone.
        back: Option<u64>,
    },
    /// A complete, committed transaction.
    Transaction(Transaction),
    /// A blemish of the transaction whose header was reported last.
    Blemish {
        /// Position of the transaction record.
        position: u64,
        /// The blemish.
        blemish: Blemish,
    },
}

/// Receives the events of a scan, and the bytes of the file.
pub trait Visitor {
    /// Takes the next event.
    fn event(&mut self, event: Event);

    /// Takes the bytes from `offset` on, after the events of these bytes.
    fn bytes(&mut self, _offset: u64, _bytes: &[u8]) {}
}

impl<F: FnMut(Event)> Visitor for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}

/// A committed transaction and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Position of its record.
    pub position: u64,
    /// End of its record, where the next one starts.
    pub end: u64,
    /// Its header.
    pub header: TxnHeader,
}

/// An irregularity that makes ZODB log a warning, but does not prevent it from opening the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blemish {
    /// The tid is not greater than the one before it.
    TidReduction(Tid),
    /// The status is none of ` `, `p` and `u`.
    OddStatus(TxnStatus),
}

impl fmt::Display for Blemish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TidReduction(tid) => write!(f, "time-stamp reduction: tid {tid}"),
            Self::OddStatus(TxnStatus(byte)) => {
                write!(f, "invalid status '{}'", byte.escape_ascii())
            }
        }
    }
}

/// The content of the file after the last committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// Fewer bytes than a transaction header has.
    Short,
    /// A transaction that is voted, but not finished.
    Voted,
    /// A transaction with another status that reaches past the end of the file.
    Torn,
    /// A record that makes ZODB panic.
    Damaged(Damage),
}

/// A record that makes ZODB panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, thiserror::Error)]
#[error("{record} record at {position}: {cause}")]
pub struct Damage {
    /// The kind of record.
    pub record: Record,
    /// Position of the record.
    pub position: u64,
    /// The check that failed.
    pub cause: Cause,
}

/// The kinds of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Record {
    /// A transaction record.
    Transaction,
    /// A data record.
    Data,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transaction => "transaction",
            Self::Data => "data",
        })
    }
}

/// Why a record makes ZODB panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, thiserror::Error)]
pub enum Cause {
    /// The status byte is not ASCII.
    #[error("status byte 0x{0:02x} is not ASCII")]
    Status(u8),
    /// The record is shorter than its own header.
    #[error("length {tlen} is less than that of its header, {header_len}")]
    ShorterThanHeader {
        /// The length in the header.
        tlen: u64,
        /// The length of the header with its strings.
        header_len: u64,
    },
    /// The length at the end differs from the one at the start.
    #[error("redundant length {found} differs from {expected} in the header")]
    RedundantLength {
        /// The length in the header.
        expected: u64,
        /// The length at the end.
        found: u64,
    },
    /// A data record reaches past its transaction.
    #[error("reaches past the end of its transaction at {0}")]
    ExceedsTransaction(u64),
    /// A data record points to another transaction than the one it is in.
    #[error("points to a transaction at {found}, but is in the one at {expected}")]
    Tloc {
        /// Position of the transaction.
        expected: u64,
        /// Position of the transaction according to the data record.
        found: u64,
    },
    /// A version name, which ZODB has not read since 3.9.
    #[error("has a version name of {0} bytes")]
    Version(u16),
}

/// Finds the committed transactions in the bytes that it is fed.
#[derive(Debug)]
pub struct Scanner {
    /// Start of the current transaction.
    boundary: u64,
    /// The tid of the last committed transaction.
    last_tid: Option<Tid>,
    /// Size of the file in bytes. No record reaches past it.
    limit: u64,
    /// Offset of the next byte.
    at: u64,
    expect: Expect,
    /// The first bytes of a field that continues in the next piece.
    carry: [u8; DATA_HEADER_LEN],
    carry_len: usize,
    stopped: Option<Tail>,
}

/// The field that comes next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    TxnHeader,
    /// Bytes that are not checked, up to this offset.
    Skip(TxnHeader, u64),
    DataHeader(TxnHeader),
    BackPointer(TxnHeader, DataHeader),
    Trailer(TxnHeader),
}

impl Scanner {
    /// A scan of a whole file of `limit` bytes. It starts after the magic.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self::resume(MAGIC_LEN, None, limit)
    }

    /// A scan that starts at `position`, after the transaction `last_tid`, in a file of `limit`
    /// bytes.
    #[must_use]
    pub fn resume(position: u64, last_tid: Option<Tid>, limit: u64) -> Self {
        Self {
            boundary: position,
            last_tid,
            limit,
            at: position,
            expect: Expect::TxnHeader,
            carry: [0; DATA_HEADER_LEN],
            carry_len: 0,
            stopped: None,
        }
    }

    /// End of the last committed transaction.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.boundary
    }

    /// The offset of the byte that [`feed`](Self::feed) takes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Number of bytes up to the limit.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.at)
    }

    /// The tid of the last committed transaction.
    #[must_use]
    pub fn last_tid(&self) -> Option<Tid> {
        self.last_tid
    }

    /// The tail that stopped the scan, or `None` if it can continue.
    #[must_use]
    pub fn stopped(&self) -> Option<Tail> {
        self.stopped
    }

    /// Takes the next bytes of the file. After the scan has stopped, ignores them.
    pub fn feed(&mut self, mut bytes: &[u8], visit: &mut impl FnMut(Event)) {
        while self.stopped.is_none() && !bytes.is_empty() {
            match self.expect {
                Expect::Skip(txn, until) => {
                    let skipped = (until - self.at).min(bytes.len() as u64);
                    bytes = &bytes[skipped as usize..];
                    self.at += skipped;
                    if self.at == until {
                        self.expect_record(txn);
                    }
                }
                Expect::TxnHeader => {
                    if let Some(raw) = self.take(&mut bytes) {
                        self.txn_header(TxnHeader::decode(&raw), visit);
                    }
                }
                Expect::DataHeader(txn) => {
                    if let Some(raw) = self.take(&mut bytes) {
                        self.data_header(txn, DataHeader::decode(&raw), visit);
                    }
                }
                Expect::BackPointer(txn, data) => {
                    if let Some(raw) = self.take::<{ BACK_POINTER_LEN as usize }>(&mut bytes) {
                        self.back_pointer(txn, data, be_u64(&raw), visit);
                    }
                }
                Expect::Trailer(txn) => {
                    if let Some(raw) = self.take::<{ TRAILER_LEN as usize }>(&mut bytes) {
                        self.trailer(txn, be_u64(&raw), visit);
                    }
                }
            }
        }
    }

    /// Skips the bytes that come next if they are not checked, so that the caller need not
    /// read them. They never reach past the limit.
    pub fn skip(&mut self) {
        if let Expect::Skip(txn, until) = self.expect {
            self.at = until;
            self.expect_record(txn);
        }
    }

    /// The offset up to which the bytes taken so far need not be taken again. If it is less
    /// than [`offset`](Self::offset), the scan must [go back](Self::go_back) before it
    /// continues, because the status of the next transaction may still change.
    #[must_use]
    pub fn decided(&self) -> u64 {
        match self.expect {
            Expect::TxnHeader => self.boundary,
            _ if self.stopped.is_some() => self.boundary,
            _ => self.at,
        }
    }

    /// Limits the scan to the current transaction, if it is inside one. Returns the new limit.
    pub fn end_with_transaction(&mut self) -> u64 {
        let end = match self.expect {
            Expect::TxnHeader => Some(self.boundary),
            Expect::Skip(txn, _)
            | Expect::DataHeader(txn)
            | Expect::BackPointer(txn, _)
            | Expect::Trailer(txn) => txn.end(self.boundary),
        };
        self.limit = end.map_or(self.limit, |end| end.min(self.limit));
        self.limit
    }

    /// Goes back to [`position`](Self::position), and discards all later bytes.
    pub fn go_back(&mut self) {
        *self = Self::resume(self.boundary, self.last_tid, self.limit);
    }

    /// The tail of the file, after all bytes up to the limit were taken.
    #[must_use]
    pub fn tail(&self) -> Tail {
        match self.stopped {
            Some(tail) => tail,
            None if self.at == self.boundary => Tail::Clean,
            None => Tail::Short,
        }
    }

    /// Takes a field of `N` bytes. Returns it once it is complete.
    fn take<const N: usize>(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        let taken = (N - self.carry_len).min(bytes.len());
        let (field, rest) = bytes.split_at(taken);
        *bytes = rest;
        self.at += taken as u64;
        // The common case: the whole field is in this piece, and nothing must be kept.
        if taken == N {
            return field.try_into().ok();
        }
        self.carry[self.carry_len..self.carry_len + taken].copy_from_slice(field);
        self.carry_len += taken;
        if self.carry_len < N {
            return None;
        }
        self.carry_len = 0;
        self.carry[..N].try_into().ok()
    }

    fn txn_header(&mut self, txn: TxnHeader, visit: &mut impl FnMut(Event)) {
        let position = self.boundary;
        // The order of these checks is that of ZODB: it decides between a tail, which ZODB
        // truncates, and damage.
        if txn.status == TxnStatus::VOTED {
            self.stopped = Some(Tail::Voted);
            return;
        }
        if txn.end(position).is_none_or(|end| end > self.limit) {
            self.stopped = Some(Tail::Torn);
            return;
        }
        if !txn.status.0.is_ascii() {
            return self.damage(Record::Transaction, position, Cause::Status(txn.status.0));
        }
        if txn.tlen < txn.header_len() {
            let cause = Cause::ShorterThanHeader {
                tlen: txn.tlen,
                header_len: txn.header_len(),
            };
            return self.damage(Record::Transaction, position, cause);
        }
        visit(Event::Begun {
            position,
            header: txn,
        });
        let blemishes = [
            (self.last_tid >= Some(txn.tid)).then_some(Blemish::TidReduction(txn.tid)),
            (!txn.status.is_usual()).then_some(Blemish::OddStatus(txn.status)),
        ];
        for blemish in blemishes.into_iter().flatten() {
            visit(Event::Blemish { position, blemish });
        }
        // ZODB does not look at the data records of a transaction with status `u`.
        let until = if txn.status == TxnStatus::UNDONE {
            position + txn.tlen
        } else {
            position + txn.header_len()
        };
        self.expect_after_skip(txn, until);
    }

    fn data_header(&mut self, txn: TxnHeader, data: DataHeader, visit: &mut impl FnMut(Event)) {
        let position = self.at - DATA_HEADER_LEN as u64;
        let txn_end = self.boundary + txn.tlen;
        if data.version_len != 0 {
            return self.damage(Record::Data, position, Cause::Version(data.version_len));
        }
        // Subtract instead of adding, because `plen` is unchecked and could overflow.
        if data.body_len() > txn_end - self.at {
            return self.damage(Record::Data, position, Cause::ExceedsTransaction(txn_end));
        }
        if data.tloc != self.boundary {
            let cause = Cause::Tloc {
                expected: self.boundary,
                found: data.tloc,
            };
            return self.damage(Record::Data, position, cause);
        }
        if data.plen == 0 {
            self.expect = Expect::BackPointer(txn, data);
            return;
        }
        visit(Event::Record {
            header: data,
            position,
            back: None,
        });
        self.expect_after_skip(txn, self.at + data.plen);
    }

    fn back_pointer(
        &mut self,
        txn: TxnHeader,
        data: DataHeader,
        back: u64,
        visit: &mut impl FnMut(Event),
    ) {
        visit(Event::Record {
            header: data,
            position: self.at - BACK_POINTER_LEN - DATA_HEADER_LEN as u64,
            back: Some(back),
        });
        self.expect_record(txn);
    }

    fn trailer(&mut self, header: TxnHeader, found: u64, visit: &mut impl FnMut(Event)) {
        let position = self.boundary;
        if found != header.tlen {
            let cause = Cause::RedundantLength {
                expected: header.tlen,
                found,
            };
            return self.damage(Record::Transaction, position, cause);
        }
        // Only now the transaction is complete, and its data records count.
        self.boundary = self.at;
        self.last_tid = Some(header.tid);
        self.expect = Expect::TxnHeader;
        visit(Event::Transaction(Transaction {
            position,
            end: self.at,
            header,
        }));
    }

    fn expect_after_skip(&mut self, txn: TxnHeader, until: u64) {
        if until == self.at {
            self.expect_record(txn);
        } else {
            self.expect = Expect::Skip(txn, until);
        }
    }

    /// Expects a data record, or the trailer if there is none left.
    fn expect_record(&mut self, txn: TxnHeader) {
        // No overflow: the header was checked against the limit.
        let txn_end = self.boundary + txn.tlen;
        if self.at == txn_end {
            self.expect = Expect::Trailer(txn);
        } else if txn_end - self.at < MIN_DATA_RECORD_LEN {
            self.damage(Record::Data, self.at, Cause::ExceedsTransaction(txn_end));
        } else {
            self.expect = Expect::DataHeader(txn);
        }
    }

    fn damage(&mut self, record: Record, position: u64, cause: Cause) {
        self.stopped = Some(Tail::Damaged(Damage {
            record,
            position,
            cause,
        }));
    }
}

#[cfg(test)]
mod tests;
