//! Collects the evidence whether a copy of the master may replace the slave without losing a
//! transaction.
//!
//! This module gets the events of a scan of the copy, in file order. It reads the transactions of
//! the old slave at the same time, and joins both by their tids. The result is the [`Evidence`],
//! from which the plan decides.
//!
//! # Which transactions a pack drops
//!
//! A pack at time P (ZODB 6.4, `fspack.py`) leaves all transactions after P unchanged. Up to P it
//! keeps one record of each object that is reachable from the root at P: the record that was
//! current at P. It also keeps an older record if a transaction after P points back to it, because
//! somebody has undone a change. A transaction of which it keeps a record gets status `p`; a
//! transaction without one is dropped. So in a packed file, all transactions up to P have status
//! `p`, and all transactions after P follow them.
//!
//! Let T be a transaction of the slave that the master lacks. A pack explains that if
//!
//! 1. *the master was packed after the slave's bytes were copied:* it has a transaction of status
//!    `p` that has another status in the slave, or that is newer than the slave;
//! 2. *T is not newer than P:* the master has a transaction of status `p` that is newer than T,
//!    and all transactions before that one have status `p`. If T is newer than all transactions of
//!    status `p`, but no transaction older than T has another status, P may be later than T: this
//!    case is in doubt;
//! 3. *the pack had no reason to keep a record of T:* for each record of T, the master has, up to
//!    P, either a newer record of the object (then the one of T was not current at P) or no record
//!    of it (then the object was not reachable at P). The root is always reachable, so it must have
//!    a newer record. Records that undid the creation of their object do not count, because no pack
//!    keeps them.
//!
//! An example: an object has records at the tids 1, 5 and 9 in the slave, and P is 7.
//!
//! | records in the master | conclusion for the transaction 5 |
//! | --- | --- |
//! | 5 (`p`), 9 | it is there; the pack dropped 1, and 5 is the newer record that explains it |
//! | 9 | explained: the object was not reachable at P |
//! | 1 (`p`), 9 | not explained: a pack would have kept 5, which was current at P, and dropped 1 |
//!
//! # Why a packed repair is not taken for a pack
//!
//! A repair drops transactions, and `fsrecover -P` packs the repaired file in the same run. Such a
//! master satisfies rules 1 and 2. Rule 3 finds the loss:
//!
//! 1. Assume that the repair has dropped T, and that a pack of the intact file would have kept a
//!    record of T. As of P, take a path of references from the root to such a record that meets no
//!    other such record before.
//! 2. The records before it on the path are the same in the repaired file. So the pack of the
//!    repaired file reached the object of this record, too.
//! 3. If the repaired file has an older record of the object, the pack kept that one. The master
//!    then has a record of the object up to P, but no newer one than T's: rule 3 does not hold.
//! 4. If it has no record of the object, ZODB's pack fails with a `KeyError`, and the file stays
//!    unpacked: rule 1 does not hold.
//!
//! So T is not explained in either case, and the old slave is kept.
//!
//! A transaction that both files have may lack data records in the master: up to P by rule 3,
//! after P never. User, description and the data of each common record must be equal, because
//! neither a pack nor any other operation of ZODB changes them.
//!
//! # Cases that these rules do not detect
//!
//! - The master was packed, then damaged and repaired, and is copied for the first time since. If
//!   a pass has seen the damage, the sidecar records it, and the plan takes it into account.
//! - Between two passes, the master was repaired, every object that T had changed was changed
//!   again, and the master was packed.
//! - A repaired master was packed without garbage collection (`pack_gc=False`). Such a pack does
//!   not fail if an object is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;

use super::old_slave::{OldData, OldRecord, OldSlaveReader};
use crate::filestorage::index::Index;
use crate::filestorage::record::{DATA_HEADER_LEN, DataHeader, TXN_HEADER_LEN};
use crate::filestorage::scan::{Event, Transaction};
use crate::filestorage::{Tid, TxnHeader, TxnStatus};
use crate::plan::{ComparisonFailure, Evidence, extended};

/// The oid of the root object.
const ROOT: u64 = 0;

/// Maximum number of suspects at a time. After an ordinary pack there are very few.
const MAX_SUSPECTS: usize = 4096;

/// Joins an old slave with the copy that may replace it.
#[derive(Debug)]
pub struct Succession<'a> {
    slave: OldSlaveReader<'a>,
    /// The next transaction of the old slave, which the scan of the copy has not reached.
    next: Option<Transaction>,
    /// The tid of the old slave's last transaction.
    last_tid: Option<Tid>,
    begun: Option<Begun>,
    /// Whether the copy had a transaction without status `p`: all later ones are newer than P.
    is_past_pack: bool,
    /// Objects that violate rule 3 so far, each with the tid of the record that the copy lacks. A
    /// newer record up to P clears the suspicion.
    suspects: BTreeMap<u64, Tid>,
    /// Ranges of the copy that must be compared with the old slave, in file order.
    expected: VecDeque<Expected>,
    evidence: Evidence,
}

/// A range of bytes that must be the same in the copy and the old slave.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// Offset in the copy, in bytes.
    at: u64,
    len: u64,
    /// Offset in the old slave, in bytes.
    old: u64,
    /// The transaction that contains the bytes.
    tid: Tid,
}

/// The transaction of the copy that is being scanned.
#[derive(Clone, Copy, Debug)]
struct Begun {
    position: u64,
    header: TxnHeader,
    /// The old slave's transaction with the same tid, and the offset of its next data record.
    common: Option<(Transaction, u64)>,
}

/// Whether a data record of the old slave is in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordPresence {
    /// The copy has it.
    Kept,
    /// So far, the copy has no record of the object.
    Gone,
    /// So far, the last record of the object in the copy is an older one.
    Older,
}

impl<'a> Succession<'a> {
    /// Starts a join of the old slave `file` with a copy that is scanned from its start. The
    /// committed transactions of the slave end at offset `position` with `last_tid`.
    #[must_use]
    pub fn new(file: &'a File, position: u64, last_tid: Option<Tid>) -> Self {
        let mut join = Self {
            slave: OldSlaveReader::new(file, position),
            next: None,
            last_tid,
            begun: None,
            is_past_pack: false,
            suspects: BTreeMap::new(),
            expected: VecDeque::new(),
            evidence: Evidence::default(),
        };
        join.advance();
        join
    }

    /// Processes an event of the scan of the copy. `index` has all records up to and including
    /// this event; `None` if it could not be built.
    pub fn take(&mut self, event: Event, index: Option<&Index>) {
        match event {
            Event::Begun { position, header } => self.begin(position, header, index),
            Event::Record {
                header,
                position,
                back,
            } => {
                if !self.suspects.is_empty() && self.is_packed_here() {
                    self.suspects.remove(&header.oid);
                }
                self.compare_data(&header, position, back);
            }
            Event::Transaction(transaction) => self.end(&transaction, index),
            Event::Blemish { .. } => {}
        }
    }

    /// Compares bytes of the copy at `offset`, after their events were processed.
    pub fn take_bytes(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        while let Some(mut expected) = self.expected.pop_front() {
            if expected.at >= end {
                self.expected.push_front(expected);
                break;
            }
            let len = expected.len.min(end - expected.at);
            let Some(from) = expected.at.checked_sub(offset) else {
                // The bytes passed before their event, so they were not compared.
                self.fail(ComparisonFailure::Unreadable);
                continue;
            };
            let from = from as usize;
            let equal = self
                .slave
                .has(&bytes[from..from + len as usize], expected.old);
            if !*equal.as_ref().unwrap_or(&true) {
                self.alter(expected.tid);
            } else if len < expected.len {
                expected.at += len;
                expected.old += len;
                expected.len -= len;
                self.expected.push_front(expected);
            }
            self.note(equal);
        }
    }

    /// The evidence, after the whole copy was scanned.
    #[must_use]
    pub fn finish(mut self, index: Option<&Index>) -> Evidence {
        while let Some(missing) = self.next {
            self.miss(&missing, index);
            self.advance();
        }
        let suspected: BTreeSet<_> = self.suspects.values().copied().collect();
        for tid in suspected {
            self.evidence.unexplained = Some(extended(self.evidence.unexplained, tid));
        }
        self.evidence
    }

    fn begin(&mut self, position: u64, header: TxnHeader, index: Option<&Index>) {
        // The scan may go back to the start of a transaction, and begin it again.
        if let Some(begun) = self.begun.filter(|begun| begun.position == position) {
            self.expected.retain(|expected| expected.at < position);
            self.begin_common(position, header, begun.common.map(|(old, _)| old));
            return;
        }
        while let Some(missing) = self.next.filter(|old| old.header.tid < header.tid) {
            self.miss(&missing, index);
            self.advance();
        }
        let common = self.next.filter(|old| old.header.tid == header.tid);
        if common.is_some() {
            self.advance();
        } else if Some(header.tid) <= self.last_tid {
            self.evidence.has_others = true;
        }
        self.begin_common(position, header, common);
    }

    fn begin_common(&mut self, position: u64, header: TxnHeader, common: Option<Transaction>) {
        self.begun = Some(Begun {
            position,
            header,
            common: common.map(|old| (old, old.position + old.header.header_len())),
        });
        let Some(old) = common else {
            return;
        };
        let lens = |header: TxnHeader| (header.user_len, header.description_len);
        if lens(header) == lens(old.header) {
            let len = u64::from(header.user_len) + u64::from(header.description_len);
            let start = TXN_HEADER_LEN as u64;
            self.expect(position + start, old.position + start, len, header.tid);
        } else {
            self.alter(header.tid);
        }
    }

    fn expect(&mut self, at: u64, old: u64, len: u64, tid: Tid) {
        if len > 0 {
            let expected = Expected { at, len, old, tid };
            self.expected.push_back(expected);
        }
    }

    /// Compares a data record of a common transaction with that of the old slave. Skips records
    /// that the copy lacks.
    fn compare_data(&mut self, header: &DataHeader, position: u64, back: Option<u64>) {
        let Some(Begun {
            common: Some((old, at)),
            ..
        }) = self.begun
        else {
            return;
        };
        let tid = old.header.tid;
        let found = self.find_record(&old, at, header.oid);
        let record = *found.as_ref().unwrap_or(&None);
        let failed = found.is_err();
        self.note(found);
        let Some(record) = record else {
            if !failed {
                self.alter(tid);
            }
            return;
        };
        if let Some(begun) = &mut self.begun {
            begun.common = Some((old, record.end));
        }
        match (back, record.data) {
            // Both point to an older record, which is compared where it is.
            (Some(1..), OldData::Back(_)) => {}
            (Some(1..), OldData::Here { .. } | OldData::Undone) => self.alter(tid),
            (None | Some(0), data) => {
                let resolved = self.slave.resolve(data);
                let range = resolved.as_ref().map_or(None, Clone::clone);
                let is_known = resolved.is_ok();
                self.note(resolved);
                let start = position + DATA_HEADER_LEN as u64;
                match range {
                    Some(range) if range.end - range.start == header.plen => {
                        self.expect(start, range.start, header.plen, tid);
                    }
                    None if back == Some(0) => {}
                    _ if is_known => self.alter(tid),
                    _ => {}
                }
            }
        }
    }

    /// Finds the next data record of an object in a transaction of the old slave, from offset `at`.
    fn find_record(
        &mut self,
        old: &Transaction,
        at: u64,
        oid: u64,
    ) -> io::Result<Option<OldRecord>> {
        let mut at = at;
        while let Some(record) = self.slave.record(old, at)? {
            if record.oid == oid {
                return Ok(Some(record));
            }
            at = record.end;
        }
        Ok(None)
    }

    /// Records that the data of a transaction differs in the copy.
    fn alter(&mut self, tid: Tid) {
        self.evidence.altered = Some(extended(self.evidence.altered, tid));
    }

    fn end(&mut self, copied: &Transaction, index: Option<&Index>) {
        let common = self.begun.and_then(|begun| begun.common);
        let common = common.map(|(old, _)| old);
        if copied.header.status != TxnStatus::PACKED {
            self.is_past_pack = true;
        } else if !self.is_past_pack {
            // Rule 2: no transaction that the copy lacks so far is newer than P.
            self.evidence.doubtful = None;
            // Rule 1.
            let is_newer = Some(copied.header.tid) > self.last_tid;
            let was_unpacked = common.is_some_and(|old| old.header.status != TxnStatus::PACKED);
            self.evidence.is_packed |= is_newer || was_unpacked;
        }
        // If the length is the same, no record was dropped.
        if let Some(old) = common.filter(|old| old.header.tlen != copied.header.tlen) {
            self.compare_records(&old, copied, index);
        }
    }

    /// Records that the copy lacks a transaction, and applies rule 3 to it.
    fn miss(&mut self, old: &Transaction, index: Option<&Index>) {
        self.lack(old.header.tid);
        // After P, rule 2 has decided already.
        if !self.is_past_pack {
            let doubtful = &mut self.evidence.doubtful;
            *doubtful = Some(extended(*doubtful, old.header.tid));
            self.judge_records(old, index, |found| {
                found.map_or(RecordPresence::Gone, |_| RecordPresence::Older)
            });
        }
    }

    /// Finds the data records that the copy lacks in a transaction whose length differs.
    fn compare_records(&mut self, old: &Transaction, copied: &Transaction, index: Option<&Index>) {
        let here = copied.position..copied.end;
        let lacks_some = self.judge_records(old, index, |found| match found {
            Some(position) if here.contains(&position) => RecordPresence::Kept,
            Some(_) => RecordPresence::Older,
            None => RecordPresence::Gone,
        });
        if lacks_some {
            self.lack(old.header.tid);
        }
    }

    /// Records that the copy lacks a transaction or a part of it.
    fn lack(&mut self, tid: Tid) {
        let evidence = &mut self.evidence;
        evidence.missing = Some(extended(evidence.missing, tid));
        if self.is_past_pack {
            evidence.unexplained = Some(extended(evidence.unexplained, tid));
        }
    }

    /// Applies rule 3 to each data record of a transaction of the old slave. `presence` decides
    /// from the position of the object's last record in the copy. Returns whether the copy lacks a
    /// record.
    fn judge_records(
        &mut self,
        old: &Transaction,
        index: Option<&Index>,
        presence: impl Fn(Option<u64>) -> RecordPresence,
    ) -> bool {
        // ZODB ignores the records of a transaction of this status.
        if old.header.status == TxnStatus::UNDONE {
            return false;
        }
        let Some(index) = index else {
            self.fail(ComparisonFailure::Disorder);
            return true;
        };
        let mut lacks_some = false;
        let mut suspects = Vec::new();
        let mut at = old.position + old.header.header_len();
        let visited = loop {
            let record = match self.slave.record(old, at) {
                Ok(Some(record)) => record,
                ended => break ended,
            };
            at = record.end;
            let presence = presence(index.get(record.oid));
            lacks_some |= presence != RecordPresence::Kept;
            let is_kept_by_packs = !matches!(record.data, OldData::Undone);
            // The root is always reachable, so no pack drops its last record.
            let is_suspect = presence == RecordPresence::Older
                || presence == RecordPresence::Gone && record.oid == ROOT;
            if is_suspect && is_kept_by_packs && suspects.len() < MAX_SUSPECTS {
                suspects.push(record.oid);
            }
        };
        self.note(visited);
        if !self.is_past_pack {
            self.suspect(old.header.tid, suspects);
        }
        lacks_some
    }

    fn suspect(&mut self, tid: Tid, oids: Vec<u64>) {
        self.suspects.extend(oids.into_iter().map(|oid| (oid, tid)));
        if self.suspects.len() >= MAX_SUSPECTS {
            self.fail(ComparisonFailure::Disorder);
            self.suspects.clear();
        }
    }

    /// Whether the current transaction of the copy was kept by a pack.
    fn is_packed_here(&self) -> bool {
        let is_packed = |begun: Begun| begun.header.status == TxnStatus::PACKED;
        !self.is_past_pack && self.begun.is_some_and(is_packed)
    }

    /// Reads the next transaction of the old slave.
    fn advance(&mut self) {
        let before = self.next.map(|old| old.header.tid);
        let read = self.slave.next();
        self.next = *read.as_ref().unwrap_or(&None);
        self.note(read);
        if self.next.is_some_and(|old| Some(old.header.tid) <= before) {
            self.fail(ComparisonFailure::Disorder);
        }
    }

    fn fail(&mut self, failure: ComparisonFailure) {
        self.evidence.failure = self.evidence.failure.max(Some(failure));
    }

    /// Records a failed read: the part of the slave that cannot be read may contain anything.
    fn note<T>(&mut self, read: io::Result<T>) {
        if let Err(error) = read {
            tracing::debug!("the old slave cannot be read: {error}");
            self.fail(ComparisonFailure::Unreadable);
        }
    }
}

#[cfg(test)]
mod tests;
