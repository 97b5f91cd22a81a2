//! A count of transactions.

use crate::filestorage::Tid;

/// How many transactions, of which length, from which tid to which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionSpan {
    /// Number of transactions.
    pub count: u64,
    /// Total length of their records, in bytes.
    pub bytes: u64,
    /// The tid of the first one in the order of the file.
    pub first: Option<Tid>,
    /// The tid of the last one in the order of the file.
    pub last: Option<Tid>,
}

impl TransactionSpan {
    /// Adds a transaction of `len` bytes that is after the others in the file.
    pub(crate) fn push_back(&mut self, tid: Tid, len: u64) {
        self.count += 1;
        self.bytes += len;
        self.first.get_or_insert(tid);
        self.last = Some(tid);
    }

    /// Adds a transaction of `len` bytes that is before the others in the file.
    pub(crate) fn push_front(&mut self, tid: Tid, len: u64) {
        self.count += 1;
        self.bytes += len;
        self.first = Some(tid);
        self.last.get_or_insert(tid);
    }
}
