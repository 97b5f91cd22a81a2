//! Whether the copy of a master may take the place of the slave, so that nothing is lost.
//!
//! The copy comes by as the events of a scan, in file order. The old slave's transaction headers
//! are read alongside, and both are joined by their tids. What this finds is the
//! [`Evidence`], from which the plan decides.
//!
//! # Which transactions a pack drops
//!
//! A pack at time P (ZODB 6.4, `fspack.py`) leaves every transaction above P as it was. At or
//! below P it keeps, of each object that is reachable from the root at P, the record that was
//! current at P. A transaction that keeps a record gets status `p`; one that keeps none is
//! dropped. One more kind of record is kept: an older one that a transaction above P points back
//! to, because somebody undid a change. So in a packed file all transactions up to P have status
//! `p` and precede all others, and a pack explains a lost transaction T if
//!
//! 1. the master was packed after the slave's bytes were copied: it has a transaction of status
//!    `p` that the slave has with another status, or that is newer than the slave;
//! 2. T is not newer than P: the master has a transaction of status `p` that is newer than T, and
//!    none before it with another status. If T is newer than all of status `p`, but no older one
//!    has another status, P may still have been later than T: that is a doubt;
//! 3. for each data record of T: up to P, the master either has a newer record of that object, or
//!    none at all. A record that undid the creation of its object does not count: no pack keeps
//!    it.
//!
//! Rule 3 separates a pack from a repair that was packed afterwards (`fsrecover -P` does both).
//! Assume that a repair dropped T, and that a pack of the intact file would have kept a record of
//! T. Take the first such record on the way from the root to any object, as of P. The objects
//! before it on that way look the same in the repaired file, so the pack came to this object too.
//! There it found an older record of the object, and kept it, which rule 3 notices; or it found
//! none, and then ZODB's pack fails (`KeyError`) and leaves no file. The way starts at the root,
//! which is always there.
//!
//! A common transaction may lack data records too: up to P by rule 3, above P never. The user
//! name, the description and the data of each record that both have must be equal: neither a pack
//! nor anything else that ZODB does changes them.
//!
//! # What these rules cannot tell
//!
//! - A file that was packed first, was then damaged and repaired, and is copied for the first
//!   time after that. A pass that meets the damage notes it in the sidecar, and the plan knows.
//! - A repair, a new edit of every object that the lost transaction changed, and a pack, all
//!   between two passes.
//! - A repaired file that was packed without garbage collection (`pack_gc=False`): such a pack
//!   does not fail if an object is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;

use super::old_slave::{OldData, OldRecord, OldSlaveReader};
use crate::filestorage::index::Index;
use crate::filestorage::record::{DATA_HEADER_LEN, DataHeader, TXN_HEADER_LEN};
use crate::filestorage::scan::{Event, Transaction};
use crate::filestorage::{Tid, TxnHeader, TxnStatus};
use crate::plan::{ComparisonFailure, Evidence, extended};

/// The root's oid.
const ROOT: u64 = 0;

/// How many objects may be suspected at a time; an honest pack makes very few.
const MAX_SUSPECTS: usize = 4096;

/// Joins an old slave with the copy that is to replace it.
#[derive(Debug)]
pub struct Succession<'a> {
    slave: OldSlaveReader<'a>,
    /// The old slave's next transaction that the copy has not come to.
    next: Option<Transaction>,
    /// The tid of the old slave's last transaction.
    last_tid: Option<Tid>,
    begun: Option<Begun>,
    /// Whether a transaction of another status than `p` came by: the rest is newer than P.
    is_past_pack: bool,
    /// Objects that break rule 3 so far, each with the tid of the record that the copy lacks: only a
    /// newer record up to P explains that.
    suspects: BTreeMap<u64, Tid>,
    /// Bytes of the copy that are still to come, or to be compared, in their order.
    expected: VecDeque<Expected>,
    evidence: Evidence,
}

/// Bytes that the copy and the old slave must have in common.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// Where they are in the copy.
    at: u64,
    len: u64,
    /// Where they are in the old slave.
    old: u64,
    /// The transaction that they belong to.
    tid: Tid,
}

/// The transaction of the copy that was begun last.
#[derive(Clone, Copy, Debug)]
struct Begun {
    position: u64,
    header: TxnHeader,
    /// The old slave's transaction of the same tid, and where its next data record is.
    common: Option<(Transaction, u64)>,
}

/// What became of a data record of the old slave's in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It is there.
    Kept,
    /// The copy has no record of the object so far.
    Gone,
    /// The copy's last record of the object so far is an older one.
    Older,
}

impl<'a> Succession<'a> {
    /// The join of `file`, a slave whose committed transactions end at `position` bytes with
    /// `last_tid`, and of a copy that is scanned from its start.
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

    /// Takes an event of the copy's scan; `index` is that of all records that came by,
    /// this event's included, or `None` if there is none.
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

    /// Takes the bytes of the copy from `offset` on, once their events came by.
    pub fn take_bytes(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        while let Some(mut expected) = self.expected.pop_front() {
            if expected.at >= end {
                self.expected.push_front(expected);
                break;
            }
            let len = expected.len.min(end - expected.at);
            let Some(from) = expected.at.checked_sub(offset) else {
                // They came by before they were asked for, so nothing is known of them.
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

    /// All that was found, once the copy has come by whole.
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
        // A scan that goes back to a transaction begins it again.
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

    /// Compares a data record of a common transaction with the old slave's. Those that the copy
    /// lacks are passed on the way.
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
            // It points to an older record, which is compared itself.
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

    /// The next data record of an object in an old transaction, from `at` on.
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

    /// Notes that the copy has other data in a transaction.
    fn alter(&mut self, tid: Tid) {
        self.evidence.altered = Some(extended(self.evidence.altered, tid));
    }

    fn end(&mut self, copied: &Transaction, index: Option<&Index>) {
        let common = self.begun.and_then(|begun| begun.common);
        let common = common.map(|(old, _)| old);
        if copied.header.status != TxnStatus::PACKED {
            self.is_past_pack = true;
        } else if !self.is_past_pack {
            // Rule 2: none that the copy lacks so far is newer than P.
            self.evidence.doubtful = None;
            // Rule 1.
            let is_newer = Some(copied.header.tid) > self.last_tid;
            let was_unpacked = common.is_some_and(|old| old.header.status != TxnStatus::PACKED);
            self.evidence.is_packed |= is_newer || was_unpacked;
        }
        // Of the same length, it has as many records: a pack that drops one makes it shorter.
        if let Some(old) = common.filter(|old| old.header.tlen != copied.header.tlen) {
            self.compare_records(&old, copied, index);
        }
    }

    /// The copy lacks a transaction.
    fn miss(&mut self, old: &Transaction, index: Option<&Index>) {
        self.lack(old.header.tid);
        // Past the pack, rule 2 has decided.
        if !self.is_past_pack {
            let doubtful = &mut self.evidence.doubtful;
            *doubtful = Some(extended(*doubtful, old.header.tid));
            self.judge_records(old, index, |found| {
                found.map_or(Presence::Gone, |_| Presence::Older)
            });
        }
    }

    /// The copy has a transaction in another length: which of its data records does it lack?
    fn compare_records(&mut self, old: &Transaction, copied: &Transaction, index: Option<&Index>) {
        let here = copied.position..copied.end;
        let lacks_some = self.judge_records(old, index, |found| match found {
            Some(position) if here.contains(&position) => Presence::Kept,
            Some(_) => Presence::Older,
            None => Presence::Gone,
        });
        if lacks_some {
            self.lack(old.header.tid);
        }
    }

    /// Notes that the copy lacks a transaction, or a part of it.
    fn lack(&mut self, tid: Tid) {
        let evidence = &mut self.evidence;
        evidence.missing = Some(extended(evidence.missing, tid));
        if self.is_past_pack {
            evidence.unexplained = Some(extended(evidence.unexplained, tid));
        }
    }

    /// Applies rule 3 to each data record of an old transaction; `presence` judges by the position
    /// of the object's last record in the copy so far. Says whether the copy lacks one.
    fn judge_records(
        &mut self,
        old: &Transaction,
        index: Option<&Index>,
        presence: impl Fn(Option<u64>) -> Presence,
    ) -> bool {
        // ZODB does not look at the records of such a transaction.
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
            lacks_some |= presence != Presence::Kept;
            let is_kept_by_packs = !matches!(record.data, OldData::Undone);
            // The root is reachable at any time, so it cannot be gone.
            let is_suspect =
                presence == Presence::Older || presence == Presence::Gone && record.oid == ROOT;
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

    /// Whether the transaction that was begun is one that a pack kept.
    fn is_packed_here(&self) -> bool {
        let is_packed = |begun: Begun| begun.header.status == TxnStatus::PACKED;
        !self.is_past_pack && self.begun.is_some_and(is_packed)
    }

    /// Goes to the old slave's next transaction.
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

    /// A slave that cannot be read may hold anything.
    fn note<T>(&mut self, read: io::Result<T>) {
        if let Err(error) = read {
            tracing::debug!("the old slave cannot be read: {error}");
            self.fail(ComparisonFailure::Unreadable);
        }
    }
}

#[cfg(test)]
mod tests;
