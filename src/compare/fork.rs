//! Finds the point at which slave and master fork.
//!
//! After a failover, the old master and the new one share a prefix, and each then has transactions
//! of its own. The fork point is the last transaction boundary up to which both files have the same
//! bytes. It is found in four steps; only digests and lists of transactions are sent:
//!
//! 1. Compare the digests of segments, from the start of the files, up to the first one that
//!    differs.
//! 2. Find the slave's boundaries around that segment, and compare the digests of ranges that end
//!    at one of them. Equal bytes have equal boundaries, so the fork point is one of the master's.
//! 3. Scan the slave's transactions after the fork point, and join them with the master's by tid.
//! 4. Compute the length of a file with these transactions only.
//!
//! A search by tids alone (`fork_point`) proves nothing about the bytes of the prefix.

use std::io;
use std::ops::Range;

use super::digests::{DigestPair, prove_prefix};
use super::join::{Queue, Step, step};
use super::lists::{MasterLists, SlaveLists, fill_queue};
use super::pair::FilePair;
use crate::error::Error;
use crate::filestorage::backward::{Backward, Preceding};
use crate::filestorage::extract::{ExtractError, extract};
use crate::filestorage::scan::{Event, Scanner, Visitor};
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::digest::Digest;
use crate::io::progress::Monitor;
use crate::io::window::Window;
use crate::plan::switch_on::TransactionRun;
use crate::plan::{CommonBytes, Fork, NoFork, extended};
use crate::slave::fields::{FieldReader, Unreadable};
use crate::slave::ledger::{LedgerEntry, segment_end};
use crate::slave::scan::scan_file;
use crate::slave::snapshot::SlaveFile;
use crate::source::{Master, MasterStat};

/// How many bytes of the slave are read at once to compute the length of the set-aside.
const WINDOW_LEN: usize = 64 * 1024;

/// The two files, and the functions that a search calls.
pub(crate) struct ForkSearch<'a> {
    /// The slave.
    pub(crate) file: &'a SlaveFile,
    /// The slave's position, in bytes.
    pub(crate) position: u64,
    /// The master.
    pub(crate) master: &'a Master,
    /// The master's file.
    pub(crate) master_stat: &'a MasterStat,
    /// Fails if the pass was cancelled.
    pub(crate) check_cancelled: &'a dyn Fn() -> Result<(), Error>,
    /// Gets the progress.
    pub(crate) monitor: &'a dyn Monitor,
}

/// The result of a search.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Which bytes are common.
    pub(crate) common: CommonBytes,
    /// The digests of the common bytes up to the fork point, for the ledger.
    pub(crate) proven: Vec<LedgerEntry>,
}

impl From<NoFork> for Found {
    fn from(why: NoFork) -> Self {
        Self {
            common: CommonBytes::NoFork(why),
            proven: Vec::new(),
        }
    }
}

impl ForkSearch<'_> {
    /// Searches for the fork point.
    pub(crate) fn run(&self) -> Result<Found, Error> {
        let reach = self.position.min(self.master_stat.size);
        let path = self.file.paths.data();
        let mut proven = prove_prefix(&self.file.file, path, self.master, 0..reach, self.monitor)?;
        let equal = proven.last().map_or(0, |last| last.range.end);
        if equal == self.position {
            let common = CommonBytes::All;
            return Ok(Found { common, proven });
        }
        // The first segment contains the magic, which is equal in most files.
        if equal == 0 && !self.is_equal(0..MAGIC_LEN)? {
            return Ok(NoFork::ShortPrefix.into());
        }
        let equal = equal.max(MAGIC_LEN);
        let differing = equal..reach.min(segment_end(equal));
        // Every later step reads the rest of the slave, so it must not be the greater part.
        if self.is_short(differing.end) {
            return Ok(NoFork::ShortPrefix.into());
        }
        let Some(boundary) = self.boundary_before(equal)? else {
            return Ok(NoFork::Incoherent.into());
        };
        let position = self.last_equal(boundary, differing)?;
        if self.is_short(position) {
            return Ok(NoFork::ShortPrefix.into());
        }
        let fork = match self.fork_at(position)? {
            Ok(fork) => fork,
            Err(why) => return Ok(why.into()),
        };
        self.end_at(position, &mut proven)?;
        let common = CommonBytes::UpTo(fork);
        Ok(Found { common, proven })
    }

    /// Whether a prefix is shorter than the rest of the slave.
    fn is_short(&self, prefix: u64) -> bool {
        prefix < self.position - prefix
    }

    /// The slave's last transaction boundary at or before `offset`, which is found backwards from
    /// the slave's position.
    fn boundary_before(&self, offset: u64) -> Result<Option<u64>, Error> {
        let mut transactions = Backward::new(self.file, self.position);
        let mut boundary = self.position;
        while boundary > offset {
            (self.check_cancelled)()?;
            match transactions.step()? {
                Preceding::Transaction(transaction) => boundary = transaction.position,
                // The offset is not before the start.
                Preceding::Start | Preceding::Incoherent => return Ok(None),
            }
        }
        Ok(Some(boundary))
    }

    /// The last boundary up to which both files have the same bytes. They have up to the start of
    /// `differing`, and `boundary` is the last one before that.
    fn last_equal(&self, boundary: u64, differing: Range<u64>) -> Result<u64, Error> {
        let mut boundaries = vec![boundary];
        let mut scanner = Scanner::resume(boundary, None, differing.end);
        self.scan(&mut scanner, &mut |event| {
            if let Event::Transaction(transaction) = event {
                boundaries.push(transaction.end);
            }
        })?;
        // Between these two indices, a boundary is equal before the one that is searched, and
        // unequal after it.
        let (mut equal, mut unequal) = (0, boundaries.len());
        while unequal - equal > 1 {
            let middle = usize::midpoint(equal, unequal);
            if self.is_equal(differing.start..boundaries[middle])? {
                equal = middle;
            } else {
                unequal = middle;
            }
        }
        Ok(boundaries[equal])
    }

    fn is_equal(&self, range: Range<u64>) -> Result<bool, Error> {
        let master = self.master.digest(range.clone());
        let pair = DigestPair::new(self.file.digest(range)?, master);
        Ok(pair.common()?.is_some())
    }

    /// Describes the slave's transactions after `position`.
    fn fork_at(&self, position: u64) -> Result<Result<Fork, NoFork>, Error> {
        let last_tid = match Backward::new(self.file, position).step()? {
            Preceding::Transaction(last) => Some(last.header.tid),
            Preceding::Start => None,
            Preceding::Incoherent => return Ok(Err(NoFork::Incoherent)),
        };
        let Some(own) = self.own_transactions(position, last_tid)? else {
            return Ok(Err(NoFork::Incoherent));
        };
        if let Some(why) = self.join(position)? {
            return Ok(Err(why));
        }
        let mut source = Window::new(&self.file.file, WINDOW_LEN);
        let path = self.file.paths.data();
        match extract(&mut source, position..self.position, &mut io::sink()) {
            Ok(set_aside_len) => Ok(Ok(Fork {
                position,
                last_tid,
                own,
                own_len: self.position - position,
                set_aside_len,
            })),
            Err(ExtractError::Invalid(at)) => {
                tracing::debug!("the record at {at} is invalid");
                Ok(Err(NoFork::Incoherent))
            }
            Err(ExtractError::Read(error) | ExtractError::Write(error)) => {
                Err(Error::io("read", path)(error))
            }
        }
    }

    /// The slave's transactions from `position` on; `None` if they do not end at its position.
    fn own_transactions(
        &self,
        position: u64,
        last_tid: Option<Tid>,
    ) -> Result<Option<TransactionRun>, Error> {
        let mut own = None;
        let mut scanner = Scanner::resume(position, last_tid, self.position);
        self.scan(&mut scanner, &mut |event| {
            if let Event::Transaction(transaction) = event {
                own = Some(extended(own, transaction.header.tid));
            }
        })?;
        Ok(own.filter(|_| scanner.position() == self.position))
    }

    fn scan(&self, scanner: &mut Scanner, visitor: &mut impl Visitor) -> Result<(), Error> {
        let check = |offset| {
            self.monitor
                .progress("reading the slave", offset, self.position);
            (self.check_cancelled)()
        };
        scan_file(
            &self.file.file,
            self.file.paths.data(),
            scanner,
            &check,
            visitor,
        )
    }

    /// Joins the transactions of both files after `position` by tid. Returns why the slave's are
    /// not its own; `None` if all are.
    fn join(&self, position: u64) -> Result<Option<NoFork>, Error> {
        let path = self.file.paths.data();
        let pair = FilePair {
            slave: FieldReader::new(
                &self.file.file,
                Unreadable::Error(path),
                self.check_cancelled,
            ),
            master: self.master,
        };
        let mut ours = Queue::of_slave(position, self.position);
        let mut theirs = Queue::of_master(position, self.master_stat.size);
        let mut our_lists = SlaveLists::new(pair, position, self.position);
        let mut their_lists = MasterLists::new(pair, self.master_stat, position);
        loop {
            (self.check_cancelled)()?;
            fill_queue(&mut ours, &mut our_lists)?;
            if ours.next().is_none() {
                return Ok(None);
            }
            fill_queue(&mut theirs, &mut their_lists)?;
            match step(&ours, &theirs) {
                Step::Slave => drop(ours.take()),
                Step::Master => drop(theirs.take()),
                Step::Replaced => {
                    ours.take();
                    theirs.take();
                }
                Step::Same | Step::Elsewhere => return Ok(Some(NoFork::SharedTransactions)),
                Step::BySlave | Step::ByMaster | Step::Stop(_) | Step::End => {
                    return Ok(Some(NoFork::Incoherent));
                }
            }
        }
    }

    /// Ends the digests of equal bytes at `position`.
    fn end_at(&self, position: u64, proven: &mut Vec<LedgerEntry>) -> Result<(), Error> {
        proven.retain(|entry| entry.range.end <= position);
        let start = proven.last().map_or(0, |last| last.range.end);
        if start < position {
            let range = start..position;
            let digest = Digest::of_file(&self.file.file, range.clone())
                .map_err(Error::io("read", self.file.paths.data()))?;
            proven.extend(digest.map(|digest| LedgerEntry { range, digest }));
        }
        Ok(())
    }
}
