//! Checks references between the records of a file. A scan alone cannot do this, because it
//! does not remember earlier records.
//!
//! A [`Checker`] takes the events of a [scan](super::scan) in order, and keeps the index of the
//! current position, at 17 bytes per object. It also reads single headers at other positions.
//!
//! A flaw is either *damage* or a *blemish*:
//!
//! | flaw | kind | behaviour of ZODB 6.4 |
//! | --- | --- | --- |
//! | [`Damage`](super::scan::Damage) of a scan | damage | panics, unless it has an index and need not scan |
//! | a data record has another tid than its transaction | damage | serves the object with that tid: clients keep a stale revision, or `loadBefore` does not find the object |
//! | a back pointer does not lead to a data record of the object | damage | serves the bytes at that position, or fails: `_loadBack_impl` does not compare oids |
//! | `prev` is not the position of the object's last record | blemish | logs it and continues. Only undo, history and readers that began before this record follow `prev`; after a failover, there are no such readers. A pack writes 0 in every record that it keeps, even if it keeps two records of an object |
//! | a tid is not greater than the last one | blemish | warns and continues |
//! | an unknown status | blemish | warns and treats it as committed |
//!
//! ZODB's `fstest` checks the first of these, and rejects the last two, which a master may have
//! had for years. No tool of ZODB checks the tids of data records, and only a pack checks back
//! pointers.

use super::backward::ReadAt;
use super::index::Index;
use super::record::{DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TXN_HEADER_LEN, TxnHeader};
use super::scan::{Blemish, Event};
use super::{Tid, TxnStatus};

/// A wrong field in a record that is well-formed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Position of the record.
    pub position: u64,
    /// Tid of its transaction.
    pub tid: Tid,
    /// Id of the object, for a data record.
    pub oid: Option<u64>,
    /// The flaw itself.
    pub kind: FlawKind,
}

/// The kinds of flaws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// The tid of the transaction is not greater than the one before it, which is this one.
    TidReduction(Tid),
    /// The transaction has a status that ZODB never writes.
    OddStatus(TxnStatus),
    /// The data record has this tid, which is not that of its transaction.
    DataTid(Tid),
    /// The `prev` of the data record is not the position of the object's last record.
    Prev {
        /// Position of that record, or 0 if there is none.
        expected: u64,
        /// The `prev` in the data record.
        found: u64,
    },
    /// The back pointer of the data record does not lead to an earlier record of the object.
    BackPointer(u64),
}

/// Checks the events of a scan.
#[derive(Debug, Default)]
pub struct Checker {
    index: Index,
    /// Tid of the current transaction.
    txn: Option<Tid>,
    /// Number of its data records so far.
    begun: u64,
    last_tid: Option<Tid>,
    transactions: u64,
    records: u64,
    /// Whether the index may lack records, or contain records of an incomplete transaction.
    is_spoiled: bool,
}

impl Checker {
    /// Takes an event of a scan that started with the first transaction, and reports flaws. A
    /// position in `file` that cannot be read counts as wrong.
    pub fn take<R: ReadAt>(&mut self, event: Event, file: &mut R, report: &mut impl FnMut(Flaw)) {
        match event {
            Event::Begun { header, .. } => {
                self.txn = Some(header.tid);
                self.begun = 0;
            }
            Event::Record {
                header,
                position,
                back,
            } => {
                self.begun += 1;
                self.record(&header, position, back, file, report);
            }
            Event::Transaction(transaction) => {
                self.txn = None;
                self.last_tid = Some(transaction.header.tid);
                self.transactions += 1;
                self.records += self.begun;
            }
            Event::Blemish { position, blemish } => {
                let kind = match blemish {
                    Blemish::TidReduction(tid) => {
                        FlawKind::TidReduction(self.last_tid.unwrap_or(tid))
                    }
                    Blemish::OddStatus(status) => FlawKind::OddStatus(status),
                };
                report(Flaw {
                    position,
                    tid: self.txn_tid(),
                    oid: None,
                    kind,
                });
            }
        }
    }

    /// Must be called when the scan goes back to the start of the current transaction.
    pub fn restart_transaction(&mut self) {
        self.is_spoiled |= self.txn.take().is_some() && self.begun > 0;
    }

    /// Must be called when the scan continues after a transaction that it did not complete.
    pub fn skip_transaction(&mut self) {
        self.txn = None;
        self.is_spoiled = true;
    }

    /// The index of all transactions. `None` if one of them was skipped or restarted.
    #[must_use]
    pub fn index(&self) -> Option<&Index> {
        (!self.is_spoiled).then_some(&self.index)
    }

    /// Number of objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.index.len() as u64
    }

    /// Number of complete transactions.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Number of data records in complete transactions.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    fn txn_tid(&self) -> Tid {
        self.txn.unwrap_or(Tid(0))
    }

    fn record<R: ReadAt>(
        &mut self,
        header: &DataHeader,
        position: u64,
        back: Option<u64>,
        file: &mut R,
        report: &mut impl FnMut(Flaw),
    ) {
        let tid = self.txn_tid();
        let mut flawed = |kind| {
            report(Flaw {
                position,
                tid,
                oid: Some(header.oid),
                kind,
            });
        };
        if header.tid != tid {
            flawed(FlawKind::DataTid(header.tid));
        }
        // Insert at once. The index thus always ends with this record, for the next ones.
        let last = self.index.insert(header.oid, position).unwrap_or(0);
        // A read is needed only if `prev` differs from the index, which is rare.
        if header.prev != last
            && let Some(expected) = self.expected_prev(header, position, last, file)
            && header.prev != expected
        {
            let found = header.prev;
            flawed(FlawKind::Prev { expected, found });
        }
        if let Some(back) = back
            && back != 0
            && !leads_back(file, back, header.oid, position)
        {
            flawed(FlawKind::BackPointer(back));
        }
    }

    /// The expected `prev` of a record whose `prev` differs from the index. `None` if it cannot
    /// be determined.
    fn expected_prev<R: ReadAt>(
        &self,
        header: &DataHeader,
        position: u64,
        last: u64,
        file: &mut R,
    ) -> Option<u64> {
        if last >= header.tloc && last != 0 {
            // The index already has a record of this object in this transaction. ZODB does not
            // add records to its index until the transaction is finished, so both records have
            // the same `prev`. The index may also have the record from before a restart.
            let first = data_header(file, last)?;
            return (last < position && first.oid == header.oid).then_some(first.prev);
        }
        if self.is_spoiled && header.prev > last && header.prev < position {
            // The last record may be in a transaction that was skipped. If there is a record of
            // the object at `prev`, it may be the right one.
            let passed = data_header(file, header.prev)?;
            return (passed.oid != header.oid).then_some(last);
        }
        Some(last)
    }
}

/// Whether there is a data record of the object at `back`. It must be before `position`, and
/// inside the transaction that it refers to.
fn leads_back<R: ReadAt>(file: &mut R, back: u64, oid: u64, position: u64) -> bool {
    let least = MAGIC_LEN + TXN_HEADER_LEN as u64;
    if back < least || back >= position {
        return false;
    }
    let Some(data) = data_header(file, back) else {
        return false;
    };
    if data.oid != oid || data.version_len != 0 || data.tloc < MAGIC_LEN || data.tloc >= back {
        return false;
    }
    let mut raw = [0; TXN_HEADER_LEN];
    if file.read_exact_at(&mut raw, data.tloc).is_err() {
        return false;
    }
    // All of these numbers are unchecked: add with care, and compare the two ends only if
    // neither overflows.
    let txn = TxnHeader::decode(&raw);
    let ends = [
        (back + DATA_HEADER_LEN as u64).checked_add(data.body_len()),
        data.tloc.checked_add(txn.tlen),
    ];
    back - data.tloc >= txn.header_len() && matches!(ends, [Some(data), Some(txn)] if data <= txn)
}

fn data_header<R: ReadAt>(file: &mut R, position: u64) -> Option<DataHeader> {
    let mut raw = [0; DATA_HEADER_LEN];
    file.read_exact_at(&mut raw, position).ok()?;
    Some(DataHeader::decode(&raw))
}

#[cfg(test)]
mod tests;
