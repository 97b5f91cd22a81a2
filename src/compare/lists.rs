//! Reads the lists of transactions that are joined: the slave's from the file, the master's
//! through its connection.

use super::join::Queue;
use super::pair::FilePair;
use crate::error::Error;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::filestorage::scan::{Scanner, Tail};
use crate::source::{FileId, MasterStat, Pending, Transactions};

/// A source of the transactions of one file, one part of the list at a time.
pub(crate) trait TransactionLists {
    /// Reads the next part of the list. It starts at offset `from`, where the previous part ended.
    fn next(&mut self, from: u64) -> Result<Transactions, Error>;
}

/// Reads as much of a list as the next step of the join needs.
pub(crate) fn fill_queue(
    queue: &mut Queue,
    lists: &mut impl TransactionLists,
) -> Result<(), Error> {
    while queue.wants_more() {
        let list = lists.next(queue.known())?;
        queue.add(&list);
    }
    Ok(())
}

/// The transactions of the slave.
pub(crate) struct SlaveLists<'a> {
    pair: FilePair<'a>,
    scanner: Scanner,
}

impl<'a> SlaveLists<'a> {
    /// Starts at the boundary `from`, and ends at offset `size`.
    pub(crate) fn new(pair: FilePair<'a>, from: u64, size: u64) -> Self {
        Self {
            pair,
            scanner: Scanner::resume(from, None, size),
        }
    }
}

impl TransactionLists for SlaveLists<'_> {
    fn next(&mut self, _: u64) -> Result<Transactions, Error> {
        let slave = self.pair.slave;
        Transactions::scan(&mut self.scanner, |buffer, at| {
            slave.read(buffer, at)?;
            Ok(buffer.len())
        })
    }
}

/// The transactions of the master. The next part is requested before it is needed.
pub(crate) struct MasterLists<'a> {
    pair: FilePair<'a>,
    identity: FileId,
    size: u64,
    requested: Option<Pending<Transactions>>,
    /// Offset that the scan at the master's end has reached, in bytes.
    reached: u64,
    /// Number of times that damage was read again.
    rereads: usize,
}

impl<'a> MasterLists<'a> {
    /// Starts at the boundary `from` of the file that `master_stat` describes.
    pub(crate) fn new(pair: FilePair<'a>, master_stat: &MasterStat, from: u64) -> Self {
        Self {
            pair,
            identity: master_stat.identity.clone(),
            size: master_stat.size,
            requested: Some(pair.master.transactions(from, master_stat.size)),
            reached: from,
            rereads: 0,
        }
    }

    fn changed(&self, what: &'static str) -> Error {
        Error::MasterChanged {
            master: self.pair.master.name().to_owned(),
            what,
        }
    }

    /// Updates the size of the master, which may have grown.
    fn update_size(&mut self) -> Result<(), Error> {
        let master_stat = self.pair.master.stat(Vec::new())?;
        if master_stat.identity != self.identity {
            return Err(self.changed("another file has replaced it"));
        }
        self.size = master_stat.size;
        Ok(())
    }
}

impl TransactionLists for MasterLists<'_> {
    fn next(&mut self, from: u64) -> Result<Transactions, Error> {
        let pending = match self.requested.take() {
            Some(pending) => pending,
            None => self.pair.master.transactions(from, self.size),
        };
        let mut list = pending.wait()?;
        if list.is_truncated(self.size) {
            return Err(self.changed("it was truncated"));
        }
        let known = list.entries.iter().fold(from, |at, entry| at + entry.len);
        match list.reached.end {
            Some(Tail::Damaged(_) | Tail::Torn) => {
                // It may be a write in progress, so read it again before it counts as damage.
                if let Some(wait) = REREAD_DELAYS.get(self.rereads) {
                    self.rereads += 1;
                    retry::wait(*wait);
                    self.update_size()?;
                    self.reached = known;
                    list.reached.end = None;
                }
            }
            Some(Tail::Clean | Tail::Short | Tail::Voted) => {}
            None if list.reached.offset <= self.reached => {
                return Err(self.changed("a list of its transactions made no progress"));
            }
            None => {
                self.reached = list.reached.offset;
                self.requested = Some(self.pair.master.transactions(known, self.size));
            }
        }
        Ok(list)
    }
}
