//! Whether the records of a file fit together: what a scan alone cannot tell, as
//! it holds nothing of what came before.
//!
//! A [`Checker`] takes what a [scan](super::scan) comes by, in the order of the
//! file, and keeps the index as it was at that point, 17 bytes an object. Beyond
//! it, it reads single headers by their positions.
//!
//! What is wrong is either *damage* or a *blemish*:
//!
//! | what | is | as ZODB 6.4 |
//! | --- | --- | --- |
//! | [`Damage`](super::scan::Damage) of a scan | damage | panics, unless an index spares it the scan |
//! | a data record with another tid than its transaction's | damage | serves the object with that tid: clients keep a stale revision, or a reader does not find the object (`loadBefore`) |
//! | a back pointer that leads to no data record of the object | damage | serves whatever lies there, or fails: `_loadBack_impl` compares no oid |
//! | a `prev` that is not the position of the object's last record | blemish | logs it and goes on. It is followed by undo, history and readers that began before that record was written, and by nobody after a failover. A pack leaves 0 in every record that it keeps, also where it keeps two of an object |
//! | a tid that is not higher than the last | blemish | warns, and goes on |
//! | an odd status | blemish | warns, and takes it for committed |
//!
//! ZODB's `fstest` looks at the first, and refuses the last two, which a master may
//! carry for years. At the tids of data records nothing of ZODB's looks, and at back
//! pointers a pack alone.

use super::backward::ReadAt;
use super::index::Index;
use super::record::{DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TXN_HEADER_LEN, TxnHeader};
use super::scan::{Blemish, Event};
use super::{Tid, TxnStatus};

/// Something that is wrong with a record whose own form is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where the record starts.
    pub position: u64,
    /// The tid of its transaction.
    pub tid: Tid,
    /// The object, if it is a data record.
    pub oid: Option<u64>,
    /// What is wrong with it.
    pub what: FlawKind,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// The transaction's tid is not higher than this one, that of the last.
    TidReduction(Tid),
    /// The transaction has another status than ZODB gives.
    OddStatus(TxnStatus),
    /// The data record has this tid.
    DataTid(Tid),
    /// The data record's `prev` is another position than that of the object's last
    /// record.
    Prev {
        /// Where that is; 0 if there is none.
        expected: u64,
        /// What the record says.
        found: u64,
    },
    /// The data record's back pointer leads to no earlier data record of the object.
    BackPointer(u64),
}

/// Checks what a scan comes by.
#[derive(Debug, Default)]
pub struct Checker {
    index: Index,
    /// The tid of the transaction that was begun.
    txn: Option<Tid>,
    /// Its data records so far.
    begun: u64,
    last_tid: Option<Tid>,
    transactions: u64,
    records: u64,
    /// Whether the index may lack records, or have some that never were.
    is_spoiled: bool,
}

impl Checker {
    /// Takes an event of a scan that began with the first transaction, and tells
    /// what is wrong. What cannot be read in `file` counts as not there.
    pub fn take<R: ReadAt>(&mut self, event: Event, file: &mut R, tell: &mut impl FnMut(Flaw)) {
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
                self.record(&header, position, back, file, tell);
            }
            Event::Transaction(transaction) => {
                self.txn = None;
                self.last_tid = Some(transaction.header.tid);
                self.transactions += 1;
                self.records += self.begun;
            }
            Event::Blemish { position, blemish } => {
                let what = match blemish {
                    Blemish::TidReduction(tid) => {
                        FlawKind::TidReduction(self.last_tid.unwrap_or(tid))
                    }
                    Blemish::OddStatus(status) => FlawKind::OddStatus(status),
                };
                tell(Flaw {
                    position,
                    tid: self.txn_tid(),
                    oid: None,
                    what,
                });
            }
        }
    }

    /// Is told that the scan begins the transaction that it was in again.
    pub fn begin_again(&mut self) {
        self.is_spoiled |= self.txn.take().is_some() && self.begun > 0;
    }

    /// Is told that the scan goes on behind a transaction that it did not take to
    /// its end.
    pub fn pass_over(&mut self) {
        self.txn = None;
        self.is_spoiled = true;
    }

    /// The index of what came by whole; `None` where something did not.
    #[must_use]
    pub fn index(&self) -> Option<&Index> {
        (!self.is_spoiled).then_some(&self.index)
    }

    /// How many objects came by.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.index.len() as u64
    }

    /// How many transactions came by whole.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// How many data records they have.
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
        tell: &mut impl FnMut(Flaw),
    ) {
        let tid = self.txn_tid();
        let mut flawed = |what| {
            tell(Flaw {
                position,
                tid,
                oid: Some(header.oid),
                what,
            });
        };
        if header.tid != tid {
            flawed(FlawKind::DataTid(header.tid));
        }
        let last = self.index.insert(header.oid, position).unwrap_or(0);
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

    /// What `prev` must be where it is not the position that the index has; `None`
    /// where that cannot be told.
    fn expected_prev<R: ReadAt>(
        &self,
        header: &DataHeader,
        position: u64,
        last: u64,
        file: &mut R,
    ) -> Option<u64> {
        if last >= header.tloc && last != 0 {
            // The object's second record in the transaction has the `prev` of the
            // first: ZODB looks into an index without this transaction. And a
            // transaction that is begun again meets what it left there.
            let first = data_header(file, last)?;
            return (last < position && first.oid == header.oid).then_some(first.prev);
        }
        if self.is_spoiled && header.prev > last && header.prev < position {
            // It may lie in what was passed over.
            let passed = data_header(file, header.prev)?;
            return (passed.oid != header.oid).then_some(last);
        }
        Some(last)
    }
}

/// Whether a data record of an object lies at `back`, before the one at `position`,
/// in a transaction that reaches over it.
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
